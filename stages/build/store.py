"""The builder's cache: folders of files by the digest of all that decides them, written by the line alone.

No step ever writes to it: an entry is written from what `pack` has read and checked, into a folder of its own, and
appears whole or not at all. At each use every file is compared with the entry's note by size, times of change and
inode, as git's index does; where anything differs, and in any case once a day, every byte is hashed again, and an
entry that is not what it was is dropped, to be made anew. So a build gives the same image whether or not the cache
is there (SLSA v1.2, build requirements, "Isolated").

The cache is bounded, by what its entries take on the disk and not by what is in their files: many small ones take much
more. What was not used for longest goes first, and nothing goes that a running build holds.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sekisho.canonical import Digest, digest_of_file, hex_of
from sekisho.errors import PermanentError
from stages.build.pack import Entry
from stages.build.unpack import write_tree

_CONTENT = "content"
_NOTE = "note.json"
_SIZE = "size"
_DAY = 86_400
_FORMAT = 1
_PAGE = 4096
"""Bytes that a disk gives out at a time: what the smallest file takes, and a folder."""
_ON_DISK = "disk "
"""Before the number in an entry's size; without it, it is the bytes of its files alone, as it was written once."""


@dataclass(frozen=True)
class Kept:
    """An entry in use."""

    folder: Path
    """Its files; to be read only."""
    noted: Mapping[str, Sequence[Any]] = field(repr=False)
    data: Mapping[str, Any]
    """What was noted with it."""

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Its files as a list; their names and links were checked before they were written."""
        return tuple(_entry(self.folder, path, seen) for path, seen in self.noted.items())


class Store:
    """Entries by key. Safe for use by several threads and processes.

    Args:
        root: folder of the cache; made if missing.
        size: bytes that all entries may take on the disk together.
        clock: seconds since the epoch.
    """

    def __init__(self, root: Path, size: int, *, clock: Callable[[], float] = time.time) -> None:
        self._root = root
        self._size = size
        self._clock = clock
        root.mkdir(parents=True, exist_ok=True)
        for path in (*root.glob(".make-*"), *root.glob(".gone-*")):
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < clock() - _DAY:
                    _remove(path)

    def find(self, key: Digest, held: ExitStack) -> Kept | None:
        """Return an entry that is there and whole, and hold it until `held` is closed."""
        place = self._root / hex_of(key)
        with ExitStack() as stack:
            if not stack.enter_context(_holding(place)):
                return None
            kept = self._checked(place)
            if kept is not None:
                with suppress(OSError):
                    os.utime(place / _SIZE)
                held.push(stack.pop_all())
                return kept
        self._drop(place)
        return None

    def add(
        self, key: Digest, entries: tuple[Entry, ...], held: ExitStack, *, data: Mapping[str, Any] | None = None
    ) -> Kept:
        """Write an entry, and hold it until `held` is closed.

        Args:
            key: digest of all that decides the entry.
            entries: what is in it; names and links were checked by `pack`.
            held: keeps it from being removed.
            data: what to note with it, as JSON.
        """
        with tempfile.TemporaryDirectory(dir=self._root, prefix=".make-") as scratch:
            ready = Path(scratch) / "ready"
            content = ready / _CONTENT
            content.mkdir(parents=True)
            digests = write_tree(entries, content)
            listed = {path: [*now, digests[path]] for path, now in _listing(content).items()}
            _note(ready, {"format": _FORMAT, "checked": self._clock(), "files": listed, "data": dict(data or {})})
            (ready / _SIZE).touch()
            (ready / _SIZE).write_text(f"{_ON_DISK}{_on_disk(ready)}", encoding="ascii")
            place = self._root / hex_of(key)
            for _ in range(2):
                try:
                    ready.rename(place)
                except OSError:  # somebody made the same in the meantime
                    found = self.find(key, held)
                    if found is not None:
                        return found
                else:
                    break
            scratch_left = ready.exists()
        kept = None if scratch_left else self.find(key, held)
        if kept is None:
            raise PermanentError(
                "The builder's cache does not keep what is written to it.",
                where=str(self._root),
                remedy="See whether the disk is full or another program cleans this folder.",
            )
        self.trim()
        return kept

    def trim(self) -> None:
        """Remove what was not used for longest until the rest is within the bound."""
        entries = []
        for place in self._root.iterdir():
            if not place.name.startswith("."):
                with suppress(OSError, ValueError):
                    entries.append((*_mark(place), place))
        total = sum(bytes_ for _, bytes_, _ in entries)
        for _, bytes_, place in sorted(entries):
            if total <= self._size:
                return
            if self._drop(place):
                total -= bytes_

    def _drop(self, place: Path) -> bool:
        """Remove an entry unless somebody holds it."""
        try:
            descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _same(descriptor, place):
                return False
            gone = Path(tempfile.mkdtemp(dir=self._root, prefix=".gone-"))
            place.rename(gone / "entry")
        except OSError:
            return False
        finally:
            os.close(descriptor)
        _remove(gone)
        return True

    def _checked(self, place: Path) -> Kept | None:
        content = place / _CONTENT
        try:
            note = json.loads((place / _NOTE).read_bytes())
            files: dict[str, list[Any]] = note["files"]
            if note["format"] != _FORMAT:
                return None
            now = _listing(content)
            fresh = 0 <= self._clock() - note["checked"] < _DAY
            if not (
                fresh and len(now) == len(files) and all(files.get(path, ())[:-1] == seen for path, seen in now.items())
            ):
                if not _whole(content, files, now):
                    return None
                note |= {
                    "checked": self._clock(),
                    "files": {path: [*seen, files[path][-1]] for path, seen in now.items()},
                }
                _note(place, note)
            return Kept(content, note["files"], note["data"])
        except (OSError, ValueError, KeyError, TypeError, IndexError):
            return None


def _listing(content: Path) -> dict[str, list[int]]:
    """Return for each file and link what would be different had anybody touched it."""
    found: dict[str, list[int]] = {}
    todo = [(str(content), "")]
    while todo:
        folder, prefix = todo.pop()
        with os.scandir(folder) as listing:
            for item in listing:
                status = item.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    todo.append((item.path, f"{prefix}{item.name}/"))
                else:
                    found[prefix + item.name] = [
                        status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino
                    ]  # fmt: skip
    return found


def _on_disk(place: Path) -> int:
    """Return the bytes that an entry takes, each file and folder rounded up; a file with several names for each."""
    pages = 1
    for folder, below, files in os.walk(place):
        pages += len(below)  # links to folders among them
        for name in files:
            size = os.stat(os.path.join(folder, name), follow_symlinks=False).st_size  # noqa: PTH116, PTH118  (many)
            pages += max(1, -(-size // _PAGE))
    return pages * _PAGE


def _mark(place: Path) -> tuple[float, int]:
    """Return when an entry was used last, and what it takes on the disk; counted once where that is not noted yet."""
    mark = place / _SIZE
    status, said = mark.stat(), mark.read_text(encoding="ascii")
    if said.startswith(_ON_DISK):
        return status.st_mtime, int(said.removeprefix(_ON_DISK))
    size = _on_disk(place)
    part = place / f".{_SIZE}.{os.getpid()}.{threading.get_ident()}"
    part.write_text(f"{_ON_DISK}{size}", encoding="ascii")
    os.utime(part, ns=(status.st_atime_ns, status.st_mtime_ns))
    part.replace(mark)
    return status.st_mtime, size


def _whole(content: Path, noted: Mapping[str, list[Any]], now: Mapping[str, list[int]]) -> bool:
    """Tell whether every byte and every mode is as it was written."""
    if noted.keys() != now.keys():
        return False
    for path, (mode, *_) in now.items():
        place = content / path
        if mode != noted[path][0]:
            return False
        digest = f"link:{place.readlink()}" if stat.S_ISLNK(mode) else hex_of(digest_of_file(place))
        if digest != noted[path][-1]:
            return False
    return True


def _entry(content: Path, path: str, seen: Sequence[Any]) -> Entry:
    mode, size, *_, digest = seen
    if stat.S_ISLNK(mode):
        return Entry(path, "link", target=digest.removeprefix("link:"))
    return Entry(path, "file", bool(mode & 0o111), size, source=content / path)


def _note(folder: Path, note: Mapping[str, Any]) -> None:
    part = folder / f".{_NOTE}.{os.getpid()}"
    part.write_text(json.dumps(note, separators=(",", ":")), encoding="utf-8")
    part.replace(folder / _NOTE)


@contextmanager
def _holding(place: Path) -> Iterator[bool]:
    """Hold an entry, so that nobody removes it; False if it is not there."""
    try:
        descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        yield False
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield _same(descriptor, place)
    finally:
        os.close(descriptor)


def _same(descriptor: int, place: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), place.stat(follow_symlinks=False))
    except OSError:
        return False


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
