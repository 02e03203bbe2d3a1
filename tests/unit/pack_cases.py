"""Packs that are written by hand, as no git would, and the request that pushes them (gitformat-pack(5))."""

from __future__ import annotations

import hashlib
import struct
import zlib
from functools import partial

_sha1 = partial(hashlib.sha1, usedforsecurity=False)
_KINDS = {"commit": 1, "tree": 2, "blob": 3, "tag": 4, "delta": 7}
MIB = 1 << 20


def pack(*objects: bytes) -> bytes:
    """Return a pack of these objects."""
    body = b"PACK" + struct.pack(">II", 2, len(objects)) + b"".join(objects)
    return body + _sha1(body).digest()


def written(kind: str, data: bytes, base: bytes = b"") -> bytes:
    """Return an object as it stands in a pack; of a delta with the id of its base."""
    return _head(kind, len(data)) + base + zlib.compress(data)


def swollen(kind: str, mebibytes: int, start: bytes = b"") -> tuple[bytes, bytes]:
    """Return an object of so many MiB of one letter, a thousandth in the pack, and its id."""
    size = len(start) + mebibytes * MIB
    packer, hasher = zlib.compressobj(1), _sha1(f"{kind} {size}\0".encode() + start)
    said = packer.compress(start)
    for _ in range(mebibytes):
        hasher.update(b"a" * MIB)
        said += packer.compress(b"a" * MIB)
    return _head(kind, size) + said + packer.flush(), hasher.digest()


def identity(kind: str, data: bytes) -> bytes:
    """Return an object's id."""
    return _sha1(f"{kind} {len(data)}\0".encode() + data).digest()


def copying(size: int, times: int) -> bytes:
    """Return a delta that takes its base of `size` bytes, below 16 MiB, so many times."""
    return _number(size) + _number(size * times) + (b"\xf0" + struct.pack("<I", size)[:3]) * times


def pushing(commit: bytes, data: bytes, ref: str = "refs/heads/main") -> bytes:
    """Return the body of the request that makes a new branch of a pack (gitprotocol-pack(5))."""
    line = f"{'0' * 40} {commit.hex()} {ref}\0report-status side-band-64k".encode()
    return b"%04x" % (len(line) + 4) + line + b"0000" + data


def _head(kind: str, size: int) -> bytes:
    first, size = _KINDS[kind] << 4 | size & 15, size >> 4
    said = bytearray()
    while size:
        said.append(first | 0x80)
        first, size = size & 0x7F, size >> 7
    return bytes([*said, first])


def _number(value: int) -> bytes:
    said = bytearray()
    while value > 0x7F:
        said.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*said, value])
