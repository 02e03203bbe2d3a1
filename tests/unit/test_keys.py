"""Keys and the trust root."""

from __future__ import annotations

import hashlib
import os

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from sekisho.errors import PermanentError, Refusal
from sekisho.keys import FileSigner, TrustedKey, TrustRoot, load_trust, trusted_key


@pytest.fixture
def signer(tmp_path):
    return FileSigner.create(tmp_path / "builder.pem", "builder")


def test_a_key_file_is_for_its_owner_only(signer, tmp_path):
    path = tmp_path / "builder.pem"

    assert path.stat().st_mode & 0o777 == 0o600
    assert FileSigner.load(path, "builder").key_id == signer.key_id
    for mode in (0o640, 0o604, 0o620, 0o601):
        path.chmod(mode)
        with pytest.raises(PermanentError, match="others than its owner"):
            FileSigner.load(path, "builder")


def test_the_mode_does_not_hang_on_the_umask(tmp_path):
    before = os.umask(0)
    try:
        FileSigner.create(tmp_path / "key.pem", "zone")
    finally:
        os.umask(before)
    assert (tmp_path / "key.pem").stat().st_mode & 0o777 == 0o600


def test_a_key_is_never_overwritten(signer, tmp_path):
    with pytest.raises(PermanentError, match="cannot be made"):
        FileSigner.create(tmp_path / "builder.pem", "builder")
    assert FileSigner.load(tmp_path / "builder.pem", "builder").key_id == signer.key_id
    (tmp_path / "link.pem").symlink_to(tmp_path / "elsewhere.pem")
    with pytest.raises(PermanentError):
        FileSigner.create(tmp_path / "link.pem", "builder")
    assert not (tmp_path / "elsewhere.pem").exists()


def test_the_key_id_is_the_hash_of_the_public_key(signer):
    der = serialization.load_pem_public_key(signer.public_key.encode()).public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert signer.key_id == hashlib.sha256(der).hexdigest()


def test_signatures_are_asn1_ecdsa_sha256_and_repeat(signer):
    public = serialization.load_pem_public_key(signer.public_key.encode())
    signature = signer.sign(b"data")

    public.verify(signature, b"data", ec.ECDSA(hashes.SHA256()))
    assert signer.sign(b"data") == signature
    assert trusted_key(signer).verifies(signature, b"data")
    assert not trusted_key(signer).verifies(signature, b"date")
    assert not trusted_key(signer).verifies(b"", b"data")


def test_the_private_key_shows_in_no_text(signer, tmp_path):
    secret = (tmp_path / "builder.pem").read_text().splitlines()[1]

    assert secret not in repr(signer)
    (tmp_path / "broken.pem").write_text(f"-----BEGIN PRIVATE KEY-----\n{secret}\n")
    (tmp_path / "broken.pem").chmod(0o600)
    with pytest.raises(PermanentError) as caught:
        FileSigner.load(tmp_path / "broken.pem", "builder")
    assert secret not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("kind", ["ed25519", "p384", "encrypted", "text", "nothing"])
def test_other_keys_are_refused(kind, tmp_path):
    path = tmp_path / "key.pem"
    key = {"ed25519": ed25519.Ed25519PrivateKey.generate(), "p384": ec.generate_private_key(ec.SECP384R1())}.get(
        kind, ec.generate_private_key(ec.SECP256R1())
    )
    lock = serialization.BestAvailableEncryption(b"x") if kind == "encrypted" else serialization.NoEncryption()
    if kind != "nothing":
        data = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, lock)
        path.write_bytes(b"hello" if kind == "text" else data)
        path.chmod(0o600)
    with pytest.raises(PermanentError):
        FileSigner.load(path, "builder")


def test_a_trust_root_goes_there_and_back(signer, tmp_path):
    root = TrustRoot(keys=(trusted_key(signer, not_before=5, not_after=7),))
    (tmp_path / "root.json").write_bytes(root.canonical())

    assert load_trust(tmp_path / "root.json") == root
    assert root.for_role("builder") == root.keys
    assert root.for_role("scanner") == ()
    assert [root.keys[0].valid_at(at) for at in (4, 5, 7, 8)] == [False, True, True, False]


def test_an_empty_trust_root_is_refused(tmp_path):
    (tmp_path / "root.json").write_text('{"keys": []}')

    with pytest.raises(Refusal, match="holds no key"):
        load_trust(tmp_path / "root.json")
    with pytest.raises(Refusal, match="cannot be read"):
        load_trust(tmp_path / "none.json")


def test_one_key_has_one_role(signer, tmp_path):
    other_role = FileSigner.load(tmp_path / "builder.pem", "verifier")

    with pytest.raises(ValueError, match="stands twice"):
        TrustRoot(keys=(trusted_key(signer), trusted_key(other_role)))


def test_zone_keys_are_of_one_zone(tmp_path):
    signer = FileSigner.create(tmp_path / "zone.pem", "zone")
    root = TrustRoot(keys=(trusted_key(signer, zone="staging"),))

    assert root.for_role("zone", "staging") == root.keys
    assert root.for_role("zone", "production") == root.for_role("zone") == ()
    with pytest.raises(ValueError, match="names its zone"):
        trusted_key(signer)


def test_a_key_id_of_another_key_is_refused(signer):
    entry = trusted_key(signer).model_dump()

    with pytest.raises(ValueError, match="not the sha256"):
        TrustedKey(**entry | {"key_id": "0" * 64})
    with pytest.raises(ValueError, match="not a public key"):
        TrustedKey(**entry | {"public_key": "none"})
    with pytest.raises(ValueError, match="names its zone"):
        TrustedKey(**entry | {"zone": "staging"})
