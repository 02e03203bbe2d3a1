"""What runs in the sandbox to build a Java workload. Sent there as a file; the standard library only.

`resolve` and `build` run the workload's own Maven build, the one with a way to the package index, the other with none.
`java_assemble` takes what `build` put aside apart, in a container of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

IN = Path("/in")
OUT = Path("/out")
SCRATCH = Path("/tmp")  # noqa: S108  (the sandbox's own)
MADE = "made"
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
    {"resolve": resolve, "build": build}[step](settings, line)


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


def _maven(settings: Mapping[str, Any], line: Path, repository: Path, *, offline: bool) -> None:
    when = min(max(int(os.environ["SOURCE_DATE_EPOCH"]), _FIRST), _LAST)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(when))
    where = str(line / "settings.xml")
    command = [
        "mvn", "--batch-mode", "--no-transfer-progress", "-Dstyle.color=never", *(["--offline"] if offline else []),
        "--settings", where, "--global-settings", where, f"-Dmaven.repo.local={repository}",
        f"-Dproject.build.outputTimestamp={stamp}", *settings["arguments"], "package",
    ]  # fmt: skip
    environment = {**os.environ, "MAVEN_OPTS": settings["options"], "MAVEN_SKIP_RC": "1"}
    said = deque[str](maxlen=200)
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        for text in process.stdout or ():
            sys.stderr.write(text)
            said.append(text)
    if process.returncode:
        # Maven ends with advice; what went wrong stands before it, and people see the last lines first.
        sys.stderr.writelines(reasons(said))
        if offline and any(sign in text for text in said for sign in _OFFLINE):
            sys.stderr.write(f"{_STALE}\n")
        raise SystemExit(process.returncode)


if __name__ == "__main__":
    main(sys.argv[1], Path(__file__).parent)
