"""Matching folders by the patterns of cargo's `members`, in bounded time."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass

from sekisho.errors import Refusal
from stages.trees import MAX_PATH

MAX_PATTERNS = 500
_MAX_LOOKS = 2_000_000
"""Comparisons of one name with one part of a pattern, for all patterns and folders together."""


@dataclass
class Globs:
    """Compares patterns and folders, and counts how often."""

    where: str
    """File with the patterns, for the message."""
    looks: int = 0

    def match(self, pattern: str, folder: str) -> bool:
        """Return whether a folder is meant by a pattern; `**` stands for any number of folders.

        Behind a `**`, the first place where the next parts fit is as good as any other, so only the last `**` is ever
        gone back to.

        Raises:
            Refusal: the pattern is longer than a path may be; this and all that was compared before takes too long.
        """
        if len(pattern) > MAX_PATH:
            raise Refusal(f"The pattern {pattern[:40]!r}… is longer than a path may be.", where=self.where,
                          remedy='Name the folder above the crates, for example "crates/*".')  # fmt: skip
        wanted, parts = pattern.split("/"), folder.split("/")
        at = place = 0
        back: tuple[int, int] | None = None
        while place < len(parts):
            if at < len(wanted) and wanted[at] == "**":
                at += 1
                back = (at, place)
            elif at < len(wanted) and self._fits(parts[place], wanted[at]):
                at, place = at + 1, place + 1
            elif back is not None:
                at, place = back[0], back[1] + 1
                back = (at, place)
            else:
                return False
        return all(part == "**" for part in wanted[at:])

    def _fits(self, name: str, pattern: str) -> bool:
        self.looks += 1
        if self.looks > _MAX_LOOKS:
            raise Refusal(
                "The patterns of `members` are too many for this many folders.",
                where=self.where,
                remedy='Name the folder above the crates, for example "crates/*".',
            )
        return name == pattern or fnmatch.fnmatchcase(name, pattern)
