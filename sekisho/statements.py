"""Statements: who says what about which digest, signed so that the real cosign verifies it too.

Forms: in-toto Statement v1 (in-toto/attestation, spec/v1), DSSE v1 (secure-systems-lab/dsse, protocol.md), Sigstore
bundle v0.3 with a public key hint (sigstore/protobuf-specs). One signature a bundle, ECDSA P-256 with SHA-256.

A statement counts only if all of these hold, checked in this order (`verify_statement`):

1.  The trust root has at least one key for the role that is asked for (and the zone, where the role is `zone`).
2.  The bundle is JSON of the bundle's form, v0.3, within the size limit, with no unknown field and no key twice.
3.  It holds exactly one signature, strict base64, and its payload type is `application/vnd.in-toto+json`.
4.  Its key hint names a key of exactly that role and zone. A right key in a wrong role fails here.
5.  That key counts at the time that is asked for: when the statement was first seen, or now (`sekisho.witness`).
6.  The signature is that key's, over the DSSE pre-authentication encoding of type and payload. Nothing of the payload
    is read before this.
7.  The payload is an in-toto Statement v1 or v0.1, with no unknown field and no key twice.
8.  Its predicate type is the one that is asked for.
9.  The subject that is asked for is among its subjects, by exact sha256 digest.
10. A verification summary says PASSED. Only a caller that shows a NO to people asks for less (`allow_failed`).

cosign's older form is the DSSE envelope alone, without a key hint. `verify_envelope` takes it by the same rules; in
place of rule 4, each valid key of the role and zone is tried.
"""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Final

from pydantic import Field

from sekisho.canonical import Digest, canonical, hex_of, parse_digest
from sekisho.errors import PermanentError, Refusal, VerificationError
from sekisho.keys import Role, Signer, TrustedKey, TrustRoot
from sekisho.model import DigestField, Document
from sekisho.oci import read_json
from sekisho.signing import sign_with

PROVENANCE = "https://slsa.dev/provenance/v1"
SCAN = "https://sekisho.dev/attestations/scan/v1"
SBOM = "https://cyclonedx.org/bom"
SUMMARY = "https://slsa.dev/verification_summary/v1"
RECEIPT = "https://sekisho.dev/attestations/receipt/v1"

ROLES: Final[Mapping[str, Role]] = {
    PROVENANCE: "builder",
    SCAN: "scanner",
    SBOM: "scanner",
    SUMMARY: "verifier",
    RECEIPT: "zone",
}
"""Whose word each predicate is."""

BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
_KEY_ID_BYTES = 32
_STATEMENT_TYPES = (STATEMENT_TYPE, "https://in-toto.io/Statement/v0.1")
"""The second is what `cosign attest` writes; the fields are the same (in-toto/attestation, spec/v0.1.0)."""
BUNDLE_LIMIT = 64 << 20
"""Bytes; an SBOM of a large image has a few MiB."""


class Subject(Document):
    """What a statement is about."""

    name: str = ""
    digest: str = DigestField


class Statement(Document):
    """An in-toto Statement v1."""

    subjects: tuple[Subject, ...] = Field(min_length=1)
    predicate_type: str
    predicate: dict[str, Any]

    def payload(self) -> bytes:
        """Return the statement's JSON as it is signed (RFC 8785).

        Raises:
            PermanentError: the predicate holds something that has no canonical JSON form.
        """
        value = {
            "_type": STATEMENT_TYPE,
            "subject": [
                {"name": subject.name, "digest": {"sha256": hex_of(subject.digest)}} for subject in self.subjects
            ],
            "predicateType": self.predicate_type,
            "predicate": self.predicate,
        }
        try:
            return canonical(value)
        except (ValueError, TypeError, RecursionError) as error:
            raise PermanentError(
                f"The predicate cannot be written as canonical JSON: {error}", where=self.predicate_type
            ) from error

    def covers(self, digest: Digest | str) -> bool:
        """Return whether a digest is among the subjects."""
        return any(subject.digest == digest for subject in self.subjects)


def sign_statement(statement: Statement, signer: Signer) -> bytes:
    """Sign a statement.

    Returns:
        A Sigstore bundle v0.3 as canonical JSON.

    Raises:
        PermanentError: the statement has no canonical form.
        TemporaryError: the signer is down.
    """
    payload = statement.payload()
    key_id, signature = sign_with(signer, pae(PAYLOAD_TYPE, payload))
    return canonical(
        {
            "mediaType": BUNDLE_TYPE,
            "verificationMaterial": {"publicKey": {"hint": _encode(bytes.fromhex(key_id))}},
            "dsseEnvelope": {
                "payload": _encode(payload),
                "payloadType": PAYLOAD_TYPE,
                "signatures": [{"sig": _encode(signature)}],
            },
        }
    )


def verify_statement(
    bundle: bytes,
    *,
    trust: TrustRoot,
    role: Role,
    predicate_type: str,
    subject: Digest | str,
    zone: str = "",
    at: int | None = None,
    allow_failed: bool = False,
    where: str = "",
) -> Statement:
    """Verify a bundle by the rules of this module and return its statement.

    Args:
        bundle: the Sigstore bundle's JSON.
        trust: whose keys count.
        role: the role that must have signed.
        predicate_type: what it must say.
        subject: the digest that it must be about.
        zone: the zone whose key must have signed; with role `zone` only.
        at: when the statement was first seen by whoever asks, never what it says itself; seconds since the epoch, now
            when None.
        allow_failed: take a summary whose result is FAILED as well.
        where: where the bundle comes from, for the error.

    Raises:
        VerificationError: a rule does not hold; says which.
    """
    keys = _keys(trust, role, zone, where)
    try:
        hint, payload, signature = _open_bundle(bundle)
        key = _key_of(keys, hint, role)
        problem = key.problem_at(int(time.time()) if at is None else at)
        if problem:
            raise VerificationError(f"The {role} key {key.key_id[:16]} {problem}.")
        if not key.verifies(signature, pae(PAYLOAD_TYPE, payload)):
            raise VerificationError(f"The signature is not that of the {role} key {key.key_id[:16]}.")
        statement = _read_statement(payload)
    except Refusal as error:
        raise VerificationError(error.what, where=where or error.where, remedy=error.remedy) from error
    return _checked(statement, predicate_type, subject, allow_failed=allow_failed, where=where)


def verify_envelope(
    envelope: bytes,
    *,
    trust: TrustRoot,
    role: Role,
    predicate_type: str,
    subject: Digest | str,
    zone: str = "",
    at: int | None = None,
    allow_failed: bool = False,
    where: str = "",
) -> Statement:
    """Verify a DSSE envelope that names no key, and return its statement; else as `verify_statement`.

    Raises:
        VerificationError: a rule does not hold; says which.
    """
    moment = int(time.time()) if at is None else at
    keys = [key for key in _keys(trust, role, zone, where) if key.valid_at(moment)]
    try:
        payload, signature = _open_envelope(read_json(envelope))
        if not any(key.verifies(signature, pae(PAYLOAD_TYPE, payload)) for key in keys):
            raise VerificationError(f"The signature is not that of a {role} key that is valid at this time.")
        statement = _read_statement(payload)
    except Refusal as error:
        raise VerificationError(error.what, where=where or error.where, remedy=error.remedy) from error
    return _checked(statement, predicate_type, subject, allow_failed=allow_failed, where=where)


def _keys(trust: TrustRoot, role: Role, zone: str, where: str) -> tuple[TrustedKey, ...]:
    keys = trust.for_role(role, zone)
    if not keys:
        raise VerificationError(
            f"The trust root has no key for the role {role}{' of zone ' + zone if zone else ''}.",
            where=where,
            remedy="Add the role's public key to the zone's trust root.",
        )
    return keys


def _checked(
    statement: Statement, predicate_type: str, subject: Digest | str, *, allow_failed: bool, where: str
) -> Statement:
    """Return a statement whose signature holds, if it says what is asked for: rules 8 to 10."""
    if statement.predicate_type != predicate_type:
        raise VerificationError(
            f"The statement's predicate type is {statement.predicate_type[:100]!r}, not {predicate_type}.", where=where
        )
    if not statement.covers(subject):
        raise VerificationError(f"The statement is not about {subject}.", where=where)
    if predicate_type == SUMMARY and not allow_failed and statement.predicate.get("verificationResult") != "PASSED":
        raise VerificationError("The summary does not say PASSED.", where=where)
    return statement


def pae(payload_type: str, payload: bytes) -> bytes:
    """Return DSSE's pre-authentication encoding: what is signed."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def envelope_of(bundle: bytes) -> dict[str, Any]:
    """Return a bundle's DSSE envelope, unverified; cosign's legacy tags carry it alone.

    Raises:
        Refusal: not a bundle.
    """
    _, payload, signature = _open_bundle(bundle)
    return {
        "payloadType": PAYLOAD_TYPE,
        "payload": _encode(payload),
        "signatures": [{"keyid": "", "sig": _encode(signature)}],
    }


def peek_statement(bundle: bytes) -> Statement:
    """Return a bundle's statement WITHOUT verifying anything: for display, and for what was verified before.

    Raises:
        Refusal: not a bundle with an in-toto statement.
    """
    return _read_statement(_open_bundle(bundle)[1])


def _open_bundle(bundle: bytes) -> tuple[str, bytes, bytes]:
    """Return key hint (hexadecimal), payload and signature."""
    if len(bundle) > BUNDLE_LIMIT:
        raise Refusal(f"The bundle is larger than {BUNDLE_LIMIT} bytes.")
    value = read_json(bundle)
    _closed(value, {"mediaType", "verificationMaterial", "dsseEnvelope"}, "bundle")
    if value["mediaType"] != BUNDLE_TYPE:
        raise Refusal(f"The bundle's media type is not {BUNDLE_TYPE}.")
    material = _object(value["verificationMaterial"], "verificationMaterial")
    # cosign adds these two; a key pair's bundle verifies without them.
    _closed(material, {"publicKey"}, "verificationMaterial", optional={"tlogEntries", "timestampVerificationData"})
    public_key = _object(material["publicKey"], "publicKey")
    _closed(public_key, {"hint"}, "publicKey")
    hint = _decode(public_key["hint"], "hint")
    if len(hint) != _KEY_ID_BYTES:
        raise Refusal("The key hint is not the sha256 of a public key.")
    payload, signature = _open_envelope(_object(value["dsseEnvelope"], "dsseEnvelope"))
    return hint.hex(), payload, signature


def _open_envelope(envelope: dict[str, Any]) -> tuple[bytes, bytes]:
    """Return payload and signature."""
    _closed(envelope, {"payload", "payloadType", "signatures"}, "dsseEnvelope")
    if envelope["payloadType"] != PAYLOAD_TYPE:
        raise Refusal(f"The envelope's payload type is not {PAYLOAD_TYPE}.")
    signatures = envelope["signatures"]
    if not isinstance(signatures, list) or len(signatures) != 1:
        raise Refusal("The envelope does not hold exactly one signature.")
    signature = _object(signatures[0], "signatures")
    _closed(signature, {"sig"}, "signatures", optional={"keyid"})
    return _decode(envelope["payload"], "payload"), _decode(signature["sig"], "sig")


def _key_of(keys: tuple[TrustedKey, ...], hint: str, role: Role) -> TrustedKey:
    for key in keys:
        if key.key_id == hint:
            return key
    raise VerificationError(
        f"The key {hint[:16]} is not trusted as {role}.",
        remedy="If the key was rotated, add its public key to the zone's trust root under its role.",
    )


def _read_statement(payload: bytes) -> Statement:
    value = read_json(payload)
    _closed(value, {"_type", "subject", "predicateType"}, "statement", optional={"predicate"})
    if value["_type"] not in _STATEMENT_TYPES:
        raise Refusal(f"The payload is not an {STATEMENT_TYPE}.")
    subjects = value["subject"]
    if not isinstance(subjects, list) or not subjects:
        raise Refusal("The statement has no subject.")
    if not isinstance(value["predicateType"], str):
        raise Refusal("The statement's predicateType is not a string.")
    return Statement(
        subjects=tuple(_read_subject(subject) for subject in subjects),
        predicate_type=value["predicateType"],
        predicate=_object(value.get("predicate", {}), "predicate"),
    )


def _read_subject(value: Any) -> Subject:
    subject = _object(value, "subject")
    digests = _object(subject.get("digest"), "subject digest")
    name, sha256 = subject.get("name", ""), digests.get("sha256")
    if not isinstance(name, str) or not isinstance(sha256, str):
        raise Refusal("A subject of the statement has no sha256 digest.")
    return Subject(name=name, digest=parse_digest("sha256:" + sha256))


def _object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Refusal(f"{name} is not a JSON object.")
    return value


def _closed(
    value: dict[str, Any], required: AbstractSet[str], name: str, *, optional: AbstractSet[str] = frozenset()
) -> None:
    missing, unknown = required - value.keys(), value.keys() - required - optional
    if missing or unknown:
        raise Refusal(f"{name}: missing {sorted(missing)}, unknown {sorted(unknown)!r:.200}.")


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _decode(text: Any, name: str) -> bytes:
    if not isinstance(text, str):
        raise Refusal(f"{name} is not a string.")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refusal(f"{name} is not base64.") from error
