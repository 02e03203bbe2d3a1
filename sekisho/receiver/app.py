"""The receiver's HTTP face: smart HTTP only, each request by somebody with a token for that repository."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qs

from sekisho.errors import SekishoError, TemporaryError
from sekisho.receiver.answers import Explained
from sekisho.receiver.backend import BodyTooLarge, ClientGone, GitProcess, Limits, Message, Receive, Scope, Send
from sekisho.receiver.repositories import Repositories, git_environment
from sekisho.receiver.tokens import Pusher, Token, authenticate
from sekisho.web import status_of

log = logging.getLogger(__name__)

REALM = "Sekisho git: your user name and token"
_ROUTE = re.compile(r"/(?P<name>[^/]{1,100}?)(?:\.git)?/(?P<call>info/refs|git-upload-pack|git-receive-pack)")
_SERVICES = ("git-upload-pack", "git-receive-pack")
_MIN_FREE = 256 << 20
"""Bytes that must be free on the disk before a push is taken."""
_PROTOCOL = re.compile(r"[a-z0-9=:.-]{1,64}")
_RECONCILE_SECONDS = 60.0


@dataclass(frozen=True)
class Call:
    """One permitted request: what of git it asks for, and by whom."""

    name: str
    service: str
    advertise: bool
    pusher: Pusher

    @property
    def writes(self) -> bool:
        """Whether it is part of a push."""
        return self.service == "git-receive-pack"


class Answer(Exception):
    """An answer that needs no git."""

    def __init__(self, status: int, text: str, *headers: tuple[bytes, bytes]) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.headers = headers


class Receiver:
    """The ASGI application.

    Args:
        repositories: where pushes are stored.
        tokens: gives the tokens in force; called for every request, so that a revoked token is refused at once.
        zone_api: `host:port` of the build zone's process, for the hooks.
        limits: what one request may take.
    """

    def __init__(
        self,
        repositories: Repositories,
        tokens: Callable[[], tuple[Token, ...]],
        *,
        zone_api: str,
        limits: Limits | None = None,
    ) -> None:
        self._repositories = repositories
        self._tokens = tokens
        self._zone_api = zone_api
        self._limits = limits or Limits()
        self._pushes = 0
        self._requests = 0
        self._finishing: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or run for the server's lifetime."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        reconciling: asyncio.Task[None] | None = None
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                reconciling = asyncio.create_task(self._reconcile())
                await send({"type": "lifespan.startup.complete"})
            else:
                if reconciling:
                    reconciling.cancel()
                if self._finishing:
                    await asyncio.wait(self._finishing, timeout=self._limits.finish)
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _reconcile(self) -> None:
        while True:
            rescued = await asyncio.to_thread(self._repositories.reconcile)
            if rescued:
                log.warning("%d stored commits were not queued, because their push was killed; they are now.", rescued)
            await asyncio.sleep(_RECONCILE_SECONDS)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if scope["path"] == "/healthz" and scope["method"] == "GET":
                raise Answer(200, "ok")  # noqa: TRY301
            call = self._permitted(scope)
            await self._run(call, scope, receive, send)
        except Answer as answer:
            await _say(send, answer)
        except SekishoError as error:
            retry = ((b"retry-after", b"10"),) if isinstance(error, TemporaryError) else ()
            await _say(send, Answer(status_of(error), f"{error.what}\n{error.remedy}".strip(), *retry))

    def _permitted(self, scope: Scope) -> Call:
        """Return what a request may do.

        Raises:
            Answer: it may not, or is none.
        """
        route = _ROUTE.fullmatch(scope["path"])
        if route is None:
            raise Answer(404, "Nothing is here. Repositories are at /NAME.git, by git over smart HTTP.")
        pusher = authenticate(self._tokens(), _header(scope, b"authorization"))
        if pusher is None:
            challenge = (b"www-authenticate", f'Basic realm="{REALM}", charset="UTF-8"'.encode())
            raise Answer(401, "Give your user name and token.", challenge)
        name, advertise = route["name"], route["call"] == "info/refs"
        service = _service(scope) if advertise else route["call"]
        if scope["method"] != ("GET" if advertise else "POST"):
            raise Answer(405, "Wrong method.")
        self._repositories.path(name)
        if not pusher.may_use(name):
            own = ", ".join(pusher.repositories) or "none"
            raise Answer(403, f"{pusher.name} may not use the repository {name}. Own repositories: {own}.")
        call = Call(name, service, advertise, pusher)
        if not advertise and _header(scope, b"content-type") != f"application/x-{service}-request":
            raise Answer(415, "Wrong content type.")
        if _header(scope, b"content-encoding") not in ("", "gzip", "x-gzip", "identity"):
            raise Answer(415, "Unknown content encoding.")
        length = _header(scope, b"content-length")
        if length and (not (length.isascii() and length.isdigit()) or int(length) > self._limits.body):
            raise self._too_large()
        return call

    def _too_large(self) -> Answer:
        return Answer(413, f"A push may have at most {self._limits.body >> 20} MiB. Keep large files elsewhere.")

    async def _run(self, call: Call, scope: Scope, receive: Receive, send: Send) -> None:
        busy = call.writes and not call.advertise
        if self._requests >= self._limits.requests or (busy and self._pushes >= self._limits.pushes):
            raise Answer(503, "The receiver is busy. Push again in a few seconds.", (b"retry-after", b"5"))
        self._requests += 1
        self._pushes += busy
        try:
            if call.writes:
                await asyncio.to_thread(self._make_room, call.name)
            elif not self._repositories.exists(call.name):
                raise Answer(404, f"The repository {call.name} does not exist yet. The first push makes it.")
            git = await GitProcess.start(self._environment(call, scope), self._limits)
            await self._exchange(git, receive, send, busy=busy)
        finally:
            self._requests -= 1
            self._pushes -= busy

    def _make_room(self, name: str) -> None:
        if shutil.disk_usage(self._repositories.root).free < _MIN_FREE:
            raise TemporaryError(
                "The receiver's disk is full; nothing was stored.",
                where=name,
                remedy="Tell the platform team, and push again when there is space.",
            )
        self._repositories.ensure(name)

    def _environment(self, call: Call, scope: Scope) -> dict[str, str]:
        """Return the CGI environment: made here, with nothing of the request but what git must know."""
        encoding = _header(scope, b"content-encoding")
        protocol = _header(scope, b"git-protocol")
        optional = {
            "CONTENT_LENGTH": _header(scope, b"content-length"),
            "HTTP_CONTENT_ENCODING": "gzip" if encoding in ("gzip", "x-gzip") else "",
            "GIT_PROTOCOL": protocol if _PROTOCOL.fullmatch(protocol) else "",
        }
        return git_environment(
            GIT_PROJECT_ROOT=str(self._repositories.root.absolute()),
            GIT_HTTP_EXPORT_ALL="1",
            PATH_INFO=f"/{call.name}.git/{'info/refs' if call.advertise else call.service}",
            QUERY_STRING=f"service={call.service}" if call.advertise else "",
            REQUEST_METHOD="GET" if call.advertise else "POST",
            CONTENT_TYPE="" if call.advertise else f"application/x-{call.service}-request",
            REMOTE_USER=call.pusher.name,
            REMOTE_ADDR="-",
            SEKISHO_APP=call.name,
            SEKISHO_PUSHED_BY=call.pusher.name,
            SEKISHO_QUEUE=str(self._repositories.queue.absolute()),
            SEKISHO_ZONE_API=self._zone_api,
            **{name: value for name, value in optional.items() if value},
        )

    async def _exchange(self, git: GitProcess, receive: Receive, send: Send, *, busy: bool) -> None:
        state = _Sent(send)
        feeding = asyncio.create_task(git.feed(receive))
        producing = asyncio.create_task(_produce(git, state))
        try:
            done, _ = await asyncio.wait(
                (producing, feeding), timeout=self._limits.total, return_when=asyncio.FIRST_COMPLETED
            )
            for task in (producing, feeding):
                if task in done:
                    task.result()
                    break
            else:
                raise TimeoutError  # noqa: TRY301
            await git.finish(self._limits.finish)
        except (BodyTooLarge, TimeoutError, ValueError) as error:
            await git.kill()
            answer = self._fault(error)
            if state.begun:
                log.warning("An answer was cut off: %s", answer)
            else:
                raise answer from error
        except (ClientGone, OSError):
            self._leave(git, (feeding, producing), busy=busy)
        except asyncio.CancelledError:
            self._leave(git, (feeding, producing), busy=busy)
            raise
        finally:
            await _end(feeding)
            await _end(producing)

    def _fault(self, error: Exception) -> Answer:
        if isinstance(error, BodyTooLarge):
            return self._too_large()
        if isinstance(error, TimeoutError):
            return Answer(504, f"git took longer than {self._limits.total:.0f} s.")
        return Answer(500, f"{error}.")

    def _leave(self, git: GitProcess, tasks: Sequence[asyncio.Task[None]], *, busy: bool) -> None:
        """Let git finish in the background: the client is gone, what it sent completely is stored and queued.

        It stays a push until then: who hangs up has no more of git's memory than who waits.
        """

        async def finish() -> None:
            for task in tasks:  # two cannot read what git says
                await _end(task)
            await git.close_input()
            await git.finish(self._limits.finish)

        def left(task: asyncio.Task[None]) -> None:
            self._requests -= 1
            self._pushes -= busy
            self._finishing.discard(task)

        self._requests += 1
        self._pushes += busy
        task = asyncio.create_task(finish())
        self._finishing.add(task)
        task.add_done_callback(left)


class _Sent:
    """Remembers whether an answer has begun."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = False

    async def __call__(self, message: Message) -> None:
        self.begun = True
        await self._send(message)


async def _produce(git: GitProcess, send: Send) -> None:
    status, headers = await git.headers()
    await send({"type": "http.response.start", "status": status, "headers": headers})
    answer = Explained(pushed=(b"content-type", b"application/x-git-receive-pack-result") in headers)
    while piece := await git.read():
        if said := answer.piece(piece):
            await send({"type": "http.response.body", "body": said, "more_body": True})
    await send({"type": "http.response.body", "body": answer.end()})


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, ClientGone, BodyTooLarge, OSError, ValueError):
        await task


def _service(scope: Scope) -> str:
    asked = parse_qs(scope["query_string"].decode("latin-1"), max_num_fields=8).get("service", [""])
    if len(asked) != 1 or asked[0] not in _SERVICES:
        raise Answer(403, "Only smart HTTP is spoken here: use git 1.6.6 or later.")
    return str(asked[0])


def _header(scope: Scope, name: bytes) -> str:
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value).decode("latin-1").strip()
    return ""


async def _say(send: Send, answer: Answer) -> None:
    body = answer.text.encode("utf-8", "replace") + b"\n"
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        *answer.headers,
    ]
    start: Message = {"type": "http.response.start", "status": answer.status, "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": body})
