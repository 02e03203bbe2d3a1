"""The step that installs packages: the same for every workload with the same lock."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from stages.build.language import Step

DEPENDENCIES = "opt/deps"
"""Folder of the packages in the image; not below the application's, so that no file of it can stand in for one."""


@cache
def install_step() -> Step:
    """Return the step `dependencies`, which leaves the packages in /out/opt/deps."""
    return Step(
        name="dependencies",
        command=("python3", "/in/line/install.py", f"/out/{DEPENDENCIES}", f"/{DEPENDENCIES}"),
        packages=True,
        files={"install.py": Path(__file__).with_name("python_install.py").read_bytes()},
        keep=True,
        what="install of the packages",
    )
