"""Which files of a working copy count, and the copy that is built."""

import os
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from sekisho.errors import Refusal
from stages.dev.watching import _Filter, saves
from stages.dev.workcopy import Copy
from stages.working_copy import files_of, head, is_clean, tracked

IDENTITY = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@example.com", "GIT_COMMITTER_NAME": "a",
            "GIT_COMMITTER_EMAIL": "a@example.com", "GIT_COMMITTER_DATE": "1700000000 +0000"}  # fmt: skip


def git(folder: Path, *words: str) -> None:
    subprocess.run(["git", "-C", str(folder), *words], check=True, env=os.environ | IDENTITY, capture_output=True)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "app"
    for name in ("web.py", "static/a.css", "node_modules/x/index.js", "__pycache__/web.pyc", ".venv/bin/python"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


@pytest.fixture
def repository(source: Path) -> Path:
    (source / ".gitignore").write_text("node_modules\n.venv\n__pycache__\n*.log\n")
    git(source, "init", "--quiet")
    git(source, "add", ".")
    git(source, "commit", "--quiet", "-m", "one")
    return source


def test_without_git_the_usual_suspects_are_left_out(source: Path) -> None:
    assert files_of(source) == ("static/a.css", "web.py")


def test_git_says_what_is_the_workloads(repository: Path) -> None:
    (repository / "debug.log").write_text("noise")
    (repository / "new.py").write_text("not added yet")
    (repository / "web.py").unlink()
    assert files_of(repository) == (".gitignore", "new.py", "static/a.css")


def test_a_workload_in_a_folder_of_a_repository_is_that_folder(repository: Path) -> None:
    assert files_of(repository / "static") == ("a.css",)


def test_a_tracked_file_counts_whatever_its_name(repository: Path) -> None:
    (repository / "debug.log").write_text("wanted")
    git(repository, "add", "--force", "debug.log")
    assert "debug.log" in files_of(repository)


def test_variables_of_git_do_not_lead_elsewhere(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    assert "web.py" in files_of(repository)


def test_sockets_and_pipes_are_nobodys_content(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(source / "pipe")
    monkeypatch.chdir(source)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind("s")
        assert files_of(source) == ("static/a.css", "web.py")


def test_the_head_is_commit_and_time(repository: Path) -> None:
    found = head(repository)
    assert (len(found.commit), found.time) == (40, 1_700_000_000)


def test_a_folder_without_git_has_no_head_and_is_not_clean(source: Path) -> None:
    assert (head(source).commit, is_clean(source)) == ("", False)


def test_clean_is_what_the_commit_says_and_nothing_else(repository: Path) -> None:
    assert is_clean(repository)
    (repository / "debug.log").write_text("ignored")
    assert is_clean(repository)
    (repository / "new.py").write_text("x")
    assert not is_clean(repository)


# -- the copy -------------------------------------------------------------------------------------------------------


def content(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_the_copy_follows_each_change(source: Path, tmp_path: Path) -> None:
    copy = Copy(source, tmp_path / "copy")
    assert copy.update() == ("static/a.css", "web.py")
    assert copy.update() == ()
    (source / "web.py").write_text("other")
    (source / "static" / "a.css").unlink()
    (source / "static" / "b.css").write_text("b")
    assert copy.update() == ("static/a.css", "static/b.css", "web.py")
    assert content(copy.folder) == {"static/b.css": "b", "web.py": "other"}


def test_a_change_of_the_same_size_is_seen(source: Path, tmp_path: Path) -> None:
    copy = Copy(source, tmp_path / "copy")
    copy.update()
    status = (source / "web.py").stat()
    (source / "web.py").write_text("w3b.py")
    os.utime(source / "web.py", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert copy.update() == ("web.py",)


def test_an_editor_that_renames_over_the_file_is_seen(source: Path, tmp_path: Path) -> None:
    copy = Copy(source, tmp_path / "copy")
    copy.update()
    status = (source / "web.py").stat()
    (source / "new").write_text("w3b.py")
    os.utime(source / "new", ns=(status.st_atime_ns, status.st_mtime_ns))
    (source / "new").rename(source / "web.py")
    assert copy.update() == ("web.py",)
    assert (copy.folder / "web.py").read_text() == "w3b.py"


def test_a_file_becomes_a_folder_and_a_folder_a_file(source: Path, tmp_path: Path) -> None:
    copy = Copy(source, tmp_path / "copy")
    copy.update()
    (source / "web.py").unlink()
    (source / "web.py").mkdir()
    (source / "web.py" / "inner").write_text("inner")
    (source / "static" / "a.css").unlink()
    (source / "static").rmdir()
    (source / "static").write_text("a file")
    copy.update()
    assert content(copy.folder) == {"web.py/inner": "inner", "static": "a file"}


def test_a_link_stays_a_link_and_is_not_followed(source: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("outside")
    (source / "link").symlink_to(tmp_path / "secret")
    copy = Copy(source, tmp_path / "copy")
    copy.update()
    assert (copy.folder / "link").is_symlink()


def test_the_sandboxs_user_can_read_the_copy_whatever_the_umask(source: Path, tmp_path: Path) -> None:
    (source / "web.py").chmod(0o700)
    (source / "static" / "a.css").chmod(0o600)
    before = os.umask(0o077)
    try:
        copy = Copy(source, tmp_path / "copy")
        copy.update()
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (copy.folder, *copy.folder.rglob("*"))}
    assert modes == {"copy": 0o755, "static": 0o755, "a.css": 0o644, "web.py": 0o755}


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_cannot_be_read_is_told(source: Path, tmp_path: Path) -> None:
    (source / "web.py").chmod(0)
    with pytest.raises(Refusal, match="cannot be read"):
        Copy(source, tmp_path / "copy").update()


# -- saves ----------------------------------------------------------------------------------------------------------


def test_saves_are_noticed_and_caches_are_not(source: Path) -> None:
    stop = threading.Event()
    found: list[tuple[str, ...]] = []
    ready = threading.Event()

    def watch() -> None:
        for paths in saves(source, stop):
            found.append(paths)
            ready.set()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    end = 200
    while not ready.wait(0.1) and end:  # until the watch stands
        (source / "node_modules" / "x" / "index.js").write_text(str(end))
        (source / "web.py").write_text(str(end))
        end -= 1
    stop.set()
    thread.join(10)
    assert found[0] == ("web.py",)
    assert not thread.is_alive()


@pytest.mark.parametrize("name", ["4913", ".#web.py", "web.py~", ".web.py.swp", ".git/index", "node_modules/x/y.js"])
def test_what_editors_and_tools_write_beside_is_no_save(name: str) -> None:
    from watchfiles import Change

    assert _Filter()(Change.modified, f"/home/dev/app/{name}") is False


def test_any_other_file_is_a_save() -> None:
    from watchfiles import Change

    assert all(_Filter()(Change.modified, f"/home/dev/app/{name}") for name in ("web.py", "Procfile", "static/a.css"))


@pytest.mark.parametrize("above", ["venv", ".vscode", "node_modules", ".tox", "x~"])
def test_what_stands_above_the_working_copy_says_nothing_about_its_files(above: str, tmp_path: Path) -> None:
    from watchfiles import Change

    folder = tmp_path / above / "site"
    keep = _Filter(folder)
    assert keep(Change.modified, str(folder / "web.py"))
    assert not keep(Change.modified, str(folder / "node_modules" / "x.js"))


def test_a_file_that_git_tracks_is_watched_whatever_its_name(repository: Path) -> None:
    """What is copied is watched: a vendored package, a file of an editor that the team shares."""
    from watchfiles import Change

    (repository / ".vscode").mkdir()
    for name in ("node_modules/x/index.js", ".vscode/settings.json"):
        (repository / name).write_text("tracked")
        git(repository, "add", "--force", name)
    assert {"node_modules/x/index.js", ".vscode/settings.json"} <= set(tracked(repository)) & set(files_of(repository))
    keep = _Filter(repository, tracked(repository))
    assert keep(Change.modified, str(repository / "node_modules" / "x" / "index.js"))
    assert keep(Change.modified, str(repository / ".vscode" / "settings.json"))
    assert not keep(Change.modified, str(repository / "node_modules" / "y.js"))
    assert not keep(Change.modified, str(repository / ".git" / "index"))


def test_without_git_nothing_is_tracked(source: Path) -> None:
    assert tracked(source) == ()
