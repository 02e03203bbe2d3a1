"""A Maven that was started before there is a build: it says and does what a new one does."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sekisho.canonical import canonical
from stages.build.languages import java_sandbox
from stages.build.languages.java import Java, _ahead
from stages.build.locks_maven import FORMAT
from stages.build.project import Project

SOURCES = Path(java_sandbox.__file__).parent
POM = """<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>org.example</groupId><artifactId>{name}</artifactId><version>1</version><packaging>pom</packaging>{rest}
</project>"""
GONE = "<parent><groupId>org.example</groupId><artifactId>gone</artifactId><version>1</version></parent>"


@pytest.fixture
def ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a Maven that waits, where none does yet."""
    folder = tmp_path / "ready"
    monkeypatch.setattr(java_sandbox, "READY", folder)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    (tmp_path / "line").mkdir()
    (tmp_path / "line" / "settings.xml").write_text("<settings/>")
    shutil.copy(SOURCES / "java_ready.java", tmp_path / "line")
    return folder


def answering(ready: Path, answer: bytes) -> list[list[str]]:
    """Answer one caller as a Maven would, and return what it asked."""
    ready.mkdir()
    door = socket.socket(socket.AF_UNIX)
    door.bind(str(ready / "maven.sock"))
    door.listen()
    asked: list[list[str]] = []

    def answer_once() -> None:
        caller, _ = door.accept()
        with door, caller:
            words = b""
            while not words.endswith(b"\0\0"):
                words += caller.recv(1 << 16)
            asked.append(words[:-2].decode().split("\0"))
            caller.sendall(answer)

    threading.Thread(target=answer_once, daemon=True).start()
    return asked


def maven(tmp_path: Path, *arguments: str) -> int:
    try:
        java_sandbox._maven(
            {"options": "-Xshare:auto", "arguments": list(arguments)},
            tmp_path / "line",
            tmp_path / "repository",
            offline=True,
        )
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_what_it_prints_is_passed_on_and_its_exit_code_counts(ready: Path, tmp_path: Path, capsys) -> None:
    asked = answering(ready, "[INFO] één\n\0odd\n[ERROR] no\n\0".encode() + b"7\n")
    assert maven(tmp_path, "-Dname=é x") == 7
    assert capsys.readouterr().err == "[INFO] één\n\0odd\n[ERROR] no\n[ERROR] no\n"
    assert asked[0][0] == "--batch-mode"
    assert asked[0][-2:] == ["-Dname=é x", "package"]
    assert f"-Dmaven.repo.local={tmp_path}/repository" in asked[0]


@pytest.mark.parametrize("answer", [b"", b"[INFO] well so far\n", b"[INFO] half a li"])
def test_one_that_dies_has_failed(ready: Path, tmp_path: Path, capsys, answer: bytes) -> None:
    answering(ready, answer)
    assert maven(tmp_path) == 1
    assert "ended before the build was done" in capsys.readouterr().err


def test_the_plan_has_one_made_ready_unless_the_workload_has_options_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "pom.xml").write_text(POM.format(name="a", rest=""))
    lock = {"format": FORMAT, "files": {"maven/g/a/1/a-1.jar": f"sha256:{'ab' * 32}"}}
    (tmp_path / "maven.lock.json").write_bytes(canonical(lock))
    plan = Java().plan(Project(tmp_path), ("17",))
    assert [step.ahead is not None for step in plan.steps] == [True, True]
    settings = json.loads(plan.steps[0].files["settings.json"])
    assert json.loads(plan.steps[0].ahead.files["settings.json"]) == {"options": settings["options"]}
    # It is the same for all workloads: nothing of them is in it.
    other = tmp_path / "other"
    other.mkdir()
    assert _ahead(Project(other)) == plan.steps[0].ahead
    (other / ".mvn").mkdir()
    (other / ".mvn" / "jvm.config").write_text("-Xmx1g")
    assert _ahead(Project(other)) is None


# -- the real one -------------------------------------------------------------------------------------------------

real = pytest.mark.skipif(
    shutil.which("java") is None or not list(java_sandbox.MAVEN.glob("boot/plexus-classworlds*.jar")),
    reason="needs Java and Debian's Maven",
)


@pytest.fixture
def waiting(ready: Path, tmp_path: Path) -> Iterator[subprocess.Popen]:
    """A real Maven, started."""
    program = (
        "import sys; from pathlib import Path; from stages.build.languages import java_sandbox as it\n"
        "it.READY = Path(sys.argv[1]); it.ready({'options': '-Xshare:auto'}, Path(sys.argv[2]))"
    )
    (tmp_path / "work").mkdir()
    with (tmp_path / "said").open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(ready), str(tmp_path / "line")],
            cwd=tmp_path / "work",
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            stdout=said,
            stderr=said,
        )
    yield process
    process.kill()
    process.wait()


def connectable(ready: Path, process: subprocess.Popen) -> None:
    for _ in range(600):
        if (ready / "maven.sock").exists():
            return
        assert process.poll() is None
        time.sleep(0.1)
    raise AssertionError("It does not open its door.")


def settled(said: str) -> list[str]:
    """Return what Maven printed, without what differs from run to run, or from terminal to terminal."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", said)
    return [re.sub(r"(Total time|Finished at):.*", r"\1", line) for line in plain.splitlines() if line]


@real
@pytest.mark.parametrize(
    ("rest", "code", "says"),
    [("", 0, "BUILD SUCCESS"), pytest.param(GONE, 1, "maven.lock.json does not name", marks=pytest.mark.long)],
)
def test_it_says_and_ends_as_a_new_one_would(
    waiting, ready: Path, tmp_path: Path, monkeypatch, capsys, rest: str, code: int, says: str
) -> None:
    monkeypatch.chdir(tmp_path / "work")
    Path("pom.xml").write_text(POM.format(name="a", rest=rest))
    with monkeypatch.context() as nobody:
        nobody.setattr(java_sandbox, "READY", tmp_path / "nobody")
        assert maven(tmp_path, "-Dskip=true") == code
    new = settled(capsys.readouterr().err)
    assert says in "\n".join(new)
    connectable(ready, waiting)
    time.sleep(3)  # so that it has built something of its own
    assert maven(tmp_path, "-Dskip=true") == code
    assert settled(capsys.readouterr().err) == new
    assert waiting.wait(20) == code
    assert (tmp_path / "said").read_text() == ""  # nothing of its own project is ever shown


@real
@pytest.mark.long
def test_one_that_is_asked_while_it_warms_up_answers(waiting, ready: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path / "work")
    Path("pom.xml").write_text(POM.format(name="a", rest=""))
    connectable(ready, waiting)
    assert maven(tmp_path) == 0
    assert "BUILD SUCCESS" in capsys.readouterr().err


@real
def test_one_that_is_killed_while_it_is_asked_has_failed(waiting, ready: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path / "work")
    connectable(ready, waiting)
    threading.Timer(0.2, waiting.send_signal, [signal.SIGKILL]).start()
    assert maven(tmp_path) == 1
    assert maven(tmp_path, "--version") == 0  # nobody is there any more: a new one is started
