"""A proxy in front of a real registry that can be told to break: the Nth request that fits is answered badly."""

from __future__ import annotations

import re
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import BinaryIO
from urllib.parse import urlsplit

_OWN = {"connection", "transfer-encoding", "content-length", "keep-alive", "date", "server"}
FOR_EVER = 1 << 30


@dataclass(frozen=True)
class Reply:
    """One answer of the registry."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    cut: bool = False
    """Half of the body, then the connection ends."""


class Gone(Exception):
    """The connection ends without an answer."""


Answer = Callable[["Request"], Reply]


@dataclass(frozen=True)
class Request:
    """One request on its way; `forward` asks the real registry."""

    method: str
    path: str
    agent: str
    """What calls itself so: the scanner does, the line's own client does not."""
    forward: Callable[[], Reply]


@dataclass
class Rule:
    """Which requests are answered badly, and how."""

    method: str
    path: re.Pattern[str]
    answer: Answer
    nth: int
    times: int
    agent: str
    seen: int = 0
    hit: int = 0

    def takes(self, request: Request) -> bool:
        if not re.fullmatch(self.method, request.method) or not self.path.search(request.path):
            return False
        if self.agent not in request.agent:
            return False
        self.seen += 1
        if not self.nth <= self.seen < self.nth + self.times:
            return False
        self.hit += 1
        return True


@dataclass
class Proxy:
    """The proxy: its URL, what it was told, and what went through it."""

    url: str = ""
    upstream: str = ""
    rules: list[Rule] = field(default_factory=list)
    log: list[tuple[str, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def breaks(
        self, method: str, path: str, answer: Answer, *, nth: int = 1, times: int = FOR_EVER, agent: str = ""
    ) -> Rule:
        """Answer the Nth fitting request, and `times - 1` after it, with `answer`."""
        rule = Rule(method, re.compile(path), answer, nth, times, agent)
        self.rules.append(rule)
        return rule

    def mend(self) -> None:
        """Let everything through again."""
        self.rules.clear()
        self.log.clear()

    def answer(self, request: Request) -> Reply:
        with self.lock:
            self.log.append((request.method, request.path))
            rule = next((rule for rule in self.rules if rule.takes(request)), None)
        return rule.answer(request) if rule else request.forward()


def status(code: int) -> Answer:
    """The registry answers with an error and does nothing."""
    return lambda _: Reply(code, body=b'{"errors":[{"code":"UNKNOWN"}]}')


def lost(request: Request) -> Reply:
    """The registry does it and says that it did not."""
    request.forward()
    return Reply(500)


def gone(_: Request) -> Reply:
    """The registry is away."""
    raise Gone


def cut(request: Request) -> Reply:
    """The registry goes away in the middle of its answer."""
    return replace(request.forward(), cut=True)


def other_bytes(request: Request) -> Reply:
    """The registry answers 200 with other bytes of the same length."""
    reply = request.forward()
    headers = tuple(item for item in reply.headers if item[0].lower() != "docker-content-digest")
    return replace(reply, headers=headers, body=bytes(byte ^ 1 for byte in reply.body))


def slow(until: threading.Event) -> Answer:
    """The registry does not answer until the event is set."""

    def answer(_: Request) -> Reply:
        until.wait(60)
        raise Gone

    return answer


# -- on the wire ----------------------------------------------------------------------------------------------------
# Read and written by hand: http.server and http.client take most of a millisecond for each request on its way, and a
# test of the whole line sends hundreds.


@dataclass(frozen=True)
class _Head:
    """The first line of an HTTP message, in its three parts, and its headers."""

    first: tuple[str, str, str]
    headers: tuple[tuple[str, str], ...]

    def get(self, name: str) -> str:
        return next((value for key, value in self.headers if key.lower() == name), "")


def _head(stream: BinaryIO) -> _Head:
    """Read a message up to its body.

    Raises:
        Gone: the connection ended.
    """
    first, _, rest = stream.readline().decode("latin-1").rstrip("\r\n").partition(" ")
    second, _, third = rest.partition(" ")
    headers = []
    while line := stream.readline().decode("latin-1").rstrip("\r\n"):
        name, _, value = line.partition(":")
        headers.append((name, value.strip()))
    if not first:
        raise Gone
    return _Head((first, second, third), tuple(headers))


def _exactly(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise Gone
    return data


def _pieces(stream: BinaryIO) -> Iterator[bytes]:
    """Give the pieces of a chunked body."""
    while size := int(stream.readline().partition(b";")[0] or b"0", 16):
        yield _exactly(stream, size)
        stream.readline()
    while stream.readline().strip():
        pass


class _Upstream:
    """A connection to the real registry."""

    def __init__(self, url: str) -> None:
        target = urlsplit(url)
        self._socket = socket.create_connection((str(target.hostname), target.port or 80), timeout=30)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._answers = self._socket.makefile("rb")

    def ask(self, head: _Head, body: bytes) -> Reply:
        method, path, _ = head.first
        lines = [f"{method} {path} HTTP/1.1", *(f"{key}: {value}" for key, value in _kept(head))]
        if body or head.get("content-length"):
            lines.append(f"Content-Length: {len(body)}")
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        answer = _head(self._answers)
        status, length = int(answer.first[1]), answer.get("content-length")
        headers = _kept(answer)
        if method == "HEAD":
            return Reply(status, (*headers, *([("Content-Length", length)] if length else [])))
        if answer.get("transfer-encoding"):
            return Reply(status, headers, b"".join(_pieces(self._answers)))
        return Reply(status, headers, _exactly(self._answers, int(length or 0)))

    def close(self) -> None:
        self._answers.close()
        self._socket.close()


def _kept(head: _Head) -> tuple[tuple[str, str], ...]:
    return tuple(item for item in head.headers if item[0].lower() not in _OWN)


class _Handler(socketserver.StreamRequestHandler):
    disable_nagle_algorithm = True
    answer: Answer
    to: str
    upstream: _Upstream | None = None

    def handle(self) -> None:
        with suppress(Gone, OSError):
            while self.serve():
                pass

    def serve(self) -> bool:
        """Answer one request; tell whether the connection stays."""
        head = _head(self.rfile)
        body = _exactly(self.rfile, int(head.get("content-length") or 0))
        method, path, _ = head.first
        reply = type(self).answer(Request(method, path, head.get("user-agent"), lambda: self.forward(head, body)))
        lines = [f"HTTP/1.1 {reply.status} X", *(f"{key}: {value}" for key, value in reply.headers)]
        if not any(key.lower() == "content-length" for key, _ in reply.headers):
            lines.append(f"Content-Length: {0 if method == 'HEAD' else len(reply.body)}")
        said = b"" if method == "HEAD" else reply.body
        if reply.cut:
            said = said[: len(said) // 2]
        # One piece: two would wait for each other on a loopback with delayed acknowledgements.
        self.wfile.write("\r\n".join([*lines, "", ""]).encode("latin-1") + said)
        return not reply.cut and head.get("connection").lower() != "close"

    def forward(self, head: _Head, body: bytes) -> Reply:
        if self.upstream is None:
            self.upstream = _Upstream(self.to)
        return self.upstream.ask(head, body)

    def finish(self) -> None:
        if self.upstream is not None:
            self.upstream.close()
        super().finish()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 64


@contextmanager
def standing_before(upstream: str, answer: Answer) -> Iterator[str]:
    """Stand before a registry until the block ends, and answer each request with `answer`; give the URL."""
    handler = type("Handler", (_Handler,), {"answer": staticmethod(answer), "to": upstream})
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


@contextmanager
def running_proxy(upstream: str) -> Iterator[Proxy]:
    """Run a proxy in front of a registry until the block ends."""
    proxy = Proxy(upstream=upstream)
    with standing_before(upstream, proxy.answer) as proxy.url:
        yield proxy
