"""The cache of dependency layers: packed once for all commits that have the same packages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from sekisho.canonical import Digest, digest_of_json
from stages.build.pack import Entry, PackedLayer
from stages.build.store import Store

_BLOB = "layer.tar.gz"


@dataclass(frozen=True)
class CachedLayer:
    """A layer, and what was noted with it."""

    packed: PackedLayer
    data: Mapping[str, Any]


class LayerCache:
    """Layers by the digest of all that decides them, checked at each use by the store.

    Args:
        store: the builder's cache.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def get(self, key: Digest, held: ExitStack, make: Callable[[], CachedLayer]) -> CachedLayer:
        """Return a layer, made if it is not there or not whole, and hold it until `held` is closed.

        Args:
            key: digest of all that decides the layer.
            held: keeps it from being removed.
            make: makes it, in a file of the caller's.
        """
        kept = self._store.find(_place(key), held)
        if kept is None:
            made = make()
            packed = made.packed
            entry = Entry(_BLOB, "file", size=packed.size, source=packed.path)
            data = {"digest": packed.digest, "diff_id": packed.diff_id, "data": dict(made.data)}
            kept = self._store.add(_place(key), (entry,), held, data=data)
        blob = kept.folder / _BLOB
        digest, diff_id = Digest(kept.data["digest"]), Digest(kept.data["diff_id"])
        return CachedLayer(PackedLayer(blob, digest, diff_id, blob.stat().st_size), kept.data["data"])


def _place(key: Digest) -> Digest:
    return digest_of_json(["layer", key])
