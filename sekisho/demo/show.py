"""How the demonstration looks: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from sekisho.demo.line import Step

_MARKS = {"running": ("…", "cyan"), "done": ("✓", "green"), "held": ("⏸", "yellow"), "failed": ("✗", "red")}


class Show(Protocol):
    """Where steps and words go."""

    def step(self, step: Step) -> None:
        """Show a step of the line."""
        ...

    def say(self, text: str) -> None:
        """Show a line of words."""
        ...


class PlainShow:
    """One line a finished stage."""

    def step(self, step: Step) -> None:
        """Print a step once it has ended."""
        if step.state == "running":
            return
        mark = {"done": "ok", "held": "held", "failed": "NO"}[step.state]
        self.say(f"{step.zone:<11} {step.stage:<18} {mark:<5} {_seconds(step):>8}  {step.message}")

    def say(self, text: str) -> None:
        """Print a line at once."""
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


class LiveShow:
    """Rich: running stages spin in place, finished ones stay."""

    def __init__(self) -> None:
        from rich.console import Console  # noqa: PLC0415  not needed without a terminal
        from rich.status import Status  # noqa: PLC0415

        self._console = Console(highlight=False)
        self._status: Status = self._console.status("")
        self._status.start()
        self._began = time.monotonic()

    def step(self, step: Step) -> None:
        """Show a step: the spinner while it runs, a line once it has ended."""
        from rich.markup import escape  # noqa: PLC0415

        mark, colour = _MARKS[step.state]
        if step.state == "running":
            self._status.update(f"[bold]{step.zone}[/] {step.stage} …")
            return
        message = escape(step.message if len(step.message) < self._console.width - 45 else step.message[:60] + "…")
        self._console.print(
            f" [{colour}]{mark}[/] [bold]{step.zone:<11}[/]{step.stage:<18}[dim]{_seconds(step):>8}[/]  {message}"
        )

    def say(self, text: str) -> None:
        """Print a line above the spinner."""
        self._console.print(text, markup=False)

    def close(self) -> None:
        """Take the spinner away."""
        self._status.stop()


@contextmanager
def show() -> Iterator[Show]:
    """Give the show that fits where the output goes."""
    if not sys.stdout.isatty():
        yield PlainShow()
        return
    live = LiveShow()
    try:
        yield live
    finally:
        live.close()


def _seconds(step: Step) -> str:
    return "" if step.seconds is None else f"{step.seconds:.2f} s"
