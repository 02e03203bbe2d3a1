"""Which files of a folder are the workload's, as git knows it.

The gate sees what is committed. A developer's folder holds more: environments, caches, build results. Where git knows
the folder, its own rules decide: tracked files, and new ones that are not ignored, as if all were committed now.
"""

from __future__ import annotations

import os
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from sekisho.errors import Refusal

_SECONDS = 30
IGNORED = frozenset(
    {
        ".git",
        ".hg",
        ".svn",
        ".venv",
        "venv",
        "node_modules",
        "__pycache__",
        ".mypy_cache",
        ".pytest_cache",
        ".ruff_cache",
        ".tox",
        ".idea",
        ".vscode",
        ".gradle",
        ".DS_Store",
    }
)
"""Names that nobody commits; they count where no git says which files are the workload's."""


@dataclass(frozen=True)
class Head:
    """The commit that a working copy stands on; a folder without git has none."""

    commit: str = ""
    time: int = 0
    """Committer time, seconds since the epoch."""


def head(folder: Path) -> Head:
    """Return the commit that a folder stands on."""
    found = git_says(folder, "log", "-1", "--format=%H %ct", "HEAD")
    commit, _, time = (found or b"").decode("ascii", "replace").strip().partition(" ")
    return Head(commit, int(time)) if time.isdigit() else Head()


def is_clean(folder: Path) -> bool:
    """Tell whether a folder is exactly what its commit says, so that what is built of it is what the gate builds."""
    return git_says(folder, "status", "--porcelain=v1", "-z", "--untracked-files=normal", "--", ".") == b""


def files_of(folder: Path) -> tuple[str, ...]:
    """Return the paths of the workload's files, sorted; what git ignores is left out.

    Raises:
        Refusal: the folder is gone, or cannot be read.
    """
    listed = git_says(
        folder, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate", "--", "."
    )
    if listed is None:
        return walked(folder)
    names = {os.fsdecode(name) for name in listed.split(b"\0") if name}
    return tuple(sorted(name for name in names if is_content(folder / name)))


def tracked(folder: Path) -> tuple[str, ...]:
    """Return the paths that git tracks in a folder; none where there is no git."""
    listed = git_says(folder, "ls-files", "-z", "--cached", "--", ".") or b""
    return tuple(os.fsdecode(name) for name in listed.split(b"\0") if name)


def walked(folder: Path) -> tuple[str, ...]:
    """Return the paths of a folder's files, without git's word: all but what nobody commits.

    Raises:
        Refusal: the folder cannot be read.
    """
    found: list[str] = []

    def failed(error: OSError) -> None:
        raise Refusal(
            f"The folder cannot be read: {error.strerror}.", where=str(error.filename), remedy="Make it readable."
        )

    for current, folders, names in os.walk(folder, onerror=failed):
        folders[:] = sorted(name for name in folders if name not in IGNORED)
        links = [name for name in folders if (Path(current) / name).is_symlink()]
        for name in (*names, *links):
            path = Path(current) / name
            if name not in IGNORED and not name.endswith(".pyc") and is_content(path):
                found.append(path.relative_to(folder).as_posix())
    return tuple(sorted(found))


def is_content(path: Path) -> bool:
    """Tell whether there is a file or a link; sockets of editors and the like are nobody's content."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) or stat.S_ISLNK(mode)


def git_says(folder: Path, *arguments: str, data: bytes = b"") -> bytes | None:
    """Return what git says about a folder, told `data`; None where it says nothing."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), "-c", "core.fsmonitor=false", *arguments],
            env=environment | {"GIT_OPTIONAL_LOCKS": "0", "GIT_NO_LAZY_FETCH": "1", "LC_ALL": "C"},
            input=data,
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
