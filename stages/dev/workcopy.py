"""Which files of a folder are the workload's, and a copy of them that holds still while they are built.

The gate sees what is committed. A developer's folder holds more: environments, caches, build results. Where git knows
the folder, its own rules decide: tracked files, and new ones that are not ignored, as if all were committed now.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sekisho.errors import Refusal

_SECONDS = 30
_RECENT_SECONDS = 2.0
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


@dataclass(frozen=True)
class _Seen:
    """What tells one state of a file from another."""

    size: int
    time: int
    inode: int
    mode: int

    @classmethod
    def of(cls, status: os.stat_result) -> _Seen:
        return cls(status.st_size, status.st_mtime_ns, status.st_ino, status.st_mode)


class Copy:
    """A copy of the workload's files, brought up to date with as little copying as possible.

    Args:
        source: the working copy.
        target: the copy's folder; made anew.
    """

    def __init__(self, source: Path, target: Path) -> None:
        self._source = source
        self.folder = target
        self._seen: dict[str, _Seen] = {}
        self.saved_at = 0.0
        """When the newest of the last changes was saved, by its own time (as time.monotonic tells)."""
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        target.chmod(0o755)

    def update(self) -> tuple[str, ...]:
        """Bring the copy up to date; returns the paths that changed, went or came.

        Raises:
            Refusal: a file cannot be read.
        """
        now = self._look()
        changed = [path for path, seen in now.items() if self._seen.get(path) != seen]
        gone = [path for path in self._seen if path not in now]
        for path in gone:
            self._remove(path)
        for path in changed:
            self._take(path)
        self._seen = dict(now)
        age = time.time() - max((now[path].time / 1e9 for path in changed), default=0.0)
        # A file that was moved here is older than its coming.
        self.saved_at = time.monotonic() - (age if 0 <= age < _RECENT_SECONDS else 0.0)
        return tuple(sorted([*changed, *gone]))

    def _look(self) -> Mapping[str, _Seen]:
        found = {}
        for path in files_of(self._source):
            try:
                found[path] = _Seen.of((self._source / path).lstat())
            except OSError:  # gone since it was listed
                continue
        return found

    def _remove(self, path: str) -> None:
        place = self.folder / path
        place.unlink(missing_ok=True)
        for parent in _between(place.parent, self.folder):
            try:
                parent.rmdir()
            except OSError:
                return

    def _take(self, path: str) -> None:
        source, place = self.folder.parent / f".{self.folder.name}.part", self.folder / path
        source.unlink(missing_ok=True)
        try:
            shutil.copy2(self._source / path, source, follow_symlinks=False)
            if not source.is_symlink():
                # As git would keep it; the sandbox's user reads it, whatever the developer's umask is.
                source.chmod(0o755 if source.stat().st_mode & stat.S_IXUSR else 0o644)
        except FileNotFoundError:
            self._remove(path)
            return
        except OSError as error:
            raise Refusal(
                f"A file cannot be read: {error.strerror}.", where=path, remedy="Make it readable."
            ) from error
        self._make_way(place)
        source.replace(place)

    def _make_way(self, place: Path) -> None:
        """What was a file may be a folder now, and the other way round."""
        for parent in reversed(list(_between(place.parent, self.folder))):
            if parent.is_symlink() or parent.is_file():
                parent.unlink()
            parent.mkdir(exist_ok=True)
            parent.chmod(0o755)
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place)


def _between(folder: Path, top: Path) -> Iterable[Path]:
    """Yield a folder and those above it, up to and without `top`."""
    while folder != top:
        yield folder
        folder = folder.parent
