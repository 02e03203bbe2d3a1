"""An outer zone's process: pulls the feed, fetches decisions, posts receipts, watches what runs."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from fastapi import FastAPI
from prefect.client.schemas.objects import State

from flows.border import Border, border
from flows.desk import Ended
from flows.glue import forever
from flows.outer import REFUSED, UNHEALTHY, deploy, promote, watch
from flows.patience import Patience
from sekisho.errors import Refusal, SekishoError, VerificationError
from sekisho.feed import create_feed_app
from sekisho.model import NAME_PATTERN, Offer, SignedDecision
from sekisho.web import MAX_WAIT, create_app
from sekisho.zones import Zone
from stages.gate import CLOCK_SKEW_SECONDS

_LOG = logging.getLogger(__name__)
_OUTBOX_POLL = 0.1
_AGAIN_POLL = 0.25
_AT_ONCE = 8
_NAME = re.compile(NAME_PATTERN)


class OuterZone:
    """The loops and routes of staging and production."""

    def __init__(self, zone: Zone) -> None:
        self.border: Border = border()
        self.zone = zone
        self._after = 0
        self._decided = 0
        self._newest: dict[str, Offer] = {}
        self._ready = asyncio.Event()
        self._patience = Patience()
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._working: dict[str, asyncio.Task[None]] = {}

    def api(self) -> FastAPI:
        """Return the zone's own API."""
        app = create_app(f"Sekisho {self.zone} zone")

        @app.get("/healthz")
        async def healthz() -> dict[str, Any]:
            return {"ok": True, "zone": self.zone, "agents": self._ready.is_set()}

        @app.get("/state")
        async def state() -> dict[str, Any]:
            desk = self.border.desk
            return {
                "zone": self.zone,
                "held": [{"app": held.plan.app, "plan": held.plan.identity()} for held in desk.all_held()],
                "deployed": {app: [item.model_dump(mode="json") for item in desk.deployed(app)] for app in desk.apps()},
            }

        return app

    def feed(self) -> FastAPI:
        """Return the feed of what was verified here; production pulls staging's."""
        return create_feed_app(self.border.feed, self.border.bundle, title=f"Sekisho {self.zone} feed")

    def loops(self) -> list[Any]:
        """Return what the process does besides answering."""
        seconds = float(self.border.profile.watch.interval_seconds)
        return [
            forever("prepare the cluster", self._prepare, pause=300.0),
            forever("pull the feed", self._pull, pause=0.0),
            forever("fetch decisions", self._decisions, pause=0.0),
            forever("try again", self._again, pause=_AGAIN_POLL),
            forever("post receipts", self._post, pause=_OUTBOX_POLL),
            forever("watch", self._watch, pause=seconds),
        ]

    def resume(self) -> None:
        """Nothing to call: the loops find plans that wait and offers without an end."""

    async def _prepare(self) -> None:
        await asyncio.to_thread(self.border.prepare)
        if not self._ready.is_set():
            # A process that was killed in the middle left its plan waiting, whatever had been applied of it.
            for held in await asyncio.to_thread(self.border.desk.all_held):
                self._deploy("start", held.plan.app, held.plan.identity())
            self._ready.set()
        await asyncio.to_thread(self.border.witness_deployed)

    async def _pull(self) -> None:
        await self._ready.wait()
        wait = 0.0 if self.border.nudged() else MAX_WAIT
        offers, last = await asyncio.to_thread(self.border.upstream.page, self._after, wait)
        if last < self._after:
            _LOG.warning("The feed began anew: it ends at %d, %d was read.", last, self._after)
            self._after = 0
            return
        for offer in offers:
            self._after = max(self._after, offer.sequence)
            self.border.remember(offer)
            older = self._newest.get(offer.app)
            self._newest[offer.app] = offer
            if older is not None and older != offer and self.border.desk.outcome(older.release) is None:
                why = f"{offer.release} came after it"
                self.border.desk.end(Ended(app=offer.app, release=older.release, outcome="superseded", why=why))
        for app in list(self._newest):
            self._promote(app)

    def _promote(self, app: str) -> None:
        """Begin to promote an app's newest offer, if that is due."""
        offer = self._newest.get(app)
        if offer is not None and self._is_due(offer):
            self._begin(f"promote {app}", app, lambda: promote(app, offer.release, return_state=True))

    def _deploy(self, why: str, app: str, plan: str) -> None:
        self._begin(f"deploy {app} {why}", app, lambda: deploy(app, plan, return_state=True))

    def _is_due(self, offer: Offer) -> bool:
        if self._patience.waits(offer.app) or self.border.desk.outcome(offer.release) is not None:
            return False
        held = self.border.desk.held(offer.app)
        return held is None or (held.offer.release != offer.release and not held.rollback)

    async def _again(self) -> None:
        """Try again what ended in a fault: neither a decision nor an offer would come a second time."""
        await self._ready.wait()
        for app in self._patience.due():
            held = await asyncio.to_thread(self.border.desk.held, app)
            if held is not None:
                self._deploy("again", app, held.plan.identity())
            else:
                self._promote(app)
        for signed in await asyncio.to_thread(self.border.desk.pending):
            name = f"rollback {signed.decision.nonce}"
            if not self._patience.waits(name):
                self._begin(name, name, partial(self._roll_back, signed))

    async def _decisions(self) -> None:
        await self._ready.wait()
        if self.border.ops is None:
            return
        try:
            found = await asyncio.to_thread(self.border.ops.decisions, self.zone, self._decided, MAX_WAIT)
        except SekishoError:
            # Ops may come back set up anew, with numbers from 1; what is known already is not taken twice.
            self._decided = 0
            raise
        for sequence, signed in found:
            mine = signed.decision.zone == self.zone  # whatever a mailbox mixes up
            if mine and await asyncio.to_thread(self.border.desk.put_decision, signed):
                self._decided_upon(signed)
            self._decided = max(self._decided, sequence)

    def _decided_upon(self, signed: SignedDecision) -> None:
        decision = signed.decision
        if decision.kind == "rollback":
            return  # it is pending on the desk
        if not _NAME.fullmatch(decision.app):
            _LOG.warning("A decision about %r is ignored: that is no app.", decision.app[:80])
            return
        held = self.border.desk.held(decision.app)
        if held is not None and held.plan.identity() == decision.subject:
            self._deploy(decision.nonce, decision.app, decision.subject)
            return
        message = f"{decision.kind} of {decision.subject} by {decision.principal}: no such plan waits here."
        self.border.outbox.put(decision.app, "decision-ignored", message=message)

    async def _roll_back(self, signed: SignedDecision) -> State[Any] | None:
        decision, desk = signed.decision, self.border.desk
        try:
            await asyncio.to_thread(check_rollback, self.border, signed)
        except Refusal as error:
            if decision.zone == self.zone and _NAME.fullmatch(decision.app):
                self.border.outbox.put(
                    decision.app, "decision-ignored", release=decision.subject, message=str(error)
                )  # fmt: skip
            desk.settle(signed)
            return None
        state: State[Any] = await promote(decision.app, decision.subject, rollback=True, return_state=True)
        if not _is_fault(state):
            # The plan stands on the desk by now, or the release was refused: the wish has done its work, for ever.
            desk.spend(decision.subject, [decision.nonce])
            desk.settle(signed)
        return state

    async def _post(self) -> None:
        if self.border.ops is not None:
            await asyncio.to_thread(self.border.outbox.flush, self.border.ops)

    async def _watch(self) -> None:
        await self._ready.wait()
        if await asyncio.to_thread(self.border.needs_a_look):
            state: State[Any] = await watch(self.zone, return_state=True)
            if _is_fault(state):
                _LOG.warning("A watch ended with: %s", state.message)

    def _begin(self, name: str, patient: str, call: Callable[[], Awaitable[State[Any] | None]]) -> None:
        """Run something beside the loops, once at a time under a name: one app's trouble keeps no other waiting."""
        if name in self._working:
            return
        self._working[name] = asyncio.create_task(self._run(name, patient, call))

    async def _run(self, name: str, patient: str, call: Callable[[], Awaitable[State[Any] | None]]) -> None:
        try:
            async with self._slots:
                state = await call()
            fault = state.message if state is not None and _is_fault(state) else None
        except Exception as error:  # noqa: BLE001  how a flow ended is told by itself, and its fault must not end a loop
            fault = str(error) or type(error).__name__
        finally:
            self._working.pop(name, None)
        if fault is None:
            self._patience.done(patient)
            # A newer release may have come meanwhile.
            self._promote(patient)
        else:
            _LOG.warning("%s: %s; again in %.0f s.", name, fault, self._patience.fault(patient))


def check_rollback(border: Border, signed: SignedDecision) -> None:
    """Check that a wish to go back counts.

    Raises:
        VerificationError: it is another zone's, no approver's, dated in the future, was granted before, or the
            release was never healthy here.
    """
    decision = signed.decision
    if decision.zone != border.zone or not _NAME.fullmatch(decision.app):
        raise VerificationError("The decision is for another zone, or about no app.", where=decision.zone[:80])
    border.check_decision(signed)
    if decision.issued_at > time.time() + CLOCK_SKEW_SECONDS:
        raise VerificationError("The decision is dated in the future.", where=decision.principal)
    if decision.nonce in border.desk.spent(decision.subject):
        raise VerificationError("The decision was granted before.", where=decision.subject)
    if not any(item.deployment.release == decision.subject for item in border.desk.deployed(decision.app)):
        raise VerificationError(
            "That release was never healthy here.",
            where=decision.subject,
            remedy=f"See `sekisho releases {decision.app}` for those that were.",
        )


def _is_fault(state: State[Any]) -> bool:
    return not state.is_completed() and state.name not in {REFUSED, UNHEALTHY}
