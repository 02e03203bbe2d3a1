"""A verdict for people, on one screen. It quotes strangers, so control characters are shown, not sent."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator

from sekisho.canonical import hex_of
from sekisho.model import Reason, Result, Verdict
from sekisho.verdict_groups import Item, items

SCREEN = 40
"""Lines that a verdict takes at the most where it is shown by itself."""

_SHORT = 12
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
_LONG = 300
"""Of a message or a remedy; strangers' titles can fill a screen."""
_YOURS = ("Yours to look at", "Yours to mend")
_PLATFORM = ("The platform team's to look at", "The platform team's to mend, nothing for you to do")
"""Headings of a share without failures, and with some."""


def short(identity: str) -> str:
    """Return the first 12 digits of a digest or commit: enough for people."""
    return hex_of(identity)[:_SHORT]


def clean(text: str) -> str:
    """Return a text in which line breaks are spaces and other control characters are visible."""
    flat = re.sub(r"\s*[\r\n\t]+\s*", " ", text)
    return _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", flat).strip()


def verdict_lines(verdict: Verdict, *, width: int = 100, limit: int | None = SCREEN, more: str = "--all") -> list[str]:
    """Return a verdict as lines of text: the word, whose each problem is and what to do, what was noticed, what passed.

    What is the developers' comes first: it is theirs to read. What sits in the standard image is another team's.

    Args:
        verdict: what the gate said.
        width: columns of a line.
        limit: the most lines; what does not fit is counted. None for everything, with each rule that passed.
        more: what shows the rest, as people can type it.
    """
    found = items(verdict)
    passed = [reason for reason in verdict.reasons if reason.result == "pass"]
    tail = [f"{_count(len(passed), 'rule')} passed. Policy {short(verdict.policy)}."]
    for note in verdict.notes:
        tail += textwrap.wrap(f"Note: {clean(note)}", width, subsequent_indent="  ")
    if limit is None:
        tail = [*_lines("Passed", [_passed(reason, width) for reason in passed]), *tail]
    elif len(tail) > limit // 2:
        tail = [*tail[: limit // 2 - 1], f"... and more notes; {more} shows them."]
    rest = [item.rule for item in found if item.share == "consequence"]
    if rest:
        tail = [*textwrap.wrap(f"  = not judged because of that: {', '.join(rest)}", width), *tail]
    yours = [item for item in found if item.share == "yours"]
    platform = [item for item in found if item.share == "platform"]
    sections = [(_YOURS, yours), (_PLATFORM, platform)]
    room = None if limit is None else limit - len(tail) - 1
    return [_head(verdict, yours, platform), *_sections(sections, width, room, more), *tail]


def _head(verdict: Verdict, yours: list[Item], platform: list[Item]) -> str:
    head = f"{verdict.result}  {clean(verdict.app)} {clean(short(verdict.commit))}"
    if verdict.result is not Result.FAILED:
        return head
    mine, theirs = (sum(item.result == "fail" for item in part) for part in (yours, platform))
    whose = f": {mine} yours, {theirs} the platform team's" if mine and theirs else ""
    whose = whose or (", yours to mend" if mine else ", the platform team's: nothing for you to do")
    return f"{head}  {_count(mine + theirs, 'problem')}{whose}"


def _sections(
    sections: list[tuple[tuple[str, str], list[Item]]], width: int, room: int | None, more: str
) -> Iterator[str]:
    """Yield the sections; where they do not fit, the platform team's gets a quarter, or what the other leaves."""
    blocks = [
        (headings[any(item.result == "fail" for item in part)], [_block(item, width, room is None) for item in part])
        for headings, part in sections
    ]
    needs = [len(_lines(heading, found)) for heading, found in blocks]
    shares: list[int | None] = [None, None]
    if room is not None and sum(needs) > room:
        least = min(needs[1], max(room // 4, 3))
        mine = min(needs[0], room - least)
        shares = [mine, room - mine]
    for (heading, found), share in zip(blocks, shares, strict=True):
        lines = _lines(heading, found)
        yield from lines if share is None or len(lines) <= share else _cut(heading, found, share, more)


def _cut(heading: str, blocks: list[list[str]], room: int, more: str) -> list[str]:
    """Return as many blocks as fit, with the last line saying how many are left."""
    lines = [f"{heading}:"]
    for index, block in enumerate(blocks):
        if len(lines) + len(block) > room - 1:
            return [*lines, f"  ... and {len(blocks) - index} more; {more} shows them."]
        lines += block
    return lines


def _lines(heading: str, blocks: list[list[str]]) -> list[str]:
    return [f"{heading}:", *(line for block in blocks for line in block)] if blocks else []


def _block(item: Item, width: int, whole: bool) -> list[str]:  # noqa: FBT001
    mark = "x" if item.result == "fail" else "!"
    place = f" [{clean(item.where)}]" if item.where and item.where not in item.message else ""
    message, remedy = clean(item.message), clean(item.remedy)
    if not whole:
        message, remedy = _brief(message), _brief(remedy)
    lines = textwrap.wrap(f"  {mark} {clean(item.rule)}: {message}{_brief(place)}", width, subsequent_indent="    ")
    if remedy:
        lines += textwrap.wrap(f"    -> {remedy}", width, subsequent_indent="       ")
    return lines


def _passed(reason: Reason, width: int) -> list[str]:
    return textwrap.wrap(f"  . {clean(reason.rule)}: {clean(reason.message)}", width, subsequent_indent="    ")


def _brief(text: str) -> str:
    return text if len(text) <= _LONG else f"{text[: _LONG - 3]}..."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
