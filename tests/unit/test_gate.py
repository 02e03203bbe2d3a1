import subprocess
from itertools import product
from pathlib import Path

import pytest

from sekisho.decisions import sign_decision, verify_decision
from sekisho.errors import PermanentError, VerificationError
from sekisho.model import Decision, Plan, SignedDecision
from sekisho.profile import GateSpec
from stages.gate import evaluate, principals

D = "sha256:" + "a" * 64
NOW = 1_800_000_000
PLAN = Plan(
    app="shop", zone="production", release=D, summary=D, commit="c", image="i", namespace="app-shop", objects=()
)
ONE, TWO = GateSpec(mode="approval", approvals=1), GateSpec(mode="approval", approvals=2)


def decision(principal="anna", kind="approve", nonce=None, **changes):
    fields = {"zone": "production", "app": "shop", "subject": PLAN.identity(), "reason": "", "issued_at": NOW}
    made = Decision(
        kind=kind,
        principal=principal,
        nonce=nonce or f"{abs(hash((principal, kind, str(changes)))):032x}"[:32],
        **{**fields, **changes},
    )
    return SignedDecision(decision=made, signature=f"signed by {principal}")


def trusting(signed, _):
    """Stands for a check that found the key of whoever the signature names."""
    principal = signed.signature.removeprefix("signed by ")
    if principal not in {"anna", "ben", "carl"}:
        raise VerificationError("The decision's key is nobody's who may decide here.")
    return principal


@pytest.fixture
def signers(tmp_path):
    path = tmp_path / "allowed_signers"
    path.write_text("# approvers\nanna ssh-ed25519 AAAA\nben,carl ssh-ed25519 BBBB\n\n")
    return path


def state(gate, decisions, signers, verify=trusting, **options):
    return evaluate(PLAN, gate, decisions, signers, verify=verify, now=NOW, **options)


def test_automatic_is_open(signers):
    assert state(GateSpec(mode="automatic"), [], signers).open is True


def test_nobody_yet_says_who_opens(signers):
    found = state(TWO, [], signers)
    assert (found.open, found.who, found.decisions) == (False, ("anna", "ben", "carl"), ())
    assert found.why == "0 of 2 approvals of this plan, by nobody."


def test_enough_different_people_open(signers):
    first, second = decision("anna"), decision("ben")
    half = state(TWO, [first], signers)
    assert (half.open, half.who) == (False, ("ben", "carl"))
    whole = state(TWO, [first, second], signers)
    assert whole.open is True
    assert set(whole.decisions) == {first.decision.identity(), second.decision.identity()}
    assert whole == state(TWO, [second, first], signers)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (decision(subject="sha256:" + "b" * 64), "another plan"),
        (decision(zone="staging"), "for zone staging"),
        (decision(app="other"), "for app other"),
        (decision(kind="rollback"), "about a rollback"),
        (decision(issued_at=NOW + 301), "in the future"),
        (decision("mallory"), "nobody's who may decide"),
        (decision("anna").model_copy(update={"signature": "signed by ben"}), "the key is ben's"),
        (decision("anna").model_copy(update={"signature": ""}), "nobody's"),
    ],
)
def test_what_does_not_count_is_named_and_opens_nothing(signers, bad, why):
    found = state(ONE, [bad], signers)
    assert found.open is False
    assert found.decisions == ()
    assert "Not counted" in found.why
    assert why in found.why


def test_the_same_person_twice_counts_once(signers):
    found = state(TWO, [decision("anna"), decision("anna", reason="again")], signers)
    assert found.open is False
    assert "approved already" in found.why
    assert len(found.decisions) == 1


def test_the_same_decision_delivered_twice_is_one(signers):
    found = state(TWO, [decision("anna"), decision("anna")], signers)
    assert found.open is False
    assert "Not counted" not in found.why


def test_a_used_nonce_does_not_count_again(signers):
    used = decision("anna", nonce="1" * 32)
    assert state(ONE, [used], signers, spent={"1" * 32}).open is False
    both = state(TWO, [used, decision("ben", nonce="1" * 32)], signers)
    assert both.open is False
    assert "nonce" in both.why


def test_a_forged_copy_does_not_shut_out_the_true_one(signers):
    true = decision("anna", nonce="1" * 32)
    forged = true.model_copy(update={"signature": "forged"})
    stolen_nonce = decision("mallory", nonce="1" * 32, issued_at=NOW - 10)
    assert state(ONE, [forged, stolen_nonce, true], signers).open is True


@pytest.mark.parametrize("order", [0, 1])
def test_one_valid_rejection_closes_whatever_else_was_said(signers, order):
    said = [
        decision("anna"),
        decision("ben"),
        decision("carl", kind="reject", reason="not today", issued_at=NOW - order),
    ]
    found = state(TWO, said, signers)
    assert found.open is False
    assert found.why == "Rejected by carl: not today."
    assert found.decisions == (said[2].decision.identity(),)
    assert state(TWO, [decision("anna"), decision("ben"), decision("mallory", kind="reject")], signers).open is True
    assert state(ONE, [decision("anna"), decision("anna", kind="reject")], signers).open is False


def test_a_fault_of_the_verifier_opens_nothing(signers):
    def broken(*_):
        raise PermanentError("ssh-keygen is missing")

    assert state(ONE, [decision()], signers, verify=broken).open is False

    def crash(*_):
        raise RuntimeError

    with pytest.raises(RuntimeError):
        state(ONE, [decision()], signers, verify=crash)


def test_a_flood_is_cut_off_and_hostile_names_are_cleaned(signers):
    calls = []

    def counting(signed, path):
        calls.append(1)
        return trusting(signed, path)

    flood = [decision("mallory\x1b[2J" + "x" * 500, nonce=f"{number:032x}") for number in range(300)]
    found = state(ONE, flood, signers, verify=counting)
    assert found.open is False
    assert len(calls) == 200
    assert "\x1b" not in found.why
    assert len(found.why) < 4000


def test_the_whole_table(signers):
    """Every combination of what three people can say: open if and only if enough approve and nobody rejects."""
    for words in product((None, "approve", "reject"), repeat=3):
        said = [decision(name, kind=word) for name, word in zip(("anna", "ben", "carl"), words, strict=True) if word]
        for needed in (1, 2, 3):
            found = state(GateSpec(mode="approval", approvals=needed), said, signers)
            assert found.open is (words.count("approve") >= needed and "reject" not in words)


def test_principals_of_a_file(tmp_path, signers):
    assert principals(signers) == ("anna", "ben", "carl")
    assert principals(tmp_path / "missing") == ()
    (tmp_path / "quoted").write_text('"dora",anna namespaces="sekisho-decision" ssh-ed25519 A\n')
    assert principals(tmp_path / "quoted") == ("dora", "anna")


def test_with_real_keys(tmp_path):
    """What ssh-keygen signs opens the gate; the same signature under another decision does not."""
    lines = []
    for name in ("anna", "ben"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(tmp_path / name)], check=True
        )
        lines.append(f"{name} {(tmp_path / f'{name}.pub').read_text()}")
    signers = tmp_path / "allowed_signers"
    signers.write_text("".join(lines))
    anna = sign_decision(decision("anna").decision, tmp_path / "anna")
    assert state(ONE, [anna], signers, verify=verify_decision).open is True
    transplanted = SignedDecision(decision=decision("anna", reason="other").decision, signature=anna.signature)
    assert state(ONE, [transplanted], signers, verify=verify_decision).open is False
    in_bens_name = sign_decision(decision("ben").decision, tmp_path / "anna")
    assert state(ONE, [in_bens_name], signers, verify=verify_decision).open is False
    assert Path(signers).exists()
