"""The hash-chained ledger: pure rules by property, and the table's own defence on a real PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from sekisho.errors import Refusal
from sekisho.ledger import GENESIS, Entry, Ledger, make_entry, verify_entries
from sekisho.ops.schema import migrate

from .pg_fixture import fresh_engine


def chain(contents: list[str]) -> list[Entry]:
    entries: list[Entry] = []
    for content in contents:
        head = entries[-1].hash if entries else GENESIS
        entries.append(make_entry(len(entries) + 1, head, "receipt", f"sha256:{len(entries):064d}", content))
    return entries


CONTENTS = st.lists(st.text(st.characters(codec="utf-8"), max_size=20), min_size=1, max_size=8)


@given(CONTENTS)
def test_a_chain_as_it_was_written_holds(contents: list[str]) -> None:
    entries = chain(contents)
    report = verify_entries(entries)
    assert (report.ok, report.entries, report.head) == (True, len(contents), entries[-1].hash)
    assert [entry.content for entry in entries] == contents


@settings(max_examples=60)
@given(CONTENTS, st.data())
def test_any_change_of_any_field_is_found(contents: list[str], data: st.DataObject) -> None:
    entries = chain(contents)
    index = data.draw(st.integers(0, len(entries) - 1))
    field = data.draw(st.sampled_from(["seq", "kind", "digest", "prev_hash", "document", "hash"]))
    old = getattr(entries[index], field)
    entries[index] = replace(entries[index], **{field: old + 1 if field == "seq" else old + " "})
    report = verify_entries(entries)
    assert not report.ok
    assert report.entries in (index, index + 1)


@given(st.lists(st.text("ab", max_size=3), min_size=3, max_size=6), st.data())
def test_what_is_taken_out_or_swapped_is_found(contents: list[str], data: st.DataObject) -> None:
    entries = chain(contents)
    index = data.draw(st.integers(0, len(entries) - 2))
    assert not verify_entries(entries[:index] + entries[index + 1 :]).ok
    entries[index], entries[index + 1] = entries[index + 1], entries[index]
    assert not verify_entries(entries).ok


def test_a_rewritten_entry_needs_every_later_hash() -> None:
    entries = chain(["a", "b", "c"])
    entries[1] = make_entry(2, entries[0].hash, "receipt", entries[1].digest, "B")
    report = verify_entries(entries)
    assert (report.ok, report.broken_at, report.entries) == (False, 3, 2)


def test_content_without_a_canonical_form_is_refused() -> None:
    with pytest.raises(Refusal):
        make_entry(1, GENESIS, "receipt", "sha256:" + "0" * 64, "\ud800")


# -- in PostgreSQL -----------------------------------------------------------------------------------------------


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = fresh_engine()
    migrate(engine)
    yield engine
    engine.dispose()


def digest(number: int) -> str:
    return f"sha256:{number:064d}"


def test_entries_are_added_once_in_order(engine: Engine) -> None:
    with engine.begin() as connection:
        ledger = Ledger(connection)
        first, added = ledger.append("receipt", digest(1), '{"a": 1}')
        again, added_again = ledger.append("receipt", digest(1), '{"a": 2}')
        other, _ = ledger.append("decision", digest(1), "\u0000 is kept")
        assert (added, added_again, first, other.prev_hash) == (True, False, again, first.hash)
        assert list(ledger.entries()) == [first, other]
        assert [entry.content for entry in ledger.entries(after=1)] == ["\u0000 is kept"]
        assert ledger.verify_chain().head == other.hash


@pytest.mark.parametrize(
    "statement", ["UPDATE ledger SET document = ''", "DELETE FROM ledger", "TRUNCATE ledger CASCADE"]
)
def test_the_database_refuses_changes(engine: Engine, statement: str) -> None:
    with engine.begin() as connection:
        Ledger(connection).append("receipt", digest(1), "x")
    with pytest.raises(DBAPIError, match="append-only"), engine.begin() as connection:
        connection.execute(text(statement))
    with engine.begin() as connection:
        assert Ledger(connection).verify_chain().entries == 1


def test_a_change_around_the_trigger_is_found(engine: Engine) -> None:
    with engine.begin() as connection:
        for number in range(5):
            Ledger(connection).append("receipt", digest(number), str(number))
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE ledger DISABLE TRIGGER ALL"))
        connection.execute(text("UPDATE ledger SET document = replace(document, '\"2\"', '\"7\"') WHERE seq = 3"))
    with engine.begin() as connection:
        report = Ledger(connection).verify_chain()
    assert (report.ok, report.broken_at, report.entries) == (False, 3, 2)


def test_a_transaction_that_fails_leaves_no_gap(engine: Engine) -> None:
    with engine.connect() as connection:
        Ledger(connection).append("receipt", digest(1), "lost")
        connection.rollback()
    with engine.begin() as connection:
        entry, _ = Ledger(connection).append("receipt", digest(2), "kept")
    assert (entry.seq, entry.prev_hash) == (1, GENESIS)
    assert json.loads(entry.document) == {"kind": "receipt", "digest": digest(2), "content": "kept"}
