"""Checkouts of hostile commits, made with real git."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

import pytest
from git_cases import Repository, ending
from hypothesis import given, settings
from hypothesis import strategies as st

from sekisho.errors import PermanentError, Refusal, TemporaryError
from stages import source
from stages.build.compose import timestamp
from stages.build.tarball import FILE, header
from stages.trees import FOLDER, MAX_DEPTH, Limits, TreeEntry, check_entries, check_links, check_name, check_prefixes


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "app.git")


def test_a_checkout_is_exactly_the_commit(repository: Repository, tmp_path: Path) -> None:
    run = repository.blob(b"#!/bin/sh\n")
    inner = repository.tree(("100644", "b.txt", repository.blob(b"b\n")), ("120000", "up", repository.blob(b"../run")))
    commit = repository.commit(("40000", "a", inner), ("100644", "empty", repository.blob(b"")), ("100755", "run", run))
    target = source.checkout(repository.path, commit, tmp_path / "out")
    found = {str(path.relative_to(target)): path for path in target.rglob("*")}
    assert sorted(found) == ["a", "a/b.txt", "a/up", "empty", "run"]
    assert found["a/b.txt"].read_bytes() == b"b\n"
    assert found["a/up"].readlink() == Path("../run")
    assert [oct(found[name].stat().st_mode & 0o777) for name in ("a", "a/b.txt", "run")] == ["0o755", "0o644", "0o755"]


def test_a_revision_says_who_and_when(repository: Repository) -> None:
    commit = repository.commit(("100644", "a", repository.blob(b"a")))
    revision = source.revision(repository.path, "thing", commit, "main")
    assert revision.commit == commit
    assert revision.tree == repository.git("rev-parse", f"{commit}^{{tree}}")
    assert revision.committed_at == 1_760_000_001
    assert revision.author == "Ada[31m <ada@example.com>"


@pytest.mark.parametrize("name", ["..", ".git", ".GIT", "a\nb", "a\x1bb"])
def test_a_name_that_leaves_or_lies_is_refused(repository: Repository, tmp_path: Path, name: str) -> None:
    commit = repository.commit(("100644", name, repository.blob(b"x")))
    with pytest.raises(Refusal):
        source.checkout(repository.path, commit, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "links",
    [
        {"a": "/etc/passwd"},
        {"a": "../x"},
        {"a": "b/../../x"},
        {"d": "e", "b": "d/../.."},
        {"a": "b", "b": "a"},
    ],
)
def test_links_out_of_the_tree_are_refused(repository: Repository, tmp_path: Path, links: dict[str, str]) -> None:
    entries = [("120000", name, repository.blob(target.encode())) for name, target in sorted(links.items())]
    commit = repository.commit(*entries)
    with pytest.raises(Refusal, match="link"):
        source.checkout(repository.path, commit, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_two_links_that_leave_only_together() -> None:
    check_links({"x/y": "..", "z": "x/y/a"})
    with pytest.raises(Refusal, match="leads out"):
        check_links({"x/y": "..", "z": "x/y/.."})


def test_a_link_as_long_as_a_file_is_refused_before_it_is_read(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "_write", lambda *_: pytest.fail("it is read"))
    commit = repository.commit(("120000", "a", repository.blob(b"x" * 1025)))
    with pytest.raises(Refusal, match="no usable target"):
        source.checkout(repository.path, commit, tmp_path / "out")


def test_folders_count_whether_or_not_they_are_listed() -> None:
    """git lists those of a commit; nobody lists those of a working copy."""
    files = [TreeEntry("100644", f"{number}/d/f") for number in range(2)]
    listed = [TreeEntry(FOLDER, path) for path in ("0", "0/d", "1", "1/d")]
    for entries in (files, [*listed, *files]):
        assert check_entries(entries, Limits(folders=4)) == files
        with pytest.raises(Refusal, match="More than 3 folders"):
            check_entries(entries, Limits(folders=3))


def test_links_that_are_a_maze_are_refused() -> None:
    way = "a/../" * 150
    links = {f"l{number}": f"{way}l{number + 1}" for number in range(37)} | {"l37": "x"}
    check_links(links)
    with ending(), pytest.raises(Refusal, match="too many others") as caught:
        check_links(links | {f"m{number}": f"{way}l0" for number in range(200_000)})
    assert caught.value.remedy


def test_a_file_below_a_link_is_refused(repository: Repository, tmp_path: Path) -> None:
    inner = repository.tree(("100644", "passwd", repository.blob(b"x")))
    commit = repository.commit(("120000", "a", repository.blob(b"/etc")), ("40000", "a", inner))
    with pytest.raises(Refusal, match=r"at once|absolute"):
        source.checkout(repository.path, commit, tmp_path / "out")


def test_submodules_and_lfs_pointers_are_refused(repository: Repository, tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="submodule"):
        source.checkout(repository.path, repository.commit(("160000", "m", "1" * 40)), tmp_path / "one")
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"
    with pytest.raises(Refusal, match="LFS"):
        source.checkout(repository.path, repository.commit(("100644", "p", repository.blob(pointer))), tmp_path / "two")


def test_limits(repository: Repository, tmp_path: Path) -> None:
    blob = repository.blob(b"0123456789")
    commit = repository.commit(("100644", "a", blob), ("100644", "b", blob))
    for limits in (Limits(files=1), Limits(size=19)):
        with pytest.raises(Refusal, match="More than"):
            source.checkout(repository.path, commit, tmp_path / "out", limits=limits)
    assert source.checkout(repository.path, commit, tmp_path / "out", limits=Limits(files=2, size=20)).is_dir()


def test_only_a_whole_commit_id_names_a_commit(repository: Repository, tmp_path: Path) -> None:
    commit = repository.commit(("100644", "a", repository.blob(b"a")))
    repository.git("update-ref", "refs/heads/main", commit)
    for name in ("main", "HEAD", commit[:12], "--all", "0" * 40, repository.git("rev-parse", f"{commit}^{{tree}}")):
        with pytest.raises(Refusal):
            source.checkout(repository.path, name, tmp_path / "out")


def test_neither_filters_nor_replacements_of_the_repository_are_used(repository: Repository, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    repository.git("config", "filter.evil.smudge", f"touch {ran}")
    attributes = repository.blob(b"* filter=evil ident export-ignore\n")
    good, bad = repository.blob(b"good $Id$"), repository.blob(b"evil $Id$")
    commit = repository.commit(("100644", ".gitattributes", attributes), ("100644", "a", good))
    repository.git("replace", good, bad)
    target = source.checkout(repository.path, commit, tmp_path / "out")
    assert (target / "a").read_bytes() == b"good $Id$"
    assert not ran.exists()


def test_an_existing_folder_is_not_written_into(repository: Repository, tmp_path: Path) -> None:
    commit = repository.commit(("100644", "a", repository.blob(b"a")))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(PermanentError, match="exists"):
        source.checkout(repository.path, commit, tmp_path / "out")
    assert (tmp_path / "out" / "mine").exists()


def test_a_path_through_a_link_is_no_workload(repository: Repository, tmp_path: Path) -> None:
    inner = repository.tree(("100644", "a", repository.blob(b"a")))
    commit = repository.commit(("120000", "alias", repository.blob(b"real")), ("40000", "real", inner))
    target = source.checkout(repository.path, commit, tmp_path / "out")
    real = source.revision(repository.path, "thing", commit, "main", path="real")
    assert source.workload(target, real) == target / "real"
    for path in ("alias", "gone", "real/a"):
        with pytest.raises(Refusal) as caught:
            source.workload(target, real.model_copy(update={"path": path}))
        assert caught.value.remedy == "Put the workload's score.yaml into a folder of the commit that is no link."


@settings(deadline=None)
@given(st.text())
def test_a_checked_name_never_leaves(name: str) -> None:
    try:
        check_name(name)
    except Refusal:
        return
    parts = name.split("/")
    assert all(part not in ("", ".", "..") for part in parts)


PLACES = st.sampled_from(["a", "b", "a/c", "d/e", "d/f"])
STEPS = st.lists(st.sampled_from(["a", "b", "c", "d", "e", "..", "."]), min_size=1, max_size=6)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(PLACES, STEPS))
def test_links_that_pass_stay_inside_for_the_kernel_too(links: dict[str, list[str]]) -> None:
    targets = {path: "/".join(parts) for path, parts in links.items()}
    try:
        check_prefixes(targets)
        check_links(targets)
    except Refusal:
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve() / "tree"
        for path, target in targets.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).symlink_to(target)
        for path in targets:
            assert (root / path).resolve(strict=False).is_relative_to(root)


def test_a_small_tree_that_lists_more_files_than_memory_holds_is_refused_at_once(
    repository: Repository, tmp_path: Path
) -> None:
    names = [f"{number:02d}" for number in range(40)]
    mode, sha = "100644", repository.blob(b"")
    for _ in range(6):
        # 40 to the power of 6 are 4 billion files in 6 trees.
        mode, sha = "40000", repository.tree(*((mode, name, sha) for name in names))
    commit = repository.git("commit-tree", "-m", "bomb", sha)
    with pytest.raises(Refusal, match="More than 50000 files"):
        source.checkout(repository.path, commit, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_trees_without_a_file_end_as_soon_as_trees_of_files(repository: Repository, tmp_path: Path) -> None:
    """20 to the power of 12 visits that print nothing, where folders are not listed."""
    sha = repository.tree()
    for _ in range(12):
        sha = repository.tree(*(("40000", f"{number:02d}", sha) for number in range(20)))
    commit = repository.git("commit-tree", "-m", "bomb", sha)
    with ending(), pytest.raises(Refusal, match="More than 50000 folders"):
        source.checkout(repository.path, commit, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_few_trees_that_many_names_share_are_as_many_folders(repository: Repository, tmp_path: Path) -> None:
    chain = repository.nested(MAX_DEPTH - 1, repository.blob(b"x"), mode="100644")
    commit = repository.commit(*(("40000", f"{number:03d}", chain) for number in range(900)))
    with pytest.raises(Refusal, match="More than 50000 folders") as caught:
        source.checkout(repository.path, commit, tmp_path / "out")
    assert caught.value.remedy
    assert not (tmp_path / "out").exists()
    few = repository.commit(("40000", "one", chain))
    assert source.checkout(repository.path, few, tmp_path / "out", limits=Limits(folders=MAX_DEPTH - 1)).is_dir()
    with pytest.raises(Refusal, match="folders"):
        source.checkout(repository.path, few, tmp_path / "more", limits=Limits(folders=MAX_DEPTH - 2))


@pytest.mark.parametrize("depth", [MAX_DEPTH, 508, 5000])
def test_a_path_that_is_too_deep_is_refused(repository: Repository, tmp_path: Path, depth: int) -> None:
    """5000 are more than git's own buffer of lines, and more than a path may have bytes."""
    if depth > 1000:  # a process a tree would take long
        said = (
            "commit refs/heads/x\ncommitter A <a@example.com> 1 +0000\ndata 0\nM 100644 inline " + "d/" * depth + "d\n"
        )
        repository.git("fast-import", "--quiet", data=said.encode() + b"data 1\nx\n")
        commit = repository.git("rev-parse", "refs/heads/x")
    else:
        chain = repository.nested(depth, repository.blob(b"x"), mode="100644")
        commit = repository.commit(("40000", "top", chain))
    with ending(), pytest.raises(Refusal, match=r"folders deep|too long"):
        source.checkout(repository.path, commit, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("word", ["ls-tree", "cat-file --batch"])
def test_a_git_that_does_not_answer_is_ended(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    commit = repository.commit(("100644", "a", repository.blob(b"a")))
    stand_in = tmp_path / "bin" / "git"
    stand_in.parent.mkdir()
    stand_in.write_text(f'#!/bin/sh\ncase "$* " in *"{word} "*) exec sleep 1000;; esac\nexec /usr/bin/git "$@"\n')
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", f"{stand_in.parent}:/usr/bin:/bin")
    monkeypatch.setattr(source, "_SECONDS", 0.2)
    monkeypatch.setattr(source, "_WRITE_SECONDS", 0.2)
    # The short questions have the same deadline: they are asked by an ordinary git, when this machine is busy.
    monkeypatch.setattr(source, "_check_commit", lambda *_: None)
    with ending(), pytest.raises(Refusal, match=r"needs more than 0\.2 seconds") as caught:
        source.checkout(repository.path, commit, tmp_path / "out")
    assert caught.value.remedy
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("time", [1 << 33, 253_402_300_800, 1 << 40, 1 << 41])
def test_a_time_that_no_archive_can_say_is_refused(repository: Repository, time: int) -> None:
    with pytest.raises(Refusal, match="between 1970 and 2242") as caught:
        source.revision(repository.path, "thing", repository.commit_at(time), "main")
    assert "git commit --amend" in caught.value.remedy


def test_the_latest_time_can_be_said_everywhere(repository: Repository) -> None:
    found = source.revision(repository.path, "thing", repository.commit_at((1 << 33) - 1), "main")
    assert header("a", FILE, mode=0o644, time=found.committed_at)
    assert timestamp(found.committed_at) == "2242-03-16T12:56:31Z"


def test_a_commit_whose_message_is_a_book_is_refused(repository: Repository) -> None:
    with pytest.raises(Refusal, match="more than 1 MiB"):
        source.revision(repository.path, "thing", repository.commit_at(1, "x" * (1 << 20)), "main")


def test_a_full_disk_is_said_and_tried_again(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = repository.commit(("100644", "a", repository.blob(b"a")))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fchmod", full)
    with pytest.raises(TemporaryError, match="disk is full"):
        source.checkout(repository.path, commit, tmp_path / "out")
    assert not (tmp_path / "out").exists()
