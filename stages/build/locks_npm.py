"""Reading package-lock.json and npm-shrinkwrap.json (lockfileVersion 2 and 3). Pure.

Format: https://docs.npmjs.com/cli/v11/configuring-npm/package-lock-json. Every package must come from the package
index and be named by a hash; where it was downloaded from last time (`resolved`) decides nothing, as its path below
the index follows from name and version. What else a lock may hold, a git repository, a URL, a file, is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from sekisho.errors import Refusal
from stages.build.npm_names import (
    Pinned,
    check_folder,
    check_name,
    check_version,
    from_elsewhere,
    index_path,
    read_integrity,
    runs_here,
    split_url,
)
from stages.build.strict_json import read_object
from stages.trees import MAX_PATH

REGISTRY = "https://registry.npmjs.org"
"""In the lock that the line hands to npm; nothing is fetched from there by npm."""
LOCK_COMMAND = "npm install --package-lock-only"
NEW_LOCK_COMMAND = "rm -rf package-lock.json node_modules && npm install"

MAX_PACKAGES = 10_000
_VERSIONS = (2, 3)
_KEPT = (
    "name", "version", "dev", "optional", "devOptional", "peer", "inBundle", "bundleDependencies", "hasInstallScript",
    "bin", "os", "cpu", "libc", "engines", "dependencies", "optionalDependencies", "peerDependencies",
    "peerDependenciesMeta", "devDependencies", "workspaces",
)  # fmt: skip
"""What npm needs of an entry to lay out node_modules."""


@dataclass(frozen=True)
class NpmLock:
    """What a lock says."""

    file: str
    packages: tuple[Pinned, ...]
    """Packages of the index, one for each place in node_modules."""
    folders: tuple[str, ...]
    """Folders of the workload that are packages themselves: workspaces and what is linked; without the top."""
    links: Mapping[str, str]
    """Link in node_modules and the folder that it leads to."""
    places: frozenset[str]
    """All of its entries, also of what is not fetched for this platform."""
    root: Mapping[str, Any]
    """What the lock says of the workload's own package.json."""
    normalised: bytes = field(repr=False)
    """The same lock for npm: each package with a hash and the public index's URL, and nothing that npm ignores."""


class OldLock(Refusal):
    """A lock file of npm 6 or older: it pins versions and does not say where each package goes."""


def parse_npm_lock(text: str, *, where: str = "package-lock.json") -> NpmLock:
    """Return what a lock file pins.

    Args:
        text: the file.
        where: its name, for messages; the line is added.

    Raises:
        OldLock: the format of npm 6 and older.
        Refusal: another version of the format; a package without a hash, from elsewhere than the package index, or
            with a name, version or place that no package has.
    """
    value = read_object(text, where=where, remedy=f"Make it anew: {NEW_LOCK_COMMAND}")
    version = value.get("lockfileVersion")
    if version not in _VERSIONS or isinstance(version, bool):
        kind = OldLock if version == 1 and not isinstance(version, bool) else Refusal
        raise kind(
            f"{where} has lockfileVersion {str(version)[:20]}; the line reads 2 and 3.",
            where=where,
            remedy=f"Run with npm 7 or later: {LOCK_COMMAND}",
        )
    entries = value.get("packages")
    if not isinstance(entries, dict) or not all(isinstance(item, dict) for item in entries.values()):
        raise Refusal(f"{where} has no `packages`.", where=where, remedy=f"Make it anew: {NEW_LOCK_COMMAND}")
    if len(entries) > MAX_PACKAGES:
        raise Refusal(
            f"{where} has {len(entries)} packages; at most {MAX_PACKAGES} are taken.",
            where=where,
            remedy="Give each workload a folder and a lock file of its own.",
        )
    return _Reading(where, text, entries).lock()


class _Reading:
    """One lock being read."""

    def __init__(self, where: str, text: str, entries: Mapping[str, dict[str, Any]]) -> None:
        self.where = where
        self.entries = entries
        self._lines = _lines_of_keys(text)
        self._holders = _holders_of(entries)

    def lock(self) -> NpmLock:
        packages: list[Pinned] = []
        folders: list[str] = []
        links: dict[str, str] = {}
        written: dict[str, Any] = {}
        absent: set[str] = set()
        for key, entry in self.entries.items():
            if not key:
                written[key] = _kept(entry)
                continue
            name = self._place(key)
            if not name:
                folders.append(key)
                written[key] = _kept(entry)
            elif entry.get("link") is True:
                links[key] = self._target(key, entry)
                written[key] = {"resolved": links[key], "link": True}
            else:
                written[key] = _kept(entry)
                pinned = self._package(key, name, entry, absent)
                if pinned is not None:
                    packages.append(pinned)
                    written[key] |= {"resolved": f"{REGISTRY}/{pinned.path}", "integrity": pinned.integrity}
        for key, target in links.items():
            if target not in self.entries:
                raise Refusal(f"{key!r} leads to {target!r}, which is not in the lock.", where=self._at(key),
                              remedy=f"Run: {LOCK_COMMAND}")  # fmt: skip
        for key, item in written.items():
            self._drop_absent(key, item)
        root = self.entries.get("", {})
        normalised = {"name": "workload", "lockfileVersion": 3, "requires": True, "packages": written}
        return NpmLock(
            self.where, tuple(packages), tuple(sorted(folders)), links, frozenset(self.entries), root,
            _json(normalised),
        )  # fmt: skip

    def _at(self, key: str) -> str:
        """Return the place of an entry, for messages."""
        line = self._line(key)
        return f"{self.where}:{line}" if line else self.where

    def _line(self, key: str) -> int:
        return self._lines.get(key, 0)

    def _place(self, key: str) -> str:
        """Return the name of the folder in node_modules that a key stands for; empty for a folder of the workload."""
        if len(key) > MAX_PATH or len(key.encode()) > MAX_PATH:
            raise Refusal(
                f"The lock has an entry {key[:100]!r}… that is longer than a path may be ({MAX_PATH} bytes).",
                where=self._at(key),
                remedy=f"Make the lock anew: {NEW_LOCK_COMMAND}",
            )
        before, separator, rest = f"/{key}".partition("/node_modules/")
        folder = before.removeprefix("/")
        names = rest.split("/node_modules/") if separator else []
        try:
            if folder or key.startswith("/"):
                check_folder(folder or key)
            if "" in key.split("/")[:-1]:
                raise ValueError("a folder has no name")  # noqa: TRY301
            for name in names:
                check_name(name)
        except ValueError as error:
            raise Refusal(
                f"The lock has an entry {key[:100]!r}: {error}.",
                where=self._at(key),
                remedy=f"Make the lock anew: {NEW_LOCK_COMMAND}",
            ) from error
        return names[-1] if names else ""

    def _drop_absent(self, key: str, item: dict[str, Any]) -> None:
        """Leave out optional packages that the lock does not have, as npm writes it where it could not find them.

        npm itself would look for them in the index, and refuse the lock for want of them.
        """
        wanted = item.get("optionalDependencies")
        if isinstance(wanted, dict):
            folders = {key, *_above(key), ""}
            item["optionalDependencies"] = {
                name: text for name, text in wanted.items() if not folders.isdisjoint(self._holders.get(name, ()))
            }

    def _target(self, key: str, entry: Mapping[str, Any]) -> str:
        target = entry.get("resolved")
        try:
            if not isinstance(target, str):
                raise ValueError("it names no folder")  # noqa: TRY004, TRY301  (both become one refusal)
            return check_folder(target)
        except ValueError as error:
            raise Refusal(
                f"{key!r} is a link to {str(target)[:100]!r}: {error}.",
                where=self._at(key),
                remedy="Keep linked packages inside the workload's folder, or put score.yaml into the folder that "
                "holds both, with a package.json that names them as workspaces.",
            ) from error

    def _package(self, key: str, place: str, entry: Mapping[str, Any], absent: set[str]) -> Pinned | None:
        """Return a package of the index, None for one that is not fetched."""
        if entry.get("inBundle") is True and "/node_modules/" in key:
            return None  # it comes in the file of the package above it, and by that one's hash
        if absent and not absent.isdisjoint(_above(key)):
            return None
        optional = entry.get("optional") is True or entry.get("devOptional") is True
        if not runs_here(entry.get("os"), entry.get("cpu"), entry.get("libc")):
            if optional:
                absent.add(key)
                return None
            raise Refusal(
                f"{place} does not run on Linux x64 with glibc, and is not optional.",
                where=self._at(key),
                remedy="Move it to optionalDependencies, or take another package.",
            )
        name, version = entry.get("name", place), entry.get("version")
        try:
            if not isinstance(name, str) or not isinstance(version, str):
                raise ValueError("it has no name or version")  # noqa: TRY004, TRY301
            check_name(name)
            self._check_source(name, version, entry.get("resolved"), key)
            check_version(version)
            integrity, digest = read_integrity(entry.get("integrity"))
        except ValueError as error:
            raise Refusal(
                f"{place} cannot be fetched by its hash: {error}.",
                where=self._at(key),
                remedy=f"Make the lock anew: {NEW_LOCK_COMMAND}",
            ) from error
        return Pinned(
            name=name, version=version, digest=digest, integrity=integrity, place=key,
            line=self._line(key), dev=entry.get("dev") is True, optional=optional,
            scripts=entry.get("hasInstallScript") is True, bin=_bin(entry.get("bin"), place),
        )  # fmt: skip

    def _check_source(self, name: str, version: str, resolved: object, key: str) -> None:
        """Refuse what comes from a git repository, a URL or a file; any npm registry is the index by another name."""
        if resolved is None:
            return
        if not isinstance(resolved, str):
            raise ValueError("`resolved` is not text")  # noqa: TRY004
        if resolved == f"{REGISTRY}/{index_path(name, version)}":
            return
        parts = split_url(resolved)
        shaped = unquote(parts.path).endswith(f"/{index_path(name, version)}")
        if parts.scheme not in {"http", "https"} or not shaped:
            raise from_elsewhere(name, resolved, where=self._at(key))


def _lines_of_keys(text: str) -> dict[str, int]:
    """Return the line of each entry, as far as the file is written as npm writes it; for messages only."""
    found: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), 1):
        plain = line.strip()
        if plain.startswith('"') and plain.endswith('": {'):
            found.setdefault(plain[1:-4], number)
    return found


def _holders_of(keys: Iterable[str]) -> Mapping[str, set[str]]:
    """Return the folders that have a package in their node_modules, by its name there."""
    found: dict[str, set[str]] = {}
    for key in keys:
        folder, separator, name = f"/{key}".rpartition("/node_modules/")
        if separator:
            found.setdefault(name, set()).add(folder.removeprefix("/"))
    return found


def _json(value: Mapping[str, Any]) -> bytes:
    """Return JSON with one spelling; half a second faster than RFC 8785 for a lock of a thousand packages."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _above(key: str) -> Iterator[str]:
    while "/" in key:
        key = key.rpartition("/")[0]
        yield key


def _kept(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: entry[key] for key in _KEPT if key in entry}


def _bin(value: object, place: str) -> Mapping[str, str]:
    """Return the programs of a package: name and path in the package's folder."""
    if isinstance(value, str):
        value = {place.rpartition("/")[2]: value}
    if not isinstance(value, dict):
        return {}
    return {name: path for name, path in _texts(value) if ".." not in path.split("/") and not path.startswith("/")}


def _texts(value: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    for name, item in value.items():
        if isinstance(item, str):
            yield name, item.removeprefix("./")
