"""From save to running, measured as a developer feels it: from the write to the first HTTP answer of the new version.

`measure` drives the real command in a process of its own, on a copy of a workload, and asks over the forwarded port.
"""

from __future__ import annotations

import http.client
import json
import queue
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sekisho.errors import PermanentError, UsageError
from sekisho.programs import program, surroundings

_START_SECONDS = 240.0
_ROUND_SECONDS = 120.0
_PAUSE = 0.15
_ASKING = 3
"""Requests at a time: more of them would keep the program from starting."""
_REST_SECONDS = 2.0
"""Between what is said of one version and the next save."""
_SETTLE_SECONDS = 8.0
"""After the start: what was made for it (a database, its pods) keeps the cluster busy some seconds longer, and a save
within them takes up to 3 s more."""


@dataclass
class Running:
    """A `sekisho dev` in a process of its own, and what it says."""

    process: subprocess.Popen[str]
    events: list[dict[str, Any]] = field(default_factory=list)
    _new: threading.Condition = field(default_factory=threading.Condition)

    def read(self) -> None:
        """Read its events until it ends."""
        for line in self.process.stdout or ():
            with suppress(ValueError):
                event = json.loads(line)
                with self._new:
                    self.events.append({**event, "at": time.monotonic()})
                    self._new.notify_all()
        self.process.wait()
        with self._new:
            self._new.notify_all()

    def wait(self, event: str, *, seconds: float = _ROUND_SECONDS, after: int = 0, **wanted: Any) -> dict[str, Any]:
        """Return the first event of a kind, from the given place on.

        Raises:
            PermanentError: it did not come in time, or the command ended.
        """

        def found() -> dict[str, Any] | None:
            for item in self.events[after:]:
                if item["event"] == event and all(item.get(key) == value for key, value in wanted.items()):
                    return item
            return None

        with self._new:
            self._new.wait_for(lambda: found() or self.process.poll() is not None, timeout=seconds)
            answer = found()
        if answer is None:
            said = "".join(f"\n  {json.dumps(item)[:300]}" for item in self.events[-8:])
            raise PermanentError(f"sekisho dev did not say {event!r} {wanted or ''} in {seconds:.0f} s:{said}")
        return answer


@contextmanager
def running(folder: Path, *, login: str, environment: Mapping[str, str] | None = None) -> Iterator[Running]:
    """Run `sekisho dev` on a folder, and end it as Ctrl-C does."""
    process = subprocess.Popen(
        program("stages.dev", str(folder), "--as", login, "--json"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        env=surroundings(environment),
        start_new_session=True,
    )
    found = Running(process)
    threading.Thread(target=found.read, daemon=True).start()
    try:
        yield found
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def get(url: str, *, timeout: float = 30.0) -> tuple[int, bytes]:
    """Return status and body of one GET on a new connection; (0, b"") when nobody answers."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=timeout)
    try:
        connection.request("GET", parts.path or "/")
        answer = connection.getresponse()
        return answer.status, answer.read(1 << 20)
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


def save_to_running(one: Running, file: Path, text: str, url: str, marker: str) -> float:
    """Save a file and return the seconds until an answer shows it.

    Args:
        one: the running command.
        file: the file to save.
        text: its new text, with the marker in it.
        url: where to ask.
        marker: what an answer of the new version has in its body.

    Raises:
        PermanentError: no answer shows it in time.
    """
    seen: queue.SimpleQueue[float] = queue.SimpleQueue()

    turns = threading.BoundedSemaphore(_ASKING)

    def ask() -> None:
        with turns:
            if marker.encode() in get(url)[1]:
                seen.put(time.monotonic())

    start = time.monotonic()
    file.write_text(text, encoding="utf-8")
    while time.monotonic() - start < _ROUND_SECONDS and one.process.poll() is None:
        # Again and again, whatever became of the last one: a request that the old program took with it says nothing.
        if turns.acquire(blocking=False):
            turns.release()
            threading.Thread(target=ask, daemon=True).start()
        with suppress(queue.Empty):
            return seen.get(timeout=_PAUSE) - start
    said = "".join(f"\n  {json.dumps(item)[:300]}" for item in one.events[-8:])
    raise PermanentError(f"No answer shows {marker} after {_ROUND_SECONDS:.0f} s:{said}", where=url)


def measure(
    folder: Path, *, edit: str, before: str, path: str = "/", rounds: int = 5, login: str = "measure"
) -> list[float]:
    """Return the seconds from save to running, one a round.

    Args:
        folder: a workload; it is copied first.
        edit: the file to save, relative to it.
        before: a text in that file, before which each round writes another mark; the answer's body must show it.
        path: the path to ask.
        rounds: how many saves.
        login: whose dev namespace to use.

    Raises:
        UsageError: the text is not in the file.
        PermanentError: a version did not run.
    """
    original = (folder / edit).read_text(encoding="utf-8")
    if before not in original:
        raise UsageError(f"The text {before[:60]!r} is not in the file.", where=edit)
    with tempfile.TemporaryDirectory(prefix="sekisho-dev-") as scratch:
        copy = Path(scratch) / folder.name
        shutil.copytree(folder, copy, symlinks=True, ignore=shutil.ignore_patterns(".git", "__pycache__"))
        with running(copy, login=login) as one:
            url = one.wait("address", seconds=_START_SECONDS)["url"].rstrip("/") + path
            one.wait("running", seconds=_START_SECONDS)
            time.sleep(_SETTLE_SECONDS)
            seconds = []
            for number in range(rounds):
                # The gate's hint of the version before shall not be measured with the next.
                one.wait("gate", version=number + 1)
                time.sleep(_REST_SECONDS)
                marker = f"saved-{number}-{time.time_ns()}"
                text = original.replace(before, f"{marker}{before}", 1)
                seconds.append(save_to_running(one, copy / edit, text, url, marker))
            return seconds
