"""A certificate authority for each zone, and the certificates of its components (EC P-256, X.509 v3)."""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sekisho.errors import PermanentError

_CA_DAYS = 3650
_LEAF_DAYS = 365
_RENEW_DAYS = 30
_BACKDATE = dt.timedelta(minutes=5)
"""Clocks of one machine agree, but a suspended virtual machine may jump back."""


@dataclass(frozen=True)
class Leaf:
    """One certificate that a component needs.

    Attributes:
        name: file name without ending.
        user: subject common name; Kubernetes takes it as the user.
        groups: subject organizations; Kubernetes takes them as groups.
        hosts: DNS names and IP addresses the certificate serves; a client needs none.
    """

    name: str
    user: str
    groups: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Authority:
    """A certificate authority in a folder: ca.crt and ca.key."""

    folder: Path

    @property
    def certificate(self) -> Path:
        """The authority's certificate (PEM)."""
        return self.folder / "ca.crt"

    def path(self, leaf: str) -> tuple[Path, Path]:
        """Return the certificate and the key file of a leaf."""
        return self.folder / f"{leaf}.crt", self.folder / f"{leaf}.key"

    def ensure(self, common_name: str, leaves: tuple[Leaf, ...]) -> None:
        """Make the authority and its leaves, or renew what is missing, near its end or differs.

        Raises:
            PermanentError: a file is there but cannot be read as what it should be.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        certificate, key = self._authority(common_name)
        for leaf in leaves:
            if not self._serves(leaf, certificate):
                self._issue(leaf, certificate, key)

    def _authority(self, common_name: str) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        key_path = self.folder / "ca.key"
        if self.certificate.exists() and key_path.exists():
            certificate = load_certificate(self.certificate)
            if certificate.not_valid_after_utc - _now() > dt.timedelta(days=_RENEW_DAYS):
                return certificate, _load_key(key_path)
        certificate, key = _new_authority(common_name)
        # The certificate last: its presence says that the pair is complete.
        write_private(key_path, _pem(key))
        write_private(self.certificate, certificate.public_bytes(serialization.Encoding.PEM), mode=0o644)
        return certificate, key

    def _serves(self, leaf: Leaf, authority: x509.Certificate) -> bool:
        certificate_path, key_path = self.path(leaf.name)
        if not (certificate_path.exists() and key_path.exists()):
            return False
        certificate = load_certificate(certificate_path)
        try:
            certificate.verify_directly_issued_by(authority)
        except Exception:  # noqa: BLE001 -- whatever is wrong with it, it is issued again
            return False
        return (
            certificate.not_valid_after_utc - _now() > dt.timedelta(days=_RENEW_DAYS)
            and certificate.subject == _subject(leaf)
            and _hosts(certificate) == set(leaf.hosts)
        )

    def _issue(self, leaf: Leaf, authority: x509.Certificate, authority_key: ec.EllipticCurvePrivateKey) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        uses = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if leaf.hosts:
            uses.append(ExtendedKeyUsageOID.SERVER_AUTH)
        builder = (
            _builder(_subject(leaf), authority.subject, key.public_key(), _LEAF_DAYS)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(ca=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False
            )
        )
        if leaf.hosts:
            builder = builder.add_extension(x509.SubjectAlternativeName([_host(h) for h in leaf.hosts]), critical=False)
        certificate = builder.sign(authority_key, hashes.SHA256())
        certificate_path, key_path = self.path(leaf.name)
        certificate_path.unlink(missing_ok=True)
        write_private(key_path, _pem(key))
        write_private(certificate_path, certificate.public_bytes(serialization.Encoding.PEM), mode=0o644)


def nobody() -> str:
    """Return the certificate (PEM) of an authority whose key nobody has: who trusts it alone trusts no server."""
    certificate, _ = _new_authority("nobody")
    return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")


def ensure_signing_key(path: Path) -> None:
    """Make an EC key pair for service account tokens: `path` is private, `path` with .pub beside it public."""
    public = path.with_suffix(".pub")
    if path.exists() and public.exists():
        return
    key = ec.generate_private_key(ec.SECP256R1())
    write_private(path, _pem(key))
    write_private(
        public,
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
        mode=0o644,
    )


def _new_authority(common_name: str) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    certificate = (
        _builder(name, name, key.public_key(), _CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(ca=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate, key


def load_certificate(path: Path) -> x509.Certificate:
    """Read a PEM certificate.

    Raises:
        PermanentError: not a certificate.
    """
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except ValueError as error:
        raise PermanentError(
            "This is not a PEM certificate.", where=str(path), remedy="Remove the file; `sekisho up` makes it again."
        ) from error


def write_private(path: Path, data: bytes, *, mode: int = 0o600, owner: tuple[int, int] | None = None) -> None:
    """Write a file whole or not at all, with its mode and owner from the first moment."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        if owner is not None:
            os.fchown(file.fileno(), *owner)
        os.fchmod(file.fileno(), mode)
    temporary.replace(path)


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except ValueError as error:
        raise PermanentError(
            "This is not a PEM private key.",
            where=str(path),
            remedy="End the zone and purge it: its authority is lost.",
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise PermanentError("The authority's key is not an elliptic curve key.", where=str(path))
    return key


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_now() - _BACKDATE)
        .not_valid_after(_now() + dt.timedelta(days=days))
    )


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _subject(leaf: Leaf) -> x509.Name:
    groups = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in leaf.groups]
    return x509.Name([*groups, x509.NameAttribute(NameOID.COMMON_NAME, leaf.user)])


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _hosts(certificate: x509.Certificate) -> set[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {str(name.value) for name in names}


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
