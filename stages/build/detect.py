"""Which language is this? Decided by the names of a few files, and said with the reason.

One folder holds one workload in one language. The rules, in this order:

1. score.yaml may say it: `metadata.annotations: {build.sekisho.dev/language: go}`.
2. A static site is only what nothing else is: an index.html beside a program belongs to the program.
3. Where a Procfile's `web` line names a program of one of the languages seen (`gunicorn`, `node`, `java`), it decides.
4. A package.json beside another language is a helper, for style sheets and linters, unless it starts a server: it has
   no `start` script. A helper is said, and not built.
5. Still two: refused with both named. Nothing is guessed.

What is not built here (Ruby, PHP, …) counts in these rules as well, and is then refused by its name.
"""

from __future__ import annotations

import json
import shlex
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sekisho.errors import Refusal
from stages.build.language import Language
from stages.build.languages import LANGUAGES
from stages.build.procfile import web_lines
from stages.build.project import Project
from stages.build.scores import MAX_BYTES, SCORE, annotation

ANNOTATION = "build.sekisho.dev/language"
"""In score.yaml's metadata.annotations: the language, where a folder looks like two."""

_STATIC, _NODE = "static", "node"
_UNKNOWN: Mapping[str, str] = {
    "Gemfile": "Ruby",
    "composer.json": "PHP",
    "mix.exs": "Elixir",
    "deno.json": "Deno",
    "global.json": ".NET",
    "Package.swift": "Swift",
    "build.sbt": "Scala",
    "project.clj": "Clojure",
    "rebar.config": "Erlang",
    "stack.yaml": "Haskell",
    "pubspec.yaml": "Dart",
}
_UNKNOWN_PATTERNS: Mapping[str, str] = {"*.csproj": ".NET", "*.sln": ".NET", "*.fsproj": ".NET"}
_CONTAINER = ("Dockerfile", "Containerfile", "docker-compose.yml", "compose.yaml")
_PROGRAMS: Mapping[str, str] = {
    "python": "python", "python3": "python", "gunicorn": "python", "uvicorn": "python", "hypercorn": "python",
    "daphne": "python", "waitress-serve": "python", "flask": "python", "uwsgi": "python", "granian": "python",
    "node": "node", "npm": "node", "npx": "node", "yarn": "node", "pnpm": "node",
    "java": "java",
    "bundle": "Ruby", "rails": "Ruby", "puma": "Ruby", "rackup": "Ruby",
    "php": "PHP", "heroku-php-apache2": "PHP", "heroku-php-nginx": "PHP",
}  # fmt: skip
_DEPTH = 3
"""Folders below the top in which workloads are looked for, to name them when there is nothing at the top."""
_SHOWN = 6
_MAX_LOOKS = 200
"""Folders that are looked into for that."""
_SKIPPED = frozenset({"node_modules", "vendor", "target", "dist", "build", "docs", "test", "tests", "examples"})


@dataclass(frozen=True)
class Detection:
    """What the workload is, and how that was seen."""

    language: Language
    marker: str
    """The file that shows it."""
    notes: tuple[str, ...] = ()
    """What else was seen and does not count, for people."""

    @property
    def why(self) -> str:
        """One sentence for people."""
        return f"{self.language.title}, because there is {self.marker}."


def detect(project: Project, languages: Sequence[Language] = LANGUAGES) -> Detection:
    """Return the language of a workload.

    Raises:
        Refusal: none, several, or one that the line does not build; says which and the remedy.
    """
    known = {language.name: language for language in languages}
    found = _seen(project, languages)
    notes: list[str] = []
    chosen = _annotated(project, known)
    if chosen:
        if chosen not in found:
            raise Refusal(
                f"score.yaml says that this is {known[chosen].title}, and no file here shows that.",
                where=project.name,
                remedy=f"Correct the annotation {ANNOTATION}, or add what {known[chosen].title} needs.",
            )
        notes += [f"{marker} ({_title(name, known)}) is not built: score.yaml says {known[chosen].title}."
                  for name, marker in found.items() if name != chosen]  # fmt: skip
    else:
        chosen = _decide(project, found, known, notes)
    if not chosen:
        raise _nothing(project, languages)
    if chosen not in known:
        raise Refusal(
            f"{chosen} ({found[chosen]}) is not built here: the line builds "
            f"{', '.join(language.title for language in languages)}.",
            where=project.name,
            remedy="Ask the platform team for the language, or give the workload one of these.",
        )
    return Detection(known[chosen], found[chosen], tuple(notes))


def _decide(project: Project, found: Mapping[str, str], known: Mapping[str, Language], notes: list[str]) -> str:
    """Return the one language that counts, empty for none; what does not count is noted."""
    left = {name: marker for name, marker in found.items() if name != _STATIC} or dict(found)
    if len(left) > 1:
        started = _procfile_language(project)
        if started in left:
            notes += [f"{marker} ({_title(name, known)}) is not built: the Procfile starts {_title(started, known)}."
                      for name, marker in left.items() if name != started]  # fmt: skip
            return started
    if len(left) > 1 and _NODE in left and not _starts(project):
        notes.append(f"{left.pop(_NODE)} has no start script: it counts as a helper and is not built.")
    if len(left) > 1:
        seen = ", ".join(f"{marker} ({_title(name, known)})" for name, marker in left.items())
        raise Refusal(
            f"This folder is two things at once: {seen}.",
            where=project.name,
            remedy=f"Say which in score.yaml, metadata.annotations: {{{ANNOTATION}: {min(left)}}}; "
            "or give each workload a folder of its own with its own score.yaml.",
        )
    return next(iter(left), "")


def _seen(project: Project, languages: Sequence[Language]) -> dict[str, str]:
    found = {language.name: marker for language in languages if (marker := language.recognise(project))}
    for marker, title in _UNKNOWN.items():
        if project.has(marker):
            found.setdefault(title, marker)
    for pattern, title in _UNKNOWN_PATTERNS.items():
        for path in project.files(pattern):
            if "/" not in path:
                found.setdefault(title, path)
    return found


def _title(name: str, known: Mapping[str, Language]) -> str:
    return known[name].title if name in known else name


def _annotated(project: Project, known: Mapping[str, Language]) -> str:
    """Return what score.yaml says; whether that file is valid is for the render stage to say."""
    data = project.read(SCORE, limit=MAX_BYTES) or b""
    value = annotation(data, ANNOTATION) if ANNOTATION.encode() in data else None
    if value is None:
        return ""
    if not isinstance(value, str) or value not in known:
        raise Refusal(
            f"The annotation {ANNOTATION} says {str(value)[:40]!r}.",
            where=SCORE,
            remedy=f"Use one of: {', '.join(known)}.",
        )
    return value


def _procfile_language(project: Project) -> str:
    command = next((web.command for web in web_lines(project) if web.command), "")
    try:
        words = shlex.split(command)
    except ValueError:
        return ""
    program = next((word for word in words if "=" not in word), "").rpartition("/")[2]
    return _PROGRAMS.get(program, "")


def _starts(project: Project) -> bool:
    """Return whether package.json starts a server of its own."""
    try:
        scripts = json.loads(project.read("package.json") or b"{}").get("scripts")
    except (ValueError, AttributeError, RecursionError):
        return True  # what cannot be read is not waved through as a helper
    return isinstance(scripts, dict) and bool(scripts.get("start"))


def _nothing(project: Project, languages: Sequence[Language]) -> Refusal:
    where = project.name
    titles = ", ".join(language.title for language in languages)
    if not any(True for _ in project.root.iterdir()) and not project.overlay:
        return Refusal("There are no files here.", where=where, remedy="Commit the workload.")
    below = _below(project, languages)
    if below:
        shown = ", ".join(f"{folder} ({title})" for folder, title in below[:_SHOWN])
        more = f" and {len(below) - _SHOWN} more" if len(below) > _SHOWN else ""
        return Refusal(
            f"There is nothing to build at the top; workloads seem to be in: {shown}{more}.",
            where=where,
            remedy="Put score.yaml into the workload's folder; the app builds from where the score.yaml "
            "with its name stands.",
        )
    if any(project.has(name) for name in _CONTAINER):
        return Refusal(
            "A Dockerfile is never run: the line makes images from source.",
            where=where,
            remedy=f"Add what shows the language: the line builds {titles}.",
        )
    return Refusal(
        "There is nothing here that the line knows how to build.",
        where=where,
        remedy=f"It builds {titles}: add requirements.txt, package.json, go.mod, Cargo.toml, pom.xml or index.html.",
    )


def _is_workload(language: Language, project: Project) -> bool:
    """Tell whether a folder somewhere below looks like a workload: a page alone may be a template."""
    marker = language.recognise(project)
    return bool(marker) and not (language.name == _STATIC and marker == "index.html")


def _below(project: Project, languages: Sequence[Language]) -> list[tuple[str, str]]:
    """Return folders that hold a workload, with its language; nothing below one that does."""
    found: list[tuple[str, str]] = []
    todo = deque([(project.root, "", 0)])
    looks = 0
    while todo:
        folder, prefix, depth = todo.popleft()
        for path in sorted(folder.iterdir()):
            if path.is_symlink() or not path.is_dir() or path.name.startswith(".") or path.name in _SKIPPED:
                continue
            looks += 1
            if looks > _MAX_LOOKS:
                return found
            name = f"{prefix}{path.name}"
            inner = Project(path)
            seen = next((language.title for language in languages if _is_workload(language, inner)), "")
            if seen:
                found.append((name, seen))
            elif depth + 1 < _DEPTH:
                todo.append((path, f"{name}/", depth + 1))
    return found
