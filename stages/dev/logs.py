"""The workload's own words, followed from each start of a container to its end.

A connection that breaks off, or says nothing for a while, is made anew as long as the container is the same one, and
goes on behind the last line that was shown: each line comes with its time.
"""

from __future__ import annotations

import datetime as dt
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from sekisho.errors import PermanentError, SekishoError, TemporaryError
from sekisho.kube import Kube, Ref
from sekisho.kube_streams import lines
from stages.dev.pods import Log, logs

_SILENCE = 60.0
"""Seconds without a line after which the connection may be dead."""
_TAIL = 500
"""Lines of a container that are shown at the beginning."""
_LENGTH = 2000
"""Characters of one line that are shown."""
_PAUSE, _LONGEST_PAUSE = 0.5, 5.0
"""Seconds between two connections."""
_END_SECONDS = 3.0
"""How much later than its log ends a container's own end may be shown: until then another one may have taken over."""
_STAMP = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d) ")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_OTHER = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


def cleaned(line: bytes) -> str:
    """Return one line of a program as it may be shown: colours stay, what steers a terminal does not."""
    text = line[: _LENGTH * 4].decode("utf-8", "replace").rstrip("\r\n")[:_LENGTH]
    parts: list[str] = []
    end = 0
    for match in _COLOUR.finditer(text):
        parts += [_OTHER.sub("", text[end : match.start()]), match[0]]
        end = match.end()
    whole = "".join([*parts, _OTHER.sub("", text[end:])])
    return f"{whole}\x1b[0m" if parts else whole


@dataclass
class Shown:
    """How far the words of one container were shown."""

    time: int = 0
    """Of the last line, nanoseconds since the epoch."""
    count: int = 0
    """How many lines of that very time."""

    @property
    def query(self) -> dict[str, str]:
        """What to ask for, to go on from here; the server cuts the time to whole seconds."""
        if not self.time:
            return {"tailLines": str(_TAIL)}
        since = dt.datetime.fromtimestamp(self.time // 10**9, tz=dt.UTC)
        return {"sinceTime": since.strftime("%Y-%m-%dT%H:%M:%SZ")}

    def new(self, stamped: Iterator[bytes]) -> Iterator[bytes]:
        """Yield the lines of one connection that were not shown before, without their times."""
        before, again = self.time, self.count
        behind = not before
        for line in stamped:
            time, text = _parted(line)
            if time is None:
                yield text  # the node's own words
                continue
            if not behind:
                if time < before:
                    continue
                if time == before and again:
                    again -= 1
                    continue
                behind = True
            self.count = self.count + 1 if time == self.time else 1
            self.time = time
            yield text


def _parted(line: bytes) -> tuple[int | None, bytes]:
    match = _STAMP.match(line)
    if match is None:
        return None, line
    whole = dt.datetime.fromisoformat(match[1].decode() + match[3].decode().replace("Z", "+00:00"))
    return int(whole.timestamp()) * 10**9 + int((match[2] or b"").ljust(9, b"0")), line[match.end() :]


class Logs:
    """Follows every container of the app.

    Args:
        kube: the dev cluster.
        namespace: the developer's namespace.
        show: given each line, with the container's name.
    """

    def __init__(self, kube: Kube, namespace: str, show: Callable[[str, str], None]) -> None:
        self._kube = kube
        self._namespace = namespace
        self._show = show
        self._known: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    def follow(self, pods: tuple[dict[str, Any], ...]) -> None:
        """Follow what is not followed yet."""
        for log in logs(pods):
            key = (log.pod, log.run)
            with self._lock:
                if key in self._known:
                    continue
                self._known.add(key)
            threading.Thread(target=self._read, args=(log,), name=f"log-{log.container}", daemon=True).start()

    def _read(self, log: Log) -> None:
        """Show the words of one container, to its end."""
        shown = Shown()
        pause = _PAUSE
        now: Log | None = log
        while now is not None:
            begun = time.monotonic()
            try:
                for text in shown.new(self._lines(now, shown)):
                    self._show(log.container, cleaned(text))
            except SekishoError:
                # Its words are an illustration; the cluster says what became of it.
                pause = _PAUSE if time.monotonic() - begun > _LONGEST_PAUSE else pause
                time.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
                now = self._same(log)
                continue
            if now.ended:
                return
            time.sleep(_END_SECONDS)
            now = self._same(log)
            if now is not None and now.ended:
                return  # all was said

    def _lines(self, log: Log, shown: Shown) -> Iterator[bytes]:
        pod = quote(log.pod, safe="")
        path = f"/api/v1/namespaces/{quote(self._namespace, safe='')}/pods/{pod}/log"
        follow = "" if log.ended else "true"
        query = {"container": log.container, "follow": follow, "timestamps": "true", **shown.query}
        return lines(self._kube, path, query, silence=_SILENCE)

    def _same(self, log: Log) -> Log | None:
        """Return a container as it is now; None when it has gone or another has taken its place."""
        while True:
            try:
                pod = self._kube.get(Ref("v1", "Pod", self._namespace, log.pod))
            except TemporaryError:
                time.sleep(_LONGEST_PAUSE)
                continue
            except PermanentError:
                return None  # the namespace has gone, and the right to look with it
            found = logs((pod,)) if pod is not None else ()
            return next((one for one in found if (one.container, one.run) == (log.container, log.run)), None)
