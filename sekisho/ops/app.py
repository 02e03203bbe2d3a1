"""The HTTP face of ops: receipts and decisions come in; releases, plans and the ledger are read.

Nobody logs in: what comes in is signed or refused, and the network lets only the zones and the infrastructure team ask.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import FastAPI, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import Field

from sekisho.errors import Refusal, TemporaryError
from sekisho.model import DIGEST_PATTERN, NAME_PATTERN, Document, Receipt, SignedDecision
from sekisho.ops.bundles import Bundles
from sekisho.ops.store import OpsStore
from sekisho.receipts import MAX_RECEIPT
from sekisho.web import MAX_WAIT, NotFound, create_app, read_body

MAX_DECISION = 64 << 10
"""Bytes of one signed decision."""
SIGNATURE_START = "-----BEGIN SSH SIGNATURE-----"

After = Annotated[int, Query(ge=0, le=2**62)]
Wait = Annotated[float, Query(ge=0, le=MAX_WAIT)]
DigestPath = Annotated[str, Path(pattern=DIGEST_PATTERN)]
Prefix = Annotated[str, Query(pattern=r"^(|sha256:[0-9a-f]{0,64})$")]
OptionalName = Annotated[str, Query(pattern=rf"^$|{NAME_PATTERN}")]
Word = Annotated[str, Query(pattern=r"^[a-z-]{0,40}$")]


class ReceiptQuery(Document):
    """Which receipts are asked for; empty: any."""

    app: str = Field(default="", pattern=rf"^$|{NAME_PATTERN}")
    commit: str = Field(default="", pattern=r"^[0-9a-f]{0,40}$")
    release: str = Field(default="", pattern=rf"^$|{DIGEST_PATTERN}")
    zone: str = Field(default="", pattern=rf"^$|{NAME_PATTERN}")
    event: str = Field(default="", pattern=r"^[a-z-]{0,40}$")
    after: int = Field(default=0, ge=0, le=2**62)
    wait: float = Field(default=0, ge=0, le=MAX_WAIT)


Precheck = Callable[[SignedDecision], str]
"""Says who signed a decision; raises VerificationError. None of it opens a gate: the zone checks for itself."""


def create_ops_app(
    store: OpsStore,
    bundles: Bundles,
    *,
    verify: Callable[[bytes], Receipt],
    precheck: Precheck | None = None,
) -> FastAPI:
    """Return the HTTP face of ops.

    Args:
        store: the ledger and what is read from it.
        bundles: gives release bundles by digest.
        verify: checks a signed receipt under the trust root of ops.
        precheck: checks a decision's signature before it is kept; None: kept unchecked, and the answer says so.
    """
    app = create_app("Sekisho ops")
    _mailbox_routes(app, store, verify, precheck)
    _release_routes(app, store, bundles)
    _read_routes(app, store)
    return app


def _mailbox_routes(
    app: FastAPI, store: OpsStore, verify: Callable[[bytes], Receipt], precheck: Precheck | None
) -> None:
    @app.post("/receipts")
    async def post_receipt(request: Request) -> dict[str, Any]:
        data = await read_body(request, MAX_RECEIPT)
        receipt = await run_in_threadpool(verify, data)
        return await run_in_threadpool(store.record_receipt, receipt, data)

    @app.post("/decisions")
    async def post_decision(request: Request) -> dict[str, Any]:
        signed = SignedDecision.parse(await read_body(request, MAX_DECISION), where="decision")
        _check_form(signed)
        if precheck is not None:
            await run_in_threadpool(precheck, signed)
        return {**await run_in_threadpool(store.record_decision, signed), "checked": precheck is not None}

    @app.get("/decisions")
    async def decisions(
        zone: Annotated[str, Query(pattern=NAME_PATTERN)], after: After = 0, wait: Wait = 0
    ) -> dict[str, Any]:
        async def look() -> list[dict[str, Any]]:
            return await run_in_threadpool(store.decisions, zone, after)

        return {"decisions": await store.signal.poll(look, wait=wait)}

    @app.get("/receipts")
    async def receipts(query: Annotated[ReceiptQuery, Query()]) -> dict[str, Any]:
        filters = query.model_dump(exclude={"after", "wait"})

        async def look() -> list[dict[str, Any]]:
            return await run_in_threadpool(lambda: store.receipts(query.after, **filters))

        return {"receipts": await store.signal.poll(look, wait=query.wait)}


def _check_form(signed: SignedDecision) -> None:
    if not signed.signature.startswith(SIGNATURE_START):
        raise Refusal("The decision is not signed with an SSH key.", where="/signature", remedy="Use sekisho approve.")
    try:
        signed.canonical()
    except (ValueError, RecursionError) as error:
        raise Refusal("The decision has no canonical form.", where="decision") from error


def _release_routes(app: FastAPI, store: OpsStore, bundles: Bundles) -> None:
    @app.get("/releases")
    def releases(app: OptionalName = "", prefix: Prefix = "") -> dict[str, Any]:
        return {"releases": store.releases(app, prefix)}

    @app.get("/releases/{digest}")
    def release(digest: DigestPath) -> dict[str, Any]:
        found = store.release(digest)
        try:
            return {**found, "release": bundles.release(digest)}
        except (TemporaryError, Refusal):  # the build zone may be down; what the ledger says is still worth showing
            return {**found, "release": None}

    @app.get("/releases/{digest}/bundle")
    def bundle(digest: DigestPath) -> Response:
        store.release(digest)  # only what is known here is fetched for others
        return Response(bundles.get(digest), media_type="application/json")


def _read_routes(app: FastAPI, store: OpsStore) -> None:
    @app.get("/plans")
    def plans(app: OptionalName = "", zone: OptionalName = "", state: Word = "", prefix: Prefix = "") -> dict[str, Any]:
        return {"plans": store.plans(app, zone, state, prefix)}

    @app.get("/plans/{digest}")
    def plan(digest: DigestPath) -> dict[str, Any]:
        return store.plan(digest)

    @app.get("/apps")
    def apps() -> dict[str, Any]:
        return {"apps": store.apps()}

    @app.get("/apps/{name}")
    def one_app(name: Annotated[str, Path(pattern=NAME_PATTERN)]) -> dict[str, Any]:
        for found in store.apps():
            if found["app"] == name:
                return found
        raise NotFound("No such app is known here.", where=name, remedy="sekisho releases lists what is.")

    @app.get("/ledger/verify")
    def verify_ledger() -> dict[str, Any]:
        return store.verify_chain().model_dump(mode="json")

    @app.get("/healthz")
    def healthz() -> dict[str, Any]:
        return {"ok": True, **store.health()}
