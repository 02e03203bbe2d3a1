"""Which of a package's files is taken, and that nothing but its hash is believed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from upstream import Reply, Upstream, upstream

from sekisho.errors import PermanentError, Refusal, TemporaryError
from stages.build import indexes_http
from stages.build.artifacts import Fetcher
from stages.build.locks import Locked, parse_requirements

TARGET = "cp311-cp311-manylinux_2_28_x86_64"


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexes_http, "_FIRST_DELAY", 0.0)


@pytest.fixture
def index() -> Iterator[Upstream]:
    with upstream() as held:
        yield held


def fetcher(index: Upstream, folder: Path) -> Fetcher:
    return Fetcher(folder, index.indexes(folder))


def data(name: str) -> bytes:
    """The bytes of a file; what is in it does not matter here."""
    return f"content of {name}".encode()


def sha(name: str) -> str:
    return hashlib.sha256(data(name)).hexdigest()


def offer(index: Upstream, *names: str, project: str = "thing", html: bool = False) -> None:
    """Put files on the index, with a page in one of the two formats."""
    for name in names:
        index.replies[f"/pypi/files/{name}"] = data(name)
    if html:
        body = "<html>" + "".join(f'<a href="../files/{name}#sha256={sha(name)}">{name}</a>' for name in names)
    else:
        files = [{"filename": name, "url": f"../files/{name}", "hashes": {"sha256": sha(name)}} for name in names]
        body = json.dumps({"meta": {"api-version": "1.1"}, "name": project, "files": files})
    index.replies[f"/pypi/{project}/"] = body.encode()


def locked(*names: str, project: str = "thing", version: str = "1.0") -> Locked:
    hashes = " ".join(f"--hash=sha256:{sha(name)}" for name in names)
    (found,) = parse_requirements(f"{project}=={version} {hashes}\n".encode())
    return found


@pytest.mark.parametrize("html", [False, True])
def test_a_file_is_fetched_once_and_checked_at_every_use(index: Upstream, tmp_path: Path, html: bool) -> None:  # noqa: FBT001
    name = f"thing-1.0-{TARGET}.whl"
    offer(index, name, html=html)
    own = fetcher(index, tmp_path / "cache")
    (first,) = own.wheels([locked(name)])
    assert (first.name, first.sha256, first.path.read_bytes()) == (name, sha(name), data(name))
    count = len(index.asked)
    assert own.wheels([locked(name)]) == (first,)
    assert len(index.asked) == count
    first.path.write_bytes(b"poison")
    (again,) = own.wheels([locked(name)])
    assert again.path.read_bytes() == data(name)
    assert len(index.asked) > count


@pytest.mark.parametrize(
    ("offered", "taken"),
    [
        (["thing-1.0-py3-none-any.whl", f"thing-1.0-{TARGET}.whl"], f"thing-1.0-{TARGET}.whl"),
        (["thing-1.0-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", f"thing-1.0-{TARGET}.whl"],
         f"thing-1.0-{TARGET}.whl"),
        (["thing-1.0-cp39-abi3-manylinux_2_34_x86_64.whl", "thing-1.0-py3-none-any.whl"],
         "thing-1.0-cp39-abi3-manylinux_2_34_x86_64.whl"),
        (["thing-1.0-1-py3-none-any.whl", "thing-1.0-2-py3-none-any.whl"], "thing-1.0-2-py3-none-any.whl"),
        (["thing-1.0-py2.py3-none-any.whl", "thing-1.0.tar.gz"], "thing-1.0-py2.py3-none-any.whl"),
        (["thing-1.0-cp312-cp312-manylinux_2_28_x86_64.whl", "thing-1.0.zip", "thing-1.0.tar.gz"], "thing-1.0.tar.gz"),
        (["thing-1.0-cp311-cp311-musllinux_1_2_x86_64.whl", "thing-1.0-cp311-cp311-manylinux_2_39_x86_64.whl",
          "thing-1.0-cp311-cp311-manylinux_2_28_aarch64.whl", "thing-1.0-cp311-cp311-win_amd64.whl",
          "thing-1.0.zip"], "thing-1.0.zip"),
        (["thing-1.0-py3-none-any.whl", "thing-1.1-py3-none-any.whl", "thing_more-1.0-py3-none-any.whl"],
         "thing-1.0-py3-none-any.whl"),
    ],
)  # fmt: skip
def test_the_file_that_fits_best_is_taken(index: Upstream, tmp_path: Path, offered: list[str], taken: str) -> None:
    for names in (offered, offered[::-1]):
        offer(index, *names)
        (found,) = fetcher(index, tmp_path / names[0]).wheels([locked(*names)])
        assert found.name == taken


def test_another_python_takes_another_file(index: Upstream, tmp_path: Path) -> None:
    names = [f"thing-1.0-cp{minor}-cp{minor}-manylinux_2_28_x86_64.whl" for minor in (311, 313)]
    offer(index, *names)
    own = fetcher(index, tmp_path)
    assert [own.wheels([locked(*names)], python=python)[0].name for python in ("3.11", "3.13")] == names


def test_the_cache_never_decides_which_of_two_files_is_taken(index: Upstream, tmp_path: Path) -> None:
    """Another app's lock, with fewer hashes, brought the general wheel into the cache first."""
    general, native = "thing-1.0-py3-none-any.whl", f"thing-1.0-{TARGET}.whl"
    offer(index, general, native)
    warm = fetcher(index, tmp_path / "warm")
    assert warm.wheels([locked(general)])[0].name == general
    assert warm.wheels([locked(general, native)])[0].name == native


@pytest.mark.parametrize(
    "said",
    [b"", b"{", b"[]", b'{"name": "x"}',
     json.dumps({"name": "../../etc/passwd", "path": "files/x/y", "sha256": "A"}).encode(),
     json.dumps({"name": "thing-1.0-py3-none-any.whl", "path": "../x", "sha256": "A"}).encode(),
     json.dumps({"name": "thing-1.0-py3-none-any.whl", "path": "files/evil/x.whl", "sha256": "A"}).encode()],
)  # fmt: skip
def test_a_spoilt_memory_is_made_anew(index: Upstream, tmp_path: Path, said: bytes) -> None:
    name = "thing-1.0-py3-none-any.whl"
    offer(index, name)
    own = fetcher(index, tmp_path)
    own.wheels([locked(name)])
    (place,) = (tmp_path / "choices").glob("*.json")
    good = place.read_bytes()
    place.write_bytes(said.replace(b'"A"', f'"{"0" * 64}"'.encode()))
    assert own.wheels([locked(name)])[0].sha256 == sha(name)
    assert place.read_bytes() == good


def test_bytes_that_are_not_the_locked_ones_are_refused_with_both_hashes(index: Upstream, tmp_path: Path) -> None:
    name = "thing-1.0-py3-none-any.whl"
    offer(index, name)
    with pytest.raises(Refusal, match="not what the lock file says") as caught:
        fetcher(index, tmp_path).wheels([locked("other")])
    assert sha(name) in caught.value.what
    assert sha("other") in caught.value.what
    assert caught.value.where == "requirements.txt:1"
    index.replies[f"/pypi/files/{name}"] = b"changed since"
    with pytest.raises(Refusal, match="changed its hash"):
        fetcher(index, tmp_path).wheels([locked(name)])


def test_a_package_that_does_not_fit_is_refused(index: Upstream, tmp_path: Path) -> None:
    name = "thing-1.0-cp312-cp312-win_amd64.whl"
    offer(index, name)
    with pytest.raises(Refusal, match=r"neither a wheel .* for Python 3.11 .* nor a source package"):
        fetcher(index, tmp_path).wheels([locked(name)])
    with pytest.raises(Refusal, match="has no gone"):
        fetcher(index, tmp_path).wheels([locked(name, project="gone")])


def test_a_locked_version_that_vanished_from_the_index_is_named_as_such(index: Upstream, tmp_path: Path) -> None:
    offer(index, "thing-1.1-py3-none-any.whl", "thing-1.1.tar.gz")
    with pytest.raises(Refusal, match=r"lists no file of thing 1\.0: the locked version has vanished") as caught:
        fetcher(index, tmp_path).wheels([locked("thing-1.0-py3-none-any.whl")])
    assert caught.value.where == "requirements.txt:1"
    assert caught.value.remedy == "Choose a version that the index lists, and lock again."


@pytest.mark.parametrize("page", [b"{", b'{"files": 3}', b'{"files": [3]}', b'{"files": [{"filename": "x"}]}'])
def test_a_page_that_cannot_be_read_is_the_platforms_to_mend(index: Upstream, tmp_path: Path, page: bytes) -> None:
    index.replies["/pypi/thing/"] = page
    with pytest.raises(PermanentError, match="cannot be read"):
        fetcher(index, tmp_path).wheels([locked("x")])


def test_an_index_without_hashes_or_with_files_elsewhere_is_the_platforms_to_mend(
    index: Upstream, tmp_path: Path
) -> None:
    index.replies["/pypi/thing/"] = b'<a href="../files/thing-1.0-py3-none-any.whl">x</a>'
    with pytest.raises(PermanentError, match="does not say the sha256"):
        fetcher(index, tmp_path).wheels([locked("x")])
    link = f'<a href="https://evil.example/thing-1.0-py3-none-any.whl#sha256={sha("x")}">x</a>'
    index.replies["/pypi/thing/"] = link.encode()
    with pytest.raises(PermanentError, match=r"at evil\.example, which the line may not reach"):
        fetcher(index, tmp_path).wheels([locked("x")])


def test_an_index_that_fails_is_temporary(index: Upstream, tmp_path: Path) -> None:
    index.replies["/pypi/thing/"] = Reply(status=503)
    with pytest.raises(TemporaryError):
        fetcher(index, tmp_path).wheels([locked("x")])
    assert not list((tmp_path / "choices").glob("*.json"))
    assert not list((tmp_path / "choices").glob(".page-*"))
