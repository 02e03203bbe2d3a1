"""Which lock file counts, and what it pins: one answer for npm, yarn and pnpm."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from sekisho.errors import Refusal
from stages.build.language import Step, Unlocked
from stages.build.languages.node_install import Lock
from stages.build.languages.node_manifest import DEPENDENCY_FIELDS, MANIFEST, Manifest, read_manifest
from stages.build.languages.node_sandbox import (
    ENVIRONMENT,
    INSTALL_SECONDS,
    REGISTRY,
    RUN,
    RUN_PROGRAM,
    run_lines,
    shell,
)
from stages.build.languages.node_semver import fits, parse_version
from stages.build.locks_npm import LOCK_COMMAND, NpmLock, OldLock, parse_npm_lock
from stages.build.locks_pnpm import parse_pnpm_lock
from stages.build.locks_yarn import parse_yarn_lock
from stages.build.npm_names import from_elsewhere
from stages.build.project import Project

FILES: Mapping[str, str] = {
    "npm-shrinkwrap.json": "npm",
    "package-lock.json": "npm",
    "pnpm-lock.yaml": "pnpm",
    "yarn.lock": "yarn",
    "bun.lock": "bun",
    "bun.lockb": "bun",
}
"""Lock files and who writes them, the one that counts first."""
PROXY = "http://127.0.0.1:8001/npm/"

_LOCK_COMMANDS = {"npm": LOCK_COMMAND, "yarn": "yarn install", "pnpm": "pnpm install --lockfile-only"}
_LOCK_LIMIT = 32 << 20
_OPTIONS = {
    "legacy-peer-deps": ("true",),
    "strict-peer-deps": ("true", "false"),
    "install-links": ("true", "false"),
    "install-strategy": ("hoisted", "nested", "shallow"),
}
"""What of a .npmrc counts: how node_modules is laid out. Registries, tokens and scripts never do."""
_PNPM_SETTING = re.compile(
    r"(?:auto-install-peers|strict-peer-dependencies|shamefully-hoist|public-hoist-pattern|hoist-pattern"
    r"|link-workspace-packages|resolve-peers-from-workspace-root|dedupe-peer-dependents)\s*=\s*[\w*@/,.-]+"
)
_OPTION = re.compile(r"^[ \t]*([a-z-]+)[ \t]*=[ \t]*([a-z-]+)[ \t\r]*$", re.MULTILINE)


def find_lock(project: Project, manifest: Manifest) -> tuple[str, str]:
    """Return the lock file that counts, and a note where there are several; both may be empty."""
    there = [file for file in FILES if project.has(file)]
    if not there:
        return "", ""
    said = [file for file in there if FILES[file] == manifest.manager]
    chosen = (said or there)[0]
    others = [file for file in there if FILES[file] != FILES[chosen]]
    note = f"{chosen} counts; {' and '.join(others)} beside it does not." if others else ""
    return chosen, note


def read_lock(project: Project, manifest: Manifest, file: str) -> Lock:
    """Return what a lock file pins, checked against package.json.

    Raises:
        Refusal: it is of a kind that the line does not read, or does not say the same as package.json.
    """
    text = project.text(file, limit=_LOCK_LIMIT) or ""
    match FILES[file]:
        case "npm":
            return _npm(project, manifest, file, text)
        case "pnpm":
            return _pnpm(project, manifest, file, text)
        case "yarn":
            return _yarn(project, manifest, file, text)
        case writer:
            raise Refusal(
                f"{file} ({writer}) is not read by the line.",
                where=file,
                remedy=f"Run `{LOCK_COMMAND}` and commit package-lock.json beside it.",
            )


def _npm(project: Project, manifest: Manifest, file: str, text: str) -> Lock:
    lock = parse_npm_lock(text, where=file)
    _check_agreement(manifest, lock)
    manifests = {MANIFEST: manifest.for_install(top=True), "package-lock.json": lock.normalised}
    manifests |= _of_folders(project, lock.folders, file)
    return Lock("npm", file, lock.packages, manifests, folders=lock.folders, options=_options(project))


def _pnpm(project: Project, manifest: Manifest, file: str, text: str) -> Lock:
    lock = parse_pnpm_lock(text, where=file)
    _check_names(manifest, lock.asked, file)
    manifests = {MANIFEST: manifest.for_install(top=True), file: text.encode()}
    manifests |= _of_folders(project, lock.folders, file)
    # Settings that the lock was made with (overrides, catalogs, patches): pnpm refuses a lock that others made.
    for path in ("pnpm-workspace.yaml", *project.files("*.patch", below="patches")):
        data = project.read(path)
        if data is not None:
            manifests[path] = data
    data = project.read(".npmrc", limit=1 << 20) or b""
    kept = [line for line in data.decode("utf-8", "replace").splitlines() if _PNPM_SETTING.fullmatch(line.strip())]
    options = tuple(f"--config.{line.strip().replace(' ', '')}" for line in kept)
    return Lock("pnpm", file, lock.packages, manifests, folders=lock.folders, programs=False, options=options)


def _yarn(project: Project, manifest: Manifest, file: str, text: str) -> Lock:
    optional = manifest.raw.get("optionalDependencies") or {}
    lock = parse_yarn_lock(text, manifest.dependencies, registry=REGISTRY, optional=optional, where=file)
    manifests = {MANIFEST: manifest.for_install(top=True), file: lock.normalised}
    folders: tuple[str, ...] = ()
    if manifest.raw.get("workspaces"):
        found = (path.rpartition("/")[0] for path in project.files(MANIFEST) if "node_modules" not in path.split("/"))
        folders = tuple(folder for folder in found if folder)
        manifests |= _of_folders(project, folders, file)
    own = {read_manifest(project, f"{folder}/{MANIFEST}").text("name") for folder in folders}
    _check_names(manifest, lock.asked | own, file)
    return Lock("yarn", file, lock.packages, manifests, folders=folders, programs=False)


def _of_folders(project: Project, folders: tuple[str, ...], file: str) -> dict[str, bytes]:
    """Return what the installer sees of the package.json of each folder that is a package itself."""
    found: dict[str, bytes] = {}
    for folder in folders:
        path = f"{folder}/{MANIFEST}"
        if not project.has(path):
            raise Refusal(
                f"{file} names the folder {folder}, and there is no {path}.",
                where=file,
                remedy="Run the install of your package manager once and commit the lock.",
            )
        found[path] = read_manifest(project, path).for_install(top=False)
    return found


def no_packages(manifest: Manifest) -> Lock | None:
    """Return a lock for a workload that asks for no packages at all, None where it does."""
    if manifest.dependencies or manifest.dev_dependencies or manifest.raw.get("workspaces"):
        return None
    return Lock(manager="npm", file=MANIFEST, packages=(), manifests={})


def unlocked(project: Project, manifest: Manifest, version: str, old: OldLock | None = None) -> Unlocked:
    """Return how a lock is made where there is none.

    Args:
        project: the workload's files.
        manifest: its package.json.
        version: of Node.js.
        old: what is said of a lock file of npm 6 or older, whose versions npm takes over.
    """
    manager = manifest.manager or "npm"
    refusal = old or Refusal(
        "There is no lock file: nothing says which packages exactly belong in the image.",
        where=MANIFEST,
        remedy=f"Run `{_LOCK_COMMANDS[manager]}` and commit what it writes.",
    )
    file = old.where if old else "package-lock.json"
    sources = tuple(path for path in project.files(MANIFEST) if "node_modules" not in path.split("/"))
    if old:
        sources += (file,)
    command = ["npm", "install", "--package-lock-only", "--ignore-scripts", *_options(project)]
    environment = {
        **ENVIRONMENT,
        "npm_config_offline": "false",
        "npm_config_registry": PROXY,
        # The lock must not name the line's own proxy: the path follows from name and version.
        "npm_config_omit_lockfile_registry_resolved": "true",
    }
    return Unlocked(
        language="node",
        version=version,
        refusal=refusal,
        step=Step(
            name="resolve",
            command=shell([run_lines([command, [*command, "--legacy-peer-deps=true"]])]),
            source=sources,
            files={RUN: RUN_PROGRAM},
            environment=environment,
            what="choice of the packages' versions",
            seconds=INSTALL_SECONDS,
        ),
        ecosystems=("npm",),
        produces=(file,),
        decided_by=sources,
    )


def _check_names(manifest: Manifest, known: Collection[str], file: str) -> None:
    """Refuse a lock that lacks a package; whether ranges fit, the package manager itself says in the sandbox."""
    missing = [name for name in (*manifest.dependencies, *manifest.dev_dependencies) if name not in known]
    if missing:
        raise Refusal(
            f"package.json asks for {missing[0]}, and {file} does not have it.",
            where=manifest.where,
            remedy=f"Run `{_LOCK_COMMANDS[FILES[file]]}` and commit {file}.",
        )


def _check_agreement(manifest: Manifest, lock: NpmLock) -> None:
    """Refuse a lock that is not this package.json's, before anything is fetched; npm's own check needs a network."""
    remedy = f"Run `{LOCK_COMMAND}` and commit {lock.file}."
    overridden = "overrides" in manifest.raw
    places = {package.place: package for package in lock.packages}
    for group in DEPENDENCY_FIELDS:
        asked = manifest.raw.get(group) or {}
        if asked == (lock.root.get(group) or {}):
            continue
        for name, wanted in asked.items():
            place = f"node_modules/{name}"
            if re.match(r"git|file:|link:|https?:|[\w-]+/[\w.-]+(#|$)", wanted) and place not in lock.links:
                raise from_elsewhere(name, wanted, where=manifest.where)
            package = places.get(place)
            if package is None:
                if place not in lock.places and group != "optionalDependencies":
                    raise Refusal(f"package.json asks for {name}, and {lock.file} does not have it.",
                                  where=manifest.where, remedy=remedy)  # fmt: skip
                continue
            version = parse_version(package.version)
            plain = wanted.rpartition("@")[2] if wanted.startswith("npm:") else wanted
            if version is not None and not overridden and fits(version, plain) is False:
                raise Refusal(
                    f"package.json asks for {name} {wanted[:60]}, and {lock.file} has {package.version}.",
                    where=manifest.where,
                    remedy=remedy,
                )


def _options(project: Project) -> tuple[str, ...]:
    data = project.read(".npmrc", limit=1 << 20)
    found = dict(_OPTION.findall(data.decode("utf-8", "replace"))) if data else {}
    return tuple(f"--{name}={found[name]}" for name in sorted(_OPTIONS) if found.get(name) in _OPTIONS[name])
