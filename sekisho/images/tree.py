"""What a root file system holds, and how two of them differ. The walk reads; everything else is pure.

An image's layer is the difference between its tree and its parent's, so that registries and nodes keep the common
part once. Whiteouts are those of the OCI image-spec (layer.md).
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sekisho.canonical import digest_of_file

_SPECIAL_BITS = stat.S_ISUID | stat.S_ISGID
_GLOB_PART = re.compile(r"\*\*|\*|\?|\[![^\]]+\]|\[[^\]]+\]")


@dataclass(frozen=True, slots=True)
class Entry:
    """One file, directory or symbolic link. Times are not part of it: they are set when a layer is written."""

    path: str
    """Relative to the root, without a leading slash."""
    kind: Literal["file", "directory", "link"]
    mode: int
    uid: int
    gid: int
    value: str = ""
    """Digest of a file's bytes, target of a link."""

    def to_json(self) -> list[Any]:
        """Return the entry as a JSON array."""
        return [self.path, self.kind, self.mode, self.uid, self.gid, self.value]


Tree = Mapping[str, Entry]
"""Entries by path."""


@dataclass(frozen=True)
class Difference:
    """What a layer must say to turn one tree into another."""

    changed: tuple[Entry, ...]
    removed: tuple[str, ...]
    """Topmost removed paths."""


def tree_to_json(tree: Tree) -> list[list[Any]]:
    """Return a tree as JSON, sorted by path."""
    return [tree[path].to_json() for path in sorted(tree)]


def tree_from_json(value: list[list[Any]]) -> Tree:
    """Return the tree that `tree_to_json` wrote."""
    entries = [Entry(*item) for item in value]
    return {entry.path: entry for entry in entries}


def path_filter(globs: Iterable[str]) -> re.Pattern[str]:
    """Return an expression that fully matches every path of the globs and everything below them.

    `*`, `?` and `[...]` stay within one path component; `**` matches across components, so that `dev/**` leaves the
    directory itself.
    """
    choices = [_glob_expression(glob) for glob in globs]
    return re.compile(rf"(?:{'|'.join(choices)})(?:/.*)?" if choices else r"(?!)", re.DOTALL)


def _glob_expression(glob: str) -> str:
    expression, end = "", 0
    for match in _GLOB_PART.finditer(glob):
        expression += re.escape(glob[end : match.start()])
        part = match[0]
        if part == "**":
            expression += ".+"
        elif part == "*":
            expression += "[^/]*"
        elif part == "?":
            expression += "[^/]"
        else:
            inner = part[1:-1].replace("\\", "\\\\")
            expression += f"[^/{inner[1:]}]" if inner.startswith("!") else f"[{inner}]"
        end = match.end()
    return expression + re.escape(glob[end:])


def read_tree(root: Path, drop: re.Pattern[str]) -> Tree:
    """Read a root file system.

    Set-user-id and set-group-id bits are taken away: nothing in a standard image may gain rights. Device nodes,
    sockets and pipes are left out, as is whatever `drop` matches.
    """
    return {entry.path: entry for entry in _walk(root, "", drop)}


def _walk(root: Path, below: str, drop: re.Pattern[str]) -> Iterator[Entry]:
    with os.scandir(root / below) as found:
        items = sorted(found, key=lambda item: item.name)
    for item in items:
        path = f"{below}/{item.name}" if below else item.name
        if drop.fullmatch(path):
            continue
        about = item.stat(follow_symlinks=False)
        mode = stat.S_IMODE(about.st_mode) & ~_SPECIAL_BITS
        if stat.S_ISLNK(about.st_mode):
            yield Entry(path, "link", 0o777, about.st_uid, about.st_gid, str(Path(item.path).readlink()))
        elif stat.S_ISDIR(about.st_mode):
            yield Entry(path, "directory", mode, about.st_uid, about.st_gid)
            yield from _walk(root, path, drop)
        elif stat.S_ISREG(about.st_mode):
            yield Entry(path, "file", mode, about.st_uid, about.st_gid, digest_of_file(Path(item.path)))


def difference(parent: Tree, tree: Tree) -> Difference:
    """Return what turns `parent` into `tree`."""
    changed = tuple(tree[path] for path in sorted(tree) if parent.get(path) != tree[path])
    removed: list[str] = []
    for path in sorted(set(parent) - set(tree)):
        covered = any(_is_below(path, other) for other in removed)
        replaced = any(tree[above].kind != "directory" for above in _parents(path) if above in tree)
        if not covered and not replaced:
            removed.append(path)
    return Difference(changed, tuple(removed))


def _is_below(path: str, other: str) -> bool:
    return path.startswith(other + "/")


def _parents(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path
