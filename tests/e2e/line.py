"""What the tests of the whole line share: pushing as a developer, and waiting for what the zones say."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from sekisho.clients import FeedClient, OpsClient
from sekisho.demo.workload import prepare, push
from sekisho.errors import SekishoError
from sekisho.zones import Port, Zone, address

ROOT = Path(__file__).resolve().parents[2]
GUESTBOOK = ROOT / "examples" / "guestbook"
PATIENCE = 180.0

T = TypeVar("T")


def feed() -> FeedClient:
    return FeedClient(f"http://{address(Zone.BUILD)}:{Port.FEED}")


def ops() -> OpsClient:
    return OpsClient(f"http://{address(Zone.OPS)}:{Port.OPS}")


def until(look: Callable[[], T | None], what: str, *, seconds: float = PATIENCE) -> T:
    """Look again and again until something is there."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            found = look()
        except SekishoError:
            found = None
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"Not seen within {seconds:.0f} s: {what}")
        time.sleep(0.2)


def workload(folder: Path, app: str, change: Callable[[Path], None] | None = None, *, source: Path = GUESTBOOK) -> Path:
    """Copy an example under another app's name, changed; each time another commit, so that a push is never stale."""
    target = folder / app
    shutil.copytree(
        source, target, ignore=shutil.ignore_patterns("__pycache__", ".pytest_cache", "node_modules", "target")
    )
    score = target / "score.yaml"
    text = re.sub(r"(?m)^  name: .*$", f"  name: {app}", score.read_text(), count=1)
    # What a test deployed stays: the small nodes have to hold the apps of many runs.
    score.write_text(re.sub(r"requests: \{cpu: \d+m", "requests: {cpu: 5m", text))
    (target / "REVISION").write_text(f"{time.time_ns()}\n")
    if change is not None:
        change(target)
    return target


def pushed(app: str, source: Path, *, branch: str = "main", seconds: float = PATIENCE) -> tuple[str, str]:
    """Push a folder's files as a developer; return the commit and what the pusher saw."""
    # `prepare` insists on a score.yaml for people's sake; a push without one is just what some tests want.
    missing = not (source / "score.yaml").exists()
    if missing:
        (source / "score.yaml").touch()
    repository, commit = prepare(app, source)
    if missing:
        (source / "score.yaml").unlink()
        commit = _without_score(repository)
    process = push(app, repository, branch=branch)
    output, _ = process.communicate(timeout=seconds)
    assert process.returncode == 0, output
    return commit, output


def _without_score(repository: Path) -> str:
    git = ["git", "-C", str(repository), "-c", "user.name=Dev", "-c", "user.email=dev@example.com"]
    subprocess.run([*git, "rm", "--quiet", "score.yaml"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--message", "no score.yaml"], check=True)
    done = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def verdict(app: str, commit: str) -> dict[str, Any]:
    """Return a commit's record once it has a verdict."""

    def look() -> dict[str, Any] | None:
        record = feed().commit(app, commit)
        return record if record["state"] in {"passed", "failed"} and record["verdict"] else None

    return until(look, f"a verdict on {app} {commit[:12]}")


def receipt(app: str, release: str, zone: str, event: str, *, seconds: float = PATIENCE) -> dict[str, Any]:
    """Return the newest receipt of a kind once ops has one."""

    def look() -> dict[str, Any] | None:
        found = ops().receipts(app=app, release=release, zone=zone, event=event)
        return found[-1]["receipt"] if found else None

    return until(look, f"{event} of {app} in {zone}", seconds=seconds)


def cli(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the command line as a person would."""
    done = subprocess.run(
        [str(ROOT / ".venv" / "bin" / "sekisho"), *arguments],
        capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=PATIENCE, check=False,
    )  # fmt: skip
    if check:
        assert done.returncode == 0, f"{arguments}: {done.stdout}\n{done.stderr}"
    return done


def cli_json(*arguments: str) -> Any:
    """Run the command line and read its JSON."""
    return json.loads(cli(*arguments, "--json").stdout)


def plan_of(held: dict[str, Any]) -> str:
    """Return the digest of the plan in a 'held' receipt."""
    return str(held["body"]["plan"])
