"""Reading pnpm-lock.yaml (lockfileVersion 9.0), as pnpm writes it. Pure.

Only what has to be known beforehand is read, line by line: which packages, by which hash, for which platform, and
which of them production needs. pnpm itself reads the file again in the sandbox, with a full YAML parser; where the two
understood different things, it asks for a file that was not fetched, or finds another hash, and fails.
Format: https://github.com/pnpm/spec/blob/master/lockfile/9.0.md
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
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

LOCK_COMMAND = "pnpm install --lockfile-only"

_VERSION = "9.0"
_MAX_PACKAGES = 10_000
_MAX_LINE = 32_768
_KEY = re.compile(r"""( *)(?:'([^']+)'|"([^"]+)"|([^\s'"#][^:]*(?::[^\s:][^:]*)*)):(?: (.*))?""")
_PAIR = re.compile(r"\b(\w+): ('[^']*'|[^,}]+)")
_GROUPS = ("dependencies", "optionalDependencies")
_READ = (*_GROUPS, "devDependencies")


@dataclass
class _Entry:
    """One entry of `packages`, `snapshots` or `importers`, as far as it is read."""

    line: int
    values: dict[str, str] = field(default_factory=dict)
    groups: dict[str, dict[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class PnpmLock:
    """What a lock says."""

    packages: tuple[Pinned, ...]
    folders: tuple[str, ...]
    """Folders of the workload that are packages themselves, without the top."""
    asked: frozenset[str]
    """Names that package.json asked for when the lock was written."""


def parse_pnpm_lock(text: str, *, where: str = "pnpm-lock.yaml") -> PnpmLock:
    """Return what a lock file pins.

    Raises:
        Refusal: another version of the format, or a package that does not come from the index by a hash.
    """
    version = re.search(r"^lockfileVersion: *['\"]?([0-9.]+)['\"]?\s*$", text, re.MULTILINE)
    if version is None or version[1] != _VERSION:
        raise Refusal(
            f"{where} has lockfileVersion {version[1] if version else 'unknown'}; the line reads {_VERSION}.",
            where=where,
            remedy=f"Run with pnpm 9 or later: {LOCK_COMMAND}",
        )
    sections = _sections(text, where)
    importers, snapshots = sections["importers"], sections["snapshots"]
    needed = _closure(importers, snapshots)
    wanted = {name.partition("(")[0] for name, item in snapshots.items() if item.values.get("optional") != "true"}
    packages = []
    for key, entry in sections["packages"].items():
        optional = key not in wanted
        if not optional or _runs_here(entry):
            packages.append(replace(_package(key, entry, where), dev=key not in needed, optional=optional))
    folders = []
    for folder, entry in importers.items():
        if folder != ".":
            folders.append(_folder(folder, f"{where}:{entry.line}"))
    top = importers["."].groups if "." in importers else {}
    return PnpmLock(
        tuple(packages), tuple(sorted(folders)), frozenset(name for group in top.values() for name in group)
    )


def _sections(text: str, where: str) -> Mapping[str, dict[str, _Entry]]:
    sections: dict[str, dict[str, _Entry]] = {"importers": {}, "packages": {}, "snapshots": {}}
    current: dict[str, _Entry] | None = None
    entry: _Entry | None = None
    group: dict[str, str] | None = None
    name = ""
    for number, line in enumerate(text.splitlines(), 1):
        if len(line) > _MAX_LINE:
            raise Refusal(f"The line is longer than {_MAX_LINE} characters.", where=f"{where}:{number}",
                          remedy=f"Make the lock anew: rm {where} && {LOCK_COMMAND}")  # fmt: skip
        match = _KEY.fullmatch(line.rstrip())
        if match is None:
            continue
        key, value = match[2] or match[3] or match[4], (match[5] or "").strip().strip("'\"")
        match len(match[1]):
            case 0:
                current, entry, group = sections.get(key), None, None
            case 2 if current is not None:
                entry, group = _Entry(number), None
                if key in current or len(current) > _MAX_PACKAGES:
                    raise Refusal(f"{key[:100]!r} is there twice, or there are too many entries.",
                                  where=f"{where}:{number}", remedy=f"Make the lock anew: {LOCK_COMMAND}")  # fmt: skip
                current[key] = entry
            case 4 if entry is not None:
                group = entry.groups.setdefault(key, {}) if key in _READ and not value else None
                entry.values[key] = value
            case 6 if group is not None:
                name = key
                group[key] = value
            case 8 if group is not None and key == "version":
                group[name] = value
            case _:
                pass
    return sections


def _closure(importers: Mapping[str, _Entry], snapshots: Mapping[str, _Entry]) -> frozenset[str]:
    """Return the packages that production needs: what importers ask for, and what those ask for."""
    todo = [_target(name, version, snapshots) for entry in importers.values() for name, version in _asked(entry)]
    seen: set[str] = set()
    while todo:
        key = todo.pop()
        if key not in seen:
            seen.add(key)
            if key in snapshots:
                todo += [_target(name, version, snapshots) for name, version in _asked(snapshots[key])]
    return frozenset(key.partition("(")[0] for key in seen)


def _asked(entry: _Entry) -> list[tuple[str, str]]:
    return [pair for group in _GROUPS for pair in entry.groups.get(group, {}).items()]


def _target(name: str, version: str, snapshots: Mapping[str, _Entry]) -> str:
    key = f"{name}@{version}"
    return key if key in snapshots or version not in snapshots else version  # an alias names the package itself


def _package(key: str, entry: _Entry, where: str) -> Pinned:
    here = f"{where}:{entry.line}"
    name, _, version = key.partition("(")[0].rpartition("@")
    resolution = dict(_PAIR.findall(entry.values.get("resolution", "")))
    for kind in ("repo", "directory", "gitHosted"):
        if kind in resolution:
            raise from_elsewhere(name or key, "git" if kind != "directory" else "file:", where=here)
    tarball = resolution.get("tarball", "").strip("'")
    if "://" in version or version.startswith(("file:", "link:", "git")):
        raise from_elsewhere(name, version, where=here)
    if tarball and not unquote(split_url(tarball).path).endswith(f"/{index_path(name, version)}"):
        raise from_elsewhere(name, tarball, where=here)
    try:
        check_name(name)
        check_version(version)
        integrity, digest = read_integrity(resolution.get("integrity"))
    except ValueError as error:
        raise Refusal(
            f"{key[:100]} cannot be fetched by its hash: {error}.",
            where=here,
            remedy=f"Make the lock anew: rm pnpm-lock.yaml && {LOCK_COMMAND}",
        ) from error
    return Pinned(name, version, integrity, digest, place=f"node_modules/{name}", line=entry.line)


def _runs_here(entry: _Entry) -> bool:
    os, cpu, libc = (_words(entry.values.get(name, "")) for name in ("os", "cpu", "libc"))
    return runs_here(os, cpu, libc)


def _words(text: str) -> list[str]:
    return [word.strip().strip("'\"") for word in text.strip("[]").split(",") if word.strip()]


def _folder(folder: str, where: str) -> str:
    try:
        return check_folder(folder)
    except ValueError as error:
        raise Refusal(
            f"The lock names the folder {folder[:100]!r}: {error}.",
            where=where,
            remedy="Put score.yaml into the folder that holds the whole workspace, beside pnpm-workspace.yaml.",
        ) from error
