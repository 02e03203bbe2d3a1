"""Files of locks: fetched once, checked at each use, never believed."""

from __future__ import annotations

import base64
import errno
import gc
import hashlib
import io
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from upstream import Reply, Upstream, upstream

from sekisho.errors import Refusal, TemporaryError
from stages.build import artifacts as module
from stages.build import artifacts_dirhash, indexes_http
from stages.build.artifacts import Fetched, Fetcher, lay_out
from stages.build.artifacts_digests import DIGESTS, Digests
from stages.build.language import Artifact


def sha(kind: str, data: bytes) -> str:
    return f"{kind}:{hashlib.new(kind, data).hexdigest()}"


def artifact(path: str, data: bytes, *kinds: str, ecosystem: str = "npm") -> Artifact:
    digests = tuple(sha(kind, data) for kind in kinds or ("sha256",))
    return Artifact(ecosystem, path, digests, path.rpartition("/")[2], where="package-lock.json:7")  # type: ignore[arg-type]


def module_zip(files: dict[str, bytes], *, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return held.getvalue()


def h1(files: dict[str, bytes]) -> str:
    """As `sha256sum $(find . -type f | sort) | sha256sum`, which is how Go describes it."""
    lines = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(files.items()))
    return "h1:" + base64.b64encode(hashlib.sha256(lines.encode()).digest()).decode()


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexes_http, "_FIRST_DELAY", 0.0)


@pytest.fixture
def index() -> Iterator[Upstream]:
    with upstream() as held:
        yield held


@pytest.fixture
def fetcher(index: Upstream, tmp_path: Path) -> Fetcher:
    return Fetcher(tmp_path / "cache", index.indexes(tmp_path))


def settle(path: Path) -> None:
    """Let a file look as old as one of an earlier build: what is younger than the clock's step is not remembered."""
    for _ in range(500):
        DIGESTS.of(path, ())
        if DIGESTS.remembered(path, ()) is not None:
            return
        threading.Event().wait(0.005)
    pytest.fail("the file never settled")


# -- by hash -------------------------------------------------------------------------------------------------------


def test_files_come_in_order_and_each_once(index: Upstream, fetcher: Fetcher) -> None:
    data = {f"p{number}/-/p{number}-1.tgz": bytes([number]) * 50_000 for number in range(30)}
    index.replies |= {f"/npm/{path}": body for path, body in data.items()}
    wanted = [artifact(path, body, "sha512", "sha1") for path, body in data.items()]
    found = fetcher.files([*wanted, wanted[0]])
    assert [item.artifact for item in found] == [*wanted, wanted[0]]
    assert [item.path.read_bytes() for item in found] == [*data.values(), data[wanted[0].path]]
    assert [item.sha256 for item in found[:30]] == [hashlib.sha256(body).hexdigest() for body in data.values()]
    assert sorted(index.asked) == sorted(f"/npm/{path}" for path in data)
    assert fetcher.files(wanted) == found[:30]
    assert len(index.asked) == 30
    assert fetcher.files([]) == ()


def test_an_old_cache_serves_another_process(index: Upstream, fetcher: Fetcher, tmp_path: Path) -> None:
    index.replies["/npm/a/-/a-1.tgz"] = b"package"
    wanted = artifact("a/-/a-1.tgz", b"package", "sha512")
    fetcher.files([wanted])
    (again,) = Fetcher(tmp_path / "cache", index.indexes(tmp_path)).files([wanted])
    assert again.path.read_bytes() == b"package"
    assert len(index.asked) == 1


@pytest.mark.parametrize("kinds", [("sha256",), ("sha512",), ("sha1",), ("sha256", "sha512", "sha1")])
@pytest.mark.parametrize(
    "poison", ["other bytes", "truncated", "a link", "a folder", "gone", "other bytes, same times"]
)
def test_what_is_not_right_in_the_store_is_fetched_anew(
    index: Upstream, fetcher: Fetcher, tmp_path: Path, kinds: tuple[str, ...], poison: str
) -> None:
    index.replies["/npm/a/-/a-1.tgz"] = b"package"
    wanted = artifact("a/-/a-1.tgz", b"package", *kinds)
    (found,) = fetcher.files([wanted])
    settle(found.path)
    before = found.path.stat()
    found.path.chmod(0o644)
    if poison == "truncated":
        os.truncate(found.path, 3)
    elif poison.startswith("other"):
        found.path.write_bytes(b"p0ison!")
        if "times" in poison:
            os.utime(found.path, ns=(before.st_atime_ns, before.st_mtime_ns))
            assert found.path.stat().st_size == before.st_size
    else:
        found.path.unlink()
        if poison == "a link":
            (tmp_path / "elsewhere").write_bytes(b"package")
            found.path.symlink_to(tmp_path / "elsewhere")
        elif poison == "a folder":
            (found.path / "x").mkdir(parents=True)
    (again,) = fetcher.files([wanted])
    assert again.path.read_bytes() == b"package"
    assert not again.path.is_symlink()
    assert len(index.asked) == 2


def test_a_hint_proves_nothing(index: Upstream, fetcher: Fetcher) -> None:
    index.replies |= {"/npm/a/-/a-1.tgz": b"package", "/npm/b/-/b-1.tgz": b"another"}
    wanted, other = artifact("a/-/a-1.tgz", b"package", "sha512"), artifact("b/-/b-1.tgz", b"another", "sha512")
    found = fetcher.files([wanted, other])
    store = fetcher._store
    store.note(found[1].sha256, "digests", sha("sha512", b"package"))
    assert fetcher.files([wanted])[0].sha256 == found[0].sha256
    assert len(index.asked) == 3
    for text in ("../../../etc/passwd", "0" * 64, "x"):
        place = Path(store._known(("digests", sha("sha512", b"package"))))
        place.unlink()
        place.symlink_to(text)
        assert fetcher.files([wanted])[0].path.read_bytes() == b"package"


def test_a_file_that_did_not_change_is_not_read_again(
    index: Upstream, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.replies["/npm/a/-/a-1.tgz"] = b"package"
    wanted = artifact("a/-/a-1.tgz", b"package", "sha512")
    (found,) = fetcher.files([wanted])
    DIGESTS.of(found.path, ("sha512",))
    settle(found.path)
    opened = []
    real = os.open
    monkeypatch.setattr(os, "open", lambda path, *rest: (opened.append(str(path)), real(path, *rest))[1])
    fetcher.files([wanted])
    assert str(found.path) not in opened
    os.utime(found.path)
    fetcher.files([wanted])
    assert str(found.path) in opened


def test_a_file_younger_than_the_clocks_step_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"a")
    now = (tmp_path / "a").stat().st_ctime_ns
    digests = Digests()
    monkeypatch.setattr("stages.build.artifacts_digests.time.time_ns", lambda: now + 1_000_000)
    digests.of(tmp_path / "a", ())
    assert digests.remembered(tmp_path / "a", ()) is None
    monkeypatch.setattr("stages.build.artifacts_digests.time.time_ns", lambda: now + 100_000_000)
    digests.of(tmp_path / "a", ())
    assert digests.remembered(tmp_path / "a", ()) == {"sha256": hashlib.sha256(b"a").hexdigest()}
    assert digests.remembered(tmp_path / "a", ("sha1",)) is None


@pytest.mark.parametrize("kind", ["sha256", "sha512", "sha1"])
def test_a_changed_hash_is_refused_with_its_place(index: Upstream, fetcher: Fetcher, kind: str) -> None:
    index.replies["/npm/a/-/a-1.tgz"] = b"package with a worm"
    wanted = artifact("a/-/a-1.tgz", b"package", kind)
    with pytest.raises(Refusal, match="changed its hash") as caught:
        fetcher.files([wanted])
    assert sha(kind, b"package").partition(":")[2] in caught.value.what
    assert sha(kind, b"package with a worm").partition(":")[2] in caught.value.what
    assert "a/-/a-1.tgz" in caught.value.what
    assert caught.value.where == "package-lock.json:7"
    assert caught.value.remedy
    assert not list(fetcher._store.root.glob("files/??/*"))
    assert not list(fetcher._store.root.glob("part/*"))


def test_all_declared_digests_must_hold(index: Upstream, fetcher: Fetcher) -> None:
    index.replies["/npm/a/-/a-1.tgz"] = b"package"
    digests = (sha("sha256", b"package"), sha("sha512", b"package"), sha("sha1", b"another"))
    with pytest.raises(Refusal, match="with sha1"):
        fetcher.files([Artifact("npm", "a/-/a-1.tgz", digests, "a")])
    fetcher.files([Artifact("npm", "a/-/a-1.tgz", digests[:2], "a")])
    with pytest.raises(Refusal, match="with sha1"):
        fetcher.files([Artifact("npm", "a/-/a-1.tgz", digests, "a")])


@pytest.mark.parametrize("status", [404, 410, 403, 451])
def test_a_dependency_that_vanished_is_refused_with_its_place(index: Upstream, fetcher: Fetcher, status: int) -> None:
    index.replies["/npm/a/-/a-1.tgz"] = Reply(status=status)
    with pytest.raises(Refusal, match="vanished") as caught:
        fetcher.files([artifact("a/-/a-1.tgz", b"package")])
    assert caught.value.where == "package-lock.json:7"
    assert caught.value.remedy
    assert not list(fetcher._store.root.glob("part/*"))


@pytest.mark.parametrize("reply", [Reply(status=500), Reply(b"package", cut=2)])
def test_an_index_that_fails_is_temporary_and_names_the_package(
    index: Upstream, fetcher: Fetcher, reply: Reply
) -> None:
    index.replies["/npm/a/-/a-1.tgz"] = reply
    with pytest.raises(TemporaryError, match=r"a/-/a-1\.tgz") as caught:
        fetcher.files([artifact("a/-/a-1.tgz", b"package")])
    assert caught.value.where.startswith("package-lock.json:7, http://127.0.0.1")


def test_a_no_counts_more_than_a_fault_that_may_pass(index: Upstream, fetcher: Fetcher) -> None:
    index.replies |= {"/npm/a": Reply(status=500), "/npm/b": Reply(status=404, pause=0.05)}
    with pytest.raises(Refusal, match="vanished"):
        fetcher.files([artifact("a", b"a"), artifact("b", b"b")])


def test_a_file_that_is_too_large_is_refused(
    index: Upstream, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.replies |= {"/npm/a": b"a" * 100, "/npm/b": b"b" * 100}
    monkeypatch.setattr(module, "MAX_FILE", 99)
    with pytest.raises(Refusal, match="larger"):
        fetcher.files([artifact("a", b"a" * 100)])
    monkeypatch.setattr(module, "MAX_FILE", 100)
    monkeypatch.setattr(module, "MAX_ALL", 199)
    with pytest.raises(Refusal, match="larger"):
        fetcher.files([artifact("a", b"a" * 100), artifact("b", b"b" * 100)])
    monkeypatch.setattr(module, "MAX_ARTIFACTS", 1)
    with pytest.raises(Refusal, match="2 files"):
        fetcher.files([artifact("a", b"a" * 100), artifact("b", b"b" * 100)])


@pytest.mark.parametrize(
    "digests",
    [(), ("md5:" + "0" * 32,), ("sha256:" + "0" * 63,), ("sha256:" + "A" * 64,), ("h1:abc",), ("sha256",),
     ("sha256:" + "0" * 64, "sha256:" + "1" * 64)],
)  # fmt: skip
def test_a_file_without_a_whole_digest_is_refused_unfetched(
    index: Upstream, fetcher: Fetcher, digests: tuple[str, ...]
) -> None:
    with pytest.raises(Refusal, match="digest") as caught:
        fetcher.files([Artifact("npm", "a", digests, "a", where="lock:1")])
    assert caught.value.where == "lock:1"
    assert index.asked == []


def test_a_path_out_of_the_index_is_refused_unfetched(index: Upstream, fetcher: Fetcher) -> None:
    with pytest.raises(Refusal):
        fetcher.files([artifact("../../admin/x", b"a")])
    assert index.asked == []


def test_a_full_disk_is_said_plainly(index: Upstream, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch) -> None:
    index.replies["/npm/a"] = b"a"

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "hardlink_to", full)
    with pytest.raises(TemporaryError, match="disk is full"):
        fetcher.files([artifact("a", b"a")])


def test_builders_at_the_same_time_do_not_disturb_each_other(index: Upstream, tmp_path: Path) -> None:
    data = {f"p{number}": bytes([number]) * 1000 for number in range(40)}
    index.replies |= {f"/npm/{path}": body for path, body in data.items()}
    wanted = [artifact(path, body, "sha512") for path, body in data.items()]
    results, errors = [], []

    def build() -> None:
        try:
            mine = Fetcher(tmp_path / "cache", index.indexes(tmp_path))
            found = mine.files(wanted)
            with mine.laid_out(found) as folder:
                results.append({path.name: path.read_bytes() for path in folder.iterdir()})
        except BaseException as error:  # noqa: BLE001 -- of a thread; shown below
            errors.append(error)

    threads = [threading.Thread(target=build) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert results == [data] * 6


# -- Go's hashes ---------------------------------------------------------------------------------------------------

GO = {"example.com/m@v1.0.0/go.mod": b"module example.com/m\n", "example.com/m@v1.0.0/\xe4.go": b"package m\n" * 1000}
_ZIP = "example.com/m/@v/v1.0.0.zip"


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_modules_zip_is_known_by_what_it_holds(index: Upstream, fetcher: Fetcher, method: int) -> None:
    index.replies[f"/go/{_ZIP}"] = module_zip(GO, method=method)
    (found,) = fetcher.files([Artifact("go", _ZIP, (h1(GO),), "a.zip")])
    assert found.path.read_bytes() == index.replies[f"/go/{_ZIP}"]
    with pytest.raises(Refusal, match="changed its hash"):
        fetcher.files([Artifact("go", _ZIP, (h1({**GO, "x": b""}),), "a.zip")])


def test_a_go_mod_is_known_by_its_hash(index: Upstream, fetcher: Fetcher) -> None:
    index.replies["/go/m/@v/v1.mod"] = b"module m\n"
    good = h1({"go.mod": b"module m\n"}).replace("h1:", "h1mod:")
    fetcher.files([Artifact("go", "m/@v/v1.mod", (good,), "a.mod")])
    bad = h1({"go.mod": b"module n\n"}).replace("h1:", "h1mod:")
    with pytest.raises(Refusal, match="h1mod"):
        fetcher.files([Artifact("go", "m/@v/v1.mod", (bad,), "a.mod")])


def _twice() -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr("m/a", b"1")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("m/a", b"2")
    return held.getvalue()


def _says_less() -> bytes:
    """A bomb whose directory tells a small size."""
    raw = bytearray(module_zip({"m/a": bytes(5_000_000)}))
    at = raw.rindex(b"PK\x01\x02") + 24
    raw[at : at + 4] = (10).to_bytes(4, "little")
    return bytes(raw)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no zip",
        pytest.param(module_zip({"m/a": b"a"})[:-30], id="cut off"),  # the time of its making is in it
        module_zip({"../a": b"a"}),
        module_zip({"/a": b"a"}),
        module_zip({"m//a": b"a"}),
        module_zip({"m/a\nb": b"a"}),
        module_zip({"m/": b""}),
        module_zip({"m/a": bytes(3_000_000)}),
        module_zip({f"m/{number}": b"" for number in range(101)}),
        _twice(),
        _says_less(),
    ],
)  # fmt: skip
def test_a_zip_that_no_module_may_be_is_refused(
    index: Upstream, fetcher: Fetcher, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifacts_dirhash, "MAX_UNPACKED", 2_000_000)
    monkeypatch.setattr(artifacts_dirhash, "MAX_ENTRIES", 100)
    index.replies[f"/go/{_ZIP}"] = data
    with pytest.raises(Refusal, match="h1 none"):
        fetcher.files([Artifact("go", _ZIP, (h1(GO),), "a.zip")])


def test_a_directory_of_a_zip_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "z.zip").write_bytes(module_zip({f"m/{number:0200}": b"" for number in range(90)}))
    monkeypatch.setattr(artifacts_dirhash, "_MAX_READ", 10_000)
    with (tmp_path / "z.zip").open("rb") as file, pytest.raises(Refusal, match="directory is too large"):
        artifacts_dirhash.hash_zip(file.fileno())


# -- laid out ------------------------------------------------------------------------------------------------------


def fetched(index: Upstream, fetcher: Fetcher, *names: str) -> tuple[Fetched, ...]:
    index.replies |= {f"/npm/{number}": name.encode() for number, name in enumerate(names)}
    return fetcher.files(
        [Artifact("npm", str(number), (sha("sha256", name.encode()),), name) for number, name in enumerate(names)]
    )


def test_files_are_laid_out_for_another_user_and_kept(index: Upstream, fetcher: Fetcher) -> None:
    old = os.umask(0o077)
    try:
        found = fetched(index, fetcher, "a.tgz", "@scope/b/c.tgz")
        with fetcher.laid_out(found) as folder:
            first = folder.stat().st_ino
            assert {str(path.relative_to(folder)) for path in folder.rglob("*.tgz")} == {"a.tgz", "@scope/b/c.tgz"}
            assert (folder / "@scope/b/c.tgz").read_bytes() == b"@scope/b/c.tgz"
            assert {path.stat().st_mode & 0o777 for path in folder.rglob("*.tgz")} == {0o444}
            assert {path.stat().st_mode & 0o777 for path in (folder, folder / "@scope", folder / "@scope/b")} == {0o755}
    finally:
        os.umask(old)
    with fetcher.laid_out(fetcher.files([item.artifact for item in found])) as folder:
        assert folder.stat().st_ino == first


@pytest.mark.parametrize("harm", ["changed", "missing", "added", "a link", "gone"])
def test_a_laid_out_folder_that_is_not_right_is_made_anew(index: Upstream, fetcher: Fetcher, harm: str) -> None:
    found = fetched(index, fetcher, "a.tgz", "b.tgz")
    with fetcher.laid_out(found) as folder:
        pass
    if harm == "added":
        (folder / "c.tgz").write_bytes(b"c")
    elif harm == "gone":
        shutil.rmtree(folder)
    else:
        (folder / "a.tgz").unlink()
        if harm == "changed":
            (folder / "a.tgz").write_bytes(b"a.tgz")
        elif harm == "a link":
            (folder / "a.tgz").symlink_to(folder / "b.tgz")
    with fetcher.laid_out(fetcher.files([item.artifact for item in found])) as folder:
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"a.tgz": b"a.tgz", "b.tgz": b"b.tgz"}
        assert not any(path.is_symlink() for path in folder.iterdir())


def test_the_same_bytes_written_through_the_folder_are_found(index: Upstream, fetcher: Fetcher) -> None:
    """The folder's files are the store's own: whoever wrote into one would poison the store, and is found out."""
    found = fetched(index, fetcher, "a.tgz")
    with fetcher.laid_out(found) as folder:
        settle(found[0].path)
        (folder / "a.tgz").chmod(0o644)
        (folder / "a.tgz").write_bytes(b"worm!")
    (again,) = fetcher.files([found[0].artifact])
    assert again.path.read_bytes() == b"a.tgz"


@pytest.mark.parametrize("name", ["", "/a", "../a", "a/../b", "a//b", "a/", ".", "a\nb", "a\\b", "ä", "x" * 300])
def test_a_name_that_is_not_plain_is_not_laid_out(index: Upstream, fetcher: Fetcher, name: str, tmp_path: Path) -> None:
    index.replies["/npm/a"] = b"a"
    found = fetcher.files([Artifact("npm", "a", (sha("sha256", b"a"),), name)])
    with pytest.raises(Refusal), fetcher.laid_out(found):
        pass
    with pytest.raises(Refusal):
        lay_out(found, tmp_path / "folder")


def test_two_files_do_not_get_one_name(index: Upstream, fetcher: Fetcher) -> None:
    index.replies |= {"/npm/a": b"a", "/npm/b": b"b"}
    for names in (("x", "x"), ("x", "x/y")):
        found = fetcher.files(
            [
                Artifact("npm", path, (sha("sha256", path.encode()),), name)
                for path, name in zip("ab", names, strict=True)
            ]
        )
        with pytest.raises(Refusal), fetcher.laid_out(found):
            pass


def test_a_folder_on_another_file_system_gets_copies(
    index: Upstream, fetcher: Fetcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = fetched(index, fetcher, "a.tgz")

    def elsewhere(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(Path, "hardlink_to", elsewhere)
    lay_out(found, tmp_path / "folder")
    assert (tmp_path / "folder/a.tgz").read_bytes() == b"a.tgz"


# -- the limit -----------------------------------------------------------------------------------------------------


def total(fetcher: Fetcher) -> int:
    return sum(path.stat().st_size for path in fetcher._store.root.glob("files/??/*"))


def test_what_was_used_least_lately_goes_first(index: Upstream, tmp_path: Path) -> None:
    index.replies |= {f"/npm/{name}": name.encode() * 1000 for name in "abcd"}
    fetcher = Fetcher(tmp_path / "cache", index.indexes(tmp_path), limit=2000)
    for age, name in enumerate("abcd"):
        fetcher.files([artifact(name, name.encode() * 1000)])
        for listed in fetcher._store.root.glob("sets/*/list"):
            if listed.read_text().split() == [hashlib.sha256(name.encode() * 1000).hexdigest()]:
                os.utime(listed, (1e9 + age, 1e9 + age) if name != "a" else None)
    gc.collect()
    fetcher._store.trim()
    kept = {path.read_bytes()[:1] for path in fetcher._store.root.glob("files/??/*")}
    assert kept == {b"a"}
    assert fetcher._store.trim() == 0


def test_what_a_build_uses_is_never_removed(index: Upstream, tmp_path: Path) -> None:
    index.replies |= {f"/npm/{name}": name.encode() * 1000 for name in "abc"}
    fetcher = Fetcher(tmp_path / "cache", index.indexes(tmp_path), limit=0)
    held = fetcher.files([artifact("a", b"a" * 1000)])
    with fetcher.laid_out(fetcher.files([artifact("b", b"b" * 1000)])) as folder:
        gc.collect()
        Fetcher(tmp_path / "cache", index.indexes(tmp_path), limit=0)._store.trim()
        assert held[0].path.read_bytes() == b"a" * 1000
        assert (folder / "b").read_bytes() == b"b" * 1000
    del held
    gc.collect()
    assert fetcher._store.trim() == 2000
    assert total(fetcher) == 0
    assert not list(fetcher._store.root.glob("known/??/*"))
    assert fetcher.files([artifact("a", b"a" * 1000)])[0].path.read_bytes() == b"a" * 1000


def test_the_limit_is_looked_after_while_fetching(
    index: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_TRIM_EVERY", 1)
    fetcher = Fetcher(tmp_path / "cache", index.indexes(tmp_path), limit=5000)
    for number in range(20):
        index.replies[f"/npm/{number}"] = str(number).encode() * 1000
        fetcher.files([artifact(str(number), str(number).encode() * 1000)])
        gc.collect()
        assert total(fetcher) <= 5000


def test_a_builder_that_was_killed_holds_nothing(index: Upstream, tmp_path: Path) -> None:
    index.replies["/npm/a"] = b"a" * 1000
    script = (
        "import sys, os, signal; from pathlib import Path; from stages.build.artifacts import Fetcher;"
        "from stages.build.indexes import Indexes; from stages.build.language import Artifact;"
        f"f = Fetcher(Path({str(tmp_path / 'cache')!r}), Indexes.from_environment(environment={{"
        f"'SEKISHO_INDEX_NPM': {index.url + '/npm/'!r}, 'HOME': '/nonexistent'}}), limit=0);"
        f"held = f.files([Artifact('npm', 'a', ({sha('sha256', b'a' * 1000)!r},), 'a')]);"
        "print(held[0].path.stat().st_size, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"1000\n"
        fetcher = Fetcher(tmp_path / "cache", index.indexes(tmp_path), limit=0)
        assert fetcher._store.trim() == 0
        other.kill()
        other.wait()
    assert fetcher._store.trim() == 1000
