"""Documentation sites: made by a Python program from locked packages, served as files."""

from __future__ import annotations

from dataclasses import replace

from packaging.utils import canonicalize_name

from stages.build.compose import Runtime
from stages.build.language import Plan, Step, Take, Unlocked, Wheels
from stages.build.languages.python_install_step import DEPENDENCIES, install_step
from stages.build.languages.python_packages import HASHED, REQUIREMENTS, Packages, find_packages, unlocked
from stages.build.languages.python_project import FILE as PYPROJECT
from stages.build.languages.python_project import PyProject
from stages.build.languages.static_docs import Docs
from stages.build.locks import LOCK_COMMAND, MAX_BYTES, Target, parse_requirements
from stages.build.locks_tables import MAX_BYTES as MAX_TOOL_LOCK
from stages.build.locks_uv import FILE as UV
from stages.build.locks_uv import parse_uv_lock
from stages.build.project import Project

SITE = "srv/www"
"""Folder in the image that the standard image serves."""
_GROUPS = ("docs", "doc", "documentation", "dev-docs", "mkdocs", "sphinx")


def plan_docs(
    project: Project, docs: Docs, settings: PyProject, target: Target, notes: tuple[str, ...] = ()
) -> Plan | Unlocked:
    """Return what is to be done to make a documentation site.

    Raises:
        Refusal: nothing says which packages make it, or a lock file is not one.
    """
    packages = _packages(project, docs, settings, target)
    if isinstance(packages, Unlocked):
        return packages
    if docs.package not in packages.names:
        raise docs.no_packages()
    build = Step(
        name="build",
        command=docs.command("/out/site"),
        directory="work",
        source=(),
        uses=("dependencies",),
        environment={"PYTHONPATH": f"/out/work/src:/out/work:/in/dependencies/{DEPENDENCIES}"},
        what=f"{docs.title} build",
    )
    return Plan(
        language="static",
        version=target.python,
        why=f"Static site: {docs.title} makes it, because there is {docs.file}.",
        runtime=Runtime(command=(), directory="/", environment={}),
        takes=(Take("application", "build", below="site", into=SITE, exclude=("**/.doctrees", "**/.buildinfo*")),),
        artifacts=Wheels(packages.locked, target.python),
        steps=(install_step(), build),
        built_in="python",
        notes=(*notes, *docs.notes, *packages.notes),
    )


def _packages(project: Project, docs: Docs, settings: PyProject, target: Target) -> Packages | Unlocked:
    """Return the packages that make the site: those of a file or a group for the documentation, else all."""
    own = project.read(REQUIREMENTS, limit=MAX_BYTES) or b""
    if HASHED.search(own) and docs.package.encode() in own.lower():
        return find_packages(project, settings, target)
    place, group = _group(settings)
    lock = project.text(UV, limit=MAX_TOOL_LOCK)
    if lock is not None and group:
        workspace = parse_uv_lock(lock, project=settings.name, wanted=(), target=target, group=group)
        return Packages(workspace.packages, UV)
    if docs.requirements:
        data = project.read(docs.requirements, limit=MAX_BYTES) or b""
        if HASHED.search(data):
            return Packages(parse_requirements(data, where=docs.requirements, target=target), docs.requirements)
        command = LOCK_COMMAND.replace("requirements.in", docs.requirements)
        more = (PYPROJECT,) if docs.with_project and settings.table("project") else ()
        return unlocked(
            project, docs.requirements, target=target, remedy=f"Run: {command}", arguments=more
        )  # fmt: skip
    if group:
        words = ("--extra", group) if place == "extra" else ("--group", f"{PYPROJECT}:{group}")
        return unlocked(project, PYPROJECT, target=target, remedy="Run: uv lock", arguments=words)
    found = find_packages(project, settings, target)
    if isinstance(found, Unlocked) or docs.package in found.names:
        return found
    return replace(found, locked=())


def _group(settings: PyProject) -> tuple[str, str]:
    """Return the group or extra for the documentation, empty texts for none."""
    for place, table in (
        ("group", settings.table("dependency-groups")),
        ("extra", settings.table("project", "optional-dependencies")),
    ):
        for name in table:
            if canonicalize_name(name) in _GROUPS:
                return place, name
    return "", ""
