"""Which binary of a Rust workload is the one that starts. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from sekisho.errors import Refusal
from stages.build.languages.rust_workspace import MANIFEST, Binary, Package, Workspace, package_table

_KEYS = {"bin", "features"}


@dataclass(frozen=True)
class Choice:
    """What cargo is asked for."""

    packages: tuple[Package, ...]
    """Packages whose binaries are built."""
    binaries: tuple[str, ...]
    start: str
    """Name of the binary that starts; empty where nothing says so."""
    features: tuple[str, ...] = ()
    refusal: Refusal | None = None
    """Why nothing starts."""


def choose(workspace: Workspace, app: str) -> Choice:
    """Return the binaries to build and the one to start.

    In this order: what `[package.metadata.sekisho] bin` says, `default-run`, the only binary, the one that is named
    like the app, the one that is named like its package. First among the packages that cargo builds by default, then
    among all. Where nothing decides, all are built and score.yaml has to name one.

    Args:
        workspace: the packages.
        app: name of the workload.

    Raises:
        Refusal: no package has a binary, or the named one is not there.
    """
    wanted = workspace.wanted
    if set(wanted) - _KEYS:
        raise Refusal(
            f"[metadata.sekisho] has {min(set(wanted) - _KEYS)!r}; it may have `bin` and `features`.",
            where=MANIFEST,
            remedy="Remove it.",
        )
    features = _features(wanted.get("features"))
    members = [package for package in workspace.packages if package.in_workspace]
    said = wanted.get("bin")
    if said is not None:
        return _named(members, said, features)
    default = [package for package in members if package.folder in workspace.default]
    for among in (default, members):
        pairs = [(package, binary.name) for package in among for binary in _possible(package, features)]
        found = _decide(pairs, among, app)
        if found is not None:
            package, name = found
            return Choice((package,), (name,), name, features)
        if pairs:
            return _all(pairs, features)
    raise Refusal(
        "There is no binary in this workspace: no src/main.rs, no src/bin, no [[bin]].",
        where=MANIFEST,
        remedy="Add src/main.rs. A library alone is not a workload; publish it as a crate.",
    )


def _decide(pairs: list[tuple[Package, str]], among: list[Package], app: str) -> tuple[Package, str] | None:
    runs = [pair for pair in pairs if package_table(pair[0].value).get("default-run") == pair[1]]
    if len(among) == 1 and len(runs) == 1:
        return runs[0]
    if len(pairs) == 1:
        return pairs[0]
    for rule in (
        [pair for pair in pairs if _same(pair[1], app)],
        runs,
        [pair for pair in pairs if pair[1] == pair[0].name] if len(among) == 1 else [],
    ):
        if len(rule) == 1:
            return rule[0]
    return None


def _all(pairs: list[tuple[Package, str]], features: tuple[str, ...]) -> Choice:
    names = tuple(sorted({name for _, name in pairs}))
    packages = tuple({package.folder: package for package, _ in pairs}.values())
    shown = ", ".join(names[:8]) + (" …" if len(names) > 8 else "")  # noqa: PLR2004
    refusal = Refusal(
        f"The workspace has {len(names)} binaries and nothing says which one starts: {shown}.",
        where=MANIFEST,
        remedy=f'Add to {MANIFEST}: [package.metadata.sekisho] bin = "{names[0]}" ([workspace.metadata.sekisho] in a '
        "workspace without a package), or name the command in score.yaml.",
    )
    return Choice(packages, names, "", features, refusal)


def _named(members: list[Package], said: object, features: tuple[str, ...]) -> Choice:
    for package in members:
        for binary in package.binaries:
            if binary.name == said:
                return Choice((package,), (binary.name,), binary.name, features)
    names = sorted(binary.name for package in members for binary in package.binaries)
    raise Refusal(
        f"[metadata.sekisho] names the binary {str(said)[:80]!r}, which is not there.",
        where=MANIFEST,
        remedy=f"Name one of: {', '.join(names[:20])}." if names else "Add src/main.rs.",
    )


def _possible(package: Package, features: tuple[str, ...]) -> tuple[Binary, ...]:
    """Binaries that cargo would build with these features and the default ones."""
    table = package.value.get("features")
    defined = table if isinstance(table, dict) else {}
    on = set(features)
    done: set[str] = set()
    waiting = ["default", *features]
    while waiting:
        name = waiting.pop()
        on.add(name)
        inner = defined.get(name) if name not in done else None
        done.add(name)
        waiting += [item for item in inner if isinstance(item, str)] if isinstance(inner, list) else []
    return tuple(binary for binary in package.binaries if set(binary.needs) <= on)


def _same(name: str, app: str) -> bool:
    return name.replace("_", "-").lower() == app.replace("_", "-").lower()


def _features(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) and _is_feature(item) for item in value):
        raise Refusal(
            "[metadata.sekisho] features is not a list of names.", where=MANIFEST, remedy='features = ["one"]'
        )
    return tuple(sorted(set(value)))


def _is_feature(name: str) -> bool:
    return bool(name) and all(char.isalnum() or char in "_-+./" for char in name)
