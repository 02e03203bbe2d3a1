"""The border: what comes in whole, and what must not come in at all."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import pytest

from sekisho.canonical import Digest, digest_of, hex_of
from sekisho.errors import PermanentError, TemporaryError, VerificationError
from sekisho.evidence import find_statements
from sekisho.keys import TrustRoot, trusted_key
from sekisho.model import Offer
from sekisho.registry import Registry
from sekisho.releases import load_release
from sekisho.stage import run_stage
from sekisho.statements import PROVENANCE, SUMMARY
from stages.receive import ReceiveStage

NOW = 1_790_000_000


@pytest.fixture
def target(second_registry_url):
    return Registry(second_registry_url)


@pytest.fixture
def stage(line, target, tmp_path):
    return ReceiveStage(line.registry, target, line.trust, ("verifier",), workdir=tmp_path / "work", clock=lambda: NOW)


def test_a_release_comes_in_whole(line, target, stage, tmp_path):
    offer = line.offer("whole")

    first = run_stage(stage, offer)
    second = run_stage(stage, offer)

    assert (first.found, second.found) == (False, True)
    assert second.value.digest == offer.release
    image = first.value.release.image
    assert all(target.has_blob(image.repository, Digest(layer.digest)) for layer in image.layers)
    assert target.get_manifest(image.repository, image.digest) == line.registry.get_manifest(
        image.repository, image.digest
    )
    assert {item.digest for item in target.referrers(image.repository, Digest(image.digest))} == {
        item.digest for item in line.registry.referrers(image.repository, Digest(image.digest))
    }
    for name in ("att", "sig"):
        tag = f"sha256-{hex_of(image.digest)}.{name}"
        assert target.resolve(image.repository, tag) is not None
    assert not [path for path in (tmp_path / "work").rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_what_was_received_needs_no_other_zone(line, target, stage, tmp_path):
    offer = line.offer("alone")
    run_stage(stage, offer)
    cut_off = ReceiveStage(
        Registry("http://127.0.0.1:1"), target, line.trust, ("verifier",), workdir=tmp_path, clock=lambda: NOW
    )

    assert run_stage(cut_off, offer).found


def test_base_layers_serve_the_next_app(line, target, stage):
    run_stage(stage, line.offer("first-of-base"))
    offer = line.offer("second-of-base")
    sealed = run_stage(stage, offer).value
    base = next(layer for layer in sealed.release.image.layers if layer.kind == "base")

    assert target.has_blob("standard/python", Digest(base.digest))
    assert target.has_blob("apps/second-of-base", Digest(base.digest))


def test_an_unreachable_source_is_temporary(line, target, tmp_path):
    offer = line.offer("away")
    stage = ReceiveStage(Registry("http://127.0.0.1:1"), target, line.trust, ("verifier",), workdir=tmp_path)

    with pytest.raises(TemporaryError):
        run_stage(stage, offer)


def test_nothing_is_written_when_a_rule_does_not_hold(line, target, stage):
    offer = line.offer("tampered").model_copy(update={"summary": digest_of(b"another")})

    with pytest.raises(VerificationError, match="summary"):
        run_stage(stage, offer)

    assert target.tags("releases/tampered") == ()
    assert target.tags("apps/tampered") == ()


def test_a_trust_root_without_the_verifier_refuses(line, target, tmp_path):
    offer = line.offer("untrusted")
    trust = TrustRoot(keys=tuple(key for key in line.trust.keys if key.role != "verifier"))
    stage = ReceiveStage(line.registry, target, trust, ("verifier",), workdir=tmp_path, clock=lambda: NOW)

    with pytest.raises(VerificationError, match="no key for the role verifier"):
        run_stage(stage, offer)


def test_a_revoked_key_takes_back_what_was_received(line, target, stage, tmp_path):
    offer = line.offer("revoked")
    run_stage(stage, offer)
    trust = TrustRoot(
        keys=(
            *(key for key in line.trust.keys if key.role != "builder"),
            trusted_key(line.signers["builder"], not_after=NOW - 1),
        )
    )
    later = ReceiveStage(line.registry, target, trust, ("verifier",), workdir=tmp_path, clock=lambda: NOW)

    assert later.find(offer) is None
    with pytest.raises(VerificationError, match="not valid at this time"):
        run_stage(later, offer)


def test_production_needs_the_word_of_staging(line, target, tmp_path):
    def stage(offer: Offer):
        receive = ReceiveStage(
            line.registry, target, line.trust, ("verifier", "staging"), workdir=tmp_path, clock=lambda: NOW
        )
        return run_stage(receive, offer)

    offer = line.offer("promoted")
    with pytest.raises(VerificationError, match="names no receipt"):
        stage(offer)
    with pytest.raises(VerificationError, match="healthy"):
        stage(line.receipt(offer, event="failed"))
    with pytest.raises(VerificationError, match="not trusted"):
        stage(line.receipt(offer, zone="staging", signer="production"))
    with pytest.raises(VerificationError, match="not trusted"):
        stage(line.receipt(offer, zone="production"))

    promoted = line.receipt(offer)
    assert stage(promoted).value.digest == offer.release
    assert Digest(promoted.receipt) in {
        item.digest for item in target.referrers("releases/promoted", Digest(offer.release))
    }


def test_an_interrupted_receive_is_not_received_and_goes_on(line, stage, monkeypatch):
    offer = line.offer("interrupted")
    put_referrer = Registry.put_referrer

    def broken(*_):
        raise TemporaryError("The network broke off.")

    monkeypatch.setattr(Registry, "put_referrer", broken)
    with pytest.raises(TemporaryError):
        run_stage(stage, offer)
    assert stage.find(offer) is None

    monkeypatch.setattr(Registry, "put_referrer", put_referrer)
    assert run_stage(stage, offer).value.digest == offer.release


def test_a_layer_that_the_source_lost_refuses(line, target, stage):
    offer = line.offer("lost-layer")
    release, _ = load_release(line.registry, "releases/lost-layer", Digest(offer.release))
    delete(line.registry.url, f"/v2/apps/lost-layer/blobs/{release.image.layers[1].digest}")

    with pytest.raises(VerificationError, match="layer of the image is missing"):
        run_stage(stage, offer)
    assert target.tags("releases/lost-layer") == ()


def delete(url, path):
    request = urllib.request.Request(url + path, method="DELETE")  # noqa: S310 - the test's own registry
    with urllib.request.urlopen(request) as response:  # noqa: S310
        assert response.status == 202


def test_evidence_that_vanished_is_fetched_again(line, target, stage):
    offer = line.offer("vanished")
    sealed = run_stage(stage, offer).value
    image = sealed.release.image
    tag = f"sha256-{hex_of(image.digest)}"
    target.put_manifest(
        image.repository,
        b'{"manifests":[],"mediaType":"application/vnd.oci.image.index.v1+json","schemaVersion":2}',
        "application/vnd.oci.image.index.v1+json",
        tag=tag,
    )

    assert stage.find(offer) is None
    assert not run_stage(stage, offer).found
    found = find_statements(
        target,
        image.repository,
        Digest(image.digest),
        trust=line.trust,
        role="builder",
        predicate_type=PROVENANCE,
        at=NOW,
    )
    assert len(found) == 1
    assert SUMMARY in {
        item.annotations["dev.sigstore.bundle.predicateType"]
        for item in target.referrers(image.repository, Digest(image.digest))
    }


def test_the_key_depends_on_the_trust_root_and_not_on_the_place_in_the_feed(line, target, tmp_path):
    offer = Offer(sequence=1, app="any", release=digest_of(b"r"), summary=digest_of(b"s"), commit="a" * 40)
    stage = ReceiveStage(line.registry, target, line.trust, ("verifier",), workdir=tmp_path)
    other = ReceiveStage(line.registry, target, TrustRoot(keys=()), ("verifier",), workdir=tmp_path)

    assert stage.key(offer) == stage.key(offer.model_copy(update={"sequence": 2}))
    assert stage.key(offer) != other.key(offer)
    assert stage.key(offer) != stage.key(offer.model_copy(update={"summary": digest_of(b"t")}))


def test_a_workdir_that_cannot_be_made_says_so(line, target):
    stage = ReceiveStage(
        line.registry, target, line.trust, ("verifier",), workdir=Path("/proc/none"), clock=lambda: NOW
    )

    with pytest.raises(PermanentError, match="cannot be used"):
        run_stage(stage, line.offer("workdir"))
