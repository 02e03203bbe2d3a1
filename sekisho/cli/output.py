"""Text for people and JSON for scripts. Tables are drawn on a terminal, and plain columns without one."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from typing import Any

from sekisho.errors import SekishoError


def emit_json(value: Any) -> None:
    """Print one JSON document."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True) + "\n")


def clean(text: object) -> str:
    """Return a text without control characters: what others wrote must not steer the reader's terminal."""
    return "".join(char if char.isprintable() or char == "\n" else " " for char in str(text))


def say(text: object = "") -> None:
    """Print one line of text."""
    sys.stdout.write(clean(text) + "\n")
    sys.stdout.flush()


def note(text: object) -> None:
    """Print one line that is not part of the result."""
    sys.stderr.write(clean(text) + "\n")
    sys.stderr.flush()


def complain(name: str, error: SekishoError) -> None:
    """Print what went wrong, where, and what to do; it may quote what a stranger's file or a remote said.

    Args:
        name: the command's, before it all; may be empty.
        error: what went wrong.
    """
    parts = ((f"{name}: " if name else "", error.what), ("  where:  ", error.where), ("  remedy: ", error.remedy))
    for label, text in parts:
        if text:
            # Indented, so that no line of a quotation looks like one of ours.
            sys.stderr.write(label + clean(text).replace("\n", "\n          ") + "\n")


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table."""
    cells = [[clean(cell).replace("\n", " ") for cell in row] for row in rows]
    if sys.stdout.isatty():
        _drawn(columns, cells)
        return
    widths = [max(len(row[index]) for row in [list(columns), *cells]) for index in range(len(columns))]
    for row in [[column.upper() for column in columns], *cells]:
        padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write("  ".join(padded).rstrip() + "\n")


def _drawn(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console  # noqa: PLC0415 -- drawn tables only
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    drawn = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        drawn.add_row(*(Text(cell) for cell in row))
    Console().print(drawn)


def short(digest: str) -> str:
    """Return the first 12 digits of a digest or commit."""
    return digest.removeprefix("sha256:")[:12]


def when(seconds: object) -> str:
    """Return a time as people read it, in UTC."""
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool):
        return ""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))
    except (ValueError, OverflowError, OSError):
        return ""


def can_ask() -> bool:
    """Return whether a person sits at a terminal."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def confirmed(question: str, *, yes: bool) -> bool:
    """Ask a person; without a terminal nobody is asked and the command itself is the yes."""
    if yes or not can_ask():
        return True
    sys.stdout.write(f"{clean(question)} [y/N] ")
    sys.stdout.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}
