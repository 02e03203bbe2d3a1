"""Canonical JSON (RFC 8785) and digests: the identity of every document of the line."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any, NewType

import rfc8785

from sekisho.errors import Refusal

Digest = NewType("Digest", str)
"""`sha256:` and 64 lower-case hexadecimal digits (OCI image-spec, descriptor.md)."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_CHUNK = 1 << 20


def canonical(value: Any) -> bytes:
    """Return `value` as RFC 8785 canonical JSON."""
    return rfc8785.dumps(value)


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
