"""The release feed: its journal through crashes, and its HTTP face through the real client."""

from __future__ import annotations

import json
import multiprocessing
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sekisho.clients import FeedClient
from sekisho.errors import PermanentError, Refusal, TemporaryError, VerificationError
from sekisho.feed import CommitRecord, FeedStore, ProgressStore, create_feed_app
from sekisho.journal import Journal
from sekisho.model import Offer, Reason, Receipt, Result, Verdict
from sekisho.receipts import receipt_statement, verify_receipt
from sekisho.statements import sign_statement

from .serving import BROWSER, serve

COMMIT = "c" * 40


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


def offer(store: FeedStore, number: int, app: str = "guestbook") -> Offer:
    return store.append(app=app, release=digest(number), summary=digest(1000 + number), commit=COMMIT)


# -- the journal -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("torn", [b"x", b'{"half": ', b'{"whole": 1}'])
def test_a_torn_last_line_never_counts_and_is_cut_off(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "deep" / "lines"
    Journal(path).append(b"one")
    with path.open("ab") as file:
        file.write(torn)
    journal = Journal(path)
    assert journal.lines() == (b"one",)
    journal.append(b"two")
    assert path.read_bytes() == b"one\ntwo\n"
    assert Journal(path).lines() == journal.lines() == (b"one", b"two")


@pytest.mark.parametrize("line", [b"", b"a\nb", b"x" * (1 << 21)])
def test_only_one_line_is_a_record(tmp_path: Path, line: bytes) -> None:
    with pytest.raises(ValueError, match="one line"):
        Journal(tmp_path / "lines").append(line)
    assert Journal(tmp_path / "lines").lines() == ()


def test_a_journal_that_was_cut_under_a_running_process_is_noticed(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "lines")
    journal.append(b"one")
    journal.path.write_bytes(b"")
    with pytest.raises(PermanentError):
        journal.lines()
    with pytest.raises(PermanentError):
        journal.append(b"two")


def test_a_disk_that_cannot_take_it_is_temporary(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    with pytest.raises(TemporaryError):
        Journal(tmp_path / "file" / "lines").append(b"x")


def _append_many(path: Path, name: int) -> None:
    store = Journal(path)
    for number in range(25):
        store.append(f"{name}-{number}".encode())


def test_processes_do_not_tear_each_others_lines(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_append_many, args=(tmp_path / "lines", name)) for name in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(Journal(tmp_path / "lines").lines()) == sorted(
        f"{name}-{number}".encode() for name in range(3) for number in range(25)
    )


# -- the store ---------------------------------------------------------------------------------------------------


def test_offers_are_numbered_kept_and_made_once(tmp_path: Path) -> None:
    store = FeedStore(tmp_path / "feed")
    first, second = offer(store, 1), offer(store, 2)
    assert offer(store, 1) == first
    assert offer(store, 1, app="other").sequence == 3
    assert [item.sequence for item in store.offers()] == [1, 2, 3]
    assert store.offers(after=1)[0] == second
    assert store.offers(after=99) == ()
    assert FeedStore(tmp_path / "feed").offers() == store.offers()
    assert store.offer(digest(2)) == second
    assert store.offer(digest(9)) is None


@pytest.mark.parametrize("change", [b'{"sequence": 7}\n', b"rubbish\n", b"swap"])
def test_a_damaged_feed_is_not_served(tmp_path: Path, change: bytes) -> None:
    store = FeedStore(tmp_path / "feed")
    offer(store, 1)
    offer(store, 2)
    lines = (tmp_path / "feed").read_bytes().splitlines(keepends=True)
    (tmp_path / "feed").write_bytes(lines[1] + lines[0] if change == b"swap" else lines[0] + change)
    with pytest.raises(PermanentError, match="damaged"):
        FeedStore(tmp_path / "feed").offers()


# -- over HTTP ---------------------------------------------------------------------------------------------------


class Book:
    """One commit, as the zone's process would tell."""

    record = CommitRecord(
        app="guestbook",
        commit=COMMIT,
        branch="main",
        at=1,
        state="passed",
        release=digest(1),
        events=({"stage": "build"},),
    )

    def commits(self, app: str, prefix: str = "") -> tuple[CommitRecord, ...]:
        return (self.record,) if app == "guestbook" and COMMIT.startswith(prefix) else ()

    def commit(self, app: str, commit: str) -> CommitRecord | None:
        return self.record if (app, commit) == ("guestbook", COMMIT) else None


@pytest.fixture
def store(tmp_path: Path) -> FeedStore:
    return FeedStore(tmp_path / "feed")


@pytest.fixture
def url(store: FeedStore, tmp_path: Path, trust) -> Iterator[str]:
    app = create_feed_app(
        store,
        lambda wanted: b'{"bundle": true}' if wanted == digest(1) else None,
        commits=Book(),
        progress=ProgressStore(tmp_path / "progress"),
        verify=lambda data: verify_receipt(data, trust),
    )
    with serve(app) as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[FeedClient]:
    with FeedClient(url) as client:
        yield client


def test_the_feed_is_read_from_where_it_was_left(store: FeedStore, client: FeedClient) -> None:
    made = tuple(offer(store, number) for number in range(1, 4))
    assert tuple(client.offers()) == made
    assert tuple(client.offers(after=2)) == made[2:]
    assert client.page(after=3) == ((), 3)
    assert client.page(after=9) == ((), 3)


def test_a_feed_longer_than_a_page_is_read_to_its_end(
    store: FeedStore, client: FeedClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tuple(offer(store, number) for number in range(1, 8))
    monkeypatch.setattr("sekisho.feed.PAGE", 3)
    assert client.page() == (made[:3], 7)
    assert tuple(client.offers()) == made
    assert tuple(client.offers(after=4)) == made[4:]


def test_a_feed_without_an_end_is_not_followed_for_ever(
    store: FeedStore, client: FeedClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tuple(offer(store, number) for number in range(1, 8))
    monkeypatch.setattr("sekisho.feed.PAGE", 3)
    monkeypatch.setattr("sekisho.clients._MAX_PAGES", 2)
    walk = client.offers()
    assert tuple(next(walk) for _ in range(6)) == made[:6]
    with pytest.raises(PermanentError, match="does not end"):
        next(walk)


def test_a_long_poll_ends_when_something_comes(store: FeedStore, client: FeedClient) -> None:
    found: list[tuple[Offer, ...]] = []
    reader = threading.Thread(target=lambda: found.append(client.page(0, wait=20)[0]))
    reader.start()
    made = offer(store, 1)
    reader.join(10)
    assert found == [(made,)]


def test_a_long_poll_without_news_ends_with_nothing(client: FeedClient) -> None:
    assert client.page(0, wait=0.05) == ((), 0)


def test_only_offered_bundles_are_handed_out(store: FeedStore, client: FeedClient) -> None:
    with pytest.raises(Refusal, match="does not offer"):
        client.bundle(digest(1))
    offer(store, 1)
    offer(store, 2)
    assert client.bundle(digest(1)) == b'{"bundle": true}'
    with pytest.raises(Refusal, match="does not offer"):
        client.bundle(digest(2))
    with pytest.raises(Refusal, match="not a sha256 digest"):
        client.bundle("../../etc/passwd")


@pytest.mark.parametrize(
    "path",
    [
        "/feed?after=-1",
        "/feed?after=x",
        "/feed?wait=26",
        "/feed?wait=nan",
        "/feed?after=99999999999999999999",
        "/releases/x/bundle",
        "/commits/A",
        "/commits/a/b",
        f"/commits/guestbook/{COMMIT}/verdict?format=html",
    ],
)
def test_malformed_questions_are_answered_in_words(url: str, path: str) -> None:
    answer = BROWSER.get(url + path)
    assert answer.status_code == 400
    assert set(answer.json()) == {"what", "where", "remedy"}


def test_a_verdict_in_each_of_its_forms(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    page = f"{url}/commits/guestbook/{COMMIT}/verdict"
    assert BROWSER.get(page).status_code == 404
    reason = Reason(rule="scan/secrets", stage="scan", result="fail", message="A key", where="a.py:3")
    verdict = Verdict(
        app="guestbook", commit=COMMIT, result=Result.FAILED, policy=digest(2), reasons=(reason,), notes=("\x1b[2J",)
    )
    monkeypatch.setattr(Book, "record", Book.record.model_copy(update={"verdict": verdict}))
    text = BROWSER.get(page)
    assert text.headers["content-type"] == "text/plain; charset=utf-8"
    assert "  x scan/secrets: A key [a.py:3]\n" in text.text
    assert "\x1b" not in text.text
    assert Verdict.parse(BROWSER.get(page, params={"format": "json"}).content) == verdict
    sarif = BROWSER.get(page, params={"format": "sarif"})
    assert sarif.headers["content-type"] == "application/sarif+json"
    assert sarif.json()["runs"][0]["results"][0]["ruleId"] == "scan/secrets"
    assert BROWSER.get(page.replace("guestbook", "forum")).status_code == 404


def signed(signers, *, zone: str = "staging", key: str = "staging", **fields) -> bytes:
    receipt = Receipt(zone=zone, app="guestbook", release=digest(1), commit=COMMIT, event="healthy", at=5, **fields)
    return sign_statement(receipt_statement(receipt), signers[key])


def test_progress_is_shown_with_the_commit_and_without_its_body(client: FeedClient, signers) -> None:
    bundle = signed(signers, message="it runs", body={"internal": "10.77.50.20"})
    assert client.tell_progress(bundle) is True
    assert client.tell_progress(bundle) is False
    shown = client.commit("guestbook", COMMIT)
    assert shown["events"] == [{"stage": "build"}]
    assert [(item["zone"], item["event"], item["message"]) for item in shown["progress"]] == [
        ("staging", "healthy", "it runs")
    ]
    assert "10.77.50.20" not in json.dumps(shown)
    assert client.commits("guestbook")[0]["progress"] == shown["progress"]
    assert client.commits("guestbook", COMMIT[:7])[0]["commit"] == COMMIT
    assert client.commits("guestbook", "000000") == []
    with pytest.raises(Refusal):
        client.commits("guestbook", "../x")
    with pytest.raises(Refusal, match="No such commit"):
        client.commit("guestbook", "d" * 40)


@pytest.mark.parametrize(
    ("zone", "key"),
    [("production", "staging"), ("staging", "verifier"), ("staging", "stranger"), ("nowhere", "staging")],
)
def test_progress_of_the_wrong_key_is_refused(client: FeedClient, signers, zone: str, key: str) -> None:
    with pytest.raises(VerificationError):
        client.tell_progress(signed(signers, zone=zone, key=key))
    assert client.commit("guestbook", COMMIT)["progress"] == []


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"\xff", b'{"dsseEnvelope": {"payload": "x"}}', b"[" * 100_000])
def test_progress_that_is_no_receipt_is_refused(url: str, body: bytes) -> None:
    answer = BROWSER.post(f"{url}/progress", content=body)
    assert answer.status_code in (403, 422)
    assert answer.json()["what"]


def test_a_body_over_the_limit_is_refused(url: str) -> None:
    assert BROWSER.post(f"{url}/progress", content=b"x" * ((8 << 20) + 1)).status_code == 413


def test_a_feed_without_commits_or_progress_has_no_such_pages(store: FeedStore) -> None:
    with serve(create_feed_app(store, lambda _: None)) as url:
        assert BROWSER.get(f"{url}/commits/guestbook").status_code == 404
        assert BROWSER.post(f"{url}/progress", content=b"{}").status_code == 404
        assert BROWSER.get(f"{url}/healthz").json() == {"ok": True, "last": 0}
    with pytest.raises(ValueError, match="verified"):
        create_feed_app(store, lambda _: None, progress=ProgressStore(Path("progress")))


def test_progress_is_known_to_a_new_process_and_told_once(tmp_path: Path) -> None:
    def receipt(event: str, app: str = "shop") -> Receipt:
        return Receipt(zone="staging", app=app, release=digest(1), commit=COMMIT, event=event, at=1)

    first = ProgressStore(tmp_path / "progress")
    assert [first.append(receipt("received")), first.append(receipt("received"))] == [True, False]
    second = ProgressStore(tmp_path / "progress")
    assert not second.append(receipt("received"))
    assert second.append(receipt("healthy"))
    assert second.append(receipt("healthy", app="forum"))
    for store in (first, second):
        assert [item.event for item in store.of("shop", COMMIT)] == ["received", "healthy"]
        assert [item.event for item in store.of("shop", "f" * 40, digest(1))] == ["received", "healthy"]
        assert store.of("shop", "f" * 40) == ()
