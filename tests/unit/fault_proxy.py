"""A proxy in front of a real registry that can be told to break: the Nth request that fits is answered badly."""

from __future__ import annotations

import http.client
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
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


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    proxy: Proxy
    upstream: http.client.HTTPConnection | None = None

    def serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        agent = self.headers.get("user-agent") or ""
        try:
            self.send(self.proxy.answer(Request(self.command, self.path, agent, lambda: self.forward(body))))
        except (Gone, OSError):
            self.close_connection = True

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = serve  # noqa: N815

    def forward(self, body: bytes) -> Reply:
        if self.upstream is None:
            target = urlsplit(self.proxy.upstream)
            self.upstream = http.client.HTTPConnection(str(target.hostname), target.port, timeout=30)
        headers = {key: value for key, value in self.headers.items() if key.lower() not in _OWN}
        self.upstream.request(self.command, self.path, body=body or None, headers=headers)
        response = self.upstream.getresponse()
        length = response.getheader("content-length")
        data = response.read()
        kept = [(key, value) for key, value in response.getheaders() if key.lower() not in _OWN]
        if self.command == "HEAD" and length:
            kept.append(("Content-Length", length))
        return Reply(response.status, tuple(kept), data)

    def send(self, reply: Reply) -> None:
        lines = [f"HTTP/1.1 {reply.status} X"]
        lines += [f"{key}: {value}" for key, value in reply.headers]
        if not any(key.lower() == "content-length" for key, _ in reply.headers):
            lines.append(f"Content-Length: {0 if self.command == 'HEAD' else len(reply.body)}")
        body = b"" if self.command == "HEAD" else reply.body
        if reply.cut:
            body = body[: len(body) // 2]
            self.close_connection = True
        # One piece: two would wait for each other on a loopback with delayed acknowledgements.
        self.wfile.write(("\r\n".join(lines) + "\r\n\r\n").encode() + body)

    def finish(self) -> None:
        if self.upstream is not None:
            self.upstream.close()
        super().finish()

    def log_message(self, *_: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64


@contextmanager
def running_proxy(upstream: str) -> Iterator[Proxy]:
    """Run a proxy in front of a registry until the block ends."""
    proxy = Proxy(upstream=upstream)
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": proxy}))
    proxy.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
