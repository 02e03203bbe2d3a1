"""The entries, in PostgreSQL. Connections are few, reused, and replaced when the database was restarted."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import pg8000.exceptions
import pg8000.native

from guestbook.binding import Database

T = TypeVar("T")

SHOWN = 50
CONNECT_SECONDS = 3
_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    author text NOT NULL CHECK (length(author) BETWEEN 1 AND 60),
    message text NOT NULL CHECK (length(message) BETWEEN 1 AND 1000),
    written_at timestamptz NOT NULL DEFAULT now()
)
"""
_BROKEN = (pg8000.exceptions.InterfaceError, OSError)


class Unavailable(Exception):
    """The database cannot be used now."""


@dataclass(frozen=True)
class Entry:
    """One line of the guestbook."""

    author: str
    message: str
    written_at: datetime


class Store:
    """Reads and writes entries.

    Args:
        binding: gives the database's address; called for each new connection.
        size: connections that are kept.
    """

    def __init__(self, binding: Callable[[], Database], size: int = 4) -> None:
        self._binding = binding
        self._free: queue.LifoQueue[pg8000.native.Connection] = queue.LifoQueue(size)

    def ready(self) -> bool:
        """Return whether the database answers."""
        try:
            self._use(lambda connection: connection.run("SELECT 1"))
        except Unavailable:
            return False
        return True

    def entries(self) -> list[Entry]:
        """Return the newest entries, newest first.

        Raises:
            Unavailable: the database does not answer.
        """
        rows = self._use(
            lambda connection: connection.run(
                "SELECT author, message, written_at FROM entries ORDER BY id DESC LIMIT :shown", shown=SHOWN
            )
        )
        return [Entry(*row) for row in rows]

    def add(self, author: str, message: str) -> None:
        """Write an entry.

        Raises:
            Unavailable: the database does not answer.
        """
        self._use(
            lambda connection: connection.run(
                "INSERT INTO entries (author, message) VALUES (:author, :message)", author=author, message=message
            )
        )

    def close(self) -> None:
        """Close what is open."""
        for connection in self._drain():
            _close(connection)

    def _use(self, work: Callable[[pg8000.native.Connection], Any]) -> Any:
        """Run `work` on a connection. A kept one may be dead after a restart: then once more on a new one."""
        try:
            connection = self._free.get_nowait()
        except queue.Empty:
            connection = None
        if connection is not None:
            try:
                return self._done(connection, work(connection))
            except pg8000.exceptions.DatabaseError as error:
                _close(connection)
                if not _shut_down(error):
                    raise Unavailable(_code(error)) from error
            except _BROKEN:
                _close(connection)
            for stale in self._drain():
                _close(stale)
        try:
            connection = self._connect()
            return self._done(connection, work(connection))
        except (LookupError, *_BROKEN) as error:
            raise Unavailable(type(error).__name__) from error
        except pg8000.exceptions.DatabaseError as error:
            raise Unavailable(_code(error)) from error

    def _done(self, connection: pg8000.native.Connection, result: T) -> T:
        try:
            self._free.put_nowait(connection)
        except queue.Full:
            _close(connection)
        return result

    def _connect(self) -> pg8000.native.Connection:
        database = self._binding()
        connection = pg8000.native.Connection(
            database.user,
            host=database.host,
            port=database.port,
            database=database.name,
            password=database.password,
            timeout=CONNECT_SECONDS,
            application_name="guestbook",
        )
        # Two first requests may meet here: the second waits for the first one's lock.
        connection.run("BEGIN")
        connection.run("SELECT pg_advisory_xact_lock(7341)")
        connection.run(_SCHEMA)
        connection.run("COMMIT")
        return connection

    def _drain(self) -> Iterator[pg8000.native.Connection]:
        while True:
            try:
                yield self._free.get_nowait()
            except queue.Empty:
                return


def _close(connection: pg8000.native.Connection) -> None:
    with contextlib.suppress(Exception):
        connection.close()


def _code(error: pg8000.exceptions.DatabaseError) -> str:
    """Return the SQLSTATE: the message could hold a value that somebody typed."""
    said = error.args[0] if error.args else {}
    return str(said.get("C", "unknown")) if isinstance(said, dict) else "unknown"


def _shut_down(error: pg8000.exceptions.DatabaseError) -> bool:
    """Class 57P: the server is stopping, starting or was stopped."""
    return _code(error).startswith("57P")
