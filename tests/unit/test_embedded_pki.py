import ssl
import stat
from pathlib import Path

import pytest
from cryptography.x509 import ExtendedKeyUsage

from sekisho.embedded.pki import Authority, Leaf, ensure_signing_key, load_certificate
from sekisho.errors import PermanentError

SERVER = Leaf("server", "kube-apiserver", hosts=("127.0.0.1", "kubernetes.default"))
CLIENT = Leaf("client", "system:node:n", ("system:nodes",))


def test_a_leaf_is_signed_by_its_authority_and_private(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.ensure("zone", (SERVER, CLIENT))
    certificate = load_certificate(authority.path("client")[0])
    certificate.verify_directly_issued_by(load_certificate(authority.certificate))
    assert certificate.subject.rfc4514_string() == "CN=system:node:n,O=system:nodes"
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob("*.key")}
    assert modes == {"ca.key": 0o600, "server.key": 0o600, "client.key": 0o600}


def test_a_client_certificate_cannot_serve(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.ensure("zone", (CLIENT,))
    certificate = load_certificate(authority.path("client")[0])
    uses = certificate.extensions.get_extension_for_class(ExtendedKeyUsage).value
    assert [use.dotted_string for use in uses] == ["1.3.6.1.5.5.7.3.2"]


def test_ensure_again_changes_nothing(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.ensure("zone", (SERVER, CLIENT))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    authority.ensure("zone", (SERVER, CLIENT))
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_leaf_with_other_hosts_is_issued_again_and_the_rest_stays(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.ensure("zone", (SERVER, CLIENT))
    client, server = (authority.path(name)[0].read_bytes() for name in ("client", "server"))
    authority.ensure("zone", (Leaf("server", "kube-apiserver", hosts=("10.99.0.1",)), CLIENT))
    assert authority.path("client")[0].read_bytes() == client
    assert authority.path("server")[0].read_bytes() != server


def test_a_leaf_whose_key_was_lost_is_issued_again(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.ensure("zone", (SERVER,))
    authority.path("server")[1].unlink()
    authority.ensure("zone", (SERVER,))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.path("server"))


def test_a_broken_authority_is_said(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.ensure("zone", ())
    authority.certificate.write_text("not PEM", encoding="ascii")
    with pytest.raises(PermanentError, match="not a PEM certificate"):
        authority.ensure("zone", ())


def test_service_account_keys_are_made_once(tmp_path: Path) -> None:
    path = tmp_path / "accounts.key"
    ensure_signing_key(path)
    before = path.read_bytes()
    ensure_signing_key(path)
    assert path.read_bytes() == before
    assert path.with_suffix(".pub").read_text(encoding="ascii").startswith("-----BEGIN PUBLIC KEY-----")
