"""Archives in images: fetched by hash, unpacked by our rules, in a layer of their own."""

import base64
import hashlib
import io
import tarfile
import zipfile

import pytest

from sekisho.errors import PermanentError, TemporaryError, VerificationError
from sekisho.images.archives import by_target, for_architecture, module_sum, obtain, unpack
from sekisho.standard import ArchiveSpec

EPOCH = 1_735_689_600


def tarball(**files):
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w:gz") as tar:
        for name, content in files.items():
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            data = b"" if isinstance(content, tarfile.TarInfo) else content
            info.name, info.size, info.mode = name, len(data), 0o777 if name.endswith("tool") else 0o600
            tar.addfile(info, io.BytesIO(data))
    return plain.getvalue()


def zipped(**files):
    plain = io.BytesIO()
    with zipfile.ZipFile(plain, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return plain.getvalue()


def spec(data, **more):
    return ArchiveSpec.model_validate(
        {
            "purl": "pkg:npm/thing@1.0.0",
            "url": "https://registry.npmjs.org/thing/-/thing-1.0.0.tgz",
            "sha256": hashlib.sha256(data).hexdigest(),
            "target": "/usr/local/thing",
            **more,
        }
    )


@pytest.fixture(autouse=True)
def at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("SEKISHO_HOME", str(tmp_path / "home"))


@pytest.fixture
def index(monkeypatch):
    """An index that serves `answers`: url -> bytes; keeps what was asked for."""
    answers, asked = {}, []

    def download(url, target, sha256):
        asked.append(url)
        if url not in answers:
            raise TemporaryError("no answer", where=url)
        data = answers[url]
        if hashlib.sha256(data).hexdigest() != sha256:
            raise VerificationError("other bytes", where=url)
        target.write_bytes(data)

    monkeypatch.setattr("sekisho.images.archives.download", download)
    return answers, asked


def unpacked(tmp_path, data, **more):
    source, root = tmp_path / "source", tmp_path / "root"
    source.write_bytes(data)
    root.mkdir()
    unpack(spec(data, **more), source, root, epoch=EPOCH)
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


# -- fetching --------------------------------------------------------------------------------------------------


def test_an_archive_is_fetched_once_and_checked_each_time(index):
    answers, asked = index
    data = tarball(**{"package/a": b"1"})
    wanted = spec(data)
    answers[wanted.url] = data
    path = obtain(wanted)
    assert obtain(wanted) == path
    assert asked == [wanted.url]
    path.write_bytes(b"poison")
    assert obtain(wanted).read_bytes() == data
    assert asked == [wanted.url, wanted.url]


def test_other_bytes_than_pinned_never_reach_the_cache(index, tmp_path):
    answers, _ = index
    wanted = spec(b"pinned")
    answers[wanted.url] = b"another"
    with pytest.raises(VerificationError):
        obtain(wanted)
    assert [path.name for path in (tmp_path / "home/cache/archives").iterdir()] == []


def test_what_the_index_says_must_hold_as_well(index):
    answers, _ = index
    data = tarball(**{"package/a": b"1"})
    sha512 = f"sha512-{base64.b64encode(hashlib.sha512(data).digest()).decode()}"
    good, bad = spec(data, also=[sha512]), spec(data, also=["sha512-bm8="])
    answers[good.url] = data
    with pytest.raises(VerificationError, match="is pinned"):
        obtain(bad)
    assert obtain(good).read_bytes() == data


def test_a_go_modules_sum_is_that_of_the_public_checksum_database(tmp_path):
    # golang.org/x/mod/sumdb/dirhash, TestHash1: the digest of "<sha256 of the file>  <name>\n" for each name, sorted.
    path = tmp_path / "module.zip"
    path.write_bytes(zipped(**{"m@v1/go.mod": "module m\n", "m@v1/a.go": "package m\n"}))
    lines = "".join(
        f"{hashlib.sha256(text).hexdigest()}  {name}\n"
        for name, text in (("m@v1/a.go", b"package m\n"), ("m@v1/go.mod", b"module m\n"))
    )
    assert module_sum(path) == f"h1:{base64.b64encode(hashlib.sha256(lines.encode()).digest()).decode()}"


def test_a_pin_of_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match=r"neither sha512-… nor h1:…"):
        spec(b"", also=["md5-x"])


# -- unpacking -------------------------------------------------------------------------------------------------


def test_files_get_fixed_modes_owners_and_times(tmp_path):
    data = tarball(**{"package/bin/tool": b"#!", "package/README.md": b"text"})
    found = unpacked(tmp_path, data, strip=1, links={"/usr/local/bin/tool": "../thing/bin/tool"})
    assert found == {"usr/local/thing/bin/tool": b"#!", "usr/local/thing/README.md": b"text"}
    tool = (tmp_path / "root/usr/local/thing/bin/tool").stat()
    assert (tool.st_mode & 0o7777, int(tool.st_mtime)) == (0o755, EPOCH)
    assert (tmp_path / "root/usr/local/thing/README.md").stat().st_mode & 0o7777 == 0o644
    assert str((tmp_path / "root/usr/local/bin/tool").readlink()) == "../thing/bin/tool"


def test_take_and_leave_choose(tmp_path):
    data = tarball(
        **{"package/bin/tool": b"1", "package/docs/a": b"2", "package/lib/x": b"3", "package/lib/x.md": b"4"}
    )
    found = unpacked(tmp_path, data, strip=1, take=["bin", "lib"], leave=["**.md"])
    assert sorted(found) == ["usr/local/thing/bin/tool", "usr/local/thing/lib/x"]


def test_a_zip_holds_no_modes_so_the_recipe_says_them(tmp_path):
    data = zipped(**{"m@v1/bin/go": "x", "m@v1/src/a.go": "y"})
    url = "https://proxy.golang.org/m/@v/v1.zip"
    found = unpacked(tmp_path, data, url=url, strip=1, executable=["bin/*"])
    assert sorted(found) == ["usr/local/thing/bin/go", "usr/local/thing/src/a.go"]
    assert (tmp_path / "root/usr/local/thing/bin/go").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "root/usr/local/thing/src/a.go").stat().st_mode & 0o777 == 0o644


def member(kind, link=""):
    info = tarfile.TarInfo("x")
    info.type, info.linkname = kind, link
    return info


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"package/../../etc/passwd": b"x"}, "holds the name"),
        ({"/etc/passwd": b"x"}, "holds the name"),
        ({"package/a\nb": b"x"}, "holds the name"),
        ({"package/link": member(tarfile.SYMTYPE, "/etc/passwd")}, "no regular file"),
        ({"package/device": member(tarfile.CHRTYPE)}, "no regular file"),
        ({"package/pipe": member(tarfile.FIFOTYPE)}, "no regular file"),
    ],
)
def test_what_no_archive_may_hold_is_refused(tmp_path, files, why):
    with pytest.raises(PermanentError, match=why):
        unpacked(tmp_path, tarball(**files), strip=1)


def test_a_damaged_archive_is_an_error(tmp_path):
    data = tarball(**{"package/a": b"1" * 5000})
    with pytest.raises(PermanentError, match="cannot be unpacked"):
        unpacked(tmp_path, data[:-40], strip=1)


def test_an_archive_without_what_the_recipe_takes_is_an_error(tmp_path):
    with pytest.raises(PermanentError, match="holds nothing"):
        unpacked(tmp_path, tarball(**{"package/a": b"1"}), strip=1, take=["bin"])


# -- choosing --------------------------------------------------------------------------------------------------


def test_archives_of_other_architectures_are_left_out():
    here, there = spec(b"1", architecture="amd64"), spec(b"2", architecture="arm64")
    both = spec(b"3", target="/opt/both")
    assert for_architecture((here, there, both), "amd64") == (here, both)


def test_a_package_that_is_not_pinned_for_this_architecture_is_an_error():
    with pytest.raises(PermanentError, match="pinned for amd64, not for arm64"):
        for_architecture((spec(b"1", architecture="amd64"), spec(b"3", target="/opt/both")), "arm64")


def test_archives_with_one_target_make_one_layer():
    one, two, three = spec(b"1"), spec(b"2", target="/opt"), spec(b"3")
    assert by_target((one, two, three)) == {"/usr/local/thing": (one, three), "/opt": (two,)}
