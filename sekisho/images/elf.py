"""Which shared libraries a program needs: read from its ELF file, so that a distilled image can be checked to be whole.

Format: elf(5), 64 bits, little endian: the dynamic section's DT_NEEDED, DT_RPATH and DT_RUNPATH.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sekisho.errors import PermanentError
from sekisho.images.tree import Entry, Tree

_MAGIC = b"\x7fELF\x02\x01"
_LOAD, _DYNAMIC = 1, 2
_NULL, _NEEDED, _STRTAB, _RPATH, _RUNPATH = 0, 1, 5, 15, 29
_SHOWN = 8
_MOST_LINKS = 20


@dataclass(frozen=True)
class Needs:
    """What one ELF file asks of the dynamic loader."""

    libraries: tuple[str, ...]
    paths: tuple[str, ...]
    """Folders that it names itself; `$ORIGIN` stands for its own."""


def needs_of(path: Path) -> Needs | None:
    """Return what a file needs; None where it is no ELF file of this kind, or a static one."""
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            return None
        data = _MAGIC + file.read()
    (table,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    loads: list[tuple[int, int, int]] = []
    dynamic: tuple[int, int] | None = None
    for number in range(count):
        kind, _, offset, address, _, length = struct.unpack_from("<IIQQQQ", data, table + number * size)
        if kind == _LOAD:
            loads.append((address, offset, length))
        elif kind == _DYNAMIC:
            dynamic = (offset, length)
    if dynamic is None:
        return None
    entries = [struct.unpack_from("<qQ", data, dynamic[0] + at) for at in range(0, dynamic[1], 16)]
    tags = entries[: next((at for at, (tag, _) in enumerate(entries) if tag == _NULL), len(entries))]
    strings = next((value for tag, value in tags if tag == _STRTAB), 0)
    start = next((strings - address + offset for address, offset, length in loads
                  if address <= strings < address + length), None)  # fmt: skip
    if start is None:
        return None

    def text(at: int) -> str:
        return data[start + at : data.index(b"\0", start + at)].decode("utf-8", "replace")

    libraries = tuple(text(value) for tag, value in tags if tag == _NEEDED)
    folders = [folder for tag, value in tags if tag in (_RPATH, _RUNPATH) for folder in text(value).split(":")]
    return Needs(libraries, tuple(folder for folder in folders if folder))


def check_whole(tree: Tree, sources: Mapping[str, Path]) -> None:
    """Check that every library that a file of an image needs is in the image.

    Args:
        tree: the image, whole.
        sources: root file system that holds each file of the tree that is to be looked at, by path.

    Raises:
        PermanentError: a library is missing; says which and who needs it.
    """
    found: dict[str, set[str]] = {}
    for path, root in sources.items():
        if tree[path].kind != "file" or (needs := needs_of(root / path)) is None:
            continue
        for library in needs.libraries:
            if not any(_is_file(tree, f"{folder}/{library}") for folder in _folders(path, needs)):
                found.setdefault(library, set()).add(path)
    if found:
        told = [f"{library} (for {min(users)})" for library, users in sorted(found.items())]
        more = f" and {len(told) - _SHOWN} more" if len(told) > _SHOWN else ""
        raise PermanentError(
            f"Libraries are missing in the image: {', '.join(told[:_SHOWN])}{more}.",
            where="standard-images.yaml",
            remedy="Name their packages in the recipe, or drop the files that need them.",
        )


def _folders(path: str, needs: Needs) -> list[str]:
    own = path.rpartition("/")[0]
    named = [folder.replace("${ORIGIN}", "$ORIGIN").replace("$ORIGIN", f"/{own}").strip("/") for folder in needs.paths]
    triplets = ("x86_64-linux-gnu", "aarch64-linux-gnu")
    usual = [f"{top}/lib{below}" for below in ("", *(f"/{item}" for item in triplets)) for top in ("usr", "usr/local")]
    # What lies beside a library of a program's own is loaded by it or with it.
    return [*named, own, f"{own}/server", f"{own.rpartition('/')[0]}", "usr/lib64", "lib64", *usual]


def _is_file(tree: Tree, path: str) -> bool:
    """Tell whether a path leads to a file, through the image's own links."""
    for _ in range(_MOST_LINKS):
        resolved = _step(tree, path)
        if resolved is None:
            return False
        if isinstance(resolved, Entry):
            return resolved.kind == "file"
        path = resolved
    return False


def _step(tree: Tree, path: str) -> Entry | str | None:
    parts = [part for part in path.split("/") if part not in ("", ".")]
    walked: list[str] = []
    for number, part in enumerate(parts):
        if part == "..":
            walked = walked[:-1]
            continue
        walked.append(part)
        entry = tree.get("/".join(walked))
        if entry is None:
            return None
        if entry.kind == "link":
            rest = "/".join(parts[number + 1 :])
            above = "" if entry.value.startswith("/") else "/".join(walked[:-1])
            return f"{above}/{entry.value}/{rest}"
    return tree.get("/".join(walked))
