"""What runs in the sandbox to build a Java workload. Sent there as a file; the standard library only.

`resolve` and `build` run the workload's own Maven build, the one with a way to the package index, the other with none.
`ready` starts Maven before there is a build: it is the same program under the same conditions, and answers `build`.
`java_assemble` takes what `build` put aside apart, in a container of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

IN = Path("/in")
OUT = Path("/out")
SCRATCH = Path("/tmp")  # noqa: S108  (the sandbox's own)
MADE = "made"
MAVEN = Path("/usr/share/maven")
READY = SCRATCH / "ready"
"""Folder of a Maven that waits."""
_LAUNCHER = "org.codehaus.plexus.classworlds.launcher.Launcher"
_SEEN = ("HOME", "HOSTNAME", "JAVA_HOME", "LANG", "LC_ALL", "PATH")
_NEVER = (".git", "node_modules", "src")
_BESIDE = ("-sources.jar", "-javadoc.jar", "-tests.jar", "-test-sources.jar", "-plain.jar")
_OFFLINE = ("in offline mode", "Could not find artifact", "Non-resolvable", "was not found in")
_ADVICE = tuple(
    f"[ERROR] {start}"
    for start in (
        "-> [Help",
        "[Help",
        "Re-run Maven",
        "To see the full",
        "For more info",
        "After correcting",
        "  mvn <args>",
    )
)
_SHOWN = 4
_FIRST, _LAST = 315_619_200, 4_102_358_400
"""1980-01-02 and 2099-12-31: what Maven takes as a time of archives."""
_STALE = """
maven.lock.json does not name what this build asks for: it was made for another state of the pom.xml files.
Remove it, let the line resolve once more, and commit what the line kept as evidence."""


def main(step: str, line: Path) -> None:
    """Run one step with the files that the line wrote for it."""
    settings = json.loads((line / "settings.json").read_text(encoding="utf-8"))
    {"ready": ready, "resolve": resolve, "build": build}[step](settings, line)


def resolve(settings: Mapping[str, Any], line: Path) -> None:
    """Run the build once, so that Maven asks the line's proxy for everything that it needs."""
    _maven(settings, line, SCRATCH / "repository", offline=False)


def build(settings: Mapping[str, Any], line: Path) -> None:
    """Run the build with the locked files as the repository, and put the jars that it made aside."""
    repository = SCRATCH / "repository"
    farm(IN / "packages", repository)
    _maven(settings, line, repository, offline=True)
    work = OUT / "work"
    collect(work, OUT / MADE)
    os.chdir(OUT)
    shutil.rmtree(work)


def collect(work: Path, made: Path) -> None:
    """Move each module's jars, and what stands in folders beside them, out of its `target`."""
    made.mkdir()
    for folder, folders, _ in os.walk(work):
        place = Path(folder)
        folders[:] = [name for name in folders if name not in _NEVER]
        if "target" not in folders or not (place / "pom.xml").is_file():
            continue
        folders.remove("target")
        into = made / place.relative_to(work) / "target"
        for path in sorted((place / "target").iterdir()):
            jar = path.suffix == ".jar" and path.is_file() and not path.name.endswith(_BESIDE)
            if (jar and not path.name.startswith("original-")) or _has_jars(path):
                into.mkdir(parents=True, exist_ok=True)
                path.rename(into / path.name)


def _has_jars(path: Path) -> bool:
    """Tell whether a folder holds jars: `lib`, `dependency`, `quarkus-app`. Classes and reports do not."""
    if not path.is_dir() or path.is_symlink() or path.name in ("classes", "test-classes"):
        return False
    return next(path.rglob("*.jar"), None) is not None


def farm(source: Path, target: Path) -> None:
    """Make a writable folder whose files are those of another one, without copying them."""
    for folder, _, names in os.walk(source):
        place = target / Path(folder).relative_to(source)
        place.mkdir(parents=True, exist_ok=True)
        for name in names:
            (place / name).symlink_to(Path(folder) / name)


def reasons(said: Iterable[str]) -> list[str]:
    """Return the lines in which Maven says what went wrong, without its advice."""
    errors = (line for line in said if line.startswith("[ERROR]") and not line.startswith(_ADVICE))
    return list(dict.fromkeys(line for line in errors if line.removeprefix("[ERROR]").strip()))[:_SHOWN]


def ready(settings: Mapping[str, Any], line: Path) -> None:
    """Become a Maven that waits for its arguments; see java_ready.java."""
    READY.mkdir()
    command = _java(settings["options"].split(), str(line / "java_ready.java"), str(READY))
    os.execvpe(command[0], command, _environment())  # noqa: S606  (what becomes Maven has no shell)


def _maven(settings: Mapping[str, Any], line: Path, repository: Path, *, offline: bool) -> None:
    when = min(max(int(os.environ["SOURCE_DATE_EPOCH"]), _FIRST), _LAST)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(when))
    where = str(line / "settings.xml")
    arguments = [
        "--batch-mode", "--no-transfer-progress", "-Dstyle.color=never", *(["--offline"] if offline else []),
        "--settings", where, "--global-settings", where, f"-Dmaven.repo.local={repository}",
        f"-Dproject.build.outputTimestamp={stamp}", *settings["arguments"], "package",
    ]  # fmt: skip
    said = deque[str](maxlen=200)

    def tell(text: str) -> None:
        sys.stderr.write(text)
        said.append(text)

    caller = _called()
    status = _started(settings, arguments, tell) if caller is None else _asked(caller, arguments, tell)
    if status:
        # Maven ends with advice; what went wrong stands before it, and people see the last lines first.
        sys.stderr.writelines(reasons(said))
        if offline and any(sign in text for text in said for sign in _OFFLINE):
            sys.stderr.write(f"{_STALE}\n")
        raise SystemExit(status)


def _started(settings: Mapping[str, Any], arguments: Iterable[str], tell: Callable[[str], None]) -> int:
    """Start Maven, and return its exit code."""
    own = Path(".mvn/jvm.config")
    words = own.read_text(encoding="utf-8", errors="replace").split() if own.is_file() else []
    command = _java([*words, *settings["options"].split()], _LAUNCHER, *arguments)
    with subprocess.Popen(
        command, env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        for text in process.stdout or ():
            tell(text)
    return process.returncode


def _called() -> socket.socket | None:
    """Connect to the Maven that waits, if one does."""
    caller = socket.socket(socket.AF_UNIX)
    try:
        caller.connect(str(READY / "maven.sock"))
    except OSError:
        caller.close()
        return None
    return caller


def _asked(caller: socket.socket, arguments: Iterable[str], tell: Callable[[str], None]) -> int:
    """Have the Maven that waits run, and return its exit code."""
    status = None
    with caller, caller.makefile("r", encoding="utf-8", errors="replace", newline="\n") as lines, suppress(OSError):
        caller.sendall(b"".join(f"{word}\0".encode() for word in arguments) + b"\0")
        for text in lines:
            if text.startswith("\0") and text[1:].strip().isdigit():
                status = int(text[1:])
            else:
                tell(text)
    if status is None:
        tell("[ERROR] Maven has ended before the build was done.\n")
        return 1
    return status


def _java(options: Iterable[str], *rest: str) -> list[str]:
    """Return the command that Maven's own script would run."""
    boot = min(MAVEN.glob("boot/plexus-classworlds*.jar"))
    return [
        "java", *options, "-classpath", str(boot), f"-Dclassworlds.conf={MAVEN}/bin/m2.conf", f"-Dmaven.home={MAVEN}",
        f"-Dlibrary.jansi.path={MAVEN}/lib/jansi-native", f"-Dmaven.multiModuleProjectDirectory={Path.cwd()}", *rest,
    ]  # fmt: skip


def _environment() -> dict[str, str]:
    """Return what Maven sees. A build may ask for variables, so there are none that one run has and another has not."""
    return {name: os.environ[name] for name in _SEEN if name in os.environ}


if __name__ == "__main__":
    main(sys.argv[1], Path(__file__).parent)
