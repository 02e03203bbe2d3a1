"""The closure of a release: every small document that its verification needs, by digest, in memory.

What does not depend on one another is fetched at the same time.
Image layers are not in it: they are only checked against the digests that these documents name.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from sekisho.canonical import Digest, parse_digest
from sekisho.errors import Refusal, VerificationError
from sekisho.evidence import bundle_layer
from sekisho.model import Offer, Release
from sekisho.oci import Descriptor, Manifest
from sekisho.policy_archive import ARCHIVE_LIMIT
from sekisho.registry import Registry
from sekisho.releases.artifact import (
    CONFIG_LIMIT,
    MANIFESTS_LIMIT,
    image_repository,
    release_parts,
    release_repository,
)
from sekisho.releases.judgement import JUDGEMENT_LIMIT, judgement_parts, named_judgement
from sekisho.statements import BUNDLE_LIMIT, peek_statement
from sekisho.together import together

EVIDENCE_LIMIT = 32
"""Statements that a release may name."""
CLOSURE_LIMIT = 256 << 20
"""Bytes of all documents together."""


@dataclass(frozen=True)
class Closure:
    """Documents by digest. Whoever makes one has checked that each digest is that of its bytes."""

    documents: Mapping[str, bytes]

    def get(self, digest: str, what: str) -> bytes:
        """Return a document.

        Raises:
            VerificationError: it is not there; `what` says what is missing.
        """
        data = self.documents.get(digest)
        if data is None:
            raise VerificationError(f"{what} is missing.", where=digest)
        return data

    def referrer(self, manifest: str, what: str) -> tuple[Digest, bytes]:
        """Return the subject that a referrer manifest names, and the bundle that it carries.

        Raises:
            VerificationError: it is not there, or it carries no bundle.
        """
        subject, layer = bundle_layer(self.get(manifest, what), where=manifest)
        return subject, self.get(layer.digest, what)


class _Fetch:
    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._size = 0
        self._keeping = threading.Lock()
        self.documents: dict[str, bytes] = {}

    def manifest(self, repository: str, digest: str) -> bytes | None:
        raw = self._registry.get_manifest(repository, digest)
        if raw is not None:
            self._keep(raw.digest, raw.data)
        return raw.data if raw else None

    def part(self, repository: str, part: Descriptor, limit: int) -> bytes:
        data = self._registry.get_part(repository, part, limit=limit)
        self._keep(part.digest, data)
        return data

    def referrer(self, repository: str, digest: str) -> bytes | None:
        data = self.manifest(repository, digest)
        if data is None:
            return None
        return self.part(repository, bundle_layer(data, where=digest)[1], BUNDLE_LIMIT)

    def judgement(self, repository: str, digest: str) -> None:
        data = self.manifest(repository, digest)
        if data is not None:
            document, policies = judgement_parts(data, where=digest)
            self.part(repository, document, JUDGEMENT_LIMIT)
            self.part(repository, policies, ARCHIVE_LIMIT)

    def image(self, repository: str, digest: str) -> None:
        data = self.manifest(repository, digest)
        if data is not None:
            self.part(repository, Manifest.parse(data, where=digest).config, CONFIG_LIMIT)

    def _keep(self, digest: str, data: bytes) -> None:
        with self._keeping:
            self._size += len(data)
            if self._size > CLOSURE_LIMIT:
                raise Refusal(f"The documents of the release are larger than {CLOSURE_LIMIT} bytes together.")
            self.documents[digest] = data


def fetch_closure(registry: Registry, offer: Offer) -> Closure:
    """Fetch the documents of an offered release. A missing manifest is left out; the rules say what is missing.

    Raises:
        Refusal: the release names another app's repository, or more than the limits allow.
        TemporaryError: the registry cannot be reached.
    """
    fetch = _Fetch(registry)
    repository = release_repository(offer.app)
    data = fetch.manifest(repository, offer.release)
    if data is None:
        return Closure(fetch.documents)
    config, layer = release_parts(data, where=offer.release)
    release = Release.parse(fetch.part(repository, config, CONFIG_LIMIT), where=offer.release)
    check_scope(release, offer)
    summary = fetch.referrer(repository, offer.summary)
    judgement = claimed_judgement(summary, offer) if summary else ""
    images = release.image.repository
    calls: list[Callable[[], object]] = [
        partial(fetch.part, repository, layer, MANIFESTS_LIMIT),
        partial(fetch.image, images, release.image.digest),
        *(partial(fetch.referrer, images, evidence.manifest) for evidence in release.evidence),
    ]
    if judgement:
        calls.append(partial(fetch.judgement, repository, judgement))
    if offer.receipt:
        calls.append(partial(fetch.referrer, repository, offer.receipt))
    together(*calls)
    return Closure(fetch.documents)


def statements_of(offer: Offer) -> Iterator[Digest]:
    """Yield the referrers of the release itself: the summary, and the receipt where the offer names one."""
    yield Digest(offer.summary)
    if offer.receipt:
        yield Digest(offer.receipt)


def claimed_judgement(summary: bytes, offer: Offer) -> str:
    """Return the judgement that a summary claims to rest on, '' where none; unverified: what to fetch, no more."""
    try:
        return parse_digest(named_judgement(peek_statement(summary), release_repository(offer.app)))
    except Refusal:
        return ""  # malformed, or none: the rules say whether that counts


def check_scope(release: Release, offer: Offer) -> None:
    """Check that a release stays within its app: nothing of another app's is even fetched.

    Raises:
        VerificationError: it does not.
    """
    apps = {release.app, release.revision.app, offer.app}
    if len(apps) != 1 or release.image.repository != image_repository(offer.app):
        raise VerificationError(f"The release is not one of {offer.app}.", where=offer.release)
    if len(release.evidence) > EVIDENCE_LIMIT:
        raise VerificationError(f"The release names more than {EVIDENCE_LIMIT} statements.", where=offer.release)
