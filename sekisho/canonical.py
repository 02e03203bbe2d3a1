"""Canonical JSON (RFC 8785) and digests: the identity of every document of the line."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from pathlib import Path
from typing import Any, NewType

import rfc8785

from sekisho.errors import Refusal

Digest = NewType("Digest", str)
"""`sha256:` and 64 lower-case hexadecimal digits (OCI image-spec, descriptor.md)."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_CHUNK = 1 << 20
_INT_LIMIT = 1 << 53


def canonical(value: Any) -> bytes:
    """Return `value` as RFC 8785 canonical JSON.

    A large bill of materials takes the library's Python a tenth of a second. What is plain, which is nearly all, goes
    through the C encoder of `json`, which writes the same bytes for it; everything else goes to the library.
    """
    if _is_plain(value):
        with contextlib.suppress(UnicodeEncodeError):  # half a surrogate pair: the library says what is wrong
            return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
    return rfc8785.dumps(value)


def _is_plain(value: Any) -> bool:
    """Return whether the two encoders cannot differ.

    No float, no integer beyond 2^53, exactly JSON's own types, and only ASCII keys, whose order is that of UTF-16 too.
    """
    waiting = [value]
    while waiting:
        item = waiting.pop()
        kind = type(item)
        if kind is dict:
            try:
                if not "".join(item).isascii():
                    return False
            except TypeError:  # a key that is no string
                return False
            waiting.extend(item.values())
        elif kind is list or kind is tuple:
            waiting.extend(item)
        elif kind is int:
            if not -_INT_LIMIT < item < _INT_LIMIT:
                return False
        elif kind is not str and kind is not bool and item is not None:
            return False
    return True


def digest_of(data: bytes) -> Digest:
    """Return the sha256 digest of `data`."""
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())


def digest_of_json(value: Any) -> Digest:
    """Return the digest of the canonical JSON of `value`."""
    return digest_of(canonical(value))


def digest_of_file(path: Path) -> Digest:
    """Return the sha256 digest of a file's bytes, read in pieces."""
    hasher = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_CHUNK):
            hasher.update(piece)
    return Digest("sha256:" + hasher.hexdigest())


def parse_digest(text: str) -> Digest:
    """Return `text` as a Digest.

    Raises:
        Refusal: `text` is not `sha256:` and 64 lower-case hexadecimal digits.
    """
    if not _DIGEST.fullmatch(text):
        raise Refusal(f"{text[:100]!r} is not a sha256 digest.", remedy="Give it as sha256:<64 hexadecimal digits>.")
    return Digest(text)


def hex_of(digest: str) -> str:
    """Return the hexadecimal part of a digest."""
    return digest.removeprefix("sha256:")
