"""The archive of a policies folder: one folder, one archive, and nothing in it but plain files."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sekisho.errors import PermanentError, Refusal
from sekisho.policy import policy_digest
from sekisho.policy_archive import ARCHIVE_LIMIT, pack_policies, read_archive, unpack_policies

POLICIES = Path(__file__).parent.parent.parent / "policies"

names = st.from_regex(r"(?:[a-z][a-z0-9._-]{0,8}/){0,2}[a-z][a-z0-9_-]{0,8}\.yaml", fullmatch=True)


def test_the_stored_folder_has_the_digest_of_the_first(tmp_path: Path) -> None:
    data = pack_policies(POLICIES)
    unpack_policies(data, tmp_path)
    assert policy_digest(tmp_path) == policy_digest(POLICIES)
    assert pack_policies(tmp_path) == data


def test_what_no_rule_is_read_from_is_left_out(tmp_path: Path) -> None:
    for name in ("limits.yaml", "README.md", ".hidden", "admission/one.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    assert read_archive(pack_policies(tmp_path)) == {
        "admission/one.yaml": b"admission/one.yaml",
        "limits.yaml": b"limits.yaml",
    }


@settings(max_examples=30)
@given(st.dictionaries(names, st.binary(max_size=2000), min_size=1, max_size=6))
def test_any_folder_comes_back(tmp_path_factory: pytest.TempPathFactory, content: dict[str, bytes]) -> None:
    folder = tmp_path_factory.mktemp("folder")
    try:
        for name, data in content.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
    except OSError:
        return  # one name is a folder of another
    assert read_archive(pack_policies(folder)) == content


@given(st.binary(max_size=3000))
def test_no_bytes_do_more_than_be_refused(data: bytes) -> None:
    with pytest.raises(Refusal):
        read_archive(data)


def packed(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.USTAR_FORMAT, mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, format=form) as tar:
        for info, data in members:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def member(name: str, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.mode = 0o644
    for key, value in fields.items():
        setattr(info, key, value)
    return info


@pytest.mark.parametrize(
    "data",
    [
        packed((member("../escape.yaml"), b"x")),
        packed((member("/etc/passwd"), b"x")),
        packed((member("a/../b.yaml"), b"x")),
        packed((member(".hidden"), b"x")),
        packed((member("link.yaml", type=tarfile.SYMTYPE, linkname="/etc/passwd"), b"")),
        packed((member("hard.yaml", type=tarfile.LNKTYPE, linkname="a.yaml"), b"")),
        packed((member("folder", type=tarfile.DIRTYPE), b"")),
        packed((member("device", type=tarfile.CHRTYPE), b"")),
        packed((member("b.yaml"), b"x"), (member("a.yaml"), b"x")),
        packed((member("a.yaml"), b"x"), (member("a.yaml"), b"y")),
        packed((member("a.yaml", mtime=1), b"x")),
        packed((member("a.yaml", uid=1), b"x")),
        packed((member("a.yaml", mode=0o755), b"x")),
        packed((member("a.yaml", pax_headers={"comment": "x"}), b"x"), form=tarfile.PAX_FORMAT),
        pytest.param(packed((member("a.yaml"), b"x"), mode="w:gz"), id="gzip"),  # the time of its making is in it
        packed((member("a.yaml"), b"x")) + b"more",
        b"",
    ],
)
def test_an_archive_of_another_form_is_refused(data: bytes) -> None:
    with pytest.raises(Refusal):
        read_archive(data)


def test_a_name_that_others_may_read_otherwise_is_not_packed(tmp_path: Path) -> None:
    (tmp_path / "a b.yaml").write_text("x")
    with pytest.raises(PermanentError, match="name"):
        pack_policies(tmp_path)


def test_an_archive_has_a_limit(tmp_path: Path) -> None:
    (tmp_path / "large.yaml").write_bytes(b"x" * ARCHIVE_LIMIT)
    with pytest.raises(PermanentError, match="larger"):
        pack_policies(tmp_path)
    with pytest.raises(Refusal, match="larger"):
        read_archive(b"x" * (ARCHIVE_LIMIT + 1))
