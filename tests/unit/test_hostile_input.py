"""Files that are made to stop the line: each ends as a refusal or a plan, at once.

Nothing here looks at a clock. Each input is such that a reader with the fault would take hours or all memory.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sekisho.canonical import canonical
from sekisho.errors import Refusal
from sekisho.score.placeholders import PlaceholderError, Reference, resolve, scan
from sekisho.score.source import read_document
from stages.build import locks_tables
from stages.build.detect import ANNOTATION, detect
from stages.build.language import Language, Plan, Unlocked
from stages.build.languages.go import Go
from stages.build.languages.go_source import embeds
from stages.build.languages.java_pom import MAX_MODULES, read_poms
from stages.build.languages.node import Node
from stages.build.languages.python import Python
from stages.build.languages.python_apps import find_app
from stages.build.languages.python_django import find_django
from stages.build.languages.python_project import PyProject
from stages.build.languages.rust import Rust
from stages.build.languages.rust_globs import Globs
from stages.build.languages.static_docs import find_docs
from stages.build.locate import locate
from stages.build.locks import Target, parse_requirements
from stages.build.locks_cargo import parse_cargo_lock
from stages.build.locks_npm import parse_npm_lock
from stages.build.locks_plain import parse_pipfile_lock
from stages.build.locks_pnpm import parse_pnpm_lock
from stages.build.locks_poetry import parse_poetry_lock
from stages.build.locks_uv import parse_uv_lock
from stages.build.locks_yarn import parse_yarn_lock
from stages.build.planning import draft
from stages.build.procfile import MAX_LINE, web_lines
from stages.build.project import Project
from stages.build.resolver_paths import _HREF
from stages.build.strict_toml import MAX_PARTS, read_toml
from stages.judge import reasons_of

HASH = "a" * 64
LONG = "9" * 5_000
"""A number that Python does not read: over 4,300 digits."""
BOMB = "\n".join(["a0: &a0 {x: 1}", *(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}" for n in range(1, 60))])
"""Merge keys, each of two others: 2^59 pairs."""
OFFERED: Mapping[str, tuple[str, ...]] = {"rust": ("1.85",), "python": ("3.11",), "node": ("24",), "go": ("1.27",)}
PACKAGE = '[package]\nname = "shop"\n'
MAIN = {"src/main.rs": "fn main() {}"}
GO = {"main.go": "package main\n\nfunc main() {}\n"}
UV = """version = 1
[[package]]
name = "shop"
version = "1"
source = {{ editable = "." }}
dependencies = [{{ name = "own" }}]
[[package]]
name = "own"
version = "1"
source = {{ editable = "{}" }}
"""


def project(folder: Path, files: Mapping[str, str]) -> Project:
    return Project(folder, {path: text.encode() for path, text in files.items()})


def plan(folder: Path, language: Language, files: Mapping[str, str]) -> Plan | Unlocked:
    return language.plan(project(folder, files), OFFERED[language.name])


# -- locks -----------------------------------------------------------------------------------------------------------


def test_a_key_of_a_lock_is_no_longer_than_a_path() -> None:
    key = "/".join(["node_modules/a"] * 4_000)
    entry = {"version": "1.0.0", "optionalDependencies": {"b": "1"}}
    text = json.dumps({"lockfileVersion": 3, "packages": {"": {}, key: entry}})
    with pytest.raises(Refusal, match="longer than a path may be") as caught:
        parse_npm_lock(text)
    assert len(caught.value.what) < 300
    assert caught.value.remedy


def test_what_a_folder_above_has_stays_an_optional_dependency() -> None:
    package = {"version": "1.0.0", "integrity": "sha512-" + "A" * 86 + "=="}
    deep = {**package, "optionalDependencies": {"top": "1", "near": "1", "far": "1", "none": "1"}}
    entries = {
        "": {}, "node_modules/top": package, "node_modules/a": package, "node_modules/a/node_modules/near": package,
        "node_modules/a/node_modules/b": deep, "node_modules/top/node_modules/far": package,
    }  # fmt: skip
    lock = parse_npm_lock(json.dumps({"lockfileVersion": 3, "packages": entries}))
    written = json.loads(lock.normalised)["packages"]["node_modules/a/node_modules/b"]
    assert written["optionalDependencies"] == {"top": "1", "near": "1"}


def test_a_header_of_yarn_with_an_open_quote_is_read_once() -> None:
    header = '"' + '\\"' * 400_000 + ":\n"
    with pytest.raises(Refusal, match="not from the package index"):
        parse_yarn_lock(header, {}, registry="http://r/")
    with pytest.raises(Refusal, match="A package without a name"):
        parse_yarn_lock('"":\n  version "1"\n', {}, registry="http://r/")


def test_a_line_of_pnpm_is_bounded() -> None:
    text = f"lockfileVersion: '9.0'\npackages:\n  a@1.0.0:\n    resolution: {{{'a' * 400_000}}}\n"
    with pytest.raises(Refusal, match="longer than") as caught:
        parse_pnpm_lock(text)
    assert caught.value.where == "pnpm-lock.yaml:4"


def test_extras_crossed_with_groups_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks_tables, "MAX_EDGES", 1_000)
    extras = ", ".join(f'"e{n}"' for n in range(40))
    groups = "".join(f'e{n} = [{{ name = "x" }}]\n' for n in range(40))
    edge = f'dependencies = [{{ name = "x", extra = [{extras}] }}]'
    text = (
        f'version = 1\n[[package]]\nname = "shop"\nversion = "1"\nsource = {{ virtual = "." }}\n{edge}\n'
        f'[[package]]\nname = "x"\nversion = "1"\nsource = {{ registry = "r" }}\nsdist = {{ hash = "sha256:{HASH}" }}\n'
        f"[package.optional-dependencies]\n{groups}"
    )
    with pytest.raises(Refusal, match="more than 1,000 times"):
        parse_uv_lock(text, project="shop", wanted=(), target=Target())
    wanted = "".join(f'd{n} = {{ version = "1", extras = [{extras}], optional = true }}\n' for n in range(40))
    text = (
        f'[[package]]\nname = "x"\nversion = "1"\nfiles = [{{ hash = "sha256:{HASH}" }}]\n'
        f"[package.dependencies]\n{wanted}y = {{ extras = [{extras}] }}\n"
        f'x = {{ extras = [{extras}] }}\n[[package]]\nname = "y"\nversion = "1"\n'
        f'files = [{{ hash = "sha256:{HASH}" }}]\n[metadata]\n'
    )
    asked = PyProject({"tool": {"poetry": {"dependencies": {"x": "1"}}}}).wanted
    with pytest.raises(Refusal, match="more than 1,000 times"):
        parse_poetry_lock(text, wanted=asked, target=Target())


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (f"x=={LONG}", "no valid version|not a package"),
        (f"x==1; python_version > '{LONG}'", "cannot be judged|no sha256"),
        (f"x; {'(' * 20_000}", "not a package"),
        ('x==1; "a" == "b"', "cannot be judged"),
    ],
)
def test_a_requirement_that_cannot_be_read(line: str, said: str) -> None:
    with pytest.raises(Refusal, match=said):
        parse_requirements(line.encode())


def test_numbers_that_nobody_writes_are_refused_or_forbid_nothing() -> None:
    assert Target().suits(f">={LONG}")
    with pytest.raises(Refusal, match="cannot be judged"):
        Target().holds(f"python_version > '{'(' * 9}", where="x")
    tables = {"tool": {"poetry": {"dependencies": {"python": f"^{LONG}", "x": {"extras": 1}}}}}
    assert PyProject(tables).requires_python == ""
    assert [(one.name, one.extras) for one in PyProject(tables).wanted] == [("x", ())]
    for version in (LONG, "0x" + "f" * 5_000):
        with pytest.raises(Refusal, match=r"cannot be read|beyond 64 bits"):
            parse_cargo_lock(f"version = {version}\n")
        with pytest.raises(Refusal, match=r"cannot be read|beyond 64 bits"):
            parse_uv_lock(f"version = {version}\n", project="", wanted=(), target=Target())


def test_half_a_surrogate_pair_is_no_text_of_a_lock() -> None:
    text = '{"default": {"\\ud800": {"version": "==1", "hashes": []}}}'
    with pytest.raises(Refusal, match=r"Pipfile\.lock is not JSON") as caught:
        parse_pipfile_lock(text, target=Target())
    canonical([reason.model_dump(mode="json") for reason in reasons_of(caught.value, "build")])


def test_a_refusal_that_quotes_half_a_pair_or_megabytes_can_be_written_down() -> None:
    (reason,) = reasons_of(Refusal("a\ud800" + "b" * 9_000_000, where="\udc80", remedy="c"), "build")
    assert (reason.message[:3], reason.where, reason.remedy) == ("a?b", "?", "c")
    assert len(canonical(reason.model_dump(mode="json"))) < 10_000


# -- regular expressions ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", ["web:" + " " * 900_000 + "\x01", "web" + " " * 900_000, "web: x" + " " * 900_000])
def test_blanks_of_a_procfile_are_looked_at_once(tmp_path: Path, line: str) -> None:
    files = {"requirements.txt": "", "package.json": '{"scripts": {"start": "x"}}', "Procfile": line}
    with pytest.raises(Refusal, match="two things at once"):
        detect(project(tmp_path, files))


def test_a_command_of_a_procfile_is_bounded(tmp_path: Path) -> None:
    text = "web: " + "x" * (MAX_LINE + 1)
    with pytest.raises(Refusal, match="longer than 8192") as caught:
        web_lines(project(tmp_path, {"Procfile": f"release: x\r\n{text}\n"}))
    assert caught.value.where == "Procfile:2"
    found = web_lines(project(tmp_path, {"Procfile": "\ufeffweb:a\r\nweb : b \nwebx: c\nweb:\n web: d\n"}))
    assert [(web.command, web.line) for web in found] == [("a", 1), ("b", 2), ("", 4)]


def test_lines_without_anything_are_looked_at_once(tmp_path: Path) -> None:
    lines = "\n" * 60_000 + " " * 5_000
    assert find_app(project(tmp_path, {".flaskenv": lines})) is None
    settings = "import x\n" + "\n" * 400_000 + "STATIC_ROOT:\n" * 5_000
    text = 'import os\nos.environ.setdefault("DJANGO_SETTINGS_MODULE", "s.settings")\n'
    files = {"manage.py": text, "s/settings.py": settings, "s/wsgi.py": "django"}
    found = find_django(project(tmp_path, files))
    assert found is not None
    assert not found.collects
    many = {"package.json": '{"dependencies": {"x": "1"}}', ".npmrc": "\n" * 1_000_000 + "!"}
    assert isinstance(plan(tmp_path, Node(), many), Unlocked)


def test_a_script_that_takes_a_shell_for_ever_is_refused(tmp_path: Path) -> None:
    files = {"package.json": json.dumps({"scripts": {"start": "x" * 4_000_000}})}
    found = plan(tmp_path, Node(), files)
    assert isinstance(found, Plan)
    assert found.no_command is not None
    assert "too long" in found.no_command.what


def test_links_of_a_page_without_an_end_are_looked_at_once() -> None:
    assert _HREF.search("<a\n" * 300_000) is None
    assert [match[2] for match in _HREF.finditer('<a x="<" href="1"><a href=\'2\'><a <a href="3">')] == ["1", None, "3"]


def test_quotes_of_go_that_stay_open_are_looked_at_once() -> None:
    assert embeds('//go:embed "' + '\\"' * 500_000 + "\n")[0].line == 1
    assert embeds('//go:embed "\\ud800"\n')[0].pattern == "?"


# -- YAML ------------------------------------------------------------------------------------------------------------


def test_merge_keys_and_aliases_are_no_score(tmp_path: Path) -> None:
    text = f"metadata: {{name: shop, annotations: {{{ANNOTATION}: go}}}}\n{BOMB}\n"
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "score.yaml").write_text(text)
    with pytest.raises(Refusal, match=r"a/score\.yaml \(no name\)"):
        locate(tmp_path, "shop")
    files = {"package.json": "{}", "go.mod": "module x\n", "score.yaml": text}
    assert detect(project(tmp_path, files)).language.name == "go"  # by the rules: package.json has no start script
    cmd = {f"cmd/{name}/main.go": GO["main.go"] for name in ("a", "b")}
    found = plan(tmp_path, Go(), {"go.mod": "module example.com/x\n\ngo 1.21\n", **cmd, "score.yaml": text})
    assert isinstance(found, Plan)
    assert found.no_command is not None
    docs = find_docs(project(tmp_path, {".readthedocs.yaml": f"{BOMB}\nmkdocs: *a59\n", "mkdocs.yml": "x: !!y z\n"}))
    assert docs is not None
    assert docs.file == "mkdocs.yml"


def test_long_keys_above_many_values_are_refused() -> None:
    text = f"? {'k' * 500_000}\n: [{', '.join('1' * 1 for _ in range(15_000))}]\n"
    with pytest.raises(Refusal, match="longer than 2000"):
        read_document(text.encode(), "score.yaml")


def test_many_scores_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "score.yaml").write_text("metadata: {name: x}\n")
    monkeypatch.setattr("stages.build.locate._MAX_SCORES", 2)
    with pytest.raises(Refusal, match=r"more than 2 score\.yaml files"):
        locate(tmp_path, "a")


@pytest.mark.parametrize("value", ["[go]", "{a: b}", "1", "true", "2024-13-45"])
def test_an_annotation_that_is_no_language(tmp_path: Path, value: str) -> None:
    text = f"x: 2024-13-45\nmetadata: {{annotations: {{{ANNOTATION}: {value}}}}}\n"
    with pytest.raises(Refusal, match="The annotation"):
        detect(project(tmp_path, {"go.mod": "", "score.yaml": text}))


def test_placeholders_that_do_not_end_are_looked_at_once() -> None:
    text = "a${b.c}$$" + "${" * 400_000
    assert scan(text) == ("a", Reference(("b", "c"), "${b.c}"), "$" + "${" * 400_000)
    assert scan("$${a}$$$ {$$") == ("${a}$$ {$",)
    assert scan("$${a$$") == ("$" + "{a$",)


def test_a_value_that_is_named_many_times_does_not_grow_without_end() -> None:
    metadata = {"name": "shop", "annotations": {"x": "y" * 5_000}}
    assert resolve("${metadata.name}" * 50_000 + "${resources.a.b}", metadata)[0] == "shop" * 50_000
    with pytest.raises(PlaceholderError, match="more than 4096 characters"):
        resolve("${metadata.annotations.x}" * 20_000, metadata)


# -- TOML ------------------------------------------------------------------------------------------------------------

MANY = ".".join(["a"] * 300_000)


@pytest.mark.parametrize(
    "text",
    [
        f"{MANY} = 1",
        f"[{MANY}]",
        f"[[ {MANY} ]]",
        f"x = {{ y = 1, {MANY} = 1 }}",
        " . ".join(['"a.b"', "'c'"] * 100_000) + " = 1",
        'x = {y="""z"""", ' + MANY + ' = 1, q=" "}',
        "x = {y='''z''''', " + MANY + " = 1, q=' '}",
        'x = "\\\\"\n' + MANY + " = 1",
        'x = """\n\\""" """\n' + MANY + " = 1",
    ],
    ids=["key", "header", "array", "inline", "quoted", "four-quotes", "five-quotes", "backslash", "escaped"],
)
def test_a_key_of_many_parts_is_refused_before_it_is_read(text: str) -> None:
    with pytest.raises(Refusal, match=f"more than {MAX_PARTS} parts") as caught:
        read_toml(text, file="x.toml", remedy="y")
    assert caught.value.where == f"x.toml:{text.count(chr(10)) + 1}"
    assert caught.value.remedy == "y"


def test_dots_that_part_no_key_are_let_through() -> None:
    dots = "a." * 500
    text = f'x = ["{dots}", \'{dots}\'] # {dots}\ny = """\n{dots}a = "\\""" "\n"""\nz = \'\'\'\n[{dots}a]\'\'\'\n'
    numbers = f"n = [{', '.join(['1.5'] * 50)}]\n{'.'.join(['k'] * MAX_PARTS)} = 1979-05-27T07:32:00.5Z\n"
    found = read_toml(text + numbers, file="x", remedy="y")
    assert found["x"] == [dots, dots]
    assert len(found["n"]) == 50


@pytest.mark.parametrize(
    ("text", "said", "where"),
    [
        (f"a = {LONG}", "cannot be read", "x"),
        (f"a = 0x{'f' * 5_000}", "beyond 64 bits", "x"),
        ("a = 9223372036854775808", "beyond 64 bits", "x"),
        ("a = " + "[" * 50_000, "nested too deeply", "x"),
        (f"a = {'[' * 70}{']' * 70}", "deeper than 64", "x"),
        ("a = 1\nb = ]", "not TOML", "x:2"),
        ('a = """' + '\\"""' * 300_000, "not TOML", "x"),
        ('a = "\\ud800"', "not TOML", "x:1"),
    ],
)
def test_other_toml_that_nobody_writes(text: str, said: str, where: str) -> None:
    with pytest.raises(Refusal, match=said) as caught:
        read_toml(text, file="x", remedy="y")
    assert caught.value.where == where


# -- cargo -----------------------------------------------------------------------------------------------------------


def test_patterns_of_members_take_a_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    globs = Globs("Cargo.toml")
    assert not globs.match("/".join(["**", "a"] * 60) + "/b", "/".join(["a"] * 500))
    assert globs.looks < 100_000
    for pattern, folder, fits in (
        ("**", "a/b", True), ("a/**", "a", True), ("**/b", "a/b", True), ("**/**/b", "b", True), ("*", "a/b", False),
        ("**/a/**/c", "x/a/y/a/c", True), ("**/a/b", "a/b/a", False), ("*/[ab]?", "x/b1", True), ("a", "a/b", False),
    ):  # fmt: skip
        assert globs.match(pattern, folder) is fits, (pattern, folder)
    with pytest.raises(Refusal, match="longer than a path"):
        globs.match("*" * 2_000, "a")
    monkeypatch.setattr("stages.build.languages.rust_globs._MAX_LOOKS", globs.looks)
    with pytest.raises(Refusal, match="too many"):
        globs.match("a", "a")


def test_features_that_name_each_other_are_followed_once(tmp_path: Path) -> None:
    many = ", ".join(['"a"'] * 60_000)
    inner = ", ".join(['"b"'] * 60_000)
    text = f'{PACKAGE}[features]\ndefault = [{many}, ["x"]]\na = [{inner}]\n'
    assert isinstance(plan(tmp_path, Rust(), {"Cargo.toml": text, **MAIN}), Unlocked)


@pytest.mark.parametrize(
    "text",
    [
        f"patch = 1\n{PACKAGE}",
        f"workspace = 1\n{PACKAGE}rust-version = {{workspace = true}}\n",
        'package = 1\n[project]\nname = "shop"\n[[bin]]\nname = "a"\n[[bin]]\nname = "b"\n',
        f'{PACKAGE}[features]\ndefault = [["x"]]\n',
        f'{PACKAGE}rust-version = "{LONG}.1"\n',
        f'{PACKAGE}[dependencies]\nx = {{path = "a\\u0000b"}}\n',
        f'{PACKAGE}[workspace]\nmembers = ["a\\u0000b"]\n',
        f"{PACKAGE}x = {LONG}\n",
        f"{PACKAGE}version = 0x{'f' * 5_000}\n",
    ],
)
def test_manifests_of_cargo_with_other_types(tmp_path: Path, text: str) -> None:
    for lock in ({}, {"Cargo.lock": 'version = 4\n[[package]]\nname = "shop"\nversion = "1.0.0"\n'}):
        try:
            assert plan(tmp_path, Rust(), {"Cargo.toml": text, **lock, **MAIN})
        except Refusal as refusal:
            assert refusal.remedy  # noqa: PT017  (either is right; it never raises anything else)


def test_settings_of_cargo_with_numbers_that_nobody_writes(tmp_path: Path) -> None:
    for path in (".cargo/config.toml", "rust-toolchain.toml", "rust-toolchain"):
        lock = {"Cargo.lock": 'version = 4\n[[package]]\nname = "shop"\nversion = "1.0.0"\n'}
        with pytest.raises(Refusal, match="cannot be read"):
            plan(tmp_path, Rust(), {"Cargo.toml": PACKAGE, path: f"x = {LONG}\n", **lock, **MAIN})


# -- paths -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["a\0b", "a/\0/b", "\ud800", "x/\udcff"])
def test_no_file_has_a_name_that_no_disk_takes(tmp_path: Path, path: str) -> None:
    found = Project(tmp_path)
    assert not found.has(path)
    assert not found.has_folder(path)
    assert found.read(path) is None
    assert found.files(below=path) == ()


@pytest.mark.parametrize(
    ("language", "files"),
    [
        (Python(), {"uv.lock": UV.format("a\\u0000b"), "pyproject.toml": '[project]\nname = "shop"\n'}),
        (Python(), {"requirements.txt": "", "Procfile": "web: cd 'a\0b' && gunicorn x\n"}),
        (Go(), {**GO, "go.mod": 'module x.y/z\n\ngo 1.21\nrequire a.b/c v1.0.0\nreplace a.b/c => "./\\ud800"\n'}),
        (Go(), {**GO, "go.mod": "module x.y/z\n\ngo 1.21\nrequire a.b/c v1.0.0\nreplace a.b/c => `./\0`\n"}),
        (Go(), {**GO, "go.mod": "module x.y/z\n\ngo 1.21\n", "go.work": "go 1.21\nuse (\n.\n`./a\0`\n)\n"}),
    ],
)
def test_a_path_that_no_disk_takes_is_refused(tmp_path: Path, language: Language, files: Mapping[str, str]) -> None:
    with pytest.raises(Refusal) as caught:
        plan(tmp_path, language, files)
    assert caught.value.remedy
    canonical(caught.value.what)


def test_a_main_file_that_no_disk_takes_starts_nothing(tmp_path: Path) -> None:
    found = plan(tmp_path, Node(), {"package.json": json.dumps({"main": "a\0b.js"})})
    assert isinstance(found, Plan)
    assert found.no_command is not None


def test_modules_named_many_times_are_read_once(tmp_path: Path) -> None:
    def pom(modules: str) -> str:
        return f"<project><artifactId>x</artifactId><modules>{modules}</modules></project>"

    same = "<module>a</module>" * 100_000
    assert len(read_poms(project(tmp_path, {"pom.xml": pom(same), "a/pom.xml": pom("<module>../a</module>")}))) == 2
    others = "".join(f"<module>a{n}</module>" for n in range(MAX_MODULES + 1))
    with pytest.raises(Refusal, match="more than 500 modules"):
        read_poms(project(tmp_path, {"pom.xml": pom(others)}))


# -- the guard -------------------------------------------------------------------------------------------------------


class _Offered:
    def offered(self, language: str) -> tuple[str, ...]:
        del language
        return ("1",)

    def for_language(self, language: str, version: str = "") -> Any:
        raise NotImplementedError(language, version)


class _Broken:
    name, title = "broken", "Broken"

    def __init__(self, error: BaseException, *, early: bool = False) -> None:
        self._error, self._early = error, early

    def recognise(self, project: Project) -> str:
        del project
        if self._early:
            raise self._error
        return "x"

    def plan(self, project: Project, offered: tuple[str, ...]) -> Plan | Unlocked:
        del project, offered
        raise self._error


@pytest.mark.parametrize(
    "error",
    [ValueError("\ud800"), TypeError(), KeyError("x"), AttributeError(), IndexError(), RecursionError(),
     UnicodeEncodeError("utf-8", "\ud800", 0, 1, "x")],
)  # fmt: skip
@pytest.mark.parametrize("early", [False, True])
def test_what_no_reader_foresaw_is_a_refusal(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, error: Exception, *, early: bool
) -> None:
    with caplog.at_level(logging.ERROR), pytest.raises(Refusal, match="a form that cannot be read") as caught:
        draft(Project(tmp_path), _Offered(), [_Broken(error, early=early)])
    assert caught.value.remedy
    assert ("this folder" if early else "Broken") in caught.value.what
    assert "Traceback" in caplog.text  # for who mends the reader
    caplog.text.encode()


@pytest.mark.parametrize("error", [OSError("disk"), MemoryError(), Refusal("no"), KeyboardInterrupt()])
def test_faults_of_the_line_and_refusals_pass(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        draft(Project(tmp_path), _Offered(), [_Broken(error)])
    assert caught.value is error
