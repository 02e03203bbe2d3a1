"""What the gate would say, computed beside the work and never in its way.

`stages.check` runs in a process of its own, with the least claim on the processor, on the same copy that was built. A
newer save ends the judging of an older one.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sekisho.errors import Refusal
from sekisho.model import Verdict

_SECONDS = 120
_NICE = 15


@dataclass(frozen=True)
class Hint:
    """The gate's word on one version."""

    version: int
    verdict: Verdict | None
    problem: str
    """Why there is none."""
    seconds: float


class Gate:
    """Judges copies of the working copy.

    Args:
        policies: the policies folder.
        tell: told each hint, in a thread of its own.
        source: the working copy itself: only there git says what would be committed.
    """

    def __init__(self, policies: Path, tell: Callable[[Hint], None], source: Path | None = None) -> None:
        self._policies = policies
        self._tell = tell
        self._source = source
        self._running: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def judge(self, version: int, folder: Path) -> None:
        """Begin to judge a folder."""
        self.stop()
        command = [sys.executable, "-m", "stages.check", str(folder), "--json", "--policies", str(self._policies)]
        command += ["--source", str(self._source)] if self._source else []
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Ctrl-C is for the command; it ends this one itself.
            start_new_session=True,
        )
        _calm(process.pid)
        with self._lock:
            self._running = process
        threading.Thread(target=self._wait, args=(version, process), name="gate", daemon=True).start()

    def stop(self) -> None:
        """End what is being judged."""
        with self._lock:
            process, self._running = self._running, None
        if process is not None and process.poll() is None:
            process.kill()

    def _wait(self, version: int, process: subprocess.Popen[bytes]) -> None:
        start = time.monotonic()
        try:
            out, err = process.communicate(timeout=_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = b"", b"It took too long."
            process.communicate()
        with self._lock:
            if self._running is not process:
                return  # overtaken
            self._running = None
        self._tell(_hint(version, out, err, time.monotonic() - start))


def _hint(version: int, out: bytes, err: bytes, seconds: float) -> Hint:
    try:
        return Hint(version, Verdict.parse(out, where="sekisho check"), "", seconds)
    except Refusal:
        said = err.decode("utf-8", "replace").strip().splitlines()
        return Hint(version, None, said[-1] if said else "It said nothing.", seconds)


def _calm(pid: int) -> None:
    try:
        os.setpriority(os.PRIO_PROCESS, pid, _NICE)
    except OSError:
        return  # ended already
