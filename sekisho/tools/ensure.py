"""Bringing the tools: what is there counts, what is missing is downloaded, and where that is not possible, built.

The rules of the choice:

1. A binary with the pinned version and its recorded digest is left alone.
2. Official downloads, where they answer within three seconds in all; a wrong checksum ends the run.
3. Else, and where a download breaks off, the same version is built from its Go module.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sekisho.errors import PermanentError, SekishoError, TemporaryError, UsageError
from sekisho.model import Document
from sekisho.tools import gobuild, manifest, upstream
from sekisho.tools.locate import bin_directory, find_scanner, find_system, scanner_seen, version_of
from sekisho.tools.lock import (
    Group,
    Lock,
    Pin,
    Source,
    architecture,
    load_lock,
    module_directory,
    required_go,
)
from sekisho.tools.toolchain import obtain
from sekisho.zones import home

CHOICE = "SEKISHO_TOOLS_SOURCE"
"""Environment variable: `auto` (the default), `download` or `build`."""

Say = Callable[[str], None]
Work = tuple[Source, Pin]
Missing = tuple[Source, Pin, str]
"""A tool, and why what is there does not count."""


class ToolStatus(Document):
    """One tool: where it is, or what is wrong."""

    name: str
    kind: Literal["managed", "scanner", "system"]
    version: str = ""
    path: str = ""
    how: str = ""
    """Where it came from."""
    seconds: float = 0.0
    """How long it took to bring it."""
    problem: str = ""
    """Empty when the tool can be used."""


def ensure(
    progress: Say, *, names: Iterable[str] = (), group: Group = "line", thorough: bool = False
) -> tuple[ToolStatus, ...]:
    """Bring every tool that is missing, and report on all of them.

    Args:
        progress: told, a line at a time, what happens and how long it takes.
        names: only these fetched or built tools; all of the group when empty.
        group: `line` for what the zones need, `test` for what the tests need beside it.
        thorough: compute every digest again, also of files that were not touched since.

    Returns:
        One status a tool. A missing system tool is a status with a problem, not an error.

    Raises:
        UsageError: an unknown name.
        VerificationError: a download or a module is not what is pinned.
        PermanentError: a tool can neither be downloaded nor built; the directory cannot be written.
    """
    lock = load_lock()
    wanted = _chosen(lock, frozenset(names), group)
    directory = bin_directory()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        took: dict[str, float] = {}
        if _missing(directory, wanted, thorough=thorough):
            with _locked(home() / "tools.lock", progress):
                manifest.sweep(directory, progress)
                took = _bring(lock, directory, _missing(directory, wanted, thorough=thorough), progress)
        _remember_scanner(directory, progress)
    except OSError as error:
        raise _for_people(error, directory) from error
    return report(took=took, versions=False, wanted=wanted, group=group)


def report(
    *,
    took: dict[str, float] | None = None,
    versions: bool = True,
    wanted: tuple[Work, ...] = (),
    group: Group = "line",
) -> tuple[ToolStatus, ...]:
    """Say where every tool of a group is, without changing anything.

    Args:
        took: seconds that were spent on a tool just now.
        versions: ask the distribution's tools for their versions, which costs a process each.
        wanted: fetched or built tools of other groups that are reported as well.
        group: whose tools.
    """
    lock = load_lock()
    own = [work for work in lock.managed() if work[0].group == group or work in wanted]
    managed = [_managed_status(source, pin, (took or {}).get(pin.name, 0.0)) for source, pin in own]
    if group != "line":
        return tuple(managed)
    found = [(system, find_system(system)) for system in lock.system]
    asked = [(path, system.version_argument if versions else "") for system, path in found if path is not None]
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        answers = dict(zip((path for path, _ in asked), pool.map(lambda one: version_of(*one), asked), strict=True))
    systems = [
        ToolStatus(
            name=system.name,
            kind="system",
            version=answers.get(path, "") if path else "",
            path=str(path or ""),
            how=f"Debian package {system.package}" if path is None else "found on this machine",
            problem="" if path else f"missing; apt-get install {system.package}",
        )
        for system, path in found
    ]
    return (*managed, _scanner_status(lock), *systems)


def _chosen(lock: Lock, names: frozenset[str], group: Group) -> tuple[Work, ...]:
    known = {pin.name for _, pin in lock.managed()}
    if unknown := names - known:
        raise UsageError(
            f"Not a tool that is fetched or built: {', '.join(sorted(unknown))}.",
            remedy=f"These are: {', '.join(sorted(known))}.",
        )
    return tuple(
        (source, pin) for source, pin in lock.managed() if (pin.name in names if names else source.group == group)
    )


def _missing(directory: Path, wanted: Iterable[Work], *, thorough: bool) -> list[Missing]:
    recorded = manifest.load_manifest(directory)
    missing = []
    for source, pin in wanted:
        entry = recorded.get(pin.name)
        recipe = gobuild.recipe(source, pin, module_directory(source))
        why = manifest.why_not(directory / pin.name, entry, version=source.version, recipe=recipe, thorough=thorough)
        if why:
            missing.append((source, pin, why))
    return missing


@dataclass(frozen=True)
class _Run:
    """What one run has decided, for all tools."""

    lock: Lock
    directory: Path
    arch: str
    reachable: frozenset[str]
    """Sources, and `go`, whose official downloads answer."""


def _bring(lock: Lock, directory: Path, missing: list[Missing], say: Say) -> dict[str, float]:
    if not missing:
        return {}
    arch = architecture()
    for _, pin, why in missing:
        say(f"{pin.name}: {why}")
    run = _Run(lock, directory, arch, _reachable(lock, missing, arch, say))
    took = {}
    for number, (source, pin, _) in enumerate(missing, 1):
        started = time.monotonic()

        def tell(note: str, head: str = f"{pin.name} ({number} of {len(missing)}): ") -> None:
            say(head + note)

        _bring_one(run, source, pin, tell)
        took[pin.name] = time.monotonic() - started
        tell(f"done, {took[pin.name]:.1f} s")
    return took


def _bring_one(run: _Run, source: Source, pin: Pin, say: Say) -> None:
    part = manifest.part_path(run.directory, pin.name)
    how = recipe = ""
    try:
        if source.name in run.reachable:
            how = _downloaded(source, pin, run.arch, part, say)
        if not how:
            how = _built(run, source, pin, part, say)
            recipe = gobuild.recipe(source, pin, module_directory(source))
        part.chmod(0o755)
        reported = version_of(part, pin.version_argument)
        if reported != source.version:
            raise PermanentError(
                f"{pin.name} reports version {reported or 'nothing'}, but {source.version} is pinned.",
                where=how,
                remedy="Check the mirror, or the pins in sekisho/tools.lock.json.",
            )
        manifest.record(run.directory, part, name=pin.name, version=source.version, how=how, recipe=recipe)
    finally:
        part.unlink(missing_ok=True)


def _reachable(lock: Lock, missing: list[Missing], arch: str, say: Say) -> frozenset[str]:
    """Choose: return the names of the sources, and `go`, whose official downloads answer."""
    choice = os.environ.get(CHOICE, "auto")
    if choice not in {"auto", "download", "build"}:
        raise UsageError(f"{choice!r} is not a source of tools.", where=CHOICE, remedy="auto, download or build.")
    urls = {"go": lock.go.url(arch)} | {source.name: source.url(pin, arch) for source, pin, _ in missing}
    if choice == "build":
        reach = dict.fromkeys(urls, upstream.Reach(ok=False, why=f"{CHOICE}=build"))
    else:
        reach = dict.fromkeys(urls, upstream.Reach(ok=False, why="none is published"))
        reach |= upstream.probe({name: url for name, url in urls.items() if url})
    lost = [name for name in sorted(urls) if name != "go" and not reach[name].ok]
    if lost and choice == "download":
        raise TemporaryError(
            f"The official downloads are not reachable: {reach[lost[0]].why}",
            where=urls[lost[0]],
            remedy=f"Name a mirror (docs/tools.md), or let them be built: {CHOICE}=auto.",
        )
    if lost:
        minutes = sum(pin.minutes for source, pin, _ in missing if source.name in lost)
        reasons = "; ".join(f"{name}: {reach[name].why}" for name in lost)
        say(f"official downloads are not reachable: building from the Go module sources, about {minutes} minutes "
            f"with two cores, seconds where Go's build cache is warm ({reasons})")  # fmt: skip
    else:
        say("official downloads are reachable")
    return frozenset(name for name in urls if reach[name].ok)


def _downloaded(source: Source, pin: Pin, arch: str, part: Path, say: Say) -> str:
    """Fetch the official binary to `part`; return how, or nothing where it has to be built after all."""
    url = source.url(pin, arch)
    say(f"downloading {url}")
    archive = part.with_name(f".{pin.name}.archive.{os.getpid()}{manifest.PART_SUFFIX}") if source.member else part
    pinned = pin.sha256.get(arch, "")
    try:
        upstream.download(url, archive, pinned or _published(source, pin, arch))
        if source.member:
            upstream.unpack_member(archive, source.member, part)
    except TemporaryError as error:
        if os.environ.get(CHOICE) == "download":
            raise
        say(f"{error.what} Building it from its Go module instead, about {pin.minutes} minutes")
        return ""
    finally:
        if source.member:
            archive.unlink(missing_ok=True)
    return f"downloaded from {url}, checksum {'pinned' if pinned else 'published beside it'}"


def _published(source: Source, pin: Pin, arch: str) -> str:
    name = source.url(pin, arch).rpartition("/")[2] if source.checksums else ""
    return upstream.published_checksum(source.checksum_url(pin, arch), name)


def _built(run: _Run, source: Source, pin: Pin, part: Path, say: Say) -> str:
    modules = module_directory(source)
    need = required_go(tuple(module_directory(each) for each in run.lock.sources))
    go = obtain(run.lock.go, need, home(), run.arch, say, archive="go" in run.reachable)
    say(f"building with {go}")
    gobuild.build(go, source, pin, modules=modules, work=home() / "build", target=part, say=say)
    return f"built from the Go module {source.module}@v{source.version} with {go}, checked by go.sum"


def _managed_status(source: Source, pin: Pin, seconds: float) -> ToolStatus:
    path = bin_directory() / pin.name
    entry = manifest.load_manifest(bin_directory()).get(pin.name)
    recipe = gobuild.recipe(source, pin, module_directory(source))
    why = manifest.why_not(path, entry, version=source.version, recipe=recipe)
    return ToolStatus(
        name=pin.name,
        kind="managed",
        version=source.version,
        path=str(path),
        how=entry.how if entry else "",
        seconds=round(seconds, 1),
        problem=f"{why}; run {source.remedy}" if why else "",
    )


def _scanner_status(lock: Lock) -> ToolStatus:
    try:
        path, identity = find_scanner(manifest.load_manifest(bin_directory()).get(lock.scanner.name))
    except SekishoError as error:
        return ToolStatus(name=lock.scanner.name, kind="scanner", version=lock.scanner.version, problem=str(error))
    how = f"pinned by digest, {identity.digest}"
    return ToolStatus(name=identity.name, kind="scanner", version=identity.version, path=str(path), how=how)


def _remember_scanner(directory: Path, say: Say) -> None:
    """Record the scanner's digest, so that the next report need not read its 160 MB again."""
    name = load_lock().scanner.name
    known = manifest.load_manifest(directory).get(name)
    try:
        path, identity = find_scanner(known)
        seen = scanner_seen(path)
    except SekishoError:
        return  # the report says it
    if known is not None and known.seen == seen:
        return
    entry = manifest.Entry(
        name=name, version=identity.version, sha256=identity.digest.removeprefix("sha256:"), how=str(path), seen=seen
    )
    with _locked(home() / "tools.lock", say):
        manifest.save_manifest(directory, manifest.load_manifest(directory).having(entry))


@contextmanager
def _locked(path: Path, say: Say) -> Iterator[None]:
    """Hold the lock of the tools' directory. The kernel drops it with the process, however that ends."""
    with path.open("a+b") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another run is bringing the tools; waiting for it")
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _for_people(error: OSError, directory: Path) -> PermanentError:
    where = str(error.filename or directory)
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        remedy = "Run it as root, or set SEKISHO_HOME to a directory that you may write."
        return PermanentError("The tools' directory cannot be written.", where=where, remedy=remedy)
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return PermanentError("The disk is full.", where=where, remedy="Make 10 GiB free and start again.")
    return PermanentError(f"The tools cannot be brought: {error.strerror or error}", where=where)
