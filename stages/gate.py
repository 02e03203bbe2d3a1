"""gate: whether a plan may be applied. Pure, but for the check of each signature.

Rules:
    1. `automatic` is open.
    2. `approval` needs as many different people as the profile says, who each approve exactly this plan (by digest),
       of this app, in this zone, with their own key.
    3. One valid rejection closes the gate, whatever was approved before or after.
    4. What does not count is named with the reason: another plan, app or zone; a key that is not the person's; a date
       in the future; the same person again; a nonce that was used before.
    5. A fault in checking a signature never opens the gate.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from sekisho.errors import SekishoError
from sekisho.model import GateState, Plan, SignedDecision
from sekisho.profile import GateSpec

Verifier = Callable[[SignedDecision, Path], str]
"""Returns the principal whose key signed the decision, or raises."""

CLOCK_SKEW_SECONDS = 300
_LIMIT = 200
"""Decisions whose signatures are checked: each costs two short processes, and the mailbox is open to strangers."""
_SHOWN = 10


def evaluate(
    plan: Plan,
    gate: GateSpec,
    decisions: Iterable[SignedDecision],
    allowed_signers: Path,
    *,
    verify: Verifier,
    now: int,
    spent: Collection[str] = (),
) -> GateState:
    """Return whether the gate is open, and if not, why and who opens it.

    Args:
        plan: what is to be applied.
        gate: the profile's gate.
        decisions: all that are known; untrusted.
        allowed_signers: the zone's approvers.
        verify: checks a signature.
        now: seconds since the epoch.
        spent: nonces of decisions that counted for earlier plans.
    """
    if gate.mode == "automatic":
        return GateState(open=True, why="The gate of this zone opens by itself.")
    approved: dict[str, str] = {}
    rejected: dict[str, tuple[str, str]] = {}
    ignored: list[str] = []
    nonces = set(spent)
    seen: set[str] = set()
    checked = 0
    ordered = sorted(decisions, key=lambda item: (item.decision.issued_at, item.identity()))
    for signed in ordered:
        decision, identity = signed.decision, signed.decision.identity()
        if identity in seen:
            continue  # the mailbox delivers at least once: the same decision again says nothing new
        why = _mismatch(signed, plan, now) or ("its nonce was used before" if decision.nonce in nonces else "")
        if not why and checked >= _LIMIT:
            why = f"more than {_LIMIT} decisions were sent"
        if not why:
            checked += 1
            why = _forgery(signed, allowed_signers, verify)
        if not why:
            # Only what verified takes the nonce and the place: a forged copy must not shut out the true one.
            seen.add(identity)
            nonces.add(decision.nonce)
            if decision.kind == "reject":
                rejected.setdefault(decision.principal, (identity, decision.reason))
                continue
            if decision.principal not in approved:
                approved[decision.principal] = identity
                continue
            why = "the same person approved already"
        ignored.append(f"{_shown(decision.kind)} by {_shown(decision.principal)}: {why}")
    return _state(gate, approved, rejected, ignored, allowed_signers)


def principals(allowed_signers: Path) -> tuple[str, ...]:
    """Return who may decide, from an allowed_signers file (ssh-keygen(1)); empty when it cannot be read."""
    try:
        lines = allowed_signers.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return ()
    fields = [line.split(maxsplit=1)[0] for line in lines if line.strip() and not line.lstrip().startswith("#")]
    return tuple(dict.fromkeys(name.strip('"') for field in fields for name in field.split(",") if name.strip('"')))


def _mismatch(signed: SignedDecision, plan: Plan, now: int) -> str:
    decision = signed.decision
    if decision.kind == "rollback":
        return "it is about a rollback"
    if decision.zone != plan.zone:
        return f"it is for zone {_shown(decision.zone)}"
    if decision.app != plan.app:
        return f"it is for app {_shown(decision.app)}"
    if decision.subject != plan.identity():
        return f"it is for another plan ({decision.subject[:19]})"
    if decision.issued_at > now + CLOCK_SKEW_SECONDS:
        return "it is dated in the future"
    return ""


def _forgery(signed: SignedDecision, allowed_signers: Path, verify: Verifier) -> str:
    try:
        principal = verify(signed, allowed_signers)
    except SekishoError as error:
        return _shown(error.what, 200)
    if principal != signed.decision.principal:
        return f"the key is {_shown(principal)}'s"
    return ""


def _state(
    gate: GateSpec,
    approved: dict[str, str],
    rejected: dict[str, tuple[str, str]],
    ignored: list[str],
    allowed_signers: Path,
) -> GateState:
    aside = ""
    if ignored:
        more = f"; and {len(ignored) - _SHOWN} more" if len(ignored) > _SHOWN else ""
        aside = f" Not counted: {'; '.join(ignored[:_SHOWN])}{more}."
    if rejected:
        listed = "; ".join(f"{_shown(who)}: {_shown(why, 200) or 'no reason'}" for who, (_, why) in rejected.items())
        counted = tuple(identity for identity, _ in rejected.values())
        return GateState(open=False, why=f"Rejected by {listed}.{aside}", decisions=counted)
    counted = tuple(approved.values())
    names = ", ".join(map(_shown, approved)) or "nobody"
    if len(approved) >= gate.approvals:
        return GateState(open=True, why=f"Approved by {names}.{aside}", decisions=counted)
    who = tuple(name for name in principals(allowed_signers) if name not in approved)
    why = f"{len(approved)} of {gate.approvals} approvals of this plan, by {names}."
    if len(who) < gate.approvals - len(approved):
        why += f" The zone's file of approvers names only {len(who)} more."
    return GateState(open=False, why=why + aside, who=who, decisions=counted)


def _shown(text: str, length: int = 80) -> str:
    return "".join(letter for letter in text if letter.isprintable())[:length]
