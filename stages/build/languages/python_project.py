"""What a pyproject.toml says about a workload: its name, the packages it asks for, its scripts, a build step."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from packaging.requirements import Requirement

from sekisho.errors import Refusal
from stages.build.locks_poetry import Wanted
from stages.build.project import Project
from stages.build.strict_toml import read_toml

FILE = "pyproject.toml"
OUTPUTS = ("public", "site", "dist")
"""Folders that the workload's own build step may make a static site in."""

_LIMIT = 1 << 20
_WHERE_STEP = f"{FILE} [tool.sekisho.build]"


@dataclass(frozen=True)
class OwnStep:
    """The workload's own build step: `[tool.sekisho.build]`."""

    command: tuple[str, ...] = ()
    output: str = ""
    """A static site is made in this folder; empty: the step makes files for a program."""
    collectstatic: bool = True
    """Whether Django's collectstatic runs where it would."""


@dataclass(frozen=True)
class PyProject:
    """The tables of a pyproject.toml; empty where there is none."""

    tables: Mapping[str, Any]

    @classmethod
    def read(cls, project: Project) -> PyProject:
        """Return the file's tables.

        Raises:
            Refusal: it cannot be read, or is too large.
        """
        text = project.text(FILE, limit=_LIMIT)
        return cls(read_toml(text, file=FILE, remedy="Correct the file.") if text else {})

    def table(self, *path: str) -> Mapping[str, Any]:
        """Return a table, empty where it is missing or is no table."""
        value: Any = self.tables
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        return value if isinstance(value, dict) else {}

    @property
    def is_python(self) -> bool:
        """Whether it is about a Python project, not only about tools."""
        return bool(self.table("project") or self.table("build-system") or self.table("tool", "poetry"))

    @property
    def name(self) -> str:
        """Name of the project; empty if it has none."""
        found = self.table("project").get("name") or self.table("tool", "poetry").get("name")
        return found if isinstance(found, str) else ""

    @property
    def requires_python(self) -> str:
        """Which Pythons it takes, as a specifier; empty if it does not say."""
        said = self.table("project").get("requires-python")
        if isinstance(said, str):
            return said
        poetry = self.table("tool", "poetry", "dependencies").get("python")
        return _specifier(poetry) if isinstance(poetry, str) else ""

    @property
    def wanted(self) -> tuple[Wanted, ...]:
        """The packages that it asks for, without its extras and groups."""
        found = [wanted for item in self._list("dependencies") if (wanted := _wanted(item))]
        for name, value in self.table("tool", "poetry", "dependencies").items():
            if name.lower() == "python":
                continue
            # With a [project] table, Poetry's own only adds where a package comes from.
            if any(_same(name, one.name) for one in found):
                continue
            found += _of_poetry(name, value)
        return tuple(found)

    @property
    def asks(self) -> bool:
        """Whether packages may be asked for here: some are, or they are worked out by a build backend."""
        dynamic = self.table("project").get("dynamic")
        return bool(self.wanted) or (isinstance(dynamic, list) and "dependencies" in dynamic)

    @property
    def scripts(self) -> Mapping[str, str]:
        """Its console scripts: name and `module:function`."""
        found = {**self.table("tool", "poetry", "scripts"), **self.table("project", "scripts")}
        return {name: value for name, value in found.items() if isinstance(value, str)}

    @property
    def own_step(self) -> OwnStep:
        """The workload's own build step.

        Raises:
            Refusal: it is not written as it must be.
        """
        return _own_step(self.tables)

    def _list(self, key: str) -> list[str]:
        found = self.table("project").get(key)
        return [item for item in found if isinstance(item, str)] if isinstance(found, list) else []


def _wanted(text: str) -> Wanted | None:
    try:
        found = Requirement(text)
    except (ValueError, RecursionError):  # no requirement, or one with numbers or parentheses that nobody writes
        return None
    return Wanted(found.name, tuple(sorted(found.extras)), str(found.marker or ""))


def _of_poetry(name: str, value: Any) -> list[Wanted]:
    edges = [edge for edge in (value if isinstance(value, list) else [value]) if isinstance(edge, dict)]
    if not edges:
        return [Wanted(name)]
    return [
        Wanted(name, _texts(edge.get("extras")), str(edge.get("markers", "")))
        for edge in edges
        if edge.get("optional") is not True
    ]


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()


def _same(name: str, other: str) -> bool:
    return re.sub(r"[-_.]+", "-", name).lower() == re.sub(r"[-_.]+", "-", other).lower()


def _specifier(text: str) -> str:
    """Return Poetry's way to say a range as a specifier (PEP 440); what is not understood forbids nothing."""
    parts = [part.strip() for part in text.split(",")]
    found: list[str] = []
    for part in parts:
        match = re.fullmatch(r"([\^~])\s*(\d{1,9})(?:\.(\d{1,9}))?(?:\.\d{1,9})*", part)
        if match is None:
            found.append(part if part[:1] in "<>=!" else "")
        elif match[1] == "^":
            found.append(f">={part[1:].strip()},<{int(match[2]) + 1}")
        else:
            upper = f"{match[2]}.{int(match[3]) + 1}" if match[3] else str(int(match[2]) + 1)
            found.append(f">={part[1:].strip()},<{upper}")
    return ",".join(part for part in found if part)


def _own_step(tables: Mapping[str, Any]) -> OwnStep:
    tool = tables.get("tool")
    sekisho = tool.get("sekisho") if isinstance(tool, dict) else None
    step = sekisho.get("build") if isinstance(sekisho, dict) else None
    if step is None:
        return OwnStep()
    if not isinstance(step, dict) or set(step) - {"command", "output", "collectstatic"}:
        raise Refusal(
            "The build step may have `command`, `output` and `collectstatic`, nothing else.",
            where=_WHERE_STEP,
            remedy="Remove the other keys.",
        )
    command, output, collects = step.get("command", []), step.get("output", ""), step.get("collectstatic", True)
    if not isinstance(command, list) or not all(isinstance(word, str) and word for word in command):
        raise Refusal(
            "The build step's command is not a list of words.",
            where=_WHERE_STEP,
            remedy='Write it as a list, for example command = ["python3", "-m", "tools.make_site"].',
        )
    if not command and "collectstatic" not in step:
        raise Refusal("The build step has no command.", where=_WHERE_STEP, remedy="Name one, as a list of words.")
    if output not in ("", *OUTPUTS) or (output and not command):
        raise Refusal(
            f"The build step's output is {str(output)[:40]!r}.",
            where=_WHERE_STEP,
            remedy=f"Use {', '.join(OUTPUTS)}, with a command that makes it.",
        )
    if not isinstance(collects, bool):
        raise Refusal("collectstatic is neither true nor false.", where=_WHERE_STEP, remedy="Write false.")
    return OwnStep(tuple(command), output, collects)
