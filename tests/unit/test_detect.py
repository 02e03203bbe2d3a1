"""Which language a folder is."""

from __future__ import annotations

from pathlib import Path

import pytest

from sekisho.errors import Refusal
from stages.build.detect import detect

STEP = '[tool.sekisho.build]\ncommand = ["python3", "make.py"]\n'


def tree(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("files", "language", "root"),
    [
        ({"requirements.txt": ""}, "python", "."),
        ({"pyproject.toml": "[project]\nname = 'x'\n"}, "python", "."),
        ({"requirements.txt": "", "public/index.html": ""}, "python", "."),
        ({"index.html": ""}, "static", "."),
        ({"site/index.html": "", "index.html": ""}, "static", "site"),
        ({"public/index.html": "", "dist/index.html": ""}, "static", "public"),
        ({"public/index.html": "", "pyproject.toml": "[tool.ruff]\nline-length = 100\n"}, "static", "public"),
        ({"pyproject.toml": STEP + 'output = "dist"\n'}, "static", "dist"),
    ],
)
def test_what_is_seen_is_said(tmp_path: Path, files: dict[str, str], language: str, root: str) -> None:
    found = detect(tree(tmp_path, files))
    assert (found.language, found.root) == (language, root)
    assert any(name.split("/")[0] in found.why for name in files)


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "nothing here"),
        ({"Dockerfile": "FROM x"}, "never run"),
        ({"package.json": "{}"}, r"Node.js \(package.json\) is not built"),
        ({"go.mod": "", "public/index.html": ""}, "Go"),
        ({"requirements.txt": "", "package.json": "{}"}, "two things at once"),
        ({"pyproject.toml": "["}, "cannot be read"),
        ({"index.html": "", "pyproject.toml": "[tool.sekisho.build]\ncommand = 'rm -rf /'\n"}, "list of words"),
        ({"index.html": "", "pyproject.toml": STEP + "network = true\n"}, "nothing else"),
        ({"index.html": "", "pyproject.toml": STEP + 'output = "../.."\n'}, "output"),
    ],
)
def test_what_cannot_be_told_is_refused_with_a_remedy_or_a_place(
    tmp_path: Path, files: dict[str, str], says: str
) -> None:
    with pytest.raises(Refusal, match=says) as caught:
        detect(tree(tmp_path, files))
    assert caught.value.remedy or caught.value.where


def test_the_build_step_is_taken_as_words(tmp_path: Path) -> None:
    found = detect(tree(tmp_path, {"requirements.txt": "", "pyproject.toml": STEP}))
    assert found.command == ("python3", "make.py")


def test_a_link_is_no_marker(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").symlink_to("/etc/hostname")
    with pytest.raises(Refusal, match="nothing here"):
        detect(tmp_path)
