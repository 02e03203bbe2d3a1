"""The program that installs packages in the sandbox, run here with small packages. The real one: tests/e2e."""

from __future__ import annotations

import base64
import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from stages.build.languages import python_install as program

UV = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))


def wheel(folder: Path, name: str, files: dict[str, str]) -> Path:
    info = f"{name}-1.0.dist-info"
    inside = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(
        f"{key},sha256={base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b'=').decode()},"
        f"{len(text.encode())}\n"
        for key, text in inside.items()
    )
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as packed:
        for key, text in {**inside, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            packed.writestr(zipfile.ZipInfo(key), text)
    return path


def source_package(folder: Path, name: str, setup: str) -> Path:
    path = folder / f"{name}-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as packed:
        for key, text in {"setup.py": setup, f"{name}.py": "y = 2\n", "PKG-INFO": f"Name: {name}\n"}.items():
            info = tarfile.TarInfo(f"{name}-1.0/{key}")
            info.size = len(text.encode())
            packed.addfile(info, io.BytesIO(text.encode()))
    return path


def offered(folder: Path, *files: Path) -> None:
    lines = (f"{file.name.split('-')[0]}==1.0 --hash=sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}\n"
             for file in files)  # fmt: skip
    (folder / "requirements.txt").write_text("".join(lines))


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(program, "SCRATCH", tmp_path / "scratch")
    monkeypatch.setattr(program, "BACKENDS", str(tmp_path / "none"))
    if UV:
        monkeypatch.setenv("PATH", f"{Path(UV).parent}:/usr/bin:/bin")
    folder = tmp_path / "packages"
    folder.mkdir()
    return folder


GOOD = "from setuptools import setup\nsetup(name='two', version='1.0', py_modules=['two'])\n"


@pytest.mark.skipif(not UV, reason="uv is not installed")
def test_packages_are_installed_the_same_whenever_and_wherever(
    packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = {f"one/m{number}.py": f"x = {{'a{number}', 'b', 'c'}}\n" for number in range(30)}
    files = {"one/__init__.py": "x = 1\n", "one/tests/test_it.py": "z = 3\n", "one/old.py": "print 'old'\n", **more}
    first = wheel(packages, "one", files)
    second = source_package(packages, "two", GOOD)
    offered(packages, first, second)
    targets = [tmp_path / "a" / "deps", tmp_path / "another" / "deps"]
    for number, target in enumerate(targets):
        monkeypatch.setattr(program, "SCRATCH", tmp_path / f"scratch{number}")
        program.main(packages, target, "/opt/deps")
        first.touch()  # another cache, another time
    one, other = map(content, targets)
    assert one == other
    assert {"one/__init__.py", "two.py"} <= set(one)
    assert any(name.startswith("one/__pycache__/__init__.cpython") for name in one)
    assert not any("tests/__pycache__" in name or "old.cpython" in name for name in one)
    assert not any("uv_cache" in name for name in one)
    assert b"uv_cache" not in one["one-1.0.dist-info/RECORD"]
    # Byte code says where the source is in the image, and is taken without a look at the source's time.
    assert any(b"/opt/deps/one/__init__.py" in data for name, data in one.items() if name.endswith(".pyc"))
    assert not any(str(tmp_path).encode() in data for name, data in one.items() if name.endswith(".pyc"))
    found = subprocess.run(
        [sys.executable, "-Sc", "import one, two; print(one.__cached__, one.x, two.y)"],
        env={"PYTHONPATH": str(targets[0])}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "__pycache__" in found.stdout
    assert found.stdout.endswith(" 1 2\n")


@pytest.mark.skipif(not UV, reason="uv is not installed")
def test_a_file_that_was_changed_is_not_installed(packages: Path, tmp_path: Path) -> None:
    first = wheel(packages, "one", {"one.py": "x = 1\n"})
    offered(packages, first)
    wheel(packages, "one", {"one.py": "x = 'evil'\n"})
    with pytest.raises(SystemExit):
        program.main(packages, tmp_path / "deps", "/opt/deps")
    assert not (tmp_path / "deps" / "one.py").exists()


def test_a_source_package_that_cannot_be_built_is_said(packages: Path, tmp_path: Path) -> None:
    offered(packages, source_package(packages, "two", "raise SystemExit('needs a compiler')\n"))
    with pytest.raises(SystemExit) as caught:
        program.main(packages, tmp_path / "deps", "/opt/deps")
    assert "two==1.0 has only a source package" in str(caught.value)


def test_a_changed_source_package_is_never_built(packages: Path, tmp_path: Path) -> None:
    """Its code must not run: it is not among the files with a locked hash."""
    ran = tmp_path / "ran"
    path = source_package(packages, "two", GOOD)
    offered(packages, path)
    source_package(packages, "two", f"open({str(ran)!r}, 'w')\n")
    with pytest.raises((SystemExit, FileNotFoundError)):
        program.main(packages, tmp_path / "deps", "/opt/deps")
    assert not ran.exists()


def test_the_list_of_packages_is_the_lines_own(packages: Path, tmp_path: Path) -> None:
    (packages / "requirements.txt").write_text("-r /etc/passwd\n")
    with pytest.raises(SystemExit, match="a line without one hash"):
        program.main(packages, tmp_path / "deps", "/opt/deps")
