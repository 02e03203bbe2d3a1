"""What the build zone knows of each pushed commit, kept in files: pushed, running, judged, released."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from flows.events import EventLog
from flows.files import write_durably
from sekisho.errors import Refusal
from sekisho.feed import CommitRecord
from sekisho.model import Result, Verdict

_LOG = logging.getLogger(__name__)
_ADVISORIES = "scan/database"
_OPEN = ("running", "error", "queued")
"""States without a verdict; of two pushes in one second, the one that was begun came first."""


class CommitBook:
    """One small file a commit, beside its events; the source of the feed's commit pages."""

    def __init__(self, folder: Path, events: EventLog) -> None:
        self._folder = folder
        self._events = events

    def put(self, record: CommitRecord) -> None:
        """Keep a commit's record; its events and its verdict's text live in the event log."""
        path = self._path(record.app, record.commit)
        write_durably(path, record.model_copy(update={"events": ()}).canonical())

    def commit(self, app: str, commit: str) -> CommitRecord | None:
        """Return one commit with its events, or None."""
        path = self._path(app, commit)
        record = self._read(path) if path.is_file() else None
        if record is None:
            return None
        return record.model_copy(update={"events": tuple(self._events.read(app, commit))})

    def commits(self, app: str, prefix: str = "") -> tuple[CommitRecord, ...]:
        """Return an app's commits that begin with `prefix`, without their events, newest first."""
        found = [
            record for path in (self._folder / app).glob(f"{prefix}*.json") if (record := self._read(path)) is not None
        ]
        return tuple(sorted(found, key=lambda record: (record.at, record.commit), reverse=True))

    def open_commits(self) -> tuple[CommitRecord, ...]:
        """Return the commits that have no verdict yet, in the order they came: after a restart the line goes on so.

        The newest release is the last in the feed, so a commit that a newer one of its branch overtook stays behind.
        """
        heads = {(record.app, record.branch): record for record in self.newest()}
        found = [record for path in self._folder.glob("*/*.json") if (record := self._read(path)) is not None]
        waiting = [
            record
            for record in found
            if record.state in _OPEN and not _overtaken(record, heads[record.app, record.branch])
        ]
        return tuple(sorted(waiting, key=lambda record: (record.at, _OPEN.index(record.state), record.commit)))

    def newest(self) -> tuple[CommitRecord, ...]:
        """Return the newest commit of each app's branches."""
        heads: dict[tuple[str, str], CommitRecord] = {}
        for folder in sorted(self._folder.glob("*")):
            for record in self.commits(folder.name):
                heads.setdefault((record.app, record.branch), record)
        return tuple(heads.values())

    def _read(self, path: Path) -> CommitRecord | None:
        try:
            return CommitRecord.parse(path.read_bytes(), where=str(path))
        except (OSError, Refusal) as error:
            # One damaged file must not hide every other commit; pushing its commit to a new branch makes it anew.
            _LOG.error("A commit's record cannot be read and is left out: %s", error)
            return None

    def _path(self, app: str, commit: str) -> Path:
        return self._folder / app / f"{commit}.json"


def _overtaken(record: CommitRecord, head: CommitRecord) -> bool:
    passed = head.verdict is not None and head.verdict.result is Result.PASSED
    return head.at > record.at and passed


def verdict_of(events: list[dict[str, Any]]) -> Verdict | None:
    """Return the verdict that an event log ends with, or None."""
    for event in reversed(events):
        if isinstance(event.get("verdict"), dict):
            return Verdict.parse(json.dumps(event["verdict"]))
    return None


def waits_for_advisories(verdict: Verdict | None) -> bool:
    """Tell whether a commit failed for nothing but the age of the advisories: that is the line's to mend."""
    return verdict is not None and {reason.rule for reason in verdict.failures} == {_ADVISORIES}
