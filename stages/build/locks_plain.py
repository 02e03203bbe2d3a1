"""Reading lock files in which each package says for itself whether it belongs: Pipfile.lock, pdm.lock, pylock.toml."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from packaging.markers import Marker

from sekisho.errors import Refusal
from stages.build.locks import UNREADABLE, Locked, Target, only_once
from stages.build.locks_tables import MAX_TABLES, Table, package_tables, read_json, read_toml

PIPFILE, PIPFILE_RELOCK = "Pipfile.lock", "pipenv lock"
PDM, PDM_RELOCK = "pdm.lock", "pdm lock --strategy inherit_metadata"
PYLOCK, PYLOCK_RELOCK = "pylock.toml", "uv export --format pylock.toml -o pylock.toml"

_ELSEWHERE = ("git", "hg", "svn", "bzr", "path", "file", "url")


def parse_pipfile_lock(text: str, *, target: Target) -> tuple[Locked, ...]:
    """Return what the default section of a Pipfile.lock pins for the target.

    Raises:
        Refusal: it is no Pipfile.lock, or a package is not from the index.
    """
    document = read_json(text, file=PIPFILE, relock=PIPFILE_RELOCK)
    default = document.get("default")
    if not isinstance(default, dict) or not all(isinstance(value, dict) for value in default.values()):
        raise Refusal(f"{PIPFILE} has no default section.", where=PIPFILE, remedy=f"Run: {PIPFILE_RELOCK}")
    if len(default) > MAX_TABLES:
        raise Refusal(f"{PIPFILE} has more than {MAX_TABLES} packages.", where=PIPFILE, remedy="Lock fewer packages.")
    return only_once(_of_pipfile(default, _lines(text), target), file=PIPFILE)


def _lines(text: str) -> dict[str, int]:
    """Return the line of each key that opens an object; the first counts, `default` is before `develop`."""
    found: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), 1):
        key, colon, rest = line.strip().partition(": ")
        if colon and rest == "{":
            found.setdefault(key.strip('"'), number)
    return found


def _of_pipfile(default: Mapping[str, Any], lines: Mapping[str, int], target: Target) -> Iterator[Locked]:
    for name, value in default.items():
        table = Table({"name": name, **value}, PIPFILE, lines.get(name, 1), PIPFILE_RELOCK)
        if not table.holds(value.get("markers"), target):
            continue
        kind = next((kind for kind in _ELSEWHERE if kind in value), "")
        if kind:
            raise table.from_elsewhere(f"a {kind}")
        version = table.text("version", "*")
        if not version.startswith("=="):  # pipenv leaves packages for other systems so
            raise table.refusal(
                f"{name[:80]} is not pinned to one version.",
                f"Give it a version in the Pipfile, or remove it there, and run: {PIPFILE_RELOCK}",
            )
        yield Table({**table.value, "version": version.removeprefix("==")}, PIPFILE, table.line, PIPFILE_RELOCK).locked(
            table.texts("hashes")
        )


def parse_pdm_lock(text: str, *, target: Target) -> tuple[Locked, ...]:
    """Return what the default group of a pdm.lock pins for the target.

    Raises:
        Refusal: it is no pdm.lock, it does not say which group a package is in, or a package is not from the index.
    """
    document = read_toml(text, file=PDM, relock=PDM_RELOCK)
    tables = package_tables(document, text, key="package", file=PDM, relock=PDM_RELOCK)
    found: dict[tuple[str, str], Locked] = {}
    for table in tables:
        if "groups" not in table.value:
            raise table.refusal(f"{table.text('name')[:80]} does not say which group it is in.")
        if "default" not in table.texts("groups") or not table.holds(table.value.get("marker"), target):
            continue
        kind = next((kind for kind in _ELSEWHERE if kind in table.value), "")
        if kind:
            raise table.from_elsewhere(f"a {kind}")
        locked = table.locked([file.get("hash") for file in table.tables("files")])
        # A package asked for with extras has a table of its own for them, with the same files.
        found.setdefault((locked.name, locked.version), locked)
    return only_once(found.values(), file=PDM)


def parse_pylock(text: str, *, target: Target) -> tuple[Locked, ...]:
    """Return what a pylock.toml (PEP 751) pins for the target, with its default groups.

    Raises:
        Refusal: it is no pylock.toml, it is not for this Python, or a package is not from an index.
    """
    document = read_toml(text, file=PYLOCK, relock=PYLOCK_RELOCK)
    if not str(document.get("lock-version", "")).startswith("1."):
        raise Refusal(f"{PYLOCK} is not of lock-version 1.", where=PYLOCK, remedy=f"Run: {PYLOCK_RELOCK}")
    needs = document.get("requires-python", "")
    if isinstance(needs, str) and not target.suits(needs):
        raise Refusal(
            f"{PYLOCK} is for Python {needs[:40]}, offered is {target.python}.",
            where=PYLOCK,
            remedy="Lock the packages for a Python that is offered.",
        )
    groups = document.get("default-groups", [])
    if not isinstance(groups, list) or not all(isinstance(group, str) for group in groups):
        raise Refusal("default-groups is not a list of texts.", where=PYLOCK, remedy=f"Run: {PYLOCK_RELOCK}")
    tables = package_tables(document, text, key="packages", file=PYLOCK, relock=PYLOCK_RELOCK)
    return only_once(_of_pylock(tables, frozenset(groups), target), file=PYLOCK)


def _of_pylock(tables: tuple[Table, ...], groups: frozenset[str], target: Target) -> Iterator[Locked]:
    for table in tables:
        if not _chosen(table, groups, target) or not target.suits(table.text("requires-python", "")):
            continue
        if table.table("directory").get("path") in (".", "./"):
            continue  # the workload itself
        for kind in ("vcs", "directory", "archive"):
            if kind in table.value:
                raise table.from_elsewhere(f"a {kind}")
        sdist = [table.table("sdist")] if "sdist" in table.value else []
        hashes = [file.get("hashes") for file in (*table.tables("wheels"), *sdist)]
        if not all(isinstance(item, dict) and isinstance(item.get("sha256"), str) for item in hashes):
            raise table.refusal(f"A file of {table.text('name')[:80]} has no sha256.")
        yield table.locked([f"sha256:{item['sha256']}" for item in hashes if item])


def _chosen(table: Table, groups: frozenset[str], target: Target) -> bool:
    marker = table.value.get("marker")
    if marker is None:
        return True
    try:
        parsed = Marker(table.text("marker"))
        chosen: dict[str, Any] = {**target.environment(), "extras": frozenset(), "dependency_groups": groups}
        return parsed.evaluate(chosen, context="lock_file")
    except UNREADABLE as error:
        raise table.refusal(f"The marker {str(marker)[:120]!r} cannot be judged.") from error
