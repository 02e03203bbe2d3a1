"""What a push would be refused for is said of a working copy, in the same words."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from git_cases import GIT

from sekisho.errors import Refusal
from sekisho.model import Result
from stages import source
from stages.check import check, main
from stages.judge import load_rules
from stages.trees import Limits
from stages.uncommitted import check_uncommitted

from .test_check import AT, SCORE

ROOT = Path(__file__).parent.parent.parent


def git(folder: Path, *words: str) -> str:
    allowed = ("-c", "protocol.file.allow=always")
    done = subprocess.run(["git", "-C", str(folder), *allowed, *words], env=GIT, check=True, capture_output=True)
    return done.stdout.decode().strip()


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    folder.mkdir()
    for name, text in {"score.yaml": SCORE, "requirements.txt": "", "Procfile": "web: python -m shop\n"}.items():
        (folder / name).write_text(text)
    git(folder, "init", "-q", ".")
    commit(folder)
    return folder


def commit(folder: Path) -> str:
    git(folder, "add", "--all", ".")
    git(folder, "commit", "-q", "--allow-empty", "-m", "one")
    return git(folder, "rev-parse", "HEAD")


def library(tmp_path: Path, place: Path) -> None:
    """Make a repository of its own."""
    place.mkdir(parents=True)
    (place / "lib.py").write_text("x = 1\n")
    git(place, "init", "-q", ".")
    commit(place)


def same_as_a_push(folder: Path, workload: Path | None = None) -> Refusal:
    """Return what is said of a working copy, which is what a push of it is refused for."""
    with pytest.raises(Refusal) as checked:
        check_uncommitted(workload or folder)
    with pytest.raises(Refusal) as pushed:
        source.checkout(folder / ".git", commit(folder), folder.parent / "out")
    said, told = checked.value, pushed.value
    assert (said.what, said.remedy) == (told.what, told.remedy)
    assert said.where == "working copy"
    return said


def test_a_working_copy_that_can_be_pushed(shop: Path) -> None:
    (shop / "link").symlink_to("score.yaml")
    (shop / "new.py").write_text("x")
    (shop / "Procfile").unlink()
    check_uncommitted(shop)
    assert source.checkout(shop / ".git", commit(shop), shop.parent / "out").is_dir()


def test_links_out_of_the_tree(shop: Path) -> None:
    (shop / "a").symlink_to("../../x")
    assert "leads out of its tree" in same_as_a_push(shop).what


def test_a_link_within_the_repository_is_in_the_tree_although_it_leaves_the_workload(shop: Path) -> None:
    workload = shop / "apps" / "web"
    workload.mkdir(parents=True)
    (workload / "score.yaml").symlink_to("../../score.yaml")
    check_uncommitted(workload)
    (shop / "elsewhere").symlink_to("/etc/passwd")
    # All of the repository is pushed.
    assert "absolute target" in same_as_a_push(shop, workload).what


def test_names_with_control_characters(shop: Path) -> None:
    (shop / "a\x1b[31m").write_text("x")
    assert "control characters" in same_as_a_push(shop).what


def test_too_many_files_or_bytes(shop: Path) -> None:
    (shop / "large").write_bytes(b"x" * 1000)
    (shop / "data").mkdir()
    (shop / "data" / "one").write_text("x")
    for limits in (Limits(files=3), Limits(size=1000), Limits(folders=0)):
        with pytest.raises(Refusal) as checked:
            check_uncommitted(shop, limits=limits)
        with pytest.raises(Refusal) as pushed:
            source.checkout(shop / ".git", commit(shop), shop.parent / "out", limits=limits)
        assert (checked.value.what, checked.value.remedy) == (pushed.value.what, pushed.value.remedy)
    (shop / ".gitignore").write_text("large\n")
    git(shop, "rm", "-q", "--cached", "large")
    check_uncommitted(shop, limits=Limits(files=5, size=900))


def test_files_that_git_ignores_do_not_count(shop: Path) -> None:
    (shop / ".gitignore").write_text("data\n")
    (shop / "data").mkdir()
    (shop / "data" / "link").symlink_to("/etc/passwd")
    check_uncommitted(shop)


def test_a_folder_without_git_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "score.yaml").write_text(SCORE)
    check_uncommitted(tmp_path)
    (tmp_path / "a").symlink_to("/etc/passwd")
    with pytest.raises(Refusal, match="absolute target"):
        check_uncommitted(tmp_path)


def test_a_folder_that_a_repository_ignores_is_taken_as_it_is(shop: Path) -> None:
    (shop / ".gitignore").write_text("scratch\n")
    (shop / "scratch").mkdir()
    (shop / "scratch" / "a").symlink_to("/etc/passwd")
    with pytest.raises(Refusal, match="absolute target"):
        check_uncommitted(shop / "scratch")


# -- submodules ----------------------------------------------------------------------------------------------------


def with_submodule(shop: Path, path: str) -> None:
    library(shop.parent, shop.parent / "upstream")
    git(shop, "submodule", "--quiet", "add", str(shop.parent / "upstream"), path)
    commit(shop)


@pytest.mark.parametrize("path", ["lib", "my libs/lib"])
def test_what_is_advised_about_a_submodule_puts_its_files_into_the_commit(shop: Path, path: str) -> None:
    with_submodule(shop, path)
    remedy = same_as_a_push(shop).remedy
    commands, _, empty = remedy.partition(": ")[2].partition(". ")
    assert "git submodule update --init" in empty
    subprocess.run(["sh", "-euc", commands], cwd=shop, env=GIT, check=True, capture_output=True)
    check_uncommitted(shop)
    tree = source.checkout(shop / ".git", commit(shop), shop.parent / "mended")
    assert (tree / path / "lib.py").read_text() == "x = 1\n"


def test_what_is_advised_about_a_submodule_that_was_never_fetched(shop: Path) -> None:
    with_submodule(shop, "lib")
    git(shop.parent, "clone", "-q", str(shop), "clone")
    clone = shop.parent / "clone"
    assert list((clone / "lib").iterdir()) == []
    commands, _, empty = same_as_a_push(clone).remedy.partition(": ")[2].partition(". ")
    git(clone, *empty.partition(": ")[2].removesuffix(".").split()[1:])
    subprocess.run(["sh", "-euc", commands], cwd=clone, env=GIT, check=True, capture_output=True)
    check_uncommitted(clone)
    tree = source.checkout(clone / ".git", commit(clone), shop.parent / "mended")
    assert (tree / "lib" / "lib.py").read_text() == "x = 1\n"


def test_a_repository_in_the_repository_would_become_a_submodule(shop: Path) -> None:
    library(shop.parent, shop / "lib")
    assert "'lib' is a submodule" in same_as_a_push(shop).what


def test_a_submodule_that_was_removed_is_none(shop: Path) -> None:
    with_submodule(shop, "lib")
    subprocess.run(["rm", "-rf", str(shop / "lib")], check=True)
    check_uncommitted(shop)


# -- in the commands -----------------------------------------------------------------------------------------------


def test_the_check_says_it_beside_everything_else(shop: Path) -> None:
    with_submodule(shop, "lib")
    (shop / "Procfile").unlink()
    rules = load_rules(ROOT / "policies")
    verdict = check(shop, rules, at=AT)
    assert verdict.result is Result.FAILED
    assert [(reason.rule, reason.where) for reason in verdict.failures] == [
        ("source/refused", "working copy"), ("build/refused", shop.name),
    ]  # fmt: skip


def test_a_copy_is_judged_by_what_git_says_of_its_source(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`sekisho dev` builds a copy, in which a submodule is nothing at all."""
    from stages import check as module
    from stages.dev.workcopy import Copy

    monkeypatch.setattr(module, "local_scanner", lambda: None)
    with_submodule(shop, "lib")
    copy = Copy(shop, tmp_path / "copy")
    copy.update()
    policies = ["--policies", str(ROOT / "policies")]
    assert main([str(copy.folder), *policies]) == 0
    capsys.readouterr()
    assert main([str(copy.folder), "--source", str(shop), *policies]) == 1
    assert "source/refused: 'lib' is a submodule" in capsys.readouterr().out


def test_the_hint_asks_about_the_working_copy_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stages.dev import hint

    asked: list[list[str]] = []

    def popen(command: list[str], **_: object) -> object:
        asked.append(command)
        raise OSError("not started")

    monkeypatch.setattr(hint.subprocess, "Popen", popen)
    with pytest.raises(OSError, match="not started"):
        hint.Gate(tmp_path / "policies", lambda _: None, tmp_path / "shop").judge(1, tmp_path / "copy")
    assert asked[0][3:5] == ["stages.check", str(tmp_path / "copy")]
    assert asked[0][-2:] == ["--source", str(tmp_path / "shop")]
