"""A zone's release feed: what it offers, and how far its releases have come further out.

The feed is how documents cross the border: outer zones pull it. Nothing in it is believed by whoever reads it; every
offer names digests, and the reader verifies what they name. `create_feed_app` is mounted by the zone's process.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal, Protocol

from fastapi import FastAPI, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from sekisho.canonical import Digest
from sekisho.errors import PermanentError, Refusal
from sekisho.journal import Journal
from sekisho.model import COMMIT_PATTERN, DIGEST_PATTERN, NAME_PATTERN, Document, Offer, Receipt, Verdict
from sekisho.receipts import MAX_RECEIPT
from sekisho.verdict_forms import MEDIA_TYPES, Form, written
from sekisho.verdict_rules import RULES, RuleText
from sekisho.web import MAX_WAIT, NotFound, Signal, create_app, read_body

PAGE = 500
"""Offers in one answer; the reader asks again after the last."""

App = Annotated[str, Path(pattern=NAME_PATTERN)]
Commit = Annotated[str, Path(pattern=COMMIT_PATTERN)]
Beginning = Annotated[str, Query(pattern="^[0-9a-f]{0,40}$")]
DigestPath = Annotated[str, Path(pattern=DIGEST_PATTERN)]
After = Annotated[int, Query(ge=0, le=2**62)]
Wait = Annotated[float, Query(ge=0, le=MAX_WAIT)]


class FeedStore:
    """The offers of a zone, numbered from 1, durable and append-only.

    Args:
        path: the journal, one canonical Offer a line.
    """

    def __init__(self, path: FilePath) -> None:
        self._journal = Journal(path)
        self._lock = threading.Lock()
        self._offers: list[Offer] = []
        self.signal = Signal()

    def append(self, *, app: str, release: str, summary: str, commit: str, receipt: str = "") -> Offer:
        """Offer a release; the same release of the same app is offered once, whatever is said later.

        Raises:
            TemporaryError: the disk did not take it.
        """
        with self._lock:
            self._load()
            for offer in self._offers:
                if (offer.app, offer.release) == (app, release):
                    return offer
            offer = Offer(
                sequence=len(self._offers) + 1,
                app=app,
                release=release,
                summary=summary,
                commit=commit,
                receipt=receipt,
            )
            self._journal.append(offer.canonical())
        self.signal.notify()
        return offer

    def offers(self, after: int = 0) -> tuple[Offer, ...]:
        """Return every offer with a sequence greater than `after`, in order."""
        with self._lock:
            self._load()
            return tuple(self._offers[max(0, after) :])

    def offer(self, release: str) -> Offer | None:
        """Return the offer of a release, or None."""
        return next((offer for offer in self.offers() if offer.release == release), None)

    def _load(self) -> None:
        for line in self._journal.lines()[len(self._offers) :]:
            where = f"{self._journal.path}, line {len(self._offers) + 1}"
            try:
                offer = Offer.parse(line, where=where)
            except Refusal as error:
                raise _damaged(where, error.what) from error
            if offer.sequence != len(self._offers) + 1:
                raise _damaged(where, f"its sequence is {offer.sequence}")
            self._offers.append(offer)


def _damaged(where: str, what: str) -> PermanentError:
    return PermanentError(
        f"The feed's journal is damaged: {what}",
        where=where,
        remedy="Restore the file from a copy; readers verify every release, so an older copy is safe.",
    )


class Progress(Document):
    """What an outer zone said about a release, as developers see it: without the receipt's body."""

    zone: str
    app: str
    release: str
    commit: str
    event: str
    message: str
    at: int


class ProgressStore:
    """The verified receipts that ops passed on, without their bodies; idempotent by content."""

    def __init__(self, path: FilePath) -> None:
        self._journal = Journal(path)
        self._lock = threading.Lock()
        self._seen: set[bytes] = set()
        self._by_app: dict[str, list[Progress]] = {}
        self._read = 0

    def append(self, receipt: Receipt) -> bool:
        """Keep a receipt; False when it was there already."""
        kept = Progress(**receipt.model_dump(include=set(Progress.model_fields)))
        line = kept.canonical()
        with self._lock:
            self._load()
            if line in self._seen:
                return False
            self._journal.append(line)
        return True

    def of(self, app: str, commit: str, release: str = "") -> tuple[Progress, ...]:
        """Return what is known of a commit and the release made from it, in the order it came."""
        with self._lock:
            self._load()
            found = tuple(self._by_app.get(app, ()))
        return tuple(item for item in found if item.commit == commit or (release and item.release == release))

    def _load(self) -> None:
        """Read what came since; strangers ask often, and the file only grows."""
        for line in self._journal.lines()[self._read :]:
            item = Progress.parse(line, where=str(self._journal.path))
            self._seen.add(line)
            self._by_app.setdefault(item.app, []).append(item)
            self._read += 1


class CommitRecord(Document):
    """What the build zone knows of one pushed commit."""

    app: str
    commit: str
    branch: str
    pushed_by: str = ""
    at: int
    """When it was pushed, seconds since the epoch."""
    state: Literal["queued", "running", "passed", "failed", "error"]
    rebase: str = ""
    """Standard image that the line took it up for by itself, `<name>@<digest>`; empty for a push."""
    interrupted: int = 0
    """How often the line's process was ended in the middle of judging it, since it last had a verdict."""
    release: str = ""
    verdict: Verdict | None = None
    events: tuple[dict[str, Any], ...] = ()
    """The stages' events as the pusher saw them."""


class CommitSource(Protocol):
    """Where the feed finds the commits of the build zone."""

    def commits(self, app: str, prefix: str = "") -> tuple[CommitRecord, ...]:
        """Return an app's commits that begin with `prefix`, newest first."""
        ...

    def commit(self, app: str, commit: str) -> CommitRecord | None:
        """Return one commit, or None."""
        ...


def create_feed_app(
    store: FeedStore,
    bundle: Callable[[Digest], bytes | None],
    *,
    commits: CommitSource | None = None,
    progress: ProgressStore | None = None,
    verify: Callable[[bytes], Receipt] | None = None,
    standard: Callable[[], Sequence[Document]] | None = None,
    judgement: Callable[[str, str], bytes | None] | None = None,
    lock: Callable[[str, str], bytes | None] | None = None,
    rules: Mapping[str, RuleText] = RULES,
    title: str = "Sekisho feed",
) -> FastAPI:
    """Return the feed's HTTP face.

    Args:
        store: the zone's offers.
        bundle: gives the release bundle of a digest, or None; called in a thread, only for offered releases.
        commits: the build zone's commits; without it the commit pages do not exist.
        progress: keeps what ops tells; without it nobody can tell.
        verify: checks a signed receipt (`sekisho.receipts.verify_receipt` under the zone's trust root).
        standard: tells the standard images and what the gate says of each; without it the page does not exist.
        judgement: gives the newest judgement of an app's commit as a file, or None; called in a thread.
        lock: gives the lock that was resolved for an app's commit as a file, or None; called in a thread.
        rules: what the rules of a verdict say of themselves.
        title: name of the API.

    Raises:
        ValueError: progress without a way to verify it.
    """
    if (progress is None) != (verify is None):
        raise ValueError("progress is kept only when it can be verified: give both or none")
    app = create_app(title)
    _offer_routes(app, store, bundle)
    if commits is not None:
        _commit_routes(app, commits, progress)
        _verdict_route(app, commits, rules)
    if progress is not None and verify is not None:
        _progress_routes(app, progress, verify)
    if standard is not None:
        _standard_routes(app, standard)
    if judgement is not None:
        _judgement_routes(app, judgement)
    if lock is not None:
        _lock_routes(app, lock)
    return app


def _offer_routes(app: FastAPI, store: FeedStore, bundle: Callable[[Digest], bytes | None]) -> None:
    @app.get("/healthz")
    async def healthz() -> dict[str, Any]:
        return {"ok": True, "last": len(await run_in_threadpool(store.offers))}

    @app.get("/feed")
    async def feed(after: After = 0, wait: Wait = 0) -> dict[str, Any]:
        async def look() -> tuple[Offer, ...]:
            return await run_in_threadpool(store.offers, after)

        found = await store.signal.poll(look, wait=wait)
        last = found[-1].sequence if found else len(await run_in_threadpool(store.offers))
        return {"offers": [offer.model_dump(mode="json") for offer in found[:PAGE]], "last": last}

    @app.get("/releases/{digest}/bundle")
    async def release_bundle(digest: DigestPath) -> Response:
        offered = await run_in_threadpool(store.offer, digest)
        data = await run_in_threadpool(bundle, Digest(digest)) if offered else None
        if data is None:
            raise NotFound("This zone does not offer that release.", where=digest)
        return Response(data, media_type="application/json", headers={"cache-control": "public, immutable"})


def _commit_routes(app: FastAPI, commits: CommitSource, progress: ProgressStore | None) -> None:
    def shown(record: CommitRecord) -> dict[str, Any]:
        said = progress.of(record.app, record.commit, record.release) if progress else ()
        return {**record.model_dump(mode="json"), "progress": [item.model_dump(mode="json") for item in said]}

    @app.get("/commits/{app_name}")
    def of_app(
        app_name: App, prefix: Beginning = "", limit: Annotated[int, Query(ge=1, le=200)] = 50
    ) -> dict[str, Any]:
        records = commits.commits(app_name, prefix)[:limit]
        return {"app": app_name, "commits": [{**shown(record), "events": []} for record in records]}

    @app.get("/commits/{app_name}/{commit}")
    def of_commit(app_name: App, commit: Commit) -> dict[str, Any]:
        record = commits.commit(app_name, commit)
        if record is None:
            raise NotFound("No such commit was pushed here.", where=f"{app_name} {commit}")
        return shown(record)


def _verdict_route(app: FastAPI, commits: CommitSource, rules: Mapping[str, RuleText]) -> None:
    @app.get("/commits/{app_name}/{commit}/verdict")
    def verdict(app_name: App, commit: Commit, form: Annotated[Form, Query(alias="format")] = "text") -> Response:
        record = commits.commit(app_name, commit)
        if record is None or record.verdict is None:
            raise NotFound("There is no verdict on such a commit here.", where=f"{app_name} {commit}")
        return Response(written(record.verdict, form, rules), media_type=MEDIA_TYPES[form])


def _progress_routes(app: FastAPI, progress: ProgressStore, verify: Callable[[bytes], Receipt]) -> None:
    @app.post("/progress")
    async def tell(request: Request) -> dict[str, Any]:
        data = await read_body(request, MAX_RECEIPT)
        receipt = await run_in_threadpool(verify, data)
        return {"stored": await run_in_threadpool(progress.append, receipt)}


def _judgement_routes(app: FastAPI, judgement: Callable[[str, str], bytes | None]) -> None:
    @app.get("/commits/{app_name}/{commit}/judgement")
    def of_commit(app_name: App, commit: Commit) -> Response:
        data = judgement(app_name, commit)
        if data is None:
            raise NotFound("There is no judgement of that commit here.", where=f"{app_name} {commit}")
        return Response(data, media_type="application/json")


def _lock_routes(app: FastAPI, lock: Callable[[str, str], bytes | None]) -> None:
    @app.get("/commits/{app_name}/{commit}/lock")
    def of_commit(app_name: App, commit: Commit) -> Response:
        data = lock(app_name, commit)
        if data is None:
            raise NotFound(
                "The line resolved no lock for that commit: it has its own, or it was not built.",
                where=f"{app_name} {commit}",
            )
        return Response(data, media_type="application/json")


def _standard_routes(app: FastAPI, standard: Callable[[], Sequence[Document]]) -> None:
    @app.get("/standard-images")
    def images() -> dict[str, Any]:
        return {"images": [image.model_dump(mode="json") for image in standard()]}
