"""Follow one commit along the line: the build zone's events, then the outer zones' receipts in ops."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from sekisho.clients import FeedClient, OpsClient
from sekisho.errors import Refusal, SekishoError, TemporaryError
from sekisho.zones import Port, Zone, address

_POLL = 0.1
_WAIT = 5.0

_WORDS = {
    "received": "receive", "verified": "verify signatures", "bound": "bind", "hardened": "harden", "planned": "plan",
    "held": "gate", "opened": "gate", "applied": "apply", "healthy": "healthy",
}  # fmt: skip
_ENDS = frozenset({"healthy", "held", "failed", "refused", "rejected"})


@dataclass(frozen=True)
class Step:
    """One line of what people see."""

    zone: str
    stage: str
    state: str
    """running, done, held or failed."""
    message: str
    seconds: float | None = None
    body: dict[str, Any] = field(default_factory=dict)


def build_steps(app: str, commit: str, *, seconds: float = 600.0) -> Iterator[Step]:
    """Yield the build zone's stages as they start and end, until the verdict.

    Raises:
        TemporaryError: no verdict came in time.
    """
    feed = FeedClient(f"http://{address(Zone.BUILD)}:{Port.FEED}")
    told = 0
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            record = feed.commit(app, commit)
        except (TemporaryError, Refusal):
            time.sleep(_POLL)
            continue
        events = record["events"]
        told = told if told <= len(events) else 0
        for event in events[told:]:
            step = _of_event(event)
            if step is not None:
                yield step
            if "verdict" in event:
                return
        told = len(events)
        time.sleep(_POLL)
    raise TemporaryError("The gatekeeper gave no verdict in time.", where=f"{app} {commit[:12]}")


def zone_steps(
    app: str, release: str, zone: str, *, after_held: bool = False, seconds: float = 600.0
) -> Iterator[Step]:
    """Yield a zone's receipts about a release until it is healthy, held or failed there.

    Args:
        app: the workload.
        release: digest of the release.
        zone: the zone.
        after_held: read over the 'held' that stands there already.
        seconds: how long to wait for the end.

    Raises:
        TemporaryError: the end did not come in time.
    """
    ops = OpsClient(f"http://{address(Zone.OPS)}:{Port.OPS}")
    after = 0
    held_plan = ""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            items = ops.receipts(app=app, release=release, zone=zone, after=after, wait=_WAIT)
        except TemporaryError:
            time.sleep(_POLL)
            continue
        for item in items:
            after = max(after, int(item["sequence"]))
            step = _of_receipt(item["receipt"])
            if step is None:
                continue
            yield step
            if step.state == "held":
                held_plan = step.message
            elif step.body.get("event") in _ENDS:
                return
        if held_plan and not after_held and not items:
            return
    raise TemporaryError("The release did not come to its end in time.", where=f"{app} in {zone}")


def _of_event(event: dict[str, Any]) -> Step | None:
    state = {"start": "running", "done": "done", "refused": "failed", "failed": "failed"}.get(event["state"])
    if state is None:
        return None
    message = str(event.get("message", ""))
    if event["stage"] == "verdict":
        message = str(event.get("verdict", {}).get("result", ""))
    return Step("build", event["stage"], state, message, event.get("seconds"), event)


def _of_receipt(receipt: dict[str, Any]) -> Step | None:
    event = receipt["event"]
    body = {**receipt.get("body", {}), "event": event, "at": receipt["at"]}
    if event in {"failed", "refused", "rejected", "rollback-failed", "void"}:
        return Step(receipt["zone"], event, "failed", receipt["message"], None, body)
    stage = _WORDS.get(event)
    if stage is None:
        return None
    return Step(
        receipt["zone"], stage, "held" if event == "held" else "done", receipt["message"], body.get("seconds"), body
    )


def healthy_url(app: str, zone: str) -> str:
    """Return the address that answers for an app in a zone, or ''."""
    ops = OpsClient(f"http://{address(Zone.OPS)}:{Port.OPS}")
    try:
        found = ops.receipts(app=app, zone=zone, event="healthy")
    except SekishoError:
        return ""
    return str(found[-1]["receipt"]["body"].get("url", "")) if found else ""
