"""Reading Cargo.lock: every crate by version and sha256, from crates.io and from nowhere else.

Format: cargo's `src/cargo/core/resolver/encode.rs`; version 3 and 4, and version 2 (no `version` line, checksums beside
the packages). A package without a source is one of the workload's own. Git repositories and other registries have no
checksum or no fetcher here, and are refused with what to do about it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from packageurl import PackageURL

from sekisho.errors import Refusal
from stages.build.language import Artifact
from stages.build.strict_toml import read_toml

LOCK_FILE = "Cargo.lock"
LOCK_COMMAND = "cargo generate-lockfile"
"""The one command that makes a lock file."""
INDEX = "registry+https://github.com/rust-lang/crates.io-index"
SPARSE_INDEX = "sparse+https://index.crates.io/"
VERSIONS = (2, 3, 4)
MAX_PACKAGES = 5_000

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")
_VERSION = re.compile(r"[0-9]{1,10}\.[0-9]{1,10}\.[0-9]{1,10}(-[0-9A-Za-z.-]{1,64})?(\+[0-9A-Za-z.-]{1,64})?")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_HEADER = re.compile(r"\s*\[\[\s*package\s*\]\]\s*(#.*)?")


@dataclass(frozen=True)
class Crate:
    """One crate of the public index."""

    name: str
    version: str
    sha256: str
    """Of the `.crate` file, in hexadecimal."""
    line: int

    @property
    def folder(self) -> str:
        """Name of the folder in its archive."""
        return f"{self.name}-{self.version}"

    @property
    def purl(self) -> str:
        """The package URL."""
        return PackageURL("cargo", None, self.name, self.version).to_string()

    def artifact(self) -> Artifact:
        """Return the file to fetch."""
        file = f"{self.folder}.crate"
        return Artifact(
            ecosystem="crates",
            path=f"crates/{self.name}/{file}",
            digests=(f"sha256:{self.sha256}",),
            save_as=file,
            purl=self.purl,
            where=f"{LOCK_FILE}:{self.line}",
        )


@dataclass(frozen=True)
class CargoLock:
    """A lock file."""

    version: int
    crates: tuple[Crate, ...]
    """Sorted by name and version."""
    own: tuple[tuple[str, str], ...]
    """Name and version of the packages without a source: the workload's."""
    value: Mapping[str, Any]
    """The whole file."""

    def has(self, name: str) -> bool:
        """Return whether any version of a crate is locked."""
        return any(crate.name == name for crate in self.crates)


def parse_cargo_lock(text: str, *, where: str = LOCK_FILE) -> CargoLock:
    """Return what a Cargo.lock pins.

    Args:
        text: the file.
        where: its name, for messages; the line number is added.

    Raises:
        Refusal: not a lock file, another version, or a package that does not come from crates.io with its checksum.
    """
    remedy = f"Run: {LOCK_COMMAND}"
    value = read_toml(text, file=where, remedy=remedy)
    version = value.get("version", VERSIONS[0])
    if version not in VERSIONS or isinstance(version, bool):
        raise Refusal(
            f"{LOCK_FILE} has version {str(version)[:20]}; known here are {', '.join(map(str, VERSIONS))}.",
            where=where,
            remedy=f"Make it with the offered Rust: {LOCK_COMMAND}",
        )
    packages = value.get("package", [])
    if not isinstance(packages, list) or not all(isinstance(item, dict) for item in packages):
        raise Refusal(f"{LOCK_FILE} has no list of packages.", where=where, remedy=remedy)
    if len(packages) > MAX_PACKAGES:
        raise Refusal(f"{LOCK_FILE} pins more than {MAX_PACKAGES} packages.", where=where)
    crates: dict[tuple[str, str], Crate] = {}
    own: list[tuple[str, str]] = []
    for line, package in zip(_lines(text, len(packages)), packages, strict=True):
        here = f"{where}:{line}" if line else where
        name, number = _identity(package, here)
        if "source" not in package:
            own.append((name, number))
            continue
        crate = _crate(name, number, package, line, here)
        if crates.setdefault((name, number), crate) is not crate:
            raise Refusal(f"{name} {number} is locked twice.", where=here, remedy=remedy)
    return CargoLock(version, tuple(crates[key] for key in sorted(crates)), tuple(sorted(own)), value)


def _lines(text: str, count: int) -> Iterator[int]:
    """Yield the line of each package. A file that is written in another way than cargo's gets zeros."""
    found = [number for number, line in enumerate(text.splitlines(), 1) if _HEADER.fullmatch(line)]
    yield from found if len(found) == count else [0] * count


def _identity(package: Mapping[str, Any], where: str) -> tuple[str, str]:
    name, version = package.get("name"), package.get("version")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise Refusal(f"{str(name)[:80]!r} is not the name of a crate.", where=where, remedy=f"Run: {LOCK_COMMAND}")
    if not isinstance(version, str) or not _VERSION.fullmatch(version):
        raise Refusal(f"{str(version)[:80]!r} is not a version of {name}.", where=where, remedy=f"Run: {LOCK_COMMAND}")
    return name, version


def _crate(name: str, version: str, package: Mapping[str, Any], line: int, where: str) -> Crate:
    source, checksum = package.get("source"), package.get("checksum")
    shown = f"{name} {version}"
    if isinstance(source, str) and source.startswith("git+"):
        raise Refusal(
            f"{shown} comes from a git repository, which has no checksum in the lock file.",
            where=where,
            remedy="Take a release from crates.io, or put the crate into a folder here and name it by path.",
        )
    if source not in (INDEX, SPARSE_INDEX):
        raise Refusal(
            f"{shown} comes from another registry than crates.io.",
            where=where,
            remedy="Take it from crates.io, or put the crate into a folder of this workload and name it by path.",
        )
    if not isinstance(checksum, str) or not _SHA256.fullmatch(checksum):
        raise Refusal(
            f"{shown} has no checksum that is a whole sha256.",
            where=where,
            remedy=f"Lock it anew with a current cargo: {LOCK_COMMAND}",
        )
    return Crate(name, version, checksum, line)
