"""A program's words are followed to its end: over connections that break off, none lost and none said twice."""

from __future__ import annotations

import queue
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from sekisho.errors import PermanentError, TemporaryError
from sekisho.kube import Ref
from stages.dev import logs as module
from stages.dev.logs import Logs, Shown

ONE = b"2026-11-21T12:00:00.1Z one"
TWO = b"2026-11-21T12:00:00.25Z two"
TOO = b"2026-11-21T12:00:00.250000000Z two, too"
THREE = b"2026-11-21T12:00:03Z three"
BROKEN = TemporaryError("The API server broke off.")


def pod(run: str = "c1", *, ended: bool = False) -> dict[str, Any]:
    state = {"terminated": {"exitCode": 0, "containerID": run}} if ended else {"running": {}}
    return {
        "metadata": {"name": "site-1"},
        "status": {"containerStatuses": [{"name": "web", "containerID": run, "state": state}]},
    }


class Server:
    """An API server whose connections say what they are given, in turn, and what it shows of the pod between them."""

    def __init__(self, *connections: list[bytes | Exception], shown: list[dict[str, Any] | Exception | None]) -> None:
        self.connections = list(connections)
        self.shown = shown
        self.asked: list[dict[str, str]] = []
        self.silences: set[float] = set()
        self.ended: queue.SimpleQueue[None] = queue.SimpleQueue()

    def lines(self, _kube: Any, path: str, query: Mapping[str, str], *, silence: float) -> Iterator[bytes]:
        assert path == "/api/v1/namespaces/dev-ann-site/pods/site-1/log"
        self.asked.append(dict(query))
        self.silences.add(silence)
        for said in self.connections.pop(0):
            if isinstance(said, Exception):
                raise said
            yield said

    def get(self, ref: Ref) -> dict[str, Any] | None:
        assert ref.name == "site-1"
        found = self.shown.pop(0)
        if not self.shown:
            self.ended.put(None)
        if isinstance(found, Exception):
            raise found
        return found


def said(server: Server, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what is shown of a pod until nobody asks any more."""
    for pause in ("_PAUSE", "_LONGEST_PAUSE", "_END_SECONDS"):
        monkeypatch.setattr(module, pause, 0.0)
    monkeypatch.setattr(module, "lines", server.lines)
    shown: list[str] = []
    follower = Logs(server, "dev-ann-site", lambda _, line: shown.append(line))  # type: ignore[arg-type]
    follower.follow((pod(),))
    follower.follow((pod(),))
    server.ended.get(timeout=60)
    return shown


def test_a_connection_that_breaks_off_again_and_again_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server([ONE, BROKEN], [BROKEN], [BROKEN], [BROKEN], [ONE, TWO], shown=[pod()] * 4 + [None])
    assert said(server, monkeypatch) == ["one", "two"]
    assert len(server.asked) == 5


def test_it_goes_on_behind_the_last_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server cuts the time to whole seconds, so what is known comes once more."""
    server = Server([ONE, TWO, BROKEN], [ONE, TWO, TOO, THREE], shown=[pod(), None])
    assert said(server, monkeypatch) == ["one", "two", "two, too", "three"]
    follow = {"container": "web", "follow": "true", "timestamps": "true"}
    assert server.asked == [{**follow, "tailLines": "500"}, {**follow, "sinceTime": "2026-11-21T12:00:00Z"}]


def test_a_server_that_is_away_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    away = TemporaryError("No answer.")
    server = Server([ONE, BROKEN], [ONE, TWO], shown=[away, away, pod(), None])
    assert said(server, monkeypatch) == ["one", "two"]


def test_the_words_of_the_next_container_are_not_taken_for_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server([ONE, BROKEN], shown=[pod("c2")])
    assert said(server, monkeypatch) == ["one"]


@pytest.mark.parametrize("end", [pod(ended=True), None, PermanentError("no right")])
def test_after_the_end_nobody_asks_any_more(end: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server([ONE], shown=[end])
    assert said(server, monkeypatch) == ["one"]
    assert len(server.asked) == 1


def test_what_ended_while_the_connection_was_down_is_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server([ONE, BROKEN], [ONE, BROKEN], [ONE, TWO, BROKEN], shown=[pod(ended=True)] * 2 + [None])
    assert said(server, monkeypatch) == ["one", "two"]
    assert [asked["follow"] for asked in server.asked] == ["true", "", ""]


def test_a_silent_connection_is_given_up_within_a_minute_or_so(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server([ONE], shown=[None])
    said(server, monkeypatch)
    assert server.silences == {60.0}


def test_lines_of_one_moment_are_counted() -> None:
    shown = Shown()
    assert list(shown.new(iter([TWO, TOO]))) == [b"two", b"two, too"]
    assert list(shown.new(iter([TWO, TOO, TOO, THREE]))) == [b"two, too", b"three"]
    assert list(shown.new(iter([TWO, TOO, TOO, THREE]))) == []


@pytest.mark.parametrize("stamp", [b"2026-11-21T13:00:00.25+01:00", b"2026-11-21T12:00:00.25Z"])
def test_a_nodes_own_time_zone_changes_nothing(stamp: bytes) -> None:
    shown = Shown()
    assert list(shown.new(iter([stamp + b" x"]))) == [b"x"]
    assert shown.query == {"sinceTime": "2026-11-21T12:00:00Z"}
    assert list(shown.new(iter([TWO, THREE]))) == [b"three"]


def test_what_has_no_time_is_the_nodes_own_word() -> None:
    assert list(Shown().new(iter([b"unable to retrieve container logs", b""]))) == [
        b"unable to retrieve container logs",
        b"",
    ]
