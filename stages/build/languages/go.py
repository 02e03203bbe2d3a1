"""Go: go.mod and go.sum, modules by hash, a static binary, and the files that it reads beside it."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping

from sekisho.errors import Refusal
from stages.build.compose import Runtime
from stages.build.language import SOURCE, Plan, Take, Unlocked
from stages.build.languages import go_steps
from stages.build.languages.go_check import check, check_modules, uncovered
from stages.build.languages.go_choice import Choice, choose
from stages.build.languages.go_files import beside
from stages.build.languages.go_mod import MOD, WORK
from stages.build.languages.go_tree import Reach, Tree
from stages.build.languages.go_workspace import VENDOR, Workspace, folders_of, read_workspace
from stages.build.locks_go import LOCK_COMMAND, LOCK_FILE
from stages.build.project import Project

PROGRAMS = "usr/local/bin"
"""Folder of the binaries in the image; not below the application's, so that no file of it can stand in for one."""
APPLICATION = "app"
"""Folder of the files that the program reads, in the image: its working directory."""

_SQLITE = "github.com/mattn/go-sqlite3"


class Go:
    """Workloads that the go command builds."""

    name = "go"
    title = "Go"

    def recognise(self, project: Project) -> str:
        """Return go.mod, go.work or main.go, whichever is there."""
        return next((name for name in (MOD, WORK, "main.go") if project.has(name)), "")

    def plan(self, project: Project, offered: tuple[str, ...]) -> Plan | Unlocked:
        """Return how the workload is built.

        Raises:
            Refusal: a module file is wrong, asks for what there is not, or the program cannot be built from what is
                committed.
        """
        workspace = read_workspace(project)
        version = _version(workspace, offered)
        environment = {"GOWORK": "" if workspace.work else "off"}
        tree = Tree(project, workspace.modules, _release(version)[1], workspace.required)
        choice = choose(project, tree)
        reach = tree.reach([*(program.folder for program in choice.programs),
                            *tree.packages_in(folders_of(workspace.modules))])  # fmt: skip
        check(tree, reach)
        locked = workspace.vendored or workspace.work is not None or project.has(LOCK_FILE)
        if not locked and (workspace.needs or uncovered(tree, reach)):
            return _unlocked(version, environment)
        check_modules(tree, reach)
        sums = None if workspace.vendored else workspace.sums()
        compiled = bool(reach.others)
        manifests = (*workspace.manifests, *((VENDOR,) if workspace.vendored else ()))
        steps = []
        if compiled:
            steps.append(
                go_steps.dependencies(tuple(reach.others), manifests, environment, packages=not workspace.vendored)
            )
        targets = [go_steps.Target(program.target, program.name) for program in choice.programs]
        steps.append(go_steps.build(targets, environment, kept=compiled))
        wanted = workspace.needs if workspace.complete else None
        return Plan(
            language=self.name,
            version=version,
            why=f"Go, because there is {self.recognise(project)}.",
            runtime=_runtime(choice),
            takes=_takes(tree, reach),
            artifacts=sums.artifacts(wanted) if sums is not None and compiled else (),
            steps=tuple(steps),
            listed_by=go_steps.BUILD,
            no_command=choice.refusal,
            notes=(*choice.notes, *_notes(workspace, project, choice, reach)),
        )


def _version(workspace: Workspace, offered: tuple[str, ...]) -> str:
    """Return the first version offered that is new enough: Go builds what was written for an older one."""
    newest = workspace.newest
    wanted = newest.go or (1, 0)
    for version in offered:
        if _release(version) >= wanted:
            return version
    raise Refusal(
        f"{newest.where} asks for Go {newest.go_text}, and offered is {', '.join(offered)}.",
        where=f"{newest.where}:{newest.go_line}",
        remedy=f"Write `go {offered[0]}` there (go mod edit -go={offered[0]}), or ask the platform team for it.",
    )


def _release(version: str) -> tuple[int, int]:
    major, minor, *_ = version.split(".")
    return int(major), int(minor)


def _unlocked(version: str, environment: Mapping[str, str]) -> Unlocked:
    return Unlocked(
        language=Go.name,
        version=version,
        refusal=Refusal(
            "There is no go.sum: nothing says which bytes the required modules have.",
            where=MOD,
            remedy=f"Run: {LOCK_COMMAND}; then commit go.mod and go.sum.",
        ),
        step=go_steps.resolution(environment),
        ecosystems=("go",),
        produces=(MOD, LOCK_FILE),
    )


def _runtime(choice: Choice) -> Runtime:
    path = "/usr/local/bin:/usr/bin:/bin"
    command = (f"/{PROGRAMS}/{choice.start.name}", *choice.arguments) if choice.start else ()
    return Runtime(command, f"/{APPLICATION}", {"PATH": path, **choice.environment})


def _takes(tree: Tree, reach: Reach) -> tuple[Take, ...]:
    takes = [Take("application", go_steps.BUILD, below=go_steps.PROGRAMS, into=PROGRAMS)]
    exclude, stays = beside(tree.files, reach.embedded)
    if stays:
        takes.append(Take("application", SOURCE, into=APPLICATION, exclude=exclude))
    return tuple(takes)


def _notes(workspace: Workspace, project: Project, choice: Choice, reach: Reach) -> tuple[str, ...]:
    notes = []
    if any(posixpath.join(program.folder, "default.pgo") in set(project.files("default.pgo"))
           for program in choice.programs):  # fmt: skip
        notes.append("default.pgo is not used: it would have the standard library compiled anew.")
    if _SQLITE in workspace.required and any(path == _SQLITE or "sqlite" in path for path in reach.others):
        notes.append(f"{_SQLITE} needs cgo and says so when it opens a file; modernc.org/sqlite works without.")
    return tuple(notes)
