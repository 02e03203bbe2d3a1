"""A second name for files, and copies where there can be none."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from stages.build.linking import link_tree


def tree(folder: Path) -> Path:
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "plain").write_text("plain")
    (folder / "inner" / "plain").chmod(0o600)
    (folder / "program").write_text("program")
    (folder / "program").chmod(0o700)
    (folder / "folder-link").symlink_to("inner")
    (folder / "nowhere").symlink_to("/not/there")
    return folder


def test_files_are_the_same_ones_and_links_stay_links(tmp_path: Path) -> None:
    source = tree(tmp_path / "source")
    link_tree(source, tmp_path / "target")
    for name in ("inner/plain", "program"):
        assert (tmp_path / "target" / name).samefile(source / name)
    assert (tmp_path / "target" / "folder-link").readlink() == Path("inner")
    assert (tmp_path / "target" / "nowhere").readlink() == Path("/not/there")


def test_where_no_link_can_be_had_there_are_copies_that_everybody_may_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_link(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    source = tree(tmp_path / "source")
    monkeypatch.setattr(os, "link", no_link)
    target = tmp_path / "target"
    link_tree(source, target)
    assert [(target / name).read_text() for name in ("inner/plain", "program")] == ["plain", "program"]
    assert [(target / name).stat().st_mode & 0o777 for name in ("inner/plain", "program")] == [0o644, 0o755]
    assert (target / "folder-link").readlink() == Path("inner")
    assert (target / "nowhere").readlink() == Path("/not/there")
    assert (source / "program").stat().st_mode & 0o777 == 0o700
