"""Which language is this? Decided by the names of a few files, and said with the reason.

One folder holds one workload in one language. What is not supported, or could be two things, is refused with what
to do about it; nothing is guessed.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sekisho.errors import Refusal

Language = Literal["python", "static"]

STATIC_FOLDERS = ("public", "site", "dist", ".")
"""Where a static site's index.html is looked for, in this order."""

_PYTHON = ("requirements.txt", "requirements.in", "setup.py", "setup.cfg", "Pipfile", "poetry.lock", "uv.lock")
_OTHERS: Mapping[str, str] = {
    "package.json": "Node.js",
    "go.mod": "Go",
    "Cargo.toml": "Rust",
    "pom.xml": "Java (Maven)",
    "build.gradle": "Java (Gradle)",
    "build.gradle.kts": "Java (Gradle)",
    "Gemfile": "Ruby",
    "composer.json": "PHP",
    "mix.exs": "Elixir",
    "global.json": ".NET",
}
_CONTAINER = ("Dockerfile", "Containerfile")
_TOML_LIMIT = 1 << 20


@dataclass(frozen=True)
class Detection:
    """What the workload is, and how that was seen."""

    language: Language
    why: str
    """One sentence, for people."""
    root: str = "."
    """static: the folder whose files are served, relative to the workload; with a build step, made by the step."""
    command: tuple[str, ...] = ()
    """The user's own build step, from pyproject.toml `[tool.sekisho.build] command`; empty for none."""


def detect(tree: Path) -> Detection:
    """Return the language of the workload in a folder.

    Raises:
        Refusal: none, several, or one that the line does not build; a build step that is not a list of strings.
    """
    where = tree.name
    project = _pyproject(tree)
    command, output = _build_step(project)
    found = _markers(tree, project)
    if len(found) > 1:
        seen = ", ".join(f"{name} ({language})" for language, name in found.items())
        raise Refusal(
            f"This folder is two things at once: {seen}.",
            where=where,
            remedy="Give each workload a folder of its own and register each as an app with its path.",
        )
    if "Python" in found:
        return Detection("python", f"Python, because there is {found['Python']}.", command=command)
    if found:
        language, name = next(iter(found.items()))
        raise Refusal(
            f"{language} ({name}) is not built here yet: the line builds Python and static sites.",
            where=where,
            remedy="Commit the built site in public/ without the sources, or ask the platform team for the language.",
        )
    if command and output:
        why = f"Static site: the build step in pyproject.toml makes {output}/."
        return Detection("static", why, root=output, command=command)
    for folder in STATIC_FOLDERS:
        index = tree / folder / "index.html"
        if not (tree / folder).is_symlink() and _is_file(index):
            shown = index.relative_to(tree)
            return Detection("static", f"Static site, because there is {shown}.", root=folder, command=command)
    raise _nothing(tree, where)


def _markers(tree: Path, project: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    python = [name for name in _PYTHON if _is_file(tree / name)]
    tool = project.get("tool")
    if "project" in project or "build-system" in project or (isinstance(tool, dict) and "poetry" in tool):
        python.append("pyproject.toml")
    if python:
        found["Python"] = python[0]
    for name, language in _OTHERS.items():
        if _is_file(tree / name):
            found.setdefault(language, name)
    return found


def _nothing(tree: Path, where: str) -> Refusal:
    remedy = "Add requirements.txt with hashes and a Procfile (Python), or public/index.html (a static site)."
    if any(_is_file(tree / name) for name in _CONTAINER):
        return Refusal("A Dockerfile is never run: the line makes images from source.", where=where, remedy=remedy)
    return Refusal("There is nothing here that the line knows how to build.", where=where, remedy=remedy)


def _build_step(project: Mapping[str, Any]) -> tuple[tuple[str, ...], str]:
    tool = project.get("tool")
    sekisho = tool.get("sekisho") if isinstance(tool, dict) else None
    step = sekisho.get("build") if isinstance(sekisho, dict) else None
    if step is None:
        return (), ""
    where = "pyproject.toml [tool.sekisho.build]"
    if not isinstance(step, dict) or set(step) - {"command", "output"}:
        raise Refusal("The build step may have `command` and `output`, nothing else.", where=where)
    command, output = step.get("command"), step.get("output", "")
    if not isinstance(command, list) or not command or not all(isinstance(word, str) and word for word in command):
        raise Refusal(
            "The build step's command is not a list of words.",
            where=where,
            remedy='Write it as a list, for example command = ["python", "-m", "tools.make_site"].',
        )
    if output not in ("", *(folder for folder in STATIC_FOLDERS if folder != ".")):
        raise Refusal(
            f"The build step's output is {str(output)[:40]!r}.", where=where, remedy="Use public, site or dist."
        )
    return tuple(command), output


def _pyproject(tree: Path) -> dict[str, Any]:
    path = tree / "pyproject.toml"
    if not _is_file(path):
        return {}
    try:
        with path.open("rb") as file:
            text = file.read(_TOML_LIMIT + 1)
        if len(text) > _TOML_LIMIT:
            raise Refusal("pyproject.toml is larger than 1 MiB.", where=str(path.name), remedy="Make it smaller.")
        return tomllib.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise Refusal(
            f"pyproject.toml cannot be read: {str(error)[:200]}", where="pyproject.toml", remedy="Correct the file."
        ) from error


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()
