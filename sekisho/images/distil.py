"""Distilled images: the files of a few packages and nothing else, so that there is no shell and no package manager.

The packages are installed by their own scripts in a whole Debian; then only what they own stays, with the few things
made while installing that the recipe names. dpkg's database is cut down to them, so that a scanner sees exactly what
is there. Format: deb(5), dpkg-query(1); with a merged /usr a package still says /lib where it means /usr/lib.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from sekisho.errors import PermanentError
from sekisho.images.tree import Tree, path_filter

STATUS = "var/lib/dpkg/status"
_INFO = "var/lib/dpkg/info"
_FIELD = re.compile(r"^(Package|Architecture|Multi-Arch): (.*)$", re.MULTILINE)


def owned_paths(root: Path, packages: Iterable[str]) -> frozenset[str]:
    """Return the paths that packages own, relative to the root, as they are on a merged /usr.

    Raises:
        PermanentError: a package is not installed.
    """
    merged = {link.name: str(link.readlink()) for link in root.iterdir() if link.is_symlink()}
    found: set[str] = set()
    for package in packages:
        listing = _listing(root, package)
        found.add(listing.relative_to(root).as_posix())
        for line in listing.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
            top, slash, rest = line.strip("/").partition("/")
            if top and top != ".":
                found.add(f"{merged.get(top, top)}{slash}{rest}" if slash else top)
    return frozenset(found)


def cut_status(root: Path, packages: Iterable[str]) -> None:
    """Leave only these packages in dpkg's database of a root file system."""
    wanted = set(packages)
    status = root / STATUS
    paragraphs = status.read_text(encoding="utf-8", errors="surrogateescape").strip("\n").split("\n\n")
    kept = [text for text in paragraphs if dict(_FIELD.findall(text)).get("Package") in wanted]
    status.write_text("".join(f"{text}\n\n" for text in kept), encoding="utf-8", errors="surrogateescape")


def distilled(root: Path, tree: Tree, packages: Iterable[str], keep: Iterable[str]) -> Tree:
    """Return the part of a root file system's tree that stays.

    Args:
        root: the root file system, with every package installed.
        tree: what it holds.
        packages: whose files stay.
        keep: globs of what stays besides.

    Raises:
        PermanentError: a package is not installed, or nothing is as `keep` says.
    """
    keep = tuple(keep)
    owned = owned_paths(root, packages)
    chosen = {path for path in tree if path in owned or path == STATUS}
    for glob in keep:
        matching = path_filter([glob])
        found = {path for path in tree if matching.fullmatch(path)}
        if not found:
            raise PermanentError(f"Nothing in the image is {glob}.", where="keep", remedy="Correct the recipe.")
        chosen |= found
    # The links of a merged /usr belong to no package, and everything stands on them.
    chosen |= {path for path, entry in tree.items() if "/" not in path and entry.kind == "link"}
    for path in tuple(chosen):
        while "/" in path:
            path = path.rpartition("/")[0]  # noqa: PLW2901
            chosen.add(path)
    return {path: entry for path, entry in tree.items() if path in chosen}


def _listing(root: Path, package: str) -> Path:
    listings = (root / _INFO).glob(f"{package}*.list")
    found = [path for path in listings if path.name.removesuffix(".list").partition(":")[0] == package]
    if len(found) != 1:
        raise PermanentError(
            f"The package {package} is not installed once.", where=f"{root / _INFO}", remedy="Correct the recipe."
        )
    return found[0]
