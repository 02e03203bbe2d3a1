"""Python: a lock file, a Procfile, wheels."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from sekisho.errors import Refusal
from stages.build.compose import Runtime
from stages.build.locks import Locked, missing_lock, parse_requirements

APPLICATION = "app"
"""Folder of the application in the image."""
DEPENDENCIES = "opt/deps"
"""Folder of the packages in the image; not below the application's, so that no file of it can stand in for one."""
INSTALL_RECIPE = "pip-target/1"

_FILE_LIMIT = 2 << 20
_WEB = re.compile(r"^web\s*:\s*(.+?)\s*$")
_SHELL = re.compile(r"[$`;&|<>*?~(){}\[\]!\n]|^\w+=")


def packages(tree: Path) -> tuple[Locked, ...]:
    """Return what the workload's lock file pins.

    Raises:
        Refusal: there is none, or it is not a lock.
    """
    path = tree / "requirements.txt"
    if path.is_symlink() or not path.is_file():
        raise missing_lock(tree.name)
    with path.open("rb") as file:
        return parse_requirements(file.read(_FILE_LIMIT + 1))


def runtime(tree: Path) -> Runtime:
    """Return how the workload starts, from the `web` line of its Procfile.

    The command is run as it stands, without a shell: a signal reaches the program itself.

    Raises:
        Refusal: no Procfile, no `web` line, or a command that needs a shell.
    """
    remedy = "Write a line such as `web: python -m yourpackage` into Procfile."
    path = tree / "Procfile"
    if path.is_symlink() or not path.is_file():
        raise Refusal("There is no Procfile: nothing says how the workload starts.", where=tree.name, remedy=remedy)
    with path.open("rb") as file:
        text = file.read(_FILE_LIMIT).decode("utf-8", "replace")
    found = [(number, match[1]) for number, line in enumerate(text.splitlines(), 1) if (match := _WEB.match(line))]
    if len(found) != 1:
        raise Refusal(f"The Procfile has {len(found)} `web` lines, not one.", where="Procfile", remedy=remedy)
    number, command = found[0]
    where = f"Procfile:{number}"
    if _SHELL.search(command):
        raise Refusal(
            f"The command {command[:80]!r} needs a shell, and there is none between the workload and its signals.",
            where=where,
            remedy="Read variables and set defaults in the program; listen on the port that score.yaml names.",
        )
    try:
        words = tuple(shlex.split(command))
    except ValueError as error:
        raise Refusal(f"The command cannot be read: {error}", where=where, remedy=remedy) from error
    path_entries = [f"/{APPLICATION}", f"/{DEPENDENCIES}"]
    if (tree / "src").is_dir() and not (tree / "src").is_symlink():
        path_entries.insert(0, f"/{APPLICATION}/src")
    environment = {
        "PATH": f"/{DEPENDENCIES}/bin:/usr/local/bin:/usr/bin:/bin",
        "PYTHONPATH": ":".join(path_entries),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
    }
    return Runtime(command=words, directory=f"/{APPLICATION}", environment=environment)


def install_command() -> tuple[str, ...]:
    """Return the command that installs fetched wheels in the sandbox; it checks every hash once more."""
    return (
        "python3", "-m", "pip", "install", "--no-index", "--no-deps", "--no-compile", "--require-hashes",
        "--find-links", "/in/wheels", "--target", f"/out/{DEPENDENCIES}", "--no-cache-dir",
        "--disable-pip-version-check", "--no-input", "--requirement", "/in/wheels/requirements.txt",
    )  # fmt: skip
