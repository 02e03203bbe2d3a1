"""What cargo would see in a workload: its packages and their binaries, read from the manifests alone.

Follows https://doc.rust-lang.org/cargo/reference/workspaces.html and cargo-targets.html as far as a build needs it.
What leads out of the workload's folder is refused here, before anything is fetched.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from sekisho.errors import Refusal
from stages.build.languages.rust_globs import MAX_PATTERNS, Globs
from stages.build.project import Project
from stages.build.strict_toml import read_toml

MANIFEST = "Cargo.toml"
DEPENDENCIES = (
    "dependencies",
    "dev-dependencies",
    "build-dependencies",
    "dev_dependencies",
    "build_dependencies",
)
MAX_PACKAGES = 500
MAX_BYTES = 1 << 20
"""Of one manifest."""
_MAX_ALL = 8 << 20
"""Of all manifests together."""

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
            own = table_of(table_of(table_of(self.root, table), "metadata"), _OWN_TABLE)
            found.update(own)
        return found

    @property
    def patched(self) -> bool:
        """Whether crates of the index are replaced by folders of the workload."""
        return bool(table_of(self.root, "patch") or table_of(self.root, "replace"))


def read_workspace(project: Project) -> Workspace:
    """Return the packages of a workload.

    Raises:
        Refusal: a manifest cannot be read, or a path leads out of the workload or to nothing.
    """
    root, size = _read(project, MANIFEST)
    table = table_of(root, "workspace")
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
            raise Refusal(f"The workload has more than {MAX_PACKAGES} packages.", where=MANIFEST,
                          remedy="Give each workload a folder and a workspace of its own.")  # fmt: skip
        value, more = (root, 0) if not folder else _read(project, _join(folder, MANIFEST))
        size += more
        if size > _MAX_ALL:
            raise Refusal(f"The manifests are larger than {_MAX_ALL >> 20} MiB together.", where=MANIFEST,
                          remedy="Give each workload a folder and a workspace of its own.")  # fmt: skip
        packages[folder] = _package(project, folder, value, bool(table), member=member)
        waiting += [(path, False) for path in _named_paths(value, folder, _join(folder, MANIFEST))]
    return Workspace(root, tuple(packages[folder] for folder in sorted(packages)), _default(project, table, members))


def dependency_tables(value: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return all tables of dependencies in a manifest."""
    tables = [table_of(value, key) for key in DEPENDENCIES]
    for target in table_of(value, "target").values():
        tables += [table_of(target, key) for key in DEPENDENCIES] if isinstance(target, dict) else []
    return tables


def package_table(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a manifest says of its package; `[project]` is the old name of that table."""
    return table_of(value, "package") or table_of(value, "project")


def table_of(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return a table in a table, empty where it is missing or is no table."""
    found = value.get(key)
    return found if isinstance(found, dict) else {}


def _read(project: Project, path: str) -> tuple[Mapping[str, Any], int]:
    """Return a manifest, and how large it is."""
    text = project.text(path, limit=MAX_BYTES)
    if text is None:
        raise Refusal(
            f"There is no {path}, but another manifest names its folder.",
            where=path,
            remedy="Commit the folder, or take it out of `members` and `path`.",
        )
    return read_toml(text, file=path, remedy="Correct the line."), len(text)


def _package(
    project: Project,
    folder: str,
    value: Mapping[str, Any],
    workspace: bool,  # noqa: FBT001
    *,
    member: bool,
) -> Package:
    where = _join(folder, MANIFEST)
    table = package_table(value)
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
    table = package_table(value)
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
    if len(patterns) > MAX_PATTERNS:
        raise Refusal(f"`members` has more than {MAX_PATTERNS} entries.", where=MANIFEST, remedy='Write "crates/*".')
    excluded = {_inside("", item, MANIFEST) for item in _strings(table.get("exclude"))}
    globs = Globs(MANIFEST)
    folders: list[str] = []
    if any("*" in item for item in patterns):
        all_of = (_parent(path) for path in project.files(MANIFEST))
        folders = [folder for folder in all_of if folder and excluded.isdisjoint(_with_parents(folder))]
    found: dict[str, None] = {}
    for pattern in patterns:
        clean = _inside("", pattern, MANIFEST)
        if not set(pattern) & set("*?["):
            found.setdefault(clean)
            continue
        for folder in folders:
            if globs.match(clean, folder):
                found.setdefault(folder)
    return tuple(item for item in found if item)


def _with_parents(folder: str) -> Iterator[str]:
    yield folder
    while "/" in folder:
        folder = _parent(folder)
        yield folder


def _default(project: Project, table: Mapping[str, Any], members: tuple[str, ...]) -> tuple[str, ...]:
    said = table.get("default-members")
    if said is None:
        return ("",) if "" in members else members
    return ("",) if said == ["."] else _members(project, {**table, "members": said})


def _named_paths(value: Mapping[str, Any], folder: str, where: str) -> Iterator[str]:
    """Yield the folders that a manifest, or a [workspace] table, names as dependencies or replacements."""
    tables = dependency_tables(value)
    tables += [item for item in table_of(value, "patch").values() if isinstance(item, dict)]
    tables.append(table_of(value, "replace"))
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


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _parent(path: str) -> str:
    return path.rpartition("/")[0]
