"""Decisions of people, signed with their own SSH keys.

The format is OpenSSH's (PROTOCOL.sshsig) with the namespace `sekisho-decision`, over the decision's canonical JSON;
who may decide stands in an `allowed_signers` file (ssh-keygen(1), ALLOWED SIGNERS), which also bounds keys in time
(`valid-after`, `valid-before`) and use (`namespaces`). Keys behind a passphrase, in an agent or on a security token
work as they do with ssh-keygen, which asks on the person's own terminal.

A signed decision counts if its signature's key belongs to exactly one principal of the file, that principal is the
one in the decision, and the signature over the decision is right at this time. A key that two names share, or an
entry with a wildcard, names nobody and counts for nobody.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from sekisho.errors import PermanentError, UsageError, VerificationError
from sekisho.model import Decision, SignedDecision

NAMESPACE = "sekisho-decision"
SIGNATURE_LIMIT = 16 << 10
_BEGIN, _END = "-----BEGIN SSH SIGNATURE-----\n", "-----END SSH SIGNATURE-----\n"
_SIGN_SECONDS = 120.0
"""A person may have to type a passphrase or touch a token."""
_VERIFY_SECONDS = 10.0
_ENVIRONMENT = ("PATH", "HOME", "SSH_AUTH_SOCK", "SSH_ASKPASS", "SSH_ASKPASS_REQUIRE", "DISPLAY", "TERM")


def sign_decision(decision: Decision, key: Path) -> SignedDecision:
    """Sign a decision.

    Args:
        decision: what is decided.
        key: private key file, or a `.pub` file whose private key an agent holds.

    Raises:
        UsageError: there is no such key, or it cannot sign.
        PermanentError: ssh-keygen is missing.
    """
    if not key.is_file():
        raise UsageError("There is no such SSH key.", where=str(key), remedy="Give your key's path with --key.")
    result = _ssh_keygen(
        ["sign", "-n", NAMESPACE, "-f", str(key.absolute())], decision.canonical(), seconds=_SIGN_SECONDS
    )
    signature = result.stdout.decode("ascii", "replace")
    if result.returncode != 0 or not signature.startswith(_BEGIN):
        raise UsageError(
            f"ssh-keygen did not sign: {_said(result)}",
            where=str(key),
            remedy="Check the passphrase; for a .pub file, that the agent holds its key (ssh-add -l).",
        )
    return SignedDecision(decision=decision, signature=signature)


def verify_decision(signed: SignedDecision, allowed_signers: Path, *, revoked: Path | None = None) -> str:
    """Verify a signed decision as of now and return its principal.

    Args:
        signed: the decision and its signature; untrusted.
        allowed_signers: who may decide, in this zone.
        revoked: key revocation list or file of public keys that count no longer.

    Raises:
        VerificationError: the signature is not right, its key is not allowed (any more), or is another person's.
        PermanentError: the file of allowed signers or ssh-keygen is missing.
    """
    if not allowed_signers.is_file():
        raise PermanentError(
            "There is no file of allowed signers.", where=str(allowed_signers), remedy="Add the approvers' public keys."
        )
    text = signed.signature
    if len(text) > SIGNATURE_LIMIT or not text.isascii() or not text.startswith(_BEGIN) or not text.endswith(_END):
        raise VerificationError("The decision's signature is not an armored SSH signature.")
    principal = signed.decision.principal
    with tempfile.TemporaryDirectory(prefix="sekisho-decision-") as folder:
        file = Path(folder) / "signature"
        file.write_text(text, encoding="ascii")
        common = ["-s", str(file), "-f", str(allowed_signers.absolute())]
        found = _ssh_keygen(["find-principals", *common], b"", seconds=_VERIFY_SECONDS)
        owners = found.stdout.decode("utf-8", "replace").splitlines()
        if found.returncode != 0 or not owners:
            raise VerificationError(
                f"The decision's key is nobody's who may decide here: {_said(found)}", where=str(allowed_signers)
            )
        if owners != [principal]:
            raise VerificationError(
                f"The decision says {principal!r:.100}, its key belongs to {', '.join(owners)!r:.200}.",
                where=str(allowed_signers),
                remedy="In the file of allowed signers, each key stands once, with one name and no wildcard.",
            )
        arguments = ["verify", "-n", NAMESPACE, "-I", principal, *common]
        if revoked is not None:
            arguments += ["-r", str(revoked.absolute())]
        result = _ssh_keygen(arguments, signed.decision.canonical(), seconds=_VERIFY_SECONDS)
    if result.returncode != 0:
        raise VerificationError(f"The decision's signature does not hold: {_said(result)}", where=principal)
    return principal


def _ssh_keygen(arguments: list[str], data: bytes, *, seconds: float) -> subprocess.CompletedProcess[bytes]:
    program = shutil.which("ssh-keygen")
    if program is None:
        raise PermanentError("ssh-keygen is not on PATH.", remedy="Install openssh-client.")
    environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ} | {"LC_ALL": "C"}
    try:
        return subprocess.run(
            [program, "-Y", *arguments],
            input=data,
            capture_output=True,
            timeout=seconds,
            check=False,
            env=environment,
        )
    except subprocess.TimeoutExpired as error:
        raise PermanentError(f"ssh-keygen did not answer in {seconds:.0f} s.") from error


def _said(result: subprocess.CompletedProcess[bytes]) -> str:
    text = (result.stderr or result.stdout).decode("utf-8", "replace").strip()
    return " ".join("".join(letter for letter in text if letter.isprintable() or letter.isspace()).split())[:300]
