"""`sekisho plan`, and reading a plan that ops hands over without believing ops."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from sekisho.cli.output import emit_json, say, table, when
from sekisho.cli.reach import digest_prefix, is_full, only, ops
from sekisho.clients import OpsClient
from sekisho.errors import PermanentError, Refusal, VerificationError
from sekisho.model import DryRun, GateState, Plan

_MAX_LINES = 200


@dataclass(frozen=True)
class PlanView:
    """A plan whose digest was computed here, with what ops says around it."""

    digest: str
    plan: Plan
    dry_run: DryRun | None
    gate: GateState | None
    state: str
    at: int


def fetch(client: OpsClient, digest: str) -> PlanView:
    """Fetch a plan and compute its digest again.

    Raises:
        VerificationError: ops handed over another plan than was asked for.
    """
    answer = client.plan(digest)
    plan = Plan.parse(json.dumps(answer.get("plan")), where="ops")
    if plan.identity() != digest:
        raise VerificationError(
            "Ops handed over another plan than the one that was asked for.",
            where=f"asked {digest}, got {plan.identity()}",
            remedy="Sign nothing. Tell whoever looks after ops.",
        )
    try:
        return PlanView(
            digest=digest,
            plan=plan,
            dry_run=DryRun.model_validate(answer["dry_run"]) if answer.get("dry_run") else None,
            gate=GateState.model_validate(answer["gate"]) if answer.get("gate") else None,
            state=str(answer.get("state", "")),
            at=int(answer.get("at", 0)),
        )
    except (ValidationError, TypeError, ValueError) as error:
        raise PermanentError("The answer about the plan is malformed.", where=client.url) from error


def resolve(client: OpsClient, text: str) -> str:
    """Return the whole digest of a plan."""
    prefix = digest_prefix(text, "plan")
    if is_full(prefix):
        return prefix
    return only([item["digest"] for item in client.plans(prefix=prefix)], prefix, "plan")


def plan(app: str, zone: str, *, as_json: bool) -> None:
    """Show the newest plan of an app in a zone.

    Raises:
        Refusal: the zone has made none.
    """
    with ops() as client:
        found = client.plans(app=app, zone=zone)
        if not found:
            raise Refusal(
                f"There is no plan of {app} for {zone} yet.",
                where=zone,
                remedy=f"See how far its releases have come: sekisho releases {app}.",
            )
        view = fetch(client, str(found[0]["digest"]))
    if as_json:
        emit_json(as_document(view))
    else:
        show(view)


def as_document(view: PlanView) -> dict[str, Any]:
    """Return a plan as the JSON that scripts read."""
    return {
        "digest": view.digest,
        "state": view.state,
        "at": view.at,
        "plan": view.plan.model_dump(mode="json"),
        "dry_run": view.dry_run.model_dump(mode="json") if view.dry_run else None,
        "gate": view.gate.model_dump(mode="json") if view.gate else None,
        "approve": f"sekisho approve {view.digest}",
    }


def show(view: PlanView) -> None:
    """Print a plan for people: what it does, why, who opens the gate, how to approve."""
    summary(view)
    if view.dry_run and view.dry_run.explained:
        say()
        say("Added by the zone:")
        table(
            ("object", "field", "why", "by"),
            [(item.object, item.path, item.why, item.by) for item in view.dry_run.explained[:_MAX_LINES]],
        )
    say()
    if view.gate:
        say(f"Gate: {'open' if view.gate.open else 'closed'}. {view.gate.why}")
        if view.gate.who:
            say(f"Who opens it: {', '.join(view.gate.who)}")
    if view.gate is None or not view.gate.open:
        say(f"Approve exactly this:  sekisho approve {view.digest}")
        say(f"Reject it:             sekisho reject {view.digest} --reason '...'")


def summary(view: PlanView) -> None:
    """Print what a person must know before signing."""
    plan_ = view.plan
    say(f"Plan {view.digest}")
    say(f"  app      {plan_.app} in {plan_.zone}, namespace {plan_.namespace}")
    say(f"  release  {plan_.release}")
    say(f"  commit   {plan_.commit}")
    say(f"  image    {plan_.image}")
    say(f"  state    {view.state}, {when(view.at)} UTC")
    say(f"  before   {plan_.previous or 'nothing: the first deployment'}")
    say()
    changes = {change.object: change for change in view.dry_run.changes} if view.dry_run else {}
    names = [_name(item) for item in plan_.objects]
    rows = [(name, changes[name].action if name in changes else "?", _fields(changes, name)) for name in names]
    rows += [(name, "delete", "") for name in plan_.prune]
    table(("object", "action", "changed fields"), rows[:_MAX_LINES])
    if not view.dry_run:
        say("The zone sent no dry run: what changes is not known here.")


def _fields(changes: dict[str, Any], name: str) -> str:
    fields = changes[name].fields if name in changes else ()
    more = f" and {len(fields) - 3} more" if len(fields) > 3 else ""  # noqa: PLR2004
    return ", ".join(fields[:3]) + more


def _name(item: dict[str, Any]) -> str:
    metadata = item.get("metadata")
    return f"{item.get('kind', '?')}/{metadata.get('name', '?') if isinstance(metadata, dict) else '?'}"
