"""The gate's hint is computed by processes that surely end."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stages.dev import hint as module
from stages.dev.hint import Gate

SCANNER = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, {answer})
print(os.getpid(), flush=True)
time.sleep(600)
"""


def judging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str) -> tuple[Gate, int]:
    """Return a gate whose check has started a scanner, and the scanner's process id."""
    note = tmp_path / "pid"
    code = f"import subprocess; subprocess.run([{sys.executable!r}, '-c', {SCANNER.format(answer=answer)!r}]"
    code += f", stdout=open({str(note)!r}, 'w'))"
    monkeypatch.setattr(module, "program", lambda *_: [sys.executable, "-c", code])
    gate = Gate(tmp_path, lambda _: None)
    gate.judge(1, tmp_path)
    for _ in range(600):
        if note.exists() and note.read_text().endswith("\n"):
            return gate, int(note.read_text())
        time.sleep(0.1)
    pytest.fail("the scanner never began")


def has_gone(pid: int) -> bool:
    for _ in range(600):
        try:
            state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":  # ended; whoever adopts processes here has not looked yet
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize("answer", ["signal.SIG_DFL", "signal.SIG_IGN"])
def test_a_newer_save_ends_the_scanner_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    gate, scanner = judging(tmp_path, monkeypatch, answer)
    gate.stop()
    assert has_gone(scanner)


def test_at_the_end_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, scanner = judging(tmp_path, monkeypatch, "signal.SIG_IGN")
    gate.close()
    assert has_gone(scanner)


def test_the_scanner_may_clear_up_behind_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = f"lambda *_: (os.mkdir({str(tmp_path / 'cleared')!r}), sys.exit())"
    gate, scanner = judging(tmp_path, monkeypatch, answer)
    gate.stop()
    assert has_gone(scanner)
    assert (tmp_path / "cleared").is_dir()


def test_what_has_ended_is_not_ended_again(monkeypatch: pytest.MonkeyPatch) -> None:
    killpg = os.killpg
    with subprocess.Popen([sys.executable, "-c", ""], start_new_session=True) as process:
        process.wait()
    asked: list[int] = []
    monkeypatch.setattr(os, "killpg", lambda pid, _: asked.append(pid) or killpg(pid, 0))
    module._end(process)  # type: ignore[arg-type]
    assert asked == [process.pid]
