"""The workload's own words, followed from each start of a container to its end."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from sekisho.errors import SekishoError
from sekisho.kube import Kube
from sekisho.kube_streams import lines
from stages.dev.pods import Log, logs

_SILENCE = 3600.0
_LENGTH = 2000
"""Characters of one line that are shown."""
_PAUSE = 0.5
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
        pod = quote(log.pod, safe="")
        path = f"/api/v1/namespaces/{quote(self._namespace, safe='')}/pods/{pod}/log"
        query = {"container": log.container, "follow": "" if log.ended else "true", "tailLines": "500"}
        for _ in range(2):
            try:
                for line in lines(self._kube, path, query, silence=_SILENCE):
                    self._show(log.container, cleaned(line))
            except SekishoError:
                time.sleep(_PAUSE)  # its words are an illustration; the cluster says what became of it
            else:
                return
