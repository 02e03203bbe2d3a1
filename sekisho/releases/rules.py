"""When a release counts. Rules only, no I/O: the caller fetches, this module judges.

Given an offer (untrusted), the documents of the release by digest, the zone's own trust root and what the zone
requires, all of these must hold, in this order:

release    The release's manifest is there under the offer's digest, is exactly what its config and its layer make,
           its config is a Release, and its app and commit are those of the offer.
scope      Release, revision and image are of the one app: nothing of another app's is carried along.
manifests  The layer is the Manifests that the release names by digest, in canonical form, of the same app.
image      The image's manifest and config are there by digest; layers, their order, sizes and diff_ids are those
           that the release names.
reference  Every image that an object names is the release's image, by digest; at least one does.
evidence   Every statement that the release names is there by digest, refers to the image, and verifies under its
           role with its predicate type and the image's digest as subject. Role and predicate belong together.
complete   There is exactly one provenance, one scan and one SBOM. A missing one refuses the release.
provenance The provenance names the release's commit among what it was built from.
scan       The scan is a report about this image, and the SBOM is the one that this scan made.
summary    The verifier's summary is there, refers to the release, verifies, says PASSED, is about this release and
           this image, and names the release's policy.
inputs     The summary lists exactly the release's evidence and, last, its judgement: none left out, none added.
judgement  The judgement that the summary lists is there by digest with its policies, is about this commit, this image,
           these manifests and this scan, under the release's policy, and its verdict is PASSED without a failure.
           A summary that lists none is of a release sealed before judgements were kept.
staging    Where the zone requires it: staging's signed receipt about this release, event `healthy`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from sekisho.canonical import digest_of_json, hex_of
from sekisho.errors import Refusal, VerificationError
from sekisho.keys import TrustRoot
from sekisho.model import Judgement, Manifests, Offer, Receipt, Release, Result, Scan, SealedRelease
from sekisho.oci import Manifest, read_json
from sekisho.releases.artifact import (
    VERIFIER,
    input_attestations,
    is_release_manifest,
    release_parts,
    release_repository,
    release_uri,
)
from sekisho.releases.closure import Closure, check_scope
from sekisho.releases.judgement import judgement_parts, named_judgement, read_judgement
from sekisho.statements import PROVENANCE, RECEIPT, ROLES, SBOM, SCAN, SUMMARY, Statement, verify_statement

Requirement = Literal["verifier", "staging"]
REQUIRED_EVIDENCE: Final = (PROVENANCE, SCAN, SBOM)
STAGING: Final = "staging"
HEALTHY: Final = "healthy"
_CONTAINERS: Final = ("containers", "initContainers", "ephemeralContainers")
_DATA_KINDS: Final = ("ConfigMap", "Secret")


@dataclass(frozen=True)
class VerifiedRelease:
    """A release for which every rule holds."""

    sealed: SealedRelease
    manifests: Manifests
    statements: Mapping[str, Statement]
    """Verified statements by the digest of their referrer manifest: evidence, summary and receipt."""
    closure: Closure
    offer: Offer
    judgement: Judgement | None = None
    """What let it pass; None for a release that was sealed before judgements were kept."""
    judged: str = ""
    """Digest of the judgement's manifest."""

    @property
    def release(self) -> Release:
        """The release itself."""
        return self.sealed.release


@dataclass
class Examination:
    """The rules' working state: each rule reads what earlier ones established."""

    offer: Offer
    closure: Closure
    trust: TrustRoot
    require: tuple[Requirement, ...]
    at: int
    witnessed: Mapping[str, int] = field(default_factory=dict)
    release: Release | None = None
    manifests: Manifests | None = None
    statements: dict[str, Statement] = field(default_factory=dict)
    scan: Scan | None = None
    """The report in the scanner's statement."""
    judgement: Judgement | None = None
    judged: str | None = None
    """Digest of the judgement that the summary lists, '' where it lists none; None: not known yet."""

    def known(self) -> Release:
        """Return the release.

        Raises:
            VerificationError: the first rule did not hold.
        """
        if self.release is None:
            raise VerificationError("Not checked: there is no release to look at.")
        return self.release

    def verify(self, predicate_type: str, manifest: str, subject: str, *, zone: str = "") -> Statement:
        """Verify one statement of the closure: its referrer, its signature, its subject.

        Raises:
            VerificationError: it does not verify.
        """
        role = ROLES[predicate_type]
        beside, bundle = self.closure.referrer(manifest, f"The {role}'s statement")
        if beside != subject:
            raise VerificationError(f"The {role}'s statement is kept beside something else.", where=manifest)
        statement = verify_statement(
            bundle,
            trust=self.trust,
            role=role,
            predicate_type=predicate_type,
            subject=subject,
            zone=zone,
            at=self.witnessed.get(manifest, self.at),
            where=manifest,
        )
        self.statements[manifest] = statement
        return statement


def verify_closure(
    offer: Offer,
    closure: Closure,
    trust: TrustRoot,
    require: tuple[Requirement, ...],
    *,
    at: int,
    witnessed: Mapping[str, int] | None = None,
) -> VerifiedRelease:
    """Verify a release by the rules of this module.

    Args:
        offer: which release; untrusted.
        closure: its documents.
        trust: whose keys count.
        require: whose word it needs: `verifier` always, `staging` where the zone says so.
        at: the time that the keys must be valid at for what was not seen before, seconds since the epoch.
        witnessed: when this zone first verified a statement, by digest of its referrer manifest.

    Raises:
        VerificationError: a rule does not hold; the first one is named.
    """
    examination = Examination(offer, closure, trust, require, at, witnessed or {})
    for name, rule in RULES:
        try:
            _apply(rule, examination)
        except Refusal as error:
            raise VerificationError(
                f"Rule {name}: {error.what}", where=error.where or offer.release, remedy=error.remedy
            ) from error
    return _result(examination)


def examine_closure(
    offer: Offer,
    closure: Closure,
    trust: TrustRoot,
    require: tuple[Requirement, ...],
    *,
    at: int,
    witnessed: Mapping[str, int] | None = None,
) -> Iterator[tuple[str, str]]:
    """Yield every rule's name and what is wrong, empty where it holds. For people; see `verify_closure`."""
    examination = Examination(offer, closure, trust, require, at, witnessed or {})
    for name, rule in RULES:
        try:
            _apply(rule, examination)
        except Refusal as error:
            yield name, str(error)
        else:
            yield name, ""


def _apply(rule: Callable[[Examination], None], exam: Examination) -> None:
    """Apply one rule; a document that has no canonical form is as bad as one that breaks it."""
    try:
        rule(exam)
    except (ValueError, RecursionError) as error:
        raise VerificationError(f"A document has no canonical form: {str(error)[:200]}") from error


def _release(exam: Examination) -> None:
    data = exam.closure.get(exam.offer.release, "The release")
    config, layer = release_parts(data, where=exam.offer.release)
    release = Release.parse(exam.closure.get(config.digest, "The release's config"), where=config.digest)
    manifests = exam.closure.get(layer.digest, "The release's manifests")
    if not is_release_manifest(data, release, manifests):
        raise VerificationError("The release's manifest holds something else than its parts.")
    if (release.app, release.revision.commit) != (exam.offer.app, exam.offer.commit):
        raise VerificationError("The release is of another app or commit than the offer says.")
    exam.release = release


def _scope(exam: Examination) -> None:
    check_scope(exam.known(), exam.offer)


def _manifests(exam: Examination) -> None:
    release = exam.known()
    data = exam.closure.get(release.manifests, "The release's manifests")
    manifests = Manifests.parse(data, where=release.manifests)
    if manifests.canonical() != data or manifests.app != release.app:
        raise VerificationError("The manifests are not in canonical form, or of another app.")
    exam.manifests = manifests


def _image(exam: Examination) -> None:
    image = exam.known().image
    manifest = Manifest.parse(exam.closure.get(image.digest, "The image's manifest"), where=image.digest)
    named = [(layer.digest, layer.size) for layer in image.layers]
    if [(layer.digest, layer.size) for layer in manifest.layers] != named or not named:
        raise VerificationError("The image's layers are not those that the release names.", where=image.digest)
    config = read_json(exam.closure.get(manifest.config.digest, "The image's config"), where=manifest.config.digest)
    rootfs = config.get("rootfs")
    if not isinstance(rootfs, dict) or rootfs.get("diff_ids") != [layer.diff_id for layer in image.layers]:
        raise VerificationError("The image's diff_ids are not those that the release names.", where=image.digest)


def _reference(exam: Examination) -> None:
    release = exam.known()
    if exam.manifests is None:
        raise VerificationError("Not checked: there are no manifests to look at.")
    found = [name for item in exam.manifests.objects if item.get("kind") not in _DATA_KINDS for name in images_of(item)]
    for name in found:
        if name != release.image.reference:
            raise VerificationError(f"An object names the image {name!r:.200}, not the release's.")
    if not found:
        raise VerificationError("No object runs the release's image.")


def _evidence(exam: Examination) -> None:
    release = exam.known()
    for evidence in release.evidence:
        if ROLES.get(evidence.predicate_type) != evidence.role or evidence.predicate_type not in REQUIRED_EVIDENCE:
            raise VerificationError(
                f"A {evidence.predicate_type[:100]} is not the {evidence.role}'s word.", where=evidence.manifest
            )
        if evidence.subject != release.image.digest:
            raise VerificationError("A statement is about another image.", where=evidence.manifest)
        exam.verify(evidence.predicate_type, evidence.manifest, evidence.subject)


def _complete(exam: Examination) -> None:
    present = sorted(evidence.predicate_type for evidence in exam.known().evidence)
    if present != sorted(REQUIRED_EVIDENCE):
        missing = ", ".join(sorted(set(REQUIRED_EVIDENCE) - set(present))) or "none"
        raise VerificationError(f"One provenance, one scan and one SBOM are needed. Missing: {missing}.")


def _provenance(exam: Examination) -> None:
    release = exam.known()
    for evidence in release.evidence:
        statement = exam.statements.get(evidence.manifest)
        if evidence.predicate_type == PROVENANCE and statement is not None:
            if release.revision.commit in source_commits(statement):
                return
            raise VerificationError("The provenance does not name the release's commit.", where=evidence.manifest)
    raise VerificationError("Not checked: no provenance verified.")


def _scan(exam: Examination) -> None:
    release = exam.known()
    said = {item.predicate_type: exam.statements.get(item.manifest) for item in release.evidence}
    scan, sbom = said.get(SCAN), said.get(SBOM)
    if scan is None or sbom is None:
        raise VerificationError("Not checked: no scan with an SBOM verified.")
    report = scan_report(scan)
    exam.scan = report
    if report.image != release.image.digest:
        raise VerificationError("The scan's report is about another image.", where=report.image)
    if report.sbom != digest_of_json(sbom.predicate):
        raise VerificationError("The SBOM is not the one that the scan made.", where=report.sbom)


def _summary(exam: Examination) -> None:
    release, digest = exam.known(), exam.offer.release
    where = exam.offer.summary
    statement = exam.verify(SUMMARY, where, digest)
    if not statement.covers(release.image.digest):
        raise VerificationError("The summary is not about the release's image.", where=where)
    # The verifier's key also signs what the judge says of commits and of standard images.
    verifier = statement.predicate.get("verifier")
    if not isinstance(verifier, dict) or verifier.get("id") != VERIFIER:
        raise VerificationError("The summary is not the gatekeeper's word about a release.", where=where)
    policy = statement.predicate.get("policy")
    named = policy.get("digest") if isinstance(policy, dict) else None
    if not isinstance(named, dict) or named.get("sha256") != hex_of(release.policy):
        raise VerificationError("The summary names another policy than the release.", where=where)
    if statement.predicate.get("resourceUri") != release_uri(release.app, digest):
        raise VerificationError("The summary names another resource than the release.", where=where)


def _inputs(exam: Examination) -> None:
    statement = exam.statements.get(exam.offer.summary)
    if statement is None:
        raise VerificationError("Not checked: the summary did not verify.")
    release = exam.known()
    judged = named_judgement(statement, release_repository(release.app))
    if statement.predicate.get("inputAttestations") != input_attestations(release, judged):
        raise VerificationError("The summary does not list exactly the release's evidence.", where=exam.offer.summary)
    exam.judged = judged


def _judgement(exam: Examination) -> None:
    if exam.judged is None:
        raise VerificationError("Not checked: the summary's inputs did not verify.")
    if not exam.judged:
        return
    release, where = exam.known(), exam.judged
    manifest = exam.closure.get(where, "The judgement")
    document, policies = judgement_parts(manifest, where=where)
    exam.closure.get(policies.digest, "The archive of the judgement's policies")
    judgement = read_judgement(manifest, exam.closure.get(document.digest, "The judgement's document"), where=where)
    subject, verdict = judgement.subject, judgement.verdict
    about = {(subject.app, subject.commit), (verdict.app, verdict.commit)}
    if about != {(release.app, release.revision.commit)}:
        raise VerificationError("The judgement is about another app or commit.", where=where)
    if verdict.result is not Result.PASSED or verdict.failures or any(x.result == "fail" for x in subject.problems):
        raise VerificationError("The judgement is not a PASSED one.", where=where)
    if verdict.policy != release.policy:
        raise VerificationError("The judgement is by another policy than the release names.", where=where)
    if exam.scan is None:
        raise VerificationError("Not checked: the scan did not verify.")
    judged = [part.identity() if part else "" for part in (subject.image, subject.manifests, subject.scan)]
    if judged != [release.image.identity(), release.manifests, exam.scan.identity()]:
        raise VerificationError("The judgement is about another image, other manifests or another scan.", where=where)
    exam.judgement = judgement


def _staging(exam: Examination) -> None:
    if STAGING not in exam.require:
        return
    offer = exam.offer
    if not offer.receipt:
        raise VerificationError("The offer names no receipt of staging.", remedy="Let staging verify the release.")
    statement = exam.verify(RECEIPT, offer.receipt, offer.release, zone=STAGING)
    receipt = Receipt.parse(json.dumps(statement.predicate), where=offer.receipt)
    said = (receipt.zone, receipt.app, receipt.release, receipt.event)
    if said != (STAGING, offer.app, offer.release, HEALTHY):
        raise VerificationError(
            "Staging's receipt does not say that this release is healthy there.", where=offer.receipt
        )


RULES: Final[tuple[tuple[str, Callable[[Examination], None]], ...]] = (
    ("release", _release),
    ("scope", _scope),
    ("manifests", _manifests),
    ("image", _image),
    ("reference", _reference),
    ("evidence", _evidence),
    ("complete", _complete),
    ("provenance", _provenance),
    ("scan", _scan),
    ("summary", _summary),
    ("inputs", _inputs),
    ("judgement", _judgement),
    ("staging", _staging),
)


def images_of(value: Any) -> Iterator[Any]:
    """Yield every image that a Kubernetes object names, in containers of each kind and in image volumes."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key in _CONTAINERS and isinstance(item, list):
                for container in item:
                    yield container.get("image") if isinstance(container, dict) else container
            elif key == "image" and isinstance(item, dict):
                yield item.get("reference")
            yield from images_of(item)
    elif isinstance(value, list):
        for item in value:
            yield from images_of(item)


def scan_report(statement: Statement) -> Scan:
    """Return the report in a scanner's statement.

    Raises:
        Refusal: it is none.
    """
    return Scan.parse(json.dumps(statement.predicate), where=SCAN)


def source_commits(provenance: Statement) -> Iterator[Any]:
    """Yield the git commits that a SLSA v1 provenance names in `resolvedDependencies`."""
    definition = provenance.predicate.get("buildDefinition")
    sources = definition.get("resolvedDependencies") if isinstance(definition, dict) else None
    for source in sources if isinstance(sources, list) else ():
        digest = source.get("digest") if isinstance(source, dict) else None
        if isinstance(digest, dict):
            yield digest.get("gitCommit")


def _result(exam: Examination) -> VerifiedRelease:
    if exam.manifests is None:
        raise VerificationError("There are no manifests.")
    sealed = SealedRelease(
        repository=release_repository(exam.offer.app),
        digest=exam.offer.release,
        summary=exam.offer.summary,
        release=exam.known(),
    )
    return VerifiedRelease(
        sealed, exam.manifests, exam.statements, exam.closure, exam.offer, exam.judgement, exam.judged or ""
    )
