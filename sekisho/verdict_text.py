"""A verdict for people, on one screen. It quotes strangers, so control characters are shown, not sent."""

from __future__ import annotations

import re
import textwrap

from sekisho.canonical import hex_of
from sekisho.model import Reason, Result, Verdict

_SHORT = 12
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
_CONSEQUENCE = "evidence/"


def short(identity: str) -> str:
    """Return the first 12 digits of a digest or commit: enough for people."""
    return hex_of(identity)[:_SHORT]


def clean(text: str) -> str:
    """Return a text in which line breaks are spaces and other control characters are visible."""
    flat = re.sub(r"\s*[\r\n\t]+\s*", " ", text)
    return _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", flat).strip()


def verdict_lines(verdict: Verdict, *, width: int = 100, limit: int = 40) -> list[str]:
    """Return a verdict as lines of text: the word, what failed and what to do, what was noticed, what passed.

    Args:
        verdict: what the gate said.
        width: columns of a line.
        limit: the most lines; what does not fit is counted.
    """
    fails = sorted(verdict.failures, key=lambda reason: reason.rule.startswith(_CONSEQUENCE))
    warns = [reason for reason in verdict.reasons if reason.result == "warn"]
    passed = sum(reason.result == "pass" for reason in verdict.reasons)
    head = f"{verdict.result}  {clean(verdict.app)} {clean(short(verdict.commit))}"
    if verdict.result is Result.FAILED:
        head += f"  {_count(len(fails), 'problem')}"
    tail = [f"{_count(passed, 'rule')} passed. Policy {short(verdict.policy)}."]
    for note in verdict.notes:
        tail += textwrap.wrap(f"Note: {clean(note)}", width, subsequent_indent="  ")
    blocks = [_block("x", reason, width) for reason in fails] + [_block("!", reason, width) for reason in warns]
    room = limit - len(tail) - 1
    lines: list[str] = []
    for index, block in enumerate(blocks):
        left = len(blocks) - index
        # The last line is kept for the count, unless everything fits.
        if len(lines) + len(block) > room - (1 if left > 1 else 0):
            lines.append(f"... and {left} more; --json shows all.")
            break
        lines += block
    return [head, *lines, *tail]


def _block(mark: str, reason: Reason, width: int) -> list[str]:
    place = f" [{clean(reason.where)}]" if reason.where and reason.where not in reason.message else ""
    owner = " (the platform team's to mend)" if reason.owner == "platform" else ""
    text = f"  {mark} {clean(reason.rule)}: {clean(reason.message)}{place}{owner}"
    lines = textwrap.wrap(text, width, subsequent_indent="    ")
    if reason.remedy:
        lines += textwrap.wrap(f"    -> {clean(reason.remedy)}", width, subsequent_indent="       ")
    return lines


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
