"""Registries that misbehave: a server that says what a test tells it, and a proxy that breaks a real one's answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import fault_proxy

from sekisho.registry import Registry

Reply = tuple[int, dict[str, str], bytes]
Fault = str
"""`500`, `429`: answered so, not passed on. `gone`: not even answered. `lost`: done, but the answer is not heard.
`cut`: done, and half of the answer comes. `slow`: done, but answered after the client's patience."""


@contextmanager
def _serving(answer: Callable[[BaseHTTPRequestHandler, bytes], None]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1  # head and body in one packet: nothing waits for an acknowledgement

        def _any(self):
            answer(self, self.rfile.read(int(self.headers.get("Content-Length", 0))))

        do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _any  # noqa: N815

        def log_message(self, *_):
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{httpd.server_port}"
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join()


@contextmanager
def server(answer: Callable[[str, str, int], Reply | None]) -> Iterator[tuple[Registry, list[str]]]:
    """Serve what `answer(method, path, count)` says; None breaks the connection off."""
    seen: list[str] = []

    def respond(handler: BaseHTTPRequestHandler, _: bytes) -> None:
        seen.append(f"{handler.command} {handler.path} {handler.headers.get('Range', '')}".strip())
        reply = answer(handler.command, handler.path, len(seen))
        if reply is None:
            handler.close_connection = True
            return
        status, headers, body = reply
        handler.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            handler.send_header(name, value)
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(body)
        if "Content-Length" in headers:
            handler.close_connection = True

    with _serving(respond) as url:
        yield Registry(url, timeout=2), seen


@contextmanager
def faulty(
    url: str, plan: Callable[[int, str, str], Fault], *, patience: float = 1.0
) -> Iterator[tuple[str, list[str]]]:
    """Stand before the registry at `url`; `plan(count, method, path)` says what goes wrong, or nothing.

    Gives the proxy's URL and the requests that came.
    """
    seen: list[str] = []
    guard = threading.Lock()

    def answer(request: fault_proxy.Request) -> fault_proxy.Reply:
        with guard:
            seen.append(f"{request.method} {request.path}")
            fault = plan(len(seen), request.method, request.path)
        if fault == "gone":
            raise fault_proxy.Gone
        if fault.isdecimal():
            return fault_proxy.Reply(int(fault))
        if fault == "cut":
            return fault_proxy.cut(request)
        reply = request.forward()
        if fault == "slow":
            time.sleep(patience)
        if fault in {"lost", "slow"}:
            raise fault_proxy.Gone
        return reply

    with fault_proxy.standing_before(url, answer) as proxy:
        yield proxy, seen
