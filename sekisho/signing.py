"""Asking a signer: with a limit on the wait, and without believing what comes back.

A key in a file answers in a millisecond. What stands behind the interface elsewhere (a KMS, Vault) is a network
away: it can be down, hang, or answer with rubbish. Each of these ends as "to be tried again", with the reason, before
anything is written: a statement is signed whole, or there is none.
"""

from __future__ import annotations

import threading
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from sekisho.errors import SekishoError, TemporaryError
from sekisho.keys import Signer, key_id_of, load_public

SIGN_SECONDS: Final = 20.0
"""How long a signer may take."""


def sign_with(signer: Signer, data: bytes, *, seconds: float | None = None) -> tuple[str, bytes]:
    """Have data signed.

    Args:
        signer: whose signature it shall be.
        data: what is signed.
        seconds: how long the signer may take; SIGN_SECONDS when None.

    Returns:
        The id of the key, and its ASN.1 ECDSA-SHA256 signature over `data`, checked.

    Raises:
        TemporaryError: the signer failed, gave no answer in time, or gave another key's signature.
    """
    role = signer.role
    wait = SIGN_SECONDS if seconds is None else seconds
    answer: list[tuple[str, str, bytes]] = []
    failed: list[Exception] = []

    def ask() -> None:
        try:
            answer.append((signer.key_id, signer.public_key, signer.sign(data)))
        except Exception as error:  # noqa: BLE001 - whatever stands behind the interface raises
            failed.append(error)

    # A daemon: one that hangs for ever must not keep the process from ending.
    thread = threading.Thread(target=ask, name=f"sign as {role}", daemon=True)
    thread.start()
    thread.join(wait)
    if failed:
        error = failed[0]
        # Another library's text may quote what it sent; the error itself is chained for the log of whoever debugs.
        said = str(error) if isinstance(error, SekishoError) else type(error).__name__
        raise _down(role, f"failed: {said}") from error
    if not answer:
        raise _down(role, f"gave no answer in {wait:g} s")
    key_id, public_key, signature = answer[0]
    if not _verifies(key_id, public_key, signature, data):
        raise _down(role, "gave a signature that is not its key's")
    return key_id, signature


def _down(role: str, what: str) -> TemporaryError:
    return TemporaryError(
        f"The {role}'s signer {what}.",
        where=f"signer of the {role}",
        remedy="Nothing was signed and nothing is lost: the line tries again. Look after the signer.",
    )


def _verifies(key_id: str, public_key: str, signature: bytes, data: bytes) -> bool:
    try:
        key = load_public(public_key)
        if key_id_of(key) != key_id:
            return False
        key.verify(signature, data, ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True
