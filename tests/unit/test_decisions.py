"""Decisions, signed and checked with the real ssh-keygen."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from sekisho.canonical import digest_of
from sekisho.decisions import sign_decision, verify_decision
from sekisho.errors import PermanentError, UsageError, VerificationError
from sekisho.model import Decision, SignedDecision

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not on PATH")

ALICE, BOB = "alice@example.org", "bob@example.org"
DECISION = Decision(
    kind="approve",
    zone="production",
    app="guestbook",
    subject=digest_of(b"plan"),
    reason="Ö, it is Tuesday",
    principal=ALICE,
    issued_at=1_790_000_000,
    nonce="0" * 32,
)


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ssh")
    for name in ("alice", "bob", "carol"):
        make_key(folder / name)
    make_key(folder / "locked", "a passphrase")
    return folder


def make_key(path, passphrase=""):
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", path.name, "-f", path]
    subprocess.run(command, check=True)


def public(keys, name):
    return " ".join((keys / f"{name}.pub").read_text().split()[:2])


@pytest.fixture
def allowed(keys, tmp_path):
    """Write a file of allowed signers; `options` go to Alice's entry."""

    def write(options="", alice=ALICE):
        path = tmp_path / "allowed_signers"
        path.write_text(f"{alice} {options} {public(keys, 'alice')}\n{BOB} {public(keys, 'bob')}\n")
        return path

    return write


@pytest.fixture(scope="module")
def signed(keys):
    return sign_decision(DECISION, keys / "alice")


def test_a_signed_decision_counts(signed, allowed):
    assert verify_decision(signed, allowed()) == ALICE
    assert SignedDecision.parse(signed.canonical()) == signed


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "reject"},
        {"zone": "staging"},
        {"app": "other"},
        {"subject": digest_of(b"other plan")},
        {"reason": "x"},
        {"issued_at": 1_790_000_001},
        {"nonce": "1" * 32},
    ],
)
def test_every_field_is_signed(signed, allowed, change):
    decision = DECISION.model_copy(update=change)

    with pytest.raises(VerificationError, match="does not hold"):
        verify_decision(SignedDecision(decision=decision, signature=signed.signature), allowed())


def test_nobody_decides_in_anothers_name(keys, allowed):
    with pytest.raises(VerificationError, match=r"its key belongs to 'bob@example\.org'"):
        verify_decision(sign_decision(DECISION, keys / "bob"), allowed())


def test_a_key_that_nobody_allowed_decides_nothing(keys, allowed):
    with pytest.raises(VerificationError, match="nobody's"):
        verify_decision(sign_decision(DECISION, keys / "carol"), allowed())


@pytest.mark.parametrize(
    "options", ['valid-before="20200101"', 'valid-after="20990101"', 'namespaces="git"', "cert-authority"]
)
def test_a_key_counts_in_its_time_and_use_only(signed, allowed, options):
    with pytest.raises(VerificationError):
        verify_decision(signed, allowed(options))


def test_a_key_counts_within_its_time_and_use(signed, allowed):
    options = 'namespaces="sekisho-decision",valid-after="20200101",valid-before="20990101"'
    assert verify_decision(signed, allowed(options)) == ALICE


@pytest.mark.parametrize("names", [f"{ALICE},{BOB}", "*@example.org", "*", f"{ALICE},!{BOB}"])
def test_a_key_that_names_nobody_in_particular_counts_for_nobody(signed, allowed, names):
    with pytest.raises(VerificationError, match="its key belongs to"):
        verify_decision(signed, allowed(alice=names))


def test_a_revoked_key_decides_nothing(signed, allowed, keys):
    with pytest.raises(VerificationError, match="does not hold"):
        verify_decision(signed, allowed(), revoked=keys / "alice.pub")
    assert verify_decision(signed, allowed(), revoked=keys / "bob.pub") == ALICE


def test_a_signature_for_another_use_does_not_count(keys, allowed):
    command = ["ssh-keygen", "-Y", "sign", "-n", "git", "-f", keys / "alice"]
    text = subprocess.run(command, input=DECISION.canonical(), capture_output=True, check=True).stdout.decode()

    with pytest.raises(VerificationError):
        verify_decision(SignedDecision(decision=DECISION, signature=text), allowed())


@pytest.mark.parametrize("text", ["", "x", "-----BEGIN SSH SIGNATURE-----\n", "é", "A" * 20_000, "/etc/passwd"])
def test_what_is_no_signature(allowed, text):
    with pytest.raises(VerificationError, match="not an armored"):
        verify_decision(SignedDecision(decision=DECISION, signature=text), allowed())


def test_a_damaged_signature(signed, allowed):
    lines = signed.signature.splitlines(keepends=True)
    for position in range(1, len(lines) - 1):
        damaged = [*lines]
        damaged[position] = damaged[position].swapcase()
        with pytest.raises(VerificationError):
            verify_decision(SignedDecision(decision=DECISION, signature="".join(damaged)), allowed())


@pytest.mark.parametrize("principal", ["", "-h", "--", "*", "a b", "$(id)", "alice@example.org\n", "ALICE@example.org"])
def test_strange_principals_are_nobody(keys, allowed, principal):
    decision = DECISION.model_copy(update={"principal": principal})
    with pytest.raises(VerificationError):
        verify_decision(sign_decision(decision, keys / "alice"), allowed())


def test_a_missing_file_of_allowed_signers_is_an_error_of_its_own(signed, tmp_path):
    with pytest.raises(PermanentError, match="no file of allowed signers"):
        verify_decision(signed, tmp_path / "none")
    (tmp_path / "empty").write_text("")
    with pytest.raises(VerificationError):
        verify_decision(signed, tmp_path / "empty")


def test_keys_that_cannot_sign_say_why(keys, tmp_path, monkeypatch):
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.setenv("SSH_ASKPASS_REQUIRE", "force")
    monkeypatch.setenv("SSH_ASKPASS", "/bin/false")
    (tmp_path / "text").write_text("not a key")
    (tmp_path / "text").chmod(0o600)

    with pytest.raises(UsageError, match="no such SSH key"):
        sign_decision(DECISION, tmp_path / "none")
    with pytest.raises(UsageError, match="did not sign"):
        sign_decision(DECISION, tmp_path / "text")
    with pytest.raises(UsageError, match="did not sign"):
        sign_decision(DECISION, keys / "locked")


def test_a_key_in_an_agent_signs(keys, allowed, tmp_path, monkeypatch):
    if shutil.which("ssh-agent") is None:
        pytest.skip("ssh-agent is not on PATH")
    socket = tmp_path / "agent"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.DEVNULL)
    try:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
        for _ in range(100):
            if subprocess.run(["ssh-add", "-q", keys / "alice"], check=False, capture_output=True).returncode == 0:
                break
        shutil.copy(keys / "alice.pub", tmp_path / "only.pub")
        assert verify_decision(sign_decision(DECISION, tmp_path / "only.pub"), allowed()) == ALICE
    finally:
        agent.terminate()
        agent.wait(timeout=5)


def test_without_ssh_keygen(signed, allowed, monkeypatch):
    path = allowed()
    monkeypatch.setenv("PATH", os.devnull)
    with pytest.raises(PermanentError, match="ssh-keygen is not on PATH"):
        verify_decision(signed, path)
