"""Documentation sites that a Python program makes from sources: MkDocs and Sphinx, found by their own conventions.

Read the Docs' file (https://docs.readthedocs.io/en/stable/config-file/v2.html) says where both keep their things; it
is honoured where it is there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from sekisho.errors import Refusal
from stages.build.project import Project
from stages.build.scores import read_mapping

_READTHEDOCS = (".readthedocs.yaml", ".readthedocs.yml")
_MKDOCS = ("mkdocs.yml", "mkdocs.yaml")
_SPHINX = ("docs/conf.py", "docs/source/conf.py", "doc/conf.py", "doc/source/conf.py", "source/conf.py", "conf.py")
_REQUIREMENTS = (
    "docs/requirements.txt", "doc/requirements.txt", "requirements-docs.txt", "docs-requirements.txt",
    "requirements/docs.txt", "docs/requirements.in",
)  # fmt: skip
_OTHERS: Mapping[str, tuple[str, ...]] = {
    "Hugo": ("hugo.toml", "hugo.yaml", "hugo.json", "config/_default/hugo.toml"),
    "Jekyll": ("_config.yml", "_config.yaml"),
    "Zola": ("config.toml",),
    "mdBook": ("book.toml",),
}
_LIMIT = 1 << 20
_STRICT = re.compile(rb"^strict:[ \t]*true\b", re.MULTILINE)


@dataclass(frozen=True)
class Docs:
    """A documentation site."""

    title: str
    package: str
    """What must be among the packages."""
    file: str
    """Its settings."""
    requirements: str = ""
    """File that says which packages make it; empty for that of the workload."""
    strict: bool = False
    """Whether its settings make every warning an error."""
    with_project: bool = False
    """Whether the workload itself is needed as a package, with what it asks for."""
    notes: tuple[str, ...] = ()
    """What is to be said of how it was found."""

    def no_packages(self) -> Refusal:
        """Return the refusal where nothing locks the program that makes the site."""
        return Refusal(
            f"{self.file} is for {self.title}, and {self.package} is not among the packages.",
            where=self.file,
            remedy=f"Write {self.package} and its themes and plugins into docs/requirements.txt.",
        )

    def command(self, output: str) -> tuple[str, ...]:
        """Return the command that makes the site in a folder."""
        if self.package == "mkdocs":
            # Without network, other sites' inventories cannot be read: a warning, and no reason to make no site.
            lenient = ("--no-strict",) if self.strict else ()
            return ("python3", "-m", "mkdocs", "build", "--clean", *lenient, "--config-file", self.file,
                    "--site-dir", output)  # fmt: skip
        folder = str(PurePosixPath(self.file).parent)
        # -E -d: no left-over of another run, and its own notes stay out of the site.
        return ("python3", "-m", "sphinx", "-b", "html", "-E", "-d", "/tmp/doctrees", folder, output)  # noqa: S108


def find_docs(project: Project) -> Docs | None:
    """Return the documentation site of a workload, None for none."""
    said, notes = _readthedocs(project)
    installs = _installs(said)
    requirements = next((name for item in installs if (name := _known(item.get("requirements"), project))), "")
    requirements = requirements or next((name for name in _REQUIREMENTS if project.has(name)), "")
    whole = any(item.get("path") in (".", "./") for item in installs)
    mkdocs = _named(said, "mkdocs", project) or next((name for name in _MKDOCS if project.has(name)), "")
    if mkdocs:
        text = project.read(mkdocs, limit=_LIMIT) or b""
        return Docs("MkDocs", "mkdocs", mkdocs, requirements, _STRICT.search(text) is not None, whole, notes)
    sphinx = _named(said, "sphinx", project) or next((name for name in _SPHINX if _is_sphinx(project, name)), "")
    return Docs("Sphinx", "sphinx", sphinx, requirements, with_project=whole, notes=notes) if sphinx else None


def other_generator(project: Project) -> str:
    """Return the settings of a generator that is known and cannot be run, empty for none."""
    for title, names in _OTHERS.items():
        found = next((name for name in names if project.has(name)), "")
        if found and (title != "Zola" or project.has_folder("templates") or project.has_folder("content")):
            return found
    return ""


def _is_sphinx(project: Project, name: str) -> bool:
    data = project.read(name, limit=_LIMIT) if project.has(name) else None
    return data is not None and (b"extensions" in data or b"html_theme" in data or b"project" in data)


def _readthedocs(project: Project) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """Return what the file says, and the note that it does not count."""
    name = next((name for name in _READTHEDOCS if project.has(name)), "")
    said = read_mapping(project.read(name, limit=_LIMIT) or b"", name) if name else {}
    if name and not said:
        return {}, (f"{name} does not count: it is no mapping that can be read without anchors, aliases and tags.",)
    return said, ()


def _named(said: Mapping[str, Any], tool: str, project: Project) -> str:
    table = said.get(tool)
    return _known(table.get("configuration"), project) if isinstance(table, dict) else ""


def _installs(said: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    python = said.get("python")
    found = python.get("install") if isinstance(python, dict) else None
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def _known(name: Any, project: Project) -> str:
    return name if isinstance(name, str) and project.has(name) else ""
