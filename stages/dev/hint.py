"""What the gate would say, computed beside the work and never in its way.

`stages.check` runs in a process of its own, with the least claim on the processor, on the same copy that was built. A
newer save ends the judging of an older one, with the scanner that it has started.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sekisho.errors import Refusal
from sekisho.model import Verdict
from sekisho.programs import program, surroundings

_SECONDS = 120
_NICE = 15
_GRACE_SECONDS = 1.0
"""How long the scanner may take to end by itself, and to remove what it had in passing."""
_PAUSE = 0.02


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
        command = program("stages.check", str(folder), "--json", "--policies", str(self._policies))
        command += ["--source", str(self._source)] if self._source else []
        process = subprocess.Popen(
            command,
            env=surroundings(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Ctrl-C is for the command; it ends this one itself, and by its group all that it started.
            start_new_session=True,
        )
        _calm(process.pid)
        with self._lock:
            self._running = process
        threading.Thread(target=self._wait, args=(version, process), name="gate", daemon=True).start()

    def stop(self) -> None:
        """End what is being judged; does not wait for that."""
        process = self._taken()
        if process is not None:
            threading.Thread(target=_end, args=(process,), name="gate-end", daemon=True).start()

    def close(self) -> None:
        """End what is being judged, and wait until nothing of it is left."""
        process = self._taken()
        if process is not None:
            _end(process)

    def _taken(self) -> subprocess.Popen[bytes] | None:
        with self._lock:
            process, self._running = self._running, None
        return process

    def _wait(self, version: int, process: subprocess.Popen[bytes]) -> None:
        start = time.monotonic()
        try:
            out, err = process.communicate(timeout=_SECONDS)
        except subprocess.TimeoutExpired:
            _end(process)
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


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process that leads a session, with all that it started there: asked first, then killed."""
    try:
        os.killpg(process.pid, signal.SIGTERM)
        end = time.monotonic() + _GRACE_SECONDS
        while time.monotonic() < end:
            process.poll()  # a process that nobody has waited for counts as one of the group
            os.killpg(process.pid, 0)
            time.sleep(_PAUSE)
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # all have ended


def _calm(pid: int) -> None:
    try:
        os.setpriority(os.PRIO_PROCESS, pid, _NICE)
    except OSError:
        return  # ended already
