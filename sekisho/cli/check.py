"""`sekisho check`: the gate's judgement of a working copy, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from sekisho.errors import UsageError

_YES_OR_NO = (0, 1, 2)


def check(path: Path, *, form: str, whole: bool) -> int:
    """Run the stages' own check and return its exit code.

    Args:
        path: the working copy.
        form: text, json or sarif.
        whole: show every rule, also those that passed.

    Raises:
        UsageError: there is no such folder.
    """
    if not path.is_dir():
        raise UsageError(
            "There is no such folder.", where=str(path), remedy="Give the folder of a workload's working copy."
        )
    command = [sys.executable, "-m", "stages.check", str(path.resolve()), "--format", form]
    command += ["--all"] if whole else []
    code = subprocess.run(command, check=False).returncode
    return code if code in _YES_OR_NO else 1
