"""`sekisho dev`: the working copy in the dev cluster; a program of its own takes this process's place."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from sekisho.errors import UsageError
from sekisho.programs import program, surroundings


def dev(path: Path, *, port: int, who: str, optimised: bool, as_json: bool) -> None:
    """Become the stages' own program: Ctrl-C, a closed terminal and the exit code are then its own.

    Raises:
        UsageError: there is no such folder.
    """
    if not path.is_dir():
        raise UsageError(
            "There is no such folder.", where=str(path), remedy="Give the folder of a workload's working copy."
        )
    sys.stdout.flush()
    command = program("stages.dev", str(path.resolve()), "--port", str(port), "--as", who)
    command += [word for word, given in (("--optimised", optimised), ("--json", as_json)) if given]
    os.execve(command[0], command, surroundings())  # noqa: S606
