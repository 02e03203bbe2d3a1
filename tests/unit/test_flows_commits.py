"""The book of commits: what a restarted line goes on with, and in which order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flows.commits import CommitBook, verdict_of
from flows.events import EventLog
from sekisho.canonical import digest_of
from sekisho.errors import Refusal
from sekisho.feed import CommitRecord
from sekisho.model import Result, Verdict


def commit(number: int) -> str:
    return f"{number:040x}"


def verdict(number: int, result: Result = Result.PASSED) -> Verdict:
    return Verdict(app="shop", commit=commit(number), result=result, policy=digest_of(b"policy"), reasons=())


def record(number: int, at: int, state: str, *, branch: str = "main", **more: Any) -> CommitRecord:
    fields = {"app": "shop", **more}
    return CommitRecord(commit=commit(number), branch=branch, at=at, state=state, **fields)  # type: ignore[arg-type]


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    return EventLog(tmp_path / "events")


@pytest.fixture
def book(tmp_path: Path, log: EventLog) -> CommitBook:
    return CommitBook(tmp_path / "commits", log)


def test_a_commit_comes_back_with_its_events(book: CommitBook, log: EventLog) -> None:
    assert book.commit("shop", commit(1)) is None
    book.put(record(1, 10, "running", events=({"stage": "stale"},)))
    log.write("shop", commit(1), {"stage": "build"})
    found = book.commit("shop", commit(1))
    assert found is not None
    assert [event["stage"] for event in found.events] == ["build"]
    assert book.commits("shop")[0].events == ()


def test_commits_are_told_newest_first(book: CommitBook) -> None:
    for number, at in ((1, 10), (2, 30), (3, 20)):
        book.put(record(number, at, "passed"))
    assert [item.at for item in book.commits("shop")] == [30, 20, 10]
    assert book.commits("forum") == ()
    assert [item.commit for item in book.commits("shop", commit(2)[:39])] == [commit(2), commit(3), commit(1)]
    assert [item.commit for item in book.commits("shop", commit(3))] == [commit(3)]
    assert book.commits("shop", "ffffff") == ()


def test_a_restarted_line_goes_on_in_the_order_of_the_pushes(book: CommitBook) -> None:
    # The names, which are hashes, sort the other way round.
    for number, at in ((9, 10), (5, 20), (7, 30), (1, 40)):
        book.put(record(number, at, "queued"))
    book.put(record(8, 20, "running"))
    book.put(record(3, 15, "passed", app="forum"))
    assert [item.commit for item in book.open_commits()] == [commit(number) for number in (9, 8, 5, 7, 1)]


def test_a_commit_that_a_newer_release_overtook_does_not_become_the_newest(book: CommitBook) -> None:
    book.put(record(1, 10, "error"))
    book.put(record(2, 20, "passed", verdict=verdict(2)))
    book.put(record(3, 10, "error", branch="topic"))
    book.put(record(4, 5, "error", app="forum"))
    book.put(record(5, 20, "failed", app="forum", verdict=verdict(5, Result.FAILED)))
    assert [item.commit for item in book.open_commits()] == [commit(4), commit(3)]


def test_the_newest_commit_of_each_branch(book: CommitBook) -> None:
    book.put(record(1, 10, "failed"))
    book.put(record(2, 20, "failed"))
    book.put(record(3, 15, "failed", branch="topic"))
    assert {item.commit for item in book.newest()} == {commit(2), commit(3)}


def test_one_damaged_record_hides_no_other(book: CommitBook, tmp_path: Path) -> None:
    book.put(record(1, 10, "queued"))
    (tmp_path / "commits" / "shop" / f"{commit(2)}.json").write_text('{"app": ')
    assert [item.commit for item in book.open_commits()] == [commit(1)]
    assert [item.commit for item in book.commits("shop")] == [commit(1)]
    assert book.commit("shop", commit(2)) is None


def test_the_last_verdict_counts() -> None:
    first, last = verdict(1, Result.FAILED), verdict(1)
    told = [{"verdict": first.model_dump(mode="json")}, {"stage": "x"}, {"verdict": last.model_dump(mode="json")}]
    assert verdict_of([]) is None
    assert verdict_of([{"stage": "line", "verdict": None}]) is None
    assert verdict_of(told) == last
    with pytest.raises(Refusal):
        verdict_of([{"verdict": {"result": "PASSED"}}])
