"""Reading yarn.lock of Yarn 1. Pure.

Yarn 2 and later write checksums of archives that Yarn makes itself, not of the files of the index: by such a lock
nothing can be fetched by hash, so it is refused. Format: https://classic.yarnpkg.com/lang/en/docs/yarn-lock/
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import unquote

from sekisho.errors import Refusal
from stages.build.npm_names import (
    Pinned,
    check_name,
    check_version,
    from_elsewhere,
    index_path,
    read_integrity,
    split_url,
)

LOCK_COMMAND = "yarn install"
NPM_LOCK_COMMAND = "npm install --package-lock-only"

_MAX_PACKAGES = 10_000
_PATTERN = re.compile(r'"((?:[^"\\]|\\.)*+)"?|([^",\s][^",]*)')
"""What is not closed goes on to the end, so that no letter is looked at twice."""
_FIELD = re.compile(r'  (version|resolved|integrity) "?([^"\s]+)"?')
_GROUPS = ("dependencies", "optionalDependencies")
_GROUP = re.compile(r"  (dependencies|optionalDependencies):")
_ASKED = re.compile(r'    "?([^"\s]+)"? "?([^"]*)"?')


@dataclass
class _Entry:
    patterns: tuple[str, ...]
    line: int
    values: dict[str, str] = field(default_factory=dict)
    asked: dict[str, list[str]] = field(default_factory=dict)
    """By `dependencies` and `optionalDependencies`: patterns of other entries."""


@dataclass(frozen=True)
class YarnLock:
    """What a lock says."""

    packages: tuple[Pinned, ...]
    asked: frozenset[str]
    """Names that anything asks for."""
    normalised: bytes = field(repr=False)
    """The same lock with every file at the sandbox's own registry."""


def parse_yarn_lock(
    text: str,
    production: Mapping[str, str],
    *,
    registry: str,
    optional: Collection[str] = (),
    where: str = "yarn.lock",
) -> YarnLock:
    """Return what a lock file pins.

    Args:
        text: the file.
        production: what package.json asks for beside development: name and range.
        optional: names of it that may be missing.
        registry: URL of the registry that the normalised lock is to name.
        where: the file's name, for messages.

    Raises:
        Refusal: written by Yarn 2 or later, or a package that does not come from the index by a hash.
    """
    if re.search(r"^__metadata:", text, re.MULTILINE):
        raise Refusal(
            "yarn.lock is of Yarn 2 or later: its checksums are not of the package index's files, so nothing can be "
            "fetched by hash.",
            where=where,
            remedy=f"Run `{NPM_LOCK_COMMAND}` and commit package-lock.json beside it.",
        )
    entries = list(_entries(text, where))
    by_pattern = {pattern: number for number, entry in enumerate(entries) for pattern in entry.patterns}
    asked = [f"{name}@{wanted}" for name, wanted in production.items()]
    needed = _closure(entries, by_pattern, asked, _GROUPS)
    asked = [f"{name}@{wanted}" for name, wanted in production.items() if name not in optional]
    certain = _closure(entries, by_pattern, asked, _GROUPS[:1])
    packages = tuple(
        replace(_package(entry, where), dev=number not in needed, optional=number not in certain)
        for number, entry in enumerate(entries)
    )
    names = frozenset(pattern[:1] + pattern[1:].partition("@")[0] for pattern in by_pattern)
    return YarnLock(packages, names, _normalised(text, {package.line: package for package in packages}, registry))


def _entries(text: str, where: str) -> Iterator[_Entry]:
    entry: _Entry | None = None
    seen: set[str] = set()
    group = ""
    for number, line in enumerate(text.splitlines(), 1):
        if line and not line.startswith((" ", "#")) and line.endswith(":"):
            if entry is not None:
                yield entry
            patterns = tuple(match[1] or match[2] or "" for match in _PATTERN.finditer(line[:-1]))
            if not seen.isdisjoint(patterns) or len(seen) > _MAX_PACKAGES * 4:
                raise Refusal(f"{line[:100]!r} is there twice, or there are too many entries.",
                              where=f"{where}:{number}", remedy=f"Make the lock anew: {LOCK_COMMAND}")  # fmt: skip
            seen.update(patterns)
            entry, group = _Entry(patterns, number), ""
        elif entry is not None:
            if match := _FIELD.fullmatch(line):
                entry.values[match[1]] = match[2]
            elif match := _GROUP.fullmatch(line):
                group = match[1]
            elif group and (match := _ASKED.fullmatch(line)):
                entry.asked.setdefault(group, []).append(f"{match[1]}@{match[2]}")
    if entry is not None:
        yield entry


def _closure(
    entries: list[_Entry], by_pattern: Mapping[str, int], asked: list[str], groups: tuple[str, ...]
) -> set[int]:
    """Return the entries that are reached from what is asked for."""
    todo = list(asked)
    reached: set[int] = set()
    while todo:
        number = by_pattern.get(todo.pop())
        if number is not None and number not in reached:
            reached.add(number)
            todo += [pattern for group in groups for pattern in entries[number].asked.get(group, ())]
    return reached


def _package(entry: _Entry, where: str) -> Pinned:
    here = f"{where}:{entry.line}"
    pattern = entry.patterns[0] if entry.patterns else ""
    place = pattern[:1] + pattern[1:].partition("@")[0]
    wanted = pattern[1:].partition("@")[2]
    name = place
    if wanted.startswith("npm:"):
        target = wanted.removeprefix("npm:")
        name = target[:1] + target[1:].partition("@")[0]
    version, resolved = entry.values.get("version", ""), entry.values.get("resolved", "")
    url, _, sha1 = resolved.partition("#")
    parts = split_url(url)
    if not resolved or parts.scheme not in {"http", "https"}:
        raise from_elsewhere(place or "A package without a name", resolved or wanted, where=here)
    if not unquote(parts.path).endswith(f"/{index_path(name, version)}"):
        raise from_elsewhere(place, resolved, where=here)
    try:
        check_name(name)
        check_version(version)
        said = entry.values.get("integrity")
        integrity, digest = read_integrity(said) if said else ("", f"sha1:{_sha1(sha1)}")
    except ValueError as error:
        raise Refusal(
            f"{pattern[:100]} cannot be fetched by its hash: {error}.",
            where=here,
            remedy=f"Make the lock anew: rm yarn.lock && {LOCK_COMMAND}",
        ) from error
    return Pinned(name, version, integrity, digest, place=f"node_modules/{place}", line=entry.line)


def _sha1(text: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{40}", text):
        raise ValueError("there is no `integrity` for it")
    return text


def _normalised(text: str, packages: Mapping[int, Pinned], registry: str) -> bytes:
    lines: list[str] = []
    current: Pinned | None = None
    for number, line in enumerate(text.splitlines(), 1):
        current = packages.get(number, current)
        if current is not None and line.startswith("  resolved "):
            sha1 = line.strip('"').partition("#")[2]
            lines.append(f'  resolved "{registry}{current.path}{f"#{sha1}" if sha1 else ""}"')
        else:
            lines.append(line)
    return ("\n".join(lines) + "\n").encode()
