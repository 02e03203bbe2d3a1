"""Which language a folder is, in what is really committed out there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sekisho.errors import Refusal
from stages.build.detect import ANNOTATION, detect
from stages.build.project import Project

START = json.dumps({"scripts": {"start": "node server.js"}})
HELPER = json.dumps({"scripts": {"build": "tailwindcss -o app.css"}})
SCORE = "metadata: {{name: x, annotations: {{build.sekisho.dev/language: {}}}}}\n"


def tree(folder: Path, files: dict[str, str]) -> Project:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return Project(folder)


@pytest.mark.parametrize(
    ("files", "language"),
    [
        ({"requirements.txt": ""}, "python"),
        ({"pyproject.toml": "[project]\nname = 'x'\n"}, "python"),
        ({"requirements.txt": "", "public/index.html": ""}, "python"),
        ({"package.json": START}, "node"),
        ({"package.json": START, "public/index.html": ""}, "node"),
        ({"go.mod": "module x\n"}, "go"),
        ({"Cargo.toml": "[package]\nname = 'x'\n"}, "rust"),
        ({"pom.xml": "<project/>"}, "java"),
        ({"pom.xml": "<project/>", "build.gradle": ""}, "java"),
        ({"index.html": ""}, "static"),
        ({"public/index.html": "", "pyproject.toml": "[tool.ruff]\nline-length = 100\n"}, "static"),
    ],
)
def test_what_is_seen_is_said(tmp_path: Path, files: dict[str, str], language: str) -> None:
    found = detect(tree(tmp_path, files))
    assert found.language.name == language
    assert any(name in found.why for name in files)
    assert found.notes == ()


@pytest.mark.parametrize(
    ("files", "language", "note"),
    [
        ({"requirements.txt": "", "package.json": HELPER}, "python", "package.json has no start script"),
        ({"go.mod": "module x\n", "package.json": HELPER}, "go", "package.json has no start script"),
        ({"go.mod": "module x\n", "package.json": "{}"}, "go", "helper"),
        ({"requirements.txt": "", "package.json": START, "Procfile": "web: gunicorn app:app\n"}, "python",
         "package.json (Node.js) is not built: the Procfile starts Python."),
        ({"requirements.txt": "", "package.json": START, "Procfile": "release: x\nweb: PORT=1 /usr/bin/node x\n"},
         "node", "requirements.txt (Python) is not built: the Procfile starts Node.js."),
        ({"package.json": START, "Gemfile": "", "score.yaml": SCORE.format("node")}, "node",
         "Gemfile (Ruby) is not built: score.yaml says Node.js."),
        ({"go.mod": "module x\n", "index.html": "", "score.yaml": SCORE.format("static")}, "static",
         "go.mod (Go) is not built: score.yaml says static site"),
    ],
)  # fmt: skip
def test_a_second_language_is_decided_by_what_the_repository_says(
    tmp_path: Path, files: dict[str, str], language: str, note: str
) -> None:
    found = detect(tree(tmp_path, files))
    assert found.language.name == language
    assert len(found.notes) == 1
    assert note in found.notes[0]


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "no files here"),
        ({"README.md": ""}, "nothing here"),
        ({"Dockerfile": "FROM x"}, "never run"),
        ({"Gemfile": "", "config.ru": ""}, r"Ruby \(Gemfile\) is not built here"),
        ({"composer.json": "{}", "package.json": HELPER}, r"PHP \(composer.json\) is not built here"),
        ({"Shop.csproj": "", "index.html": ""}, r"\.NET \(Shop.csproj\) is not built here"),
        ({"mix.exs": ""}, "Elixir"),
        (
            {"requirements.txt": "", "package.json": START},
            r"two things at once: .*\(Python\), package.json \(Node.js\)",
        ),
        ({"requirements.txt": "", "package.json": "{"}, "two things at once"),
        ({"requirements.txt": "", "go.mod": "module x\n"}, "two things at once"),
        ({"go.mod": "module x\n", "Gemfile": ""}, "two things at once"),
        ({"requirements.txt": "", "score.yaml": SCORE.format("cobol")}, "says 'cobol'"),
        ({"requirements.txt": "", "score.yaml": SCORE.format("go")}, "says that this is Go, and no file"),
    ],
)
def test_what_cannot_be_told_is_refused_with_a_remedy(tmp_path: Path, files: dict[str, str], says: str) -> None:
    with pytest.raises(Refusal, match=says) as caught:
        detect(tree(tmp_path, files))
    assert caught.value.remedy


def test_two_languages_come_with_the_line_that_decides(tmp_path: Path) -> None:
    with pytest.raises(Refusal) as caught:
        detect(tree(tmp_path, {"requirements.txt": "", "go.mod": "module x\n"}))
    assert f"{{{ANNOTATION}: go}}" in caught.value.remedy


def test_workloads_below_the_top_are_named(tmp_path: Path) -> None:
    places = ("services/shop/web/package.json", "node_modules/x/package.json")
    files = {**dict.fromkeys(places, START), "services/shop/go.mod": "module x\n", "site/public/index.html": "",
             "a/b/c/d/requirements.txt": ""}  # fmt: skip
    with pytest.raises(Refusal, match=r"workloads seem to be in: .*services/shop \(Go\)") as caught:
        detect(tree(tmp_path, files))
    assert "node_modules" not in caught.value.what
    assert "services/shop/web" not in caught.value.what
    assert "a/b" not in caught.value.what
    assert "score.yaml" in caught.value.remedy


def test_a_page_among_templates_is_no_workload(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="nothing here that the line knows"):
        detect(tree(tmp_path, {"shop/templates/index.html": "", "main.f90": ""}))


def test_a_link_is_no_marker(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").symlink_to("/etc/hostname")
    with pytest.raises(Refusal, match="nothing here"):
        detect(Project(tmp_path))


def test_a_file_that_is_no_yaml_decides_nothing(tmp_path: Path) -> None:
    project = tree(tmp_path, {"go.mod": "module x\n", "score.yaml": f"{ANNOTATION}: [\n"})
    assert detect(project).language.name == "go"
