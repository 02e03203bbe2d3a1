"""Records: documents of the line, kept in a registry under a tag.

A stage's `find` looks here. A record is an OCI artifact with one layer, the document's canonical JSON, and the
annotation `dev.sekisho.document` with the name of its class, so that one kind of document is never read as another.
A record is a note to oneself in one's own registry, not evidence: what must be believed elsewhere is signed.

Whoever can write to the registry can write records. Where a stage goes on from what a record says without checking it
(what a scan found), the record carries its writer's signature over document, place and tag, and one that does not
verify is not there: the work is done again.
"""

from __future__ import annotations

import base64
import binascii
import logging
from typing import TypeVar

from sekisho.canonical import Digest, canonical, digest_of
from sekisho.errors import Refusal
from sekisho.keys import Signer, trusted_key
from sekisho.model import Document
from sekisho.oci import EMPTY, OCI_EMPTY, OCI_MANIFEST, Descriptor, Manifest, make_manifest
from sekisho.registry import Registry
from sekisho.signing import sign_with
from sekisho.statements import pae

RECORD_TYPE = "application/vnd.sekisho.record.v1+json"
DOCUMENT_ANNOTATION = "dev.sekisho.document"
SIGNATURE_ANNOTATION = "dev.sekisho.signature"

_LOG = logging.getLogger(__name__)

D = TypeVar("D", bound=Document)


def put_record(
    registry: Registry, repository: str, tag: str, document: Document, *, signer: Signer | None = None
) -> Digest:
    """Keep a document under a tag; a record that stood there before is no longer found.

    Args:
        registry: the zone's own registry.
        repository: where.
        tag: under which name.
        document: what is kept.
        signer: who signs it, for `get_record` to check.

    Returns:
        The digest of the record's manifest.

    Raises:
        TemporaryError: the signer is down; nothing was kept.
    """
    data = document.canonical()
    annotations = {DOCUMENT_ANNOTATION: type(document).__name__}
    if signer is not None:
        signature = sign_with(signer, _signed(repository, tag, type(document), data))[1]
        annotations[SIGNATURE_ANNOTATION] = base64.b64encode(signature).decode("ascii")
    registry.put_blobs(repository, EMPTY, data)
    manifest = make_manifest(
        Descriptor.of(EMPTY, OCI_EMPTY),
        (Descriptor.of(data, RECORD_TYPE, inline=True),),
        artifact_type=RECORD_TYPE,
        annotations=annotations,
    )
    return registry.put_manifest(repository, manifest, OCI_MANIFEST, tag=tag)


def get_record(
    registry: Registry, repository: str, tag: str, cls: type[D], *, signer: Signer | None = None
) -> D | None:
    """Return the document kept under a tag, or None.

    Args:
        registry: the zone's own registry.
        repository: where.
        tag: under which name.
        cls: what it must be.
        signer: whose signature it must carry; without that it is as if it were not there.

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
    data = registry.get_part(repository, manifest.layers[0])
    if signer is not None and not _verifies(signer, manifest, _signed(repository, tag, cls, data)):
        _LOG.warning("A record is not signed by the %s and does not count: %s", signer.role, where)
        return None
    return cls.parse(data, where=where)


def _signed(repository: str, tag: str, cls: type[Document], data: bytes) -> bytes:
    """Return what is signed: the document and its place, so that a true one elsewhere is not taken for it."""
    return pae(RECORD_TYPE, canonical([repository, tag, cls.__name__, digest_of(data)]))


def _verifies(signer: Signer, manifest: Manifest, signed: bytes) -> bool:
    try:
        signature = base64.b64decode(manifest.annotations.get(SIGNATURE_ANNOTATION, ""), validate=True)
    except (binascii.Error, ValueError):
        return False
    return trusted_key(signer).verifies(signature, signed)
