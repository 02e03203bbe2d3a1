"""The cache of dependency layers: content-addressed, checked on every read, written by the line alone.

No step of a user's ever reaches it. A build must give the same image whether or not the cache is there (SLSA v1.2,
build requirements, "Isolated"): what is in it was made from nothing but its key's parts.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from pydantic import Field

from sekisho.canonical import Digest, digest_of_file, hex_of
from sekisho.errors import Refusal
from sekisho.model import DigestField, Document
from stages.build.pack import PackedLayer

_BLOB = "layer.tar.gz"
_NOTE = "layer.json"


class _Note(Document):
    digest: str = DigestField
    diff_id: str = DigestField
    size: int = Field(ge=0)


class LayerCache:
    """Layers by the digest of all that decides them.

    Args:
        root: folder of the cache; made if missing.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(parents=True, exist_ok=True)

    def get(self, key: Digest, make: Callable[[Path], PackedLayer]) -> PackedLayer:
        """Return a layer, made if it is not there or not whole.

        Args:
            key: digest of all that decides the layer.
            make: makes it in an empty folder.
        """
        place = self._root / hex_of(key)
        found = self._read(place)
        if found is not None:
            return found
        with tempfile.TemporaryDirectory(dir=self._root, prefix=".make-") as scratch:
            made = make(Path(scratch))
            ready = Path(scratch) / "ready"
            ready.mkdir()
            made.path.chmod(0o644)  # the sandbox's user reads it
            made.path.replace(ready / _BLOB)
            note = _Note(digest=made.digest, diff_id=made.diff_id, size=made.size)
            (ready / _NOTE).write_bytes(note.canonical())
            try:
                ready.replace(place)
            except OSError:  # somebody made the same in the meantime: the folder is there and not empty
                found = self._read(place)
                if found is None:
                    ready.replace(place)
        return found or PackedLayer(place / _BLOB, made.digest, made.diff_id, made.size)

    def _read(self, place: Path) -> PackedLayer | None:
        try:
            note = _Note.parse((place / _NOTE).read_bytes())
            blob = place / _BLOB
            if not blob.is_symlink() and digest_of_file(blob) == note.digest and blob.stat().st_size == note.size:
                return PackedLayer(blob, Digest(note.digest), Digest(note.diff_id), note.size)
        except (OSError, Refusal):
            pass
        shutil.rmtree(place, ignore_errors=True)
        return None
