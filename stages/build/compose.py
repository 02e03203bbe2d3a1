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
_DROPPED = ("container", "container_config", "docker_version", "id", "parent")


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

    @property
    def launcher(self) -> tuple[str, ...]:
        """What this image puts in front of every command: its entrypoint, where that ends with `--`."""
        return _launcher(self.config)


@dataclass(frozen=True)
class Runtime:
    """How the workload starts."""

    command: tuple[str, ...]
    """Empty: as the standard image says."""
    directory: str
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Origin:
    """Where an image's files come from, as its labels say."""

    title: str
    source: str
    """URI of the repository; empty for a working copy."""
    revision: str
    """The commit; empty for a working copy."""
    time: int
    """Seconds since the epoch: the only time in the image."""

    @classmethod
    def of(cls, revision: Revision) -> Origin:
        """Return the origin of a commit's image."""
        return cls(revision.app, source_uri(revision), revision.commit, revision.committed_at)


@dataclass(frozen=True)
class Composed:
    """An image's documents, read."""

    base: Base
    manifest: Manifest
    config: Mapping[str, Any]


def source_uri(revision: Revision) -> str:
    """Return the zone-neutral URI of a workload's repository."""
    return f"git+https://{SOURCE_HOST}/{revision.app}.git"


def _launcher(config: Mapping[str, Any]) -> tuple[str, ...]:
    words = tuple((config.get("config") or {}).get("Entrypoint") or ())
    return words if words[-1:] == ("--",) else ()


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


def image_config(base: Base, layers: Sequence[Layer], runtime: Runtime, origin: Origin) -> bytes:
    """Return the image's config as canonical JSON.

    The origin's time is the only time in it. The history has one line a layer, so that people see in any tool what
    each layer is.
    """
    created = timestamp(origin.time)
    value: dict[str, Any] = copy.deepcopy(dict(base.config))
    run = {key: item for key, item in (value.get("config") or {}).items() if key not in _FORBIDDEN}
    environment = {**_environment(run), **runtime.environment}
    run["Env"] = [f"{key}={environment[key]}" for key in sorted(environment)]
    run["WorkingDir"] = runtime.directory
    run["User"] = USER
    if runtime.command:
        run["Entrypoint"] = [*base.launcher, *runtime.command]
        run.pop("Cmd", None)
    run["Labels"] = {**(run.get("Labels") or {}), **origin_labels(base, origin)}
    added = [layer for layer in layers if layer.kind != "base"]
    value["config"] = run
    value["created"] = created
    value["rootfs"] = {"type": "layers", "diff_ids": [*base.diff_ids, *(layer.diff_id for layer in added)]}
    value["history"] = [
        *(value.get("history") or []),
        *({"created": created, "created_by": f"sekisho: {layer.kind}"} for layer in added),
    ]
    for key in _DROPPED:
        value.pop(key, None)
    return canonical(value)


def image_manifest(base: Base, layers: Sequence[Layer], config: bytes, origin: Origin) -> bytes:
    """Return the image's manifest as canonical JSON."""
    own = tuple(Descriptor(LAYER_TYPE, Digest(layer.digest), layer.size) for layer in layers if layer.kind != "base")
    inherited = tuple(
        Descriptor(_LAYER_TYPES[layer.media_type], layer.digest, layer.size) for layer in base.manifest.layers
    )
    return make_manifest(
        Descriptor(OCI_CONFIG, digest_of(config), len(config)),
        (*inherited, *own),
        annotations=origin_labels(base, origin),
    )


def origin_labels(base: Base, origin: Origin) -> dict[str, str]:
    """Return the annotations and labels that say where an image comes from (OCI annotations.md)."""
    labels = {
        "org.opencontainers.image.base.digest": base.digest,
        "org.opencontainers.image.base.name": f"standard/{base.name}",
        "org.opencontainers.image.created": timestamp(origin.time),
        "org.opencontainers.image.revision": origin.revision,
        "org.opencontainers.image.source": origin.source,
        "org.opencontainers.image.title": origin.title,
    }
    return {name: value for name, value in labels.items() if value}


def only_base_changed(before: Composed, after: Composed) -> None:
    """Prove that two images differ only as their standard images do.

    The workload's layers are the same, in the same order, on top; below them are the standard image's, all of them;
    and whatever else differs in the configs differs in the same way between the configs of the standard images.

    Raises:
        PermanentError: anything else differs; says what.
    """
    for image in (before, after):
        count = len(image.base.manifest.layers)
        below = [layer.digest for layer in image.manifest.layers[:count]]
        if below != [layer.digest for layer in image.base.manifest.layers]:
            raise _differs("the layers below are not the standard image's", image.base)
        if list(image.config["rootfs"]["diff_ids"][:count]) != list(image.base.diff_ids):
            raise _differs("the files below are not the standard image's", image.base)
        if image.manifest.annotations.get(_BASE_LABELS[0]) != image.base.digest:
            raise _differs("the standard image's name", image.base)
    if _own(before) != _own(after):
        raise _differs("the workload's layers", after.base)
    configs = (before.config, after.config, before.base.config, after.base.config)
    bases = (before.base, after.base) * 2
    runs = [_run_by_itself(config, base) for config, base in zip(configs, bases, strict=True)]
    _check_same("config", [dict(config) for config in configs], after.base)
    _check_same("config", runs, after.base)
    _check_same("environment", [_environment(run) for run in runs], after.base)
    _check_same("labels", [dict(run.get("Labels") or {}) for run in runs], after.base)
    annotations = [dict(before.manifest.annotations), dict(after.manifest.annotations), {}, {}]
    _check_same("annotations", annotations, after.base)


_BASE_LABELS = ("org.opencontainers.image.base.digest", "org.opencontainers.image.base.name")
_COMPARED_APART = frozenset({"rootfs", "history", "config", "Env", "Labels", *_BASE_LABELS, *_DROPPED})


def _check_same(what: str, values: Sequence[Mapping[str, Any]], base: Base) -> None:
    """Refuse what differs between two images and not in the same way between their standard images."""
    old, new, old_base, new_base = values
    for key in sorted((old.keys() | new.keys()) - _COMPARED_APART):
        same = old.get(key) == new.get(key)
        inherited = (old.get(key), new.get(key)) == (old_base.get(key), new_base.get(key))
        if not (same or inherited):
            raise _differs(f"{what}: {key}", base)


def _own(image: Composed) -> list[tuple[Any, ...]]:
    count = len(image.base.manifest.layers)
    descriptors = [(layer.media_type, layer.digest, layer.size) for layer in image.manifest.layers[count:]]
    diff_ids = list(image.config["rootfs"]["diff_ids"][count:])
    inherited = len(image.base.config.get("history") or [])
    history = [(line.get("created"), line.get("created_by")) for line in image.config.get("history", [])[inherited:]]
    return [tuple(descriptors), tuple(diff_ids), tuple(history)]


def _run(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: item for key, item in (config.get("config") or {}).items() if key not in _FORBIDDEN}


def _run_by_itself(config: Mapping[str, Any], base: Base) -> dict[str, Any]:
    """Return how an image runs, with the entrypoint as it stands behind the standard image's launcher."""
    run = _run(config)
    words = tuple(run.pop("Entrypoint", None) or ())
    count = len(base.launcher)
    if words[:count] != base.launcher:
        raise _differs("config: Entrypoint", base)
    return {**run, "Entrypoint": words[count:]}


def _environment(run: Mapping[str, Any]) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in run.get("Env") or () if "=" in pair)


def _differs(what: str, base: Base) -> PermanentError:
    return PermanentError(
        f"More than the standard image changed: {what}.",
        where=f"standard/{base.name}@{base.digest}",
        remedy="Build the workload again instead of moving it.",
    )


def timestamp(seconds: int) -> str:
    """Return seconds since the epoch as RFC 3339 in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
