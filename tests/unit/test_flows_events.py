"""The event log: whole stories for readers, whatever is killed in the middle of a line."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path
from typing import Any

import pytest

from flows import events
from flows.events import EventLog
from sekisho.errors import TemporaryError

COMMIT = "c0ffee" + "0" * 34


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    return EventLog(tmp_path)


def path_of(tmp_path: Path) -> Path:
    return tmp_path / "shop" / f"{COMMIT}.jsonl"


def stages(found: list[dict[str, Any]]) -> list[str]:
    return [event["stage"] for event in found]


def test_events_come_back_in_order(log: EventLog) -> None:
    assert log.read("shop", COMMIT) == []
    log.write("shop", COMMIT, {"stage": "source", "message": "line\nbreak"})
    log.write("shop", COMMIT, {"stage": "build"})
    found = log.read("shop", COMMIT)
    assert stages(found) == ["source", "build"]
    assert found[0]["message"] == "line\nbreak"
    assert all(event["at"] > 0 for event in found)


def test_a_torn_line_costs_itself_only(log: EventLog, tmp_path: Path) -> None:
    log.write("shop", COMMIT, {"stage": "source"})
    with path_of(tmp_path).open("ab") as file:
        file.write(b'{"stage": "bui')
    assert stages(log.read("shop", COMMIT)) == ["source"]
    log.write("shop", COMMIT, {"stage": "verdict"})
    assert stages(log.read("shop", COMMIT)) == ["source", "verdict"]


def test_a_log_begins_anew(log: EventLog, tmp_path: Path) -> None:
    log.write("shop", COMMIT, {"stage": "source"})
    log.begin("shop", COMMIT)
    assert log.read("shop", COMMIT) == []
    assert [item.name for item in (tmp_path / "shop").iterdir()] == [f"{COMMIT}.jsonl"]


def test_a_full_disk_is_a_fault_and_not_silence(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "write", lambda _, data: len(data) - 1)
    with pytest.raises(TemporaryError, match=os.strerror(errno.ENOSPC)):
        log.write("shop", COMMIT, {"stage": "source"})


def test_followers_see_each_event_once_until_the_verdict(log: EventLog) -> None:
    async def run() -> list[str]:
        told: list[str] = []
        log.write("shop", COMMIT, {"stage": "source"})
        following = log.follow("shop", COMMIT, seconds=10)
        told.append((await anext(following) or {})["stage"])
        log.write("shop", COMMIT, {"stage": "build"})
        log.write("shop", COMMIT, {"stage": "verdict", "verdict": {}})
        log.write("shop", COMMIT, {"stage": "after the end"})
        told += [event["stage"] async for event in following if event]
        return told

    assert asyncio.run(run()) == ["source", "build", "verdict"]


def test_followers_are_told_a_story_that_began_anew_from_its_start(log: EventLog) -> None:
    async def run() -> list[str]:
        for stage in ("source", "build"):
            log.write("shop", COMMIT, {"stage": f"first {stage}"})
        following = log.follow("shop", COMMIT, seconds=10)
        told = [(await anext(following) or {})["stage"] for _ in range(2)]
        log.begin("shop", COMMIT)
        # As long as the first story was: its length alone tells nothing.
        for stage in ("source", "build"):
            log.write("shop", COMMIT, {"stage": f"second {stage}"})
        log.write("shop", COMMIT, {"stage": "verdict", "verdict": {}})
        return told + [event["stage"] async for event in following if event]

    assert asyncio.run(run()) == ["first source", "first build", "second source", "second build", "verdict"]


def test_a_quiet_log_keeps_its_followers_and_ends_in_time(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_KEEP_ALIVE", 0.0)
    monkeypatch.setattr(events, "_POLL", 0.001)

    async def run() -> list[Any]:
        return [event async for event in log.follow("shop", COMMIT, seconds=0.05)]

    found = asyncio.run(run())
    assert found
    assert set(found) == {None}


def test_a_log_that_does_not_change_is_not_read_again(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_POLL", 0.001)
    log.write("shop", COMMIT, {"stage": "source"})
    reads = []
    read = log.read
    monkeypatch.setattr(log, "read", lambda *subject: reads.append(subject) or read(*subject))

    async def run() -> list[Any]:
        return [event async for event in log.follow("shop", COMMIT, seconds=0.1) if event]

    assert stages(asyncio.run(run())) == ["source"]
    assert len(reads) == 1
