"""Static sites: files, served by the standard image as it is."""

from __future__ import annotations

from sekisho.errors import Refusal
from stages.build.compose import Runtime
from stages.build.language import SOURCE, Plan, Step, Take, Unlocked
from stages.build.languages.python_docs import SITE, plan_docs
from stages.build.languages.python_project import OUTPUTS, PyProject
from stages.build.languages.static_docs import find_docs, other_generator
from stages.build.locks import Target
from stages.build.project import Project

__all__ = ["FOLDERS", "HIDDEN", "NAME", "SITE", "Static", "runtime"]

NAME = "static"
FOLDERS = ("public", "site", "dist", "docs", "_site", "")
"""Where index.html is looked for, in this order."""
HIDDEN = ("**/.env*", "**/.git*", "**/.ht*", "**/.DS_Store", "**/.idea", "**/.vscode", "**/.venv", "score.yaml")
"""Never served: files of tools, which may hold secrets, and the line's own file."""


def runtime() -> Runtime:
    """Return how a static site starts: as the standard image says."""
    return Runtime(command=(), directory="/", environment={})


class Static:
    """Static sites: an index.html that is there, or made by the workload's own build step."""

    name = NAME
    title = "static site"

    def recognise(self, project: Project) -> str:
        """Return the file that shows it, or an empty string."""
        folder = _folder(project)
        if folder is not None:
            return _index(folder)
        if project.has("pyproject.toml") and PyProject.read(project).own_step.output:
            return "pyproject.toml"
        docs = find_docs(project)
        return docs.file if docs else other_generator(project)

    def plan(self, project: Project, offered: tuple[str, ...]) -> Plan | Unlocked:
        """Return what is to be done.

        Raises:
            Refusal: the site is made by a program that is not there, or not known how to be run.
        """
        settings = PyProject.read(project)
        own = settings.own_step
        folder = own.output or _folder(project)
        if own.command and folder is not None:
            return _made(own.command, folder)
        if folder is not None:
            return Plan(
                language=NAME,
                version=offered[0],
                why=f"Static site, because there is {_index(folder)}.",
                runtime=runtime(),
                takes=(Take("application", SOURCE, below=folder, into=SITE, exclude=HIDDEN),),
            )
        docs = find_docs(project)
        if docs:
            return plan_docs(project, docs, settings, Target())
        raise _nothing(project)


def _made(command: tuple[str, ...], folder: str) -> Plan:
    """Return the plan of a site that the workload's own step makes, in the preferred Python's build image."""
    step = Step(name="build", command=command, directory="work", source=(), what="build step of pyproject.toml")
    below = f"work/{folder}" if folder else "work"
    return Plan(
        language=NAME,
        version="",
        why=f"Static site: the build step in pyproject.toml makes {_index(folder)}.",
        runtime=runtime(),
        takes=(Take("application", "build", below=below, into=SITE, exclude=HIDDEN),),
        steps=(step,),
        built_in="python",
    )


def _index(folder: str) -> str:
    return f"{folder}/index.html" if folder else "index.html"


def _folder(project: Project) -> str | None:
    return next((name for name in FOLDERS if project.has(_index(name))), None)


def _nothing(project: Project) -> Refusal:
    generator = other_generator(project)
    if generator:
        return Refusal(
            f"The site is made from {generator} by a program that is not among the standard images.",
            where=generator,
            remedy="Commit the made site in public/, or ask the platform team for the program.",
        )
    return Refusal(
        "There is no index.html.",
        where=project.name,
        remedy=f"Put the site into one of: {', '.join(OUTPUTS)}.",
    )
