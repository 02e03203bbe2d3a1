"""Tar archives: a writer that always gives the same bytes, and a reader that takes nothing but plain members.

Both know one form, GNU's (tar(5), "GNU tar archives"); the reader also takes the headers of POSIX ustar. They are here
instead of `tarfile` because they are five times faster, and because a stranger's archive is better read by something
that stops at the first thing that it does not know: extended headers, sparse files, numbers that are none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Final

BLOCK: Final = 512
RECORD: Final = 20 * BLOCK
FILE, LINK, FOLDER = b"0", b"2", b"5"

_OLD_FILE, _LONG_NAME, _LONG_TARGET = b"\0", b"L", b"K"
_MAGICS = (b"ustar  \0", b"ustar\x0000")
_POSIX = b"ustar\x0000"
_NAME = 100
_LONG_LIMIT = 8192
"""Bytes of a name that does not fit its field; the rules for names are narrower still."""
_ZEROS = bytes(BLOCK)
_SUM = slice(148, 156)
_REST = b"ustar  \0" + bytes(247)
_MAX_SIZE = 1 << 33
_OCTAL = frozenset(b"01234567")


class TarError(ValueError):
    """An archive is damaged, or not of the form that is read here."""


@dataclass(frozen=True)
class Member:
    """One member of an archive, as its header says."""

    name: str
    kind: bytes
    """FILE, LINK or FOLDER; any other letter is one that nobody here takes."""
    mode: int
    size: int
    offset: int
    """Where its bytes begin."""
    target: str = ""


def header(name: str, kind: bytes, *, mode: int, time: int, size: int = 0, target: str = "") -> bytes:
    """Return the header of a member that belongs to nobody in particular.

    Raises:
        ValueError: the size or the time does not fit.
    """
    if not (0 <= size < _MAX_SIZE and 0 <= time < _MAX_SIZE):
        raise ValueError(f"{name!r}: size {size} or time {time} does not fit a tar header")
    path, link = name.encode("utf-8"), target.encode("utf-8")
    if kind == FOLDER:
        path += b"/"
    before = b""
    if len(link) > _NAME:
        before += _long(_LONG_TARGET, link)
    if len(path) > _NAME:
        before += _long(_LONG_NAME, path)
    return before + _block(path, kind, link, mode=mode, size=size, time=time)


def ending(size: int) -> bytes:
    """Return what closes an archive of so many bytes: two empty blocks, filled up to a whole record."""
    return bytes(2 * BLOCK + -(size + 2 * BLOCK) % RECORD)


def padding(size: int) -> bytes:
    """Return what fills a member's bytes up to a whole block."""
    return bytes(-size % BLOCK)


def members(file: IO[bytes], end: int) -> Iterator[Member]:
    """Yield the members of an archive up to its end mark.

    Args:
        file: the archive, at its beginning.
        end: its size in bytes.

    Raises:
        TarError: a header is damaged or unknown, a member goes beyond the end, or there is no end mark.
    """
    long_name = long_target = b""
    while True:
        block = file.read(BLOCK)
        if block == _ZEROS:
            if file.read(BLOCK) != _ZEROS:
                raise TarError("it has no end")
            return
        if len(block) != BLOCK:
            raise TarError("it has no end")
        if block[257:265] not in _MAGICS or _number(block[_SUM]) != _checksum(block):
            raise TarError("a header is damaged or of another format")
        kind, size, offset = block[156:157], _number(block[124:136]), file.tell()
        if offset + size > end:
            raise TarError("it ends inside a member")
        if kind in (_LONG_NAME, _LONG_TARGET):
            if size > _LONG_LIMIT:
                raise TarError("a name is too long")
            text = file.read(size).rstrip(b"\0")
            long_name, long_target = (text, long_target) if kind == _LONG_NAME else (long_name, text)
        else:
            path = long_name or _name(block)
            target = long_target or _text(block[157:257])
            long_name = long_target = b""
            yield Member(
                path.decode("utf-8", "surrogateescape"),
                FILE if kind == _OLD_FILE else kind,
                _number(block[100:108]),
                size,
                offset,
                target.decode("utf-8", "surrogateescape"),
            )
        file.seek(offset + size + -size % BLOCK)


def _block(path: bytes, kind: bytes, link: bytes, *, mode: int, size: int, time: int) -> bytes:
    fields = b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (mode, 0, 0, size, time)
    start = path[:_NAME].ljust(_NAME, b"\0") + fields
    after = kind + link[:_NAME].ljust(_NAME, b"\0") + _REST
    total = sum(start) + sum(after) + 8 * 32
    return b"%s%06o\0 %s" % (start, total, after)


def _long(kind: bytes, text: bytes) -> bytes:
    data = text + b"\0"
    return _block(b"././@LongLink", kind, b"", mode=0, size=len(data), time=0) + data + padding(len(data))


def _checksum(block: bytes) -> int:
    return sum(block) - sum(block[_SUM]) + 8 * 32


def _name(block: bytes) -> bytes:
    name = _text(block[:_NAME])
    prefix = _text(block[345:500]) if block[257:265] == _POSIX else b""
    return prefix + b"/" + name if prefix else name


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _number(field: bytes) -> int:
    digits = field.strip(b" \0")
    if not _OCTAL.issuperset(digits):
        raise TarError("a number is none")
    return int(digits, 8) if digits else 0
