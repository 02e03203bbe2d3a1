"""Keys: one a role, and the trust root that says whose key counts for what.

Signatures are ECDSA over P-256 with SHA-256, ASN.1 encoded: what `cosign` makes with a key pair. They are
deterministic (RFC 6979) where the crypto library can, so that the same statement signed twice is the same bytes.
A key's id is the sha256 of its SubjectPublicKeyInfo (DER), in hexadecimal.

A key is asked about at a time, and that time is never the one that its statement claims, since whoever holds the key
writes any: it is when this zone first verified the statement (`sekisho.witness`), or now. So:

- `not_before` to `not_after`: the key counts for what is first seen in between. `not_after` retires it; what was seen
  while it counted goes on counting.
- `revoked_from`: what was first seen from then on counts for nothing, whatever it says. 0 takes back everything.
"""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
import os
import stat
from pathlib import Path
from typing import Any, Literal, Protocol

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from sekisho.errors import PermanentError, Refusal, TemporaryError
from sekisho.model import Document

Role = Literal["builder", "scanner", "verifier", "zone"]
"""Who speaks: the builder says how an image was made, the scanner what is in it, the verifier whether a release
passed, a zone what happened there."""

_FILE_LIMIT = 1 << 20
_OTHERS = 0o077


class Signer(Protocol):
    """Signs for one role. Files stand behind it here; a KMS or Vault can."""

    @property
    def role(self) -> Role:
        """The role that the key speaks for."""
        ...

    @property
    def key_id(self) -> str:
        """sha256 of the public key's DER, 64 hexadecimal digits."""
        ...

    @property
    def public_key(self) -> str:
        """The public key, PEM."""
        ...

    def sign(self, data: bytes) -> bytes:
        """Return the ASN.1 ECDSA-SHA256 signature over `data`."""
        ...


class FileSigner:
    """A private key in a file (PEM, PKCS #8, mode 0600)."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, role: Role) -> None:
        self._key = key
        self._algorithm = _algorithm()
        self.role: Role = role
        self.public_key = (
            key.public_key()
            .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
            .decode("ascii")
        )
        self.key_id = key_id_of(key.public_key())

    def __repr__(self) -> str:
        return f"FileSigner(role={self.role!r}, key_id={self.key_id!r})"

    @classmethod
    def create(cls, path: Path, role: Role) -> FileSigner:
        """Make a new key in a new file; the file never exists with wider modes than 0600.

        Raises:
            PermanentError: the file exists already or cannot be written.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        data = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise PermanentError(
                f"The key file cannot be made: {error.strerror}", where=str(path), remedy="A key is never overwritten."
            ) from error
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        return cls(key, role)

    @classmethod
    def load(cls, path: Path, role: Role) -> FileSigner:
        """Read a key file.

        Raises:
            PermanentError: not there, readable by others than its owner, or not a P-256 key in PEM.
        """
        try:
            with path.open("rb") as file:
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
                data = file.read(_FILE_LIMIT)
        except OSError as error:
            raise PermanentError(f"The key file cannot be read: {error.strerror}", where=str(path)) from error
        if mode & _OTHERS:
            raise PermanentError(
                f"The key file has mode {mode:04o}: others than its owner may reach it.",
                where=str(path),
                remedy="chmod 600 it; if others could read it, make a new key.",
            )
        try:
            key = serialization.load_pem_private_key(data, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            # The library's error is not chained: it might quote what it read.
            raise PermanentError("The key file is not an unencrypted key in PEM.", where=str(path)) from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
            raise PermanentError("The key is not an ECDSA P-256 key.", where=str(path))
        return cls(key, role)

    def sign(self, data: bytes) -> bytes:
        """Return the ASN.1 ECDSA-SHA256 signature over `data`."""
        return self._key.sign(data, self._algorithm)


class TrustedKey(Document):
    """One public key and what its word counts for."""

    role: Role
    zone: str = ""
    """The zone whose key it is; with role `zone` only."""
    key_id: str = Field(pattern=r"^[0-9a-f]{64}$")
    public_key: str
    """PEM."""
    not_before: int = 0
    """Seconds since the epoch."""
    not_after: int | None = None
    """Seconds since the epoch; the key counts until and including then. None: no end."""
    revoked_from: int | None = Field(default=None, ge=0)
    """Seconds since the epoch; what was first seen then or later does not count. 0: nothing does. None: not revoked."""
    revoked_because: str = ""
    """For people."""

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what came later and says nothing: trust roots written before keep their identity."""
        value: dict[str, Any] = handler(self)
        if self.revoked_from is None:
            value.pop("revoked_from", None)
        if not self.revoked_because:
            value.pop("revoked_because", None)
        return value

    @model_validator(mode="after")
    def _consistent(self) -> TrustedKey:
        if key_id_of(load_public(self.public_key)) != self.key_id:
            raise ValueError("key_id is not the sha256 of the public key")
        if (self.role == "zone") != bool(self.zone):
            raise ValueError("a key with role zone names its zone, and no other does")
        return self

    def problem_at(self, at: int) -> str:
        """Return why the key does not count for what was first seen at a time (seconds since the epoch), or ''."""
        if self.revoked_from is not None and at >= self.revoked_from:
            since = "from the first day" if self.revoked_from == 0 else f"from {_day(self.revoked_from)}"
            return f"is revoked {since}: {self.revoked_because or 'no reason is given'}"
        if at < self.not_before:
            return f"is not valid at this time: it counts from {_day(self.not_before)}"
        if self.not_after is not None and at > self.not_after:
            return f"is not valid at this time: it was retired on {_day(self.not_after)}"
        return ""

    def valid_at(self, at: int) -> bool:
        """Return whether the key counts for what was first seen at a time (seconds since the epoch)."""
        return not self.problem_at(at)

    def verifies(self, signature: bytes, data: bytes) -> bool:
        """Return whether `signature` is this key's over `data`."""
        try:
            load_public(self.public_key).verify(signature, data, ec.ECDSA(hashes.SHA256()))
        except (InvalidSignature, ValueError):
            return False
        return True


class Trust(Protocol):
    """Where a trust root comes from: the root itself, or a file that is read anew when it changes."""

    def current(self) -> TrustRoot:
        """Return the trust root as it is now."""
        ...


class TrustRoot(Document):
    """Every public key that a zone believes. One key has one role: a key trusted twice would join what is apart."""

    keys: tuple[TrustedKey, ...]

    @model_validator(mode="after")
    def _one_role_a_key(self) -> TrustRoot:
        if len({key.key_id for key in self.keys}) != len(self.keys):
            raise ValueError("a key stands twice; one key has one role and one zone")
        return self

    def current(self) -> TrustRoot:
        """Return this root: it is its own source where none changes."""
        return self

    def for_role(self, role: Role, zone: str = "") -> tuple[TrustedKey, ...]:
        """Return the keys of a role, and of a zone where the role is `zone`."""
        return tuple(key for key in self.keys if key.role == role and key.zone == zone)


def trusted_key(signer: Signer, *, zone: str = "", not_before: int = 0, not_after: int | None = None) -> TrustedKey:
    """Return the trust root's entry for a signer's key."""
    return TrustedKey(
        role=signer.role,
        zone=zone,
        key_id=signer.key_id,
        public_key=signer.public_key,
        not_before=not_before,
        not_after=not_after,
    )


def load_trust(path: Path) -> TrustRoot:
    """Read a trust root (JSON).

    Raises:
        Refusal: not readable, not a trust root, or without any key: an empty root would trust nobody and say nothing.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_FILE_LIMIT)
    except OSError as error:
        raise Refusal(f"The trust root cannot be read: {error.strerror}", where=str(path)) from error
    root = TrustRoot.parse(data, where=str(path))
    if not root.keys:
        raise Refusal("The trust root holds no key.", where=str(path), remedy="Add the public key of each role.")
    return root


class TrustFile:
    """A trust root in a file that people may change while a process runs: a revoked key must not wait for a restart.

    Args:
        path: the file; read at once.

    Raises:
        Refusal: not a trust root, as for `load_trust`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mark = _mark(path)
        self._root = load_trust(path)

    def current(self) -> TrustRoot:
        """Return the trust root, read anew when the file changed.

        Raises:
            TemporaryError: the file is not a trust root just now. What it said before is not believed any longer.
        """
        try:
            mark = _mark(self._path)
            if mark != self._mark:
                self._root, self._mark = load_trust(self._path), mark
        except Refusal as error:
            raise TemporaryError(
                error.what, where=error.where, remedy=error.remedy or "Mend the file; the zone goes on by itself."
            ) from error
        return self._root


def _mark(path: Path) -> tuple[int, int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise Refusal(f"The trust root cannot be read: {error.strerror}", where=str(path)) from error
    return status.st_ino, status.st_mtime_ns, status.st_size


def key_id_of(key: ec.EllipticCurvePublicKey) -> str:
    """Return a public key's id: the sha256 of its DER, in hexadecimal."""
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


@functools.lru_cache(maxsize=256)
def load_public(pem: str) -> ec.EllipticCurvePublicKey:
    """Return a public key.

    Raises:
        ValueError: it is not an ECDSA P-256 key in PEM.
    """
    try:
        key = serialization.load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError("public_key is not a public key in PEM") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("public_key is not an ECDSA P-256 key")  # noqa: TRY004 - pydantic reports ValueError
    return key


def _day(at: int) -> str:
    try:
        return dt.datetime.fromtimestamp(at, tz=dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return str(at)


def _algorithm() -> ec.ECDSA:
    try:
        return ec.ECDSA(hashes.SHA256(), deterministic_signing=True)
    except UnsupportedAlgorithm:
        return ec.ECDSA(hashes.SHA256())
