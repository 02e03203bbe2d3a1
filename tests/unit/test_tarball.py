"""Archives: byte for byte what Python's tarfile writes, and what GNU tar writes is read."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.build.tarball import FILE, FOLDER, LINK, Member, TarError, ending, header, members, padding

_KINDS = {FILE: tarfile.REGTYPE, LINK: tarfile.SYMTYPE, FOLDER: tarfile.DIRTYPE}
NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=300).filter(
    lambda name: not name.endswith("/")
)


def written(*parts: tuple[str, bytes, int, bytes, str]) -> bytes:
    found = b""
    for name, kind, mode, data, target in parts:
        found += header(name, kind, mode=mode, time=7, size=len(data), target=target) + data + padding(len(data))
    return found + ending(len(found))


def read(data: bytes) -> list[Member]:
    return list(members(io.BytesIO(data), len(data)))


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(NAMES, st.sampled_from([FILE, LINK, FOLDER]), st.integers(0, 0o777), st.binary(max_size=2000), NAMES),
        max_size=4,
    )
)
def test_the_bytes_are_those_of_tarfile_and_come_back(parts: list[tuple[str, bytes, int, bytes, str]]) -> None:
    parts = [
        (name, kind, mode, data if kind == FILE else b"", target if kind == LINK else "")
        for name, kind, mode, data, target in parts
    ]
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.GNU_FORMAT) as tar:
        for name, kind, mode, data, target in parts:
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.size, info.linkname, info.mtime = _KINDS[kind], mode, len(data), target, 7
            tar.addfile(info, io.BytesIO(data))
    ours = written(*parts)
    assert ours == stream.getvalue()
    assert [(item.name, item.kind, item.mode, ours[item.offset : item.offset + item.size], item.target)
            for item in read(ours)] == [
        (f"{name}/" if kind == FOLDER else name, kind, mode, data, target) for name, kind, mode, data, target in parts
    ]  # fmt: skip


def test_what_gnu_tar_writes_is_read(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    deep = tree / ("d" * 90) / ("e" * 90)
    deep.mkdir(parents=True)
    (deep / "naïve.txt").write_text("x")
    (tree / "big").write_bytes(bytes(10_001))
    (tree / "run").write_text("x")
    (tree / "run").chmod(0o755)
    (tree / "link").symlink_to("d" * 90 + "/" + "e" * 90 + "/naïve.txt")
    archive = tmp_path / "t.tar"
    command = ["tar", "--create", f"--file={archive}", "--format=gnu", "--hard-dereference", "--numeric-owner", "."]
    subprocess.run(command, cwd=tree, check=True)
    found = {item.name: item for item in read(archive.read_bytes())}
    with tarfile.open(archive) as tar:
        assert {(item.name, item.size, item.mode) for item in tar} == {
            (name.rstrip("/"), item.size, item.mode) for name, item in found.items()
        }
    assert found["./link"].target == (tree / "link").readlink().as_posix()
    assert found[f"./{'d' * 90}/{'e' * 90}/naïve.txt"].size == 1


GOOD = written(("a", FILE, 0o644, b"x" * 600, ""), ("b", LINK, 0o777, b"", "a"))


@pytest.mark.parametrize(
    "data",
    [
        b"", GOOD[:100], GOOD[:512], GOOD[:1600], GOOD[:2048], GOOD[:2560], b"x" + GOOD, GOOD[1:],
        GOOD[:100] + b"9" + GOOD[101:],  # the mode is no number
        GOOD[:148] + b"0000000\0" + GOOD[156:],  # the checksum of another header
        GOOD[:257] + b"ustar  x" + GOOD[265:],
        header("a", FILE, mode=0o644, time=0, size=1 << 32) + ending(512),  # more than there is
        header("x", b"L", mode=0, time=0, size=1 << 20) + bytes(1 << 20) + ending(512),  # a name of a megabyte
    ],
)  # fmt: skip
def test_what_is_damaged_is_refused(data: bytes) -> None:
    with pytest.raises(TarError):
        read(data)


@settings(deadline=None)
@given(st.binary(max_size=3000), st.integers(0, 3000))
def test_no_noise_is_anything_but_refused_or_read(noise: bytes, place: int) -> None:
    data = GOOD[:place] + noise + GOOD[place:]
    try:
        found = read(data)
    except TarError:
        return
    assert all(item.offset + item.size <= len(data) for item in found)


def test_what_does_not_fit_a_header_is_not_written() -> None:
    for more in ({"size": 1 << 33}, {"size": -1}, {"time": -1}):
        with pytest.raises(ValueError, match="does not fit"):
            header("a", FILE, **{"mode": 0o644, "time": 0, **more})
