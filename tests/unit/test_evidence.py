"""Evidence beside images: what is written, what is found, what is left out."""

from __future__ import annotations

import base64
import json

import pytest

from sekisho.canonical import Digest, digest_of, hex_of
from sekisho.cosign_legacy import legacy_signatures, sign_image
from sekisho.errors import PermanentError, VerificationError
from sekisho.evidence import attach_bundle, attach_statement, find_statements, load_statement
from sekisho.oci import OCI_INDEX, OCI_MANIFEST, Descriptor, Manifest, fallback_tag, make_index
from sekisho.statements import BUNDLE_TYPE, PROVENANCE, SBOM, SCAN, SUMMARY, Statement, Subject, sign_statement

NOW = 1_790_000_000


@pytest.fixture
def find(line):
    def call(image, predicate_type=PROVENANCE, role="builder", **changes):
        expected = {"trust": line.trust, "role": role, "predicate_type": predicate_type, "at": NOW}
        return find_statements(line.registry, image.repository, Digest(image.digest), **expected | changes)

    return call


def summary(image, result="PASSED"):
    return Statement(
        subjects=(Subject(digest=image.digest),), predicate_type=SUMMARY, predicate={"verificationResult": result}
    )


def test_a_statement_is_found_once_however_often_it_is_attached(line, find):
    image = line.image("ev-once")
    first, again = (line.attest(image, PROVENANCE) for _ in range(2))

    (found,) = find(image)
    assert first == again == found.manifest
    assert load_statement(line.registry, image.repository, first) == found.bundle
    assert find(image, SCAN, "scanner") == ()


def test_the_referrer_has_the_form_that_cosign_reads(line):
    image = line.image("ev-form")
    digest = line.attest(image, PROVENANCE)

    (entry,) = line.registry.referrers(image.repository, Digest(image.digest))
    assert (entry.digest, entry.artifact_type) == (digest, BUNDLE_TYPE)
    assert entry.annotations == {
        "dev.sigstore.bundle.content": "dsse-envelope",
        "dev.sigstore.bundle.predicateType": PROVENANCE,
    }
    value = json.loads(line.registry.get_manifest(image.repository, digest).data)
    assert value["config"]["mediaType"] == "application/vnd.oci.empty.v1+json"
    assert [layer["mediaType"] for layer in value["layers"]] == [BUNDLE_TYPE]
    assert value["subject"]["digest"] == image.digest


def test_a_time_is_written_only_if_it_is_given(line):
    image = line.image("ev-time")
    statement = Statement(subjects=(Subject(digest=image.digest),), predicate_type=PROVENANCE, predicate={})
    attach_statement(
        line.registry, image.repository, statement, line.signers["builder"], created="2026-01-02T03:04:05Z"
    )

    (entry,) = line.registry.referrers(image.repository, Digest(image.digest))
    assert entry.annotations["org.opencontainers.image.created"] == "2026-01-02T03:04:05Z"


def test_older_tools_find_all_attestations_in_one_tag(line):
    image = line.image("ev-att")
    for predicate_type in (PROVENANCE, SCAN, SBOM, SCAN):
        line.attest(image, predicate_type)

    raw = line.registry.get_manifest(image.repository, f"sha256-{hex_of(image.digest)}.att")
    layers = Manifest.parse(raw.data).layers
    assert [layer.annotations["predicateType"] for layer in layers] == [PROVENANCE, SCAN, SBOM]
    envelope = json.loads(line.registry.get_blob(image.repository, layers[0].digest))
    assert json.loads(base64.b64decode(envelope["payload"]))["predicateType"] == PROVENANCE


def test_only_a_passed_summary_signs_the_image(line):
    image = line.image("ev-sig")
    tag = f"sha256-{hex_of(image.digest)}.sig"
    line.attest(image, PROVENANCE)
    assert line.registry.resolve(image.repository, tag) is None

    attach_statement(line.registry, image.repository, summary(image), line.signers["verifier"])
    raw = line.registry.get_manifest(image.repository, tag)
    (layer,) = Manifest.parse(raw.data).layers
    payload = json.loads(line.registry.get_blob(image.repository, layer.digest))
    assert layer.media_type == "application/vnd.dev.cosign.simplesigning.v1+json"
    assert payload["critical"]["image"]["docker-manifest-digest"] == image.digest
    assert payload["critical"]["type"] == "cosign container image signature"
    found = legacy_signatures(line.registry, image.repository, Digest(image.digest), trust=line.trust, at=NOW)
    assert found == (layer,)


def test_a_legacy_signature_of_anybody_else_does_not_count(line, signers):
    image = line.image("ev-foreign")
    sign_image(line.registry, image.repository, Digest(image.digest), signers["stranger"])

    assert legacy_signatures(line.registry, image.repository, Digest(image.digest), trust=line.trust, at=NOW) == ()
    with pytest.raises(PermanentError, match="verifier's to make"):
        sign_image(line.registry, image.repository, Digest(image.digest), signers["builder"])


def test_a_no_never_stands_beside_an_image(line):
    """`cosign verify` takes any bundle of the key for a signature of the image, also one that says FAILED."""
    image = line.image("ev-failed")
    for result in ("FAILED", "", None):
        with pytest.raises(PermanentError, match="must not stand beside"):
            attach_statement(line.registry, image.repository, summary(image, result), line.signers["verifier"])
    assert line.registry.referrers(image.repository, Digest(image.digest)) == ()
    assert line.registry.resolve(image.repository, f"sha256-{hex_of(image.digest)}.sig") is None


def test_a_no_is_kept_among_the_verdicts(line):
    raw = line.registry.get_manifest("apps/ev-verdict", line.image("ev-verdict").digest)
    config = Manifest.parse(raw.data).config.digest
    line.registry.put_blob("verdicts/ev", line.registry.get_blob("apps/ev-verdict", config))
    for layer in Manifest.parse(raw.data).layers:
        line.registry.put_blob("verdicts/ev", line.registry.get_blob("apps/ev-verdict", layer.digest))
    subject = line.registry.put_manifest("verdicts/ev", raw.data, OCI_MANIFEST)
    statement = Statement(
        subjects=(Subject(digest=subject),), predicate_type=SUMMARY, predicate={"verificationResult": "FAILED"}
    )
    attach_statement(line.registry, "verdicts/ev", statement, line.signers["verifier"])

    assert len(line.registry.referrers("verdicts/ev", subject)) == 1
    for older in ("sig", "att"):
        assert line.registry.resolve("verdicts/ev", f"sha256-{hex_of(subject)}.{older}") is None


@pytest.mark.parametrize(
    ("predicate_type", "speaker"),
    [(PROVENANCE, "scanner"), (SCAN, "builder"), (SBOM, "verifier"), (SUMMARY, "builder")],
)
def test_nobody_signs_another_roles_word(line, predicate_type, speaker):
    image = line.image("ev-speaker")
    statement = summary(image).model_copy(update={"predicate_type": predicate_type})

    with pytest.raises(PermanentError, match="to sign, not"):
        attach_statement(line.registry, image.repository, statement, line.signers[speaker])
    assert line.registry.referrers(image.repository, Digest(image.digest)) == ()


def test_a_statement_is_attached_to_its_subject_only(line):
    image = line.image("ev-subject")
    statement = Statement(subjects=(Subject(digest=digest_of(b"x")),), predicate_type=PROVENANCE, predicate={})
    bundle = sign_statement(statement, line.signers["builder"])

    with pytest.raises(PermanentError, match="not about"):
        attach_bundle(line.registry, image.repository, Digest(image.digest), bundle)


def test_what_does_not_verify_is_left_out(line, find):
    image = line.image("ev-hostile")
    true = line.attest(image, PROVENANCE)

    def attach(payload, artifact_type=BUNDLE_TYPE, payload_type=BUNDLE_TYPE):
        line.registry.attach(
            image.repository,
            Digest(image.digest),
            artifact_type=artifact_type,
            payload=payload,
            payload_type=payload_type,
            annotations={"dev.sigstore.bundle.predicateType": PROVENANCE},
        )

    statement = Statement(subjects=(Subject(digest=image.digest),), predicate_type=PROVENANCE, predicate={"evil": 1})
    elsewhere = statement.model_copy(update={"subjects": (Subject(digest=digest_of(b"x")),)})
    attach(b"no bundle")
    attach(sign_statement(statement, line.signers["scanner"]))
    attach(sign_statement(statement, line.signers["stranger"]))
    attach(sign_statement(elsewhere, line.signers["builder"]))
    attach(sign_statement(statement, line.signers["builder"]), payload_type="text/plain")
    attach(sign_statement(statement, line.signers["builder"]), artifact_type="text/plain")

    assert [item.manifest for item in find(image)] == [true]
    assert find(image, role="verifier") == ()


def test_a_flood_of_referrers_hides_nothing(line, find):
    """A thousand strangers' referrers, before and after: each is listed, none is fetched, the true one is found."""
    image = line.image("ev-flood")
    mine = line.attest(image, PROVENANCE)
    (entry,) = line.registry.referrers(image.repository, Digest(image.digest))
    junk = [
        Descriptor(OCI_MANIFEST, image.digest, 10, artifact_type=kind, annotations={**marks, "n": str(number)})
        for number, (kind, marks) in enumerate(
            500 * [("application/vnd.example", {}), (BUNDLE_TYPE, {"dev.sigstore.bundle.predicateType": SCAN})]
        )
    ]
    index = make_index((*junk[:500], entry, *junk[500:]))
    line.registry.put_manifest(image.repository, index, OCI_INDEX, tag=fallback_tag(Digest(image.digest)))

    assert [found.manifest for found in find(image)] == [mine]


def test_a_flood_of_false_statements_is_not_followed_to_its_end(line, find):
    image = line.image("ev-false-flood")
    marks = {"dev.sigstore.bundle.predicateType": PROVENANCE}
    junk = [
        Descriptor(OCI_MANIFEST, image.digest, 10, artifact_type=BUNDLE_TYPE, annotations={**marks, "n": str(number)})
        for number in range(300)
    ]
    line.registry.put_manifest(
        image.repository, make_index(tuple(junk)), OCI_INDEX, tag=fallback_tag(Digest(image.digest))
    )
    line.attest(image, PROVENANCE)
    assert len(find(image)) == 1


def test_a_statement_that_is_not_there(line):
    image = line.image("ev-none")
    with pytest.raises(VerificationError, match="not there"):
        load_statement(line.registry, image.repository, digest_of(b"none"))
    with pytest.raises(VerificationError, match="not a referrer"):
        load_statement(line.registry, image.repository, Digest(image.digest))
