"""The outer loop: a release becomes a plan, waits at the gate, and is applied, verified, or rolled back.

A plan that waits for people does not keep a run alive: the run ends as 'Held', and the decision starts the next one.
Whatever a run believes, each stage looks at the world first; a run that is killed is followed by another that finds
what was done.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from flows.border import Border, Seen, border
from flows.desk import Deployed, Ended, HeldPlan, Outcome
from flows.glue import alive, in_markdown, leave_artifact, step
from sekisho.errors import PermanentError, Refusal
from sekisho.model import Deployment, DryRun, GateState, Health, Offer, Plan
from sekisho.verdict_text import short

T = TypeVar("T")

REFUSED, UNHEALTHY = "Refused", "Unhealthy"
"""Names of the states in which a run ends that failed for the release's sake; every other failure is a fault."""


def _run_name() -> str:
    parameters = flow_run.parameters
    subject = parameters.get("release") or parameters.get("plan") or ""
    return f"{parameters['app']} {short(subject)} to {border().zone}".replace("  ", " ")


class _Told:
    """Tells the ledger how far a release has come here, with the seconds of each stage's own work."""

    def __init__(self, zone: Border, offer: Offer) -> None:
        self.zone = zone
        self.offer = offer
        self.subject = f"{offer.app} {short(offer.release)}"
        self._began = time.monotonic()
        self._own = 0.0
        self.last_seconds = 0.0
        """Own seconds of the stage that ended last."""

    @property
    def engine_seconds(self) -> float:
        """What the run took beside the stages' own work: Prefect's part, and waiting for this zone's other work."""
        return round(time.monotonic() - self._began - self._own, 3)

    def tell(self, event: str, message: str = "", **body: Any) -> None:
        self.zone.outbox.put(
            self.offer.app, event, release=self.offer.release, commit=self.offer.commit, message=message, **body
        )

    async def stage(self, name: str, event: str, call: Callable[[], T], say: Callable[[T], str]) -> T:
        """Run a stage's call as a step, and tell its event with the seconds of its own work."""
        spent: list[float] = []

        def timed() -> T:
            start = time.monotonic()
            try:
                return call()
            finally:
                spent.append(time.monotonic() - start)

        value = await step(name, self.subject, timed)
        self.last_seconds = round(spent[-1], 3)
        self._own += sum(spent)
        if event:
            self.tell(event, say(value), stage=name, seconds=self.last_seconds)
        return value

    def end(self, outcome: Outcome, why: str = "") -> None:
        self.zone.desk.end(Ended(app=self.offer.app, release=self.offer.release, outcome=outcome, why=why))


@flow(name="promote", flow_run_name=_run_name, persist_result=False)
async def promote(app: str, release: str, rollback: bool = False) -> State[Any]:  # noqa: FBT001, FBT002  a flow's parameters are the dashboard's form
    """Bring a release up to this zone's gate, and through it when it is open.

    Args:
        app: the workload.
        release: digest of an offered, or earlier deployed, release.
        rollback: made on a person's request to go back; the newest offer does not replace it.
    """
    zone = border()
    with alive():
        async with zone.exclusive(app):
            await _finish(zone, app)
            offer = await step("find", f"{app} {short(release)}", lambda: zone.offer(app, release))
            return await _bring(_Told(zone, offer), rollback=rollback)


@flow(name="deploy", flow_run_name=_run_name, persist_result=False)
async def deploy(app: str, plan: str) -> State[Any]:
    """Take a waiting plan through the gate, if the decisions so far open it.

    Args:
        app: the workload.
        plan: digest of the plan.
    """
    zone = border()
    with alive():
        async with zone.exclusive(app):
            held = zone.desk.held(app)
            if held is None or held.plan.identity() != plan:
                return Completed(name="Superseded", message=f"{short(plan)} does not wait here any more.")
            return await _pass(_Told(zone, held.offer), held, waited=True)


@flow(name="watch", flow_run_name="watch {zone}", persist_result=False)
async def watch(zone: str) -> State[Any]:
    """Look at what runs: drift, missing agents; heal what the profile says.

    Args:
        zone: this zone's name, shown in the run's name.
    """
    place = border()
    with alive():
        seen: list[Seen] = []
        for app in place.running():
            # Nothing is healed in the middle of an apply: it would put the plan before over the new one.
            async with place.exclusive(app):
                seen += await step("watch", app, partial(place.look, app))
        for finding in place.news(seen):
            place.outbox.put(finding.app, "drift", message=finding.text, finding=finding.what.model_dump(mode="json"))
        lines = [f"# What runs in {zone}", "", *(f"- {in_markdown(finding.text)}" for finding in seen)]
        await leave_artifact(f"{zone}-watch", "\n".join(lines if seen else [*lines, "As planned."]), f"Watch of {zone}")
        return Completed(message=f"{len(seen)} findings")


async def _finish(zone: Border, app: str) -> None:
    """Go back first, where an earlier plan failed and the process was killed before it had gone back."""
    held = zone.desk.held(app)
    cause = zone.desk.failed(app)
    if held is not None and cause:
        await _fail(_Told(zone, held.offer), held, Health(healthy=False, cause=cause))


async def _bring(told: _Told, *, rollback: bool) -> State[Any]:
    try:
        held = await _plan(told, rollback=rollback)
    except Refusal as refusal:
        told.tell("refused", refusal.what, where=refusal.where, remedy=refusal.remedy)
        told.end("refused", str(refusal))
        return Failed(name=REFUSED, message=str(refusal))
    return await _pass(told, held)


async def _plan(told: _Told, *, rollback: bool) -> HeldPlan:
    zone, offer = told.zone, told.offer
    received = await told.stage("receive", "received", lambda: zone.receive(offer), lambda _: "whole, by digest")
    told.tell("verified", f"signatures of {', '.join(zone.required)}", stage="receive")
    bound = await told.stage(
        "bind",
        "bound",
        lambda: zone.bind(received),
        lambda done: ", ".join(f"{item.need}: {item.provider}" for item in done.bindings) or "nothing needed",
    )
    hardened = await told.stage(
        "harden",
        "hardened",
        lambda: zone.harden(bound, received),
        lambda done: f"{len(done.explained)} fields explained",
    )
    plan, dry_run = await told.stage("plan", "", lambda: zone.plan(hardened, received), lambda _: "")
    # The only receipt with the whole plan: ops shows it to approvers and tells nobody else.
    told.tell(
        "planned",
        f"plan {plan.identity()}",
        stage="plan",
        seconds=told.last_seconds,
        plan=plan.model_dump(mode="json"),
        dry_run=dry_run.model_dump(mode="json"),
    )
    held = HeldPlan(plan=plan, dry_run=dry_run, offer=offer, rollback=rollback)
    zone.desk.put_plan(held)
    return held


async def _pass(told: _Told, held: HeldPlan, *, waited: bool = False) -> State[Any]:
    zone, plan = told.zone, held.plan
    digest = plan.identity()
    cause = zone.desk.failed(plan.app)
    if cause:
        return await _fail(told, held, Health(healthy=False, cause=cause))
    gate, rejected = await told.stage("gate", "", lambda: (zone.gate(plan), zone.rejection(plan)), lambda _: "")
    # Told before it is let go: a process that is killed in between tells it twice, never not at all.
    if rejected:
        told.tell("rejected", rejected, plan=digest)
        told.end("rejected", rejected)
        zone.desk.let_go(plan.app)
        zone.spend(plan)
        return Completed(name="Rejected", message=rejected)
    if not gate.open:
        told.tell("held", gate.why, plan=digest, gate=gate.model_dump(mode="json"), engine_seconds=told.engine_seconds)
        await leave_artifact(
            f"{plan.app}-{zone.zone}-plan", _plan_page(plan, held.dry_run, gate), f"Plan {short(digest)}"
        )
        return Completed(name="Held", message=gate.why)
    if waited:
        try:
            # A plan may wait for days: the release must still verify, under the keys that count today.
            await told.stage("receive", "", lambda: zone.receive(held.offer), lambda _: "")
        except Refusal as refusal:
            told.tell("refused", refusal.what, where=refusal.where, remedy=refusal.remedy, plan=digest)
            told.end("refused", str(refusal))
            zone.desk.let_go(plan.app)
            return Failed(name=REFUSED, message=str(refusal))
    told.tell("opened", gate.why, plan=digest, gate=gate.model_dump(mode="json"))
    if not await asyncio.to_thread(zone.still_fits, plan):
        told.tell("void", "The cluster moved on since the plan was made; it is planned anew.", plan=digest)
        zone.desk.let_go(plan.app)
        if held.rollback:
            return await _bring(told, rollback=True)  # the feed's newest offer is another release
        zone.nudge()
        return Completed(name="Void", message="The cluster moved on since the plan was made.")
    return await _apply(told, held)


async def _apply(told: _Told, held: HeldPlan) -> State[Any]:
    zone, plan = told.zone, held.plan
    try:
        deployment = await told.stage(
            "apply", "applied", lambda: zone.apply(plan), lambda done: f"plan {short(done.plan)}"
        )
        health = await told.stage("verify", "", lambda: zone.verify(plan), lambda _: "")
    except Refusal as refusal:
        health, deployment = Health(healthy=False, cause=str(refusal)), None
    if health.healthy and deployment is not None:
        return await _healthy(told, held, deployment, health)
    return await _fail(told, held, health)


async def _fail(told: _Told, held: HeldPlan, health: Health) -> State[Any]:
    """Go back; safe to be killed in, and to be begun again."""
    zone, plan = told.zone, held.plan
    if not zone.desk.failed(plan.app):
        told.tell("failed", health.cause, plan=plan.identity(), checks=list(health.checks))
        zone.desk.fail(plan.app, health.cause)
    zone.spend(plan)
    await _go_back(told, plan, health.cause)
    told.end("failed", health.cause)
    zone.desk.let_go(plan.app)
    page = f"# Failed\n\n{in_markdown(health.cause)}"
    await leave_artifact(f"{plan.app}-{zone.zone}-health", page, f"{plan.app} in {zone.zone}")
    return Failed(name=UNHEALTHY, message=health.cause)


async def _healthy(told: _Told, held: HeldPlan, deployment: Deployment, health: Health) -> State[Any]:
    zone, plan = told.zone, held.plan
    await step("offer", told.subject, lambda: zone.vouch(told.offer, deployment))
    zone.desk.add_deployed(plan.app, Deployed(deployment=deployment, at=int(time.time())))
    told.tell(
        "healthy",
        deployment.url or "no address",
        plan=plan.identity(),
        url=deployment.url,
        checks=list(health.checks),
        seconds=told.last_seconds,
        engine_seconds=told.engine_seconds,
    )
    told.end("healthy")
    zone.desk.let_go(plan.app)
    zone.spend(plan)
    page = [f"# {told.subject} is healthy in {zone.zone}", "", f"Plan `{plan.identity()}`", f"Image `{plan.image}`"]
    page += ["", deployment.url, "", *(f"- {in_markdown(check)}" for check in health.checks)]
    await leave_artifact(f"{plan.app}-{zone.zone}-health", "\n".join(page), f"{plan.app} in {zone.zone}")
    return Completed(name="Healthy", message=deployment.url or "healthy")


async def _go_back(told: _Told, plan: Plan, cause: str) -> None:
    """Apply the plan that ran before; it was approved and healthy, so it needs no new decision."""
    zone = told.zone
    before = zone.before(plan)
    if before is None:
        told.tell("not-rolled-back", "There is no earlier healthy deployment to go back to.", plan=plan.identity())
        return
    try:
        health = await step("rollback", told.subject, lambda: zone.go_back(before, cause))
    except PermanentError as error:
        # Everything else is tried again until it is through: what failed must not go on running.
        told.tell("rollback-failed", str(error), plan=before.identity())
        return
    if health.rolled_back_to:
        zone.stands_again(before)
    event = "rolled-back" if health.rolled_back_to else "rollback-failed"
    told.tell(event, f"back to release {short(before.release)}", plan=before.identity(), checks=list(health.checks))


def _plan_page(plan: Plan, dry_run: DryRun, gate: GateState) -> str:
    digest = plan.identity()
    lines = [f"# Plan {short(digest)}: {plan.app} to {plan.zone}", "", in_markdown(gate.why), ""]
    lines += [
        f"Approve exactly this with `sekisho approve {digest}`.",
        "",
        "| object | action | fields |",
        "|---|---|---|",
    ]
    lines += [
        f"| {in_markdown(change.object)} | {change.action} | {len(change.fields)} |" for change in dry_run.changes
    ]
    lines += ["", "| added by the zone | why |", "|---|---|"]
    lines += [
        f"| {in_markdown(f'{item.object} {item.path}')} | {in_markdown(item.why)} |" for item in dry_run.explained
    ]
    return "\n".join(lines)
