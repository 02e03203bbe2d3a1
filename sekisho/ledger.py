"""The ledger: append-only and hash-chained, kept in PostgreSQL.

Each entry's hash is over its sequence, the hash before it and its document's canonical JSON. Documents hold the signed
bytes themselves, so whoever has a copy of the ledger can check both the chain and every signature without trusting the
database, ops, or this program. A trigger refuses changes; the chain shows those that went around the trigger.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import BigInteger, Column, Connection, MetaData, Table, Text, UniqueConstraint, select, text

from sekisho.canonical import Digest, canonical, digest_of
from sekisho.errors import Refusal
from sekisho.model import Document

Kind = Literal["receipt", "decision"]

GENESIS = "sha256:" + "0" * 64
"""What the first entry follows."""

_APPENDING = 0x5E_C1_50
"""Key of the advisory lock that makes appending one at a time (PostgreSQL, explicit-locking)."""

METADATA = MetaData()

ledger_table = Table(
    "ledger",
    METADATA,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("prev_hash", Text, nullable=False),
    Column("document", Text, nullable=False),
    Column("hash", Text, nullable=False),
    UniqueConstraint("kind", "digest"),
)

CREATE_LEDGER = (
    """
    CREATE TABLE ledger (
        seq bigint PRIMARY KEY CHECK (seq > 0),
        kind text NOT NULL,
        digest text NOT NULL,
        prev_hash text NOT NULL,
        document text NOT NULL,
        hash text NOT NULL UNIQUE,
        UNIQUE (kind, digest)
    )
    """,
    """
    CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'the ledger is append-only' USING ERRCODE = 'insufficient_privilege'; END $$
    """,
    """
    CREATE TRIGGER ledger_append_only BEFORE UPDATE OR DELETE ON ledger
    FOR EACH ROW EXECUTE FUNCTION refuse_change()
    """,
    """
    CREATE TRIGGER ledger_keep BEFORE TRUNCATE ON ledger
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()
    """,
)
"""The schema's first migration, in order."""


@dataclass(frozen=True)
class Entry:
    """One row of the ledger, as it is stored."""

    seq: int
    kind: str
    digest: str
    prev_hash: str
    document: str
    hash: str

    @property
    def content(self) -> str:
        """The signed bytes, as text."""
        return str(json.loads(self.document)["content"])


class ChainReport(Document):
    """What a check of the chain found."""

    ok: bool
    entries: int
    """Entries that hold, from the first on."""
    head: str
    """Hash of the last entry that holds; write it down elsewhere to notice a ledger that was cut off."""
    broken_at: int | None = None
    why: str = ""


def link(seq: int, prev_hash: str, document: str) -> Digest:
    """Return the hash of an entry."""
    return digest_of(f"{seq}\n{prev_hash}\n{document}".encode())


def make_entry(seq: int, prev_hash: str, kind: Kind, digest: str, content: str) -> Entry:
    """Return the entry that follows `prev_hash`.

    Args:
        seq: its place, from 1.
        prev_hash: hash of the entry before, GENESIS for the first.
        kind: what the content is.
        digest: identity of what was signed; the same one is kept once.
        content: the signed bytes as they came (JSON text).

    Raises:
        Refusal: the content cannot be written as canonical JSON.
    """
    try:
        document = canonical({"kind": kind, "digest": digest, "content": content}).decode()
    except (ValueError, RecursionError) as error:
        raise Refusal("This cannot be written as canonical JSON.", where=digest) from error
    return Entry(seq, kind, digest, prev_hash, document, link(seq, prev_hash, document))


def verify_entries(entries: Iterable[Entry]) -> ChainReport:
    """Check a chain from its beginning. Pure: give it rows from anywhere."""
    expected, head = 1, GENESIS
    for entry in entries:
        why = _broken(entry, expected, head)
        if why:
            return ChainReport(ok=False, entries=expected - 1, head=head, broken_at=entry.seq, why=why)
        expected, head = expected + 1, entry.hash
    return ChainReport(ok=True, entries=expected - 1, head=head)


def _broken(entry: Entry, expected: int, head: str) -> str:
    if entry.seq != expected:
        return f"entry {expected} is missing"
    if entry.prev_hash != head:
        return "it does not follow the entry before it"
    if link(entry.seq, entry.prev_hash, entry.document) != entry.hash:
        return "its document is not what was written"
    try:
        document: dict[str, Any] = json.loads(entry.document)
        same = (document["kind"], document["digest"]) == (entry.kind, entry.digest)
    except (ValueError, KeyError, TypeError, RecursionError):
        return "its document cannot be read"
    return "" if same else "its columns are not those of its document"


class Ledger:
    """The ledger inside a database connection; the caller commits."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def append(self, kind: Kind, digest: str, content: str) -> tuple[Entry, bool]:
        """Add an entry, or find the one that is there; True when it was added.

        Appending is one at a time until the caller's transaction ends, so that sequences become visible in order.
        """
        self._connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _APPENDING})
        existing = self._connection.execute(
            select(ledger_table).where(ledger_table.c.kind == kind, ledger_table.c.digest == digest)
        ).one_or_none()
        if existing is not None:
            return Entry(*existing), False
        last = self._connection.execute(
            select(ledger_table.c.seq, ledger_table.c.hash).order_by(ledger_table.c.seq.desc()).limit(1)
        ).one_or_none()
        seq, head = (last.seq + 1, last.hash) if last is not None else (1, GENESIS)
        entry = make_entry(seq, head, kind, digest, content)
        self._connection.execute(ledger_table.insert().values(**vars(entry)))
        return entry, True

    def entries(self, after: int = 0, limit: int | None = None) -> Iterable[Entry]:
        """Yield the entries behind `after`, in order."""
        query = select(ledger_table).where(ledger_table.c.seq > after).order_by(ledger_table.c.seq).limit(limit)
        for row in self._connection.execute(query.execution_options(yield_per=200)):
            yield Entry(*row)

    def verify_chain(self) -> ChainReport:
        """Check the whole chain as it stands in the database."""
        return verify_entries(self.entries())
