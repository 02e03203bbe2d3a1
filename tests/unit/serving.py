"""An ASGI application on a real port of this machine, for tests, and somebody who asks it."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import uvicorn

BROWSER = httpx.Client(trust_env=False, verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), timeout=10)
"""Asks over plain HTTP. `httpx.get` would read the machine's certificate authorities for each question."""


class Server(uvicorn.Server):
    """Serves an application from its making on; ends when it is told, not at the next tenth of a second."""

    def __init__(self, app: Any) -> None:
        super().__init__(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, timeout_graceful_shutdown=1))
        self._up = threading.Event()
        self.port = 0
        self._thread = threading.Thread(target=self.run, daemon=True)
        self._thread.start()
        assert self._up.wait(30)

    async def main_loop(self) -> None:
        await self.on_tick(0)
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        self.port = self.servers[0].sockets[0].getsockname()[1]
        self._up.set()
        await self._over.wait()

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)


@contextmanager
def serve(app: Any) -> Iterator[str]:
    """Serve an application until the block ends; yield its URL."""
    server = Server(app)
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.end()
