"""Reading uv.lock: the packages that the workload itself needs on the target, without its extras and groups.

The file holds one resolution for all targets, as a graph (https://docs.astral.sh/uv/concepts/projects/layout/). It is
walked from the workload's own package along the edges whose markers hold for the target, with the extras each edge
asks for. Of several versions of one package an edge names its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from packaging.utils import canonicalize_name

from sekisho.errors import Refusal
from stages.build.locks import Locked, Target, only_once
from stages.build.locks_tables import Steps, Table, package_tables, read_toml

FILE = "uv.lock"
RELOCK = "uv lock"
_LOCAL = ("virtual", "editable", "directory")


@dataclass(frozen=True)
class Workspace:
    """What a lock file of a project says."""

    packages: tuple[Locked, ...]
    folders: tuple[str, ...] = ()
    """Folders of the workload's own packages that it needs beside its own, relative to it."""


@dataclass
class _Walk:
    target: Target
    by_name: Mapping[str, tuple[Table, ...]]
    found: dict[tuple[str, str], Locked] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    seen: set[tuple[int, str]] = field(default_factory=set)
    """Place of a package's table, and an extra; an empty one for the package itself."""
    steps: Steps = field(default_factory=lambda: Steps(FILE, RELOCK))


def parse_uv_lock(text: str, *, project: str, wanted: Iterable[str], target: Target, group: str = "") -> Workspace:
    """Return what a uv.lock pins for the target.

    Args:
        text: the file.
        project: name of the workload in its pyproject.toml; empty if it has none.
        wanted: names of the packages that pyproject.toml asks for, to see that the lock is not older.
        target: where the packages will run.
        group: a dependency group or extra to take as well; empty for none.

    Raises:
        Refusal: it is no uv.lock, it is older than pyproject.toml, or a package is not from the index.
    """
    document = read_toml(text, file=FILE, relock=RELOCK)
    if document.get("version") != 1:
        raise Refusal(
            f"The format of {FILE} is {str(document.get('version'))[:20]}, not 1.", where=FILE, remedy=f"Run: {RELOCK}"
        )
    needs = document.get("requires-python", "")
    if isinstance(needs, str) and not target.suits(needs):
        raise Refusal(
            f"{FILE} is for Python {needs[:40]}, offered is {target.python}.",
            where=FILE,
            remedy=f'Set requires-python = ">={target.python}" in pyproject.toml and run: {RELOCK}',
        )
    tables = package_tables(document, text, key="package", file=FILE, relock=RELOCK)
    root = _root(tables, canonicalize_name(project) if project else "")
    by_name: dict[str, list[Table]] = {}
    for table in tables:
        by_name.setdefault(table.name, []).append(table)
    walk = _Walk(target, {name: tuple(same) for name, same in by_name.items()})
    _check_age(root, wanted)
    _follow(walk, root, group)
    return Workspace(only_once(walk.found.values(), file=FILE), tuple(sorted(walk.folders)))


def _root(tables: tuple[Table, ...], project: str) -> Table:
    own = [table for table in tables if _folder(table) == "."]
    named = [table for table in own if table.name == project]
    if len(own) != 1 and len(named) != 1:
        raise Refusal(
            f"{FILE} does not say which of its packages this folder is.",
            where=FILE,
            remedy=f"Run in this folder: {RELOCK}",
        )
    return (named or own)[0]


def _check_age(root: Table, wanted: Iterable[str]) -> None:
    known = {canonicalize_name(str(edge.get("name", ""))) for edge in root.tables("dependencies")}
    missing = sorted({canonicalize_name(name) for name in wanted} - known)
    if missing:
        raise Refusal(
            f"{FILE} is older than pyproject.toml: it does not know {missing[0][:80]}.",
            where=FILE,
            remedy=f"Run: {RELOCK}",
        )


def _follow(walk: _Walk, root: Table, group: str) -> None:
    todo: deque[tuple[Table, str]] = deque([(root, "")])
    edges: list[Mapping[str, Any]] = []
    if group:
        for key in ("dev-dependencies", "optional-dependencies"):
            edges += _listed(walk, root, key, group)
        todo.extend(_reached(walk, root, edges))
    while todo:
        table, extra = todo.popleft()
        if (id(table), extra) in walk.seen:
            continue
        walk.seen.add((id(table), extra))
        _note(walk, table, root)
        edges = _listed(walk, table, "optional-dependencies", extra) if extra else list(table.tables("dependencies"))
        todo.extend(_reached(walk, table, edges))


def _reached(walk: _Walk, table: Table, edges: Iterable[Mapping[str, Any]]) -> Iterable[tuple[Table, str]]:
    for edge in edges:
        walk.steps.take()
        if not table.holds(edge.get("marker"), walk.target):
            continue
        other = _other(walk, table, edge)
        yield other, ""
        extras = edge.get("extra", [])
        if not isinstance(extras, list):
            raise table.refusal("extra is not a list of texts.")
        for extra in extras:
            yield other, str(extra)


def _listed(walk: _Walk, table: Table, key: str, name: str) -> list[Mapping[str, Any]]:
    groups = table.table(key)
    walk.steps.take(len(groups))
    found: Any = next(
        (value for other, value in groups.items() if canonicalize_name(other) == canonicalize_name(name)), []
    )
    if not isinstance(found, list) or not all(isinstance(edge, dict) for edge in found):
        raise table.refusal(f"{key} is not a table of lists.")
    return found


def _other(walk: _Walk, table: Table, edge: Mapping[str, Any]) -> Table:
    name = canonicalize_name(str(edge.get("name", "")))
    same = walk.by_name.get(name, ())
    walk.steps.take(len(same))
    found = [
        other
        for other in same
        if edge.get("version") in (None, other.value.get("version"))
        and edge.get("source") in (None, other.value.get("source"))
    ]
    if len(found) > 1:  # only forks of the resolution tell them apart
        forks = "resolution-markers"
        found = [
            other
            for other in found
            if not other.texts(forks) or any(other.holds(marker, walk.target) for marker in other.texts(forks))
        ]
    if len(found) != 1:
        raise table.refusal(f"{name[:80]!r} is {len(found)} packages for this target, not one.")
    return found[0]


def _folder(table: Table) -> str:
    source = table.table("source")
    return next((str(source[kind]) for kind in _LOCAL if kind in source), "")


def _note(walk: _Walk, table: Table, root: Table) -> None:
    if table is root:
        return
    source = table.table("source")
    folder = _folder(table)
    if folder:
        if PurePosixPath(folder).is_absolute() or ".." in PurePosixPath(folder).parts or "\0" in folder:
            raise table.from_elsewhere("a folder outside of the workload")
        if folder != ".":
            walk.folders.add(PurePosixPath(folder).as_posix())
        return
    if "registry" not in source:
        raise table.from_elsewhere(next(iter(source), "nowhere")[:20])
    sdist = [table.table("sdist")] if "sdist" in table.value else []
    files = [*table.tables("wheels"), *sdist]
    locked = table.locked([file["hash"] for file in files if "hash" in file])
    walk.found.setdefault((locked.name, locked.version), locked)
