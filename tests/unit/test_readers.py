"""What strangers wrote is read or refused, whatever stands there: no reader of a lock or manifest raises anything else.

The guard around planning is left out here on purpose: it is for what nobody foresaw, not a reader's own work.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
import reader_cases as cases

from sekisho.canonical import canonical
from sekisho.errors import Refusal
from sekisho.score.source import read_document
from stages.build.detect import detect
from stages.build.language import Language, Plan, Unlocked
from stages.build.languages.go import Go
from stages.build.languages.go_mod import WORK, parse_mod
from stages.build.languages.java import Java
from stages.build.languages.java_pom import parse_pom
from stages.build.languages.node import Node
from stages.build.languages.python import Python
from stages.build.languages.rust import Rust
from stages.build.languages.static import Static
from stages.build.locks import Target, parse_requirements
from stages.build.locks_cargo import parse_cargo_lock
from stages.build.locks_go import parse_go_sum
from stages.build.locks_maven import parse_maven_lock
from stages.build.locks_npm import parse_npm_lock
from stages.build.locks_plain import parse_pdm_lock, parse_pipfile_lock, parse_pylock
from stages.build.locks_pnpm import parse_pnpm_lock
from stages.build.locks_poetry import Wanted, parse_poetry_lock
from stages.build.locks_uv import parse_uv_lock
from stages.build.locks_yarn import parse_yarn_lock
from stages.build.planning import digest_of_plan
from stages.build.project import Project
from stages.judge import reasons_of

TARGET = Target("3.11")
WANTED = (Wanted("flask", ("a",), "os_name == 'posix'"),)
Spoil = Callable[[random.Random], str]


def of_json(value: Mapping[str, Any]) -> Spoil:
    return lambda chance: _either(cases.as_json, value, chance)


def of_toml(value: Mapping[str, Any]) -> Spoil:
    return lambda chance: _either(cases.as_toml, value, chance)


def of_text(text: str) -> Spoil:
    return lambda chance: cases.spoil_text(text, chance)


def _either(write: Callable[[Mapping[str, Any]], str], value: Mapping[str, Any], chance: random.Random) -> str:
    if chance.random() < 0.2:
        return cases.spoil_text(write(value), chance)
    return write(cases.spoil_value(value, chance))


READERS: Mapping[str, tuple[Spoil, Callable[[str], object]]] = {
    "npm": (of_json(cases.NPM), parse_npm_lock),
    "yarn": (of_text(cases.YARN), lambda text: parse_yarn_lock(text, {"left-pad": "1 || 2"}, registry="http://r/")),
    "pnpm": (of_text(cases.PNPM), parse_pnpm_lock),
    "requirements": (
        of_text(cases.REQUIREMENTS),
        lambda text: parse_requirements(text.encode("utf-8", "surrogatepass"), target=TARGET),
    ),
    "uv": (
        of_toml(cases.UV),
        lambda text: parse_uv_lock(text, project="shop", wanted=["flask"], target=TARGET, group="docs"),
    ),
    "poetry": (of_toml(cases.POETRY), lambda text: parse_poetry_lock(text, wanted=WANTED, target=TARGET)),
    "poetry-2": (of_toml(cases.POETRY_2), lambda text: parse_poetry_lock(text, wanted=(), target=TARGET)),
    "pdm": (of_toml(cases.PDM), lambda text: parse_pdm_lock(text, target=TARGET)),
    "pylock": (of_toml(cases.PYLOCK), lambda text: parse_pylock(text, target=TARGET)),
    "pipfile": (of_json(cases.PIPFILE), lambda text: parse_pipfile_lock(text, target=TARGET)),
    "cargo": (of_toml(cases.CARGO_LOCK), parse_cargo_lock),
    "go.sum": (of_text(cases.GO_SUM), lambda text: parse_go_sum(("go.sum", text))),
    "go.mod": (of_text(cases.GO_MOD), lambda text: parse_mod(text, where="go.mod")),
    "go.work": (of_text(cases.GO_WORK), lambda text: parse_mod(text, where=WORK, kind=WORK)),
    "maven": (of_json(cases.MAVEN), parse_maven_lock),
    "pom": (of_text(cases.POM), lambda text: parse_pom(text.encode())),
    "score": (of_json(cases.SCORE), lambda text: read_document(text.encode(), "score.yaml")),
}
"""By name: what spoils its file, and the reader."""

Files = Mapping[str, Spoil]
FLASK: Files = {"app.py": of_text(cases.FLASK), ".flaskenv": of_text("export FLASK_APP='app.py'\n")}
WORKLOADS: Mapping[str, tuple[Language, Files]] = {
    "rust": (Rust(), {
        "Cargo.toml": of_toml(cases.CARGO), "Cargo.lock": of_toml(cases.CARGO_LOCK),
        "rust-toolchain.toml": of_toml(cases.TOOLCHAIN), ".cargo/config.toml": of_toml(cases.CARGO_CONFIG),
        "crates/own/Cargo.toml": of_toml({"package": {"name": "own"}, "lib": {}, "patch": {}, "workspace": {}}),
        "src/main.rs": of_text("fn main() {}"),
    }),
    "rust-toolchain": (Rust(), {"Cargo.toml": of_toml({"package": {"name": "x"}, "bin": [{"name": "x"}]}),
                                "rust-toolchain": of_text("1.80.1\n")}),
    "python-uv": (Python(), {"pyproject.toml": of_toml(cases.PYPROJECT), "uv.lock": of_toml(cases.UV), **FLASK,
                             "Procfile": of_text(cases.PROCFILE), ".python-version": of_text("3.11.2\n")}),
    "python-poetry": (Python(), {"pyproject.toml": of_toml(cases.PYPROJECT), "poetry.lock": of_toml(cases.POETRY),
                                 **FLASK}),
    "django": (Python(), {"requirements.txt": of_text(cases.REQUIREMENTS), "manage.py": of_text(cases.MANAGE),
                          "site/settings.py": of_text(cases.SETTINGS), "site/wsgi.py": of_text(cases.MANAGE)}),
    "unlocked": (Python(), {"pyproject.toml": of_toml(cases.PYPROJECT), **FLASK}),
    "docs": (Static(), {"pyproject.toml": of_toml(cases.PYPROJECT), "mkdocs.yml": of_text("strict: true\n"),
                        ".readthedocs.yaml": of_text(cases.READTHEDOCS), "docs/requirements.txt": of_text("mkdocs\n")}),
    "node": (Node(), {"package.json": of_json(cases.PACKAGE), "package-lock.json": of_json(cases.NPM),
                      "packages/w/package.json": of_json(cases.PACKAGE), "server.js": of_text("x"),
                      "Procfile": of_text("web: node server.js\n"), ".nvmrc": of_text("lts/iron\n"),
                      ".npmrc": of_text("legacy-peer-deps = true\n"), "angular.json": of_json(cases.ANGULAR)}),
    "node-scripts": (Node(), {"package.json": of_json({key: cases.PACKAGE[key] for key in ("scripts", "main")}),
                              "next.config.js": of_text("output: 'export'\n"), "index.html": of_text("x")}),
    "node-unlocked": (Node(), {"package.json": of_json(cases.PACKAGE)}),
    "yarn": (Node(), {"package.json": of_json({**cases.PACKAGE, "devDependencies": {}, "workspaces": []}),
                      "yarn.lock": of_text(cases.YARN)}),
    "pnpm": (Node(), {"package.json": of_json({**cases.PACKAGE, "devDependencies": {}}),
                      "pnpm-lock.yaml": of_text(cases.PNPM), "packages/w/package.json": of_json(cases.PACKAGE),
                      ".npmrc": of_text("shamefully-hoist=true\n")}),
    "go": (Go(), {"go.mod": of_text(cases.GO_MOD), "go.sum": of_text(cases.GO_SUM), "main.go": of_text(cases.GO_MAIN),
                  "own/go.mod": of_text("module example.com/own\n"), "own/own.go": of_text("package own\n"),
                  "inner/inner.go": of_text(cases.GO_MAIN), "Procfile": of_text("web: A=1 shop -x\n"),
                  "templates/a.html": of_text("x"), "static/a": of_text("x"), "xa": of_text("x"),
                  "score.yaml": of_json(cases.SCORE)}),
    "go-work": (Go(), {"go.mod": of_text(cases.GO_MOD), "go.work": of_text(cases.GO_WORK),
                       "go.sum": of_text(cases.GO_SUM), "cmd/shop/main.go": of_text(cases.GO_MAIN),
                       "own/go.mod": of_text("module example.com/own\n"), "own/own.go": of_text("package own\n")}),
    "java": (Java(), {"pom.xml": of_text(cases.POM), "web/pom.xml": of_text(cases.POM.replace("<module>web", "<m>")),
                      "maven.lock.json": of_json(cases.MAVEN), "Procfile": of_text("web: java -jar x.jar\n")}),
}  # fmt: skip
"""By name: a language, and a workload's files, one of which is spoiled each time; the others are as they should be."""
OFFERED: Mapping[str, tuple[str, ...]] = {
    "rust": ("1.85",), "python": ("3.11", "3.13"), "node": ("24", "22"), "go": ("1.27",), "java": ("25", "21"),
    "static": ("1",),
}  # fmt: skip


def refused_well(refusal: Refusal) -> None:
    """A refusal is written down and shown: its texts are Unicode, and say something."""
    assert refusal.what
    for reason in reasons_of(refusal, "build"):
        assert len(canonical(reason.model_dump(mode="json"))) < 50_000


def planned_well(plan: Plan | Unlocked) -> None:
    """A plan is found again by its digest, and its sentences are written down."""
    if isinstance(plan, Plan):
        digest_of_plan(plan)
        canonical([plan.why, list(plan.notes)])
    else:
        refused_well(plan.refusal)


def read_spoiled(name: str, seed: int) -> None:
    spoil, read = READERS[name]
    text = spoil(random.Random(crc32(name.encode()) + seed))  # noqa: S311  (a test's, by seed)
    try:
        read(text)
    except Refusal as refusal:
        refused_well(refusal)


def plan_spoiled(folder: Path, name: str, seed: int) -> None:
    language, files = WORKLOADS[name]
    chance = random.Random(crc32(name.encode()) + seed)  # noqa: S311  (a test's, by seed)
    spoiled = chance.choice(list(files))
    overlay = {path: WHOLE[name][path] for path in files}
    overlay[spoiled] = files[spoiled](chance).encode("utf-8", "replace")
    project = Project(folder, overlay)
    try:
        language.recognise(project)
        planned_well(language.plan(project, OFFERED[language.name]))
    except Refusal as refusal:
        refused_well(refusal)


def _whole(spoil: Spoil) -> bytes:
    """Return the example that a `Spoil` spoils."""
    value = next(cell.cell_contents for cell in spoil.__closure__ or ())
    if isinstance(value, str):
        return value.encode()
    write = cases.as_json if "of_json" in spoil.__qualname__ else cases.as_toml
    return write(value).encode()


WHOLE = {name: {path: _whole(spoil) for path, spoil in files.items()} for name, (_, files) in WORKLOADS.items()}


@pytest.mark.parametrize("name", READERS)
def test_a_spoiled_lock_is_read_or_refused(name: str) -> None:
    for seed in range(120):
        read_spoiled(name, seed)


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_spoiled_workload_is_planned_or_refused(tmp_path: Path, name: str) -> None:
    for seed in range(80):
        plan_spoiled(tmp_path, name, seed)


@pytest.mark.parametrize("name", READERS)
def test_the_examples_are_read(name: str) -> None:
    spoil, read = READERS[name]
    read(_whole(spoil).decode())


def test_a_spoiled_score_is_no_fault_of_the_line(tmp_path: Path) -> None:
    whole = {"package.json": b"{}", "go.mod": b"module x\n", "index.html": b""}
    for seed in range(150):
        chance = random.Random(seed)  # noqa: S311  (a test's, by seed)
        files = {
            "score.yaml": of_json(cases.SCORE)(chance).encode(),
            "Procfile": cases.spoil_text("web: /usr/bin/node 'x'\n", chance).encode("utf-8", "replace"),
        }
        try:
            detect(Project(tmp_path, {**whole, **files}))
        except Refusal as refusal:
            refused_well(refusal)


@pytest.mark.long
@pytest.mark.parametrize("name", [*READERS, *WORKLOADS])
def test_many_spoiled_files_are_read_or_refused(tmp_path: Path, name: str) -> None:
    for seed in range(1_000, 6_000):
        if name in READERS:
            read_spoiled(name, seed)
        if name in WORKLOADS:
            plan_spoiled(tmp_path, name, seed)
