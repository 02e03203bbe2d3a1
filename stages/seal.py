"""Seal: a PASSED judgement turns image, manifests and evidence into one signed release.

The release refers to the builder's and the scanner's statements; the verifier signs a summary (SLSA VSA) over the
release and the image that lists exactly these statements and the judgement, which is kept beside the release. What was
sealed is verified by the outer zones' own rules before it is recorded: this stage makes nothing that they would refuse.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from sekisho.canonical import Digest, digest_of, digest_of_json, hex_of
from sekisho.errors import PermanentError, Refusal
from sekisho.evidence import (
    FoundStatement,
    attach_statement,
    attach_summary,
    find_statements,
    load_statement,
)
from sekisho.keys import Signer, Trust
from sekisho.model import EvidenceRef, Image, Judgement, Offer, Release, Result, Revision, Scan, SealedRelease
from sekisho.oci import Descriptor
from sekisho.records import get_record, put_record
from sekisho.registry import Registry
from sekisho.releases import put_release, summary_statement, verify_release
from sekisho.releases.artifact import image_repository, release_repository
from sekisho.releases.judgement import copy_judgement, verdict_repository
from sekisho.releases.rules import scan_report, source_commits
from sekisho.statements import PROVENANCE, ROLES, SBOM, SCAN, SUMMARY, Statement
from sekisho.together import together
from sekisho.witness import WitnessBook

DEFAULT_LEVELS = ("SLSA_BUILD_LEVEL_1",)


@dataclass(frozen=True)
class SealInput:
    """What is sealed."""

    revision: Revision
    judgement: Judgement
    """Must say PASSED about this revision; holds image, manifests and scan, and names the policy."""


@dataclass(frozen=True)
class _Sealed:
    """The parts of a judgement that a release is made of."""

    revision: Revision
    judgement: Judgement
    image: Image
    manifests: bytes
    scan: Scan


class SealStage:
    """Makes the release, signs the summary.

    Args:
        registry: the build zone's own registry.
        trust: the build zone's trust root; the evidence must verify under it.
        signer: the verifier's key.
        witness: where the zone notes what it verified when: sealed releases outlive the keys that signed them.
        clock: gives the time, seconds since the epoch.
        levels: SLSA levels that the line claims in its summaries.
    """

    name = "seal"

    def __init__(
        self,
        registry: Registry,
        trust: Trust,
        signer: Signer,
        *,
        witness: WitnessBook | None = None,
        clock: Callable[[], float] = time.time,
        levels: tuple[str, ...] = DEFAULT_LEVELS,
    ) -> None:
        if signer.role != "verifier":
            raise PermanentError(f"Releases are sealed with the verifier's key, not with the {signer.role}'s.")
        self._registry = registry
        self._trust = trust
        self._signer = signer
        self._witness = witness
        self._clock = clock
        self._levels = levels

    def key(self, subject: SealInput) -> Digest:
        """Return a digest over everything that decides the release, and whose word stands behind it."""
        return digest_of_json(
            {
                "stage": self.name,
                "revision": subject.revision.identity(),
                "judgement": subject.judgement.identity(),
                "verifier": self._signer.key_id,
                "levels": list(self._levels),
            }
        )

    def find(self, subject: SealInput) -> SealedRelease | None:
        """Return the release that was sealed from this before, if it still stands in the registry."""
        place, tag = self._repository(subject), self._tag(subject)
        sealed = get_record(self._registry, place, tag, SealedRelease, signer=self._signer)
        if sealed is None:
            return None
        for digest in (sealed.digest, sealed.summary):
            if self._registry.get_manifest(sealed.repository, digest) is None:
                return None
        return sealed

    def perform(self, subject: SealInput) -> SealedRelease:
        """Make and sign the release.

        Raises:
            Refusal: the verdict is not PASSED, or is about something else; evidence is missing.
            VerificationError: what was made does not verify by the outer zones' rules.
            TemporaryError: the signer or the registry cannot be reached; nothing is offered.
        """
        parts = _parts(subject)
        now = int(self._clock())
        self._check_key(now)
        app = subject.revision.app
        release = Release(
            app=app,
            revision=subject.revision,
            image=parts.image,
            manifests=digest_of(parts.manifests),
            policy=subject.judgement.verdict.policy,
            evidence=self._evidence(parts, now),
        )
        digest = put_release(self._registry, release, parts.manifests)
        judged = self._keep(subject.judgement)
        summary = self._summary(release, digest, judged, now)
        offer = Offer(sequence=0, app=app, release=digest, summary=summary, commit=subject.revision.commit)
        verified = verify_release(self._registry, offer, self._trust.current(), at=now)
        sealed = verified.sealed
        self._mark_image(sealed)
        if self._witness is not None:
            self._witness.note(verified.statements, now)
        put_record(self._registry, sealed.repository, self._tag(subject), sealed, signer=self._signer)
        return sealed

    def _check_key(self, now: int) -> None:
        """Check that the verifier's own key counts, before anything is written that nobody would believe.

        Raises:
            PermanentError: it does not.
        """
        key_id = self._signer.key_id
        known = [key for key in self._trust.current().for_role("verifier") if key.key_id == key_id]
        problem = known[0].problem_at(now) if known else "is not in the trust root"
        if problem:
            raise PermanentError(
                f"The verifier key {key_id[:16]} {problem}.",
                where="trust root",
                remedy="Look at the clock and at the key's dates in the trust root.",
            )

    def _keep(self, judgement: Judgement) -> Digest:
        """Keep the judgement beside the release, with which it travels."""
        app = judgement.verdict.app
        return copy_judgement(self._registry, verdict_repository(app), release_repository(app), judgement)

    def _evidence(self, parts: _Sealed, now: int) -> tuple[EvidenceRef, ...]:
        # Two commits can make the same image: each has a provenance of its own. Of scans that one counts which was
        # judged, whatever was found since, and of SBOMs the one that this scan made.
        commit, judged, made = parts.revision.commit, parts.scan.identity(), parts.scan.sbom
        # A registry without the referrers API goes through all tags of the repository for each list: once is enough.
        listed = self._registry.referrers(parts.image.repository, Digest(parts.image.digest))
        find = partial(self._found, parts.image, listed, now)
        provenance, scan, sbom = together(
            partial(find, PROVENANCE, lambda item: commit in source_commits(item)),
            partial(find, SCAN, lambda item: scan_report(item).identity() == judged),
            partial(find, SBOM, lambda item: digest_of_json(item.predicate) == made),
        )
        return (
            _reference(parts.image, "builder", provenance),
            _reference(parts.image, "scanner", scan),
            _reference(parts.image, "scanner", sbom),
        )

    def _found(
        self,
        image: Image,
        listed: Sequence[Descriptor],
        now: int,
        predicate_type: str,
        fits: Callable[[Statement], bool],
    ) -> FoundStatement:
        role = ROLES[predicate_type]
        found = find_statements(
            self._registry,
            image.repository,
            Digest(image.digest),
            trust=self._trust.current(),
            role=role,
            predicate_type=predicate_type,
            at=now,
            referrers=listed,
        )
        fitting = [item for item in found if fits(item.statement)]
        if not fitting:
            raise Refusal(
                f"The image has no {predicate_type} of this commit that the {role} signed.",
                where=f"{image.repository}@{image.digest}",
                remedy="Run the line again for this commit; if it stays, check the role's key in the trust root.",
            )
        return fitting[-1]

    def _summary(self, release: Release, digest: Digest, judged: Digest, now: int) -> Digest:
        """Sign the summary, or take up the one that an interrupted run left, and complete it for older tools."""
        repository = release_repository(release.app)
        statement = summary_statement(digest, release, at=now, levels=self._levels, judgement=judged)
        earlier = find_statements(
            self._registry,
            repository,
            digest,
            trust=self._trust.current(),
            role="verifier",
            predicate_type=SUMMARY,
            at=now,
        )
        for item in earlier:
            if {**item.statement.predicate, "timeVerified": ""} == {**statement.predicate, "timeVerified": ""}:
                attach_summary(self._registry, repository, digest, item.bundle, self._signer)
                return item.manifest
        return attach_statement(self._registry, repository, statement, self._signer)

    def _mark_image(self, sealed: SealedRelease) -> None:
        """Put the summary beside the image as well: there `cosign verify` with the verifier's key finds it."""
        image = sealed.release.image
        bundle = load_statement(self._registry, sealed.repository, Digest(sealed.summary))
        attach_summary(self._registry, image.repository, Digest(image.digest), bundle, self._signer)

    def _repository(self, subject: SealInput) -> str:
        return release_repository(subject.revision.app)

    def _tag(self, subject: SealInput) -> str:
        return f"sealed-{hex_of(self.key(subject))[:40]}"


def _reference(image: Image, role: Literal["builder", "scanner"], found: FoundStatement) -> EvidenceRef:
    return EvidenceRef(
        role=role,
        predicate_type=found.statement.predicate_type,
        manifest=found.manifest,
        subject=image.digest,
    )


def _parts(subject: SealInput) -> _Sealed:
    """Check that the judgement is a PASSED one about just this, and return what it is about.

    Raises:
        Refusal: it is not.
    """
    revision, verdict, judged = subject.revision, subject.judgement.verdict, subject.judgement.subject
    where = f"{revision.app}@{revision.commit}"
    if verdict.result is not Result.PASSED or verdict.failures:
        raise Refusal(
            f"The verdict is {verdict.result}: nothing is sealed.",
            where=where,
            remedy="Mend what the verdict's reasons say and push again.",
        )
    if {(verdict.app, verdict.commit), (judged.app, judged.commit)} != {(revision.app, revision.commit)}:
        raise Refusal("The verdict is about another app or commit.", where=where)
    image, manifests, scan = judged.image, judged.manifests, judged.scan
    if image is None or manifests is None or scan is None:
        raise Refusal("The verdict passed without all of its evidence.", where=where)
    if image.repository != image_repository(revision.app):
        raise Refusal(f"The image is in {image.repository[:100]}, not among the app's.", where=where)
    if manifests.app != revision.app:
        raise Refusal("The manifests are of another app.", where=where)
    return _Sealed(revision, subject.judgement, image, manifests.canonical(), scan)
