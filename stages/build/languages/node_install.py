"""Installing locked packages in the sandbox with the workload's own package manager, offline. Pure.

npm looks for a package in its cache by the hash in the lock. So fetched files are laid out as that cache has them
(`_cacache/content-v2/sha512/ab/cd/…`, cacache's own format), and the cache is a tree of links to them: nothing is
copied, npm checks each hash once more, and lays out node_modules as it does everywhere else. pnpm and yarn keep
unpacked packages; they ask a registry for files, which the line's program is, on the sandbox's own loopback.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stages.build.language import Artifact, Step
from stages.build.languages.node_sandbox import (
    APPLICATION,
    ENVIRONMENT,
    INSTALL_SECONDS,
    REGISTRY,
    RUN,
    RUN_PROGRAM,
    SCRATCH,
    STORE,
    quoted,
    run_lines,
    shell,
)
from stages.build.npm_names import Pinned

FULL = "modules"
"""Step with everything, development too: for the build script."""
PRODUCTION = "dependencies"
"""Step with what production needs: for the image."""

_CACHE = f"{SCRATCH}/npm"
_NOTES = (".cache", ".yarn-integrity", ".modules.yaml", ".pnpm-workspace-state-v1.json", ".pnpm")
"""What package managers note for themselves in node_modules, with times and places."""


@dataclass(frozen=True)
class Lock:
    """What the line needs to know of a lock, whichever package manager wrote it."""

    manager: str
    file: str
    packages: tuple[Pinned, ...]
    manifests: Mapping[str, bytes]
    """Files that the installer sees: every package.json, the lock, settings of the package manager."""
    folders: tuple[str, ...] = ()
    """Folders of the workload that are packages themselves."""
    programs: bool = True
    """Whether the lock says which programs a package brings."""
    options: tuple[str, ...] = ()
    """Options of the installer that the workload's settings ask for."""

    def for_production(self) -> tuple[Pinned, ...]:
        """Return the packages that the image needs."""
        return tuple(package for package in self.packages if not package.dev)

    @property
    def has_development(self) -> bool:
        """Whether an installation for production leaves something out."""
        return any(package.dev for package in self.packages)


def artifacts_of(lock: Lock, packages: Sequence[Pinned]) -> tuple[Artifact, ...]:
    """Return what is to be fetched, each file once.

    Raises:
        Refusal: the lock gives one file two hashes.
    """
    found: dict[tuple[str, str], Artifact] = {}
    for package in packages:
        where = f"{lock.file}:{package.line}" if package.line else lock.file
        found.setdefault(
            (package.path, package.digest),
            Artifact("npm", package.path, (package.digest,), _save_as(lock, package), package.purl, where),
        )
    return tuple(found[key] for key in sorted(found))


def install_step(lock: Lock, *, name: str, production: bool) -> Step:
    """Return the step that lays out node_modules in `/out/app`."""
    files: dict[str, bytes] = {RUN: RUN_PROGRAM}
    lines: list[str] = []
    for number, (path, data) in enumerate(sorted(lock.manifests.items())):
        here = f"{number}.manifest"
        files[here] = data
        folder = path.rpartition("/")[0]
        if folder:
            lines.append(quoted(["mkdir", "-p", folder]))
        lines.append(quoted(["cp", f"/in/line/{here}", path]))
    lines += [
        *prepare_cache(lock),
        run_lines(_tries(lock, production=production)),
        quoted(["rm", "-f", *sorted(lock.manifests)]),
        "mkdir -p node_modules",
        quoted(["rm", "-rf", STORE, *(f"node_modules/{name}" for name in _NOTES)]),
    ]
    return Step(
        name=name,
        command=shell(lines),
        directory=APPLICATION,
        packages=True,
        files=files,
        environment=environment_of(lock.manager),
        keep=True,
        what="install of the packages" + ("" if production else " for the build"),
        seconds=INSTALL_SECONDS,
    )


def prepare_cache(lock: Lock) -> list[str]:
    """Return the lines of shell that let npm find the fetched packages."""
    if lock.manager == "npm":
        return [f"mkdir -p {_CACHE}/_cacache/tmp", f"cp -rs /in/packages/_cacache {_CACHE}/"]
    return []


def prune_lines(lock: Lock) -> list[str]:
    """Return the lines of shell that remove what only development needs from an installation for the build."""
    if lock.manager == "npm":
        return [quoted(["npm", "prune", "--omit=dev", "--ignore-scripts", "--no-save", *lock.options])]
    return []


def environment_of(manager: str) -> Mapping[str, str]:
    """Return what a package manager reads from its environment, for every step."""
    if manager == "npm":
        return ENVIRONMENT
    settings = {key: value for key, value in ENVIRONMENT.items() if key != "npm_config_offline"}
    if manager == "yarn":
        return {**settings, "YARN_CACHE_FOLDER": STORE, "YARN_REGISTRY": REGISTRY}
    return {
        **settings,
        # The `packageManager` field would make pnpm download another pnpm.
        "npm_config_manage_package_manager_versions": "false",
        "npm_config_dangerously_allow_all_builds": "true",
        "npm_config_registry": REGISTRY,
        "npm_config_store_dir": STORE,
        "npm_config_package_import_method": "hardlink",
        "npm_config_fetch_retries": "0",
    }


def _tries(lock: Lock, *, production: bool) -> list[list[str]]:
    """Return commands of which one must succeed."""
    match lock.manager:
        case "pnpm":
            # Links into a store of its own would lead out of node_modules; bundlers and layers want plain folders.
            command = ["pnpm", "install", "--frozen-lockfile", "--node-linker=hoisted", *lock.options]
            return [[*command, "--prod"] if production else [*command, "--prod=false"]]
        case "yarn":
            command = ["yarn", "install", "--frozen-lockfile", "--non-interactive", "--ignore-engines", *lock.options]
            return [[*command, f"--production={'true' if production else 'false'}"]]
        case _:
            command = ["npm", "ci", *(["--omit=dev"] if production else ["--include=dev"]), *lock.options]
            # A lock that was written with npm's `legacy-peer-deps` in the developer's own settings does not pass
            # without; the lock says what is installed either way.
            legacy = "--legacy-peer-deps=true"
            return [command] if legacy in lock.options else [command, [*command, legacy]]


def _save_as(lock: Lock, package: Pinned) -> str:
    if lock.manager != "npm":
        return f"registry/{package.path}"
    kind, _, digest = package.digest.partition(":")
    return f"_cacache/content-v2/{kind}/{digest[:2]}/{digest[2:4]}/{digest[4:]}"
