"""What a zone has seen, and when: its own memory of the statements that it verified.

A statement says itself when it was made, and whoever holds the key writes any time there. What counts is therefore
when this zone first verified it: from then on the statement is known here. So a statement of a key that was retired
since goes on counting, and after a key is revoked from a time, what was seen before that time does, and nothing else
(`sekisho.keys.TrustedKey.problem_at`).

The book is a journal in the zone's state, which its own user alone may write: the same who holds the zone's key, so
that a signature on it would add nothing. Without it, for example after a loss, statements count as if seen just now.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import Field

from sekisho.errors import PermanentError, Refusal
from sekisho.journal import Journal
from sekisho.model import DigestField, Document

WITNESS_FILE = "witness.jsonl"
"""The book's name in a zone's state."""


class Seen(Document):
    """One line: a statement, and when this zone first verified it."""

    statement: str = DigestField
    """Digest of its referrer manifest."""
    at: int = Field(ge=0)
    """Seconds since the epoch."""


class WitnessBook:
    """The statements that a zone verified, durable and append-only.

    Args:
        path: the journal, one canonical `Seen` a line.
    """

    def __init__(self, path: Path) -> None:
        self._journal = Journal(path)
        self._lock = threading.Lock()
        self._times: dict[str, int] = {}
        self._read = 0

    def times(self) -> Mapping[str, int]:
        """Return when each statement was first seen, by its digest.

        Raises:
            PermanentError: the journal is damaged.
            TemporaryError: it cannot be read.
        """
        with self._lock:
            self._load()
            return dict(self._times)

    def note(self, statements: Iterable[str], at: int) -> None:
        """Note statements that were just verified; those that are known keep their time.

        Raises:
            TemporaryError: the disk did not take it.
        """
        with self._lock:
            self._load()
            for statement in sorted(set(statements) - self._times.keys()):
                self._journal.append(Seen(statement=statement, at=at).canonical())
            self._load()

    def _load(self) -> None:
        lines = self._journal.lines()
        for line in lines[self._read :]:
            where = f"{self._journal.path}, line {self._read + 1}"
            try:
                seen = Seen.parse(line, where=where)
            except Refusal as error:
                raise PermanentError(
                    f"The book of what this zone saw is damaged: {error.what}",
                    where=where,
                    remedy="Restore the file from a copy; an older one is safe, for what is missing counts as new.",
                ) from error
            # The earliest line counts, also where two processes noted the same.
            self._times.setdefault(seen.statement, seen.at)
            self._read += 1
