"""The contract of a stage, and the one runner that calls it.

A stage turns one immutable document into another and is safe to run again. Its `find` looks at the world
(registry, cluster), never at Prefect; its `perform` has the effect, once. There is no undo: going back is a
promotion of an earlier release.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from sekisho.canonical import Digest
from sekisho.errors import PermanentError

In = TypeVar("In", contravariant=True)
Out = TypeVar("Out", covariant=True)
T = TypeVar("T")
S = TypeVar("S")


class Stage(Protocol[In, Out]):
    """One step that turns one document into another."""

    @property
    def name(self) -> str:
        """The stage's name, as in the table of the line."""
        ...

    def key(self, subject: In) -> Digest:
        """Return a digest over everything that decides the output."""
        ...

    def find(self, subject: In) -> Out | None:
        """Return the output if the world already holds it. Has no effect."""
        ...

    def perform(self, subject: In) -> Out:
        """Have the effect and return the output."""
        ...


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """What a stage gave: the value, whether it was already there, and the seconds of the stage's own work."""

    value: T
    found: bool
    seconds: float


def run_stage(stage: Stage[S, T], subject: S) -> Outcome[T]:
    """Run a stage: find, perform, find again; the two must agree.

    Raises:
        PermanentError: what the world holds after `perform` is not what `perform` said.
    """
    start = time.monotonic()
    existing = stage.find(subject)
    if existing is not None:
        return Outcome(existing, found=True, seconds=time.monotonic() - start)
    performed = stage.perform(subject)
    kept = stage.find(subject)
    if kept != performed:
        raise PermanentError(
            f"Stage {stage.name} said one thing and the world holds another.",
            where=str(stage.key(subject)),
            remedy="Somebody wrote to the same place at the same time, or the store lost data: run the line again.",
        )
    return Outcome(performed, found=False, seconds=time.monotonic() - start)
