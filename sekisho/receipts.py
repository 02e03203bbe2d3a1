"""Receipts as signed statements: how a zone says what it did, and how everybody else checks it.

The statement's one subject is the release that the receipt is about or, where it is about none, the receipt itself.
"""

from __future__ import annotations

import json

from sekisho.canonical import Digest
from sekisho.errors import Refusal, VerificationError
from sekisho.keys import TrustRoot
from sekisho.model import Receipt
from sekisho.statements import RECEIPT, Statement, Subject, peek_statement, verify_statement

MAX_RECEIPT = 8 << 20
"""Bytes of one signed receipt; those of plans carry every object twice."""


def receipt_subject(receipt: Receipt) -> Subject:
    """Return what a receipt's statement is about."""
    if receipt.release:
        return Subject(name=f"releases/{receipt.app}", digest=receipt.release)
    return Subject(name=f"receipts/{receipt.app}", digest=receipt.identity())


def receipt_statement(receipt: Receipt) -> Statement:
    """Return the statement that a zone signs with its key."""
    return Statement(
        subjects=(receipt_subject(receipt),), predicate_type=RECEIPT, predicate=receipt.model_dump(mode="json")
    )


def verify_receipt(bundle: bytes, trust: TrustRoot) -> Receipt:
    """Check a signed receipt against the zones' keys and return it.

    Args:
        bundle: Sigstore bundle (JSON) with the DSSE envelope.
        trust: root with the zone keys; the key must be of the zone that the receipt names.

    Raises:
        Refusal: the bundle or the receipt in it is malformed.
        VerificationError: the signature is not of the zone that the receipt names.
    """
    if len(bundle) > MAX_RECEIPT:
        raise Refusal(f"The receipt is larger than {MAX_RECEIPT} bytes.")
    claimed = _read(peek_statement(bundle))  # which key must have signed it; believed only once it did
    statement = verify_statement(
        bundle,
        trust=trust,
        role="zone",
        predicate_type=RECEIPT,
        subject=_subject(claimed),
        zone=claimed.zone,
        where=f"receipt of {claimed.zone}",
    )
    if _read(statement) != claimed:
        raise VerificationError("The signed receipt is not the one that the envelope shows.", where=claimed.zone)
    return claimed


def _read(statement: Statement) -> Receipt:
    return Receipt.parse(json.dumps(statement.predicate), where="receipt")


def _subject(receipt: Receipt) -> Digest:
    try:
        receipt.canonical()  # its identity is asked for wherever it is kept
        return Digest(receipt_subject(receipt).digest)
    except (ValueError, RecursionError) as error:
        raise Refusal("The receipt names no digest, or has no canonical form.", where="receipt") from error
