"""The Python that the zones' users run: they can read no home folder, and often that is where Python or the code is.

Where all of it can be read, it is used where it stands. Else an interpreter is put into `runtime` in the embedded
home, and with it the packages and this project, each only if needed. The copies are root's: no zone changes its code.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from sekisho.embedded.owners import Owner, write_file
from sekisho.zones import home

PACKAGES = ("sekisho", "stages", "flows")
_VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"
_BASE_SKIP = ("test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip", "site-packages", "config-*", "*.a")


@dataclass(frozen=True)
class Python:
    """How a zone's process starts Python.

    Attributes:
        executable: the interpreter.
        environment: what must be set for it.
        copied: which parts had to be copied.
    """

    executable: Path
    environment: dict[str, str]
    copied: tuple[str, ...]


def readable_by_all(path: Path) -> bool:
    """Tell whether any user may read a path: every folder above may be passed, the last may be read."""
    try:
        real = path.resolve(strict=True)
        for parent in real.parents:
            if not parent.stat().st_mode & stat.S_IXOTH:
                return False
        mode = real.stat().st_mode
    except OSError:
        return False
    needed = stat.S_IROTH | stat.S_IXOTH if stat.S_ISDIR(mode) else stat.S_IROTH
    return mode & needed == needed


def unreadable_parts() -> dict[str, Path]:
    """Return the parts of this Python that a zone's user cannot read."""
    parts = {"interpreter": Path(sys.base_prefix), "packages": _packages(), "project": project_root()}
    return {name: path for name, path in parts.items() if not readable_by_all(path)}


def project_root() -> Path:
    """Return the folder that holds the packages sekisho, stages and flows."""
    return Path(__file__).resolve().parents[2]


def _packages() -> Path:
    return Path(sysconfig.get_paths()["purelib"])


def prepare() -> Python:
    """Return the Python for the zones' processes; copies what must be copied and has changed."""
    hidden = unreadable_parts()
    if not hidden:
        return Python(Path(sys.executable), {}, ())
    folder = home() / "runtime"
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    folder.chmod(0o755)
    executable = _copy_interpreter(folder / "python")
    environment: dict[str, str] = {}
    if list((folder / "python" / "lib").glob("libpython*.so*")):
        environment["LD_LIBRARY_PATH"] = str(folder / "python" / "lib")
    packages = _packages()
    if "packages" in hidden:
        packages = _copy(packages, folder / "packages", None)
    root = project_root()
    if "project" in hidden:
        for name in PACKAGES:
            if (root / name).is_dir():
                _copy(root / name, folder / "project" / name, None)
        root = folder / "project"
    # A path file and no PYTHONPATH: it also holds for `python -I`, and no child of the line inherits it.
    site = _library(folder / "python") / "site-packages"
    write_file(site / "sekisho.pth", f"{packages}\n{root}\n", 0o644, Owner(os.geteuid(), os.getegid()))
    return Python(executable, environment, ("interpreter", *(name for name in hidden if name != "interpreter")))


def _library(prefix: Path) -> Path:
    return prefix / "lib" / _VERSION


def _copy_interpreter(target: Path) -> Path:
    source = Path(sys.base_prefix)
    library_folder = _library(source)
    # A release of Python does not change file by file; looking at thousands of them would slow every `up`.
    state = f"{sys.version} {library_folder} {(library_folder / 'os.py').stat().st_mtime_ns}"
    _copy(library_folder, _library(target), shutil.ignore_patterns(*_BASE_SKIP), state)
    for library in (source / "lib").glob("libpython*.so*"):
        _replace(library, target / "lib" / library.name)
    executable = target / "bin" / _VERSION
    executable.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    _replace(Path(sys.executable).resolve(), executable)
    (_library(target) / "site-packages").mkdir(mode=0o755, exist_ok=True)
    return executable


def _replace(source: Path, target: Path) -> None:
    """Copy a file unless it is the same; running processes keep the old one, which a write in place would break."""
    status = source.stat()
    if target.exists() and (target.stat().st_size, target.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns):
        return
    new = target.with_name(f"{target.name}.new")
    shutil.copy2(source, new)
    new.chmod(0o755)
    new.replace(target)


def _copy(source: Path, target: Path, ignore: object, state: str = "") -> Path:
    """Copy a tree unless the copy is of the same files; the change is one rename."""
    mark = target.with_name(f"{target.name}.source")
    state = state or _fingerprint(source)
    if target.is_dir() and mark.exists() and mark.read_text(encoding="utf-8") == state:
        return target
    target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    new = target.with_name(f"{target.name}.new")
    old = target.with_name(f"{target.name}.old")
    shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    shutil.copytree(source, new, ignore=ignore, ignore_dangling_symlinks=True)  # type: ignore[arg-type]
    _open_for_reading(new)
    if target.exists():
        target.rename(old)
    new.rename(target)
    shutil.rmtree(old, ignore_errors=True)
    mark.write_text(state, encoding="utf-8")
    return target


def _fingerprint(folder: Path) -> str:
    hasher = hashlib.sha256(str(folder).encode())
    for current, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        for name in sorted(files):
            status = os.lstat(os.path.join(current, name))  # noqa: PTH118 -- some ten thousand of them
            hasher.update(f"{current}/{name}:{status.st_size}:{status.st_mtime_ns}\n".encode())
    return hasher.hexdigest()


def _open_for_reading(folder: Path) -> None:
    for current, _, files in os.walk(folder):
        Path(current).chmod(0o755)
        for name in files:
            path = Path(current, name)
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644)
