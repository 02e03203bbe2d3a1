"""What can wait until nothing is built: containers that have ended are removed, the next one's network is made.

Each takes the engine a tenth of a second or two, of which a build that packs its image, and the scan and the seal
behind it, would otherwise lose their part.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

QUIET_SECONDS = 3.0
"""How long nothing was built before it is quiet: a build's scan and its seal have the processors first."""
MOST = 16
"""Chores that wait; with one more, the oldest does not wait for quiet."""
_IDLE_SECONDS = 60.0


class Chores:
    """Runs what it is given in one thread, in order, when it is quiet. Safe for use by several threads.

    Args:
        quiet: seconds without work before it is quiet.
    """

    def __init__(self, quiet: float = QUIET_SECONDS) -> None:
        self._quiet = quiet
        self._changed = threading.Condition()
        self._waiting: deque[Callable[[], None]] = deque()
        self._thread: threading.Thread | None = None
        self._working = 0
        self._last = float("-inf")
        """When work ended last."""
        self._running = False
        self._hurried = 0
        """How many wait for all chores to be done."""

    @contextmanager
    def work(self) -> Iterator[None]:
        """Say that something is built."""
        with self._changed:
            self._working += 1
        try:
            yield
        finally:
            with self._changed:
                self._working -= 1
                self._last = time.monotonic()

    def add(self, chore: Callable[[], None], *, first: bool = False) -> None:
        """Have something done when it is quiet, before all others or after them; it raises nothing."""
        with self._changed:
            if first:
                self._waiting.appendleft(chore)
            else:
                self._waiting.append(chore)
            if self._thread is None:
                self._begin()
            self._changed.notify_all()

    def rest(self) -> None:
        """Say that what followed the last build is done as well: it is quiet, unless something is built."""
        with self._changed:
            self._last = float("-inf")
            self._changed.notify_all()

    def settle(self) -> None:
        """Have everything done that waits, now, in this thread or the other one, and return when it is."""
        with self._changed:
            self._hurried += 1
            try:
                while self._waiting or self._running:
                    if self._running:
                        self._changed.wait()
                    else:
                        self._one()
            finally:
                self._hurried -= 1
                self._changed.notify_all()

    def _one(self) -> None:
        """Run the oldest chore. The lock is held at the beginning and at the end."""
        chore = self._waiting.popleft()
        self._running = True
        self._changed.release()
        try:
            chore()
        finally:
            self._changed.acquire()
            self._running = False
            self._changed.notify_all()

    def _begin(self) -> None:
        self._thread = threading.Thread(target=self._run, name="sandbox-chores", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with self._changed:
            try:
                while self._waiting or self._changed.wait(_IDLE_SECONDS):
                    if self._running or self._hurried:
                        self._changed.wait()  # somebody does them
                    elif (left := self._until_quiet()) > 0:
                        self._changed.wait(left)
                    elif self._waiting:
                        self._one()
            finally:
                self._thread = None
                if self._waiting:  # a chore had a fault, or came at the last moment
                    self._begin()

    def _until_quiet(self) -> float:
        """Return seconds."""
        if len(self._waiting) > MOST:
            return 0.0
        if self._working:
            return self._quiet
        return self._last + self._quiet - time.monotonic()
