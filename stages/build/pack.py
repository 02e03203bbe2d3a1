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
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import IO, Any, Final, Literal, cast

from isal import isal_zlib

from sekisho.canonical import Digest
from sekisho.errors import PermanentError, Refusal
from stages.trees import Limits, check_links, check_name, check_prefixes

GZIP_LEVEL: Final = 2
RECIPE: Final = f"sekisho-pack/1 isal/{version('isal')} level/{GZIP_LEVEL}"
"""How layers are packed. Part of every build's key: another recipe may give other digests."""
FIXED_TIME: Final = 315_532_800
"""1980-01-01, the first day of the zip format: the time of all files in a dependencies layer, which commits share."""

_GZIP_WINDOW = 31
_CHUNK = 1 << 20
_EXECUTABLE = 0o111
_END = bytes(1024)


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
    size = 0
    for entry in _walk(folder, ""):
        entries.append(entry)
        size += entry.size
        bounds.check(len(entries), size, where=folder.name)
    return _checked(entries, folder.name)


def entries_of_archive(archive: Path, *, limits: Limits | None = None, where: str = "build step") -> tuple[Entry, ...]:
    """Return the files and links of a tar archive that a sandbox gave back. Nothing is unpacked.

    Raises:
        Refusal: not a whole tar archive; a device, a hard link, a sparse file; a name or link that the rules refuse;
            too large.
    """
    bounds = limits or Limits()
    entries: list[Entry] = []
    seen = size = 0
    try:
        with tarfile.open(archive, mode="r:") as tar:
            end = archive.stat().st_size
            for member in tar:
                seen += 1
                size += max(member.size, 0)
                bounds.check(seen, size, where=where)
                entry = _of_member(member, archive, where)
                if entry is not None:
                    if entry.kind == "file" and entry.offset + entry.size > end:
                        raise Refusal(f"The output ends inside {entry.path!r}.", where=where)
                    entries.append(entry)
            _check_end(archive, tar.offset, where)
    except (tarfile.TarError, OSError, ValueError, OverflowError, EOFError) as error:
        raise Refusal(
            f"The output is not a whole tar archive: {str(error)[:200]}",
            where=where,
            remedy="See the build step's log: it ended early or wrote to the archive itself.",
        ) from error
    return _checked(entries, where)


def moved(entries: Iterable[Entry], prefix: str, *, below: str = "") -> tuple[Entry, ...]:
    """Return entries under another folder.

    Args:
        entries: the entries.
        prefix: folder in the image without slashes at its ends, for example `app`.
        below: take only what is below this folder, without its name; empty takes all.
    """
    cut = f"{below}/" if below else ""
    taken = (entry for entry in entries if entry.path.startswith(cut))
    return tuple(Entry(**{**_fields(entry), "path": f"{prefix}/{entry.path[len(cut) :]}"}) for entry in taken)


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
    with target.open("wb") as file:
        sink = _Sink(file)
        with tarfile.open(fileobj=cast("IO[bytes]", sink), mode="w|", format=tarfile.GNU_FORMAT) as tar:
            for info, entry in _members(ordered, time):
                if entry is None or entry.kind == "link":
                    tar.addfile(info)
                else:
                    with _opened(entry) as content:
                        tar.addfile(info, content)
        sink.finish()
    return PackedLayer(
        target,
        Digest(f"sha256:{sink.packed.hexdigest()}"),
        Digest(f"sha256:{sink.plain.hexdigest()}"),
        sink.size,
    )


class _Sink:
    """Compresses and hashes what tarfile writes, both in one pass."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._gzip = isal_zlib.compressobj(level=GZIP_LEVEL, wbits=_GZIP_WINDOW)
        self.plain = hashlib.sha256()
        self.packed = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self.plain.update(data)
        self._put(self._gzip.compress(data))
        return len(data)

    def finish(self) -> None:
        self._put(self._gzip.flush())

    def _put(self, data: bytes) -> None:
        self.packed.update(data)
        self.size += len(data)
        self._file.write(data)


def _members(ordered: list[Entry], time: int) -> Iterator[tuple[tarfile.TarInfo, Entry | None]]:
    made: set[str] = set()
    for entry in ordered:
        parts = entry.path.split("/")
        for depth in range(1, len(parts)):
            folder = "/".join(parts[:depth])
            if folder not in made:
                made.add(folder)
                info = _info(folder, 0o755, time)
                info.type = tarfile.DIRTYPE
                yield info, None
        info = _info(entry.path, 0o755 if entry.executable else 0o644, time)
        if entry.kind == "link":
            info.mode, info.type, info.linkname = 0o777, tarfile.SYMTYPE, entry.target
        else:
            info.size = entry.size
        yield info, entry


def _info(name: str, mode: int, time: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.mode, info.mtime, info.uid, info.gid, info.uname, info.gname = mode, time, 0, 0, "", ""
    return info


def _opened(entry: Entry) -> IO[bytes]:
    if entry.source is None:
        return BytesIO(entry.data)
    descriptor = os.open(entry.source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_size < entry.offset + entry.size:
        os.close(descriptor)
        raise PermanentError(f"{entry.path!r} changed while it was packed.", remedy="Run the line again.")
    file = os.fdopen(descriptor, "rb")
    file.seek(entry.offset)
    return file


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


def _check_end(archive: Path, offset: int, where: str) -> None:
    """Refuse an archive without its two blocks of zeros: for tarfile, a damaged header is an end as well."""
    with archive.open("rb") as file:
        file.seek(offset)
        if file.read(len(_END)) != _END:
            raise Refusal("The output is not a whole tar archive: it has no end.", where=where)


def _of_member(member: tarfile.TarInfo, archive: Path, where: str) -> Entry | None:
    name = member.name.removeprefix("./")
    if member.isdir():
        if name not in ("", "."):
            check_name(name.rstrip("/"), where=where)
        return None
    check_name(name, where=where)
    if member.issym():
        return Entry(name, "link", target=member.linkname)
    if not member.isreg() or member.issparse() or member.size < 0:
        raise Refusal(
            f"{name!r} is a device, a hard link or a sparse file.", where=where, remedy="Give back plain files."
        )
    executable = bool(member.mode & _EXECUTABLE)
    return Entry(name, "file", executable, member.size, source=archive, offset=member.offset_data)


def _checked(entries: list[Entry], where: str) -> tuple[Entry, ...]:
    for entry in entries:
        check_name(entry.path, where=where)
    check_prefixes((entry.path for entry in entries), where=where)
    check_links({entry.path: entry.target for entry in entries if entry.kind == "link"}, where=where)
    return tuple(entries)


def _fields(entry: Entry) -> dict[str, Any]:
    return dict(vars(entry))
