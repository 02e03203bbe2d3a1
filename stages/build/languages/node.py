"""Node.js: package.json, a lock file, the workload's own build script; a server, or a site that a build makes."""

from __future__ import annotations

from sekisho.errors import Refusal
from stages.build.language import Plan, Unlocked
from stages.build.languages.node_lock import find_lock, no_packages, read_lock, unlocked
from stages.build.languages.node_manifest import MANIFEST, choose_version, read_manifest
from stages.build.languages.node_plan import Workload, plain_site, server, site
from stages.build.languages.node_start import REMEDY, Reader, Start, programs_of
from stages.build.languages.node_tools import framework_start, next_output, serves_requests, site_of
from stages.build.locks_npm import OldLock
from stages.build.procfile import PROCFILE, web_lines
from stages.build.project import Project

_BUILD_SCRIPTS = ("build", "heroku-postbuild", "docs:build", "build:docs", "generate")
_START_SCRIPTS = ("start:prod", "start:production", "start")
_MAIN = ("server.js", "app.js", "index.js", "server.mjs", "index.mjs", "src/index.js", "src/server.js", "src/app.js")
_STATIC_FOLDERS = ("public", "site", "dist", "")


class Node:
    """Node.js."""

    name = "node"
    title = "Node.js"

    def recognise(self, project: Project) -> str:
        """Return the file that shows it."""
        return MANIFEST if project.has(MANIFEST) else ""

    def plan(self, project: Project, offered: tuple[str, ...]) -> Plan | Unlocked:
        """Return what is to be done."""
        manifest = read_manifest(project)
        version, notes = choose_version(project, manifest, offered)
        file, note = find_lock(project, manifest)
        try:
            lock = read_lock(project, manifest, file) if file else no_packages(manifest)
        except OldLock as old:
            return unlocked(project, manifest, version, old)
        if lock is None:
            return unlocked(project, manifest, version)
        build = next((name for name in _BUILD_SCRIPTS if name in manifest.scripts), "")
        workload = Workload(project, manifest, version, lock, build, (*notes, *filter(None, [note])))
        start, refused = _start(workload)
        if build and _makes_site(workload, start, refused):
            return site(workload)
        if start.words:
            return server(workload, start, None)
        framework = framework_start(manifest)
        if framework:
            return server(workload, Start(words=("node", *framework)), None)
        if not build and not refused:
            folder = next((item for item in _STATIC_FOLDERS if project.has(f"{item}/index.html".lstrip("/"))), None)
            if folder is not None:
                return plain_site(workload, folder)
        return server(workload, start, refused or _no_command(start))


def _start(workload: Workload) -> tuple[Start, Refusal | None]:
    """Return how it starts, and why that cannot be told where it cannot."""
    project, manifest = workload.project, workload.manifest
    packages = workload.lock.packages
    reader = Reader(
        manifest.scripts,
        programs_of(packages, listed=workload.lock.programs),
        production=frozenset(manifest.dependencies),
        development=frozenset(manifest.dev_dependencies),
    )
    try:
        lines = [web.command for web in web_lines(project) if web.command]
        if len(lines) == 1:
            return reader.command(lines[0], where=PROCFILE), None
        named = next((name for name in _START_SCRIPTS if name in manifest.scripts), "")
        if named:
            return _existing(workload, reader.script(named)), None
    except Refusal as error:
        return Start(), error
    candidates = (manifest.text("main").removeprefix("./"), *_MAIN)
    for file in candidates:
        if file.endswith((".js", ".mjs", ".cjs")) and project.has(file) and not framework_start(manifest):
            return Start(words=("node", file), notes=(f"package.json has no start script: {file} is started.",)), None
    return Start(), None


def _existing(workload: Workload, start: Start) -> Start:
    """Refuse a start script that names a file nobody makes."""
    file = next((word for word in start.words[1:] if word.endswith((".js", ".mjs", ".cjs"))), "")
    made = workload.build or start.before or file.startswith("node_modules/")
    if file and not made and not workload.project.has(file.removeprefix("./")):
        raise Refusal(
            f"The start script runs {file}, which is not in the repository, and there is no build script.",
            where="package.json (`scripts.start`)",
            remedy="Commit the file, or make it in `scripts.build`.",
        )
    return start


def _no_command(start: Start) -> Refusal:
    what = f"`{start.develops}` of the start script is a server for development" if start.develops else (
        "package.json has no start script, and there is no server.js or index.js")  # fmt: skip
    return Refusal(f"{what}: nothing says how the workload starts.", where=MANIFEST, remedy=REMEDY)


def _makes_site(workload: Workload, start: Start, refused: Refusal | None) -> bool:
    """Return whether what the build makes is all there is: files, and no program that answers requests."""
    manifest = workload.manifest
    if next_output(workload.project) == "export":
        return True
    if start.words or framework_start(manifest) or serves_requests(manifest):
        return False
    return refused is None or site_of(manifest).known
