"""The plans for Node.js: a server with its packages, a site that a build makes, a site that is there already. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sekisho.errors import Refusal
from stages.build.compose import Runtime
from stages.build.language import SOURCE, Plan, Step, Take
from stages.build.languages.node_install import (
    FULL,
    PRODUCTION,
    Lock,
    artifacts_of,
    environment_of,
    install_step,
    prepare_cache,
    prune_lines,
)
from stages.build.languages.node_manifest import Manifest
from stages.build.languages.node_sandbox import (
    APPLICATION,
    BUILD_SECONDS,
    RUN,
    RUN_PROGRAM,
    SHIP,
    SHIP_PROGRAM,
    quoted,
    run_lines,
    shell,
)
from stages.build.languages.node_start import Start
from stages.build.languages.node_tools import NEXT, SELF_CONTAINED, next_output, site_folders, site_of
from stages.build.npm_names import Pinned
from stages.build.project import Project

SITE = "srv/www"
"""Folder of a site in the image `static`."""

_BUILD = "build"
_SHIPPED = "ship"
"""Folder of a build's output that goes into the image, where that is not the whole workload."""
_OWN_SCRIPTS = ("install", "postinstall", "prepare")
"""What npm would run in the workload's own folder after an install."""
_FOR_DEVELOPERS = re.compile(
    r"husky|lefthook|git-hooks|githooks|simple-git|is-ci|only-allow|lint-staged|^\s*(?:echo|exit)\b"
)
_CHANGES_PACKAGES = re.compile(r"\bprisma\b|\bpatch-package\b|\bzenstack\b")
"""Scripts that write into node_modules what runs later."""
_LEFT_OUT = (
    # What the lock of development says is not in the image.
    "package-lock.json", "npm-shrinkwrap.json", "yarn.lock", "pnpm-lock.yaml",
    # Secrets are the zone's to give; a token of a registry is nobody's to read.
    "**/.env", "**/.env.local", "**/.env.*.local", "**/.env.development", "**/.env.test", "**/.npmrc", "**/.yarnrc.yml",
    # Of developers and their tools.
    ".git", ".github", ".gitlab", ".husky", ".vscode", ".idea", ".yarn", ".cache", ".turbo", ".next/cache", "coverage",
)  # fmt: skip
_MODULES = ("**/node_modules",)
"""Packages come from the lock, never from the repository."""
_NOT_OF_MODULES = (
    "**/node_modules/.cache", "**/node_modules/.package-lock.json",
    # What node-gyp leaves behind beside the compiled module.
    "**/build/Release/obj.target", "**/build/Release/.deps", "**/build/Makefile", "**/build/config.gypi",
)  # fmt: skip
_STANDALONE = "standalone"


@dataclass(frozen=True)
class Workload:
    """What is known of one before it is decided what becomes of it."""

    project: Project
    manifest: Manifest
    version: str
    lock: Lock
    build: str
    """Name of the build script; empty for none."""
    notes: tuple[str, ...]


def server(workload: Workload, start: Start, refused: Refusal | None) -> Plan:
    """Return the plan of a program that answers requests."""
    lock = workload.lock
    commands = _commands(workload, start)
    words, shipped = _shipped(workload, start.words)
    changed = not shipped and any(_CHANGES_PACKAGES.search(text) for text in _told(workload, commands))
    needed = lock.packages if commands else lock.for_production()
    steps: list[Step] = []
    takes: list[Take] = []
    if lock.packages and commands:
        steps.append(_install(lock, full=True))
    if lock.for_production() and not changed and not shipped:
        if commands and not lock.has_development:
            takes.append(_modules(FULL))
        else:
            steps.append(_install(lock, full=False))
            takes.append(_modules(PRODUCTION))
    if commands:
        tail = shipped or ((*prepare_cache(lock), *prune_lines(lock)) if changed else _without_modules(lock))
        steps.append(_build(workload, (*_run(commands), *tail), packages=changed, shipped=bool(shipped)))
        # Folders of this name elsewhere are the build's own: Next.js makes .next/node_modules.
        installed = ("node_modules", *(f"{folder}/node_modules" for folder in lock.folders))
        if changed:
            places = (f"{APPLICATION}/{folder}" for folder in installed)
            takes += [Take("dependencies", _BUILD, place, place, _NOT_OF_MODULES) for place in places]
        below = _SHIPPED if shipped else APPLICATION
        takes.append(Take("application", _BUILD, below, APPLICATION, (*_LEFT_OUT, *(() if shipped else installed))))
    else:
        takes.append(Take("application", SOURCE, "", APPLICATION, (*_LEFT_OUT, *_MODULES)))
    return Plan(
        language="node",
        version=workload.version,
        why=_why(workload, commands),
        runtime=Runtime(words, f"/{APPLICATION}", {"NODE_ENV": "production", "PORT": "8080", **start.environment}),
        takes=tuple(takes),
        artifacts=artifacts_of(lock, needed),
        steps=tuple(steps),
        locked=() if shipped else _locked(lock.for_production()),
        no_command=None if words else refused,
        notes=(*workload.notes, *start.notes, *_notes(workload, lock)),
    )


def site(workload: Workload) -> Plan:
    """Return the plan of a site that the build script makes, served by the image `static`."""
    lock = workload.lock
    made = site_of(workload.manifest)
    folders = site_folders(workload.project, workload.manifest, workload.build)
    ship = quoted(["node", f"/in/line/{SHIP}", f"/out/{_SHIPPED}", *folders])
    steps = [_install(lock, full=True)] if lock.packages else []
    steps.append(_build(workload, (*_run(_commands(workload, Start())), ship), packages=False, shipped=True))
    return Plan(
        language="static",
        version=workload.version,
        why=f"Static site made by {made.title}: package.json has a script `{workload.build}` and starts no server.",
        runtime=Runtime((), "/", {}),
        takes=(Take("application", _BUILD, _SHIPPED, SITE),),
        artifacts=artifacts_of(lock, lock.packages),
        steps=tuple(steps),
        built_in="node",
        notes=(*workload.notes, *_notes(workload, lock)),
    )


def plain_site(workload: Workload, folder: str) -> Plan:
    """Return the plan of a site that is in the repository, where package.json only has tools for it."""
    why = f"Static site, because there is {folder}/index.html and package.json builds and starts nothing."
    return Plan(
        language="static",
        version=workload.version,
        why=why.replace(" /", " "),
        runtime=Runtime((), "/", {}),
        takes=(Take("application", SOURCE, folder, SITE, (*_LEFT_OUT, *_MODULES, "package.json", "score.yaml")),),
        built_in="node",
        notes=workload.notes,
    )


def _install(lock: Lock, *, full: bool) -> Step:
    name = FULL if full else PRODUCTION
    return install_step(lock, name=name, production=not full)


def _modules(step: str) -> Take:
    return Take("dependencies", step, APPLICATION, APPLICATION, _NOT_OF_MODULES)


def _build(workload: Workload, lines: tuple[str, ...], *, packages: bool, shipped: bool) -> Step:
    """Return the step with the workload's own scripts, in a copy of its folder with all packages in it.

    Packages are copied, not linked: bundlers refuse links that lead out of the folder, and some tools write into
    node_modules.
    """
    modules = (f"rm -rf node_modules && cp -a /in/{FULL}/{APPLICATION}/. .",) if workload.lock.packages else ()
    clean = (f"cd /out && rm -rf {APPLICATION}",) if shipped else ()
    return Step(
        name=_BUILD,
        command=shell((*modules, *lines, *clean)),
        directory=APPLICATION,
        source=(),
        packages=packages,
        uses=(FULL,) if workload.lock.packages else (),
        files={RUN: RUN_PROGRAM, SHIP: SHIP_PROGRAM},
        environment={**environment_of(workload.lock.manager), "NODE_ENV": "production"},
        what=f"script `{workload.build}`" if workload.build else "scripts of package.json",
        seconds=BUILD_SECONDS,
    )


def _commands(workload: Workload, start: Start) -> tuple[tuple[str, ...], ...]:
    """Return what runs before the image is made: the workload's own scripts, in npm's order."""
    scripts, build = workload.manifest.scripts, workload.build
    again = {f"{program} {build}" for program in ("npm run", "yarn", "yarn run", "pnpm", "pnpm run")}
    own = [name for name in _OWN_SCRIPTS if name in scripts and not _FOR_DEVELOPERS.search(scripts[name])]
    commands: list[tuple[str, ...]] = [
        ("npm", "run", name) for name in own if not build or scripts[name].strip() not in again
    ]
    if build:
        commands.append(("npm", "run", build))
    for words in start.before:
        if not build or " ".join(words) not in again:
            direct = words[0] in {"npm", "yarn", "pnpm", "npx", "node"}
            commands.append(words if direct else ("npm", "exec", "--offline", "--", *words))
    return tuple(commands)


def _run(commands: tuple[tuple[str, ...], ...]) -> tuple[str, ...]:
    return tuple(run_lines([list(command)]) for command in commands)


def _told(workload: Workload, commands: tuple[tuple[str, ...], ...]) -> list[str]:
    """Return the words of the commands, and the text of the scripts that they call."""
    scripts = workload.manifest.scripts
    return [scripts.get(word, word) for command in commands for word in command]


def _without_modules(lock: Lock) -> tuple[str, ...]:
    folders = ("node_modules", *(f"{folder}/node_modules" for folder in lock.folders))
    return (quoted(["rm", "-rf", ".next/cache", *folders]),) if lock.packages else ()


def _shipped(workload: Workload, words: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the command of a build that brings all it needs, and the lines of shell that put it together."""
    target = f"/out/{_SHIPPED}"
    if words[1:2] == SELF_CONTAINED:
        return words, (f"mkdir -p {target}", f"mv .output {target}/.output")
    if workload.build and words[1:2] == (NEXT,) and next_output(workload.project) == _STANDALONE:
        # As the documents of Next.js ask: static files and public/ beside the standalone server.
        return ("node", "server.js"), (
            f"mv .next/standalone {target}",
            f"mkdir -p {target}/.next && mv .next/static {target}/.next/static",
            f"if [ -d public ]; then cp -a public {target}/; fi",
        )
    return words, ()


def _locked(packages: tuple[Pinned, ...]) -> tuple[str, ...]:
    """Return what must be found in the image: an optional package may rightly be missing."""
    return tuple(sorted({package.purl for package in packages if not package.optional}))


def _why(workload: Workload, commands: tuple[tuple[str, ...], ...]) -> str:
    built = f", built by `{' '.join(commands[-1])}`" if commands else ""
    return f"Node.js {workload.version}, because there is package.json{built}."


def _notes(workload: Workload, lock: Lock) -> tuple[str, ...]:
    notes = []
    weak = sum(package.digest.startswith("sha1:") for package in lock.packages)
    if weak:
        notes.append(f"{weak} packages of {lock.file} are named by SHA-1 only: make the lock anew for better hashes.")
    secret = [name for name in (".env", ".env.local") if workload.project.has(name)]
    if secret:
        notes.append(f"{secret[0]} is not put into the image: variables stand in score.yaml.")
    return tuple(notes)
