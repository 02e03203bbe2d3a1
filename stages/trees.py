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
MAX_FOLDERS = 50_000
MAX_BYTES = 512 * 1024 * 1024
MAX_PATH = 1024
"""Bytes of one path, in UTF-8."""
MAX_DEPTH = 64
"""Names in one path. The deepest that people commit (packages of Java, one node_modules in another) have some 30; a
path of 1024 bytes could have 512, and a tree of a few bytes puts such a path below each of its names."""
MAX_HOPS = 40
"""Links followed for one path, as in Linux (path_resolution(7))."""
MAX_STEPS = 10_000_000
"""Names walked for all links of a tree, which takes two seconds; 50,000 links that are hostile could ask for hundreds
of millions."""
REGULAR: Mapping[str, int] = {"100644": 0o644, "100664": 0o644, "100755": 0o755}
"""Git's modes of plain files, and the modes that they get."""
LINK = "120000"
SUBMODULE = "160000"
FOLDER = "040000"


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
    folders: int = MAX_FOLDERS
    """Each costs the disk as much as a small file."""

    def check(self, files: int, size: int, folders: int = 0, *, where: str = "") -> None:
        """Refuse a tree with more files, bytes or folders than the limits.

        Raises:
            Refusal: too many files, too many bytes, or too many folders.
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
        if folders > self.folders:
            raise Refusal(
                f"More than {self.folders} folders.",
                where=where,
                remedy="Remove what the workload does not need to run.",
            )


def check_entries(entries: Iterable[TreeEntry], limits: Limits, *, where: str = "") -> list[TreeEntry]:
    """Return the entries of a tree whose names and modes are ordinary, and which are not too many.

    They are counted one by one: a tree of a few hundred bytes can list more files than any memory holds, and more
    folders than git gets through, without a file in any. Folders may be listed or not; they are counted only.

    Raises:
        Refusal: a reserved name, a submodule, an unknown mode, two things of one path, or too large.
    """
    found: list[TreeEntry] = []
    folders: set[str] = set()
    size = 0
    for entry in entries:
        check_name(entry.path, where=where)
        if entry.mode == FOLDER:
            folders.add(entry.path)
        else:
            check_mode(entry.path, entry.mode, where=where)
            if entry.mode == LINK and entry.size > MAX_PATH:  # before it is read
                raise Refusal(f"The link {entry.path!r} has no usable target.", where=where, remedy="Remove the link.")
            found.append(entry)
            size += entry.size
        new_folders(entry.path, folders)
        limits.check(len(found), size, len(folders), where=where)
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
        Refusal: absolute, empty, too long or deep, not UTF-8, with control characters, with `.`, `..` or `.git` in it.
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
    parts = path.split("/")
    if len(parts) > MAX_DEPTH:
        raise Refusal(
            f"The path {path[:80]!r} is more than {MAX_DEPTH} folders deep.",
            where=shown,
            remedy="Nest the folders less deeply.",
        )
    for part in parts:
        if part in {"", ".", ".."} or part.lower() == ".git":
            raise Refusal(f"The path {path!r} leaves its tree or is reserved.", where=shown, remedy="Remove that path.")
    return path


def new_folders(path: str, known: set[str]) -> list[str]:
    """Return the folders that a path is in and that are not known yet, the outer ones first; they are known then."""
    found = []
    while (path := path.rpartition("/")[0]) and path not in known:
        known.add(path)
        found.append(path)
    return found[::-1]


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
        new_folders(path, folders)
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
        Refusal: a link is absolute, leads out, never ends, or its target is not UTF-8; or they are a maze.
    """
    steps = 0
    for path, target in links.items():
        try:
            encoded = target.encode("utf-8")
        except UnicodeEncodeError as error:
            raise Refusal(
                f"The target of the link {path!r} is not UTF-8.",
                where=where,
                remedy="Rename the file that it points to, and make the link again.",
            ) from error
        if not encoded or b"\0" in encoded or len(encoded) > MAX_PATH:
            raise Refusal(f"The link {path!r} has no usable target.", where=where, remedy="Remove the link.")
        steps += _follow(path, links, where)
        if steps > MAX_STEPS:
            raise Refusal(
                "The links lead through too many others.", where=where, remedy="Link to the files themselves."
            )


def _follow(path: str, links: Mapping[str, str], where: str) -> int:
    """Walk a link to its end and return how many names that took."""
    done: list[str] = []
    todo = path.split("/")[::-1]
    hops = steps = 0
    while todo:
        part = todo.pop()
        steps += 1
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
    return steps
