"""The tables of ops and their numbered migrations.

The ledger is the truth; all other tables are read models made from it in the same transaction, except `releases` and
`cursors`, which hold what the build zone's feed said and how far it was read.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Engine, Table, Text, text

from sekisho.errors import PermanentError
from sekisho.ledger import CREATE_LEDGER, METADATA

_MIGRATING = 0x5E_C1_51

receipts = Table(
    "receipts",
    METADATA,
    Column("seq", BigInteger, primary_key=True),
    Column("digest", Text, nullable=False),
    Column("zone", Text, nullable=False),
    Column("app", Text, nullable=False),
    Column("release", Text, nullable=False),
    Column("commit", Text, nullable=False),
    Column("event", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("plan", Text, nullable=False),
    Column("body", Text, nullable=False),
)

plans = Table(
    "plans",
    METADATA,
    Column("digest", Text, primary_key=True),
    Column("app", Text, nullable=False),
    Column("zone", Text, nullable=False),
    Column("release", Text, nullable=False),
    Column("commit", Text, nullable=False),
    Column("plan", Text, nullable=False),
    Column("dry_run", Text, nullable=False),
    Column("gate", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("at", BigInteger, nullable=False),
)

decisions = Table(
    "decisions",
    METADATA,
    Column("seq", BigInteger, primary_key=True),
    Column("digest", Text, nullable=False),
    Column("zone", Text, nullable=False),
    Column("app", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("principal", Text, nullable=False),
    Column("signed", Text, nullable=False),
)

releases = Table(
    "releases",
    METADATA,
    Column("digest", Text, primary_key=True),
    Column("app", Text, nullable=False),
    Column("commit", Text, nullable=False),
    Column("summary", Text, nullable=False),
    Column("sequence", BigInteger, nullable=False),
)

cursors = Table(
    "cursors",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("value", BigInteger, nullable=False),
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        *CREATE_LEDGER,
        """
        CREATE TABLE receipts (
            seq bigint PRIMARY KEY REFERENCES ledger, digest text NOT NULL, zone text NOT NULL, app text NOT NULL,
            release text NOT NULL, commit text NOT NULL, event text NOT NULL, message text NOT NULL, at bigint NOT NULL,
            plan text NOT NULL, body text NOT NULL
        )
        """,
        "CREATE INDEX receipts_app ON receipts (app, zone, seq)",
        "CREATE INDEX receipts_release ON receipts (release, seq)",
        """
        CREATE TABLE plans (
            digest text PRIMARY KEY, app text NOT NULL, zone text NOT NULL, release text NOT NULL, commit text NOT NULL,
            plan text NOT NULL, dry_run text NOT NULL, gate text NOT NULL, state text NOT NULL, seq bigint NOT NULL,
            at bigint NOT NULL
        )
        """,
        "CREATE INDEX plans_app ON plans (app, zone, seq)",
        """
        CREATE TABLE decisions (
            seq bigint PRIMARY KEY REFERENCES ledger, digest text NOT NULL, zone text NOT NULL, app text NOT NULL,
            kind text NOT NULL, subject text NOT NULL, principal text NOT NULL, signed text NOT NULL
        )
        """,
        "CREATE INDEX decisions_zone ON decisions (zone, seq)",
        """
        CREATE TABLE releases (
            digest text PRIMARY KEY, app text NOT NULL, commit text NOT NULL, summary text NOT NULL,
            sequence bigint NOT NULL
        )
        """,
        "CREATE TABLE cursors (name text PRIMARY KEY, value bigint NOT NULL)",
    ),
)


def migrate(engine: Engine) -> int:
    """Bring the database to this program's schema, all or nothing; return its number.

    Raises:
        PermanentError: the database was written by a later version of the program.
    """
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATING})
        connection.execute(text("CREATE TABLE IF NOT EXISTS schema_version (number integer PRIMARY KEY)"))
        current = connection.execute(text("SELECT coalesce(max(number), 0) FROM schema_version")).scalar_one()
        if current > len(MIGRATIONS):
            raise PermanentError(
                f"The database has schema {current}; this version knows {len(MIGRATIONS)}.",
                where="ops database",
                remedy="Run the later version of Sekisho again.",
            )
        for number, statements in enumerate(MIGRATIONS[current:], start=current + 1):
            for statement in statements:
                connection.execute(text(statement))
            connection.execute(text("INSERT INTO schema_version VALUES (:number)"), {"number": number})
    return len(MIGRATIONS)
