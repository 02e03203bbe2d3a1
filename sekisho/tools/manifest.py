"""What stands in the tools' directory, how it came there, and whether it is still the same.

A binary counts only when the manifest has its version and digest. It is written under another name, flushed, renamed,
and only then recorded: whoever is killed in between leaves a file that does not count and is made again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import Field

from sekisho.errors import Refusal
from sekisho.model import Document
from sekisho.tools.lock import HEX_PATTERN

MANIFEST = "manifest.json"
PART_SUFFIX = ".part"
_CHUNK = 1 << 20


class Entry(Document):
    """One binary."""

    name: str
    version: str
    sha256: str = Field(pattern=HEX_PATTERN)
    how: str
    """Where it came from, for people."""
    recipe: str = ""
    """Digest of what a build was made from; empty for a download."""
    seen: str = ""
    """Inode, size and times of the file when its digest was last computed."""


class Manifest(Document):
    """The record of a tools' directory."""

    format: Literal["sekisho.dev/tools-manifest/v1"] = "sekisho.dev/tools-manifest/v1"
    entries: tuple[Entry, ...] = ()

    def get(self, name: str) -> Entry | None:
        """Return the entry of a binary, or None."""
        return next((entry for entry in self.entries if entry.name == name), None)

    def having(self, entry: Entry) -> Manifest:
        """Return the manifest with `entry` in place of the one of that name."""
        others = tuple(other for other in self.entries if other.name != entry.name)
        return self.model_copy(update={"entries": tuple(sorted((*others, entry), key=lambda one: one.name))})


def load_manifest(directory: Path) -> Manifest:
    """Return the manifest; empty where there is none or it is not readable, so that everything is made again."""
    try:
        return Manifest.parse((directory / MANIFEST).read_bytes())
    except (OSError, Refusal):
        return Manifest()


def save_manifest(directory: Path, manifest: Manifest) -> None:
    """Write the manifest, all or nothing."""
    part = directory / f".{MANIFEST}.{os.getpid()}{PART_SUFFIX}"
    part.write_bytes(manifest.canonical() + b"\n")
    part.chmod(0o644)
    replace(part, directory / MANIFEST)


def why_not(path: Path, entry: Entry | None, *, version: str, recipe: str, thorough: bool = False) -> str:
    """Return why the file at `path` does not count as `version`; empty when it does.

    Args:
        path: the binary.
        entry: its record.
        version: the version that the pins ask for.
        recipe: the digest of the build's inputs; a download of that version counts as well.
        thorough: compute the digest even of a file that was not touched since.
    """
    if entry is None:
        return "not made by these pins" if path.exists() else "missing"
    if entry.version != version:
        return f"version {entry.version} is recorded, {version} is pinned"
    if entry.recipe not in {"", recipe}:
        return "the pins of its build have changed"
    try:
        unchanged = fingerprint(path) == entry.seen and os.access(path, os.X_OK)
        if unchanged and not thorough:
            return ""
        if sha256_of(path) != entry.sha256:
            return "corrupted"
        return "" if os.access(path, os.X_OK) else "not executable"
    except OSError:
        return "missing"


def fingerprint(path: Path) -> str:
    """Return what changes when a file is written, replaced or moved (stat(2)): the change time cannot be set back."""
    state = path.stat()
    return f"{state.st_ino}:{state.st_size}:{state.st_mtime_ns}:{state.st_ctime_ns}"


def sha256_of(path: Path) -> str:
    """Return the hexadecimal sha256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def replace(part: Path, target: Path) -> None:
    """Move a finished file into place: afterwards there is the old one or the new one, also after a power cut."""
    with part.open("rb") as stream:
        os.fsync(stream.fileno())
    part.replace(target)
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def record(directory: Path, part: Path, *, name: str, version: str, how: str, recipe: str) -> Entry:
    """Put a finished binary in place and record it."""
    part.chmod(0o755)
    digest = sha256_of(part)
    target = directory / name
    replace(part, target)
    entry = Entry(name=name, version=version, sha256=digest, how=how, recipe=recipe, seen=fingerprint(target))
    save_manifest(directory, load_manifest(directory).having(entry))
    return entry


def part_path(directory: Path, name: str) -> Path:
    """Return the name under which a binary is made."""
    return directory / f".{name}.{os.getpid()}{PART_SUFFIX}"


def sweep(directory: Path, say: Callable[[str], None]) -> None:
    """Remove what a killed run left behind. Only for who holds the lock."""
    for path in directory.glob(f".*{PART_SUFFIX}"):
        say(f"{path.name}: left by an interrupted run, removed")
        path.unlink(missing_ok=True)
