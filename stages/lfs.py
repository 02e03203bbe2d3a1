"""Pointers of Git LFS, and which pattern of a .gitattributes makes them. Pure.

A pointer stands in a commit for a file that is kept elsewhere (git-lfs specification `docs/spec.md`). Whether git makes
one is said by the attribute `filter=lfs` (gitattributes(5)): the nearest .gitattributes counts, in it the last line
that fits. Patterns are matched part by part, so that nobody's pattern takes long.
"""

from __future__ import annotations

import fnmatch
import shlex
from collections.abc import Callable, Iterator, Sequence

from sekisho.errors import Refusal

POINTER_SIZE = 1024
"""Bytes; a larger file is no pointer."""
ATTRIBUTES = ".gitattributes"

_BEGINNING = b"version https://git-lfs.github.com/spec/"
_FILTER = "filter"
_LFS = "filter=lfs"
_SPACE = "[[:space:]]"
"""How `git lfs track` writes a space."""
_SHOWN = 200


def is_pointer(data: bytes) -> bool:
    """Return whether a file of at most POINTER_SIZE bytes that begins so is a pointer."""
    return data.startswith(_BEGINNING)


def refuse_pointers(paths: Sequence[str], read: Callable[[str], bytes], *, where: str = "") -> None:
    """Refuse a tree with pointers in it.

    Args:
        paths: the pointers; none is fine.
        read: gives the content of a .gitattributes by its path in the tree, empty where there is none.
        where: for the message.

    Raises:
        Refusal: there are some; the remedy names the pattern that makes the first one, where one does.
    """
    if not paths:
        return
    path, more = paths[0], len(paths) - 1
    what = f"{path!r} is a Git LFS pointer: the file itself is not in the commit."
    if more:
        what = f"{path!r} and {more} more are Git LFS pointers: the files themselves are not in the commit."
    found = tracked_by(path, read)
    if found is None:
        remedy = (
            f"Put the file itself in its place and commit that: no {ATTRIBUTES} of the commit tracks {path!r} with LFS."
        )
    else:
        folder, pattern = found
        untrack = f"git lfs untrack {shlex.quote(pattern)}"
        if folder:
            untrack = f"(cd {shlex.quote(folder)} && {untrack})"
        # Files that have not changed are taken anew with --renormalize alone.
        remedy = (
            "Commit the file itself, at the top of the repository: "
            f"git lfs pull; {untrack}; git add --renormalize ."
        )  # fmt: skip
    raise Refusal(what, where=where, remedy=remedy)


def tracked_by(path: str, read: Callable[[str], bytes]) -> tuple[str, str] | None:
    """Return the folder of the .gitattributes and the pattern in it that has a file kept by LFS, None for none.

    Macros, and attributes that stand outside of the tree, are not known here.
    """
    parts = path.split("/")
    for depth in range(len(parts) - 1, -1, -1):
        folder, inside = "/".join(parts[:depth]), parts[depth:]
        said = None
        for pattern, words in _lines(read(f"{folder}/{ATTRIBUTES}".lstrip("/"))):
            word = next((word for word in reversed(words) if word.lstrip("-!").partition("=")[0] == _FILTER), "")
            if word and _fits(pattern, inside):
                said = (pattern, word)
        if said is not None:
            pattern, word = said
            return (folder, pattern) if word == _LFS and pattern.isprintable() and len(pattern) <= _SHOWN else None
    return None


def _lines(data: bytes) -> Iterator[tuple[str, list[str]]]:
    """Yield the pattern and the attributes of each line."""
    for line in data.decode("utf-8", "replace").splitlines():
        text = line.strip()
        if text.startswith('"'):
            pattern, _, rest = text[1:].partition('"')
        else:
            pattern, _, rest = text.replace("\t", " ").partition(" ")
        if pattern and not pattern.startswith(("#", "[attr]", "!")):
            yield pattern.replace(_SPACE, " "), rest.split()


def _fits(pattern: str, names: Sequence[str]) -> bool:
    """Return whether a pattern fits a path, given by its parts below the folder of the .gitattributes."""
    if "/" not in pattern:
        return fnmatch.fnmatchcase(names[-1], pattern)
    parts = pattern.lstrip("/").split("/")
    reached = _after(parts, {0})
    for name in names:
        reached = _after(
            parts,
            {at if parts[at] == "**" else at + 1 for at in reached
             if at < len(parts) and (parts[at] == "**" or fnmatch.fnmatchcase(name, parts[at]))},
        )  # fmt: skip
    return len(parts) in reached


def _after(parts: Sequence[str], places: set[int]) -> set[int]:
    """Return the places with those behind each `**`, which may stand for nothing."""
    found = set(places)
    for at in range(len(parts)):
        if at in found and parts[at] == "**":
            found.add(at + 1)
    return found
