"""Rules for trees of files that strangers wrote: names, links, limits. Pure, no I/O.

A tree reaches the line from two places, a commit and the output of a sandbox, and both are hostile until these
rules have passed: no name leaves the tree, no link leads out of it, no path stands for two things, and nothing is
larger than the limits. A working copy is judged by the same rules before it is pushed (`stages/uncommitted.py`).
"""

from __future__ import annotations

import shlex
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sekisho.errors import Refusal

MAX_FILES = 50_000
MAX_BYTES = 512 * 1024 * 1024
MAX_PATH = 1024
"""Bytes of one path, in UTF-8."""
MAX_HOPS = 40
"""Links followed for one path, as in Linux (path_resolution(7))."""
REGULAR: Mapping[str, int] = {"100644": 0o644, "100664": 0o644, "100755": 0o755}
"""Git's modes of plain files, and the modes that they get."""
LINK = "120000"
SUBMODULE = "160000"


@dataclass(frozen=True)
class TreeEntry:
    """One thing in a tree of git's, or one that a commit of a working copy would make of it."""

    mode: str
    """Git's: `100644`, `160000`, …"""
    path: str
    size: int = 0
    blob: str = ""
    """Its object; empty where there is none yet."""


@dataclass(frozen=True)
class Limits:
    """How large a tree may be."""

    files: int = MAX_FILES
    size: int = MAX_BYTES
    """Bytes of all files together."""

    def check(self, files: int, size: int, *, where: str = "") -> None:
        """Refuse a tree with more files or bytes than the limits.

        Raises:
            Refusal: too many files, or too many bytes.
        """
        if files > self.files:
            raise Refusal(
                f"More than {self.files} files.", where=where, remedy="Remove what the workload does not need to run."
            )
        if size > self.size:
            raise Refusal(
                f"More than {self.size // (1024 * 1024)} MiB of files.",
                where=where,
                remedy="Keep data and build results out of the repository.",
            )


def check_entries(entries: Iterable[TreeEntry], limits: Limits, *, where: str = "") -> list[TreeEntry]:
    """Return the entries of a tree whose names and modes are ordinary, and which are not too many.

    They are counted one by one: a tree of a few hundred bytes can list more files than any memory holds.

    Raises:
        Refusal: a reserved name, a submodule, an unknown mode, two things of one path, or too large.
    """
    found: list[TreeEntry] = []
    size = 0
    for entry in entries:
        check_name(entry.path, where=where)
        check_mode(entry.path, entry.mode, where=where)
        found.append(entry)
        size += entry.size
        limits.check(len(found), size, where=where)
    check_prefixes((entry.path for entry in found), where=where)
    return found


def check_mode(path: str, mode: str, *, where: str = "") -> None:
    """Refuse what is neither a file nor a link.

    Raises:
        Refusal: a submodule, or a mode that git does not know.
    """
    if mode == SUBMODULE:
        word = shell_word(path)
        raise Refusal(
            f"{path!r} is a submodule: the line builds what is in the commit, nothing else.",
            where=where,
            # As long as its .git is there, git adds it as a submodule again.
            remedy="Commit the files themselves, at the top of the repository: "
            f"git rm --cached {word}; rm -rf {word}/.git; git add {word}. "
            f"If the folder is empty, first: git submodule update --init {word}.",
        )
    if mode != LINK and mode not in REGULAR:
        raise Refusal(f"{path!r} has the unknown mode {mode}.", where=where, remedy="Commit plain files.")


def shell_word(path: str) -> str:
    """Return a path as it is typed at a shell."""
    return shlex.quote(f"./{path}" if path.startswith("-") else path)


def check_name(path: str, *, where: str = "") -> str:
    """Return a relative path whose every component is an ordinary name.

    Raises:
        Refusal: absolute, empty, too long, not UTF-8, with control characters, with `.`, `..` or `.git` in it.
    """
    shown = where or "tree"
    try:
        encoded = path.encode("utf-8")
    except UnicodeEncodeError as error:
        raise Refusal(f"The file name {path!r} is not UTF-8.", where=shown, remedy="Rename the file.") from error
    if not path or len(encoded) > MAX_PATH:
        raise Refusal(f"The file name {path[:80]!r} is empty or too long.", where=shown, remedy="Rename the file.")
    if not path.isprintable() and any(unicodedata.category(letter) in {"Cc", "Cs"} for letter in path):
        raise Refusal(f"The file name {path!r} has control characters.", where=shown, remedy="Rename the file.")
    for part in path.split("/"):
        if part in {"", ".", ".."} or part.lower() == ".git":
            raise Refusal(f"The path {path!r} leaves its tree or is reserved.", where=shown, remedy="Remove that path.")
    return path


def check_prefixes(files: Iterable[str], *, where: str = "") -> None:
    """Refuse a tree in which one path is both a file (or link) and a folder, or is there twice.

    Raises:
        Refusal: such a path exists.
    """
    seen: set[str] = set()
    folders: set[str] = set()
    for path in files:
        if path in seen:
            raise Refusal(f"The path {path!r} is there twice.", where=where, remedy="Make the tree again.")
        seen.add(path)
        while "/" in path:
            path = path.rpartition("/")[0]  # noqa: PLW2901  (walks up)
            if path in folders:
                break
            folders.add(path)
    both = seen & folders
    if both:
        raise Refusal(
            f"The path {min(both)!r} is a file and a folder at once.", where=where, remedy="Make the tree again."
        )


def check_links(links: Mapping[str, str], *, where: str = "") -> None:
    """Refuse symbolic links that lead out of the tree, in any number of steps.

    A look at the text of one link is not enough: `a -> b/c` and `d -> a/../../..` leave the tree only together. So
    every link is followed here as the kernel would follow it.

    Args:
        links: path of each link in the tree, and its target.
        where: for the message.

    Raises:
        Refusal: a link is absolute, leads out, or never ends.
    """
    for path, target in links.items():
        if not target or "\0" in target or len(target.encode("utf-8", "surrogateescape")) > MAX_PATH:
            raise Refusal(f"The link {path!r} has no usable target.", where=where, remedy="Remove the link.")
        _follow(path, links, where)


def _follow(path: str, links: Mapping[str, str], where: str) -> None:
    done: list[str] = []
    todo = path.split("/")[::-1]
    hops = 0
    while todo:
        part = todo.pop()
        if part in {"", "."}:
            continue
        if part == "..":
            if not done:
                raise Refusal(
                    f"The link {path!r} leads out of its tree.", where=where, remedy="Link inside the tree only."
                )
            done.pop()
            continue
        done.append(part)
        target = links.get("/".join(done))
        if target is None:
            continue
        hops += 1
        if target.startswith("/"):
            raise Refusal(
                f"The link {path!r} has an absolute target.", where=where, remedy="Link inside the tree only."
            )
        if hops > MAX_HOPS:
            raise Refusal(f"The link {path!r} never ends.", where=where, remedy="Remove the link.")
        done.pop()
        todo.extend(target.split("/")[::-1])
