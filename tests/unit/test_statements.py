"""Statements: every rule of `verify_statement` has a test that fails without it."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sekisho import statements
from sekisho.canonical import canonical, digest_of
from sekisho.errors import PermanentError, Refusal, VerificationError
from sekisho.keys import TrustRoot, trusted_key
from sekisho.statements import (
    BUNDLE_TYPE,
    PAYLOAD_TYPE,
    PROVENANCE,
    RECEIPT,
    SCAN,
    STATEMENT_TYPE,
    SUMMARY,
    Statement,
    Subject,
    envelope_of,
    pae,
    peek_statement,
    sign_statement,
    verify_statement,
)

IMAGE = digest_of(b"image")
STATEMENT = Statement(
    subjects=(Subject(name="apps/x", digest=IMAGE),), predicate_type=PROVENANCE, predicate={"level": 1, "ö": [None]}
)
NOW = 1000


@pytest.fixture
def bundle(signers):
    return sign_statement(STATEMENT, signers["builder"])


@pytest.fixture
def verify(trust):
    def call(data, **changes):
        expected = {"trust": trust, "role": "builder", "predicate_type": PROVENANCE, "subject": IMAGE, "at": NOW}
        return verify_statement(data, **expected | changes)

    return call


def signed(signer, payload, payload_type=PAYLOAD_TYPE):
    """Sign a payload as it is, well formed or not."""
    return canonical(
        {
            "mediaType": BUNDLE_TYPE,
            "verificationMaterial": {"publicKey": {"hint": b64(bytes.fromhex(signer.key_id))}},
            "dsseEnvelope": {
                "payload": b64(payload),
                "payloadType": payload_type,
                "signatures": [{"sig": b64(signer.sign(pae(payload_type, payload)))}],
            },
        }
    )


def b64(data):
    return base64.b64encode(data).decode()


def changed(bundle, path, value):
    """Return the bundle with one field set, or taken away where the value is None."""
    tree = json.loads(bundle)
    *parents, last = path
    node = tree
    for key in parents:
        node = node[key]
    if value is None:
        del node[last]
    else:
        node[last] = value
    return json.dumps(tree).encode()


def test_what_is_signed_verifies_and_repeats(bundle, verify, signers):
    assert verify(bundle) == STATEMENT == peek_statement(bundle)
    assert sign_statement(STATEMENT, signers["builder"]) == bundle


def test_the_encoding_that_is_signed_is_that_of_dsse():
    # The example of protocol.md, secure-systems-lab/dsse.
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )
    assert pae("ö", b"") == b"DSSEv1 2 \xc3\xb6 0 "


def test_the_bundle_has_the_form_that_cosign_reads(bundle, signers):
    value = json.loads(bundle)

    assert value["mediaType"] == "application/vnd.dev.sigstore.bundle.v0.3+json"
    assert base64.b64decode(value["verificationMaterial"]["publicKey"]["hint"]).hex() == signers["builder"].key_id
    payload = json.loads(base64.b64decode(value["dsseEnvelope"]["payload"]))
    assert payload == {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "apps/x", "digest": {"sha256": IMAGE[7:]}}],
        "predicateType": PROVENANCE,
        "predicate": {"level": 1, "ö": [None]},
    }


def test_openssl_verifies_the_signature(bundle, signers, tmp_path):
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl on PATH")
    envelope = json.loads(bundle)["dsseEnvelope"]
    (tmp_path / "data").write_bytes(pae(PAYLOAD_TYPE, base64.b64decode(envelope["payload"])))
    (tmp_path / "sig").write_bytes(base64.b64decode(envelope["signatures"][0]["sig"]))
    (tmp_path / "key.pub").write_text(signers["builder"].public_key)
    command = [openssl, "dgst", "-sha256", "-verify", "key.pub", "-signature", "sig", "data"]

    assert subprocess.run(command, cwd=tmp_path, check=False, capture_output=True).returncode == 0


def test_rule_1_an_empty_trust_root_fails(bundle, verify, trust):
    with pytest.raises(VerificationError, match="no key for the role builder"):
        verify(bundle, trust=TrustRoot(keys=()))
    with pytest.raises(VerificationError, match="no key for the role builder"):
        verify(bundle, trust=TrustRoot(keys=trust.for_role("scanner")))
    with pytest.raises(VerificationError, match="of zone nowhere"):
        verify(bundle, role="zone", zone="nowhere")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["mediaType"], "application/vnd.dev.sigstore.bundle+json;version=0.2"),
        (["mediaType"], None),
        (["extra"], 1),
        (["verificationMaterial"], []),
        (["verificationMaterial", "publicKey"], None),
        (["verificationMaterial", "certificate"], {}),
        (["verificationMaterial", "publicKey", "hint"], "AAAA"),
        (["verificationMaterial", "publicKey", "rawBytes"], "AAAA"),
        (["dsseEnvelope"], None),
        (["dsseEnvelope", "extra"], 1),
        (["dsseEnvelope", "payload"], 7),
        (["dsseEnvelope", "payload"], "not base64!"),
        (["dsseEnvelope", "payloadType"], "text/plain"),
        (["dsseEnvelope", "signatures"], []),
        (["dsseEnvelope", "signatures"], {}),
        (["dsseEnvelope", "signatures", 0], "x"),
        (["dsseEnvelope", "signatures", 0, "extra"], "x"),
        (["dsseEnvelope", "signatures", 0, "sig"], None),
    ],
)
def test_rules_2_and_3_another_form_fails(bundle, verify, path, value):
    with pytest.raises(VerificationError):
        verify(changed(bundle, path, value))


@pytest.mark.parametrize("data", [b"", b"null", b"[]", b"\xff\xfe", b"{" * 100_000, b'{"a":1}'])
def test_rule_2_no_bundle_at_all_fails(verify, data):
    with pytest.raises(VerificationError):
        verify(data)


def test_rule_2_a_key_that_stands_twice_fails(bundle, verify):
    with pytest.raises(VerificationError, match="twice"):
        verify(b'{"mediaType":"x",' + bundle[1:])


def test_rule_2_a_bundle_that_is_too_large_fails(bundle, verify, monkeypatch):
    monkeypatch.setattr(statements, "BUNDLE_LIMIT", len(bundle) - 1)
    with pytest.raises(VerificationError, match="larger"):
        verify(bundle)


def test_rule_3_two_signatures_fail(bundle, verify):
    signature = json.loads(bundle)["dsseEnvelope"]["signatures"][0]
    with pytest.raises(VerificationError, match="exactly one"):
        verify(changed(bundle, ["dsseEnvelope", "signatures"], [signature, signature]))


def test_rule_3_another_payload_type_fails_also_when_it_is_signed(signers, verify):
    with pytest.raises(VerificationError, match="payload type"):
        verify(signed(signers["builder"], STATEMENT.payload(), "text/plain"))


@pytest.mark.parametrize("role", ["scanner", "verifier"])
def test_rule_4_a_right_key_in_a_wrong_role_fails(role, bundle, verify, signers):
    with pytest.raises(VerificationError, match=f"not trusted as {role}"):
        verify(bundle, role=role)
    with pytest.raises(VerificationError, match="not trusted as builder"):
        verify(sign_statement(STATEMENT, signers[role]))


def test_rule_4_a_key_that_nobody_knows_fails(verify, signers):
    with pytest.raises(VerificationError, match="not trusted"):
        verify(sign_statement(STATEMENT, signers["stranger"]))


def test_rule_4_another_zones_key_fails(verify, signers):
    bundle = sign_statement(STATEMENT.model_copy(update={"predicate_type": RECEIPT}), signers["production"])
    expected = {"role": "zone", "predicate_type": RECEIPT}

    assert verify(bundle, zone="production", **expected)
    with pytest.raises(VerificationError, match="not trusted as zone"):
        verify(bundle, zone="staging", **expected)


def test_rule_5_a_key_counts_in_its_time_only(bundle, verify, signers):
    key = trusted_key(signers["builder"], not_before=NOW, not_after=NOW + 10)
    trust = TrustRoot(keys=(key,))

    assert verify(bundle, trust=trust, at=NOW + 10)
    for at in (NOW - 1, NOW + 11, None):
        with pytest.raises(VerificationError, match="not valid at this time"):
            verify(bundle, trust=trust, at=at)


def test_rule_6_every_bit_of_payload_and_signature_counts(bundle, verify):
    envelope = json.loads(bundle)["dsseEnvelope"]
    for path, text in (
        (["dsseEnvelope", "payload"], envelope["payload"]),
        (["dsseEnvelope", "signatures", 0, "sig"], envelope["signatures"][0]["sig"]),
    ):
        data = base64.b64decode(text)
        for position in range(len(data)):
            damaged = bytearray(data)
            damaged[position] ^= 1 << (position % 8)
            with pytest.raises(VerificationError, match="signature is not that of"):
                verify(changed(bundle, path, b64(bytes(damaged))))


def test_rule_6_the_hint_of_another_trusted_key_fails(bundle, verify, signers):
    both = TrustRoot(
        keys=(
            trusted_key(signers["builder"]),
            trusted_key(signers["stranger"]).model_copy(update={"role": "builder"}),
        )
    )
    hint = b64(bytes.fromhex(signers["stranger"].key_id))

    assert verify(bundle, trust=both)
    with pytest.raises(VerificationError, match="signature is not that of"):
        verify(changed(bundle, ["verificationMaterial", "publicKey", "hint"], hint), trust=both)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("_type", "https://in-toto.io/Statement/v0.2"),
        ("_type", None),
        ("subject", []),
        ("subject", {}),
        ("subject", ["x"]),
        ("subject", [{"name": "x"}]),
        ("subject", [{"digest": {"sha512": "0"}}]),
        ("subject", [{"digest": {"sha256": IMAGE[7:].upper()}}]),
        ("subject", [{"digest": {"sha256": IMAGE}}]),
        ("subject", [{"name": 1, "digest": {"sha256": IMAGE[7:]}}]),
        ("predicateType", None),
        ("predicateType", 1),
        ("predicate", "x"),
        ("predicate", ""),
        ("predicate", []),
        ("predicate", 0),
        ("extra", 1),
    ],
)
def test_rule_7_a_signed_payload_of_another_form_fails(signers, verify, field, value):
    payload = json.loads(STATEMENT.payload())
    if value is None:
        del payload[field]
    else:
        payload[field] = value
    with pytest.raises(VerificationError):
        verify(signed(signers["builder"], json.dumps(payload).encode()))


def test_rule_7_a_signed_payload_with_a_key_twice_fails(signers, verify):
    with pytest.raises(VerificationError, match="twice"):
        verify(signed(signers["builder"], b'{"_type":"x",' + STATEMENT.payload()[1:]))


def test_rule_8_another_predicate_type_fails(bundle, verify):
    with pytest.raises(VerificationError, match="predicate type"):
        verify(bundle, predicate_type=SCAN)


def test_rule_9_another_subject_fails(bundle, verify):
    for subject in (digest_of(b"other"), IMAGE[7:], IMAGE[:-1], ""):
        with pytest.raises(VerificationError, match="not about"):
            verify(bundle, subject=subject)


def test_rule_9_any_of_several_subjects_counts(verify, signers):
    other = digest_of(b"other")
    statement = STATEMENT.model_copy(update={"subjects": (Subject(digest=other), Subject(digest=IMAGE))})
    bundle = sign_statement(statement, signers["builder"])

    assert verify(bundle) == verify(bundle, subject=other) == statement


@pytest.mark.parametrize("result", ["FAILED", "passed", "", None, True])
def test_rule_10_a_summary_that_does_not_say_passed_fails(verify, signers, result):
    statement = STATEMENT.model_copy(update={"predicate_type": SUMMARY, "predicate": {"verificationResult": result}})
    bundle = sign_statement(statement, signers["verifier"])
    expected = {"role": "verifier", "predicate_type": SUMMARY}

    with pytest.raises(VerificationError, match="PASSED"):
        verify(bundle, **expected)
    assert verify(bundle, allow_failed=True, **expected) == statement


def test_what_cosign_adds_to_a_bundle_is_no_fault(bundle, verify):
    """`cosign sign --key` writes these too (sigstore/protobuf-specs, sigstore_bundle.proto)."""
    bundle = changed(bundle, ["verificationMaterial", "tlogEntries"], [])
    bundle = changed(bundle, ["verificationMaterial", "timestampVerificationData"], {"rfc3161Timestamps": []})
    bundle = changed(bundle, ["dsseEnvelope", "signatures", 0, "keyid"], "")

    assert verify(bundle) == STATEMENT


def test_what_another_tool_serialises_otherwise_verifies(verify, signers):
    payload = {"subject": [{"digest": {"sha256": IMAGE[7:], "sha1": "x"}}], "predicateType": PROVENANCE}
    payload |= {"_type": STATEMENT_TYPE}

    found = verify(signed(signers["builder"], json.dumps(payload, indent=2).encode()))
    assert found == Statement(subjects=(Subject(digest=IMAGE),), predicate_type=PROVENANCE, predicate={})


def test_the_legacy_envelope_holds_the_same_signature(bundle):
    envelope, ours = envelope_of(bundle), json.loads(bundle)["dsseEnvelope"]

    assert (envelope["payload"], envelope["payloadType"]) == (ours["payload"], ours["payloadType"])
    assert envelope["signatures"][0]["sig"] == ours["signatures"][0]["sig"]


def test_what_has_no_canonical_form_is_not_signed(signers):
    for value in (float("nan"), 1 << 60, object()):
        with pytest.raises(PermanentError, match="canonical"):
            sign_statement(STATEMENT.model_copy(update={"predicate": {"x": value}}), signers["builder"])


@settings(max_examples=60)
@given(st.binary(max_size=200))
def test_no_bytes_do_more_than_be_refused(data):
    with pytest.raises(Refusal):
        peek_statement(data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=60)
@given(
    st.sampled_from(
        [
            ("mediaType",),
            ("verificationMaterial",),
            ("verificationMaterial", "publicKey"),
            ("verificationMaterial", "publicKey", "hint"),
            ("dsseEnvelope",),
            ("dsseEnvelope", "payload"),
            ("dsseEnvelope", "signatures"),
        ]
    ),
    json_values,
)
def test_any_json_in_any_place_is_refused(path, value):
    template = {
        "mediaType": BUNDLE_TYPE,
        "verificationMaterial": {"publicKey": {"hint": b64(b"0" * 32)}},
        "dsseEnvelope": {
            "payload": b64(STATEMENT.payload()),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": "AAAA"}],
        },
    }
    node = template
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    with pytest.raises(Refusal):
        peek_statement(json.dumps(template).encode())
