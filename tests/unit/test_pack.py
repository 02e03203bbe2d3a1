"""Layers: the same bytes for the same files, and nothing hostile in them."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sekisho.errors import PermanentError, Refusal
from stages.build.pack import Entry, entries_of_archive, entries_of_tree, merged, moved, write_layer
from stages.build.tarball import FILE, ending, header
from stages.trees import MAX_DEPTH, Limits


def fill(folder: Path, umask: int = 0o022) -> Path:
    before = os.umask(umask)
    (folder / "b" / "c").mkdir(parents=True)
    (folder / "b" / "c" / "d.txt").write_text("d")
    (folder / "b.txt").write_text("b")
    (folder / "a").write_text("a")
    (folder / "a").chmod(0o4711)
    (folder / "link").symlink_to("b/c/d.txt")
    os.umask(before)
    return folder


def archive(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for info, data in members:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def info(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.mode, made.uid, made.mtime = kind, link, 0o7777, 1000, 12345
    return made


def test_a_layer_is_the_same_wherever_and_whenever(tmp_path: Path) -> None:
    one = write_layer(moved(entries_of_tree(fill(tmp_path / "x")), "app"), tmp_path / "1", time=5)
    other_tree = fill(tmp_path / "elsewhere" / "y", umask=0o077)
    os.utime(other_tree / "b.txt", (1, 1))
    other = write_layer(reversed(moved(entries_of_tree(other_tree), "app")), tmp_path / "2", time=5)
    assert (one.digest, one.diff_id, one.size) == (other.digest, other.diff_id, other.size)
    data = one.path.read_bytes()
    assert one.digest == f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert one.diff_id == f"sha256:{hashlib.sha256(gzip.decompress(data)).hexdigest()}"
    assert one.size == len(data)
    with tarfile.open(one.path) as tar:
        members = tar.getmembers()
    assert [(member.name, oct(member.mode)) for member in members] == [
        ("app", "0o755"), ("app/a", "0o755"), ("app/b", "0o755"), ("app/b/c", "0o755"), ("app/b/c/d.txt", "0o644"),
        ("app/b.txt", "0o644"), ("app/link", "0o777"),
    ]  # fmt: skip
    assert {(member.uid, member.gid, member.uname, member.mtime) for member in members} == {(0, 0, "", 5)}


def test_the_bytes_of_a_known_layer(tmp_path: Path) -> None:
    """A change of these numbers changes every image: RECIPE must change with it."""
    layer = write_layer([Entry("a/b", "file", size=3, data=b"abc")], tmp_path / "layer", time=0)
    assert layer.diff_id == "sha256:74a6de68690c0d0e34b044c7a6d2a7a9e0f4ef2fa5d09fde3e2b2ec50a146a17"
    assert layer.digest == "sha256:facf46eaf0433f407a3705af4bd52ba0d3a4f57b9395044eb04621d90f8a9db1"


def test_the_output_of_a_sandbox_is_packed_anew(tmp_path: Path) -> None:
    path = archive(tmp_path / "t", (info("./", tarfile.DIRTYPE), b""), (info("./app", tarfile.DIRTYPE), b""),
                   (info("./app/x"), b"x"), (info("./app/l", tarfile.SYMTYPE, "x"), b""))  # fmt: skip
    layer = write_layer(moved(entries_of_archive(path), "srv/www", below="app"), tmp_path / "l", time=1)
    with tarfile.open(layer.path) as tar:
        found = {member.name: oct(member.mode) for member in tar}
        assert tar.extractfile("srv/www/x").read() == b"x"
    assert found == {"srv": "0o755", "srv/www": "0o755", "srv/www/x": "0o755", "srv/www/l": "0o777"}


@pytest.mark.parametrize(
    "member",
    [
        info("../x"),
        info("/etc/passwd"),
        info("a/../../x"),
        info("a/./b"),
        info("dev", tarfile.CHRTYPE),
        info("disk", tarfile.BLKTYPE),
        info("pipe", tarfile.FIFOTYPE),
        info("hard", tarfile.LNKTYPE, "/etc/passwd"),
        info("soft", tarfile.SYMTYPE, "../../etc/passwd"),
        info("root", tarfile.SYMTYPE, "/"),
        info("a\nb"),
    ],
)
def test_a_hostile_member_is_refused(tmp_path: Path, member: tarfile.TarInfo) -> None:
    with pytest.raises(Refusal) as caught:
        entries_of_archive(archive(tmp_path / "t", (member, b"")))
    assert caught.value.remedy


def test_twice_the_same_or_a_file_below_a_link_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="twice"):
        entries_of_archive(archive(tmp_path / "1", (info("a"), b"1"), (info("a"), b"2")))
    with pytest.raises(Refusal, match="at once"):
        entries_of_archive(archive(tmp_path / "2", (info("a", tarfile.SYMTYPE, "b"), b""), (info("a/x"), b"2")))


def test_an_archive_that_is_cut_or_damaged_is_refused(tmp_path: Path) -> None:
    whole = archive(tmp_path / "t", (info("a"), b"a" * 2000), (info("b"), b"b")).read_bytes()
    for cut in (
        whole[:100],
        whole[:600],
        whole[:2560],
        whole[:3000],
        whole[:2560] + b"garbage" * 512,
        b"log\n" + whole,
    ):
        (tmp_path / "cut").write_bytes(cut)
        with pytest.raises(Refusal):
            entries_of_archive(tmp_path / "cut")


def test_limits_hold_for_archives_and_trees(tmp_path: Path) -> None:
    path = archive(tmp_path / "t", (info("a"), b"12345"), (info("b"), b"12345"))
    for limits in (Limits(files=1), Limits(size=9)):
        with pytest.raises(Refusal, match="More than"):
            entries_of_archive(path, limits=limits)
        with pytest.raises(Refusal, match="More than"):
            entries_of_tree(fill(tmp_path / str(limits.files)), limits=Limits(files=1))


def test_folders_that_an_archive_does_not_list_are_counted(tmp_path: Path) -> None:
    """A step may write the archive by hand: a member a folder is what the sandbox's memory bounds, not the pipe."""
    chain = "/d" * (MAX_DEPTH - 2)
    data = b"".join(header(f"{number}{chain}/f", FILE, mode=0o644, time=0) for number in range(900))
    (tmp_path / "t").write_bytes(data + ending(len(data)))
    with pytest.raises(Refusal, match="More than 50000 folders") as caught:
        entries_of_archive(tmp_path / "t", where="build step")
    assert (caught.value.where, bool(caught.value.remedy)) == ("build step", True)
    assert len(entries_of_archive(tmp_path / "t", limits=Limits(folders=900 * (MAX_DEPTH - 1)))) == 900
    (tmp_path / "x" / "y" / "z").mkdir(parents=True)
    (tmp_path / "x" / "y" / "z" / "f").touch()
    with pytest.raises(Refusal, match="More than 1 folders"):
        entries_of_tree(tmp_path / "x", limits=Limits(folders=1))


@pytest.mark.parametrize(
    ("member", "says"),
    [
        (info("d/" * MAX_DEPTH + "f"), "folders deep"),
        (info("a", tarfile.SYMTYPE, "caf\udce9.txt"), "is not UTF-8"),
    ],
)  # fmt: skip
def test_what_no_layer_could_say_is_refused_when_it_is_read(tmp_path: Path, member: tarfile.TarInfo, says: str) -> None:
    with tarfile.open(tmp_path / "t", "w", format=tarfile.GNU_FORMAT) as tar:
        tar.addfile(member)
    with pytest.raises(Refusal, match=says) as caught:
        entries_of_archive(tmp_path / "t")
    assert caught.value.remedy


def test_a_pipe_in_a_tree_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Refusal, match="neither"):
        entries_of_tree(tmp_path)


def test_a_file_that_shrank_or_became_a_link_is_noticed(tmp_path: Path) -> None:
    tree = fill(tmp_path / "x")
    entries = entries_of_tree(tree)
    (tree / "b.txt").write_text("")
    with pytest.raises(PermanentError, match="changed"):
        write_layer(entries, tmp_path / "l", time=0)
    (tree / "b.txt").unlink()
    (tree / "b.txt").symlink_to("/etc/passwd")
    with pytest.raises(OSError, match="symbolic"):
        write_layer(entries, tmp_path / "l", time=0)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=4000))
def test_noise_is_refused_or_harmless(noise: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "noise")
        path.write_bytes(noise)
        try:
            assert entries_of_archive(path) == ()
        except Refusal:
            return


def test_what_nobody_wants_is_left_out_whatever_it_is(tmp_path: Path) -> None:
    path = archive(tmp_path / "t", (info("work/leak", tarfile.SYMTYPE, "/etc/passwd"), b""), (info("out/a"), b"a"))
    with pytest.raises(Refusal, match="absolute"):
        entries_of_archive(path)
    found = entries_of_archive(path, wanted=lambda name: name.startswith("out/"))
    assert [entry.path for entry in found] == ["out/a"]


def test_parts_of_a_layer_are_one_tree(tmp_path: Path) -> None:
    first, second = Entry("app/a", "file", data=b"1", size=1), Entry("app/a", "file", data=b"2", size=1)
    assert merged([[first], [second]], "layer") == (second,)
    with pytest.raises(Refusal, match="at once"):
        merged([[first], [Entry("app/a/b", "file")]], "layer")
    out = moved([Entry("deep/er/link", "link", target="../../x")], "", below="deep/er")
    with pytest.raises(Refusal, match="leads out"):
        merged([out], "layer")
