"""What cargo would see in a workload: its packages and their binaries, read from the manifests alone.

Follows https://doc.rust-lang.org/cargo/reference/workspaces.html and cargo-targets.html as far as a build needs it.
What leads out of the workload's folder is refused here, before anything is fetched.
"""

from __future__ import annotations

import fnmatch
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from sekisho.errors import Refusal
from stages.build.project import Project

MANIFEST = "Cargo.toml"
DEPENDENCIES = (
    "dependencies",
    "dev-dependencies",
    "build-dependencies",
    "dev_dependencies",
    "build_dependencies",
)
MAX_PACKAGES = 500

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")
_MAIN = "src/main.rs"
_OWN_TABLE = "sekisho"


@dataclass(frozen=True)
class Binary:
    """One program of a package."""

    name: str
    needs: tuple[str, ...] = ()
    """Features without which cargo does not build it."""


@dataclass(frozen=True)
class Package:
    """One package in the workload's folder."""

    folder: str
    """Relative to the workload, empty for its own folder."""
    name: str
    value: Mapping[str, Any]
    """The manifest."""
    binaries: tuple[Binary, ...]
    library: bool
    build_script: bool
    in_workspace: bool
    """False for one that is only named by a path."""

    @property
    def manifest(self) -> str:
        """Path of its manifest."""
        return _join(self.folder, MANIFEST)


@dataclass(frozen=True)
class Workspace:
    """All packages of a workload."""

    root: Mapping[str, Any]
    """Manifest of the workload's own folder."""
    packages: tuple[Package, ...]
    """Sorted by folder."""
    default: tuple[str, ...]
    """Folders of the packages that cargo builds when nobody names one."""

    @property
    def wanted(self) -> Mapping[str, Any]:
        """`[package.metadata.sekisho]` or `[workspace.metadata.sekisho]` of the workload's own manifest."""
        found: dict[str, Any] = {}
        for table in ("workspace", "package"):
            own = _table(_table(_table(self.root, table), "metadata"), _OWN_TABLE)
            found.update(own)
        return found

    @property
    def patched(self) -> bool:
        """Whether crates of the index are replaced by folders of the workload."""
        return bool(_table(self.root, "patch") or _table(self.root, "replace"))


def read_workspace(project: Project) -> Workspace:
    """Return the packages of a workload.

    Raises:
        Refusal: a manifest cannot be read, or a path leads out of the workload or to nothing.
    """
    root = _read(project, MANIFEST)
    table = _table(root, "workspace")
    members = _members(project, table) if table else ()
    if "package" in root:
        members = ("", *members)
    if not members:
        raise Refusal(
            f"{MANIFEST} has neither a package nor a workspace with members.",
            where=MANIFEST,
            remedy="Add [package], or [workspace] with members.",
        )
    packages: dict[str, Package] = {}
    waiting = [(folder, True) for folder in reversed(members)]
    waiting += [(folder, False) for folder in _named_paths(table, "", MANIFEST) if project.has(_join(folder, MANIFEST))]
    while waiting:
        folder, member = waiting.pop()
        if folder in packages:
            continue
        if len(packages) >= MAX_PACKAGES:
            raise Refusal(f"The workload has more than {MAX_PACKAGES} packages.", where=MANIFEST)
        value = root if not folder else _read(project, _join(folder, MANIFEST))
        packages[folder] = _package(project, folder, value, bool(table), member=member)
        waiting += [(path, False) for path in _named_paths(value, folder, _join(folder, MANIFEST))]
    return Workspace(root, tuple(packages[folder] for folder in sorted(packages)), _default(project, table, members))


def dependency_tables(value: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return all tables of dependencies in a manifest."""
    tables = [_table(value, key) for key in DEPENDENCIES]
    for target in _table(value, "target").values():
        tables += [_table(target, key) for key in DEPENDENCIES] if isinstance(target, dict) else []
    return tables


def _read(project: Project, path: str) -> Mapping[str, Any]:
    text = project.text(path)
    if text is None:
        raise Refusal(
            f"There is no {path}, but another manifest names its folder.",
            where=path,
            remedy="Commit the folder, or take it out of `members` and `path`.",
        )
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise Refusal(f"{path} is not TOML: {str(error)[:200]}", where=path, remedy="Correct the line.") from error


def _package(
    project: Project,
    folder: str,
    value: Mapping[str, Any],
    workspace: bool,  # noqa: FBT001
    *,
    member: bool,
) -> Package:
    where = _join(folder, MANIFEST)
    table = _table(value, "package") or _table(value, "project")
    name = table.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise Refusal(f"{where} names no package.", where=where, remedy="Add [package] with a name.")
    inherited = [table, *dependency_tables(value)]
    above = [key for one in inherited for key, item in one.items() if isinstance(item, dict) and item.get("workspace")]
    above += ["workspace"] if isinstance(table.get("workspace"), str) and not folder else []
    if above and not workspace:
        raise Refusal(
            f"{name} belongs to a workspace outside this folder: its {above[0]} is the workspace's.",
            where=where,
            remedy="Put score.yaml into the workspace's folder, and name the binary in its Cargo.toml: "
            '[workspace.metadata.sekisho] bin = "…".',
        )
    script = table.get("build", project.has(_join(folder, "build.rs")))
    library = "lib" in value or project.has(_join(folder, "src/lib.rs"))
    return Package(folder, name, value, _binaries(project, folder, name, value), library, bool(script), member)


def _binaries(project: Project, folder: str, package: str, value: Mapping[str, Any]) -> tuple[Binary, ...]:
    table = _table(value, "package") or _table(value, "project")
    where = _join(folder, MANIFEST)
    named = value.get("bin", [])
    if not isinstance(named, list) or not all(isinstance(item, dict) for item in named):
        raise Refusal("`bin` is not a list of tables.", where=where, remedy="Write [[bin]].")
    found = {_name(item.get("name"), where): _strings(item.get("required-features")) for item in named}
    paths = {str(PurePosixPath(path)) for item in named if isinstance(path := item.get("path"), str)}
    edition = table.get("edition", "2015")
    if table.get("autobins", not (named and edition == "2015")):
        for name, path in _inferred(project, folder, package):
            if path not in paths:
                found.setdefault(_name(name, where), ())
    return tuple(Binary(name, found[name]) for name in sorted(found))


def _inferred(project: Project, folder: str, package: str) -> Iterator[tuple[str, str]]:
    if project.has(_join(folder, _MAIN)):
        yield package, _MAIN
    below = _join(folder, "src/bin")
    for path in project.files("*.rs", below=below):
        inner = PurePosixPath(path).relative_to(below)
        if len(inner.parts) == 1:
            yield inner.stem, f"src/bin/{inner}"
        elif len(inner.parts) == 2 and inner.name == "main.rs":  # noqa: PLR2004
            yield inner.parts[0], f"src/bin/{inner}"


def _members(project: Project, table: Mapping[str, Any]) -> tuple[str, ...]:
    patterns = _strings(table.get("members"))
    excluded = [_inside("", item, MANIFEST) for item in _strings(table.get("exclude"))]
    folders = [_parent(path) for path in project.files(MANIFEST)] if any("*" in item for item in patterns) else []
    found: dict[str, None] = {}
    for pattern in patterns:
        clean = _inside("", pattern, MANIFEST)
        if not set(pattern) & set("*?["):
            found.setdefault(clean)
            continue
        for folder in folders:
            parts = folder.split("/")
            skipped = any(folder == item or folder.startswith(f"{item}/") for item in excluded)
            if folder and not skipped and _matches(clean.split("/"), parts):
                found.setdefault(folder)
    return tuple(item for item in found if item)


def _matches(pattern: list[str], parts: list[str]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_matches(pattern[1:], parts[index:]) for index in range(len(parts) + 1))
    return bool(parts) and fnmatch.fnmatchcase(parts[0], pattern[0]) and _matches(pattern[1:], parts[1:])


def _default(project: Project, table: Mapping[str, Any], members: tuple[str, ...]) -> tuple[str, ...]:
    said = table.get("default-members")
    if said is None:
        return ("",) if "" in members else members
    return ("",) if said == ["."] else _members(project, {**table, "members": said})


def _named_paths(value: Mapping[str, Any], folder: str, where: str) -> Iterator[str]:
    """Yield the folders that a manifest, or a [workspace] table, names as dependencies or replacements."""
    tables = dependency_tables(value)
    tables += [item for item in _table(value, "patch").values() if isinstance(item, dict)]
    tables.append(_table(value, "replace"))
    for table in tables:
        for item in table.values():
            path = item.get("path") if isinstance(item, dict) else None
            if isinstance(path, str):
                yield _inside(folder, path, where)


def _inside(folder: str, path: str, where: str) -> str:
    """Return a path relative to the workload, given one relative to a folder of it."""
    parts = [part for part in folder.split("/") if part]
    for part in PurePosixPath(path.replace("\\", "/")).parts:
        if part == "..":
            if not parts:
                break
            parts.pop()
        elif part == "/" or ":" in part:
            break
        else:
            parts.append(part)
    else:
        return "/".join(parts)
    raise Refusal(
        f"The path {path[:80]!r} leads out of the workload's folder.",
        where=where,
        remedy="Move the crate into the folder, or put score.yaml into the folder that holds both.",
    )


def _name(name: object, where: str) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise Refusal(
            f"{str(name)[:80]!r} is not a name for a binary.",
            where=where,
            remedy="Use letters, digits, hyphens and underscores.",
        )
    return name


def _strings(value: object) -> tuple[str, ...]:
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()


def _table(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = value.get(key)
    return found if isinstance(found, dict) else {}


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _parent(path: str) -> str:
    return path.rpartition("/")[0]
