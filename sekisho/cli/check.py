"""`sekisho check`: the gate's judgement of a working copy, in a process of its own."""

from __future__ import annotations

import subprocess
from pathlib import Path

from sekisho.errors import UsageError
from sekisho.programs import program, surroundings

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
    command = program("stages.check", str(path.resolve()), "--format", form)
    command += ["--all"] if whole else []
    code = subprocess.run(command, env=surroundings(), check=False).returncode
    return code if code in _YES_OR_NO else 1
