"""What the zone tells about a subject while it works: one append-only file of JSON lines a subject.

The pusher's terminal reads along while the line runs. Kept in files, because a pusher may ask again after the zone's
process was killed and started anew.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from sekisho.errors import TemporaryError

_POLL = 0.05
_KEEP_ALIVE = 10.0


class EventLog:
    """Events by subject, under one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def begin(self, app: str, commit: str) -> None:
        """Start a subject's log anew; a run that died in the middle leaves no half story."""
        path = self._path(app, commit)
        path.parent.mkdir(parents=True, exist_ok=True)
        # A new file in place of the old one, never the old one's inode again: readers tell by it.
        fresh = path.with_suffix(f".{secrets.token_hex(8)}.part")
        fresh.touch(mode=0o640)
        fresh.replace(path)

    def write(self, app: str, commit: str, event: dict[str, Any]) -> None:
        """Append one event; a single write, so that readers see whole lines.

        Raises:
            TemporaryError: the disk did not take it.
        """
        path = self._path(app, commit)
        path.parent.mkdir(parents=True, exist_ok=True)
        line = (json.dumps({"at": round(time.time(), 3), **event}, sort_keys=True) + "\n").encode()
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o640)
            try:
                size = os.fstat(descriptor).st_size
                # What a full disk or a kill cut off stays a line of its own.
                torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
                data = b"\n" + line if torn else line
                if os.write(descriptor, data) != len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            finally:
                os.close(descriptor)
        except OSError as error:
            raise TemporaryError(
                f"An event cannot be written: {error.strerror}.", where=str(path), remedy="Free space on the disk."
            ) from error

    def read(self, app: str, commit: str) -> list[dict[str, Any]]:
        """Return the events so far; torn lines are left out."""
        try:
            data = self._path(app, commit).read_bytes()
        except FileNotFoundError:
            return []
        found = (_event(line) for line in data.split(b"\n")[:-1])
        return [event for event in found if event is not None]

    async def follow(self, app: str, commit: str, *, seconds: float) -> AsyncIterator[dict[str, Any] | None]:
        """Yield the events as they come until the verdict, or one that is the `last` for now.

        None comes now and then, to keep a connection alive.

        Args:
            app: the workload.
            commit: its commit.
            seconds: how long to wait at most.
        """
        deadline = time.monotonic() + seconds
        quiet_since = time.monotonic()
        told, seen = 0, (0, 0)
        while time.monotonic() < deadline:
            log, size = now = self._state(app, commit)
            # Another file is a log that was begun anew: tell the new story from its start.
            told = told if log == seen[0] and size >= seen[1] else 0
            # Only what grew is read: readers are many, and each looks twenty times a second.
            events = self.read(app, commit) if now != seen else []
            for event in events[told:]:
                yield event
                if "verdict" in event or event.get("last"):
                    return
            grew, seen = len(events) > told, now
            if grew:
                told, quiet_since = len(events), time.monotonic()
            elif time.monotonic() - quiet_since > _KEEP_ALIVE:
                quiet_since = time.monotonic()
                yield None
            await asyncio.sleep(_POLL)

    def _state(self, app: str, commit: str) -> tuple[int, int]:
        try:
            status = self._path(app, commit).stat()
        except FileNotFoundError:
            return 0, 0
        return status.st_ino, status.st_size

    def _path(self, app: str, commit: str) -> Path:
        return self._folder / app / f"{commit}.jsonl"


def _event(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) else None
