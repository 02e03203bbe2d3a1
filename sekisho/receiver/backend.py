"""The bridge from ASGI to `git http-backend` (RFC 3875 CGI): streaming both ways, bounded in bytes and time.

Once a body is in, git is left to finish whatever the pusher does: a commit that was sent is stored and queued even when
the connection breaks before the answer. What git still says then is read and thrown away.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from sekisho.receiver.repositories import MEMORY, git_command

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_CHUNK = 64 << 10
_MAX_HEADERS = 16 << 10
_MAX_COMPLAINT = 8 << 10
_LEAST_MEMORY = 256 << 20


@dataclass(frozen=True)
class Limits:
    """What one request may take."""

    body: int = 160 << 20
    """Bytes of a request's body, as they come over the wire."""
    idle: float = 60.0
    """Seconds without a byte from the client while its body is incomplete."""
    total: float = 1200.0
    """Seconds for all of a request, the gatekeeper's work included."""
    finish: float = 120.0
    """Seconds that git may go on once the client is gone."""
    pushes: int = 8
    """Pushes at one time."""
    requests: int = 64
    """Requests at one time, the stored remains of broken ones included."""
    memory: int = MEMORY
    """Bytes of address space of each git process."""


def memory_for(pushes: int) -> int:
    """Return the bytes that each git may have where so many pushes together leave half of this machine's memory."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(_LEAST_MEMORY, min(MEMORY, whole // 2 // pushes))


class BodyTooLarge(Exception):
    """The client sent more than the limit."""


class ClientGone(Exception):
    """The client went away or stopped sending before its body was complete."""


class GitProcess:
    """One `git http-backend`, in a process group of its own."""

    def __init__(self, process: asyncio.subprocess.Process, limits: Limits) -> None:
        self._process = process
        self._limits = limits
        self._complaint = asyncio.create_task(self._read_complaint())

    @classmethod
    async def start(cls, environment: dict[str, str], limits: Limits) -> GitProcess:
        """Start git with a CGI environment."""
        process = await asyncio.create_subprocess_exec(
            *git_command("http-backend", memory=limits.memory),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
            cwd="/",
            start_new_session=True,
            umask=0o027,
            limit=_MAX_HEADERS,
        )
        return cls(process, limits)

    async def feed(self, receive: Receive) -> None:
        """Copy the request's body to git, then wait for the client to go away; end it by cancelling.

        Raises:
            BodyTooLarge: the body is longer than the limit.
            ClientGone: the client went away, or sent nothing for too long while its body was incomplete.
        """
        stdin = self._process.stdin
        assert stdin is not None  # noqa: S101
        size = 0
        more = True
        while more:
            try:
                message = await asyncio.wait_for(receive(), self._limits.idle)
            except TimeoutError as error:
                raise ClientGone from error
            if message["type"] == "http.disconnect":
                raise ClientGone
            more = bool(message.get("more_body", False))
            body = message.get("body", b"")
            size += len(body)
            if size > self._limits.body:
                raise BodyTooLarge
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # git has read enough; it says why
                stdin.write(body)
                await stdin.drain()
        stdin.close()
        while (await receive())["type"] != "http.disconnect":
            pass
        raise ClientGone

    async def headers(self) -> tuple[int, list[tuple[bytes, bytes]]]:
        """Read git's CGI header: status and headers.

        Raises:
            ValueError: it ended early or is no header.
        """
        stdout = self._process.stdout
        assert stdout is not None  # noqa: S101
        status = 200
        found: list[tuple[bytes, bytes]] = []
        size = 0
        while True:
            line = await stdout.readline()
            size += len(line)
            if not line or size > _MAX_HEADERS:
                raise ValueError("git gave no answer")
            name, colon, value = line.strip().partition(b":")
            if not name:
                return status, found
            if not colon:
                raise ValueError("git gave a malformed header")
            if name.lower() == b"status":
                status = int(value.split()[0])
            else:
                found.append((name.lower(), value.strip()))

    async def read(self) -> bytes:
        """Return the next piece of git's answer; empty at its end."""
        assert self._process.stdout is not None  # noqa: S101
        return await self._process.stdout.read(_CHUNK)

    async def finish(self, seconds: float) -> None:
        """Throw away what git still says and wait for its end; kill it after `seconds`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while await self.read():
                    pass
                await self._process.wait()
        await self.kill()

    async def kill(self) -> None:
        """End git and everything it started; harmless when it ended by itself."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()
        complaint = await self._complaint
        if complaint and self._process.returncode:
            log.info("git http-backend: %s", complaint)

    async def close_input(self) -> None:
        """Tell git that nothing more comes; it refuses an incomplete pack by itself."""
        if self._process.stdin is not None:
            self._process.stdin.close()

    async def _read_complaint(self) -> str:
        stderr = self._process.stderr
        assert stderr is not None  # noqa: S101
        kept = b""
        while piece := await stderr.read(_CHUNK):
            kept = (kept + piece)[-_MAX_COMPLAINT:]
        return kept.decode("utf-8", "replace").strip()
