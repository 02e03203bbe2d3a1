"""Rust: Cargo.toml and Cargo.lock, crates by hash, compiled once and kept, one binary in the image."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sekisho.errors import Refusal
from stages.build.compose import Runtime
from stages.build.language import SOURCE, Plan, Step, Take, Unlocked
from stages.build.languages.rust_choice import Choice, choose
from stages.build.languages.rust_config import Settings, read_settings
from stages.build.languages.rust_skeleton import skeleton, toml
from stages.build.languages.rust_sqlx import check_queries
from stages.build.languages.rust_workspace import (
    MANIFEST,
    MAX_BYTES,
    Workspace,
    dependency_tables,
    package_table,
    read_workspace,
    table_of,
)
from stages.build.locks_cargo import LOCK_COMMAND, LOCK_FILE, CargoLock, parse_cargo_lock
from stages.build.project import Project
from stages.build.strict_toml import read_toml

PROGRAMS = "usr/local/bin"
"""Folder of the binaries in the image."""
HOME = "app"
"""Folder in the image where the workload starts, with what it may read there: templates, migrations, settings."""
_NOT_READ = (
    ".*", "**/.git*", "**/.cargo", "**/*.rs", "**/Cargo.toml", "**/Cargo.lock", "**/target", "**/node_modules",
    "**/tests", "**/benches", "rust-toolchain", "rust-toolchain.toml", "clippy.toml", "rustfmt.toml", "deny.toml",
    "*.md", "LICENSE*", "COPYING*", "NOTICE*", "Dockerfile*", "Containerfile*", "docker-compose*", "compose.y*ml",
    "Makefile", "justfile", "Procfile", "score.y*ml", "sqlx-data.json",
)  # fmt: skip
"""What of the workload's files a running program does not read; the rest is beside it, as `cargo run` would have it."""
_SECONDS = 1_800
_RELEASE = re.compile(r"(\d{1,9})\.(\d{1,9})(?:\.(\d{1,9}))?(?!\d)")
_TOOLCHAINS = ("rust-toolchain.toml", "rust-toolchain")
_PROGRAM = Path(__file__).with_name("rust_sandbox.py")
_RESOLVE = """mkdir -p /tmp/cargo
cp /in/line/config.toml /tmp/cargo/config.toml
rm -rf .cargo
exec cargo generate-lockfile
"""
_RESOLVE_CONFIG = """[source.crates-io]
replace-with = "line"
[source.line]
registry = "sparse+http://127.0.0.1:8001/crates/index/"
[resolver]
incompatible-rust-versions = "fallback"
[net]
retry = 1
"""


class Rust:
    """Workloads that cargo builds."""

    name = "rust"
    title = "Rust"

    def recognise(self, project: Project) -> str:
        """Return Cargo.toml if it is there."""
        return MANIFEST if project.has(MANIFEST) else ""

    def plan(self, project: Project, offered: tuple[str, ...]) -> Plan | Unlocked:
        """Return how the workload is built.

        Raises:
            Refusal: a manifest, the lock file or the configuration is wrong, or asks for what there is not.
        """
        workspace = read_workspace(project)
        _no_git(workspace)
        version, notes = _version(project, workspace, offered)
        text = project.text(LOCK_FILE)
        if text is None:
            return _unlocked(workspace, version)
        lock = parse_cargo_lock(text)
        choice = choose(workspace, project.name)
        settings = read_settings(project)
        steps = _steps(
            _files(workspace, choice, lock, settings), check_queries(project, lock), crates=bool(lock.crates)
        )
        # Only the workload's own crates: those of others are compiled once, and stay as they are.
        own = sorted({package.name for package in workspace.packages if package.name})
        return Plan(
            language=self.name,
            version=version,
            why=f"Rust, because there is {MANIFEST}.",
            runtime=_runtime(choice, lock),
            takes=(
                Take("application", SOURCE, into=HOME, exclude=_NOT_READ),
                Take("application", "build", below=PROGRAMS, into=PROGRAMS),
                Take("application", "build", below="link", into="out"),
            ),
            artifacts=tuple(crate.artifact() for crate in lock.crates),
            steps=steps,
            hasty=(*steps[:-1], replace(steps[-1], command=(*steps[-1].command, *own))),
            listed_by="crates" if lock.crates else "",
            no_command=choice.refusal,
            notes=(*notes, *settings.notes, *_notes(lock)),
        )


def _steps(files: Mapping[str, bytes], environment: Mapping[str, str], *, crates: bool) -> tuple[Step, ...]:
    def command(step: str) -> tuple[str, ...]:
        return ("python3", "-I", f"/in/line/{_PROGRAM.name}", step)

    build = Step(
        "build", command("build"), directory="work", source=(), uses=("crates", "dependencies") if crates else (),
        files=files, environment=environment, what="build (cargo)", seconds=_SECONDS,
    )  # fmt: skip
    if not crates:
        return (build,)
    return (
        Step("crates", command("crates"), packages=True, files=files, keep=True, what="unpacking of the crates"),
        Step(
            "dependencies", command("dependencies"), uses=("crates",), files=files, environment=environment, keep=True,
            what="build of the crates", seconds=_SECONDS,
        ),
        build,
    )  # fmt: skip


def _files(workspace: Workspace, choice: Choice, lock: CargoLock, settings: Settings) -> dict[str, bytes]:
    """What the line writes for the steps. It is part of a kept step's key, so nothing is in it that need not be."""
    flags = ["--remap-path-prefix=/in/crates/source=crates", "--remap-path-prefix=/out/work=.", *settings.flags]
    config: dict[str, Any] = {"build": {"rustflags": flags}}
    if settings.variables:
        config["env"] = dict(settings.variables)
    if settings.profiles:
        config["profile"] = dict(settings.profiles)
    value = {
        "manifests": {
            package.manifest: sorted({binary.name for binary in package.binaries} & set(choice.binaries))
            for package in choice.packages
        },
        "binaries": list(choice.binaries),
        "features": list(choice.features),
        "own": sorted({name for package in workspace.packages for name in (package.name, *_targets(package.value))}),
        "crates": {f"{crate.folder}.crate": crate.sha256 for crate in lock.crates},
        "skeleton": dict(skeleton(workspace, choice, lock)),
        "config": toml(config),
        "into": PROGRAMS,
    }
    return {
        _PROGRAM.name: _PROGRAM.read_bytes(),
        "settings.json": json.dumps(value, sort_keys=True, indent=1).encode(),
    }


def _targets(manifest: Mapping[str, Any]) -> list[str]:
    tables = [manifest.get("lib"), *(manifest.get("bin") or [])]
    return [table["name"] for table in tables if isinstance(table, dict) and isinstance(table.get("name"), str)]


def _runtime(choice: Choice, lock: CargoLock) -> Runtime:
    environment = {}
    if lock.has("rocket"):
        # Rocket alone listens on localhost by default, and on a port of its own.
        environment = {"ROCKET_ADDRESS": "0.0.0.0", "ROCKET_PORT": "8080", "ROCKET_CLI_COLORS": "false"}  # noqa: S104
    return Runtime((f"/{PROGRAMS}/{choice.start}",) if choice.start else (), f"/{HOME}", environment)


def _notes(lock: CargoLock) -> tuple[str, ...]:
    if lock.has("rocket"):
        return ("Rocket listens on 0.0.0.0 and port 8080 by ROCKET_ADDRESS and ROCKET_PORT in the image.",)
    return ()


def _unlocked(workspace: Workspace, version: str) -> Unlocked:
    decided = (*(package.manifest for package in workspace.packages), MANIFEST)
    step = Step(
        "resolve", ("/bin/sh", "-eu", "-c", _RESOLVE), directory="work", source=(),
        files={"config.toml": _RESOLVE_CONFIG.encode()}, environment={"CARGO_HOME": "/tmp/cargo"},  # noqa: S108
        what="resolving of the crates",
    )  # fmt: skip
    return Unlocked(
        language=Rust.name,
        version=version,
        refusal=Refusal(
            f"There is no {LOCK_FILE}: nothing says which crates exactly belong in the image.",
            where=MANIFEST,
            remedy=f"Run: {LOCK_COMMAND}   and commit {LOCK_FILE}.",
        ),
        step=step,
        ecosystems=("crates",),
        produces=(LOCK_FILE,),
        decided_by=tuple(sorted(set(decided))),
    )


def _no_git(workspace: Workspace) -> None:
    """Refuse git repositories and other registries before anything is resolved or fetched."""
    for package in workspace.packages:
        tables = dependency_tables(package.value)
        tables += [item for item in table_of(package.value, "patch").values() if isinstance(item, dict)]
        tables += dependency_tables(table_of(package.value, "workspace"))
        for name, item in ((name, item) for table in tables for name, item in table.items()):
            found = {"git", "registry", "registry-index"} & set(item) if isinstance(item, dict) else set()
            if found:
                kind = "a git repository" if "git" in found else "another registry than crates.io"
                raise Refusal(
                    f"The dependency {name[:80]} comes from {kind}.",
                    where=package.manifest,
                    remedy="Take a release from crates.io, or put the crate into a folder here and name it by path.",
                )


def _version(project: Project, workspace: Workspace, offered: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """Return the version to build with, and notes."""
    wanted, where = _toolchain(project)
    if wanted and not _RELEASE.match(wanted) and wanted.partition("-")[0] != "stable":
        raise Refusal(
            f"The toolchain {wanted[:40]!r} is not a release of Rust.",
            where=where,
            remedy=f"Use a stable release; offered: {', '.join(offered)}.",
        )
    least = [(_number(wanted), where)] if wanted and _RELEASE.match(wanted) else []
    for package in workspace.packages:
        if package.in_workspace:
            said = _inherited(workspace, package.value, "rust-version")
            if isinstance(said, str) and _RELEASE.match(said):
                least.append((_number(said), f"{package.manifest} rust-version"))
    need, where = max(least, default=((0, 0), ""))
    for version in offered:
        if _number(version) >= need:
            pinned = wanted and _RELEASE.match(wanted) and _number(wanted) != _number(version)
            note = f"Built with the offered Rust {version}, though {where} names {wanted}." if pinned else ""
            return version, (note,) if note else ()
    raise Refusal(
        f"Rust {need[0]}.{need[1]} or newer is asked for; offered: {', '.join(offered)}.",
        where=where,
        remedy="Ask for an older release there, or ask the platform team for a newer one.",
    )


def _toolchain(project: Project) -> tuple[str, str]:
    for path in _TOOLCHAINS:
        text = project.text(path, limit=MAX_BYTES)
        if text is None:
            continue
        words = text.split()
        if path == "rust-toolchain" and len(words) == 1 and not set(words[0]) & set("=[]#"):
            return words[0], path  # the old form: nothing but the channel
        channel = table_of(read_toml(text, file=path, remedy="Correct it."), "toolchain").get("channel")
        return (channel if isinstance(channel, str) else ""), path
    return "", ""


def _inherited(workspace: Workspace, manifest: Mapping[str, Any], key: str) -> object:
    said = package_table(manifest).get(key)
    if isinstance(said, dict):
        return table_of(table_of(workspace.root, "workspace"), "package").get(key)
    return said


def _number(version: str) -> tuple[int, int]:
    match = _RELEASE.match(version)
    return (int(match[1]), int(match[2])) if match else (0, 0)
