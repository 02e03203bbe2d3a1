"""Referrers: asking the API, and what is done without it so that no writer at the same time makes them disappear.

The referrers tag schema (distribution-spec v1.1, "Referrers Tag Schema") keeps all referrers of a subject in one
index under one tag. The index is read, changed and written back, and registries have no compare-and-swap for that.
What holds nevertheless:

- Writers of ours on one machine take turns (`turn`): none of their entries is lost, for any reader.
- A writer of somebody else, cosign for example, can write back an index that it read before ours was there. So each
  referrer that is attached here gets a tag of its own as well, `sha256-<subject>.r-<referrer>`, which nobody else has
  a reason to write. Our readers take both, and our next write on that subject mends the index for all others. The tag
  also keeps the registry's garbage collection away from a referrer that fell out of the index.
- What cannot be guarded is the entry of another tool that writes between our reading and our writing, some
  milliseconds: nobody can notice that it was there. Only a registry with the referrers API rules that out.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sekisho.canonical import Digest, hex_of
from sekisho.errors import PermanentError, Refusal
from sekisho.oci import (
    MANIFEST_LIMIT,
    OCI_INDEX,
    Descriptor,
    Manifest,
    RawManifest,
    fallback_tag,
    make_index,
    read_index,
)
from sekisho.registry_http import Transport, expect

OWN_TAGS_LIMIT: Final = 1024
"""Own tags of one subject that are looked at: a flood must not stop the line."""
_OK = 200
_NO_API = (404, 400, 405, 406)
"""Answers of registries without the referrers API; the spec's is 404."""
_UNKNOWN = re.compile(rb"\b(NAME|MANIFEST)_UNKNOWN\b")
_NEXT = re.compile(r"""<([^>]*)>\s*;\s*rel="?next"?""")
_PAGES = 64
_STRIPES = 64
_DIGITS = 48
_OTHERS = stat.S_IRWXG | stat.S_IRWXO

_turns = [threading.Lock() for _ in range(_STRIPES)]


def own_tag(subject: Digest, referrer: Digest) -> str:
    """Return the tag that one referrer has for itself."""
    return f"{own_prefix(subject)}{hex_of(referrer)[:_DIGITS]}"


def own_prefix(subject: Digest) -> str:
    """Return what the own tags of a subject's referrers begin with."""
    return f"{fallback_tag(subject)}.r-"


def entry_of(raw: RawManifest, subject: Digest) -> Descriptor | None:
    """Return a referrer's entry in the index; None if this is no manifest that refers to the subject."""
    try:
        manifest = Manifest.parse(raw.data)
    except Refusal:
        return None
    if manifest.subject != subject:
        return None
    return Descriptor(raw.media_type, raw.digest, len(raw.data), manifest.artifact_type, manifest.annotations)


def joined(index: bytes | None, entries: tuple[Descriptor, ...], *, where: str) -> bytes | None:
    """Return the index with these entries at its end; None if it has them all.

    Raises:
        Refusal: what stands there is not an index.
    """
    present = read_index(index, where=where) if index else ()
    known = {entry.digest for entry in present}
    missing = tuple(entry for entry in entries if entry.digest not in known)
    return make_index((*present, *missing)) if missing else None


def ask_api(transport: Transport, path: str) -> tuple[tuple[Descriptor, ...] | None, bool]:
    """Ask the referrers API (distribution-spec v1.1, "Listing Referrers").

    Returns:
        What it lists, all pages; None if this registry has no such API. And whether that is certain: some answer 404
        also about a repository that is not there.

    Raises:
        PermanentError: the list has no end, goes on at another address, or is refused.
        TemporaryError: the registry cannot answer now.
    """
    where, entries = path, list[Descriptor]()
    for number in range(_PAGES):
        answer = transport.send("GET", path, headers={"Accept": OCI_INDEX}, limit=MANIFEST_LIMIT)
        index = answer.headers.get("content-type", "").partition(";")[0].strip() == OCI_INDEX
        if number == 0 and (answer.status in _NO_API or (answer.status == _OK and not index)):
            return None, not _UNKNOWN.search(answer.body)
        expect(answer, transport.url + path, _OK)
        entries.extend(read_index(answer.body, where=transport.url + path))
        following = _NEXT.search(answer.headers.get("link", ""))
        if following is None:
            return tuple(entries), True
        path = transport.same_origin(following[1])
    raise PermanentError(f"The list of referrers has more than {_PAGES} pages.", where=transport.url + where)


@contextmanager
def turn(name: str, locks: Path | None) -> Iterator[None]:
    """Wait for one's turn to change a tag: among the threads of this process, and the processes of this user.

    Args:
        name: registry, repository and tag.
        locks: directory for the lock files; one in the machine's temporary directory when None.
    """
    stripe = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]) % _STRIPES
    with _turns[stripe]:
        folder = locks or _default_folder()
        if folder is None:
            yield
            return
        with (folder / f"registry-{stripe}.lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _default_folder() -> Path | None:
    """Return this user's directory of lock files; None where another user took its name or nothing can be written."""
    folder = Path(tempfile.gettempdir()) / f"sekisho-locks-{os.geteuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        state = folder.lstat()
    except OSError:
        return None
    ours = stat.S_ISDIR(state.st_mode) and state.st_uid == os.geteuid() and not state.st_mode & _OTHERS
    return folder if ours else None
