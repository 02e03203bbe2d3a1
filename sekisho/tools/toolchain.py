"""Finding a Go toolchain for the builds, or bringing one: the machine's own, the official archive, or the Go module.

The Go project publishes each toolchain also as a module, golang.org/toolchain, which any Go of the last years can
fetch; the checksum database vouches for it, and tools.lock.json pins its sum. Where there is no Go at all, the
distribution's package is unpacked into a temporary directory for that one call; nothing of it is installed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from sekisho.errors import PermanentError, TemporaryError
from sekisho.tools.gobuild import Go, environment, go_at
from sekisho.tools.lock import CHECKSUM_SUFFIX, GoPin, GoVersion
from sekisho.tools.upstream import download, published_checksum

_PLACES = ("/usr/local/go/bin", "/usr/lib/go/bin")
_EXECUTABLE = ("bin/*", "pkg/tool/*/*")
_DEBIAN_PACKAGE = re.compile(r"^\s*Depends: golang-(\d+\.\d+)-go$", re.MULTILINE)
_FETCH_SECONDS = 900

Say = Callable[[str], None]


def obtain(pin: GoPin, need: GoVersion, home: Path, arch: str, say: Say, *, archive: bool) -> Go:
    """Return a toolchain that is new enough.

    Args:
        pin: the toolchain to bring where there is none.
        need: the version that the builds ask for.
        home: directory that receives `go` and the scratch directory `build`.
        arch: amd64 or arm64.
        say: told what is chosen and why.
        archive: whether the official archive is reachable.

    Raises:
        PermanentError: none is there and none can be had.
    """
    system = machine_go()
    for go in (system, go_at(home / "go" / "bin" / "go")):
        if go is not None and go.version >= need:
            return go
    work = home / "build"
    work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="toolchain-", dir=work) as temporary:
        scratch = Path(temporary)
        tree = _from_archive(pin, scratch, arch, say) if archive else None
        if tree is None:
            tree = _from_module(pin, system, scratch, arch, say)
        return _settle(tree, pin, home)


def machine_go() -> Go | None:
    """Return the newest Go of the machine, or None."""
    places = [*os.environ.get("PATH", "").split(os.pathsep), *_PLACES]
    binaries = {Path(place, "go").resolve() for place in places if place and Path(place, "go").is_file()}
    found = [go for go in map(go_at, sorted(binaries)) if go is not None]
    return max(found, key=lambda go: go.version, default=None)


def _from_archive(pin: GoPin, scratch: Path, arch: str, say: Say) -> Path | None:
    url = pin.url(arch)
    archive = scratch / "go.tar.gz"
    try:
        download(url, archive, pin.sha256.get(arch) or published_checksum(url + CHECKSUM_SUFFIX))
    except TemporaryError as error:
        say(f"Go {pin.version}: {error.what}")
        return None
    _run(["tar", "-xzf", str(archive), "-C", str(scratch), "--no-same-owner"], scratch, None, "The archive of Go")
    return scratch / "go"


def _from_module(pin: GoPin, system: Go | None, scratch: Path, arch: str, say: Say) -> Path:
    go = system or _debian_go(scratch, say)
    say(f"Go {pin.version}: fetching the module {pin.module} with {go}")
    version = f"v0.0.1-go{pin.version}.linux-{arch}"
    env = {
        **environment(go, scratch=scratch),
        "GOMODCACHE": str(scratch / "modules"),
        "GOFLAGS": "-modcacherw",
    }
    answer = _run(
        [str(go.binary), "mod", "download", "-json", f"{pin.module}@{version}"],
        scratch,
        env,
        "The Go toolchain's module",
    )
    module = json.loads(answer)
    if module.get("Sum") != pin.sums.get(arch):
        raise PermanentError(
            f"The Go toolchain's module has the sum {module.get('Sum')}, but {pin.sums.get(arch)} is pinned.",
            where=f"{pin.module}@{version}",
            remedy="Do not use it. Look at GOPROXY: whoever answers there gives another toolchain.",
        )
    tree = Path(module["Dir"])
    for pattern in _EXECUTABLE:  # a module holds no file modes
        for path in tree.glob(pattern):
            path.chmod(0o755)
    return tree


def _debian_go(scratch: Path, say: Say) -> Go:
    series = _debian_series(scratch)
    say(f"no Go on this machine: unpacking the distribution's Go {series} for one call")
    packages = [f"golang-{series}-go", f"golang-{series}-src"]
    _run(["apt-get", "-q", "download", *packages], scratch, None, "The distribution's Go")
    root = scratch / "distribution"
    for package in sorted(scratch.glob("golang-*.deb")):
        _run(["dpkg-deb", "-x", str(package), str(root)], scratch, None, "The distribution's Go")
    go = go_at(root / "usr" / "lib" / f"go-{series}" / "bin" / "go")
    if go is None:
        raise PermanentError("The distribution's Go does not run.", where=packages[0], remedy=_REMEDY)
    return go


_REMEDY = "Install Go (https://go.dev/dl, or apt-get install golang-go) and start again."


def _debian_series(scratch: Path) -> str:
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise PermanentError("There is no Go here to build the tools with.", where="PATH", remedy=_REMEDY)
    question = ["apt-cache", "depends", "golang-go"]
    match = _DEBIAN_PACKAGE.search(_run(question, scratch, None, "The package lists", check=False))
    if match is None and os.geteuid() == 0:
        _run(["apt-get", "-q", "update"], scratch, None, "The package lists")
        match = _DEBIAN_PACKAGE.search(_run(question, scratch, None, "The package lists"))
    if match is None:
        raise PermanentError("No package of the distribution brings Go.", where="apt-cache depends golang-go",
                             remedy=_REMEDY)  # fmt: skip
    return match[1]


def _settle(tree: Path, pin: GoPin, home: Path) -> Go:
    go = go_at(tree / "bin" / "go")
    if go is None or f"{go}" != f"go{pin.version}":
        raise PermanentError(
            f"The toolchain is {go or 'not runnable'}, but go{pin.version} is pinned.", where=str(tree)
        )
    target = home / "go"
    if target.exists():
        shutil.rmtree(target)
    tree.rename(target)
    return Go(target / "bin" / "go", go.version)


def _run(command: list[str], directory: Path, env: dict[str, str] | None, what: str, *, check: bool = True) -> str:
    environment_ = {**(env if env is not None else os.environ), "LC_ALL": "C"}
    try:
        run = subprocess.run(
            command, cwd=directory, env=environment_, capture_output=True, text=True,
            timeout=_FETCH_SECONDS, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PermanentError(f"{what} cannot be had: {error}", where=command[0]) from error
    if run.returncode and check:
        raise PermanentError(f"{what} cannot be had: {_complaint(run)}", where=" ".join(command[:3]), remedy=_REMEDY)
    return run.stdout


def _complaint(run: subprocess.CompletedProcess[str]) -> str:
    try:
        said = str(json.loads(run.stdout)["Error"])  # go mod download -json
    except (ValueError, KeyError, TypeError):
        said = run.stderr or run.stdout
    return said.strip().split("\n")[-1][:300] or f"exit code {run.returncode}"
