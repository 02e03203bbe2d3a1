"""Reading a standard image from a zone's registry."""

from __future__ import annotations

from sekisho.canonical import Digest
from sekisho.errors import PermanentError
from sekisho.model import StandardImage
from sekisho.oci import Manifest
from sekisho.registry import Registry
from stages.build.compose import Base, read_base

_CONFIG_LIMIT = 1 << 20


def load_base(registry: Registry, image: StandardImage) -> Base:
    """Return a standard image as the registry holds it.

    Raises:
        PermanentError: it is not there, or is not whole.
    """
    raw = registry.get_manifest(image.repository, image.digest)
    if raw is None:
        raise PermanentError(
            f"The standard image {image.name} is not in the zone's registry.",
            where=f"{image.repository}@{image.digest}",
            remedy="Make or mirror the standard images again: sekisho up does.",
        )
    manifest = Manifest.parse(raw.data, where=image.repository)
    config = registry.get_blob(image.repository, Digest(manifest.config.digest), limit=_CONFIG_LIMIT)
    return read_base(image.name, image.digest, manifest, config)
