"""The catalogue of faults: each is declared where it is tested, and docs/faults.md is written from the declarations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

Ends = Literal["FAILED", "retried", "not started", "goes on"]

CHAPTERS = {
    "database": "The advisory database",
    "scanner": "The scanner",
    "coverage": "What was not scanned",
    "registry": "The registry",
    "disk": "Disk and memory",
    "clock": "The clock",
    "evidence": "Evidence",
    "policies": "Policies",
    "signer": "Signers",
    "runs": "Killed and doubled runs",
}


@dataclass(frozen=True)
class Fault:
    """One fault: what breaks, how the run ends, and what people read."""

    name: str
    """`chapter/name`; also the test's id."""
    what: str
    ends: Ends
    says: str
    """Words that the pusher (or, where the zone does not start, the operator) reads; asserted letter for letter."""
    mend: str
    value: Any = None
    """What the test needs to make it."""

    @property
    def chapter(self) -> str:
        return self.name.partition("/")[0]

    @property
    def id(self) -> str:
        return self.name.partition("/")[2]


CATALOGUE: dict[str, tuple[Fault, str]] = {}
"""Each fault with its test: `file::function[id]`."""


def faults(*found: Fault) -> Callable[[Any], Any]:
    """Declare the faults that a test makes; the test gets one at a time as `fault`."""

    def declared(test: Any) -> Any:
        for fault in found:
            assert fault.chapter in CHAPTERS
            CATALOGUE[fault.name] = (fault, f"{Path(test.__code__.co_filename).name}::{test.__name__}[{fault.id}]")
        return pytest.mark.parametrize("fault", found, ids=[fault.id for fault in found])(test)

    return declared
