"""Fetching what a lock file names: wheels only, by hash, into a cache that is never believed.

This runs outside the sandbox, since it needs the package index, and it runs no code of any package: `pip download`
with `--only-binary=:all:` reads wheels and builds none. The index, the proxy and the certificates are whatever the
platform team configured for pip; the lock's hashes decide what is accepted.

Which of a lock's hashes is taken for the target is decided once and remembered under everything that decides it (name,
version, hashes, target), so a warm cache gives the same wheel as a cold one.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from sekisho.canonical import digest_of_file, digest_of_json, hex_of
from sekisho.errors import PermanentError, Refusal, TemporaryError
from stages.build.locks import Locked

PLATFORMS = (
    "manylinux_2_36_x86_64",
    "manylinux_2_28_x86_64",
    "manylinux_2_17_x86_64",
    "manylinux2014_x86_64",
    "manylinux2010_x86_64",
    "manylinux1_x86_64",
    "linux_x86_64",
    "any",
)
"""Platform tags of the standard Python image: Debian 12, glibc 2.36."""
TARGET = ("--python-version", "3.11", "--implementation", "cp", "--abi", "cp311", "--abi", "abi3", "--abi", "none")

_SECONDS = 300
_KEEP = (
    "PYTHONPATH",
    "LD_LIBRARY_PATH",
    "PATH",
    "HOME",
    "LANG",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "no_proxy",
)
_NETWORK = re.compile(
    r"Retrying \(|ConnectionError|NewConnectionError|ProxyError|ReadTimeout|Read timed out|Temporary failure"
    r"|Connection (refused|reset|aborted|broken)|Network is unreachable|HTTP error 5\d\d|50[0234] Server Error"
    r"|Max retries exceeded|IncompleteRead"
)
_NO_MATCH = re.compile(r"No matching distribution found for ([^\s(]+)")
_MISMATCH = re.compile(
    r"(\S+==\S+|\S+) from \S+:\s+(?:Expected sha256 .*\s+)*?Expected sha256 (\w+)[\s\S]*?Got\s+(\w+)"
)
_GOT = re.compile(r"Got\s+([0-9a-f]{64})")
_USERINFO = re.compile(r"://[^/@\s]+@")


@dataclass(frozen=True)
class Wheel:
    """One fetched wheel; its bytes have the digest."""

    locked: Locked
    path: Path
    sha256: str
    """Hexadecimal."""


def fetch(packages: Sequence[Locked], cache: Path, *, proxy: str | None = None) -> tuple[Wheel, ...]:
    """Return the wheels of a lock, from the cache or from the package index.

    Args:
        packages: what the lock pins.
        cache: folder of the wheel cache; made if missing.
        proxy: URL of the HTTP proxy, the only way out of the build zone; None leaves pip's configuration alone.

    Raises:
        Refusal: a package has no wheel for the target, or the index has other bytes than the lock says.
        TemporaryError: the index cannot be reached.
    """
    cache.mkdir(parents=True, exist_ok=True)
    found = {locked.name: _cached(locked, cache) for locked in packages}
    missing = [locked for locked in packages if found[locked.name] is None]
    if missing:
        with tempfile.TemporaryDirectory(dir=cache, prefix=".fetch-") as scratch:
            folder = Path(scratch)
            _download(missing, folder, proxy)
            for locked in missing:
                found[locked.name] = _keep(locked, folder / "wheels", cache)
    return tuple(wheel for wheel in (found[locked.name] for locked in packages) if wheel is not None)


def _choice(locked: Locked, cache: Path) -> Path:
    key = digest_of_json([locked.name, locked.version, list(locked.hashes), list(TARGET), list(PLATFORMS)])
    return cache / "choices" / f"{hex_of(key)}.json"


def _cached(locked: Locked, cache: Path) -> Wheel | None:
    """Return the wheel in the cache, or None; whatever is not exactly right is dropped."""
    choice = _choice(locked, cache)
    try:
        said = json.loads(choice.read_bytes())
        sha256, name = said["sha256"], said["filename"]
        if sha256 in locked.hashes and _is_wheel_of(name, locked):
            path = cache / "wheels" / sha256 / name
            if not path.is_symlink() and hex_of(digest_of_file(path)) == sha256:
                return Wheel(locked, path, sha256)
            shutil.rmtree(path.parent, ignore_errors=True)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    choice.unlink(missing_ok=True)
    return None


def _keep(locked: Locked, folder: Path, cache: Path) -> Wheel:
    files = [path for path in folder.iterdir() if _is_wheel_of(path.name, locked)]
    if len(files) != 1:
        raise PermanentError(
            f"pip gave {len(files)} wheels for {locked.name}=={locked.version}.",
            where=f"requirements.txt:{locked.line}",
        )
    sha256 = hex_of(digest_of_file(files[0]))
    if sha256 not in locked.hashes:
        raise _mismatch(locked, sha256)
    place = cache / "wheels" / sha256
    place.mkdir(parents=True, exist_ok=True)
    files[0].chmod(0o644)
    files[0].replace(place / files[0].name)
    choice = _choice(locked, cache)
    choice.parent.mkdir(exist_ok=True)
    part = choice.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps({"sha256": sha256, "filename": files[0].name}), encoding="utf-8")
    part.replace(choice)
    return Wheel(locked, place / files[0].name, sha256)


def _is_wheel_of(name: object, locked: Locked) -> bool:
    if not isinstance(name, str) or "/" in name:
        return False
    try:
        project, version, _, _ = parse_wheel_filename(name)
    except InvalidWheelFilename:
        return False
    return canonicalize_name(project) == locked.name and str(version) == locked.version


def _download(packages: Sequence[Locked], folder: Path, proxy: str | None) -> None:
    lines = folder / "requirements.txt"
    lines.write_text("".join(f"{locked.requirement()}\n" for locked in packages), encoding="utf-8")
    (folder / "wheels").mkdir()
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    command = [sys.executable, "-m", "pip", "download", "--require-hashes", "--no-deps", "--only-binary=:all:",
               "--no-cache-dir", "--no-input", "--progress-bar=off", "--disable-pip-version-check",
               *TARGET, *platforms, "--dest", str(folder / "wheels"), "--requirement", str(lines)]  # fmt: skip
    try:
        done = subprocess.run(
            command,
            env=_environment(os.environ, proxy),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise TemporaryError("The package index did not answer in time.", delay=10.0) from error
    if done.returncode:
        raise _failure(done.stdout + done.stderr, packages)


def _failure(said: str, packages: Sequence[Locked]) -> Exception:
    """Return the error for what pip said. Its output may name an index with a password in the URL: it is cut out."""
    by_name = {locked.name: locked for locked in packages}
    if "DO NOT MATCH THE HASHES" in said:
        got = _GOT.search(said)
        tail = said[said.index("DO NOT MATCH THE HASHES") :]
        named = next((item for name, item in by_name.items() if _mentions(tail, name)), None)
        if named is not None:
            return _mismatch(named, got.group(1) if got else "unknown")
    if _NETWORK.search(said):
        return TemporaryError(
            "The package index cannot be reached.",
            remedy="Check the proxy and the index in pip's configuration on the build zone.",
            delay=10.0,
        )
    match = _NO_MATCH.search(said)
    if match:
        name = canonicalize_name(re.split(r"[=<>!\[;]", match.group(1))[0])
        line = by_name[name].line if name in by_name else 0
        return Refusal(
            f"{match.group(1)} has no wheel with a locked hash for Python 3.11 on Linux x86_64.",
            where=f"requirements.txt:{line}",
            remedy="Only wheels are taken, source packages run code of strangers: choose a version that has one.",
        )
    last = _USERINFO.sub("://", said.strip().splitlines()[-1] if said.strip() else "it said nothing")
    return PermanentError(f"pip could not fetch the packages: {last[:300]}", where="requirements.txt")


def _mentions(text: str, name: str) -> bool:
    pattern = re.sub(r"-", "[-_.]+", re.escape(name).replace(r"\-", "-"))
    return re.search(rf"(?<![\w.-]){pattern}(?![\w.-])", text, re.IGNORECASE) is not None


def _mismatch(locked: Locked, got: str) -> Refusal:
    return Refusal(
        f"{locked.name}=={locked.version} is not what the lock file says: the index gave sha256 {got}, "
        f"locked is {', '.join(locked.hashes[:3])}{' …' if len(locked.hashes) > 3 else ''}.",  # noqa: PLR2004
        where=f"requirements.txt:{locked.line}",
        remedy="Find out why the package changed before you lock it again: a supply chain attack looks like this.",
    )


def _environment(surroundings: Mapping[str, str], proxy: str | None) -> dict[str, str]:
    kept = {name: value for name, value in surroundings.items() if name in _KEEP or name.startswith("PIP_")}
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        value = proxy or surroundings.get(name)
        if value:
            kept[name] = value
    kept["PYTHONIOENCODING"] = "utf-8"
    return kept
