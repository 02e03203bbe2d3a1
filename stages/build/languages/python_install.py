"""Installs fetched packages inside the sandbox: source packages are built first, then all is installed and compiled.

It runs as a program of its own in the standard build image, with nothing but the standard library, uv and the build
backends of that image: no network, no secret. Every file's hash is checked once more. Byte code is written with the
hash of its source and never checked at run time, so that it is the same for the same sources and no start compiles.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

PACKAGES = Path("/in/packages")
BACKENDS = "/opt/build-backends"
SCRATCH = Path("/tmp/install")  # noqa: S108  (the sandbox's own tmpfs)
_LINE = re.compile(r"([A-Za-z0-9._-]+)==(\S+) --hash=sha256:([0-9a-f]{64})")
_SDIST = (".tar.gz", ".zip", ".tar.bz2", ".tgz")


def main(packages: Path, target: Path, shown: str) -> None:
    """Install the packages of a folder.

    Args:
        packages: folder with the files and a requirements.txt that names each one's hash.
        target: folder to install into.
        shown: path of that folder in the image, for tracebacks.
    """
    built = SCRATCH / "wheels"
    built.mkdir(parents=True)
    lines = [_one(line, packages, built) for line in _lines(packages)]
    wanted = SCRATCH / "requirements.txt"
    wanted.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    _run(
        "uv", "pip", "install", "--quiet", "--offline", "--no-config", "--no-cache", "--no-index", "--no-deps",
        "--require-hashes", "--only-binary", ":all:", "--link-mode", "copy", "--python", sys.executable,
        "--find-links", str(packages), "--find-links", str(built), "--target", str(target),
        "--requirement", str(wanted),
    )  # fmt: skip
    (target / ".lock").unlink(missing_ok=True)  # uv's own
    _forget_times(target)
    compile_all(target, shown)


def _forget_times(target: Path) -> None:
    """Remove uv's note of when each wheel came into the cache: another day would give another image."""
    for note in target.glob("*.dist-info/uv_cache.json"):
        record = note.with_name("RECORD")
        lines = record.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = (line for line in lines if not line.startswith(f"{note.parent.name}/{note.name},"))
        record.write_text("".join(kept), encoding="utf-8")
        note.unlink()


def compile_all(target: Path, shown: str) -> None:
    """Write the byte code of a folder.

    Two processes, each with its own fixed share: what a process compiled before can show in the bytes of what it
    compiles next, so the shares must not depend on the machine or on who was faster.
    """
    sizes = {path: _source_size(path) for path in sorted(target.iterdir())}
    shares: list[list[Path]] = [[], []]
    for path in sorted(sizes, key=lambda path: (-sizes[path], path.name)):
        min(shares, key=lambda share: sum(sizes[one] for one in share)).append(path)
    command = [sys.executable, "-m", "compileall", "-qq", "-j", "1", "--invalidation-mode", "unchecked-hash",
               "-x", r"/tests?/", "-s", str(target), "-p", shown]  # fmt: skip
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    running = [
        subprocess.Popen([*command, *map(str, sorted(share))], stdout=subprocess.DEVNULL, env=environment)
        for share in shares
        if share
    ]
    for process in running:
        # Files of Python 2 and templates do not compile; what is needed and broken says so where it is imported.
        process.wait()


def _source_size(path: Path) -> int:
    files = path.rglob("*.py") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.suffix == ".py")


def _lines(packages: Path) -> list[tuple[str, str, str]]:
    text = (packages / "requirements.txt").read_text(encoding="utf-8")
    found = [_LINE.fullmatch(line) for line in text.splitlines() if line]
    return [(match[1], match[2], match[3]) if match else sys.exit("a line without one hash") for match in found]


def _one(line: tuple[str, str, str], packages: Path, built: Path) -> str:
    """Return the line for the installer; a source package is built, and its wheel's hash stands in the line."""
    name, version, sha256 = line
    source = next((path for path in packages.iterdir() if path.name.endswith(_SDIST) and _sha256(path) == sha256), None)
    if source is None:
        return f"{name}=={version} --hash=sha256:{sha256}"
    out = SCRATCH / "one"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    status = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-index", "--no-deps", "--no-build-isolation",
         "--no-cache-dir", "--disable-pip-version-check", "--wheel-dir", str(out), str(source)],
        check=False,
        env={**os.environ, "PYTHONPATH": BACKENDS, "PYTHONHASHSEED": "0", "SOURCE_DATE_EPOCH": "315532800"},
    ).returncode  # fmt: skip
    wheels = list(out.iterdir())
    if status or len(wheels) != 1:
        sys.exit(
            f"{name}=={version} has only a source package here, and it cannot be built without network and compiler."
        )
    wheel = built / wheels[0].name
    wheels[0].rename(wheel)
    return f"{name}=={version} --hash=sha256:{_sha256(wheel)}"


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _run(*words: str) -> None:
    status = subprocess.run(words, check=False).returncode
    if status:
        sys.exit(status)


if __name__ == "__main__":
    main(PACKAGES, Path(sys.argv[1]), sys.argv[2])
