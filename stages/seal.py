"""Seal: a PASSED verdict turns image, manifests and evidence into one signed release.

The release refers to the builder's and the scanner's statements; the verifier signs a summary (SLSA VSA) over the
release and the image that lists exactly these statements. What was sealed is verified by the outer zones' own rules
before it is recorded: this stage makes nothing that they would refuse.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from sekisho.canonical import Digest, digest_of, digest_of_json, hex_of
from sekisho.errors import PermanentError, Refusal
from sekisho.evidence import (
    FoundStatement,
    attach_bundle,
    attach_statement,
    find_statements,
    load_statement,
    sign_image,
)
from sekisho.keys import Signer, TrustRoot
from sekisho.model import EvidenceRef, Image, Manifests, Offer, Release, Result, Revision, SealedRelease, Verdict
from sekisho.records import get_record, put_record
from sekisho.registry import Registry
from sekisho.releases import put_release, summary_statement, verify_release
from sekisho.releases.artifact import image_repository, release_repository
from sekisho.releases.rules import scan_report, source_commits
from sekisho.statements import PROVENANCE, ROLES, SBOM, SCAN, SUMMARY, Statement

DEFAULT_LEVELS = ("SLSA_BUILD_LEVEL_1",)


@dataclass(frozen=True)
class SealInput:
    """What is sealed."""

    revision: Revision
    image: Image
    manifests: bytes
    """Canonical bytes of the rendered Manifests."""
    verdict: Verdict
    """Must say PASSED about this revision; names the policy."""


class SealStage:
    """Makes the release, signs the summary.

    Args:
        registry: the build zone's own registry.
        trust: the build zone's trust root; the evidence must verify under it.
        signer: the verifier's key.
        clock: gives the time, seconds since the epoch.
        levels: SLSA levels that the line claims in its summaries.
    """

    name = "seal"

    def __init__(
        self,
        registry: Registry,
        trust: TrustRoot,
        signer: Signer,
        *,
        clock: Callable[[], float] = time.time,
        levels: tuple[str, ...] = DEFAULT_LEVELS,
    ) -> None:
        if signer.role != "verifier":
            raise PermanentError(f"Releases are sealed with the verifier's key, not with the {signer.role}'s.")
        self._registry = registry
        self._trust = trust
        self._signer = signer
        self._clock = clock
        self._levels = levels

    def key(self, subject: SealInput) -> Digest:
        """Return a digest over everything that decides the release, and whose word stands behind it."""
        return digest_of_json(
            {
                "stage": self.name,
                "revision": subject.revision.identity(),
                "image": subject.image.identity(),
                "manifests": digest_of(subject.manifests),
                "verdict": subject.verdict.identity(),
                "verifier": self._signer.key_id,
                "levels": list(self._levels),
            }
        )

    def find(self, subject: SealInput) -> SealedRelease | None:
        """Return the release that was sealed from this before, if it still stands in the registry."""
        sealed = get_record(self._registry, self._repository(subject), self._tag(subject), SealedRelease)
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
            TemporaryError: the registry cannot be reached.
        """
        _check(subject)
        now = int(self._clock())
        image, app = subject.image, subject.revision.app
        release = Release(
            app=app,
            revision=subject.revision,
            image=image,
            manifests=digest_of(subject.manifests),
            policy=subject.verdict.policy,
            evidence=self._evidence(subject, now),
        )
        digest = put_release(self._registry, release, subject.manifests)
        summary = self._summary(release, digest, now)
        offer = Offer(sequence=0, app=app, release=digest, summary=summary, commit=subject.revision.commit)
        sealed = verify_release(self._registry, offer, self._trust, at=now).sealed
        self._mark_image(sealed)
        put_record(self._registry, sealed.repository, self._tag(subject), sealed)
        return sealed

    def _evidence(self, subject: SealInput, now: int) -> tuple[EvidenceRef, ...]:
        # Two commits can make the same image: each has a provenance of its own. Of scans the newest counts, and of
        # SBOMs the one that this scan made.
        commit = subject.revision.commit
        provenance = self._newest(subject, PROVENANCE, now, lambda item: commit in source_commits(item))
        scan = self._newest(subject, SCAN, now, lambda _: True, age=_advisories_of)
        made = scan_report(scan.statement).sbom
        sbom = self._newest(subject, SBOM, now, lambda item: digest_of_json(item.predicate) == made)
        return (
            _reference(subject.image, "builder", provenance),
            _reference(subject.image, "scanner", scan),
            _reference(subject.image, "scanner", sbom),
        )

    def _newest(
        self,
        subject: SealInput,
        predicate_type: str,
        now: int,
        fits: Callable[[Statement], bool],
        *,
        age: Callable[[Statement], str] = lambda _: "",
    ) -> FoundStatement:
        image, role = subject.image, ROLES[predicate_type]
        found = find_statements(
            self._registry,
            image.repository,
            Digest(image.digest),
            trust=self._trust,
            role=role,
            predicate_type=predicate_type,
            at=now,
        )
        fitting = [item for item in found if fits(item.statement)]
        if not fitting:
            raise Refusal(
                f"The image has no {predicate_type} of this commit that the {role} signed.",
                where=f"{image.repository}@{image.digest}",
                remedy="Run the line again for this commit; if it stays, check the role's key in the trust root.",
            )
        # Not simply the last: other tools sort a registry's list of referrers anew when they add to it.
        return max(reversed(fitting), key=lambda item: age(item.statement))

    def _summary(self, release: Release, digest: Digest, now: int) -> Digest:
        """Sign the summary, or take up the one that an interrupted run left."""
        repository = release_repository(release.app)
        statement = summary_statement(digest, release, at=now, levels=self._levels)
        earlier = find_statements(
            self._registry,
            repository,
            digest,
            trust=self._trust,
            role="verifier",
            predicate_type=SUMMARY,
            at=now,
        )
        for item in earlier:
            if {**item.statement.predicate, "timeVerified": ""} == {**statement.predicate, "timeVerified": ""}:
                return item.manifest
        return attach_statement(self._registry, repository, statement, self._signer)

    def _mark_image(self, sealed: SealedRelease) -> None:
        """Put the summary beside the image as well: there `cosign verify` with the verifier's key finds it."""
        image = sealed.release.image
        bundle = load_statement(self._registry, sealed.repository, Digest(sealed.summary))
        attach_bundle(self._registry, image.repository, Digest(image.digest), bundle)
        sign_image(self._registry, image.repository, Digest(image.digest), self._signer)

    def _repository(self, subject: SealInput) -> str:
        return release_repository(subject.revision.app)

    def _tag(self, subject: SealInput) -> str:
        return f"sealed-{hex_of(self.key(subject))[:40]}"


def _advisories_of(scan: Statement) -> str:
    """Return how new the advisories of a scan are (RFC 3339), also of a report in an older form."""
    database = scan.predicate.get("database")
    return str(database.get("updated_at", "")) if isinstance(database, dict) else ""


def _reference(image: Image, role: Literal["builder", "scanner"], found: FoundStatement) -> EvidenceRef:
    return EvidenceRef(
        role=role,
        predicate_type=found.statement.predicate_type,
        manifest=found.manifest,
        subject=image.digest,
    )


def _check(subject: SealInput) -> None:
    """Check that the verdict is a PASSED one about just this.

    Raises:
        Refusal: it is not.
    """
    revision, verdict, image = subject.revision, subject.verdict, subject.image
    where = f"{revision.app}@{revision.commit}"
    if verdict.result is not Result.PASSED or verdict.failures:
        raise Refusal(
            f"The verdict is {verdict.result}: nothing is sealed.",
            where=where,
            remedy="Mend what the verdict's reasons say and push again.",
        )
    if (verdict.app, verdict.commit) != (revision.app, revision.commit):
        raise Refusal("The verdict is about another app or commit.", where=where)
    if image.repository != image_repository(revision.app):
        raise Refusal(f"The image is in {image.repository[:100]}, not among the app's.", where=where)
    manifests = Manifests.parse(subject.manifests, where=where)
    if manifests.canonical() != subject.manifests or manifests.app != revision.app:
        raise Refusal("The manifests are not in canonical form, or of another app.", where=where)
