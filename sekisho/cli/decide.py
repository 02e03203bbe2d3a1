"""`sekisho approve`, `reject` and `rollback`: decisions signed on the person's own machine."""

from __future__ import annotations

import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sekisho.cli import plans
from sekisho.cli import releases as release_commands
from sekisho.cli.output import can_ask, confirmed, emit_json, note, say
from sekisho.cli.reach import ops
from sekisho.clients import OpsClient
from sekisho.decisions import sign_decision
from sekisho.errors import Refusal, TemporaryError, UsageError
from sekisho.model import Decision
from sekisho.zones import home

_WAITING = ("planned", "held", "opened", "approved", "")
_ENDS = ("healthy", "failed", "refused", "rejected", "decision-ignored")
_PLAN_SECONDS = 120.0
_END_SECONDS = 300.0
_WAIT = 5.0


@dataclass(frozen=True)
class Approver:
    """Who signs, with which key."""

    key: Path | None
    principal: str

    def path(self) -> Path:
        """Return the key: the one given, the console's of this machine, else the person's own."""
        if self.key is not None:
            return self.key
        console = home() / "console" / "approver"
        return console if os.access(console, os.R_OK) else Path.home() / ".ssh" / "id_ed25519"

    def name(self) -> str:
        """Return the principal: the one given, else the comment of the key.

        Raises:
            UsageError: the key has no comment.
        """
        if self.principal:
            return self.principal
        path = self.path()
        public = path if path.suffix == ".pub" else path.with_name(path.name + ".pub")
        try:
            words = public.read_text(encoding="utf-8").split(maxsplit=2)
        except (OSError, UnicodeDecodeError):
            words = []
        if len(words) < 3:  # noqa: PLR2004 -- type, key, comment
            raise UsageError(
                "Whose key this is cannot be told.",
                where=str(path),
                remedy="Give your name in the zone's allowed_signers with --principal, for example alice@example.com.",
            )
        return words[2].strip()


@dataclass(frozen=True)
class Rollback:
    """What is to be gone back to."""

    app: str
    zone: str
    to: str
    reason: str
    wait: bool
    yes: bool


def approve(text: str, approver: Approver, *, yes: bool, as_json: bool) -> None:
    """Approve one plan.

    Raises:
        Refusal: it does not wait, or the person says no.
        VerificationError: ops handed over another plan.
    """
    with ops() as client:
        view = _waiting(client, text)
        if not as_json:
            plans.summary(view)
            say()
        if not confirmed(f"Approve this for {view.plan.zone}, as {approver.name()}?", yes=yes or as_json):
            raise Refusal("Nothing was signed.")
        answer = _decide(client, approver, _of_plan("approve", view))
    _tell(answer, f"Approved {view.digest}. {view.plan.zone.capitalize()} checks the signature and goes on by itself.",
          follow=f"sekisho plan {view.plan.app} --zone {view.plan.zone}", as_json=as_json)  # fmt: skip


def reject(text: str, reason: str, approver: Approver, *, as_json: bool) -> None:
    """Reject one plan.

    Raises:
        Refusal: it does not wait.
        UsageError: no reason.
    """
    if not reason.strip():
        raise UsageError("A rejection needs its reason.", remedy="--reason 'why'")
    with ops() as client:
        view = _waiting(client, text)
        answer = _decide(client, approver, _of_plan("reject", view, reason.strip()))
    _tell(answer, f"Rejected {view.digest}.", follow=f"sekisho releases {view.plan.app}", as_json=as_json)


def rollback(wish: Rollback, approver: Approver, *, as_json: bool) -> int:
    """Ask a zone to go back; with a yes, also approve the plan that it makes. 0 when all that was asked for is done.

    Raises:
        Refusal: there is nothing to go back to, or the person says no.
    """
    with ops() as client:
        target = release_commands.resolve(wish.to) if wish.to else _previous(client, wish.app, wish.zone)
        if not confirmed(f"Take {wish.app} in {wish.zone} back to release {target}?", yes=wish.yes or as_json):
            raise Refusal("Nothing was signed.")
        decision = _Wish("rollback", wish.zone, wish.app, target, wish.reason)
        answer = _decide(client, approver, decision)
        since = int(answer["sequence"])
        result: dict[str, Any] = {**answer, "release": target, "plan": None, "state": "asked"}
        if wish.yes or wish.wait or can_ask():
            result |= _follow(client, wish, approver, target, since, quiet=as_json)
    if as_json:
        emit_json(result)
    else:
        say(f"{wish.app} in {wish.zone}: back to {target}: {result['state']}")
        if result["state"] == "asked":
            say(f"The zone makes a plan for it: sekisho plan {wish.app} --zone {wish.zone}")
    return 0 if result["state"] in {"asked", "approved", "healthy"} else 1


# -- details -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Wish:
    kind: Literal["approve", "reject", "rollback"]
    zone: str
    app: str
    subject: str
    reason: str = ""


def _of_plan(kind: Literal["approve", "reject"], view: plans.PlanView, reason: str = "") -> _Wish:
    return _Wish(kind, view.plan.zone, view.plan.app, view.digest, reason)


def _waiting(client: OpsClient, text: str) -> plans.PlanView:
    view = plans.fetch(client, plans.resolve(client, text))
    if view.state not in _WAITING:
        raise Refusal(
            f"This plan does not wait for a decision: it is {view.state}.",
            where=view.digest,
            remedy=f"See the newest: sekisho plan {view.plan.app} --zone {view.plan.zone}.",
        )
    return view


def _decide(client: OpsClient, approver: Approver, wish: _Wish) -> dict[str, Any]:
    decision = Decision(
        kind=wish.kind,
        zone=wish.zone,
        app=wish.app,
        subject=wish.subject,
        reason=wish.reason,
        principal=approver.name(),
        issued_at=int(time.time()),
        nonce=secrets.token_hex(16),
    )
    answer = client.post_decision(sign_decision(decision, approver.path()))
    return {
        "kind": wish.kind,
        "zone": wish.zone,
        "app": wish.app,
        "subject": wish.subject,
        "principal": decision.principal,
        "decision": answer["digest"],
        "sequence": answer["sequence"],
        "checked": bool(answer.get("checked")),
    }


def _tell(answer: dict[str, Any], text: str, *, follow: str, as_json: bool) -> None:
    if as_json:
        emit_json(answer)
        return
    say(text)
    say(f"Decision {answer['decision']} by {answer['principal']}. See what becomes of it: {follow}")


def _previous(client: OpsClient, app: str, zone: str) -> str:
    for item in client.apps():
        if item.get("app") == app:
            previous = item.get("zones", {}).get(zone, {}).get("previous", "")
            if previous:
                return str(previous)
    raise Refusal(
        f"No earlier release of {app} was healthy in {zone}.",
        where=zone,
        remedy=f"Name one with --to; sekisho releases {app} lists them.",
    )


def _follow(
    client: OpsClient, wish: Rollback, approver: Approver, target: str, since: int, *, quiet: bool
) -> dict[str, Any]:
    """Wait for the zone's plan, approve it, and wait for the end where that was asked for."""
    approved = ""
    deadline = time.monotonic() + _PLAN_SECONDS
    while time.monotonic() < deadline:
        for item in client.receipts(app=wish.app, zone=wish.zone, release=target, after=since, wait=_WAIT):
            since = int(item["sequence"])
            event, message = item["receipt"]["event"], item["receipt"]["message"]
            note(f"  {wish.zone}  {event}  {message}")
            if event in _ENDS:
                return {"state": event, "plan": approved or None, "message": message}
            if event == "held" and not approved and (wish.yes or can_ask()):
                approved = _approve_rollback(client, wish, approver, target, quiet=quiet)
                if not wish.wait:
                    return {"state": "approved" if approved else "held", "plan": approved or None}
                deadline = time.monotonic() + _END_SECONDS
    raise TemporaryError(
        f"{wish.zone.capitalize()} did not come to an end in time.",
        where=f"{wish.app} in {wish.zone}",
        remedy=f"The decision stands: sekisho plan {wish.app} --zone {wish.zone} shows how far it is.",
    )


def _approve_rollback(client: OpsClient, wish: Rollback, approver: Approver, target: str, *, quiet: bool) -> str:
    for item in client.plans(app=wish.app, zone=wish.zone, state="held"):
        view = plans.fetch(client, str(item["digest"]))
        if view.plan.release != target or (view.plan.app, view.plan.zone) != (wish.app, wish.zone):
            continue
        if not quiet:
            plans.summary(view)
        if not confirmed("Approve this plan?", yes=wish.yes):
            raise Refusal("The plan waits unapproved.", where=view.digest, remedy=f"sekisho approve {view.digest}")
        _decide(client, approver, _of_plan("approve", view))
        return view.digest
    return ""
