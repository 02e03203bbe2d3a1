"""Records: documents of the line, kept in a registry under a tag.

A stage's `find` looks here. A record is an OCI artifact with one layer, the document's canonical JSON, and the
annotation `dev.sekisho.document` with the name of its class, so that one kind of document is never read as another.
A record is a note to oneself in one's own registry, not evidence: what must be believed elsewhere is signed.
"""

from __future__ import annotations

from typing import TypeVar

from sekisho.canonical import Digest
from sekisho.errors import Refusal
from sekisho.model import Document
from sekisho.oci import EMPTY, OCI_EMPTY, OCI_MANIFEST, Descriptor, Manifest, make_manifest
from sekisho.registry import Registry

RECORD_TYPE = "application/vnd.sekisho.record.v1+json"
DOCUMENT_ANNOTATION = "dev.sekisho.document"

D = TypeVar("D", bound=Document)


def put_record(registry: Registry, repository: str, tag: str, document: Document) -> Digest:
    """Keep a document under a tag; a record that stood there before is no longer found.

    Returns:
        The digest of the record's manifest.
    """
    data = document.canonical()
    registry.put_blob(repository, EMPTY)
    registry.put_blob(repository, data)
    manifest = make_manifest(
        Descriptor.of(EMPTY, OCI_EMPTY),
        (Descriptor.of(data, RECORD_TYPE),),
        artifact_type=RECORD_TYPE,
        annotations={DOCUMENT_ANNOTATION: type(document).__name__},
    )
    return registry.put_manifest(repository, manifest, OCI_MANIFEST, tag=tag)


def get_record(registry: Registry, repository: str, tag: str, cls: type[D]) -> D | None:
    """Return the document kept under a tag, or None.

    Raises:
        Refusal: what stands there is not a record of a `cls`.
    """
    raw = registry.get_manifest(repository, tag)
    if raw is None:
        return None
    where = f"{registry.url} {repository}:{tag}"
    manifest = Manifest.parse(raw.data, where=where)
    kind = manifest.annotations.get(DOCUMENT_ANNOTATION)
    if manifest.artifact_type != RECORD_TYPE or kind != cls.__name__ or len(manifest.layers) != 1:
        raise Refusal(f"This is not a record of a {cls.__name__}.", where=where)
    return cls.parse(registry.get_blob(repository, manifest.layers[0].digest), where=where)
