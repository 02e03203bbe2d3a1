"""Run ops: `python -m sekisho.ops`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from sekisho.clients import FeedClient
from sekisho.decisions import verify_decision
from sekisho.errors import PermanentError, SekishoError, TemporaryError
from sekisho.keys import load_trust
from sekisho.ops.app import Precheck, create_ops_app
from sekisho.ops.bundles import Bundles, verified_release
from sekisho.ops.courier import Courier
from sekisho.ops.store import OpsStore, engine_for
from sekisho.receipts import verify_receipt
from sekisho.witness import WITNESS_FILE, WitnessBook
from sekisho.zones import Port, Zone, ZoneHome, address

log = logging.getLogger("sekisho.ops")

_DATABASE_SECONDS = 60.0
"""How long the database may take to come up."""


def main() -> int:
    """Serve until terminated; 1 when it cannot begin."""
    parser = argparse.ArgumentParser(prog="python -m sekisho.ops", description=__doc__)
    parser.add_argument("--host", default=address(Zone.OPS))
    parser.add_argument("--port", type=int, default=Port.OPS)
    parser.add_argument("--home", type=Path, default=ZoneHome(Zone.OPS).root)
    parser.add_argument("--database-host", default="127.0.0.1")
    parser.add_argument("--database-port", type=int, default=Port.POSTGRES)
    parser.add_argument("--feed", default=f"http://{address(Zone.BUILD)}:{Port.FEED}", help="the build zone's feed")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        app = build(options.home, options.database_host, options.database_port, options.feed)
    except SekishoError as error:
        print(f"sekisho: {error}", file=sys.stderr)  # noqa: T201
        return 1
    uvicorn.run(
        app,
        host=options.host,
        port=options.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=2,
        limit_concurrency=512,
    )
    return 0


def build(home: Path, database_host: str, database_port: int, feed_url: str) -> FastAPI:
    """Return the app of ops with its database ready and its courier running as long as it serves.

    Args:
        home: the zone's directory: secrets/postgres-sekisho, trust/root.json, trust/allowed_signers, cache/.
        database_host: where PostgreSQL listens.
        database_port: TCP port.
        feed_url: the build zone's feed.

    Raises:
        PermanentError: a secret or the trust root cannot be read.
        TemporaryError: the database did not come up in time.
    """
    root = home / "trust" / "root.json"
    load_trust(root)
    store = OpsStore(engine_for(database_host, database_port, _secret(home / "secrets" / "postgres-sekisho")))
    _migrate(store)
    feed = FeedClient(feed_url)
    witness = WitnessBook(home / "state" / WITNESS_FILE)
    # The trust root is read anew each time: a key that was taken out of it counts for nothing from then on.
    bundles = Bundles(
        home / "cache" / "bundles",
        feed.bundle,
        lambda data, digest: verified_release(data, digest, load_trust(root), witness),
    )
    app = create_ops_app(
        store,
        bundles,
        verify=lambda data: verify_receipt(data, load_trust(root)),
        precheck=_precheck(home / "trust" / "allowed_signers"),
    )
    app.router.lifespan_context = _with_courier(Courier(store, feed))
    return app


def _with_courier(courier: Courier) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(courier.run())
        task.add_done_callback(_stop)
        yield
        task.cancel()

    return lifespan


def _stop(task: asyncio.Task[None]) -> None:
    """End the process when its courier fell over: whoever supervises it starts it anew, and the log says why."""
    if not task.cancelled():
        log.error("The courier ended.", exc_info=task.exception())
        os.kill(os.getpid(), signal.SIGTERM)


def _precheck(allowed_signers: Path) -> Precheck | None:
    if not allowed_signers.is_file():
        log.warning("No %s: decisions are kept unchecked; the zones check them in any case.", allowed_signers)
        return None
    return lambda signed: verify_decision(signed, allowed_signers)


def _secret(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise PermanentError(
            f"The database's password cannot be read: {error.strerror}.",
            where=str(path),
            remedy="sekisho up writes it; run this as the zone's user.",
        ) from error


def _migrate(store: OpsStore) -> None:
    deadline = time.monotonic() + _DATABASE_SECONDS
    while True:
        try:
            store.migrate()
        except TemporaryError as error:
            if time.monotonic() >= deadline:
                raise
            log.warning("%s", error)
            time.sleep(0.25)
        else:
            return


if __name__ == "__main__":
    sys.exit(main())
