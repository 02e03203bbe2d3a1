"""Where each tool is. Nothing is fetched, built or installed here."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from sekisho.errors import PermanentError, VerificationError
from sekisho.model import Tool
from sekisho.tools.lock import HEX_PATTERN, SystemTool, architecture, load_lock, parse_version
from sekisho.tools.manifest import Entry, fingerprint, sha256_of
from sekisho.zones import home

SCANNER_PATH = "SEKISHO_TRIVY"
SCANNER_SHA256 = "SEKISHO_TRIVY_SHA256"

_ADMIN_PLACES = ("/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin")
_POSTGRES = "/usr/lib/postgresql"
_VERSION_SECONDS = 10
_SETUP = "Run scripts/setup."


def bin_directory() -> Path:
    """Return the directory of the binaries that Sekisho fetched or built."""
    return home() / "bin"


def tool(name: str) -> Path:
    """Return the path of a tool of tools.lock.json.

    Args:
        name: for example `kubelet`, `etcd`, `postgres` or `trivy`.

    Raises:
        PermanentError: it is not there; says how to get it.
        VerificationError: the scanner is there, but it is not the pinned one.
    """
    lock = load_lock()
    if name == lock.scanner.name:
        return trivy()[0]
    for source, pin in lock.managed():
        if pin.name == name:
            path = bin_directory() / name
            if path.is_file() and os.access(path, os.X_OK):
                return path
            raise PermanentError(f"{name} is not installed.", where=str(path), remedy=f"Run {source.remedy}.")
    for system in lock.system:
        if system.name == name:
            found = find_system(system)
            if found is None:
                raise PermanentError(
                    f"{name} is not installed.",
                    where="PATH",
                    remedy=f"{_SETUP} Or: apt-get install {system.package}.",
                )
            return found
    raise PermanentError(f"There is no tool named {name}.", where="sekisho/tools.lock.json")


def find_system(system: SystemTool) -> Path | None:
    """Return where a tool of the distribution is, also where a user's PATH does not lead: sbin, Debian's PostgreSQL."""
    places = [os.environ.get("PATH", os.defpath), *_ADMIN_PLACES]
    if system.package == "postgresql":
        places.extend(str(place) for place in _postgres_places())
    found = shutil.which(system.name, path=os.pathsep.join(places))
    return Path(found) if found else None


def _postgres_places() -> list[Path]:
    versions = [path for path in Path(_POSTGRES).glob("*/bin") if path.parent.name.isdecimal()]
    return sorted(versions, key=lambda path: int(path.parent.name), reverse=True)


def version_of(path: Path, argument: str) -> str:
    """Return the version that a tool reports; empty where it cannot say."""
    if not argument:
        return ""
    try:
        run = subprocess.run(
            [str(path), argument], capture_output=True, text=True, timeout=_VERSION_SECONDS, check=False,
            stdin=subprocess.DEVNULL, errors="replace",
            # A scanner of somebody's own is asked here too: it gets no secret of ours.
            env={"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8"},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return parse_version(run.stdout or run.stderr)


def trivy() -> tuple[Path, Tool]:
    """Return the scanner and its identity: SEKISHO_TRIVY, else PATH, else the wheel; only with the pinned digest.

    SEKISHO_TRIVY_SHA256 pins another digest, for a scanner of one's own.

    Raises:
        PermanentError: there is no scanner.
        VerificationError: no scanner found has the pinned digest. An unknown scanner is never run.
    """
    return find_scanner(None)


def find_scanner(known: Entry | None) -> tuple[Path, Tool]:
    """Return the scanner as `trivy` does; a file that `known` has seen in the same state is not read again.

    Only for reports: who runs the scanner calls `trivy`.
    """
    pin = load_lock().scanner
    due = _due_digest(pin.sha256.get(architecture(), ""))
    refused: list[str] = []
    for path in _scanners(pin.name, pin.wheel):
        try:
            seen = scanner_seen(path)
            digest = known.sha256 if known is not None and known.seen == seen else _digest_of(path, seen)
        except OSError:
            continue
        if digest == due:
            version = pin.version if digest in pin.sha256.values() else version_of(path, "--version")
            return path, Tool(name=pin.name, version=version, digest=f"sha256:{digest}")
        refused.append(f"{path} (sha256 {digest})")
    if refused:
        raise VerificationError(
            f"The scanner is not the pinned one, which has sha256 {due or 'no entry for this architecture'}.",
            where=", ".join(refused),
            remedy=f"Run scripts/setup, or pin a scanner that you trust with {SCANNER_PATH} and {SCANNER_SHA256}.",
        )
    raise PermanentError(
        f"{pin.name} is not installed.",
        where=os.environ.get(SCANNER_PATH, "PATH"),
        remedy=f"{_SETUP} Or: pip install {pin.wheel}.",
    )


def scanner_seen(path: Path) -> str:
    """Return the path and state of a scanner's file."""
    return f"{path}:{fingerprint(path)}"


def _due_digest(pinned: str) -> str:
    given = os.environ.get(SCANNER_SHA256, "")
    if given and not re.fullmatch(HEX_PATTERN, given):
        raise PermanentError(
            "The scanner's digest must be 64 lower-case hexadecimal digits.",
            where=SCANNER_SHA256,
            remedy="sha256sum prints it.",
        )
    return given or pinned


def _scanners(name: str, wheel: str) -> Iterator[Path]:
    chosen = os.environ.get(SCANNER_PATH, "")
    if chosen:
        yield Path(chosen)
        return
    found = shutil.which(name)
    if found:
        yield Path(found)
    try:
        files = importlib.metadata.files(wheel) or []
    except importlib.metadata.PackageNotFoundError:
        return
    for file in files:
        if file.name == name:
            yield Path(str(file.locate())).resolve()


@lru_cache(maxsize=8)
def _digest_of(path: Path, _fingerprint: str) -> str:
    """Return a file's digest; the fingerprint is part of the cache's key, so that a changed file is read again."""
    return sha256_of(path)
