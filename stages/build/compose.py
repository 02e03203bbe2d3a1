"""Composing an image: the standard image's config and manifest, with layers on top. Pure.

Formats: OCI image-spec config.md, manifest.md, annotations.md.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sekisho.canonical import Digest, canonical, digest_of
from sekisho.errors import PermanentError
from sekisho.model import Layer, Revision
from sekisho.oci import OCI_CONFIG, Descriptor, Manifest, make_manifest

USER = "10001:10001"
"""User and group of every workload's process; the rendered manifests say the same."""
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
SOURCE_HOST = "git.sekisho.internal"
"""Host in every source URI. No DNS knows it: zones outside the build zone have no way to the repositories."""

_DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
_LAYER_TYPES = {_DOCKER_LAYER: LAYER_TYPE, LAYER_TYPE: LAYER_TYPE}
_FORBIDDEN = ("OnBuild", "Healthcheck")


@dataclass(frozen=True)
class Base:
    """A standard image, read from the registry."""

    name: str
    digest: str
    manifest: Manifest
    config: Mapping[str, Any]

    @property
    def diff_ids(self) -> tuple[str, ...]:
        """Digest of each layer's tar."""
        return tuple(self.config["rootfs"]["diff_ids"])


@dataclass(frozen=True)
class Runtime:
    """How the workload starts."""

    command: tuple[str, ...]
    """Empty: as the standard image says."""
    directory: str
    environment: Mapping[str, str]


def source_uri(revision: Revision) -> str:
    """Return the zone-neutral URI of a workload's repository."""
    return f"git+https://{SOURCE_HOST}/{revision.app}.git"


def read_base(name: str, digest: str, manifest: Manifest, config: bytes) -> Base:
    """Return a standard image after checking that its parts fit together.

    Raises:
        PermanentError: the config is not one, its layers are not the manifest's, or a layer has another media type.
    """
    where = f"standard/{name}@{digest}"
    remedy = "Make the standard image again."
    try:
        value = json.loads(config)
        diff_ids = value["rootfs"]["diff_ids"]
        fits = len(diff_ids) == len(manifest.layers) and all(isinstance(item, str) for item in diff_ids)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise PermanentError("The standard image has no valid config.", where=where, remedy=remedy) from error
    if not fits:
        raise PermanentError(
            "The standard image's config and manifest list different layers.", where=where, remedy=remedy
        )
    for layer in manifest.layers:
        if layer.media_type not in _LAYER_TYPES:
            raise PermanentError(f"The layer type {layer.media_type} is not known.", where=where, remedy=remedy)
    return Base(name, digest, manifest, value)


def base_layers(base: Base) -> tuple[Layer, ...]:
    """Return the layers of a standard image as a document's."""
    pairs = zip(base.manifest.layers, base.diff_ids, strict=True)
    return tuple(Layer(digest=layer.digest, diff_id=diff_id, size=layer.size, kind="base") for layer, diff_id in pairs)


def image_config(base: Base, layers: Sequence[Layer], runtime: Runtime, revision: Revision) -> bytes:
    """Return the image's config as canonical JSON.

    The commit's time is the only time in it. The history has one line a layer, so that people see in any tool what
    each layer is.
    """
    created = timestamp(revision.committed_at)
    value: dict[str, Any] = copy.deepcopy(dict(base.config))
    run = {key: item for key, item in (value.get("config") or {}).items() if key not in _FORBIDDEN}
    environment = dict(pair.split("=", 1) for pair in run.get("Env") or () if "=" in pair)
    environment.update(runtime.environment)
    run["Env"] = [f"{key}={environment[key]}" for key in sorted(environment)]
    run["WorkingDir"] = runtime.directory
    run["User"] = USER
    if runtime.command:
        run["Entrypoint"] = list(runtime.command)
        run.pop("Cmd", None)
    run["Labels"] = {**(run.get("Labels") or {}), **origin(base, revision)}
    added = [layer for layer in layers if layer.kind != "base"]
    value["config"] = run
    value["created"] = created
    value["rootfs"] = {"type": "layers", "diff_ids": [*base.diff_ids, *(layer.diff_id for layer in added)]}
    value["history"] = [
        *(value.get("history") or []),
        *({"created": created, "created_by": f"sekisho: {layer.kind}"} for layer in added),
    ]
    for key in ("container", "container_config", "docker_version", "id", "parent"):
        value.pop(key, None)
    return canonical(value)


def image_manifest(base: Base, layers: Sequence[Layer], config: bytes, revision: Revision) -> bytes:
    """Return the image's manifest as canonical JSON."""
    own = tuple(Descriptor(LAYER_TYPE, Digest(layer.digest), layer.size) for layer in layers if layer.kind != "base")
    inherited = tuple(
        Descriptor(_LAYER_TYPES[layer.media_type], layer.digest, layer.size) for layer in base.manifest.layers
    )
    return make_manifest(
        Descriptor(OCI_CONFIG, digest_of(config), len(config)),
        (*inherited, *own),
        annotations=origin(base, revision),
    )


def origin(base: Base, revision: Revision) -> dict[str, str]:
    """Return the annotations and labels that say where an image comes from (OCI annotations.md)."""
    return {
        "org.opencontainers.image.base.digest": base.digest,
        "org.opencontainers.image.base.name": f"standard/{base.name}",
        "org.opencontainers.image.created": timestamp(revision.committed_at),
        "org.opencontainers.image.revision": revision.commit,
        "org.opencontainers.image.source": source_uri(revision),
        "org.opencontainers.image.title": revision.app,
    }


def timestamp(seconds: int) -> str:
    """Return seconds since the epoch as RFC 3339 in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
