"""Small changes to a root file system before it becomes a layer, and what its package database says."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from sekisho.errors import Refusal
from sekisho.standard import DirectorySpec, FileSpec, UserSpec

_INSTALLED = "install ok installed"
_DEB = re.compile(r"(?P<name>[^_]+)_(?P<version>[^_]+)_[^_]+\.deb")


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


def make_users(root: Path, users: Iterable[UserSpec]) -> None:
    """Add users, without password and shell, to `root`; programs such as initdb want a name for their number."""
    for user in users:
        _append(root / "etc" / "passwd", f"{user.name}:x:{user.uid}:{user.uid}::/tmp:/usr/sbin/nologin\n")
        _append(root / "etc" / "group", f"{user.name}:x:{user.uid}:\n")


def dpkg_packages(root: Path) -> tuple[str, ...]:
    """Return `name=version` of every installed package of a root file system, sorted (deb-status in dpkg-query(1))."""
    status = root / "var/lib/dpkg/status"
    found = []
    for paragraph in status.read_text(encoding="utf-8", errors="replace").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if ": " in line and line[0] != " ")
        if fields.get("Status") == _INSTALLED:
            found.append(f"{fields['Package']}={fields['Version']}")
    return tuple(sorted(found))


def archive_packages(archives: Path, names: Iterable[str]) -> tuple[str, ...]:
    """Return `name=version` of the named packages among the downloaded archives (apt's file names)."""
    matches = [_DEB.fullmatch(path.name) for path in archives.glob("*.deb")]
    found = {match["name"]: match["version"].replace("%3a", ":") for match in matches if match}
    return tuple(sorted(f"{name}={found[name]}" for name in names if name in found))


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
