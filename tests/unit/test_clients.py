"""The clients against servers that misbehave: every fault has its type, nothing is read without end."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from sekisho.clients import MAX_JSON, FeedClient, OpsClient, ZoneClient
from sekisho.errors import PermanentError, Refusal, SekishoError, TemporaryError, VerificationError

OFFER = {"app": "a", "release": "sha256:" + "1" * 64, "summary": "sha256:" + "2" * 64, "commit": "c" * 40}


@contextmanager
def answering(status: int, body: bytes, **headers: str) -> Iterator[tuple[str, list[tuple[str, str, bytes]]]]:
    asked: list[tuple[str, str, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def _answer(self) -> None:
            asked.append((self.command, self.path, self.rfile.read(int(self.headers.get("content-length", 0)))))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = _answer  # noqa: N815

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


def test_plain_http_reads_no_authorities_and_https_trusts_the_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[bool] = []
    create = httpx.create_ssl_context

    def reads(**more: bool) -> ssl.SSLContext:
        read.append(True)
        return create(**more)

    monkeypatch.setattr(httpx, "create_ssl_context", reads)
    with answering(200, b"{}") as (url, _), FeedClient(url) as client:
        client.healthz()
    assert read == []
    FeedClient("https://127.0.0.1:1").close()
    assert read == [True]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (503, TemporaryError),
        (429, TemporaryError),
        (502, TemporaryError),
        (403, VerificationError),
        (404, Refusal),
        (422, Refusal),
        (413, Refusal),
        (500, PermanentError),
        (302, PermanentError),
    ],
)
def test_a_status_becomes_the_right_error_with_the_servers_words(status: int, kind: type[SekishoError]) -> None:
    body = json.dumps({"what": "No.", "where": "there", "remedy": "do this"}).encode()
    with answering(status, body, location="http://127.0.0.1:1/") as (url, _), pytest.raises(kind) as caught:
        OpsClient(url).apps()
    assert type(caught.value) is kind
    assert (caught.value.what, caught.value.where, caught.value.remedy) == ("No.", "there", "do this")


@pytest.mark.parametrize("body", [b"", b"plain", b"[]", b"\xff\xfe", b'{"what": 5}', b"[" * 50_000])
def test_an_error_without_words_says_its_status(body: bytes) -> None:
    with answering(404, body) as (url, _), pytest.raises(Refusal) as caught:
        OpsClient(url).healthz()
    assert "404" in caught.value.what or caught.value.what == "5"
    assert url in caught.value.where


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:1", "http://127.0.0.1:99999", "ftp://x", "not a url", "http://", "http://no-such-host.invalid"],
)
def test_what_cannot_be_reached_is_said_in_one_type(url: str) -> None:
    with pytest.raises((TemporaryError, Refusal)):
        OpsClient(url).healthz()


@pytest.mark.parametrize("body", [b"no json", b"[]", b'{"apps": {}}', b'{"apps": [1]}', b"{}"])
def test_an_answer_of_another_form_is_a_fault_of_the_server(body: bytes) -> None:
    with answering(200, body) as (url, _), pytest.raises(PermanentError):
        OpsClient(url).apps()


def test_no_answer_is_read_without_end() -> None:
    with answering(200, b" " * (MAX_JSON + 1)) as (url, _), pytest.raises(PermanentError, match="larger than"):
        OpsClient(url).apps()


@pytest.mark.parametrize("sequences", [[1, 3], [2], [2, 1], [1, 1]])
def test_a_feed_with_gaps_is_not_believed(sequences: list[int]) -> None:
    body = json.dumps({"offers": [{**OFFER, "sequence": number} for number in sequences], "last": 9}).encode()
    with answering(200, body) as (url, _), pytest.raises(PermanentError, match="gap"):
        FeedClient(url).page()


@pytest.mark.parametrize(
    "answer", [{"offers": [{}], "last": 1}, {"offers": 1, "last": 1}, {"offers": [], "last": True}]
)
def test_a_malformed_feed_is_refused(answer: object) -> None:
    with answering(200, json.dumps(answer).encode()) as (url, _), pytest.raises((Refusal, PermanentError)):
        FeedClient(url).page()


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with answering(200, b'{"ok": true}') as (url, _):
        assert OpsClient(url).healthz() == {"ok": True}


def test_a_zones_events_end_with_the_verdict() -> None:
    lines = b'{"stage": "build"}\n\n{"verdict": {"result": "PASSED"}}\n'
    with answering(200, lines) as (url, asked):
        client = ZoneClient(url)
        assert list(client.events("a", "c" * 40)) == [{"stage": "build"}, {"verdict": {"result": "PASSED"}}]
        assert asked == [("GET", f"/pushes/a/{'c' * 40}/events", b"")]
    with answering(200, b"[1]\n") as (url, _), pytest.raises(PermanentError):
        list(ZoneClient(url).events("a", "c" * 40))
    with answering(202, b'{"app": "a"}') as (url, asked):
        assert ZoneClient(url).push(app="a", commit="c", branch="main", pushed_by="alice") == {"app": "a"}
        assert json.loads(asked[0][2]) == {"app": "a", "commit": "c", "branch": "main", "pushed_by": "alice"}
