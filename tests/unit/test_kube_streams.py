"""Answers of an API server that go on."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from sekisho.errors import PermanentError, TemporaryError
from sekisho.kube import Kube
from sekisho.kube_streams import lines, watch

Serve = Callable[..., Kube]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Return what makes an API server that answers in pieces, and a client of it."""
    servers = []

    def make(*pieces: bytes, status: int = 200, cut: bool = False) -> Kube:
        asked: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                asked.append(self.path)
                self.send_response(status)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                for piece in pieces:
                    self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
                    self.wfile.flush()
                if not cut:
                    self.wfile.write(b"0\r\n\r\n")
                self.close_connection = True

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        config = {
            "apiVersion": "v1", "kind": "Config", "current-context": "x",
            "clusters": [{"name": "x", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
            "users": [{"name": "x", "user": {}}], "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
        }  # fmt: skip
        path = tmp_path / "kubeconfig"
        path.write_text(json.dumps(config))
        kube = Kube.connect(path)
        kube.asked = asked  # type: ignore[attr-defined]
        return kube

    yield make
    for server in servers:
        server.shutdown()


def event(kind: str, name: str) -> bytes:
    return json.dumps({"type": kind, "object": {"metadata": {"name": name}}}).encode() + b"\n"


def test_lines_come_whole_however_they_are_cut(serve: Serve) -> None:
    kube = serve(b"one\ntw", b"o\n", b"\nfour")
    assert list(lines(kube, "/x", {"follow": "true"})) == [b"one", b"two", b"", b"four"]
    assert kube.asked == ["/x?follow=true"]  # type: ignore[attr-defined]


def test_a_line_without_end_is_cut(serve: Serve) -> None:
    found = list(lines(serve(*[b"x" * 500_000] * 5, b"\ny\n"), "/x", {}))
    assert b"".join(found) == b"x" * 2_500_000 + b"y"
    assert max(map(len, found)) < 2_500_000


def test_an_answer_that_breaks_off_is_temporary(serve: Serve) -> None:
    answer = lines(serve(b"one\n", cut=True), "/x", {})
    assert next(answer) == b"one"
    with pytest.raises(TemporaryError, match="broke off"):
        next(answer)


def test_a_refusal_is_an_error(serve: Serve) -> None:
    body = json.dumps({"kind": "Status", "message": 'pods is forbidden: User "x" cannot list resource'}).encode()
    with pytest.raises(PermanentError, match="forbidden"):
        list(lines(serve(body, status=403), "/x", {}))


def test_a_watch_gives_objects(serve: Serve) -> None:
    kube = serve(event("ADDED", "a"), event("BOOKMARK", "b"), event("DELETED", "a"))
    found = [(kind, obj["metadata"]["name"]) for kind, obj in watch(kube, "/pods", {"labelSelector": "a=b"}, seconds=7)]
    assert found == [("ADDED", "a"), ("DELETED", "a")]
    assert kube.asked == ["/pods?labelSelector=a%3Db&watch=true&resourceVersion=0&timeoutSeconds=7"]  # type: ignore[attr-defined]


def test_a_watch_that_is_too_old_ends_and_any_other_error_is_raised(serve: Serve) -> None:
    def error(code: int) -> bytes:
        return (
            json.dumps({"type": "ERROR", "object": {"kind": "Status", "code": code, "message": "m"}}).encode() + b"\n"
        )

    assert list(watch(serve(error(410)), "/pods", {})) == []
    with pytest.raises(TemporaryError):
        list(watch(serve(error(500)), "/pods", {}))


@pytest.mark.parametrize("line", [b"nothing\n", b"[]\n", b'{"type": "ADDED"}\n'])
def test_what_is_no_event_is_an_error(serve: Serve, line: bytes) -> None:
    with pytest.raises(TemporaryError, match="no event"):
        list(watch(serve(line), "/pods", {}))
