"""Which part of an output goes where in the image. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from stages.build.language import PACKAGES_FILE, Take
from stages.build.pack import Entry, moved


def taken(entries: Iterable[Entry], take: Take) -> tuple[Entry, ...]:
    """Return what a take moves into the image, with the paths that it has there."""
    out = left_out(take.exclude)
    cut = len(take.below) + 1 if take.below else 0
    inside = (entry for entry in entries if _below(entry.path, take.below) and not out(entry.path[cut:]))
    return moved(inside, take.into, below=take.below)


def wanted(takes: Sequence[Take]) -> Callable[[str], bool]:
    """Return a test for whether any of these takes uses a path of the output; the list of packages always counts."""
    tests = [(take.below, len(take.below) + 1 if take.below else 0, left_out(take.exclude)) for take in takes]

    def used(path: str) -> bool:
        return path == PACKAGES_FILE or any(_below(path, below) and not out(path[cut:]) for below, cut, out in tests)

    return used


def roots(takes: Sequence[Take], *, listed: bool) -> tuple[str, ...]:
    """Return the paths of an output that these takes need, none below another; empty where all of it is needed."""
    found = {take.below for take in takes} | ({PACKAGES_FILE} if listed else set())
    if "" in found:
        return ()
    return tuple(sorted(path for path in found if not any(_below(path, other) for other in found - {path})))


def left_out(patterns: Sequence[str]) -> Callable[[str], bool]:
    """Return a test for whether a path, or a folder that it is in, matches one of the patterns."""
    if not patterns:
        return lambda _: False
    compiled = re.compile("|".join(f"(?:{_expression(pattern)})(?:/|$)" for pattern in patterns))
    return lambda path: compiled.match(path) is not None


def _expression(pattern: str) -> str:
    anywhere = "(?:.*/)?" if pattern.startswith("**/") else ""
    return anywhere + "/".join(_component(part) for part in pattern.removeprefix("**/").split("/"))


_WILD = {"*": "[^/]*", "?": "[^/]"}


def _component(pattern: str) -> str:
    """Return the expression for one component. Brackets are plain: files of web frameworks are named `[id].js`."""
    return "".join(_WILD.get(letter) or re.escape(letter) for letter in pattern)


def _below(path: str, folder: str) -> bool:
    return not folder or path == folder or path.startswith(f"{folder}/")
