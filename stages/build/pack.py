"""Packing: the line itself turns files into layers, bit for bit the same every time.

Same files, same layer: entries are sorted, owned by root, with mode 0644 or 0755 and one time for all; gzip is isal
level 2 (14 times faster than zlib level 6, and the same bytes for the same release of isal, which is part of
`RECIPE`). What a sandbox gives back is a tar archive by a stranger: it is read as a list of names and bytes and packed
anew, never unpacked to a disk. Formats: OCI image-spec layer.md, tar(5), RFC 1952.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import IO, Final, Literal, Self

from isal import isal_zlib

from sekisho.canonical import Digest
from sekisho.errors import PermanentError, Refusal
from stages.build.tarball import FILE, FOLDER, LINK, Member, TarError, ending, header, members, padding
from stages.trees import Limits, check_links, check_name, check_prefixes, new_folders

GZIP_LEVEL: Final = 2
RECIPE: Final = f"sekisho-pack/2 isal/{version('isal')} level/{GZIP_LEVEL}"
"""How layers are packed. Part of every build's key: another recipe may give other digests."""
FIXED_TIME: Final = 315_532_800
"""1980-01-01, the first day of the zip format: the time of all files in a dependencies layer, which commits share."""

_GZIP_WINDOW = 31
_CHUNK = 1 << 20
_EXECUTABLE = 0o111


@dataclass(frozen=True)
class Entry:
    """One file or symbolic link of a layer."""

    path: str
    kind: Literal["file", "link"]
    executable: bool = False
    size: int = 0
    target: str = ""
    source: Path | None = None
    """File that holds the bytes; None: `data`."""
    offset: int = 0
    data: bytes = b""


@dataclass(frozen=True)
class PackedLayer:
    """A layer in a file."""

    path: Path
    digest: Digest
    diff_id: Digest
    size: int
    """Bytes of the compressed layer."""


def entries_of_tree(folder: Path, *, limits: Limits | None = None) -> tuple[Entry, ...]:
    """Return the files and links of a folder, following no link.

    Raises:
        Refusal: a device, socket or pipe; a name or link that the rules refuse; too large.
    """
    bounds = limits or Limits()
    entries: list[Entry] = []
    folders: set[str] = set()
    size = 0
    for entry in _walk(folder, ""):
        entries.append(entry)
        size += entry.size
        new_folders(entry.path, folders)
        bounds.check(len(entries), size, len(folders), where=folder.name)
    return _checked(entries, folder.name)


def entries_of_archive(
    archive: Path,
    *,
    limits: Limits | None = None,
    where: str = "build step",
    wanted: Callable[[str], bool] = lambda _: True,
) -> tuple[Entry, ...]:
    """Return the files and links of a tar archive that a sandbox gave back. Nothing is unpacked.

    Args:
        archive: the file.
        limits: how large it may be.
        where: what made it, for messages.
        wanted: tells for a path whether it will be used; what will not be is left out, whatever it is.

    Raises:
        Refusal: not a whole tar archive; a device, a hard link, a sparse file; a name or link that the rules refuse;
            too large.
    """
    bounds = limits or Limits()
    entries: list[Entry] = []
    folders: set[str] = set()
    seen = size = 0
    try:
        with archive.open("rb") as file:
            for member in members(file, archive.stat().st_size):
                seen += 1
                size += member.size
                bounds.check(seen, size, where=where)
                if not wanted(member.name.removeprefix("./")):
                    continue
                entry = _of_member(member, archive, where)
                if entry is not None:
                    entries.append(entry)
                    # An archive need not list the folders that its names are in; they are made all the same.
                    new_folders(entry.path, folders)
                    bounds.check(seen, size, len(folders), where=where)
    except (TarError, OSError) as error:
        raise Refusal(
            f"The output is not a whole tar archive: {str(error)[:200]}.",
            where=where,
            remedy="See the build step's log: it ended early or wrote to the archive itself.",
        ) from error
    return _checked(entries, where)


def moved(entries: Iterable[Entry], prefix: str, *, below: str = "") -> tuple[Entry, ...]:
    """Return entries under another folder.

    Args:
        entries: the entries.
        prefix: folder in the image without slashes at its ends, for example `app`; empty for its root.
        below: take only what is below this folder, without its name; empty takes all.
    """
    cut = f"{below}/" if below else ""
    taken = (entry for entry in entries if entry.path.startswith(cut))
    into = f"{prefix}/" if prefix else ""
    return tuple(
        Entry(f"{into}{it.path[len(cut) :]}", it.kind, it.executable, it.size, it.target, it.source, it.offset, it.data)
        for it in taken
    )


def write_layer(entries: Iterable[Entry], target: Path, *, time: int) -> PackedLayer:
    """Write a layer; the same entries and time always give the same bytes.

    Args:
        entries: what is in it, in any order.
        target: file to write.
        time: modification time of every entry, seconds since the epoch.

    Raises:
        PermanentError: a file changed while it was read.
    """
    ordered = sorted(entries, key=lambda entry: entry.path.split("/"))
    with target.open("wb") as file, _Sink(file) as sink:
        folders: set[str] = set()
        for entry in ordered:
            for folder in new_folders(entry.path, folders):
                sink.write(header(folder, FOLDER, mode=0o755, time=time))
            if entry.kind == "link":
                sink.write(header(entry.path, LINK, mode=0o777, time=time, target=entry.target))
            else:
                mode = 0o755 if entry.executable else 0o644
                sink.write(header(entry.path, FILE, mode=mode, time=time, size=entry.size))
                for piece in _content(entry):
                    sink.write(piece)
                sink.write(padding(entry.size))
        sink.write(ending(sink.length))
    return PackedLayer(
        target,
        Digest(f"sha256:{sink.packed.hexdigest()}"),
        Digest(f"sha256:{sink.plain.hexdigest()}"),
        sink.size,
    )


class _Sink:
    """Compresses and hashes an archive in one pass; hashing what comes in goes on beside compressing it.

    It is cut into pieces of one size, whatever it is written in: so the compressed bytes depend on nothing else.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._gzip = isal_zlib.compressobj(level=GZIP_LEVEL, wbits=_GZIP_WINDOW)
        self._buffer = bytearray()
        self._pool: ThreadPoolExecutor | None = None
        self.plain = hashlib.sha256()
        self.packed = hashlib.sha256()
        self.length = 0
        """Bytes of the archive so far."""
        self.size = 0
        """Bytes of the compressed archive so far."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._flush()
        if self._pool is not None:
            self._pool.shutdown()

    def write(self, data: bytes) -> None:
        self.length += len(data)
        self._buffer += data
        while len(self._buffer) >= _CHUNK:
            piece = bytes(memoryview(self._buffer)[:_CHUNK])
            del self._buffer[:_CHUNK]
            if self._pool is None:
                self._pool = ThreadPoolExecutor(1, thread_name_prefix="pack")
            hashed = self._pool.submit(self.plain.update, piece)
            self._put(self._gzip.compress(piece))
            hashed.result()

    def _flush(self) -> None:
        piece = bytes(self._buffer)
        self.plain.update(piece)
        self._put(self._gzip.compress(piece) + self._gzip.flush())

    def _put(self, data: bytes) -> None:
        self.packed.update(data)
        self.size += len(data)
        self._file.write(data)


def _content(entry: Entry) -> Iterator[bytes]:
    """Yield a file's bytes, exactly as many as were listed."""
    if entry.source is None:
        yield entry.data
        return
    descriptor = _descriptor(entry)
    try:
        left, offset = entry.size, entry.offset
        while left:
            piece = os.pread(descriptor, min(left, _CHUNK), offset)
            if not piece:
                raise _changed(entry)
            yield piece
            left -= len(piece)
            offset += len(piece)
    finally:
        os.close(descriptor)


def _descriptor(entry: Entry) -> int:
    assert entry.source is not None  # noqa: S101  (asked by the callers)
    descriptor = os.open(entry.source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_size < entry.offset + entry.size:
        os.close(descriptor)
        raise _changed(entry)
    return descriptor


def _changed(entry: Entry) -> PermanentError:
    return PermanentError(f"{entry.path!r} changed while it was packed.", remedy="Run the line again.")


def opened(entry: Entry) -> IO[bytes]:
    """Open a file's bytes for reading; there may be more after them.

    Raises:
        PermanentError: it is no longer the file that was listed.
    """
    if entry.source is None:
        return BytesIO(entry.data)
    descriptor = _descriptor(entry)
    file = os.fdopen(descriptor, "rb")
    file.seek(entry.offset)
    return file


def digest_of_entry(entry: Entry) -> Digest:
    """Return the digest of a file's bytes.

    Raises:
        PermanentError: it is no longer the file that was listed.
    """
    sha256 = hashlib.sha256()
    for piece in _content(entry):
        sha256.update(piece)
    return Digest(f"sha256:{sha256.hexdigest()}")


def _walk(folder: Path, prefix: str) -> Iterator[Entry]:
    with os.scandir(folder) as listing:
        found = sorted(listing, key=lambda item: item.name)
    for item in found:
        path = f"{prefix}{item.name}"
        if item.is_symlink():
            yield Entry(path, "link", target=str(Path(item.path).readlink()))
        elif item.is_dir(follow_symlinks=False):
            yield from _walk(Path(item.path), f"{path}/")
        elif item.is_file(follow_symlinks=False):
            status = item.stat(follow_symlinks=False)
            executable = bool(status.st_mode & _EXECUTABLE)
            yield Entry(path, "file", executable, status.st_size, source=Path(item.path))
        else:
            raise Refusal(f"{path!r} is neither a file nor a link.", where=folder.name, remedy="Remove it.")


def _of_member(member: Member, archive: Path, where: str) -> Entry | None:
    name = member.name.removeprefix("./")
    if member.kind == FOLDER:
        if name not in ("", "."):
            check_name(name.rstrip("/"), where=where)
        return None
    check_name(name, where=where)
    if member.kind == LINK:
        return Entry(name, "link", target=member.target)
    if member.kind != FILE:
        raise Refusal(
            f"{name!r} is a device, a hard link or a sparse file.", where=where, remedy="Give back plain files."
        )
    return Entry(name, "file", bool(member.mode & _EXECUTABLE), member.size, source=archive, offset=member.offset)


def merged(parts: Iterable[Iterable[Entry]], where: str) -> tuple[Entry, ...]:
    """Return several parts as one tree; where two have the same path, the later one's counts.

    Raises:
        Refusal: a path is a file in one part and a folder in another; a link that leads out of the whole.
    """
    found = {entry.path: entry for part in parts for entry in part}
    return _checked(list(found.values()), where)


def _checked(entries: list[Entry], where: str) -> tuple[Entry, ...]:
    for entry in entries:
        check_name(entry.path, where=where)
    check_prefixes((entry.path for entry in entries), where=where)
    check_links({entry.path: entry.target for entry in entries if entry.kind == "link"}, where=where)
    return tuple(entries)
