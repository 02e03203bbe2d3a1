"""A release as one file: every document that its verification needs, for whoever has no wire.

Image layers are not in the file; the image's manifest and config are, and name each layer by digest.
"""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Mapping
from typing import Final, Literal

from sekisho.canonical import digest_of, parse_digest
from sekisho.errors import Refusal, VerificationError
from sekisho.keys import TrustRoot
from sekisho.model import Document, Offer
from sekisho.oci import read_json
from sekisho.releases.closure import Closure
from sekisho.releases.rules import RULES, Requirement, VerifiedRelease, examine_closure

BUNDLE_FILE_LIMIT: Final = 512 << 20
"""Bytes of such a file."""


class ReleaseBundle(Document):
    """A release with its evidence, without the layers of its image."""

    format: Literal["sekisho.dev/release-bundle/v1"] = "sekisho.dev/release-bundle/v1"
    offer: Offer
    documents: dict[str, str]
    """Base64 of each document, by digest."""


class Check(Document):
    """One rule's answer."""

    name: str
    ok: bool
    detail: str = ""


class VerificationReport(Document):
    """What was checked about a release, and whether it counts."""

    app: str
    release: str
    summary: str
    commit: str
    ok: bool
    checks: tuple[Check, ...]

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if not check.ok)


def export_bundle(verified: VerifiedRelease) -> ReleaseBundle:
    """Return a verified release as one document; its canonical form is the file."""
    documents = verified.closure.documents
    return ReleaseBundle(
        offer=verified.offer,
        documents={digest: base64.b64encode(documents[digest]).decode("ascii") for digest in sorted(documents)},
    )


def verify_bundle(
    data: bytes,
    trust: TrustRoot,
    *,
    require: tuple[Requirement, ...] = ("verifier",),
    at: int | None = None,
    witnessed: Mapping[str, int] | None = None,
) -> VerificationReport:
    """Verify a release bundle, offline, and report on every rule.

    Args:
        data: the file's bytes.
        trust: whose keys count.
        require: whose word the release needs.
        at: the time that the keys must be valid at for what was not seen before, seconds since the epoch; now when
            None.
        witnessed: when whoever asks first verified a statement (`sekisho.witness`).

    Raises:
        Refusal: too large, or not a release bundle at all. A bundle that does not verify raises nothing.
    """
    bundle = read_bundle(data)
    offer = bundle.offer
    moment = int(time.time()) if at is None else at
    try:
        closure = Closure(documents_of(bundle.documents))
    except Refusal as error:
        checks = [Check(name="documents", ok=False, detail=str(error))]
        checks += [Check(name=name, ok=False, detail="Not checked: the documents are damaged.") for name, _ in RULES]
    else:
        checks = [Check(name="documents", ok=True, detail=f"{len(closure.documents)} documents have their digests")]
        for name, problem in examine_closure(offer, closure, trust, require, at=moment, witnessed=witnessed):
            checks.append(Check(name=name, ok=not problem, detail=problem))
    return VerificationReport(
        app=offer.app,
        release=offer.release,
        summary=offer.summary,
        commit=offer.commit,
        ok=all(check.ok for check in checks),
        checks=tuple(checks),
    )


def read_bundle(data: bytes) -> ReleaseBundle:
    """Read a release bundle. Nothing of it is verified.

    Raises:
        Refusal: too large, or not a release bundle at all.
    """
    if len(data) > BUNDLE_FILE_LIMIT:
        raise Refusal(f"The file is larger than {BUNDLE_FILE_LIMIT} bytes.")
    read_json(data)
    return ReleaseBundle.parse(data)


def documents_of(encoded: Mapping[str, str]) -> dict[str, bytes]:
    """Return a file's documents by digest; each has its digest.

    Raises:
        Refusal: one is not base64.
        VerificationError: one does not have its digest.
    """
    documents: dict[str, bytes] = {}
    for digest, text in encoded.items():
        try:
            content = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as error:
            raise Refusal("A document is not base64.", where=digest[:80]) from error
        if digest_of(content) != parse_digest(digest):
            raise VerificationError("A document does not have its digest.", where=digest)
        documents[digest] = content
    return documents
