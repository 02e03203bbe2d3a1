"""What bad pushes get: a clear NO with a remedy, the commit stored, nothing sealed, the build zone unharmed."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from line import cli, cli_json, feed, pushed, verdict, workload

from sekisho.demo.workload import prepare, push
from sekisho.zones import Zone, ZoneHome

pytestmark = pytest.mark.e2e


def _no_score(folder: Path) -> None:
    (folder / "score.yaml").unlink()


def _invalid_score(folder: Path) -> None:
    score = folder / "score.yaml"
    score.write_text(score.read_text().replace("score.dev/v1b1", "score.dev/v9"))


def _no_lock(folder: Path) -> None:
    (folder / "requirements.txt").unlink()


def _two_languages(folder: Path) -> None:
    (folder / "Procfile").unlink()
    (folder / "go.mod").write_text("module example.com/shop\n\ngo 1.22\n")


def _wrong_hash(folder: Path) -> None:
    lock = folder / "requirements.txt"
    lock.write_text(re.sub(r"--hash=sha256:[0-9a-f]{64}", f"--hash=sha256:{'0' * 64}", lock.read_text()))


def _leaked_secret(folder: Path) -> None:
    tests = folder / "tests"
    tests.mkdir(exist_ok=True)
    # Put together here so that this file holds no secret itself.
    (tests / "fixture.md").write_text("key = " + "AKIA" + "Q3EGRXV5Y7ZMUWL2" + "\n")


def _critical(folder: Path) -> None:
    lock = folder / "requirements.txt"
    lock.write_text(re.sub(r"(?s)waitress==.*?(?=\nwerkzeug==)", CRITICAL_PIN, lock.read_text()))


def _no_probe(folder: Path) -> None:
    score = folder / "score.yaml"
    score.write_text(re.sub(r"(?m)^    (readiness|liveness)Probe:\n      httpGet:.*\n", "", score.read_text()))


def _foreign_language(folder: Path) -> None:
    for name in ("requirements.txt", "requirements.in", "Procfile"):
        (folder / name).unlink(missing_ok=True)
    for path in folder.rglob("*.py"):
        path.unlink()
    (folder / "main.f90").write_text("program main\nend program\n")


# CVE-2024-49768; a small pure wheel, never run here.
CRITICAL_PIN = "waitress==2.1.2 --hash=sha256:7500c9625927c8ec60f54377d590f67b30c8e70ef4b8894214ac6e4cad233d2a"

CASES: list[tuple[str, Callable[[Path], None], tuple[str, ...]]] = [
    ("no-score", _no_score, ("score.yaml",)),
    ("bad-score", _invalid_score, ("/apiVersion", "score.yaml")),
    ("two-languages", _two_languages, ("two things at once", "requirements.txt (Python)", "go.mod (Go)")),
    ("wrong-hash", _wrong_hash, ("hash",)),
    ("leak", _leaked_secret, ("secret", "fixture.md")),
    ("critical", _critical, ("CVE-2024-49768", "waitress")),
    ("no-probe", _no_probe, ("readiness",)),
    ("fortran", _foreign_language, ("nothing here that the line knows how to build",)),
]


@pytest.mark.parametrize(("name", "change", "said"), CASES, ids=[case[0] for case in CASES])
def test_a_bad_push_gets_a_no_with_a_remedy(
    name: str, change: Callable[[Path], None], said: tuple[str, ...], zones: Any, tmp_path: Path
) -> None:
    app = f"bad-{name}"
    commit, output = pushed(app, workload(tmp_path, app, change))
    record = verdict(app, commit)
    assert record["verdict"]["result"] == "FAILED", output
    failures = [reason for reason in record["verdict"]["reasons"] if reason["result"] == "fail"]
    assert failures
    assert all(reason["remedy"] for reason in failures), failures
    for words in said:
        assert words.lower() in output.lower(), output
    assert record["release"] == ""
    stored = subprocess.run(
        ["git", "-C", str(ZoneHome(Zone.BUILD).git / f"{app}.git"), "-c", "safe.directory=*", "cat-file", "-t", commit],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert stored.stdout.strip() == "commit"


def test_a_push_without_a_lock_is_resolved_once_and_says_so(zones: Any, tmp_path: Path) -> None:
    app = "no-lock"
    commit, output = pushed(app, workload(tmp_path, app, _no_lock))
    record = verdict(app, commit)
    assert record["verdict"]["result"] == "PASSED", output
    assert any(note.startswith("No usable lock file was committed") for note in record["verdict"]["notes"])
    assert "No usable lock file was committed: the line resolved the packages" in output


def test_a_commit_that_passes_on_a_topic_branch_is_not_released(zones: Any, tmp_path: Path) -> None:
    app = "topic"
    commit, output = pushed(app, workload(tmp_path, app), branch="topic")
    record = verdict(app, commit)
    assert record["verdict"]["result"] == "PASSED", output
    assert record["release"] == ""
    assert "not a release branch" in output


def test_a_wrong_token_pushes_nothing(zones: Any, tmp_path: Path) -> None:
    from sekisho.embedded.netns import in_zone
    from sekisho.zones import Network, Port, address

    repository, _ = prepare("denied", workload(tmp_path, "denied"))
    url = f"http://developer:wrong@{address(Zone.BUILD)}:{Port.GIT}/denied.git"
    done = subprocess.run(
        [*in_zone(Network.DEVELOPER), "git", "-C", str(repository), "push", url, "HEAD:refs/heads/main"],
        capture_output=True, text=True, check=False, env={"GIT_TERMINAL_PROMPT": "0", "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert done.returncode != 0
    assert not (ZoneHome(Zone.BUILD).git / "denied.git").exists()


def test_a_pusher_who_hangs_up_loses_nothing(zones: Any, tmp_path: Path) -> None:
    app = "hangup"
    repository, commit = prepare(app, workload(tmp_path, app))
    process = push(app, repository)
    assert process.stdout is not None
    for line in process.stdout:
        if "remote:" in line:
            break
    process.kill()
    process.wait()
    assert verdict(app, commit)["verdict"]["result"] == "PASSED"


def test_check_says_the_same_before_the_push(tmp_path: Path) -> None:
    good = workload(tmp_path / "good", "guestbook")
    done = cli("check", str(good), check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    bad = workload(tmp_path / "bad", "guestbook", _two_languages)
    said = cli("check", str(bad), check=False)
    assert said.returncode == 1
    assert "two things at once" in said.stdout + said.stderr
    open_ended = cli("check", str(workload(tmp_path / "open", "guestbook", _no_lock)), check=False)
    assert open_ended.returncode == 0
    said_of_it = " ".join(open_ended.stdout.split())
    assert "there is no lock file with hashes. The gate resolves the packages once, and keeps the lock" in said_of_it
    assert cli("check", str(tmp_path / "nowhere"), check=False).returncode == 2


def test_wrong_use_is_told_apart_from_a_no(zones: Any) -> None:
    assert cli("plan", "nobody-knows-this", "--zone", "production", check=False).returncode == 1
    assert cli("approve", check=False).returncode == 2
    unknown = cli("approve", "sha256:" + "0" * 64, "--yes", check=False)
    assert unknown.returncode == 1
    assert "Traceback" not in unknown.stderr
    assert isinstance(cli_json("releases"), (list, dict))
    assert feed().page()
