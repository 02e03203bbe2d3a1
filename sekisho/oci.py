"""The forms of OCI artifacts: media types, names, descriptors, manifests. Pure.

Sources: OCI image-spec v1.1 (manifest.md, descriptor.md, image-index.md), OCI distribution-spec v1.1 (names, tags,
the referrers tag schema).
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sekisho.canonical import Digest, canonical, digest_of, hex_of, parse_digest
from sekisho.errors import Refusal

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
MANIFEST_TYPES = (OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST)

EMPTY = b"{}"
"""The bytes of an empty config (image-spec, "Guidance for an Empty Descriptor")."""
MANIFEST_LIMIT = 4 << 20
"""Bytes a manifest may have: the distribution-spec's recommended limit."""
INLINE_LIMIT = 256 << 10
"""Bytes of a document that stands in its descriptor as well: who reads the manifest then has it, without asking again.
Some registries take no manifest of more than 1 MiB."""

_REPOSITORY = re.compile(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_NAME_LENGTH = 255


def check_repository(name: str) -> str:
    """Return `name` if it is a legal repository name; whatever goes into a URL passes here.

    Raises:
        Refusal: it is not.
    """
    if len(name) > _NAME_LENGTH or not _REPOSITORY.fullmatch(name):
        raise Refusal(f"{name[:100]!r} is not a legal repository name.")
    return name


def check_reference(reference: str) -> str:
    """Return `reference` if it is a legal tag or a sha256 digest.

    Raises:
        Refusal: it is neither.
    """
    if reference.startswith("sha256:"):
        return parse_digest(reference)
    if not _TAG.fullmatch(reference):
        raise Refusal(f"{reference[:140]!r} is not a legal tag.")
    return reference


def fallback_tag(subject: Digest) -> str:
    """Return the tag of a subject's referrers index on a registry without the referrers API."""
    return f"sha256-{hex_of(subject)}"


@dataclass(frozen=True)
class Descriptor:
    """Points at content (image-spec, descriptor.md)."""

    media_type: str
    digest: Digest
    size: int
    """Bytes."""
    artifact_type: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)
    data: bytes | None = field(default=None, repr=False)
    """The content itself, where the descriptor brings it along ("Embedded Content"); its digest is right."""

    @classmethod
    def of(cls, data: bytes, media_type: str, *, inline: bool = False) -> Descriptor:
        """Return the descriptor of `data`; `inline` puts it in, if it is no larger than INLINE_LIMIT."""
        embedded = data if inline and len(data) <= INLINE_LIMIT else None
        return cls(media_type, digest_of(data), len(data), data=embedded)

    @classmethod
    def parse(cls, value: Any, *, where: str = "") -> Descriptor:
        """Read a descriptor from a manifest's JSON.

        Raises:
            Refusal: a field is missing or of the wrong form, or the content in it is not what it points at.
        """
        if not isinstance(value, dict):
            raise Refusal("A descriptor is not a JSON object.", where=where)
        media_type, digest, size = value.get("mediaType"), value.get("digest"), value.get("size")
        if not isinstance(media_type, str) or not isinstance(digest, str):
            raise Refusal("A descriptor has no mediaType or no digest.", where=where)
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise Refusal("A descriptor has no valid size.", where=where)
        artifact_type = value.get("artifactType", "")
        annotations = value.get("annotations") or {}
        if not isinstance(artifact_type, str):
            raise Refusal("A descriptor's artifactType is not a string.", where=where)
        if not isinstance(annotations, dict) or not all(isinstance(item, str) for item in annotations.values()):
            raise Refusal("A descriptor's annotations are not strings.", where=where)
        data = _embedded(value.get("data"), digest, size, where)
        return cls(media_type, parse_digest(digest), size, artifact_type, annotations, data)

    def to_json(self) -> dict[str, Any]:
        """Return the descriptor as it stands in a manifest."""
        value: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        if self.artifact_type:
            value["artifactType"] = self.artifact_type
        if self.annotations:
            value["annotations"] = dict(self.annotations)
        if self.data is not None:
            value["data"] = base64.b64encode(self.data).decode("ascii")
        return value


def _embedded(value: Any, digest: str, size: int, where: str) -> bytes | None:
    if value is None:
        return None
    try:
        data = base64.b64decode(value, validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise Refusal("A descriptor's data is not base64.", where=where) from error
    if len(data) != size or digest_of(data) != digest:
        raise Refusal("A descriptor's data is not what it points at.", where=where)
    return data


@dataclass(frozen=True)
class RawManifest:
    """A manifest's bytes, whose digest was checked."""

    digest: Digest
    media_type: str
    data: bytes

    @property
    def descriptor(self) -> Descriptor:
        """The descriptor of these bytes."""
        return Descriptor(self.media_type, self.digest, len(self.data))


@dataclass(frozen=True)
class Manifest:
    """An image manifest, read (image-spec, manifest.md)."""

    media_type: str
    """OCI's or Docker's."""
    config: Descriptor
    layers: tuple[Descriptor, ...]
    artifact_type: str = ""
    subject: Digest | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, data: bytes, *, where: str = "") -> Manifest:
        """Read an image manifest.

        Raises:
            Refusal: not an image manifest.
        """
        value = read_json(data, where=where)
        layers = value.get("layers")
        if value.get("schemaVersion") != 2 or not isinstance(layers, list):  # noqa: PLR2004 - the spec's number
            raise Refusal("This is not an OCI image manifest.", where=where)
        media_type = value.get("mediaType", OCI_MANIFEST)
        if media_type not in (OCI_MANIFEST, DOCKER_MANIFEST):
            raise Refusal(f"An image manifest is expected, this is {media_type!r:.100}.", where=where)
        config = Descriptor.parse(value.get("config"), where=where)
        annotations = value.get("annotations") or {}
        if not isinstance(annotations, dict) or not all(isinstance(item, str) for item in annotations.values()):
            raise Refusal("A manifest's annotations are not strings.", where=where)
        artifact_type = value.get("artifactType") or config.media_type
        if not isinstance(artifact_type, str):
            raise Refusal("A manifest's artifactType is not a string.", where=where)
        subject = value.get("subject")
        return cls(
            media_type=media_type,
            config=config,
            layers=tuple(Descriptor.parse(layer, where=where) for layer in layers),
            artifact_type=artifact_type,
            subject=Descriptor.parse(subject, where=where).digest if subject is not None else None,
            annotations=annotations,
        )


def make_manifest(
    config: Descriptor,
    layers: tuple[Descriptor, ...],
    *,
    artifact_type: str = "",
    subject: Descriptor | None = None,
    annotations: Mapping[str, str] | None = None,
) -> bytes:
    """Return an image manifest as canonical JSON: the same parts give the same digest."""
    value: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": config.to_json(),
        "layers": [layer.to_json() for layer in layers],
    }
    if artifact_type:
        value["artifactType"] = artifact_type
    if subject is not None:
        value["subject"] = {"mediaType": subject.media_type, "digest": subject.digest, "size": subject.size}
    if annotations:
        value["annotations"] = dict(annotations)
    return canonical(value)


def make_index(manifests: tuple[Descriptor, ...]) -> bytes:
    """Return an image index as canonical JSON."""
    return canonical(
        {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [manifest.to_json() for manifest in manifests]}
    )


def read_index(data: bytes, *, where: str = "") -> tuple[Descriptor, ...]:
    """Return the descriptors of an image index.

    Raises:
        Refusal: not an image index.
    """
    value = read_json(data, where=where)
    if "manifests" not in value or not isinstance(value["manifests"] or [], list):
        raise Refusal("This is not an OCI image index.", where=where)
    manifests = value["manifests"] or []  # registries that are written in Go say null where there is none
    return tuple(Descriptor.parse(manifest, where=where) for manifest in manifests)


def read_json(data: bytes, *, where: str = "") -> dict[str, Any]:
    """Return the JSON object in `data`; a key that stands twice is refused, because two readers would disagree.

    Raises:
        Refusal: not JSON, not an object, a key twice, or nested too deep.
    """
    try:
        value = json.loads(data, object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Refusal(f"This is not valid JSON: {str(error)[:200]}", where=where) from error
    if not isinstance(value, dict):
        raise Refusal("This is not a JSON object.", where=where)
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
