"""Running the scanner: no secrets, no way out, no configuration but ours, and no trust in its exit code.

Trivy exits with 1 both for its own failure and, by default, for findings; here it is never asked to fail for findings,
so everything but 0 is a failure of the scanner, and a failure is never an empty report. The report is read strictly by
`parse`. It runs in an empty folder: `trivy.yaml`, `.trivyignore` and `trivy-secret.yaml` of a workload are not seen.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from sekisho.errors import PermanentError, Refusal, TemporaryError
from sekisho.oci import read_json

_ALLOWED: Final = ("examples", "markdown", "tests", "vendor")
_ALLOWED_IN_SYSTEMS: Final = ("anaconda-log", "dist-info", "golang", "locale-dir", "node.js", "python", "rubygems",
                              "usr-dirs", "wordpress")  # fmt: skip
"""Places in which the scanner does not look for secrets by default: those of a Linux system and of installed packages
are left to it in an image, whose packages come from public indexes; in a commit there are no such places."""

_SECONDS = 240.0
_GRACE = 5.0
"""The scanner ends itself in time; what does not is ended."""
_SCRATCH = "scan-"
_LEFT_SECONDS = 86_400.0
"""After which a scan's folder is nobody's any more."""
_REPORT_LIMIT = 512 << 20
_BUSY = ("connection refused", "timeout", "timed out", "connection reset", "no such host", "temporarily",
         "may be in use", "unexpected EOF", "context canceled", "context deadline exceeded",
         "500 Internal", "502 Bad", "503 Service", "no space left")  # fmt: skip
_MEMORY = ("out of memory", "cannot allocate memory", "failed to reserve", "page summary memory")
_MEMORY_REMEDY = "If nobody killed it, there was too little memory for it: see the kernel's log."
_PREFIX = re.compile(r"^\S+\tFATAL\t(Fatal error\t)?")
"""What the scanner puts before its last words: time and level."""


def scan(
    binary: Path,
    mode: str,
    target: str,
    flags: Sequence[str],
    *,
    cache: Path,
    seconds: float = _SECONDS,
) -> dict[str, Any]:
    """Run one scan and return its JSON report, unread.

    Args:
        binary: the pinned scanner.
        mode: `image`, `fs` or `config`.
        target: what to scan; a path must be absolute.
        flags: more flags.
        cache: the scanner's cache folder, with the database in it.
        seconds: how long it may take.

    Raises:
        TemporaryError: it was killed, took too long, or could not reach the registry.
        PermanentError: it failed.
    """
    where = f"trivy {mode}"
    with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=cache) as scratch:
        folder = Path(scratch)
        (folder / "secrets.yaml").write_text(_rules_for_secrets(mode), encoding="utf-8")
        report = folder / "report.json"
        command = [str(binary), mode, "--cache-dir", str(cache), "--format", "json", "--output", str(report),
                   "--ignorefile", "", "--quiet", "--skip-version-check", "--disable-telemetry",
                   "--timeout", f"{int(seconds)}s", *flags, "--", target]  # fmt: skip
        try:
            done = subprocess.run(
                command, cwd=folder, env=_environment(folder), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE, timeout=seconds + _GRACE, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise TemporaryError("The scanner did not end in time.", where=where, delay=10.0) from error
        except OSError as error:
            raise PermanentError(f"The scanner cannot be run: {error}", where=where) from error
        said = done.stderr.decode("utf-8", "replace")
        if done.returncode < 0:
            raise TemporaryError(
                f"The scanner was killed by signal {-done.returncode}.", where=where, remedy=_MEMORY_REMEDY, delay=5.0
            )
        if done.returncode:
            raise _failure(said, where)
        try:
            if report.stat().st_size > _REPORT_LIMIT:
                raise PermanentError("The scanner's report is too large.", where=where)
            return read_json(report.read_bytes(), where=where)
        except (OSError, Refusal) as error:
            raise TemporaryError("The scanner ended without a whole report.", where=where, delay=5.0) from error


def sweep(cache: Path) -> None:
    """Remove the folders of scans that were killed, from a cache that several may be using."""
    for folder in cache.glob(f"{_SCRATCH}*"):
        with suppress(OSError):
            if folder.lstat().st_mtime < time.time() - _LEFT_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)


def _rules_for_secrets(mode: str) -> str:
    names = _ALLOWED if mode == "image" else (*_ALLOWED, *_ALLOWED_IN_SYSTEMS)
    return "".join(("disable-allow-rules:\n", *(f"  - {name}\n" for name in names)))


def _failure(said: str, where: str) -> Exception:
    lines = [line for line in said.strip().splitlines() if line.strip()]
    if any(word in said for word in _MEMORY):
        return TemporaryError("The scanner ran out of memory.", where=where, remedy=_MEMORY_REMEDY, delay=5.0)
    # A crash of Go's runtime says why in its first line; the rest is a stack.
    lines = [line for line in lines if line.startswith(("panic:", "fatal error:"))][:1] or lines
    last = " ".join((_PREFIX.sub("", lines[-1]) if lines else "it said nothing").split())
    last = "".join(letter for letter in last if letter.isprintable())[-400:]
    if any(word in said for word in _BUSY):
        return TemporaryError(f"The scanner failed: {last}", where=where, delay=5.0)
    return PermanentError(f"The scanner failed: {last}", where=where, remedy="See sekisho doctor on the build zone.")


def _environment(folder: Path) -> dict[str, str]:
    return {
        "PATH": os.defpath,
        "HOME": str(folder),
        "DOCKER_CONFIG": str(folder),
        "TMPDIR": str(folder),
        "XDG_DATA_HOME": str(folder),
        "LC_ALL": "C.UTF-8",
        "NO_PROXY": "*",
        # Most scans end before they have used this much: collecting garbage would be a third of their time.
        "GOGC": "off",
        "GOMEMLIMIT": "512MiB",
    }
