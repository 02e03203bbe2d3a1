"""What receipts say, read without a database: plans in them, a release's state, what ran when. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from sekisho.canonical import canonical
from sekisho.errors import Refusal
from sekisho.model import DryRun, GateState, Plan, Receipt

OPEN_STATES = ("planned", "held", "opened", "approved")
"""States of a plan that a newer plan of the same app and zone supersedes."""

RELEASE_EVENTS = (
    "received",
    "verified",
    "refused",
    "bound",
    "hardened",
    "planned",
    "held",
    "opened",
    "approved",
    "rejected",
    "void",
    "applied",
    "healthy",
    "failed",
    "rolled-back",
    "rollback-failed",
    "not-rolled-back",
)
"""Events that change a release's state in a zone; all others (drift, agents, new findings) are only told."""

PLAN_EVENTS = ("planned", "held", "opened", "approved", "rejected", "void", "applied", "healthy", "failed")
"""Events that give the plan they name its state. `rolled-back` is not one: it names the plan that was gone back to."""


@dataclass(frozen=True)
class PlanNews:
    """What one receipt says about a plan."""

    digest: str
    plan: Plan | None
    """The plan itself; None where the receipt only names it."""
    dry_run: str
    gate: str


def plan_news(receipt: Receipt) -> PlanNews | None:
    """Return what a receipt says about a plan; None where it says nothing.

    The body holds `plan` (the Plan, or its digest), and beside it `dry_run` and `gate`; or `deployment` (a Deployment).

    Raises:
        Refusal: a plan, dry run or gate in it is malformed, or the plan is another zone's or app's.
    """
    body = receipt.body
    claimed = body.get("plan")
    if claimed is None and isinstance(body.get("deployment"), dict):
        claimed = body["deployment"].get("plan")
    if claimed is None:
        return None
    gate = _part(body, "gate", GateState)
    if isinstance(claimed, str):
        return PlanNews(claimed, None, _part(body, "dry_run", DryRun), gate)
    plan = Plan.parse(json.dumps(claimed), where="receipt /body/plan")
    try:
        digest = str(plan.identity())
    except (ValueError, RecursionError) as error:
        raise Refusal("The plan has no canonical form.", where="receipt /body/plan") from error
    if (plan.zone, plan.app, plan.release) != (receipt.zone, receipt.app, receipt.release):
        raise Refusal("The plan is not of the zone, app and release that the receipt names.", where=digest)
    dry_run = _part(body, "dry_run", DryRun)
    if dry_run and json.loads(dry_run)["plan"] != digest:
        raise Refusal("The dry run is of another plan.", where=digest)
    return PlanNews(digest, plan, dry_run, gate)


def _part(body: dict[str, object], name: str, kind: type[DryRun | GateState]) -> str:
    if body.get(name) is None:
        return ""
    return canonical(kind.parse(json.dumps(body[name]), where=f"receipt /body/{name}").model_dump(mode="json")).decode()


@dataclass(frozen=True)
class Rollout:
    """What runs in a zone and what ran healthily before it."""

    running: str
    """Digest of the release that runs; empty for none."""
    previous: str
    """Digest of the release to go back to; empty for none."""
    healthy: tuple[str, ...]
    """Every release that was healthy there, newest first, each once."""


def rollout(events: Iterable[tuple[str, str]]) -> Rollout:
    """Read what runs from (event, release) pairs in the ledger's order.

    A release that failed after it was healthy counts as gone: what was healthy before it runs again.
    """
    stack: list[str] = []
    seen: dict[str, None] = {}
    for event, release in events:
        if not release:
            continue
        if event == "healthy":
            seen.pop(release, None)
            seen[release] = None
            if release in stack:  # going back: what came after it is no longer what one goes back to
                del stack[stack.index(release) :]
            stack.append(release)
        elif event in ("failed", "rolled-back") and stack and stack[-1] == release:
            stack.pop()
    running = stack[-1] if stack else ""
    return Rollout(running, stack[-2] if len(stack) > 1 else "", tuple(reversed(seen)))
