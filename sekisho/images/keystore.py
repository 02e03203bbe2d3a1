"""Java's file of trusted certificates, always the same bytes.

The packages' script writes one with the time of day in it. Ours is written here: certificates sorted, one fixed time.
Format: JKS, version 2 (OpenJDK, sun.security.provider.JavaKeyStore), which Java reads whatever its default is.
"""

from __future__ import annotations

import base64
import hashlib
import re
import struct
from pathlib import Path

_MAGIC, _VERSION, _TRUSTED = 0xFEEDFEED, 2, 2
_PASSWORD = "changeit"  # noqa: S105 - Java's well-known one: the file holds nothing secret
_SALT = b"Mighty Aphrodite"
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----")


def java_keystore(bundle: str, *, epoch: int) -> bytes:
    """Return a keystore that trusts the certificates of a PEM bundle.

    Args:
        bundle: PEM certificates, one after the other.
        epoch: the time that each entry gets, seconds since the epoch.
    """
    certificates = sorted({base64.b64decode(body) for body in _PEM.findall(bundle)})
    body = struct.pack(">III", _MAGIC, _VERSION, len(certificates))
    for certificate in certificates:
        alias = f"debian:{hashlib.sha256(certificate).hexdigest()[:16]}"
        body += struct.pack(">I", _TRUSTED) + _text(alias) + struct.pack(">Q", epoch * 1000) + _text("X.509")
        body += struct.pack(">I", len(certificate)) + certificate
    seal = hashlib.sha1(_PASSWORD.encode("utf-16-be") + _SALT + body, usedforsecurity=False)
    return body + seal.digest()


def rewrite_keystore(root: Path, *, epoch: int) -> None:
    """Write the keystore of a root file system anew, where it has one."""
    keystore, bundle = root / "etc/ssl/certs/java/cacerts", root / "etc/ssl/certs/ca-certificates.crt"
    if keystore.is_file():
        keystore.write_bytes(java_keystore(bundle.read_text(encoding="ascii", errors="ignore"), epoch=epoch))
        keystore.chmod(0o644)


def _text(value: str) -> bytes:
    return struct.pack(">H", len(value)) + value.encode("ascii")
