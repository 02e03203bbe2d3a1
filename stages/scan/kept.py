"""Findings that are kept on this machine by all that decides them; what is not there is found again."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

from sekisho.canonical import Digest, hex_of
from sekisho.errors import Refusal
from sekisho.model import Document, Finding


class _Kept(Document):
    findings: tuple[Finding, ...]


def kept_findings(folder: Path, key: Digest, find: Callable[[], tuple[Finding, ...]]) -> tuple[Finding, ...]:
    """Return the findings kept under a key, found first if they are not there.

    Args:
        folder: where they are kept.
        key: digest over all that decides them.
        find: finds them.
    """
    path = folder / f"{hex_of(key)}.json"
    try:
        return _Kept.parse(path.read_bytes()).findings
    except (OSError, Refusal):
        pass
    findings = find()
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}.part")
    part.write_bytes(_Kept(findings=findings).canonical())
    part.replace(path)
    return findings
