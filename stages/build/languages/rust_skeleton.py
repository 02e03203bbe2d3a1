"""The skeleton of a Rust workspace: what decides how its dependencies are compiled, and nothing else. Pure.

A skeleton has each package's manifest with its dependencies, features and profiles, an empty source for each target,
and the lock file. Comments, descriptions, versions of the workload's own crates and all of its code are not in it, so
that a commit that changes only those finds the compiled dependencies of the commit before.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sekisho.errors import Refusal
from stages.build.languages.rust_choice import Choice
from stages.build.languages.rust_workspace import DEPENDENCIES, MANIFEST, Binary, Package, Workspace, package_table
from stages.build.locks_cargo import LOCK_FILE, CargoLock

NO_VERSION = "0.0.0"
_DEPTH = 32
_PACKAGE = ("name", "edition", "resolver", "links", "metabuild", "workspace")
_WORKSPACE = ("members", "exclude", "default-members", "resolver")
_INHERITED = ("edition", "rust-version", "version")
_LIBRARY = ("name", "proc-macro", "proc_macro", "crate-type", "crate_type")


def skeleton(workspace: Workspace, choice: Choice, lock: CargoLock) -> Mapping[str, str]:
    """Return the files of the skeleton, by path."""
    masked = set() if workspace.patched else _masked(workspace, lock)
    files: dict[str, str] = {LOCK_FILE: toml(_lock(lock, masked))}
    for package in workspace.packages:
        at = f"{package.folder}/" if package.folder else ""
        binaries = choice.binaries if package in choice.packages else ()
        value = _manifest(package, binaries, masked)
        if not package.folder:
            value.update(_root(workspace.root, masked))
        files[f"{at}{MANIFEST}"] = toml(value)
        if "lib" in value:
            files[f"{at}src/lib.rs"] = ""
        if "bin" in value:
            files[f"{at}src/main.rs"] = "fn main() {}\n"
        if package.build_script:
            files[f"{at}build.rs"] = "fn main() {}\n"
    files.setdefault(MANIFEST, toml(_root(workspace.root, masked)))
    return files


def toml(value: Mapping[str, Any]) -> str:
    """Return a table as TOML, one line a key; JSON's strings are strings of TOML, too."""
    return "".join(f"{json.dumps(key)} = {_inline(item, 0)}\n" for key, item in value.items())


def _inline(value: object, depth: int) -> str:
    if depth > _DEPTH:
        raise Refusal(f"{MANIFEST} or {LOCK_FILE} is nested too deeply.", where=MANIFEST)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int)):
        # DEL is the one character that JSON leaves as it is and TOML does not take.
        return json.dumps(value).replace("\x7f", "\\u007f")
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_inline(item, depth + 1) for item in value)}]"
    if isinstance(value, Mapping):
        inner = ", ".join(f"{json.dumps(key)} = {_inline(item, depth + 1)}" for key, item in value.items())
        return f"{{{inner}}}"
    raise Refusal(
        f"{MANIFEST} or {LOCK_FILE} has a value that cargo does not know there: {str(value)[:40]}", where=MANIFEST
    )


def _masked(workspace: Workspace, lock: CargoLock) -> set[str]:
    """Names of the workload's own packages whose version does not matter: no other package has the name."""
    taken = {crate.name for crate in lock.crates}
    own = [name for name, _ in lock.own]
    return {package.name for package in workspace.packages if own.count(package.name) == 1} - taken


def _lock(lock: CargoLock, masked: set[str]) -> dict[str, Any]:
    packages = []
    for package in lock.value.get("package", []):
        changed = "source" not in package and package["name"] in masked
        packages.append({**package, "version": NO_VERSION} if changed else package)
    rest = {key: item for key, item in lock.value.items() if key in ("version", "metadata")}
    return {**rest, "package": packages}


def _manifest(package: Package, binaries: tuple[str, ...], masked: set[str]) -> dict[str, Any]:
    value = package.value
    table = package_table(value)
    kept = {key: table[key] for key in _PACKAGE if key in table}
    kept["version"] = NO_VERSION if package.name in masked else table.get("version", NO_VERSION)
    kept["build"] = "build.rs" if package.build_script else False
    kept.update(dict.fromkeys(("autobins", "autoexamples", "autotests", "autobenches"), False))
    found: dict[str, Any] = {"package": kept}
    if package.library:
        said = value.get("lib")
        inner = {key: said[key] for key in _LIBRARY if key in said} if isinstance(said, dict) else {}
        found["lib"] = {**inner, "path": "src/lib.rs"}
    programs = [_program(binary) for binary in package.binaries if binary.name in binaries]
    if programs or not package.library:
        found["bin"] = programs or [{"name": package.name, "path": "src/main.rs"}]
    for key in ("cargo-features", "features"):
        if key in value:
            found[key] = value[key]
    found.update(_dependencies(value, masked))
    if isinstance(targets := value.get("target"), dict):
        found["target"] = {key: _dependencies(item, masked) for key, item in targets.items() if isinstance(item, dict)}
    return found


def _program(binary: Binary) -> dict[str, Any]:
    needs = {"required-features": list(binary.needs)} if binary.needs else {}
    return {"name": binary.name, "path": "src/main.rs", **needs}


def _root(root: Mapping[str, Any], masked: set[str]) -> dict[str, Any]:
    """What only the manifest of the workspace's root may say."""
    found = {key: root[key] for key in ("profile", "patch", "replace") if key in root}
    table = root.get("workspace")
    if isinstance(table, dict):
        inner = {key: table[key] for key in _WORKSPACE if key in table}
        inherited = table.get("package")
        if isinstance(inherited, dict):
            inner["package"] = {key: inherited[key] for key in _INHERITED if key in inherited}
        inner.update(_dependencies(table, masked))
        found["workspace"] = inner
    return found


def _dependencies(value: Mapping[str, Any], masked: set[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key in DEPENDENCIES:
        table = value.get(key)
        if isinstance(table, dict):
            found[key] = {name: _dependency(item) for name, item in table.items()} if masked else table
    return found


def _dependency(item: object) -> object:
    """A folder of the workload is taken whatever its version, since that is masked."""
    if isinstance(item, dict) and isinstance(item.get("path"), str):
        return {key: value for key, value in item.items() if key != "version"}
    return item
