"""Which packages a Python workload has locked, and in which of the ecosystem's lock files."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sekisho.errors import Refusal
from stages.build.language import Step, Unlocked
from stages.build.languages.python_project import FILE as PYPROJECT
from stages.build.languages.python_project import PyProject
from stages.build.locks import LOCK_COMMAND, MAX_BYTES, Locked, Target, missing_lock, parse_requirements
from stages.build.locks_plain import PDM, PIPFILE, PYLOCK, parse_pdm_lock, parse_pipfile_lock, parse_pylock
from stages.build.locks_poetry import FILE as POETRY
from stages.build.locks_poetry import parse_poetry_lock
from stages.build.locks_tables import MAX_BYTES as MAX_TOOL_LOCK
from stages.build.locks_uv import FILE as UV
from stages.build.locks_uv import parse_uv_lock
from stages.build.project import Project

REQUIREMENTS = "requirements.txt"
UNLOCKED_FILES = (REQUIREMENTS, "requirements.in", "requirements/production.txt", "requirements/prod.txt",
                  "requirements/base.txt")  # fmt: skip
"""Where ordinary workloads say what they want, in this order; setup.py and the like come after pyproject.toml."""
TOOL_LOCKS = (UV, PYLOCK, POETRY, PDM, PIPFILE)

_INDEX = "http://127.0.0.1:8001/pypi/simple/"
HASHED = re.compile(rb"--hash[= ]")
_SOMETHING = re.compile(rb"^[ \t]*[^\s#]", re.MULTILINE)
_RESOLVE = """\
out=$1
shift
uv pip compile --quiet --no-config --no-header --generate-hashes --no-emit-index-url --cache-dir /tmp/uv \
--default-index "$INDEX" --python /usr/bin/python3 --output-file /tmp/resolved.txt "$@"
# The workload itself is in the image as it is, not as a package.
sed -E '/^(-e |\\.|file:|[^ ]+ @ file:)/d' /tmp/resolved.txt > /tmp/own.txt
{ echo "# Resolved by the line: uv pip compile --generate-hashes $*"; cat /tmp/own.txt; } > "$out"
"""
_ELSEWHERE = re.compile(rb"^[ \t]*(?:-|\.|/|file:|[^\s#]+[ \t]*@)", re.MULTILINE)
"""A line of a requirements file that reads other files."""


@dataclass(frozen=True)
class Packages:
    """What is locked."""

    locked: tuple[Locked, ...]
    file: str
    """The lock file."""
    folders: tuple[str, ...] = ()
    """Folders of the workload's own packages beside its own."""
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> frozenset[str]:
        """Normalised names of the packages."""
        return frozenset(item.name for item in self.locked)


def find_packages(project: Project, settings: PyProject, target: Target) -> Packages | Unlocked:
    """Return what the workload has locked, or how it is resolved.

    Raises:
        Refusal: a lock file is not one, a file is not UTF-8, or nothing says which packages are wanted.
    """
    for name in UNLOCKED_FILES:
        project.text(name, limit=MAX_BYTES)  # PowerShell's `pip freeze >` writes UTF-16, which no tool reads
    data = project.read(REQUIREMENTS, limit=MAX_BYTES)
    if data is not None and HASHED.search(data):
        others = tuple(name for name in TOOL_LOCKS if project.has(name))
        notes = (f"{REQUIREMENTS} holds hashes: it is the lock, {others[0]} is not used.",) if others else ()
        return Packages(parse_requirements(data, where=REQUIREMENTS, target=target), REQUIREMENTS, (), notes)
    found = _of_tool(project, settings, target)
    if found is not None:
        return found
    asked = settings.asks or any(_says_something(project, name) for name in UNLOCKED_FILES)
    if data is not None and not asked:
        return Packages((), REQUIREMENTS)
    return _unlocked(project, settings, target)


def _of_tool(project: Project, settings: PyProject, target: Target) -> Packages | None:
    file = next((name for name in TOOL_LOCKS if project.has(name)), "")
    text = project.text(file, limit=MAX_TOOL_LOCK) if file else None
    if text is None:
        return None
    if file == UV:
        names = [wanted.name for wanted in settings.wanted]
        workspace = parse_uv_lock(text, project=settings.name, wanted=names, target=target)
        return Packages(workspace.packages, file, workspace.folders)
    if file == POETRY:
        return Packages(parse_poetry_lock(text, wanted=settings.wanted, target=target), file)
    parse = {PYLOCK: parse_pylock, PDM: parse_pdm_lock, PIPFILE: parse_pipfile_lock}[file]
    return Packages(parse(text, target=target), file)


def _unlocked(project: Project, settings: PyProject, target: Target) -> Unlocked:
    file = next((name for name in UNLOCKED_FILES if _says_something(project, name)), "")
    if not file and settings.is_python:
        file = PYPROJECT
    if not file:
        file = next((name for name in ("setup.py", "setup.cfg") if project.has(name)), "")
    if not file and project.has("Pipfile"):
        raise Refusal(
            "There is a Pipfile without its lock file.",
            where="Pipfile",
            remedy="Run: pipenv lock   and commit Pipfile.lock.",
        )
    if not file:
        raise missing_lock(project.name)
    command = LOCK_COMMAND.replace("requirements.in", file)
    if file == REQUIREMENTS:  # its own name is taken by the lock
        command = f"git mv {file} requirements.in && {LOCK_COMMAND}"
    if file == PYPROJECT and settings.table("tool", "uv"):
        command = "uv lock"
    elif file == PYPROJECT and settings.table("tool", "poetry"):
        command = "poetry lock"
    return unlocked(project, file, target=target, remedy=f"Run: {command}")


def unlocked(
    project: Project,
    file: str,
    *,
    target: Target,
    remedy: str,
    produces: str = REQUIREMENTS,
    arguments: tuple[str, ...] = (),
) -> Unlocked:
    """Return how packages that are not locked are resolved.

    Args:
        project: the workload.
        file: what says which packages are wanted.
        target: where they will run.
        remedy: the command that locks them.
        produces: name of the lock that is made.
        arguments: of the resolver, before the file.
    """
    step = Step(
        name="resolve",
        command=("/bin/sh", "-eu", "-c", _RESOLVE, "resolve", produces, *arguments, file),
        source=(),
        directory="work",
        environment={"INDEX": _INDEX, "UV_NO_PROGRESS": "1"},
        what=f"resolution of {file} for Python {target.python}",
    )
    return Unlocked(
        language="python",
        version=target.python,
        refusal=Refusal(
            f"{file} does not say which packages exactly belong in the image: there is no lock file with hashes.",
            where=file,
            remedy=remedy,
        ),
        step=step,
        ecosystems=("pypi",),
        produces=(produces,),
        decided_by=_decided_by(project, file),
    )


def _decided_by(project: Project, file: str) -> tuple[str, ...] | None:
    """Return the files that alone decide what is resolved, None where any file may."""
    if file == PYPROJECT:
        table = PyProject.read(project).table("project")
        return (file,) if table and not table.get("dynamic") else None
    if not file.endswith((".txt", ".in")):
        return None
    return None if _ELSEWHERE.search(project.read(file, limit=MAX_BYTES) or b"") else (file,)


def _says_something(project: Project, name: str) -> bool:
    data = project.read(name, limit=MAX_BYTES)
    return data is not None and _SOMETHING.search(data) is not None
