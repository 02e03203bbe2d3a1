"""Reading poetry.lock: the packages of the main group on the target.

Since lock format 2.1 (Poetry 2) each package says its groups and markers, and nothing is left to work out
(https://python-poetry.org/docs/basic-usage/). Before that, the graph is walked from what pyproject.toml asks for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from packaging.utils import canonicalize_name

from sekisho.errors import Refusal
from stages.build.locks import Locked, Target, only_once
from stages.build.locks_tables import Steps, Table, package_tables, read_toml

FILE = "poetry.lock"
RELOCK = "poetry lock"
_MAIN = "main"
_ELSEWHERE = ("git", "url", "file", "directory")


@dataclass(frozen=True)
class Wanted:
    """One package that pyproject.toml asks for."""

    name: str
    extras: tuple[str, ...] = ()
    marker: str = ""


def parse_poetry_lock(text: str, *, wanted: tuple[Wanted, ...], target: Target) -> tuple[Locked, ...]:
    """Return what a poetry.lock pins for the target.

    Args:
        text: the file.
        wanted: what pyproject.toml asks for in the main group.
        target: where the packages will run.

    Raises:
        Refusal: it is no poetry.lock, it is older than pyproject.toml, or a package is not from the index.
    """
    document = read_toml(text, file=FILE, relock=RELOCK)
    metadata = document.get("metadata")
    if not isinstance(metadata, dict):
        raise Refusal(f"{FILE} has no metadata.", where=FILE, remedy=f"Run: {RELOCK}")
    tables = package_tables(document, text, key="package", file=FILE, relock=RELOCK)
    known = {table.name for table in tables}
    for one in wanted:
        if canonicalize_name(one.name) not in known:
            raise Refusal(
                f"{FILE} is older than pyproject.toml: it does not know {one.name[:80]}.",
                where=FILE,
                remedy=f"Run: {RELOCK}",
            )
    by_group = all("groups" in table.value for table in tables)
    chosen = _of_main(tables, target) if by_group else _reached(tables, wanted, target)
    files = metadata.get("files", {})  # before lock format 2.0
    return only_once((_locked(table, files) for table in chosen), file=FILE)


def _of_main(tables: tuple[Table, ...], target: Target) -> Iterator[Table]:
    for table in tables:
        if _MAIN not in table.texts("groups") or table.value.get("optional") is True:
            continue
        marker = table.value.get("markers")
        if isinstance(marker, dict):
            marker = marker.get(_MAIN)
        if table.holds(marker, target):
            yield table


def _reached(tables: tuple[Table, ...], wanted: tuple[Wanted, ...], target: Target) -> Iterator[Table]:
    by_name: dict[str, list[Table]] = {}
    for table in tables:
        by_name.setdefault(table.name, []).append(table)
    todo = deque((one.name, extra) for one in wanted if _asked(one, target) for extra in ("", *one.extras))
    seen: set[tuple[str, str]] = set()
    steps = Steps(FILE, RELOCK)
    while todo:
        name, extra = todo.popleft()
        if (canonicalize_name(name), extra) in seen:
            continue
        seen.add((canonicalize_name(name), extra))
        found = by_name.get(canonicalize_name(name), [])
        steps.take(len(found))
        table = _one(found, name, target)
        if not extra:
            yield table
        todo.extend(_edges(table, extra, target, steps))


def _asked(one: Wanted, target: Target) -> bool:
    return not one.marker or target.holds(one.marker, where="pyproject.toml")


def _one(tables: list[Table], name: str, target: Target) -> Table:
    # One package in several versions is told apart by the Pythons they are for.
    found = [table for table in tables if len(tables) == 1 or target.suits(table.text("python-versions", "*"))]
    if len(found) != 1:
        raise Refusal(
            f"{name[:80]!r} is {len(found)} packages for this target, not one.",
            where=found[0].where if found else FILE,
            remedy=f"Run with Poetry 2: {RELOCK}",
        )
    return found[0]


def _edges(table: Table, extra: str, target: Target, steps: Steps) -> Iterator[tuple[str, str]]:
    of_extra = {name.partition(" ")[0].partition("[")[0] for name in _extra(table, extra)} if extra else set()
    offered = {canonicalize_name(name) for name in of_extra}
    for name, value in table.table("dependencies").items():
        for edge in value if isinstance(value, list) else [value]:
            steps.take()
            more: Mapping[str, Any] = edge if isinstance(edge, dict) else {}
            if not table.holds(more.get("markers"), target, extras=(extra,) if extra else ()):
                continue
            if more.get("optional") is True and canonicalize_name(name) not in offered:
                continue
            yield name, ""
            extras = more.get("extras", [])
            if not isinstance(extras, list) or not all(isinstance(other, str) for other in extras):
                raise table.refusal("extras is not a list of texts.")
            for other in extras:
                yield name, other


def _extra(table: Table, extra: str) -> list[str]:
    found = table.table("extras").get(extra, [])
    return [str(item) for item in found] if isinstance(found, list) else []


def _locked(table: Table, files: Any) -> Locked:
    source = table.table("source")
    if source.get("type") in _ELSEWHERE:
        raise table.from_elsewhere(f"a {source['type']}")
    own: Any = table.value.get("files")
    if not own and isinstance(files, dict):
        own = files.get(table.text("name"), [])
    if not isinstance(own, list) or not all(isinstance(file, dict) for file in own):
        raise table.refusal("files is not a list of tables.")
    return table.locked([file.get("hash") for file in own])
