"""The store of fetched files: by sha256, shared by every builder of the zone, and believed by none.

    files/<2>/<sha256>     the bytes, read-only
    known/<2>/<key>        a symbolic link whose text is a sha256: what was once found under a digest of another
                           kind, or at a path of an index; a hint that saves a download, and proves nothing
    sets/<key>/list        the files that one set of packages uses; locked (flock) by whoever uses it now, and dated
                           by its last use
    sets/<key>/packages/   the set laid out as the sandbox sees it, of hard links to files/
    part/                  downloads in passing

A process that ends, however, lets go of its locks with it; so nothing has to be cleaned up after a crash.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

DEFAULT_LIMIT = 8 << 30
"""Bytes of all files; what is in use now may exceed it."""
_KEEP_PART_SECONDS = 24 * 3600
_KEEP_SET_SECONDS = 7 * 24 * 3600
_MAX_HINT = 64
_SHA256 = re.compile(r"[0-9a-f]{64}")


def key_of(*parts: str) -> str:
    """Return a name for a list of lines."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


class Use:
    """Files in use: as long as this is open, and its process lives, eviction leaves them alone."""

    def __init__(self, descriptor: int, known: set[str]) -> None:
        self._descriptor = descriptor
        self._known = known
        self._lock = threading.Lock()

    def add(self, hashes: Iterable[str]) -> None:
        """Say that files are in use; to be said before one relies on them."""
        with self._lock:
            new = sorted(set(hashes) - self._known)
            if new:
                os.write(self._descriptor, "".join(f"{sha256}\n" for sha256 in new).encode("ascii"))
                self._known.update(new)

    def close(self) -> None:
        """Let go of them."""
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1

    def __del__(self) -> None:
        self.close()


class Store:
    """Files by sha256.

    Args:
        root: folder of the store; made if missing.
        limit: bytes of all files.
    """

    def __init__(self, root: Path, *, limit: int = DEFAULT_LIMIT) -> None:
        self.root = root
        self.limit = limit
        for name in ("files", "known", "sets", "part"):
            (root / name).mkdir(parents=True, exist_ok=True)
        (root / "lock").touch()

    def path(self, sha256: str) -> Path:
        """Return where the file of a sha256 stands, if it does."""
        return Path(self.name(sha256))

    def name(self, sha256: str) -> str:
        """Return the same as text: for a thousand files at a time a `Path` each is what costs most."""
        return f"{self.root}/files/{sha256[:2]}/{sha256}"

    def hint(self, *parts: str) -> str:
        """Return the sha256 that was noted under a name; empty where there is none."""
        try:
            found = os.readlink(self._known(parts))  # noqa: PTH115 -- as above
        except OSError:
            return ""
        return found if _SHA256.fullmatch(found) else ""

    def note(self, sha256: str, *parts: str) -> None:
        """Note a sha256 under a name."""
        place = Path(self._known(parts))
        with contextlib.suppress(OSError):
            if str(place.readlink()) == sha256:
                return
        place.parent.mkdir(exist_ok=True)
        part = place.with_name(f"{place.name}.{os.getpid()}.{threading.get_ident()}")
        part.unlink(missing_ok=True)
        part.symlink_to(sha256)
        part.replace(place)

    def _known(self, parts: Iterable[str]) -> str:
        key = key_of(*parts)
        return f"{self.root}/known/{key[:2]}/{key}"

    @contextmanager
    def part(self) -> Iterator[Path]:
        """Yield the path of a file in passing; it is removed unless it was kept."""
        descriptor, name = tempfile.mkstemp(dir=self.root / "part")
        os.close(descriptor)
        try:
            yield Path(name)
        finally:
            Path(name).unlink(missing_ok=True)

    def keep(self, part: Path, sha256: str, use: Use) -> bool:
        """Put a file whose bytes have the sha256 into the store, at once and whole.

        Returns:
            False where something stands in its place already; that is left as it is.
        """
        place = self.path(sha256)
        part.chmod(0o444)
        with self.shared():
            use.add([sha256])
            place.parent.mkdir(exist_ok=True)
            try:
                place.hardlink_to(part)
            except FileExistsError:
                return False
            part.unlink()
        return True

    def drop(self, sha256: str) -> None:
        """Remove a file that is not what its name says."""
        place = self.path(sha256)
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place, ignore_errors=True)
        else:
            place.unlink(missing_ok=True)

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Keep eviction away while files are looked up and put in use."""
        with (self.root / "lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            yield

    def use(self, key: str) -> Use:
        """Begin to use a set; to be called under `shared`."""
        folder = self.root / "sets" / key
        folder.mkdir(exist_ok=True)
        descriptor = os.open(
            folder / "list", os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        os.utime(descriptor)
        return Use(descriptor, _listed(descriptor))

    def set_folder(self, key: str) -> Path:
        """Return the folder of a set."""
        return self.root / "sets" / key

    def trim(self) -> int:
        """Remove what was used least lately until the limit holds, never what is in use; return the bytes freed.

        Another process that is just looking files up puts it off: the next one trims.
        """
        with (self.root / "lock").open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return 0
            return self._trim()

    def _trim(self) -> int:
        self._sweep_parts()
        files = {path.name: path for path in self.root.glob("files/??/*")}
        sizes = {sha256: path.lstat().st_size for sha256, path in files.items()}
        last, busy, idle = self._uses()
        for folder in [folder for folder, (used, _) in idle.items() if used < time.time() - _KEEP_SET_SECONDS]:
            shutil.rmtree(folder, ignore_errors=True)
            del idle[folder]
        excess = sum(sizes.values()) - self.limit
        if excess <= 0:
            return 0
        freed, gone = 0, set[str]()
        for sha256 in sorted(files, key=lambda name: (last.get(name, 0.0), name)):
            # A little more than needed, so that not every fetch has to trim.
            if freed >= excess + self.limit // 10:
                break
            if sha256 not in busy:
                freed += sizes[sha256]
                gone.add(sha256)
        for folder, (_, listed) in idle.items():
            # Its hard links would keep the bytes on the disk.
            if listed & gone:
                shutil.rmtree(folder, ignore_errors=True)
        for sha256 in gone:
            self.drop(sha256)
        self._sweep_hints(set(files) - gone)
        return freed

    def _uses(self) -> tuple[dict[str, float], set[str], dict[Path, tuple[float, set[str]]]]:
        """Return each file's last use, the files in use now, and the sets that nobody uses now with their last use."""
        last: dict[str, float] = {}
        busy: set[str] = set()
        idle: dict[Path, tuple[float, set[str]]] = {}
        for folder in self.root.glob("sets/*"):
            try:
                descriptor = os.open(folder / "list", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except OSError:
                idle[folder] = (0.0, set())
                continue
            try:
                listed, used = _listed(descriptor), os.fstat(descriptor).st_mtime
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    idle[folder] = (used, listed)
                except BlockingIOError:
                    busy |= listed
            finally:
                os.close(descriptor)
            for sha256 in listed:
                last[sha256] = max(last.get(sha256, 0.0), used)
        return last, busy, idle

    def _sweep_parts(self) -> None:
        for part in self.root.glob("part/*"):
            with contextlib.suppress(OSError):
                if part.lstat().st_mtime < time.time() - _KEEP_PART_SECONDS:
                    part.unlink()

    def _sweep_hints(self, there: set[str]) -> None:
        for hint in self.root.glob("known/??/*"):
            with contextlib.suppress(OSError):
                if len(hint.name) != _MAX_HINT or str(hint.readlink()) not in there:
                    hint.unlink()


def _listed(descriptor: int) -> set[str]:
    """Return the hashes in a list; a line cut short counts for nothing."""
    size = os.fstat(descriptor).st_size
    text = os.pread(descriptor, size, 0).decode("ascii", "replace")
    return {line for line in text.split("\n") if _SHA256.fullmatch(line)}
