"""Cron expressions as Kubernetes reads them (robfig/cron, ParseStandard), checked before a cluster says no. Pure."""

from __future__ import annotations

import re

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS: tuple[tuple[str, int, int, dict[str, int]], ...] = (
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of the month", 1, 31, {}),
    ("month", 1, 12, {name: number for number, name in enumerate(_MONTHS, start=1)}),
    ("day of the week", 0, 6, {name: number for number, name in enumerate(_DAYS)}),
)
_NAMED = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")
_MAX = 200
_PART = re.compile(r"(\*|\?|[a-z0-9]{1,3})(?:-([a-z0-9]{1,3}))?(?:/([0-9]{1,2}))?")


def schedule_fault(text: str) -> str | None:
    """Return what is wrong with a schedule, as advice; None for one that every cluster accepts."""
    if text in _NAMED:
        return None
    if text.startswith("@"):
        return f"Write five fields, or one of {', '.join(_NAMED)}."
    fields = text.split(" ")
    if len(fields) != len(_FIELDS) or len(text) > _MAX:
        return 'Write five fields, one space between them: minute hour day month weekday, such as "15 3 * * *".'
    for field, (name, low, high, names) in zip(fields, _FIELDS, strict=True):
        if not all(_fits(part.lower(), low, high, names) for part in field.split(",")):
            return f"The {name} is {field[:30]!r}; it is *, or numbers from {low} to {high} such as 1,5-9/2."
    return None


def _fits(part: str, low: int, high: int, names: dict[str, int]) -> bool:
    match = _PART.fullmatch(part)
    if match is None:
        return False
    first, last, every = match.groups()
    if every is not None and not 1 <= int(every) <= high:
        return False
    if first in {"*", "?"}:
        return last is None
    start = _number(first, names)
    end = _number(last, names) if last is not None else start
    return start is not None and end is not None and low <= start <= end <= high


def _number(text: str, names: dict[str, int]) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() else names.get(text)
