"""Python: packages from a lock file, the folder as it is, a command by convention."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from sekisho.errors import Refusal
from stages.build.compose import Runtime
from stages.build.language import SOURCE, Plan, Step, Take, Unlocked, Wheels
from stages.build.languages.python_django import Django, collect_environment, collect_script, find_django
from stages.build.languages.python_docs import plan_docs
from stages.build.languages.python_install_step import DEPENDENCIES, install_step
from stages.build.languages.python_packages import TOOL_LOCKS, UNLOCKED_FILES, Packages, find_packages
from stages.build.languages.python_project import FILE as PYPROJECT
from stages.build.languages.python_project import OwnStep, PyProject
from stages.build.languages.python_start import SERVERS, Start, find_start
from stages.build.languages.static_docs import find_docs
from stages.build.locks import Target
from stages.build.project import Project

NAME = "python"
APPLICATION = "app"
"""Folder of the application in the image."""
LEFT_OUT = (
    "**/__pycache__", "**/*.pyc", "**/.gitignore", "**/.gitattributes", ".github", ".venv", "venv", "node_modules",
    "**/.pytest_cache", "**/.mypy_cache", "**/.ruff_cache",
)  # fmt: skip
"""Of the workload's files, what no program reads."""

_MARKERS = (*TOOL_LOCKS, *UNLOCKED_FILES, "Pipfile", "setup.py", "setup.cfg", "manage.py")
_VERSION = re.compile(r"3\.[0-9]{1,3}(\.[0-9]{1,3})?")
_PIPENV = re.compile(
    r"^python_(?:full_)?version[ \t]{0,9}=[ \t]{0,9}[\"'](3\.[0-9]{1,3})(?:\.[0-9]{1,3})?[\"']", re.MULTILINE
)


class Python:
    """Python workloads: web applications, and documentation sites that MkDocs or Sphinx makes."""

    name = NAME
    title = "Python"

    def recognise(self, project: Project) -> str:
        """Return the file that shows it, or an empty string."""
        found = next((name for name in _MARKERS if project.has(name)), "")
        if not found and project.has(PYPROJECT) and PyProject.read(project).is_python:
            found = PYPROJECT
        return found

    def plan(self, project: Project, offered: tuple[str, ...]) -> Plan | Unlocked:
        """Return what is to be done.

        Raises:
            Refusal: no Python that it takes is offered; a lock file or the Procfile is wrong.
        """
        settings = PyProject.read(project)
        target, notes = choose(project, settings, offered)
        django = find_django(project)
        docs = find_docs(project)
        if docs and isinstance(find_start(project, settings, django, SERVERS), Refusal):
            return plan_docs(project, docs, settings, target, notes)
        packages = find_packages(project, settings, target)
        if isinstance(packages, Unlocked):
            return packages
        start = find_start(project, settings, django, packages.names)
        steps = _steps(packages, django, settings.own_step)
        made = steps[-1].name if steps and steps[-1].name == "build" else ""
        plan = Plan(
            language=NAME,
            version=target.python,
            why=f"Python {target.python}, because there is {packages.file}.",
            runtime=_runtime(project, packages, start),
            takes=(
                *_dependencies(packages),
                Take("application", made or SOURCE, below="work" if made else "", into=APPLICATION, exclude=LEFT_OUT),
            ),
            artifacts=Wheels(packages.locked, target.python) if packages.locked else (),
            steps=steps,
            locked=tuple(item.purl for item in packages.locked),
            notes=(*notes, *packages.notes),
        )
        if isinstance(start, Refusal):
            return replace(plan, no_command=start)
        return replace(plan, why=f"{plan.why} {start.why}", notes=(*plan.notes, *start.notes))


def choose(project: Project, settings: PyProject, offered: tuple[str, ...]) -> tuple[Target, tuple[str, ...]]:
    """Return the Python to build for, and what people should know about the choice.

    Raises:
        Refusal: the workload takes none that is offered.
    """
    needs = settings.requires_python
    fit = [version for version in offered if not needs or Target(version).suits(needs)]
    if not fit:
        raise Refusal(
            f"The workload takes Python {needs[:60]}, offered is {', '.join(offered)}.",
            where=PYPROJECT,
            remedy="Widen requires-python, or ask the platform team for another Python.",
        )
    said = _said_version(project)
    if not said:
        return Target(fit[0]), ()
    asked = _minor(said)
    # The next higher one: packages and syntax of what is asked for are there as well, in a lower one they may not be.
    best = min((version for version in fit if _minor(version) >= asked), key=_minor, default=max(fit, key=_minor))
    notes = (f"Python {said} is asked for; it is built for {best}.",) if _minor(best) != asked else ()
    return Target(best), notes


def _said_version(project: Project) -> str:
    for name in (".python-version", "runtime.txt"):
        lines = (project.read(name, limit=1 << 16) or b"").decode("utf-8", "replace").splitlines()
        words = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
        text = words[0].removeprefix("python-").removeprefix("cpython-") if words else ""
        if _VERSION.fullmatch(text):
            return text
    # https://pipenv.pypa.io/en/latest/pipfile.html, [requires]
    found = _PIPENV.search((project.read("Pipfile", limit=1 << 20) or b"").decode("utf-8", "replace"))
    return found[1] if found else ""


def _minor(version: str) -> int:
    return int(version.split(".")[1])


def _steps(packages: Packages, django: Django | None, own: OwnStep) -> tuple[Step, ...]:
    install = (install_step(),) if packages.locked else ()
    uses = tuple(step.name for step in install)
    folders = [f"/in/dependencies/{DEPENDENCIES}"] if install else []
    script = collect_script(django, own) if django else ""
    environment: dict[str, str] = dict(collect_environment(django)) if django and script else {}
    if own.command and script:
        command: tuple[str, ...] = ("/bin/sh", "-eu", "-c", f'"$@"\n{script}', "build", *own.command)
    else:
        command = own.command or (("/bin/sh", "-eu", "-c", script) if script else ())
    if not command:
        return install
    build = Step(
        name="build",
        command=command,
        directory="work",
        source=(),
        uses=uses,
        environment={**environment, "PYTHONPATH": ":".join(["/out/work/src", "/out/work", *folders])},
        what="build step of pyproject.toml" if own.command else "collection of Django's static files",
    )
    return (*install, build)


def _dependencies(packages: Packages) -> tuple[Take, ...]:
    if not packages.locked:
        return ()
    return (Take("dependencies", "dependencies", below=DEPENDENCIES, into=DEPENDENCIES),)


def _runtime(project: Project, packages: Packages, found: Start | Refusal) -> Runtime:
    start = found if isinstance(found, Start) else Start((), "")
    folder = start.folder
    top = f"/{APPLICATION}/{folder}" if folder else f"/{APPLICATION}"
    own = [f"{top}/src"] if project.has_folder(f"{folder}/src" if folder else "src") else []
    beside = [
        f"/{APPLICATION}/{name}{'/src' if project.has_folder(f'{name}/src') else ''}" for name in packages.folders
    ]
    environment: Mapping[str, str] = {
        "PATH": f"/{DEPENDENCIES}/bin:/usr/local/bin:/usr/bin:/bin",
        "PORT": "8080",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": ":".join([*own, top, *beside, f"/{DEPENDENCIES}"]),
        "PYTHONUNBUFFERED": "1",
        **start.environment,
    }
    return Runtime(command=start.command, directory=top, environment=environment)
