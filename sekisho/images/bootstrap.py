"""Debian root file systems, made by mmdebstrap (its man page: OPERATION, HOOKS, SOURCE_DATE_EPOCH).

Essential packages and package lists are fetched and installed once, kept, and copied for each image; downloaded
packages are kept in a cache of hard links. mmdebstrap runs in mount and process namespaces of its own that end with
us: whatever kills us, no mount and no process is left.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from sekisho.errors import PermanentError, SekishoError, TemporaryError
from sekisho.standard import DebianSpec

_PROGRAMS = {"mmdebstrap": "mmdebstrap", "unshare": "util-linux", "setpriv": "util-linux", "cp": "coreutils"}
_NETWORK_SIGNS = ("Failed to fetch", "Could not resolve", "Temporary failure", "Unable to connect", "Could not connect")
_TAIL = 12
_MERGED_USR = "/usr/share/mmdebstrap/hooks/merged-usr"
"""Makes /bin and the like links from the start; else the package usrmerge does, and brings all of Perl with it."""

_SETUP_HOOK = """#!/bin/sh
set -eu
if [ -n "$SEKISHO_PARENT" ]; then
    rm -rf "$1/etc/apt/sources.list.d" "$1/etc/apt/sources.list"
    cp -a "$SEKISHO_PARENT/." "$1/"
fi
mkdir -p "$1/var/cache/apt/archives"
for deb in "$SEKISHO_CACHE"/*.deb; do
    [ ! -e "$deb" ] || cp -l "$deb" "$1/var/cache/apt/archives/"
done
"""

_KEEP_HOOK = """#!/bin/sh
set -eu
for deb in "$1"/var/cache/apt/archives/*.deb; do
    [ -e "$deb" ] || continue
    name="${deb##*/}"
    # Another build at the same time may have kept it first.
    [ -e "$SEKISHO_CACHE/$name" ] || cp -l "$deb" "$SEKISHO_CACHE/$name" || [ -e "$SEKISHO_CACHE/$name" ]
done
rm -f "$1"/var/cache/apt/archives/*.deb
"""


def check_host() -> None:
    """Make sure that images can be built here.

    Raises:
        PermanentError: a program is missing, or we are not root.
    """
    missing = sorted({package for program, package in _PROGRAMS.items() if shutil.which(program) is None})
    if missing:
        raise PermanentError(
            f"Standard images are made with programs that are missing: {', '.join(missing)}.",
            remedy=f"apt-get install {' '.join(missing)}",
        )
    if os.geteuid() != 0:
        raise PermanentError("Only root can make root file systems with their owners.", remedy="Run it with sudo.")


def make_rootfs(
    debian: DebianSpec,
    target: Path,
    *,
    variant: str,
    packages: Sequence[str],
    cache: Path,
    parent: Path | None = None,
) -> None:
    """Make a root file system.

    Args:
        debian: suite, mirrors, epoch.
        target: directory to make; its parent is on the same file system as `cache`.
        variant: mmdebstrap's: `essential`, `custom` (on top of `parent`).
        packages: what to include.
        cache: directory of downloaded packages.
        parent: root file system with package lists to start from.

    Raises:
        TemporaryError: the mirror does not answer.
        PermanentError: mmdebstrap failed otherwise; the end of what it said is in the message.
    """
    cache.mkdir(parents=True, exist_ok=True)
    work = target.with_name(target.name + ".work")
    work.mkdir()
    setup, keep, sources = work / "setup", work / "keep", work / "sources.list"
    for hook, text in ((setup, _SETUP_HOOK), (keep, _KEEP_HOOK)):
        hook.write_text(text, encoding="utf-8")
        hook.chmod(0o755)
    sources.write_text("".join(line + "\n" for line in debian.mirrors), encoding="utf-8")
    skip = ["essential/unlink", "cleanup/apt", *(["update", "check/empty"] if parent else [])]
    command = [
        "mmdebstrap",
        "--mode=root",
        "--format=directory",
        f"--variant={variant}",
        f"--skip={','.join(skip)}",
        # Nobody needs these files to survive a power cut.
        "--dpkgopt=force-unsafe-io",
        f"--setup-hook={setup}",
        *([f"--hook-dir={_MERGED_USR}"] if variant == "essential" else []),
        f"--customize-hook={keep}",
        *([f"--include={','.join(packages)}"] if packages else []),
        debian.suite,
        str(target),
        str(sources),
    ]
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LC_ALL": "C.UTF-8",
        "TMPDIR": str(work),
        "SOURCE_DATE_EPOCH": str(debian.epoch),
        "SEKISHO_PARENT": str(parent or ""),
        "SEKISHO_CACHE": str(cache),
        **{name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")},
    }
    try:
        run_isolated(command, environment)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def copy_rootfs(source: Path, target: Path) -> None:
    """Copy a root file system with owners, modes, times and hard links."""
    run_isolated(["cp", "-a", str(source), str(target)], {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"})


def compile_python(root: Path, interpreter: str) -> None:
    """Compile the Python library of a root file system, always to the same bytes.

    The packages' own scripts write byte code that depends on file times. `unchecked-hash` does not, and starts faster:
    nobody looks at the sources any more, which is right where the file system is read-only.
    """
    for cached in sorted((root / "usr").rglob("__pycache__")):
        shutil.rmtree(cached)
    libraries = [f"/usr/lib/{interpreter}", "/usr/lib/python3"]
    present = [library for library in libraries if (root / library[1:]).is_dir()]
    options = ["-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", *present]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "0"}
    run_isolated(["chroot", str(root), f"/usr/bin/{interpreter}", *options], environment)


def run_in(root: Path, command: Sequence[str], environment: dict[str, str]) -> None:
    """Run a program in a root file system, without network.

    Raises:
        PermanentError: it failed; the end of what it said is in the message.
    """
    settings = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
    (root / "proc").mkdir(exist_ok=True)
    options = ("--net", f"--mount-proc={root}/proc")
    run_isolated(["chroot", str(root), *command], {**settings, **environment}, options)


def run_isolated(
    command: Sequence[str], environment: dict[str, str], options: Sequence[str] = ("--mount-proc",)
) -> None:
    """Run a program in mount and process namespaces of its own, which die with us.

    Args:
        command: program and arguments.
        environment: all of it.
        options: more for unshare(1).

    Raises:
        TemporaryError: it failed and says that the network is the cause.
        PermanentError: it failed otherwise.
    """
    wrapped = ["setpriv", "--pdeathsig", "KILL", "--", "unshare", "--mount", "--pid", "--fork", "--kill-child"]
    wrapped += [*options, "--", *command]
    done = subprocess.run(
        wrapped,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if done.returncode != 0:
        raise _failure(command[0], done.returncode, done.stdout.decode("utf-8", "replace"))


def _failure(program: str, code: int, output: str) -> SekishoError:
    tail = "\n".join(line.rstrip() for line in output.splitlines()[-_TAIL:])
    if any(sign in output for sign in _NETWORK_SIGNS):
        return TemporaryError(
            f"{program} could not fetch packages:\n{tail}",
            remedy="Check the mirror and the proxy; if packages are gone (404), build with --refresh.",
            delay=15,
        )
    return PermanentError(f"{program} failed (exit code {code}):\n{tail}", remedy="Read the lines above.")
