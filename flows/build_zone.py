"""The build zone's process: takes pushes, runs the inner loop, serves the feed and the developers' pages."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path as FilePath
from typing import Annotated, Any

from fastapi import FastAPI, Path
from fastapi.responses import StreamingResponse
from pydantic import Field

from flows.commits import verdict_of, waits_for_advisories
from flows.context import Gatekeeper, gatekeeper
from flows.glue import asked_at, forever, in_words
from flows.inner import inner_loop
from flows.rebase import Rebase, due
from flows.standards import standard_images
from sekisho.advisories import REPOSITORY, TAG
from sekisho.canonical import Digest
from sekisho.errors import Held, Refusal, SekishoError
from sekisho.feed import CommitRecord, create_feed_app
from sekisho.model import COMMIT_PATTERN, NAME_PATTERN, Document, Offer, Release, Result
from sekisho.receipts import verify_receipt
from sekisho.releases.artifact import load_release, release_repository
from sekisho.verdict_text import clean
from sekisho.web import create_app

_LOG = logging.getLogger(__name__)
_QUEUE_POLL = 0.2
_AT_ONCE = 2
_AGAIN_SECONDS = 30.0
_ALONE, _ASIDE = 2, 5
"""A commit in whose judging the process was ended so often is judged alone, and not any more."""
_REBASE_SECONDS = 3.0
_STANDARDS_SECONDS = 10.0
_FOLLOW_SECONDS = 900.0
_SAID = 500

App = Annotated[str, Path(pattern=NAME_PATTERN)]
Commit = Annotated[str, Path(pattern=COMMIT_PATTERN)]


class Push(Document):
    """One pushed branch, as the receiver's hook tells it."""

    app: str = Field(pattern=NAME_PATTERN)
    commit: str = Field(pattern=COMMIT_PATTERN)
    branch: str = Field(max_length=255)
    pushed_by: str = Field(default="", max_length=63)
    reason: str = Field(default="", max_length=255)
    """Why the line takes it up again by itself; empty for a push."""
    rebase: str = Field(default="", max_length=255)
    """As in `CommitRecord`."""


class BuildZone:
    """The build zone's loops and routes."""

    def __init__(self) -> None:
        self.gate: Gatekeeper = gatekeeper()
        self._running: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._judging: dict[tuple[str, str], Push] = {}
        self._last: dict[tuple[str, str], str] = {}
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._apps: dict[str, asyncio.Lock] = {}
        self._rebasing: set[tuple[str, str]] = set()
        self._releases: dict[str, Release] = {}
        self._suspects: asyncio.Task[None] | None = None
        self._advisories_seen: Digest | None = None

    def api(self) -> FastAPI:
        """Return the zone's own API: loopback, for the receiver's hook."""
        app = create_app("Sekisho build zone")

        @app.get("/healthz")
        async def healthz() -> dict[str, Any]:
            return {"ok": True, "zone": "build", "running": len(self._running)}

        @app.post("/pushes", status_code=202)
        async def pushed(push: Push) -> dict[str, Any]:
            self.take(push)
            return {"app": push.app, "commit": push.commit}

        @app.get("/pushes/{app_name}/{commit}/events")
        async def events(app_name: App, commit: Commit) -> StreamingResponse:
            return StreamingResponse(self._stream(app_name, commit), media_type="application/x-ndjson")

        return app

    def feed(self) -> FastAPI:
        """Return the feed that outer zones and ops pull, and the page of the developers' commits."""
        gate = self.gate
        return create_feed_app(
            gate.feed,
            gate.bundle,
            commits=gate.commits,
            progress=gate.progress,
            verify=lambda data: verify_receipt(data, gate.trust.current()),
            standard=gate.standards.states,
            judgement=gate.judgement,
            lock=gate.lock,
            rules=gate.rules,
            title="Sekisho build feed",
        )

    def loops(self) -> list[Any]:
        """Return what the process does besides answering."""
        return [
            forever("queue", self._turn, pause=0.0),
            forever("standards", self._standards, pause=_STANDARDS_SECONDS, after_error=_AGAIN_SECONDS),
            forever("rebase", self._rebase, pause=_REBASE_SECONDS),
            forever("advisories", self._advisories, pause=_AGAIN_SECONDS),
            asyncio.to_thread(self._sweep),
            asyncio.to_thread(self._witness),
        ]

    async def _standards(self) -> None:
        """Judge standard images that have no verdict under what is in force; a look costs a few requests."""
        if await asyncio.to_thread(self.gate.standards.pending):
            await standard_images()

    async def _advisories(self) -> None:
        """Judge again what failed for want of fresh advisories alone, when the mirror has others.

        The commit is not to blame, so nobody can mend it by a push.
        """
        digest = await asyncio.to_thread(self.gate.registry.resolve, REPOSITORY, TAG)
        seen, self._advisories_seen = self._advisories_seen, digest
        if digest is None or digest == seen:
            return
        for record in self.gate.commits.newest():
            if record.state == "failed" and waits_for_advisories(record.verdict):
                _LOG.info("Judging %s %s again: the mirror has other advisories.", record.app, record.commit)
                self._start(_push_of(record, reason="the mirror has other advisories"))

    def _witness(self) -> None:
        try:
            self.gate.witness_offered()
        except SekishoError as error:
            _LOG.warning("Not all of what was sealed before is noted; the next start goes on: %s", error)

    def _sweep(self) -> None:
        try:
            self.gate.build.sweep()
        except SekishoError as error:
            _LOG.warning("The sandbox was not swept: %s", error)

    def resume(self) -> None:
        """Take up what has no verdict, and what was refused under policies that are no longer in force.

        A push of a commit that is there already runs no hook, so nobody else would ask again. What waits for fresh
        advisories is taken up by the first look at the mirror.
        """
        again = [
            record for record in self.gate.commits.newest() if record.state == "failed" and self.gate.stale(record)
        ]
        suspects = []
        for record in (*self.gate.commits.open_commits(), *again):
            # What of it ended the process, memory that the kernel took back or a fault in a library, may do so again.
            times = record.interrupted + (record.state == "running")
            if times >= _ASIDE:
                if record.state == "running":
                    self._set_aside(record, times)
                continue
            self.gate.commits.put(record.model_copy(update={"interrupted": times}))
            _LOG.warning("Taking up %s %s again.", record.app, record.commit)
            if times >= _ALONE:
                suspects.append(_push_of(record))
            else:
                self.take(_push_of(record))
        if suspects:
            self._suspects = asyncio.create_task(self._one_by_one(suspects))

    def _set_aside(self, record: CommitRecord, times: int) -> None:
        _LOG.error("%s %s is not judged any more: it ended the process %d times.", record.app, record.commit, times)
        self._put(_push_of(record), "error", interrupted=times)
        text = [
            f"The line's own process was ended {times} times in the middle of judging it: it is not tried again.",
            "Tell the platform team, who find why in the zone's log; a push to another branch has it judged again.",
        ]
        event = {"stage": "line", "state": "failed", "message": "set aside", "text": text, "last": True}
        self.gate.events.write(record.app, record.commit, event)

    async def _one_by_one(self, suspects: list[Push]) -> None:
        for push in suspects:
            self._put(push, "queued")
        for push in suspects:
            self.take(push)
            job = self._running.get((push.app, push.commit))
            if job is not None:
                await asyncio.wait([job])

    def take(self, push: Push) -> bool:
        """Start judging a push, unless that is going on; a commit that has its verdict tells it again.

        Returns:
            False when it must be asked for again: the commit is being judged for a branch that is not released, and
            this push is to one that is.
        """
        key = (push.app, push.commit)
        if key in self._running:
            return not self.gate.limits.releases(push.branch) or self.gate.limits.releases(self._judging[key].branch)
        known = self.gate.commits.commit(*key)
        released = self.gate.limits.releases(push.branch)
        # The same commit on a release branch later than on a topic branch is judged once more: now it is released.
        settled = known is not None and known.verdict is not None and (known.release or not released)
        if settled and known is not None and not self.gate.stale(known):
            return True
        self._start(push)
        return True

    def _start(self, push: Push) -> asyncio.Task[None]:
        key = (push.app, push.commit)
        self.gate.events.begin(*key)
        self._put(push, "queued")
        self._last[push.app, push.branch] = push.commit
        self._judging[key] = push
        if push.rebase:
            self._rebasing.add(key)
        job = asyncio.create_task(self._judge(push))
        self._running[key] = job
        job.add_done_callback(lambda done: self._judged(key, done))
        return job

    def _judged(self, key: tuple[str, str], job: asyncio.Task[None]) -> None:
        self._running.pop(key, None)
        self._judging.pop(key, None)
        self._rebasing.discard(key)
        if not job.cancelled() and job.exception() is not None:
            _LOG.error("%s %s is not judged any more.", *key, exc_info=job.exception())

    async def _turn(self) -> None:
        for path in in_order(self.gate.queue):
            try:
                push = Push.parse(path.read_bytes(), where=str(path))
            except FileNotFoundError:
                continue
            except Refusal as refusal:
                _LOG.error("A queue file is not a push and is set aside: %s", refusal)
                path.rename(path.with_suffix(".refused"))
                continue
            if self.take(push):
                # The commit's record stands now, so the queue's copy has done its work.
                path.unlink(missing_ok=True)
        await asyncio.sleep(_QUEUE_POLL)

    async def _rebase(self) -> None:
        """Take up one app whose standard image moved, unless one is on its way: developers keep a slot."""
        for rebase in await asyncio.to_thread(lambda: list(self._due())):
            if any(self._state(key) != "error" for key in self._rebasing):
                return
            if any(app == rebase.app for app, _ in self._running):
                continue  # what is on its way stands on the new image already, or makes a newer release
            known = self.gate.commits.commit(rebase.app, rebase.commit)
            _LOG.info("Rebasing %s %s: %s.", rebase.app, rebase.commit, rebase.why)
            push = Push(
                app=rebase.app,
                commit=rebase.commit,
                branch=rebase.branch,
                pushed_by=known.pushed_by if known else "",
                reason=rebase.why,
                rebase=rebase.to,
            )
            self._start(push)

    def _rebased(self, rebase: Rebase) -> bool:
        known = self.gate.commits.commit(rebase.app, rebase.commit)
        if known is None or known.rebase != rebase.to:
            return False
        return known.state in {"passed", "failed"} or known.interrupted >= _ASIDE

    def _state(self, key: tuple[str, str]) -> str:
        known = self.gate.commits.commit(*key)
        return known.state if known else ""

    def _due(self) -> Iterator[Rebase]:
        def release_of(offer: Offer) -> Release | None:
            known = self._releases.get(offer.release)
            if known is not None:
                return known
            try:
                release, _ = load_release(self.gate.registry, release_repository(offer.app), Digest(offer.release))
            except Refusal as error:
                _LOG.error("The newest release of %s cannot be read, so it is not rebased: %s", offer.app, error)
                return None
            self._releases[offer.release] = release
            return release

        return due(self.gate.feed.offers(), release_of, self.gate.in_force, self._rebased)

    async def _judge(self, push: Push) -> None:
        while True:
            # One app's commits are judged in the order they came: the newest release is the last one in the feed.
            async with self._apps.setdefault(push.app, asyncio.Lock()), self._slots:
                if await self._judge_once(push):
                    return
            # Outside of both: a commit that the line stumbles over keeps neither its app nor the others waiting.
            await asyncio.sleep(_AGAIN_SECONDS)
            if self._last.get((push.app, push.branch)) != push.commit:
                _LOG.warning("%s %s is not tried again: a newer commit took its place.", push.app, push.commit)
                return

    async def _judge_once(self, push: Push) -> bool:
        try:
            self._put(push, "running")
            asked_at.set(time.monotonic())
            await inner_loop(push.app, push.commit, push.branch, push.pushed_by, push.reason)
            verdict = verdict_of(self.gate.events.read(push.app, push.commit))
            if verdict is None:
                raise SekishoError("The line ended without a verdict.", where=f"{push.app} {push.commit}")  # noqa: TRY301
            self._put(push, "passed" if verdict.result is Result.PASSED else "failed")
        except asyncio.CancelledError:
            self._put(push, "queued")  # told to stop: this is nobody's doing
            raise
        except Exception as error:  # noqa: BLE001  whatever it is, it is a fault and no verdict
            _LOG.exception("The line has a fault; %s %s is judged again.", push.app, push.commit)
            self._fault(push, error)
            return False
        return True

    def _fault(self, push: Push, error: Exception) -> None:
        said = clean(in_words(error))[:_SAID]
        text = [
            f"The line itself has a fault, which is neither a yes nor a no: {said}",
            f"The commit is stored and judged again every {_AGAIN_SECONDS:.0f} s; you need not push again.",
        ]
        event: dict[str, Any] = {"stage": "line", "state": "failed", "message": said, "text": text}
        if isinstance(error, Held):
            text = [
                f"Not judged yet, and not for you to mend: {said}",
                "The commit is stored and judged by itself once that is done; you need not push again, nor wait.",
            ]
            event |= {"state": "held", "text": text, "last": True}
        try:
            self._put(push, "error")
            self.gate.events.write(push.app, push.commit, event)
        except (OSError, SekishoError) as trouble:
            _LOG.error("The fault cannot be told: %s", trouble)

    def _put(self, push: Push, state: Any, *, interrupted: int | None = None) -> None:
        known = self.gate.commits.commit(push.app, push.commit)
        if interrupted is None:
            interrupted = known.interrupted if known and state not in {"passed", "failed"} else 0
        events = self.gate.events.read(push.app, push.commit)
        release = next((event["release"] for event in reversed(events) if event.get("release")), "")
        self.gate.commits.put(
            CommitRecord(
                app=push.app,
                commit=push.commit,
                branch=push.branch,
                pushed_by=push.pushed_by,
                # Pushed to another branch is pushed anew.
                at=known.at if known and known.branch == push.branch else int(time.time()),
                state=state,
                # Whoever takes it up next, another process or the same policies' next version: it stays a rebase.
                rebase=push.rebase or (known.rebase if known else ""),
                interrupted=interrupted,
                release=release,
                verdict=verdict_of(events),
            )
        )

    async def _stream(self, app: str, commit: str) -> AsyncIterator[bytes]:
        async for event in self.gate.events.follow(app, commit, seconds=_FOLLOW_SECONDS):
            yield (json.dumps(event) + "\n" if event else "\n").encode()


def _push_of(record: CommitRecord, *, reason: str = "") -> Push:
    return Push(
        app=record.app,
        commit=record.commit,
        branch=record.branch,
        pushed_by=record.pushed_by,
        reason=reason,
        rebase=record.rebase,
    )


def in_order(queue: FilePath) -> list[FilePath]:
    """Return the queue's entries, the oldest push first: their names begin with the app and say nothing of time."""
    found = []
    for path in queue.glob("*.json"):
        try:
            found.append((path.stat().st_mtime_ns, path.name, path))
        except FileNotFoundError:
            continue
    return [path for *_, path in sorted(found)]
