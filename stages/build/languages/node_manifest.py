"""Reading package.json, and choosing the Node.js that it asks for. Pure, but for what `Project` reads."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sekisho.errors import Refusal
from stages.build.languages.node_semver import fits, offered_version
from stages.build.project import Project
from stages.build.strict_json import read_object

Manager = Literal["npm", "yarn", "pnpm"]

MANIFEST = "package.json"
DEPENDENCY_FIELDS = ("dependencies", "devDependencies", "optionalDependencies")

_FOR_INSTALL = (
    *DEPENDENCY_FIELDS, "peerDependencies", "peerDependenciesMeta", "dependenciesMeta", "bundleDependencies",
    "bundledDependencies", "workspaces", "overrides", "resolutions", "pnpm", "os", "cpu",
)  # fmt: skip
_LTS: Mapping[str, str] = {
    "gallium": "16", "hydrogen": "18", "iron": "20", "jod": "22", "krypton": "24",
}  # fmt: skip
_ASKED = re.compile(r"v?(\d{1,4})(?:\.(?:\d{1,9}|[xX*])){0,2}")


@dataclass(frozen=True)
class Manifest:
    """One package.json."""

    raw: Mapping[str, Any] = field(repr=False)
    scripts: Mapping[str, str]
    dependencies: Mapping[str, str]
    """What production needs, optional ones with it: name and range."""
    dev_dependencies: Mapping[str, str]
    where: str = MANIFEST

    def has(self, name: str) -> bool:
        """Return whether a package is asked for, for production or development."""
        return name in self.dependencies or name in self.dev_dependencies

    def text(self, name: str) -> str:
        """Return a field that is text, else an empty string."""
        value = self.raw.get(name)
        return value if isinstance(value, str) else ""

    @property
    def manager(self) -> Manager | None:
        """The package manager that the `packageManager` field names."""
        name = self.text("packageManager").partition("@")[0]
        return {"npm": "npm", "yarn": "yarn", "pnpm": "pnpm"}.get(name)  # type: ignore[return-value]

    def for_install(self, *, top: bool) -> bytes:
        """Return only what an installer needs of it: no scripts, and nothing that changes from commit to commit.

        So a new version number or script of the workload makes no new installation, and no code of the workload runs
        in a step whose output is kept.
        """
        value: dict[str, Any] = {key: self.raw[key] for key in _FOR_INSTALL if key in self.raw}
        value |= {"name": self.text("name") or "workload", "private": True}
        value["version"] = "0.0.0" if top else self.text("version") or "0.0.0"
        return json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False).encode()


def read_manifest(project: Project, path: str = MANIFEST) -> Manifest:
    """Return a package.json of the workload.

    Raises:
        Refusal: it is not there or not as npm wants it.
    """
    text = project.text(path)
    if text is None:
        raise Refusal(f"There is no {path}.", where=path, remedy="Make one: npm init")
    raw = read_object(text, where=path, remedy="Correct the file: npm pkg fix")
    groups = {name: _texts(raw, name, path) for name in ("scripts", *DEPENDENCY_FIELDS)}
    return Manifest(
        raw=raw,
        scripts=groups["scripts"],
        dependencies={**groups["dependencies"], **groups["optionalDependencies"]},
        dev_dependencies=groups["devDependencies"],
        where=path,
    )


def choose_version(project: Project, manifest: Manifest, offered: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """Return the version to build with and on, and what people should know of the choice.

    `engines.node` is what the workload demands; .nvmrc, .node-version and volta say what its developers use, which
    chooses among the versions offered and refuses none.

    Raises:
        Refusal: no version offered is one that `engines` allows.
    """
    wanted = _field(manifest.raw.get("engines"), "node")
    notes: list[str] = []
    allowed = offered
    if wanted:
        verdicts = {item: _fits(item, wanted) for item in offered}
        allowed = tuple(item for item in offered if verdicts[item] is not False)
        if None in verdicts.values():
            notes.append(f"`engines.node` in package.json is {wanted[:60]!r}, which is no range: it was not looked at.")
    if not allowed:
        shown = ", ".join(offered) or "none"
        raise Refusal(
            f"package.json asks for Node.js {wanted[:60]} (`engines.node`); offered: {shown}.",
            where=manifest.where,
            remedy=f"Try it with Node.js {_major(offered[0]) if offered else '24'} and write "
            f'"node": ">={_major(offered[0]) if offered else "24"}" into `engines`, or ask the platform team for it.',
        )
    file, asked = _preferred(project, manifest)
    if not asked:
        return allowed[0], tuple(notes)
    same = [item for item in allowed if _major(item) == asked]
    if not same:
        notes.append(f"{file} asks for Node.js {asked}, which is not offered: {allowed[0]} is used.")
    return (same or list(allowed))[0], tuple(notes)


def _preferred(project: Project, manifest: Manifest) -> tuple[str, str]:
    """Return the file that names the developers' version, and its major number."""
    for file in (".nvmrc", ".node-version"):
        text = project.read(file, limit=4096)
        if text is not None:
            word = text.decode("utf-8", "replace").strip().lower()
            word = _LTS.get(word.removeprefix("lts/"), word)
            match = _ASKED.fullmatch(word)
            if match:
                return file, match[1]
    match = _ASKED.fullmatch(_field(manifest.raw.get("volta"), "node"))
    return ("package.json (`volta`)", match[1]) if match else ("", "")


def _fits(version: str, wanted: str) -> bool | None:
    parsed = offered_version(version)
    return None if parsed is None else fits(parsed, wanted)


def _major(version: str) -> str:
    return version.removeprefix("v").partition(".")[0]


def _field(value: object, name: str) -> str:
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, str) else ""


def _texts(raw: Mapping[str, Any], name: str, where: str) -> dict[str, str]:
    value = raw.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise Refusal(
            f"`{name}` in {where} is not a list of names with text.", where=where, remedy="Correct it: npm pkg fix"
        )
    return value
