"""Seal: from a PASSED verdict to one signed release, and nothing from anything else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sekisho.canonical import Digest, digest_of, digest_of_json, hex_of
from sekisho.errors import PermanentError, Refusal, TemporaryError, VerificationError
from sekisho.keys import TrustRoot
from sekisho.model import Manifests, Offer, Reason, Result
from sekisho.oci import OCI_INDEX, fallback_tag, make_index
from sekisho.registry import Registry
from sekisho.releases import verify_release
from sekisho.releases.judgement import load_judgement
from sekisho.stage import run_stage
from sekisho.statements import PROVENANCE, SBOM, SCAN, SUMMARY
from stages.seal import SealStage

NOW = 1_790_000_000
COMMIT = "c0ffee" + "0" * 34


def test_a_passed_verdict_becomes_a_release(line):
    subject = line.seal_input("seal")
    stage = line.seal_stage()
    first, second = run_stage(stage, subject), run_stage(stage, subject)
    release = first.value.release

    assert (first.found, second.found) == (False, True)
    assert (release.app, release.policy) == ("seal", subject.judgement.verdict.policy)
    assert release.manifests == subject.judgement.subject.manifests.identity()
    assert [evidence.predicate_type for evidence in release.evidence] == [PROVENANCE, SCAN, SBOM]


def test_the_image_carries_the_summary_for_cosign(line):
    sealed = run_stage(line.seal_stage(), line.seal_input("seal-cosign")).value
    image = sealed.release.image

    assert SUMMARY in {
        item.annotations["dev.sigstore.bundle.predicateType"]
        for item in line.registry.referrers(image.repository, Digest(image.digest))
    }
    assert line.registry.resolve(image.repository, f"sha256-{hex_of(image.digest)}.sig") is not None


@pytest.mark.parametrize("missing", [PROVENANCE, SCAN, SBOM])
def test_without_all_evidence_nothing_is_sealed(line, missing):
    app = {PROVENANCE: "no-prov", SCAN: "no-scan", SBOM: "no-sbom"}[missing]
    with pytest.raises(Refusal, match=missing):
        run_stage(line.seal_stage(), line.seal_input(app, without=missing))
    assert line.registry.tags(f"releases/{app}") == ()


def changed(given, **change):
    """Return what is sealed with something of its judgement's subject or verdict changed."""
    judgement = given.judgement
    parts = {
        name: getattr(judgement, name).model_copy(update=change[name])
        for name in ("subject", "verdict")
        if name in change
    }
    return replace(given, judgement=judgement.model_copy(update=parts))


def test_a_failed_verdict_seals_nothing(line):
    subject = line.seal_input("seal-no")
    failed = Reason(rule="r", stage="s", result="fail", message="m")
    for change in (
        {"verdict": {"result": Result.FAILED}},
        {"verdict": {"reasons": (failed,)}},
        {"verdict": {"app": "other"}},
        {"verdict": {"commit": "d" * 40}},
        {"subject": {"app": "other"}},
        {"subject": {"commit": "d" * 40}},
        {"subject": {"image": None}},
        {"subject": {"manifests": None}},
        {"subject": {"scan": None}},
    ):
        with pytest.raises(Refusal):
            run_stage(line.seal_stage(), changed(subject, **change))
    assert line.registry.tags("releases/seal-no") == ()


def test_what_does_not_belong_together_is_not_sealed(line):
    subject = line.seal_input("seal-mixed")
    foreign = line.image("seal-foreign")
    other_app = subject.judgement.subject.manifests.model_copy(update={"app": "other"})
    for change, match in (({"image": foreign}, "not among the app's"), ({"manifests": other_app}, "another app")):
        with pytest.raises(Refusal, match=match):
            run_stage(line.seal_stage(), changed(subject, subject=change))
    assert line.registry.tags("releases/seal-mixed") == ()


def test_what_the_outer_zones_would_refuse_is_not_recorded(line):
    subject = line.seal_input("seal-image")
    image, manifests = subject.judgement.subject.image, subject.judgement.subject.manifests
    strange = Manifests.parse(manifests.canonical().replace(image.digest.encode(), digest_of(b"other").encode()))

    with pytest.raises(VerificationError, match="Rule reference"):
        run_stage(line.seal_stage(), changed(subject, subject={"manifests": strange}))
    assert not [tag for tag in line.registry.tags("releases/seal-image") if tag.startswith("sealed-")]
    assert line.registry.resolve(image.repository, f"sha256-{hex_of(image.digest)}.sig") is None


def test_of_two_commits_with_one_image_each_has_its_own_provenance(line):
    image = line.image("seal-two")
    first = run_stage(line.seal_stage(), line.seal_input("seal-two", "a" * 40, image=image)).value
    second = run_stage(line.seal_stage(), line.seal_input("seal-two", "b" * 40, image=image)).value

    assert first.release.evidence[0] != second.release.evidence[0]
    assert first.release.evidence[1:] == second.release.evidence[1:]


def test_of_several_scans_the_judged_one_counts_with_its_own_sbom(line):
    subject = line.seal_input("seal-rescan")
    image = subject.judgement.subject.image
    other = {"bomFormat": "CycloneDX", "version": 2}
    bill = line.attest(image, SBOM, change=other)
    scan = line.attest(image, SCAN, change={"sbom": digest_of_json(other)})
    line.attest(image, SBOM, change={"version": 3})

    sealed = run_stage(line.seal_stage(), subject).value
    first = {evidence.manifest for evidence in sealed.release.evidence}
    assert not first & {scan, bill}

    rescanned = subject.judgement.subject.scan.model_copy(update={"sbom": digest_of_json(other)})
    again = run_stage(line.seal_stage(), changed(subject, subject={"scan": rescanned})).value
    assert [evidence.manifest for evidence in again.release.evidence[1:]] == [scan, bill]


def test_a_scan_that_nobody_judged_is_not_sealed(line):
    subject = line.seal_input("seal-unjudged")
    other = subject.judgement.subject.scan.model_copy(update={"sbom": digest_of(b"other")})
    with pytest.raises(Refusal, match=SCAN):
        run_stage(line.seal_stage(), changed(subject, subject={"scan": other}))


def test_the_judgement_is_kept_beside_the_release(line):
    subject = line.seal_input("seal-judged")
    sealed = run_stage(line.seal_stage(), subject).value
    offer = Offer(sequence=1, app="seal-judged", release=sealed.digest, summary=sealed.summary, commit=COMMIT)
    verified = verify_release(line.registry, offer, line.trust, at=NOW)

    assert verified.judgement == subject.judgement
    assert load_judgement(line.registry, "releases/seal-judged", verified.judged) == (
        subject.judgement,
        verified.judged,
    )
    inputs = verified.statements[sealed.summary].predicate["inputAttestations"]
    assert [item["digest"]["sha256"] for item in inputs] == [
        hex_of(digest) for digest in (*(item.manifest for item in sealed.release.evidence), verified.judged)
    ]


def test_the_judged_scan_counts_also_where_another_tool_sorted_the_list(line):
    """cosign sorts the index by digest when it adds to it: the last of the list is then any of them."""
    subject = line.seal_input("seal-sorted")
    image = subject.judgement.subject.image
    database = {"digest": digest_of(b"newer"), "updated_at": "2026-11-09T00:00:00Z", "kind": "sample"}
    newest = line.attest(image, SCAN, change={"database": database})
    entries = line.registry.referrers(image.repository, Digest(image.digest))
    found = set()
    for order in (entries, entries[::-1], sorted(entries, key=lambda entry: entry.digest)):
        line.registry.put_manifest(
            image.repository, make_index(tuple(order)), OCI_INDEX, tag=fallback_tag(Digest(image.digest))
        )
        sealed = line.seal_stage().perform(subject)
        found |= {item.manifest for item in sealed.release.evidence if item.predicate_type == SCAN}
    assert len(found) == 1
    assert newest not in found


def test_an_interrupted_seal_is_taken_up(line, monkeypatch):
    subject = line.seal_input("seal-again")
    put_record = "stages.seal.put_record"

    def broken(*_, **__):
        raise TemporaryError("The network broke off.")

    with monkeypatch.context() as patch:
        patch.setattr(put_record, broken)
        with pytest.raises(TemporaryError):
            run_stage(line.seal_stage(), subject)
    assert line.seal_stage().find(subject) is None

    later = SealStage(line.registry, line.trust, line.signers["verifier"], clock=lambda: NOW + 3600)
    sealed = run_stage(later, subject).value
    (only,) = line.registry.referrers("releases/seal-again", Digest(sealed.digest))
    assert only.digest == sealed.summary


def test_the_key_is_over_all_that_decides(line):
    subject = line.seal_input("seal-key")
    stage = line.seal_stage()
    keys = {
        stage.key(subject),
        stage.key(changed(subject, subject={"manifests": None})),
        stage.key(changed(subject, verdict={"policy": digest_of(b"p")})),
        stage.key(replace(subject, revision=subject.revision.model_copy(update={"commit": "d" * 40}))),
        stage.key(changed(subject, subject={"image": None})),
        SealStage(line.registry, line.trust, line.signers["verifier"], levels=("SLSA_BUILD_LEVEL_3",)).key(subject),
        SealStage(line.registry, line.trust, line.signers["stranger"]).key(subject),
    }
    assert len(keys) == 7


def test_only_the_verifier_seals(line):
    with pytest.raises(PermanentError, match="verifier's key"):
        SealStage(line.registry, line.trust, line.signers["builder"])
    stranger = SealStage(line.registry, line.trust, line.signers["stranger"], clock=lambda: NOW)
    with pytest.raises(PermanentError, match="not in the trust root"):
        run_stage(stranger, line.seal_input("seal-stranger"))
    nobody = SealStage(line.registry, TrustRoot(keys=()), line.signers["verifier"], clock=lambda: NOW)
    with pytest.raises(PermanentError, match="not in the trust root"):
        run_stage(nobody, line.seal_input("seal-nobody"))


def test_an_unreachable_registry_is_temporary(line):
    stage = SealStage(Registry("http://127.0.0.1:1"), line.trust, line.signers["verifier"])
    with pytest.raises(TemporaryError):
        run_stage(stage, line.seal_input("seal-away"))
