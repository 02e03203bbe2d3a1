"""Starting another program of this project, by the code that runs now and never by what lies in the current folder.

`python -m` puts the current folder before the standard library, and our commands are called in folders that hold
strangers' code: a `queue.py` in a cloned repository would run outside of any sandbox, under sudo as root. `-P` leaves
that folder out. A checkout that is not installed is then no longer found by chance, so its own folder is named.
"""

from __future__ import annotations

import os
import site
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
"""The folder that holds sekisho, stages and flows."""
_PATH = "PYTHONPATH"


def program(module: str, *arguments: str) -> list[str]:
    """Return the command line that runs a module with this Python.

    Args:
        module: its full name.
        arguments: the program's own.
    """
    return [sys.executable, "-P", "-m", module, *arguments]


def surroundings(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment in which a program finds the same code as this process.

    Args:
        environment: what it is to have besides; None for this process's own.
    """
    given = dict(os.environ if environment is None else environment)
    if str(_ROOT) in _installed():
        return given
    # Not from sys.path: the current folder may stand in it.
    given[_PATH] = os.pathsep.join(filter(None, (str(_ROOT), given.get(_PATH, ""))))
    return given


def _installed() -> frozenset[str]:
    """Return the folders that every Python of this environment searches; in front, they would hide its own library."""
    paths = sysconfig.get_paths()
    found = (paths["purelib"], paths["platlib"], *site.getsitepackages(), site.getusersitepackages())
    return frozenset(os.path.realpath(path) for path in found)
