"""The tools of the embedded clusters: pinned, fetched or built, and found.

tools.lock.json says what; `python -m sekisho.tools ensure` brings it; `tool(name)` says where it is.
"""

from __future__ import annotations

from sekisho.tools.ensure import ToolStatus, ensure, report
from sekisho.tools.locate import bin_directory, tool, trivy

__all__ = ["ToolStatus", "bin_directory", "ensure", "report", "tool", "trivy"]
