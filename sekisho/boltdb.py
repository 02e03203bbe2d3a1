"""BoltDB files (bbolt), the format of trivy's advisory database: writes whole new ones, and reads what is at the top.

Source: go.etcd.io/bbolt, internal/common/{page,meta,bucket,inode}.go. Little-endian, as on the machines that read it.
A file is pages of one size: two meta pages, a freelist, then B+ trees. A bucket is a tree whose leaf values are data
or further buckets; a small bucket without buckets in it is kept inline in its parent's leaf.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from sekisho.errors import PermanentError

PAGE_SIZE = 4096
Bucket: TypeAlias = Mapping[bytes, "Bucket | bytes"]
"""Keys to values or to further buckets."""

_MAGIC, _VERSION = 0xED0CDAED, 2
_BRANCH, _LEAF, _META, _FREELIST = 0x01, 0x02, 0x04, 0x10
_BUCKET_FLAG = 0x01
_PAGE = struct.Struct("<QHHI")
_LEAF_ELEMENT = struct.Struct("<IIII")
_BRANCH_ELEMENT = struct.Struct("<IIQ")
_BUCKET = struct.Struct("<QQ")
_META_BODY = struct.Struct("<IIIIQQQQQ")
_MAX_KEY = 32768
_MAX_INLINE = PAGE_SIZE // 4
_FNV_OFFSET, _FNV_PRIME = 0xCBF29CE484222325, 0x100000001B3


@dataclass
class _Pages:
    """The pages after the meta pages and the freelist."""

    content: list[bytes] = field(default_factory=list)
    next_id: int = 3

    def add(self, flags: int, count: int, body: bytes) -> int:
        """Append one page, with overflow pages where it is longer than a page; return its id."""
        number = self.next_id
        size = -(-(_PAGE.size + len(body)) // PAGE_SIZE)
        data = _PAGE.pack(number, flags, count, size - 1) + body
        self.content.append(data.ljust(size * PAGE_SIZE, b"\0"))
        self.next_id += size
        return number


@dataclass(frozen=True)
class _Item:
    """One element of a leaf."""

    flags: int
    key: bytes
    value: bytes

    @property
    def size(self) -> int:
        return _LEAF_ELEMENT.size + len(self.key) + len(self.value)


def write_database(path: Path, buckets: Mapping[bytes, Bucket]) -> None:
    """Write a BoltDB file that holds exactly these buckets. The same buckets give the same bytes.

    Raises:
        PermanentError: a key is empty or longer than the format allows.
    """
    pages = _Pages()
    root = _write_tree(pages, [_item(pages, name, bucket) for name, bucket in sorted(buckets.items())])
    high = pages.next_id
    metas = b"".join(_meta_page(number, root, high) for number in (0, 1))
    freelist = _PAGE.pack(2, _FREELIST, 0, 0).ljust(PAGE_SIZE, b"\0")
    path.write_bytes(metas + freelist + b"".join(pages.content))


def root_keys(path: Path) -> frozenset[bytes]:
    """Return the names of the buckets at the top of a BoltDB file.

    Raises:
        PermanentError: it is not a BoltDB file, or not a whole one.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return frozenset(_root_keys(data))
    except (OSError, ValueError, struct.error, RecursionError) as error:
        raise PermanentError(f"This is not a whole BoltDB file: {error}", where=path.name) from error


def _root_keys(data: mmap.mmap) -> Iterator[bytes]:
    metas = [meta for meta in (_meta(data, 0), *(_meta(data, 1 << bits) for bits in range(10, 17))) if meta]
    if not metas:
        raise ValueError("it has no valid meta page")
    _, size, root, high = max(metas)
    if high * size > len(data):
        raise ValueError("it is cut off")
    pages = [root]
    for seen, page in enumerate(pages):
        if seen > high:
            raise ValueError("its pages go round")
        at = page * size
        _, flags, count, _ = _PAGE.unpack_from(data, at)
        for number in range(count):
            if flags & _BRANCH:
                element = at + _PAGE.size + number * _BRANCH_ELEMENT.size
                pages.append(_BRANCH_ELEMENT.unpack_from(data, element)[2])
            elif flags & _LEAF:
                element = at + _PAGE.size + number * _LEAF_ELEMENT.size
                _, position, length, _ = _LEAF_ELEMENT.unpack_from(data, element)
                yield data[element + position : element + position + length]
            else:
                raise ValueError("a page is of another kind")


def _meta(data: mmap.mmap, at: int) -> tuple[int, int, int, int] | None:
    """Return transaction, page size, root page and number of pages of a meta page; None where there is none."""
    if len(data) < at + _PAGE.size + _META_BODY.size + 8:
        return None
    body = data[at + _PAGE.size : at + _PAGE.size + _META_BODY.size]
    magic, version, size, _, root, _, _, high, transaction = _META_BODY.unpack(body)
    (checksum,) = struct.unpack_from("<Q", data, at + _PAGE.size + _META_BODY.size)
    if (magic, version, checksum) != (_MAGIC, _VERSION, fnv1a_64(body)) or at not in {0, size}:
        return None
    return transaction, size, root, high


def _meta_page(number: int, root: int, high: int) -> bytes:
    body = _META_BODY.pack(_MAGIC, _VERSION, PAGE_SIZE, 0, root, 0, 2, high, number)
    page = _PAGE.pack(number, _META, 0, 0) + body + struct.pack("<Q", fnv1a_64(body))
    return page.ljust(PAGE_SIZE, b"\0")


def fnv1a_64(data: bytes) -> int:
    """Return the 64-bit FNV-1a hash, the checksum of a meta page."""
    value = _FNV_OFFSET
    for byte in data:
        value = (value ^ byte) * _FNV_PRIME & 0xFFFFFFFFFFFFFFFF
    return value


def _item(pages: _Pages, key: bytes, value: Bucket | bytes) -> _Item:
    if not 0 < len(key) <= _MAX_KEY:
        raise PermanentError(f"A BoltDB key must have 1 to {_MAX_KEY} bytes, this one has {len(key)}.")
    if isinstance(value, bytes):
        return _Item(0, key, value)
    items = [_item(pages, name, inner) for name, inner in sorted(value.items())]
    inline = _PAGE.size + sum(item.size for item in items) <= _MAX_INLINE
    if inline and not any(item.flags & _BUCKET_FLAG for item in items):
        page = _PAGE.pack(0, _LEAF, len(items), 0) + _leaf_body(items)
        return _Item(_BUCKET_FLAG, key, _BUCKET.pack(0, 0) + page)
    return _Item(_BUCKET_FLAG, key, _BUCKET.pack(_write_tree(pages, items), 0))


def _write_tree(pages: _Pages, items: Sequence[_Item]) -> int:
    """Write sorted items as a B+ tree; return the root's page id."""
    level = [
        (group[0].key if group else b"", pages.add(_LEAF, len(group), _leaf_body(group))) for group in _leaves(items)
    ]
    while len(level) > 1:
        level = [(group[0][0], pages.add(_BRANCH, len(group), _branch_body(group))) for group in _branches(level)]
    return level[0][1]


def _leaves(items: Sequence[_Item]) -> Iterator[Sequence[_Item]]:
    start, size = 0, _PAGE.size
    for number, item in enumerate(items):
        if size + item.size > PAGE_SIZE and number > start:
            yield items[start:number]
            start, size = number, _PAGE.size
        size += item.size
    yield items[start:]


def _branches(level: Sequence[tuple[bytes, int]]) -> Iterator[Sequence[tuple[bytes, int]]]:
    """Split into groups of at least two, so that every level is shorter than the one below."""
    start, size = 0, _PAGE.size
    for number, (key, _) in enumerate(level):
        more = _BRANCH_ELEMENT.size + len(key)
        if size + more > PAGE_SIZE and number - start > 1 and len(level) - number > 1:
            yield level[start:number]
            start, size = number, _PAGE.size
        size += more
    yield level[start:]


def _leaf_body(items: Sequence[_Item]) -> bytes:
    heads, data = b"", b""
    rest = len(items) * _LEAF_ELEMENT.size
    for number, item in enumerate(items):
        # Positions count from the element itself.
        position = rest - number * _LEAF_ELEMENT.size + len(data)
        heads += _LEAF_ELEMENT.pack(item.flags, position, len(item.key), len(item.value))
        data += item.key + item.value
    return heads + data


def _branch_body(group: Sequence[tuple[bytes, int]]) -> bytes:
    heads, data = b"", b""
    rest = len(group) * _BRANCH_ELEMENT.size
    for number, (key, page) in enumerate(group):
        heads += _BRANCH_ELEMENT.pack(rest - number * _BRANCH_ELEMENT.size + len(data), len(key), page)
        data += key
    return heads + data
