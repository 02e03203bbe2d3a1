"""Building from Go module sources: every dependency is pinned by go.mod and checked against go.sum.

The builds run in a fixed environment, so that neither a user's settings nor a stray GOFLAGS can weaken a check or
change the result. Only where modules come from (GOPROXY) and who vouches for new ones (GOSUMDB) are the machine's.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sekisho.canonical import canonical
from sekisho.errors import PermanentError
from sekisho.tools.lock import GoVersion, Pin, Source, parse_go_version

BUILD_SECONDS = 7200
_PROGRESS_SECONDS = 30
_KEPT = ("HOME", "PATH", "TMPDIR", "LANG", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")
_FROM_GO = ("GOPROXY", "GOSUMDB", "GOPATH", "GOMODCACHE", "GOCACHE")
_PUBLIC_SUMDB = "sum.golang.org"


@dataclass(frozen=True)
class Go:
    """A Go toolchain."""

    binary: Path
    version: GoVersion

    def __str__(self) -> str:
        return "go" + ".".join(str(part) for part in self.version)


def go_at(binary: Path) -> Go | None:
    """Return the toolchain with this binary, or None where it does not run."""
    environment = {**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": ""}
    try:
        run = subprocess.run(
            [str(binary), "version"], env=environment, capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    version = parse_go_version(run.stdout)
    return Go(binary, version) if version else None


def environment(go: Go, *, scratch: Path, base: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of every call of `go`.

    Args:
        go: the toolchain.
        scratch: where the caches go on a machine without a home directory.
        base: the surrounding environment; os.environ when None.
    """
    around = dict(os.environ if base is None else base)
    kept = {name: around[name] for name in (*_KEPT, *map(str.lower, _KEPT)) if name in around}
    kept.setdefault("HOME", str(scratch))
    asked = _go_env(go, {**kept, **{name: around[name] for name in _FROM_GO if name in around}})
    if asked.get("GOSUMDB", "off") == "off":
        asked["GOSUMDB"] = _PUBLIC_SUMDB
    return {
        **kept,
        **asked,
        "PATH": f"{go.binary.parent}{os.pathsep}{kept.get('PATH', os.defpath)}",
        "GOENV": "off",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
        "GO111MODULE": "on",
        "GOFLAGS": "",
        "CGO_ENABLED": "0",
    }


def _go_env(go: Go, around: Mapping[str, str]) -> dict[str, str]:
    run = subprocess.run(
        [str(go.binary), "env", "-json", *_FROM_GO],
        env={**around, "GOTOOLCHAIN": "local"}, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    if run.returncode:
        raise PermanentError(f"go env fails: {run.stderr.strip()[:300]}", where=str(go.binary))
    return {name: value for name, value in json.loads(run.stdout).items() if value}


def linker_flags(source: Source) -> str:
    """Return the value of -ldflags."""
    return " ".join(["-s", "-w", *(f"-X {name}={value}" for name, value in source.variables.items())])


def recipe(source: Source, tool: Pin, modules: Path) -> str:
    """Return the digest of all that decides a build but the toolchain: module pins, package, flags."""
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in _module_files(modules)}
    return hashlib.sha256(canonical([tool.package, linker_flags(source), files])).hexdigest()


def _module_files(modules: Path) -> list[Path]:
    return [modules / "go.mod", modules / "go.sum", *sorted(modules.glob("*.go"))]


def build(
    go: Go,
    source: Source,
    tool: Pin,
    *,
    modules: Path,
    work: Path,
    target: Path,
    say: Callable[[str], None],
) -> None:
    """Build one command.

    Args:
        go: the toolchain.
        source: the project.
        tool: the command.
        modules: directory with the go.mod and go.sum that pin the build.
        work: directory for builds; logs go to work/logs.
        target: where the binary goes.
        say: told now and then how long it has taken.

    Raises:
        PermanentError: the build fails; says the log and its last line.
    """
    directory = work / source.directory
    directory.mkdir(parents=True, exist_ok=True)
    for path in _module_files(modules):
        shutil.copyfile(path, directory / path.name)
    log = work / "logs" / f"{tool.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [
        str(go.binary), "build", "-mod=readonly", "-trimpath",
        "-ldflags", linker_flags(source), "-o", str(target), tool.package,
    ]  # fmt: skip
    code = run_long(
        command, directory, environment(go, scratch=work / "home"), log, lambda note: say(f"building{note}")
    )
    if code:
        raise PermanentError(
            f"go build of {tool.name} fails: {_last_line(log)}",
            where=str(log),
            remedy="Read the log. If modules cannot be fetched, set GOPROXY to a proxy that is reachable here. "
            "What is compiled already stays in Go's build cache.",
        )


def run_long(command: list[str], directory: Path, env: Mapping[str, str], log: Path, say: Callable[[str], None]) -> int:
    """Run a command that takes minutes; return its exit code.

    The command dies with this process, also when this process is killed, so that a run that starts afterwards finds
    nobody at work in its files.
    """
    setpriv = shutil.which("setpriv")
    guarded = [setpriv, "--pdeathsig", "KILL", *command] if setpriv else command
    started = time.monotonic()
    with log.open("wb") as out:
        process = subprocess.Popen(
            guarded, cwd=directory, env=dict(env), stdin=subprocess.DEVNULL, stdout=out, stderr=out
        )
        try:
            while True:
                try:
                    return process.wait(_PROGRESS_SECONDS)
                except subprocess.TimeoutExpired:
                    elapsed = time.monotonic() - started
                    if elapsed > BUILD_SECONDS:
                        raise PermanentError(
                            f"{command[0]} has run for {elapsed:.0f} s and was stopped.", where=str(log)
                        ) from None
                    say(f", {elapsed:.0f} s")
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def _last_line(log: Path) -> str:
    lines = log.read_text("utf-8", "replace").split("\n")
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "no output")
