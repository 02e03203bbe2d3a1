"""A copy of a working copy's files that holds still while they are built."""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sekisho.errors import Refusal
from stages.working_copy import files_of

_RECENT_SECONDS = 2.0


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
