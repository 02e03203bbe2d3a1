"""Static sites: which folder is served, and what is said where a generator is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from sekisho.errors import Refusal
from stages.build.language import SOURCE, Plan, Unlocked
from stages.build.languages.static import HIDDEN, SITE, Static, runtime
from stages.build.project import Project
from stages.build.takes import left_out

EXAMPLES = Path(__file__).parents[2] / "examples"
OFFERED = ("1.4",)
STEP = '[tool.sekisho.build]\ncommand = ["python3", "make.py"]\n'


def tree(folder: Path, *files: str, pyproject: str = "") -> Project:
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    if pyproject:
        (folder / "pyproject.toml").write_text(pyproject)
    return Project(folder)


def planned(project: Project) -> Plan:
    plan = Static().plan(project, OFFERED)
    assert isinstance(plan, Plan)
    return plan


def test_the_example_is_served_as_it_is() -> None:
    plan = planned(Project(EXAMPLES / "site"))
    assert (plan.language, plan.version, plan.steps, plan.runtime) == ("static", "1.4", (), runtime())
    (take,) = plan.takes
    assert (take.kind, take.source, take.below, take.into) == ("application", SOURCE, "public", SITE)


@pytest.mark.parametrize(
    ("files", "seen", "below"),
    [
        (["index.html"], "index.html", ""),
        (["site/index.html", "index.html"], "site/index.html", "site"),
        (["public/index.html", "dist/index.html"], "public/index.html", "public"),
        (["docs/index.html"], "docs/index.html", "docs"),
        (["_site/index.html", "_config.yml"], "_site/index.html", "_site"),
    ],
)
def test_the_folder_with_the_page_is_served(tmp_path: Path, files: list[str], seen: str, below: str) -> None:
    project = tree(tmp_path, *files)
    assert Static().recognise(project) == seen
    assert planned(project).takes[0].below == below


def test_files_of_tools_are_not_served() -> None:
    out = left_out(HIDDEN)
    assert all(out(path) for path in (".env.local", ".git/config", "a/.htpasswd", ".github/x", "score.yaml"))
    assert not any(out(path) for path in (".well-known/security.txt", "index.html", "a/b.html", "a/score.yaml"))


def test_the_workloads_own_step_makes_it(tmp_path: Path) -> None:
    project = tree(tmp_path, pyproject=f'{STEP}output = "dist"\n')
    assert Static().recognise(project) == "pyproject.toml"
    plan = planned(project)
    assert (plan.built_in, plan.version) == ("python", "")
    assert plan.steps[0].command == ("python3", "make.py")
    assert plan.takes[0].below == "work/dist"


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (["hugo.toml"], "hugo.toml"),
        (["_config.yml"], "_config.yml"),
        (["book.toml"], "book.toml"),
        (["config.toml", "content/a.md"], "config.toml"),
    ],
)
def test_a_generator_that_is_not_there_is_named(tmp_path: Path, files: list[str], says: str) -> None:
    project = tree(tmp_path, *files)
    assert Static().recognise(project) == says
    with pytest.raises(Refusal, match=f"is made from {says}") as caught:
        Static().plan(project, OFFERED)
    assert "public/" in caught.value.remedy


def test_documentation_says_which_packages_it_needs(tmp_path: Path) -> None:
    project = tree(tmp_path, "mkdocs.yml")
    assert Static().recognise(project) == "mkdocs.yml"
    with pytest.raises(Refusal, match="nothing says which packages"):
        Static().plan(project, OFFERED)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "requirements.txt").write_text("mkdocs\n")
    assert isinstance(Static().plan(project, OFFERED), Unlocked)


def test_nothing_is_not_a_site(tmp_path: Path) -> None:
    project = tree(tmp_path, "config.toml", "README.md")
    assert Static().recognise(project) == ""
    with pytest.raises(Refusal, match=r"no index\.html"):
        Static().plan(project, OFFERED)


def test_a_link_is_no_page(tmp_path: Path) -> None:
    (tmp_path / "index.html").symlink_to("/etc/hostname")
    assert Static().recognise(Project(tmp_path)) == ""
