"""What ops keeps: one transaction a document, ledger and read models together."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, Select, create_engine, desc, func, literal, select, text
from sqlalchemy.dialects.postgresql import distinct_on, insert
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError

from sekisho.errors import PermanentError, Refusal, TemporaryError
from sekisho.ledger import ChainReport, Ledger, ledger_table
from sekisho.model import Offer, Receipt, SignedDecision
from sekisho.ops.history import OPEN_STATES, PLAN_EVENTS, RELEASE_EVENTS, PlanNews, Rollout, plan_news, rollout
from sekisho.ops.schema import cursors, decisions, migrate, plans, receipts, releases
from sekisho.web import NotFound, Signal

PAGE = 500
RECEIPTS_PAGE = 100
"""Receipts in one answer: those of plans are large. The reader asks again behind the last."""


def engine_for(host: str, port: int, password: str, *, database: str = "sekisho", user: str = "sekisho") -> Engine:
    """Return the engine of the ops database."""
    url = URL.create("postgresql+psycopg", user, password or None, host, port, database)
    return create_engine(
        url,
        pool_pre_ping=True,
        pool_size=10,
        connect_args={"connect_timeout": 3, "options": "-c statement_timeout=30000"},
        hide_parameters=True,
    )


class OpsStore:
    """The ledger, the mailbox and their read models.

    Args:
        engine: SQLAlchemy engine of a PostgreSQL database that belongs to ops alone.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.signal = Signal()

    def migrate(self) -> int:
        """Bring the database to this program's schema; return its number."""
        with self._reaching():
            return migrate(self._engine)

    # -- what comes in -----------------------------------------------------------------------------------------

    def record_receipt(self, receipt: Receipt, bundle: bytes) -> dict[str, Any]:
        """Keep a verified receipt with the signed bytes it came in; the same receipt is kept once.

        Raises:
            Refusal: the receipt names a malformed plan.
        """
        news = plan_news(receipt)
        digest = str(receipt.identity())
        with self._transaction() as connection:
            entry, stored = Ledger(connection).append("receipt", digest, _text(bundle))
            if stored:
                connection.execute(receipts.insert().values(**_receipt_row(entry.seq, digest, receipt, news)))
                _project_plan(connection, entry.seq, receipt, news)
        if stored:
            self.signal.notify()
        return {"sequence": entry.seq, "digest": digest, "stored": stored}

    def record_decision(self, signed: SignedDecision) -> dict[str, Any]:
        """Keep a signed decision; the same one is kept once. Whether it counts is for its zone to say."""
        decision = signed.decision
        digest = str(decision.identity())
        content = _text(signed.canonical())
        with self._transaction() as connection:
            entry, stored = Ledger(connection).append("decision", digest, content)
            if stored:
                row = {
                    "seq": entry.seq,
                    "digest": digest,
                    "zone": decision.zone,
                    "app": decision.app,
                    "kind": decision.kind,
                    "subject": decision.subject,
                    "principal": decision.principal,
                    "signed": content,
                }
                connection.execute(decisions.insert().values(**_printable(row)))
        if stored:
            self.signal.notify()
        return {"sequence": entry.seq, "digest": digest, "stored": stored}

    def record_offers(self, offers: tuple[Offer, ...], cursor: str) -> None:
        """Keep what the build zone's feed offers, and how far it was read."""
        with self._transaction() as connection:
            for offer in offers:
                row = offer.model_dump(include={"app", "commit", "summary", "sequence"}) | {"digest": offer.release}
                connection.execute(insert(releases).values(**row).on_conflict_do_nothing())
            if offers:
                _set_cursor(connection, cursor, offers[-1].sequence)
        self.signal.notify()

    # -- cursors -----------------------------------------------------------------------------------------------

    def cursor(self, name: str) -> int:
        """Return how far something was read; 0 at first."""
        with self._transaction() as connection:
            return connection.execute(select(cursors.c.value).where(cursors.c.name == name)).scalar() or 0

    def set_cursor(self, name: str, value: int) -> None:
        """Remember how far something was read."""
        with self._transaction() as connection:
            _set_cursor(connection, name, value)

    # -- what is read ------------------------------------------------------------------------------------------

    def decisions(self, zone: str, after: int = 0) -> list[dict[str, Any]]:
        """Return the decisions for a zone behind a sequence, in order."""
        query = select(decisions).where(decisions.c.zone == zone, decisions.c.seq > after)
        rows = self._rows(query.order_by(decisions.c.seq).limit(PAGE))
        return [{"sequence": row["seq"], "digest": row["digest"], "signed": json.loads(row["signed"])} for row in rows]

    def receipts(self, after: int = 0, **filters: str) -> list[dict[str, Any]]:
        """Return receipts behind a sequence, in order; filters: app, commit, release, zone, event."""
        query = select(receipts).where(receipts.c.seq > after)
        for name, value in filters.items():
            if value:
                query = query.where(receipts.c[name] == value)
        rows = self._rows(query.order_by(receipts.c.seq).limit(RECEIPTS_PAGE))
        return [{"sequence": row["seq"], "digest": row["digest"], "receipt": _told(row)} for row in rows]

    def receipt_bundles(self, after: int, limit: int = 20) -> list[tuple[int, bool, bytes]]:
        """Return signed receipts behind a sequence: (sequence, whether it holds a whole plan, bundle)."""
        query = (
            select(receipts.c.seq, receipts.c.body, ledger_table)
            .join(ledger_table, ledger_table.c.seq == receipts.c.seq)
            .where(receipts.c.seq > after)
            .order_by(receipts.c.seq)
            .limit(limit)
        )
        return [
            (row["seq"], isinstance(json.loads(row["body"]).get("plan"), dict), _content(row["document"]))
            for row in self._rows(query)
        ]

    def releases(self, app: str = "", prefix: str = "") -> list[dict[str, Any]]:
        """Return known releases, newest first and at most a page of them, each with its state in every zone."""
        query = select(releases)
        if app:
            query = query.where(releases.c.app == app)
        if prefix:
            query = query.where(releases.c.digest.startswith(prefix, autoescape=True))
        read = self._rows(query.order_by(releases.c.sequence.desc()).limit(PAGE))
        found = [*self._only_told(app, prefix), *read][:PAGE]
        states = self._states([row["digest"] for row in found])
        return [
            {
                "digest": row["digest"],
                "app": row["app"],
                "commit": row["commit"],
                "sequence": row["sequence"],
                "zones": states.get(row["digest"], {}),
            }
            for row in found
        ]

    def release(self, digest: str) -> dict[str, Any]:
        """Return one release with its state in every zone.

        Raises:
            NotFound: nobody told of it.
        """
        found = self.releases(prefix=digest)
        if not found:
            raise NotFound("No such release is known here.", where=digest, remedy="sekisho releases lists them.")
        return found[0]

    def plans(self, app: str = "", zone: str = "", state: str = "", prefix: str = "") -> list[dict[str, Any]]:
        """Return plans without their objects, newest first."""
        query = select(
            *(plans.c[name] for name in ("digest", "app", "zone", "release", "commit", "state", "seq", "at"))
        )
        for name, value in {"app": app, "zone": zone, "state": state}.items():
            if value:
                query = query.where(plans.c[name] == value)
        if prefix:
            query = query.where(plans.c.digest.startswith(prefix, autoescape=True))
        return self._rows(query.order_by(plans.c.seq.desc()).limit(PAGE))

    def plan(self, digest: str) -> dict[str, Any]:
        """Return one plan with its dry run and gate.

        Raises:
            NotFound: no zone told of it.
        """
        found = self._rows(select(plans).where(plans.c.digest == digest))
        if not found:
            raise NotFound("No such plan is known here.", where=digest, remedy="sekisho plan APP --zone production")
        row = found[0]
        return {
            **row,
            "plan": json.loads(row["plan"]),
            "dry_run": json.loads(row["dry_run"] or "null"),
            "gate": json.loads(row["gate"] or "null"),
        }

    def apps(self) -> list[dict[str, Any]]:
        """Return the apps, with what runs in every zone and what ran before."""
        query = select(receipts.c.app, receipts.c.zone, receipts.c.event, receipts.c.release)
        query = query.where(receipts.c.event.in_(("healthy", "failed", "rolled-back"))).order_by(receipts.c.seq)
        events: dict[str, dict[str, list[tuple[str, str]]]] = {}
        for row in self._rows(query):
            events.setdefault(row["app"], {}).setdefault(row["zone"], []).append((row["event"], row["release"]))
        names = {row["app"] for row in self._rows(select(releases.c.app).union(select(receipts.c.app)))}
        return [
            {"app": name, "zones": {zone: _ran(rollout(told)) for zone, told in events.get(name, {}).items()}}
            for name in sorted(names)
        ]

    def verify_chain(self) -> ChainReport:
        """Check the whole ledger, as it stood when the check began."""
        with self._transaction() as connection:
            connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))
            return Ledger(connection).verify_chain()

    def health(self) -> dict[str, Any]:
        """Return the ledger's length; proves that the database answers."""
        found = self._rows(select(ledger_table.c.seq).order_by(ledger_table.c.seq.desc()).limit(1))
        return {"entries": found[0]["seq"] if found else 0}

    def _only_told(self, app: str, prefix: str) -> list[dict[str, Any]]:
        """Return the releases that a zone told of before the feed was read, the last told first."""
        named = (receipts.c.release.label("digest"), receipts.c.app, receipts.c.commit)
        unread = ~select(releases.c.digest).where(releases.c.digest == receipts.c.release).exists()
        query = select(*named, func.max(receipts.c.seq).label("told"), literal(0).label("sequence")).group_by(*named)
        query = query.where(receipts.c.release != "", receipts.c.event.in_(RELEASE_EVENTS), unread)
        if app:
            query = query.where(receipts.c.app == app)
        if prefix:
            query = query.where(receipts.c.release.startswith(prefix, autoescape=True))
        return self._rows(query.order_by(desc("told")).limit(PAGE))

    def _states(self, digests: Sequence[str]) -> dict[str, dict[str, Any]]:
        columns = ("release", "zone", "event", "message", "at")
        query = select(*(receipts.c[name] for name in columns))
        query = query.ext(distinct_on(receipts.c.release, receipts.c.zone))  # the latest of each
        query = query.where(receipts.c.release.in_(digests), receipts.c.event.in_(RELEASE_EVENTS))
        states: dict[str, dict[str, Any]] = {}
        rows = self._rows(query.order_by(receipts.c.release, receipts.c.zone, receipts.c.seq.desc()))
        for row in sorted(rows, key=lambda item: int(item["at"])):
            zones = states.setdefault(row["release"], {})
            zones[row["zone"]] = {"state": row["event"], "message": row["message"], "at": row["at"]}
        return states

    def _rows(self, query: Select[Any] | Any) -> list[dict[str, Any]]:
        with self._transaction() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with self._reaching(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except OperationalError as error:
            raise TemporaryError(
                "The ops database cannot be used.", where="ops database", remedy="sekisho doctor says why."
            ) from error
        except DBAPIError as error:
            if error.connection_invalidated:
                raise TemporaryError("The ops database went away.", where="ops database") from error
            raise PermanentError(f"The ops database refused: {type(error.orig).__name__}.") from error
        except SQLAlchemyError as error:
            raise TemporaryError(f"The ops database is busy: {type(error).__name__}.", where="ops database") from error


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Refusal("This is not UTF-8 text.") from error


def _content(document: str) -> bytes:
    return str(json.loads(document)["content"]).encode()


def _printable(row: dict[str, Any]) -> dict[str, Any]:
    """Replace what PostgreSQL's text cannot hold; the ledger has the signed original."""
    return {
        name: value.replace("\x00", "\ufffd").encode("utf-8", "replace").decode() if isinstance(value, str) else value
        for name, value in row.items()
    }


def _receipt_row(seq: int, digest: str, receipt: Receipt, news: PlanNews | None) -> dict[str, Any]:
    row = receipt.model_dump(include={"zone", "app", "release", "commit", "event", "message", "at"})
    row |= {"seq": seq, "digest": digest, "plan": news.digest if news else "", "body": json.dumps(receipt.body)}
    return _printable(row)


def _told(row: dict[str, Any]) -> dict[str, Any]:
    told = {name: row[name] for name in ("zone", "app", "release", "commit", "event", "message", "at")}
    return {**told, "body": json.loads(row["body"])}


def _project_plan(connection: Connection, seq: int, receipt: Receipt, news: PlanNews | None) -> None:
    if news is None or receipt.event not in PLAN_EVENTS:
        return
    changes = {"state": receipt.event, "at": receipt.at}
    if news.gate:
        changes["gate"] = news.gate
    if news.dry_run:
        changes["dry_run"] = news.dry_run
    mine = (plans.c.app == receipt.app) & (plans.c.zone == receipt.zone)
    if news.plan is None:
        connection.execute(plans.update().where(plans.c.digest == news.digest, mine).values(**_printable(changes)))
        return
    others = mine & (plans.c.digest != news.digest) & plans.c.state.in_(OPEN_STATES)
    connection.execute(plans.update().where(others).values(state="superseded"))
    row = {
        "digest": news.digest,
        "app": receipt.app,
        "zone": receipt.zone,
        "release": receipt.release,
        "commit": news.plan.commit,
        "plan": news.plan.canonical().decode(),
        "dry_run": news.dry_run,
        "gate": news.gate,
        "state": receipt.event,
        "seq": seq,
        "at": receipt.at,
    }
    added = insert(plans).values(**_printable(row))
    connection.execute(added.on_conflict_do_update(index_elements=["digest"], set_=_printable({**changes, "seq": seq})))


def _set_cursor(connection: Connection, name: str, value: int) -> None:
    added = insert(cursors).values(name=name, value=value)
    connection.execute(added.on_conflict_do_update(index_elements=["name"], set_={"value": value}))


def _ran(state: Rollout) -> dict[str, Any]:
    return {"running": state.running, "previous": state.previous, "healthy": list(state.healthy)}
