"""Small changes to a root file system before it becomes a layer, and what its package database says."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from sekisho.errors import Refusal
from sekisho.standard import DirectorySpec, FileSpec, UserSpec

_INSTALLED = "install ok installed"
_SOURCE = re.compile(r"(?P<name>[^ (]+)(?: \((?P<version>[^)]+)\))?")


def place_files(root: Path, files: Iterable[FileSpec], find: Callable[[str], Path]) -> None:
    """Copy files into `root`, owned by root, directories above them made as needed."""
    for item in files:
        target = _within(root, item.target)
        _make_parents(root, target)
        if target.is_symlink():
            target.unlink()
        shutil.copyfile(find(item.source), target)
        target.chmod(int(item.mode, 8))
        os.chown(target, 0, 0)


def make_directories(root: Path, directories: Iterable[DirectorySpec]) -> None:
    """Make directories in `root`; the directory's group is its user's."""
    for item in directories:
        target = _within(root, item.target)
        _make_parents(root, target)
        target.mkdir(exist_ok=True)
        target.chmod(int(item.mode, 8))
        os.chown(target, item.uid, item.uid)


def make_links(root: Path, links: Mapping[str, str]) -> None:
    """Make symbolic links in `root`; what stood in their place is replaced, unless it is a directory."""
    for link, value in sorted(links.items()):
        place = _within(root, link)
        _make_parents(root, place)
        place.unlink(missing_ok=True)
        place.symlink_to(value)


def make_users(root: Path, users: Iterable[UserSpec]) -> None:
    """Add users, without password and shell, to `root`; programs such as initdb want a name for their number."""
    for user in users:
        _append(root / "etc" / "passwd", f"{user.name}:x:{user.uid}:{user.uid}::/tmp:/usr/sbin/nologin\n")
        _append(root / "etc" / "group", f"{user.name}:x:{user.uid}:\n")


def dpkg_packages(root: Path) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the installed packages of a root file system, `name=version`, sorted; and where they were built from.

    The second is the source, `name=version`, of each package whose source has another name or version than itself
    (deb-status in dpkg-query(1); Source in deb-control(5)).
    """
    status = root / "var/lib/dpkg/status"
    found, sources = [], {}
    for paragraph in status.read_text(encoding="utf-8", errors="replace").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if ": " in line and line[0] != " ")
        if fields.get("Status") != _INSTALLED:
            continue
        name, version = fields["Package"], fields["Version"]
        found.append(f"{name}={version}")
        if match := _SOURCE.fullmatch(fields.get("Source", "")):
            sources[name] = f"{match['name']}={match['version'] or version}"
    return tuple(sorted(found)), sources


def _append(path: Path, line: str) -> None:
    lines = path.read_text(encoding="utf-8")
    if line not in lines:
        path.write_text(lines + line, encoding="utf-8")


def _within(root: Path, target: str) -> Path:
    parts = [part for part in target.split("/") if part]
    if ".." in parts or not parts:
        raise Refusal(f"The target {target!r} is not a path inside the image.")
    return root.joinpath(*parts)


def _make_parents(root: Path, target: Path) -> None:
    for above in reversed(target.relative_to(root).parents):
        directory = root / above
        if not directory.exists():
            directory.mkdir(mode=0o755)
            directory.chmod(0o755)
