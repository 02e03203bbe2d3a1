"""Versions and ranges as npm writes them (https://semver.org, node-semver's README). Pure.

Used for two questions only: does an offered Node.js fit `engines`, and does a locked version fit package.json.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

VERSION = re.compile(r"(\d{1,16})\.(\d{1,16})\.(\d{1,16})(?:-([0-9A-Za-z.-]{1,128}))?(?:\+[0-9A-Za-z.-]{1,128})?")
"""A whole version; anything else is none."""

_NEWEST = 1 << 53
"""Stands for the parts that `24` leaves open: an image of that name has the newest release of the line."""
_PARTIAL = re.compile(
    r"v?=?\s*([0-9]+|[xX*])(?:\.([0-9]+|[xX*]))?(?:\.([0-9]+|[xX*]))?(?:-([0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?"
)
_HYPHEN = re.compile(r"\s*(\S+)\s+-\s+(\S+)\s*")
_OPERATOR = re.compile(r"(>=|<=|>|<|=|~>|~|\^)\s*")
_MAX_RANGE = 512


@dataclass(frozen=True, order=True)
class Version:
    """A version, ordered as semver says; build metadata counts for nothing."""

    release: tuple[int, int, int]
    rank: tuple[tuple[int, int, str], ...] = ((2, 0, ""),)
    """Pre-release identifiers; a release ranks above each of its pre-releases."""

    @property
    def is_prerelease(self) -> bool:
        """Whether it is one."""
        return self.rank != ((2, 0, ""),)


_Set = tuple[tuple[str, Version], ...]


def parse_version(text: str) -> Version | None:
    """Return a whole version, None for anything else."""
    match = VERSION.fullmatch(text.strip().removeprefix("v"))
    if match is None:
        return None
    return Version((int(match[1]), int(match[2]), int(match[3])), _rank(match[4]))


def offered_version(text: str) -> Version | None:
    """Return the version of a standard image; `24` and `24.3` stand for the newest of their line."""
    parts = text.strip().removeprefix("v").split(".")
    if not 1 <= len(parts) <= 3 or not all(part.isdecimal() and len(part) < 16 for part in parts):  # noqa: PLR2004
        return None
    numbers = [int(part) for part in parts] + [_NEWEST] * (3 - len(parts))
    return Version((numbers[0], numbers[1], numbers[2]))


def fits(version: Version, wanted: str) -> bool | None:
    """Return whether a version is in a range, None where the range is not one (a tag, a URL)."""
    sets = _sets(wanted)
    return None if sets is None else any(_holds(version, item) for item in sets)


def _holds(version: Version, comparators: _Set) -> bool:
    if not all(_compare(version, operator, bound) for operator, bound in comparators):
        return False
    if not version.is_prerelease:
        return True
    # A pre-release is taken only where the range names one of the same release.
    return any(bound.is_prerelease and bound.release == version.release for _, bound in comparators)


def _compare(version: Version, operator: str, bound: Version) -> bool:
    match operator:
        case ">=":
            return version >= bound
        case ">":
            return version > bound
        case "<":
            return version < bound
        case "<=":
            return version <= bound
        case _:
            return version == bound


def _sets(wanted: str) -> list[_Set] | None:
    if len(wanted) > _MAX_RANGE:
        return None
    found: list[_Set] = []
    for part in wanted.split("||"):
        comparators = _comparators(part)
        if comparators is None:
            return None
        found.append(comparators)
    return found


def _comparators(text: str) -> _Set | None:
    hyphen = _HYPHEN.fullmatch(text)
    if hyphen:
        low, high = _bounds(">=", hyphen[1]), _bounds("<=", hyphen[2])
        return None if low is None or high is None else (*low, *high)
    found: list[tuple[str, Version]] = []
    for word in _OPERATOR.sub(r"\1", text).split():
        match = _OPERATOR.match(word)
        bounds = _bounds(match[1] if match else "", word[match.end() :] if match else word)
        if bounds is None:
            return None
        found.extend(bounds)
    return tuple(found)


def _bounds(operator: str, text: str) -> _Set | None:
    match = _PARTIAL.fullmatch(text)
    if match is None:
        return None
    numbers = list(_numbers(match))
    low = Version(_three(numbers), _rank(match[4]) if len(numbers) == 3 else _rank(None))  # noqa: PLR2004
    if not numbers:
        return () if operator not in {"<", ">"} else (("<", Version((0, 0, 0), _rank("0"))),)
    if operator in {"~", "~>"}:
        return _between(low, numbers[:2])
    if operator == "^":
        first = next((place for place, number in enumerate(numbers) if number), len(numbers) - 1)
        return _between(low, numbers[: first + 1])
    whole = len(numbers) == 3  # noqa: PLR2004
    if operator in {"", "="}:
        return (("=", low),) if whole else _between(low, numbers)
    if whole or operator in {">=", "<"}:
        return ((operator, low),)
    above = _between(low, numbers)[1][1]
    return ((">=", Version(above.release)),) if operator == ">" else (("<", above),)


def _numbers(match: re.Match[str]) -> Iterator[int]:
    for part in match.groups()[:3]:
        if part is None or not part.isdecimal() or len(part) > 16:  # noqa: PLR2004
            return
        yield int(part)


def _between(low: Version, kept: list[int]) -> _Set:
    """From `low` to below the next version that differs in what is kept; that one's pre-releases are out too."""
    above = _three([*kept[:-1], kept[-1] + 1])
    return ((">=", low), ("<", Version(above, _rank("0"))))


def _three(numbers: list[int]) -> tuple[int, int, int]:
    first, second, third = [*numbers, 0, 0, 0][:3]
    return first, second, third


def _rank(prerelease: str | None) -> tuple[tuple[int, int, str], ...]:
    if prerelease is None:
        return ((2, 0, ""),)
    return tuple(
        (0, int(item), "") if item.isdecimal() and item.isascii() and len(item) < 32 else (1, 0, item)  # noqa: PLR2004
        for item in prerelease.split(".")
    )
