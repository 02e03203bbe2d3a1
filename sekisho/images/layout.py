"""OCI image layouts on disk: made, read, pushed to a registry, and written as an archive for the Docker engine.

Source: OCI image-spec v1.1 (image-layout.md, config.md); for the archive, the Docker image-spec v1.2.
"""

from __future__ import annotations

import datetime as dt
import io
import json
import os
import tarfile
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sekisho.canonical import Digest, canonical, digest_of, hex_of
from sekisho.errors import PermanentError, Refusal
from sekisho.images.layer import COMPRESSOR, LayerBlob
from sekisho.oci import OCI_CONFIG, OCI_MANIFEST, Descriptor, Manifest, check_repository, make_index, make_manifest
from sekisho.registry import Registry
from sekisho.standard import LOCK_FILE, REPOSITORY_PREFIX, StandardSpec
from sekisho.zones import home

LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
LABEL_NAME = "sekisho.dev/standard-image"
LABEL_KIND = "sekisho.dev/kind"
LABEL_END = "sekisho.dev/end-of-life"
LABEL_COMPRESSOR = "sekisho.dev/compressor"
_VERSION = "org.opencontainers.image.version"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Layout:
    """One image in an OCI layout."""

    root: Path
    digest: Digest
    """Of the image's manifest."""
    manifest: bytes

    def blob(self, digest: str) -> Path:
        """Return the path of a blob."""
        return self.root / "blobs" / "sha256" / hex_of(digest)

    @property
    def parts(self) -> Manifest:
        """The manifest, read."""
        return Manifest.parse(self.manifest, where=str(self.root))

    @property
    def config(self) -> dict[str, Any]:
        """The image's config."""
        value: dict[str, Any] = json.loads(self.blob(self.parts.config.digest).read_bytes())
        return value


def images_home() -> Path:
    """Return the directory of the built standard images."""
    return home() / "images"


def lock_path() -> Path:
    """Return the path of the lock that the builder writes."""
    return images_home() / LOCK_FILE


def image_config(spec: StandardSpec, layers: tuple[LayerBlob, ...], *, epoch: int, architecture: str) -> bytes:
    """Return an image's config (config.md) as canonical JSON.

    Args:
        spec: the image.
        layers: from the bottom up.
        epoch: the image's time, seconds since the epoch.
        architecture: in Go's words, for example `amd64`.
    """
    recipe = spec.recipe
    created = dt.datetime.fromtimestamp(epoch, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    config: dict[str, Any] = {
        "User": recipe.user,
        "Env": [f"{name}={value}" for name, value in sorted({"PATH": _PATH, **recipe.env}.items())],
        "WorkingDir": recipe.working_dir,
        "Labels": image_labels(spec),
    }
    if recipe.entrypoint:
        config["Entrypoint"] = list(recipe.entrypoint)
    if recipe.command:
        config["Cmd"] = list(recipe.command)
    if recipe.ports:
        config["ExposedPorts"] = {f"{port}/tcp": {} for port in recipe.ports}
    if recipe.stop_signal:
        config["StopSignal"] = recipe.stop_signal
    return canonical(
        {
            "created": created,
            "architecture": architecture,
            "os": "linux",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
            "history": [{"created": created, "created_by": f"sekisho: {layer.title}"} for layer in layers],
        }
    )


def image_labels(spec: StandardSpec) -> dict[str, str]:
    """Return the labels of an image (OCI annotations.md, and our own)."""
    return {
        "org.opencontainers.image.title": spec.name,
        "org.opencontainers.image.description": spec.title,
        "org.opencontainers.image.vendor": spec.owner,
        _VERSION: spec.version,
        LABEL_NAME: spec.name,
        LABEL_KIND: spec.kind,
        LABEL_END: spec.end_of_life.isoformat(),
        LABEL_COMPRESSOR: COMPRESSOR,
    }


def write_layout(root: Path, config: bytes, layers: tuple[LayerBlob, ...], annotations: Mapping[str, str]) -> Layout:
    """Complete a layout whose layers are already in `root/blobs/sha256`."""
    descriptors = tuple(Descriptor(LAYER_TYPE, layer.digest, layer.size) for layer in layers)
    manifest = make_manifest(Descriptor.of(config, OCI_CONFIG), descriptors, annotations=annotations)
    for data in (config, manifest):
        _write(root / "blobs" / "sha256" / hex_of(digest_of(data)), data)
    _write(root / "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
    _write(root / "index.json", make_index((Descriptor.of(manifest, OCI_MANIFEST),)))
    return Layout(root, digest_of(manifest), manifest)


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def open_layout(name: str) -> Layout:
    """Return a built standard image.

    Raises:
        PermanentError: it was not built, or its files are damaged.
    """
    check_repository(name)
    root = images_home() / name
    remedy = "Build it: python -m sekisho.images build."
    try:
        index = json.loads((root / "index.json").read_bytes())
        digest = Digest(index["manifests"][0]["digest"])
        manifest = (root / "blobs" / "sha256" / hex_of(digest)).read_bytes()
    except FileNotFoundError as error:
        raise PermanentError(f"The standard image {name} is not built.", where=str(root), remedy=remedy) from error
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise PermanentError(f"The image {name} cannot be read: {error}", where=str(root), remedy=remedy) from error
    if digest_of(manifest) != digest:
        raise PermanentError(f"The manifest of {name} is not what its digest says.", where=str(root), remedy=remedy)
    return Layout(root.resolve(), digest, manifest)


def push_layout(registry: Registry, name: str, held: MutableMapping[Digest, str] | None = None) -> Digest:
    """Push a built standard image as `standard/<name>`, tagged with its version; what is there is left alone.

    Args:
        registry: where to.
        name: the image.
        held: a repository of the registry that holds a blob, by its digest; a shared layer is then not sent again.
            What this image brings is added.

    Raises:
        PermanentError: the image is not built.
        TemporaryError: the registry does not answer.
        Refusal: the registry refuses it.
    """
    layout = open_layout(name)
    repository = f"{REPOSITORY_PREFIX}/{name}"
    parts = layout.parts
    tag = parts.annotations.get(_VERSION, "")
    known = {} if held is None else held
    there = registry.get_manifest(repository, layout.digest) is not None
    for descriptor in (*parts.layers, parts.config):
        source = known.setdefault(descriptor.digest, repository)
        if there or registry.has_blob(repository, descriptor.digest):
            continue
        if source == repository or not registry.mount_blob(repository, descriptor.digest, source):
            registry.push_blob(repository, layout.blob(descriptor.digest), descriptor.digest)
    if there and (not tag or registry.resolve(repository, tag) == layout.digest):
        return layout.digest
    pushed = registry.put_manifest(repository, layout.manifest, OCI_MANIFEST, tag=tag)
    if pushed != layout.digest:
        raise Refusal(f"The registry keeps {name} under another digest.", where=repository)
    return pushed


def docker_archive(name: str, target: Path, *, tag: str = "") -> str:
    """Write a built image as a tar that `docker load` and the Docker SDK's `images.load` take.

    Args:
        name: the standard image.
        target: the file to write; replaced if it is there.
        tag: `name:tag` the engine shall know it by; `sekisho/standard-<name>:<first 12 digits of its digest>` if empty.

    Returns:
        The tag.
    """
    layout = open_layout(name)
    parts = layout.parts
    tag = tag or f"sekisho/standard-{name}:{hex_of(layout.digest)[:12]}"
    config_name = f"{hex_of(parts.config.digest)}.json"
    layer_names = [f"{hex_of(layer.digest)}/layer.tar" for layer in parts.layers]
    manifest = json.dumps([{"Config": config_name, "RepoTags": [tag], "Layers": layer_names}]).encode()
    part = target.with_name(target.name + ".part")
    with tarfile.open(part, "w", format=tarfile.GNU_FORMAT) as tar:
        _add_bytes(tar, config_name, layout.blob(parts.config.digest).read_bytes())
        for layer, layer_name in zip(parts.layers, layer_names, strict=True):
            info = tarfile.TarInfo(layer_name)
            info.size = layer.size
            # The engine sees by the first bytes that a layer is gzipped.
            with layout.blob(layer.digest).open("rb") as data:
                tar.addfile(info, data)
        _add_bytes(tar, "manifest.json", manifest)
    part.replace(target)
    return tag


def _add_bytes(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))
