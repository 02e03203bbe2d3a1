"""When work that ended in a fault is tried again: soon at first, then later each time, never forgotten."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

FIRST_SECONDS = 5.0
LONGEST_SECONDS = 300.0


@dataclass(frozen=True)
class _Fault:
    count: int
    until: float


class Patience:
    """Faults by name of the work. In memory: a new process tries everything at once.

    Args:
        clock: seconds, of any beginning.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._faults: dict[str, _Fault] = {}

    def fault(self, name: str) -> float:
        """Note that the work ended in a fault; return in how many seconds it is due again."""
        known = self._faults.get(name)
        count = known.count if known else 0
        seconds = min(FIRST_SECONDS * 2.0 ** min(count, 16), LONGEST_SECONDS)
        self._faults[name] = _Fault(count + 1, self._clock() + seconds)
        return seconds

    def done(self, name: str) -> None:
        """Note that the work went well."""
        self._faults.pop(name, None)

    def waits(self, name: str) -> bool:
        """Return whether it is too early to try again."""
        known = self._faults.get(name)
        return known is not None and self._clock() < known.until

    def due(self) -> tuple[str, ...]:
        """Return what ended in a fault and is to be tried again by now."""
        return tuple(name for name in self._faults if not self.waits(name))
