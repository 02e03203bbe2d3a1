"""What bytes a file has: digests of every kind that a lock may name, read once as long as the file does not change.

A file is read whole again unless the kernel says that it is the very file this process has read before: the same
inode, size, time of change and, above all, time of the inode's last change (ctime). Only the kernel sets ctime; whoever
writes, truncates, renames, links or sets another time moves it, and nobody but root can set it back, with the machine's
clock. What was read is remembered in this process alone: no note on a disk is believed. A file whose ctime is younger
than the clock's own steps is not remembered, since a change right after it might carry the same time.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Collection, Mapping
from pathlib import Path

from sekisho.errors import Refusal
from stages.build.artifacts_dirhash import hash_mod, hash_zip
from stages.build.language import Artifact

_HEX = {"sha256": 64, "sha512": 128, "sha1": 40}
_FORMS = {kind: re.compile(rf"[0-9a-f]{{{length}}}") for kind, length in _HEX.items()}
_FORMS |= dict.fromkeys(("h1", "h1mod"), re.compile(r"[A-Za-z0-9+/]{43}="))
_PIECE = 1 << 20
_REMEMBERED = 100_000
_CLOCK_STEP_NS = 30_000_000
"""More than a tick of any kernel's coarse clock (10 ms at 100 Hz), which stamps files."""

_Identity = tuple[int, int, int, int, int]


def declared(artifact: Artifact) -> dict[str, str]:
    """Return the digests that a lock declares, by kind.

    Raises:
        Refusal: none, one that is none, or two of a kind.
    """
    found: dict[str, str] = {}
    for digest in artifact.digests:
        kind, _, value = digest.partition(":")
        form = _FORMS.get(kind)
        if form is None or not form.fullmatch(value) or found.get(kind, value) != value:
            raise Refusal(
                f"{artifact.path} has a digest that is none: {digest[:80]!r}.",
                where=artifact.where,
                remedy="Make the lock file again with its own tool.",
            )
        found[kind] = value
    if not found:
        raise Refusal(
            f"{artifact.path} is locked without a digest: nothing says which bytes it must have.",
            where=artifact.where,
            remedy="Make the lock file again with a present release of its tool, which writes digests.",
        )
    return found


class Digests:
    """Digests of files, remembered as long as the files do not change. Safe for use by several threads."""

    def __init__(self) -> None:
        self._seen: OrderedDict[_Identity, Mapping[str, str]] = OrderedDict()
        self._same: OrderedDict[str, Mapping[str, str]] = OrderedDict()
        self._lock = threading.Lock()

    def remembered(self, path: Path | str, kinds: Collection[str]) -> Mapping[str, str] | None:
        """Return a file's digests if it is known unchanged, else None.

        Raises:
            OSError: it is not there.
        """
        found = self._seen.get(_identity(os.lstat(path)))
        return found if found is not None and all(kind in found for kind in kinds) else None

    def of(self, path: Path, kinds: Collection[str]) -> Mapping[str, str]:
        """Return a file's digests, `sha256` always among them; a digest that it cannot have is empty.

        Raises:
            OSError: it cannot be read, or is no plain file.
        """
        known = self.remembered(path, kinds)
        if known is not None:
            return known
        now = time.time_ns()
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123 -- by descriptor: no link is followed
            before = os.fstat(descriptor)
            if not stat.S_ISREG(before.st_mode):
                raise OSError(f"{path} is no plain file")
            hashers = {kind: hashlib.new(kind) for kind in {"sha256", *kinds} if kind in _HEX}
            piece = bytearray(min(_PIECE, before.st_size + 1))
            while count := file.readinto(piece):
                for hasher in hashers.values():
                    hasher.update(memoryview(piece)[:count])
            found = {kind: hasher.hexdigest() for kind, hasher in hashers.items()}
            # Equal bytes have equal digests: a hash that is dear to make is made once for them.
            found |= {kind: value for kind, value in self._same.get(found["sha256"], {}).items() if kind not in found}
            if "h1mod" in kinds:
                found["h1mod"] = hash_mod(found["sha256"])
            if "h1" in kinds and "h1" not in found:
                found["h1"] = _zip_hash(descriptor)
            after = os.fstat(descriptor)
        if _identity(before) != _identity(after):
            raise OSError(f"{path} was changed while it was read")
        self._remember(_identity(after), found, settled=after.st_ctime_ns + _CLOCK_STEP_NS < now)
        return found

    def _remember(self, identity: _Identity, found: Mapping[str, str], *, settled: bool) -> None:
        with self._lock:
            self._same[found["sha256"]] = found
            if settled:
                self._seen[identity] = found
            for memory in (self._seen, self._same):
                while len(memory) > _REMEMBERED:
                    memory.popitem(last=False)


def _identity(status: os.stat_result) -> _Identity:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _zip_hash(descriptor: int) -> str:
    try:
        return hash_zip(descriptor)
    except Refusal:
        return ""


DIGESTS = Digests()
"""Shared by all of a process: a file is a file, whoever asks."""
