"""Layers: a gzipped tar that is the same, byte for byte, whenever the files are the same.

Sorted paths, numeric owners, no time later than the given epoch, GNU tar format, and one pinned compressor: isal's
igzip at level 2, several times faster than zlib at little more size. Its bytes may differ between isal versions, so
the version stands in every image (label sekisho.dev/compressor).
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import isal
from isal import igzip

from sekisho.canonical import Digest
from sekisho.images.tree import Difference, Entry
from sekisho.model import Document

COMPRESSION_LEVEL = 2
COMPRESSOR = f"isal-igzip/{isal.__version__} level={COMPRESSION_LEVEL}"
_BUFFER = 1 << 20


class LayerBlob(Document):
    """A layer as a file."""

    digest: Digest
    diff_id: Digest
    size: int
    """Bytes, compressed."""
    title: str
    """What the layer brings, for the image's history."""


@dataclass
class _HashingWriter(io.RawIOBase):
    """Passes bytes on and keeps their sha256."""

    target: Any
    """Anything with `write`."""
    size: int = 0

    def __post_init__(self) -> None:
        self.hasher = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self.hasher.update(data)
        self.size += len(data)
        self.target.write(data)
        return len(data)

    @property
    def digest(self) -> Digest:
        return Digest("sha256:" + self.hasher.hexdigest())


def write_layer(root: Path, difference: Difference, blobs: Path, *, epoch: int, title: str) -> LayerBlob:
    """Write a layer into `blobs` under the hexadecimal part of its digest.

    Args:
        root: the root file system that holds the changed files.
        difference: what the layer says.
        blobs: an existing directory, `blobs/sha256` of an OCI layout.
        epoch: no file's time is later, seconds since the epoch.
        title: what the layer brings.
    """
    part = blobs / ".part"
    with part.open("wb", buffering=_BUFFER) as file:
        compressed = _HashingWriter(file)
        with igzip.IGzipFile("", "wb", COMPRESSION_LEVEL, compressed, mtime=0) as zipper:  # type: ignore[no-untyped-call]
            plain = _HashingWriter(zipper)
            with tarfile.open(
                fileobj=plain, mode="w|", format=tarfile.GNU_FORMAT, bufsize=_BUFFER, errors="surrogateescape"
            ) as tar:
                _add_all(tar, root, difference, epoch)
        file.flush()
        os.fsync(file.fileno())
    blob = LayerBlob(digest=compressed.digest, diff_id=plain.digest, size=compressed.size, title=title)
    part.replace(blobs / blob.digest.removeprefix("sha256:"))
    return blob


def _add_all(tar: tarfile.TarFile, root: Path, difference: Difference, epoch: int) -> None:
    for path in _whiteouts(difference.removed):
        tar.addfile(_header(path, tarfile.REGTYPE, 0o644, epoch))
    first: dict[tuple[int, int], str] = {}
    for entry in difference.changed:
        _add(tar, root, entry, epoch, first)


def _add(tar: tarfile.TarFile, root: Path, entry: Entry, epoch: int, first: dict[tuple[int, int], str]) -> None:
    file = root / entry.path
    about = file.lstat()
    info = _header(entry.path, tarfile.REGTYPE, entry.mode, min(int(about.st_mtime), epoch))
    info.uid, info.gid = entry.uid, entry.gid
    if entry.kind == "directory":
        # A directory's time says when it was unpacked, nothing else.
        info.type, info.mtime = tarfile.DIRTYPE, epoch
        tar.addfile(info)
    elif entry.kind == "link":
        info.type, info.linkname, info.mtime = tarfile.SYMTYPE, entry.value, epoch
        tar.addfile(info)
    elif about.st_nlink > 1 and (known := first.get((about.st_dev, about.st_ino))):
        info.type, info.linkname = tarfile.LNKTYPE, known
        tar.addfile(info)
    else:
        first[about.st_dev, about.st_ino] = entry.path
        info.size = about.st_size
        with file.open("rb") as data:
            tar.addfile(info, data)


def _header(path: str, kind: bytes, mode: int, mtime: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path)
    info.type, info.mode, info.mtime = kind, mode, mtime
    return info


def _whiteouts(removed: Iterable[str]) -> list[str]:
    parts = [path.rpartition("/") for path in removed]
    return [f"{above}{slash}.wh.{name}" for above, slash, name in parts]
