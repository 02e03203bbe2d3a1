"""What the line sends into the sandbox for Rust: its own functions, without cargo."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import tarfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.build.languages import rust_sandbox
from stages.build.languages.rust_sandbox import audit, farm, linked, prune


def test_the_audit_section_is_zlib_of_json() -> None:
    assert json.loads(zlib.decompress(audit([("itoa", "1.0.0")]))) == {
        "packages": [{"name": "itoa", "version": "1.0.0", "source": "crates.io"}]
    }


@settings(deadline=None)
@given(st.lists(st.tuples(st.text(max_size=40), st.text(max_size=40)), max_size=20), st.integers(0, 3))
def test_any_list_is_a_whole_stream(packages: list[tuple[str, str]], times: int) -> None:
    many = packages * (times * 200 + 1)
    read = json.loads(zlib.decompress(audit(many)))["packages"]
    assert [(item["name"], item["version"]) for item in read] == many


def test_the_bytes_of_the_section_are_decided_by_nothing_but_the_list() -> None:
    data = b'{"packages":[]}'
    stored = struct.pack("<BHH", 1, len(data), len(data) ^ 0xFFFF) + data
    assert audit([]) == b"\x78\x01" + stored + struct.pack(">I", zlib.adler32(data))


@pytest.mark.parametrize(
    ("words", "overrides"),
    [
        (["build"], []),
        (["build", "app", "part"], ['profile.release.package."app".opt-level=0',
                                    'profile.release.package."part".opt-level=0']),
    ],
)  # fmt: skip
def test_the_build_is_told_what_not_to_optimise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], overrides: list[str]
) -> None:
    seen: list[str] = []

    def cargo(command: list[str], **_: object) -> subprocess.CompletedProcess[bytes]:
        seen.extend(command)
        return subprocess.CompletedProcess(command, 101)

    monkeypatch.setattr(rust_sandbox, "SCRATCH", tmp_path)
    monkeypatch.setattr(rust_sandbox, "OUT", tmp_path)
    monkeypatch.setattr(rust_sandbox, "IN", tmp_path / "in")
    monkeypatch.setattr(subprocess, "run", cargo)
    told = {"manifests": {"Cargo.toml": ["app"]}, "features": [], "config": "", "into": "bin", "binaries": ["app"]}
    (tmp_path / "settings.json").write_text(json.dumps(told))
    with pytest.raises(SystemExit):
        rust_sandbox.main(words, tmp_path)
    assert [seen[place + 1] for place, word in enumerate(seen) if word == "--config"] == overrides


def test_the_lines_of_cargo_tree_are_read() -> None:
    tree = "app v0.0.0 (/tmp/work)\naxum v0.8.4\nserde_derive v1.0.0 (proc-macro)\nlibgit2-sys v0.17.0+1.8.1\n\n"
    assert linked(tree) == {
        ("app", "0.0.0"), ("axum", "0.8.4"), ("serde_derive", "1.0.0"), ("libgit2-sys", "0.17.0+1.8.1"),
    }  # fmt: skip


def test_another_line_of_cargo_tree_is_not_passed_over() -> None:
    with pytest.raises(SystemExit, match="unexpected"):
        linked("axum 0.8.4\n")


def test_nothing_of_the_empty_sources_is_kept(tmp_path: Path) -> None:
    release = tmp_path / "release"
    mine, theirs = "0123456789abcdef", "fedcba9876543210"
    for name in (
        "shop", "shop.d", f".fingerprint/my-shop-{mine}/x", f".fingerprint/my-shop-extra-{theirs}/x",
        f"deps/libmy_shop-{mine}.rlib", f"deps/my_shop-{mine}.d", f"deps/libitoa-{theirs}.rlib",
        f"build/my-shop-{mine}/output", f"build/itoa-{theirs}/build_script_build-{theirs}",
    ):  # fmt: skip
        (release / name).parent.mkdir(parents=True, exist_ok=True)
        (release / name).write_text(name)
    script = release / f"build/itoa-{theirs}"
    (script / "build-script-build").hardlink_to(script / f"build_script_build-{theirs}")
    prune(release, ["my-shop", "shop"])
    left = sorted(path.relative_to(release).as_posix() for path in release.rglob("*") if not path.is_dir())
    assert left == [
        f".fingerprint/my-shop-extra-{theirs}/x",
        f"build/itoa-{theirs}/build-script-build",
        f"build/itoa-{theirs}/build_script_build-{theirs}",
        f"deps/libitoa-{theirs}.rlib",
    ]
    assert (script / "build-script-build").readlink() == Path(f"build_script_build-{theirs}")


def test_a_farm_has_the_files_and_may_be_written(tmp_path: Path) -> None:
    (tmp_path / "kept" / "deps").mkdir(parents=True)
    (tmp_path / "kept" / "deps" / "a.rlib").write_text("a")
    farm(tmp_path / "kept", tmp_path / "target")
    (tmp_path / "target" / "deps" / "b.rlib").write_text("b")
    assert (tmp_path / "target" / "deps" / "a.rlib").read_text() == "a"
    assert not (tmp_path / "kept" / "deps" / "b.rlib").exists()


def archive(path: Path, names: list[str]) -> None:
    with tarfile.open(path, "w:gz") as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 1
            tar.addfile(info, io.BytesIO(b"x"))


def test_no_crate_writes_into_another_one(tmp_path: Path) -> None:
    archive(tmp_path / "a-1.0.0.crate", ["a-1.0.0/src/lib.rs", "b-1.0.0/src/lib.rs", "a-1.0.0/../b-1.0.0/evil.rs"])
    into = tmp_path / "source"
    into.mkdir()
    with pytest.raises(subprocess.CalledProcessError):
        rust_sandbox.unpack(tmp_path / "a-1.0.0.crate", into, "ab")
    assert [path.name for path in into.iterdir()] == ["a-1.0.0"]


def test_a_crate_is_unpacked_with_its_checksum(tmp_path: Path) -> None:
    archive(tmp_path / "a-1.0.0.crate", ["a-1.0.0/Cargo.toml", "a-1.0.0/src/lib.rs"])
    rust_sandbox.unpack(tmp_path / "a-1.0.0.crate", tmp_path, "ab")
    assert json.loads((tmp_path / "a-1.0.0/.cargo-checksum.json").read_text()) == {"files": {}, "package": "ab"}
    assert (tmp_path / "a-1.0.0/src/lib.rs").read_text() == "x"
