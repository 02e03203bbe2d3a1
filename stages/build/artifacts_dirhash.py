"""Go's hashes of a module: `h1:` over the names and bytes in its zip, and over its go.mod file.

As golang.org/x/mod/sumdb/dirhash computes them. The zip is a stranger's: the size of its directory, the number of its
entries and the bytes they unpack to are limited, and names that could mean two things make it no module at all.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import zipfile
import zlib

from sekisho.errors import Refusal

MAX_UNPACKED = 500 << 20
"""What Go itself permits a module (golang.org/x/mod/zip.MaxZipFile)."""
MAX_ENTRIES = 100_000
_MAX_READ = 64 << 20
_PIECE = 1 << 18
_UTF8 = 0x800


class _Bounded(io.FileIO):
    """A file that gives no more than a limit at once: `zipfile` would read a directory of any size whole."""

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(_MAX_READ + 1 if size is None or size < 0 else min(size, _MAX_READ + 1)) or b""
        if len(data) > _MAX_READ:
            raise zipfile.BadZipFile("its directory is too large")
        return data


def hash_zip(descriptor: int) -> str:
    """Return the hash of a module's zip, an open file, without `h1:`.

    Raises:
        Refusal: not a zip, or not one that a module may be.
    """
    try:
        with _Bounded(os.dup(descriptor)) as file, zipfile.ZipFile(file) as archive:
            return _hash1(_sums(archive))
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, ValueError, RuntimeError) as error:
        raise Refusal(f"This is not the zip of a Go module: {error}") from error


def hash_mod(sha256: str) -> str:
    """Return the hash of a go.mod file, without `h1:`, by the sha256 of its bytes in hexadecimal."""
    return _hash1([("go.mod", sha256)])


def _sums(archive: zipfile.ZipFile) -> list[tuple[str, str]]:
    entries = archive.infolist()
    if len(entries) > MAX_ENTRIES or sum(entry.file_size for entry in entries) > MAX_UNPACKED:
        raise zipfile.BadZipFile("it unpacks to too much")
    left = MAX_UNPACKED
    found: dict[bytes, str] = {}
    for entry in entries:
        # Python reads names without the flag as code page 437; Go takes the bytes as they are.
        name = entry.orig_filename.encode("utf-8" if entry.flag_bits & _UTF8 else "cp437")
        _check_name(name)
        if name in found:
            raise zipfile.BadZipFile("a name is there twice")
        hasher = hashlib.sha256()
        with archive.open(entry) as member:
            while piece := member.read(_PIECE):
                left -= len(piece)
                if left < 0:
                    raise zipfile.BadZipFile("it unpacks to too much")
                hasher.update(piece)
        found[name] = hasher.hexdigest()
    return [(name.decode("utf-8", "surrogateescape"), value) for name, value in sorted(found.items())]


def _check_name(name: bytes) -> None:
    parts = name.split(b"/")
    if b"\n" in name or b"\0" in name or b"\\" in name or {b"", b".", b".."} & set(parts):
        raise zipfile.BadZipFile("it holds a name that is no plain path")


def _hash1(sums: list[tuple[str, str]]) -> str:
    lines = "".join(f"{value}  {name}\n" for name, value in sums)
    return base64.b64encode(hashlib.sha256(lines.encode("utf-8", "surrogateescape")).digest()).decode("ascii")
