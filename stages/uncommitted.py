"""A working copy by the source stage's rules, as if all of it were committed and pushed now.

A push is refused for what git would make of a folder: a submodule, a pointer of Git LFS, a link out of the repository.
Git itself is asked what that would be, for the whole repository, because all of it is pushed; none of its filters runs.
A folder that git does not know is taken as it is.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from stages.lfs import POINTER_SIZE, is_pointer, refuse_pointers
from stages.trees import LINK, REGULAR, SUBMODULE, Limits, TreeEntry, check_entries, check_links
from stages.working_copy import git_says, is_content, walked

WHERE = "working copy"
"""Stands where a push names the commit."""
_FILE, _PROGRAM = "100644", "100755"
_BEGINNING = 64


def check_uncommitted(folder: Path, *, limits: Limits | None = None) -> None:
    """Refuse a working copy that the source stage would refuse once it is committed.

    Args:
        folder: the workload's folder; where it is part of a repository, all of that is looked at.
        limits: how large the tree may be.

    Raises:
        Refusal: as `stages.source.checkout` says it of the commit.
    """
    top, known = _repository(folder)
    if top is None:
        top, known = folder, dict.fromkeys(walked(folder), "")
    found = [entry for path in sorted(known, key=os.fsencode) if (entry := _entry(top, path, known[path])) is not None]
    managed = _managed(top, {entry.path: entry for entry in found if entry.mode in REGULAR})
    counted = (TreeEntry(entry.mode, entry.path, 0 if entry.path in managed else entry.size) for entry in found)
    entries = check_entries(counted, limits or Limits(), where=WHERE)
    pointers = [entry.path for entry in entries if entry.path in managed or _points(top, entry)]
    refuse_pointers(pointers, lambda path: _plain(top / path), where=WHERE)
    links = {entry.path: _target(top / entry.path) for entry in entries if entry.mode == LINK}
    check_links({path: target for path, target in links.items() if target}, where=WHERE)


def _repository(folder: Path) -> tuple[Path | None, dict[str, str]]:
    """Return the top of the repository and what is in it: each path, with mode and object where git tracks it.

    None where git knows no repository, or one that ignores this folder.
    """
    said = git_says(folder, "rev-parse", "--show-toplevel")
    if not said:
        return None, {}
    top = Path(os.fsdecode(said).removesuffix("\n"))
    tracked = git_says(top, "ls-files", "-z", "--stage")
    others = git_says(top, "ls-files", "-z", "--others", "--exclude-standard")
    inside = git_says(folder, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", ".")
    if tracked is None or others is None or not inside:
        return None, {}
    known = {os.fsdecode(name): "" for name in others.split(b"\0") if name}
    for line in filter(None, tracked.split(b"\0")):
        meta, _, name = line.partition(b"\t")
        known[os.fsdecode(name)] = meta.decode("ascii").rpartition(" ")[0]
    return top, known


def _entry(top: Path, path: str, known: str) -> TreeEntry | None:
    """Return what a commit would hold of a path, None for what is gone or is nobody's content."""
    mode, _, blob = known.partition(" ")
    place = top / path
    try:
        status = place.lstat()
    except OSError:
        return None
    if stat.S_ISDIR(status.st_mode):
        # Of folders git lists its own submodules, and with a slash others' repositories, which it would make some of.
        return TreeEntry(SUBMODULE, path.rstrip("/")) if mode == SUBMODULE or path.endswith("/") else None
    if not is_content(place):
        return None
    if stat.S_ISLNK(status.st_mode):
        return TreeEntry(LINK, path)
    return TreeEntry(_PROGRAM if status.st_mode & stat.S_IXUSR else _FILE, path, status.st_size, blob)


def _managed(top: Path, files: dict[str, TreeEntry]) -> frozenset[str]:
    """Return the files of which git would commit a pointer, although the file itself stands here.

    Those with the attribute `filter=lfs`, where git-lfs is set up: without it git takes their bytes as they are. One
    that was committed before it was tracked is what it was, until it is changed.
    """
    driver = git_says(top, "config", "--get-regexp", r"^filter\.lfs\.(clean|process)$")
    listed = git_says(
        top, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", ":(top,attr:filter=lfs)"
    )  # fmt: skip
    if not driver or not listed:
        return frozenset()
    chosen = [files[path] for path in map(os.fsdecode, listed.split(b"\0")) if path in files]
    committed = _sizes(top, sorted({entry.blob for entry in chosen} - {""}))
    return frozenset(entry.path for entry in chosen if committed.get(entry.blob) != entry.size)


def _sizes(top: Path, blobs: list[str]) -> dict[str, int]:
    asked = "".join(f"{blob}\n" for blob in blobs).encode()
    said = git_says(top, "cat-file", "--batch-check=%(objectname) %(objectsize)", data=asked) if blobs else None
    pairs = (line.split() for line in (said or b"").decode("ascii", "replace").splitlines())
    return {blob: int(size) for blob, size in pairs if size.isdigit()}


def _target(path: Path) -> str:
    """Return where a link leads, empty for one that has gone since."""
    try:
        return str(path.readlink())
    except OSError:
        return ""


def _points(top: Path, entry: TreeEntry) -> bool:
    if entry.mode not in REGULAR or not 0 < entry.size <= POINTER_SIZE:
        return False
    return is_pointer(_plain(top / entry.path, _BEGINNING))


def _plain(path: Path, limit: int = 1 << 20) -> bytes:
    """Return the beginning of a plain file, empty where there is none."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:  # noqa: PTH123  (flags)
            return file.read(limit) if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else b""
    except OSError:
        return b""
