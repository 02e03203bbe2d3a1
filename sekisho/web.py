"""What the HTTP faces of the line share: bounded bodies, errors as JSON, long polling.

Every error leaves as `{"what", "where", "remedy"}`, the three things a SekishoError says, so that the command line can
print it as it is.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from sekisho.errors import (
    PermanentError,
    Refusal,
    SekishoError,
    TemporaryError,
    UsageError,
    VerificationError,
)

log = logging.getLogger(__name__)
T = TypeVar("T")

MAX_WAIT = 25.0
"""Longest long poll, seconds; below the idle timeout of every client and proxy in the line."""


class NotFound(Refusal):
    """What was asked for is not here."""


class TooLarge(Refusal):
    """The body is larger than the limit."""


_STATUS: tuple[tuple[type[SekishoError], int], ...] = (
    (NotFound, 404),
    (TooLarge, 413),
    (VerificationError, 403),
    (Refusal, 422),
    (UsageError, 400),
    (TemporaryError, 503),
    (PermanentError, 500),
)


def status_of(error: SekishoError) -> int:
    """Return the HTTP status that stands for an error."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def error_body(what: str, where: str = "", remedy: str = "") -> dict[str, str]:
    """Return the JSON form of an error."""
    return {"what": what, "where": where, "remedy": remedy}


def create_app(title: str) -> FastAPI:
    """Return a FastAPI app with the line's error answers and without pages that load scripts from elsewhere."""
    app = FastAPI(title=title, docs_url=None, redoc_url=None)

    @app.exception_handler(SekishoError)
    async def _said(request: Request, error: SekishoError) -> JSONResponse:
        status = status_of(error)
        if status >= 500:  # noqa: PLR2004
            log.warning("%s %s: %s", request.method, request.url.path, error)
        headers = {"retry-after": str(max(1, round(error.delay)))} if isinstance(error, TemporaryError) else None
        return JSONResponse(error_body(error.what, error.where, error.remedy), status, headers)

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = "/".join(str(part) for part in first["loc"])
        return JSONResponse(error_body(f"The request is not valid: {first['msg']}", where), 400)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse(error_body(str(error.detail), request.url.path), error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def _fault(request: Request, error: Exception) -> JSONResponse:
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return JSONResponse(
            error_body("The server failed at this request.", request.url.path, "The zone's log has the cause."), 500
        )

    return app


async def read_body(request: Request, limit: int) -> bytes:
    """Read a request's body, at most `limit` bytes.

    Raises:
        TooLarge: it is longer.
    """
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)
    pieces: list[bytes] = []
    size = 0
    async for piece in request.stream():
        size += len(piece)
        if size > limit:
            raise _too_large(limit)
        pieces.append(piece)
    return b"".join(pieces)


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The body is larger than {limit} bytes.")


class Signal:
    """Wakes long polls when something new has come. `notify` may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()

    def notify(self) -> None:
        """Wake everybody who waits."""
        with self._lock:
            waiting = tuple(self._waiting)
        for loop, event in waiting:
            try:
                loop.call_soon_threadsafe(event.set)
            except RuntimeError:  # that loop is closed; nobody waits there any more
                continue

    async def poll(self, look: Callable[[], Awaitable[T]], *, wait: float) -> T:
        """Return what `look` gives as soon as it gives something true, at the latest after `wait` seconds."""
        deadline = time.monotonic() + min(max(wait, 0.0), MAX_WAIT)
        while True:
            entry = (asyncio.get_running_loop(), asyncio.Event())
            with self._lock:
                self._waiting.add(entry)  # before looking, so that nothing slips between look and wait
            try:
                found = await look()
                left = deadline - time.monotonic()
                if found or left <= 0:
                    return found
                try:
                    await asyncio.wait_for(entry[1].wait(), left)
                except TimeoutError:
                    return await look()
            finally:
                with self._lock:
                    self._waiting.discard(entry)
