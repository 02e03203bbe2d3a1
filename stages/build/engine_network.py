"""A network namespace made ready: half of what a container's start takes is the engine making a network that has none.

While nothing is built, a container that sleeps is started without network. The next sandbox joins its namespace
instead of having one made, alone: it is handed out once, and goes when that sandbox goes. Nothing else is shared: no
process, no file, no name. Where none is ready, or it has gone, a sandbox gets its own as ever.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress

import docker
import docker.errors

from sekisho.errors import PermanentError, TemporaryError

NONE = "none"
"""The engine's word for a network that is not there."""
_MEMORY, _PROCESSES = 16 << 20, 16
"""Of a holder: it needs one process, and the engine some threads to start it."""


class Networks:
    """Keeps one network namespace ready. Safe for use by several threads.

    Args:
        client: gives the engine's client.
        remove: removes a container, whatever state it is in.
        label: name of the label that holders have.
        owner: its value.
        user: user and group of a holder's process.
        hostname: that of the sandboxes, which have it from the holder.
    """

    def __init__(
        self,
        client: Callable[[], AbstractContextManager[docker.APIClient]],
        remove: Callable[[str], None],
        *,
        label: str,
        owner: str,
        user: int,
        hostname: str,
    ) -> None:
        self._client = client
        self._remove = remove
        self._labels = {label: owner}
        self._user = user
        self._hostname = hostname
        self._lock = threading.Lock()
        self._ready = ""
        self._closed = False

    def take(self) -> str:
        """Return a holder's id, which nobody else gets and the caller removes; empty where none is ready."""
        with self._lock:
            holder, self._ready = self._ready, ""
        if not holder:
            return ""
        try:
            with self._client() as client:
                alive = client.inspect_container(holder)["State"]["Running"]
        except (TemporaryError, PermanentError):
            alive = False
        if not alive:
            self._remove(holder)
            return ""
        return holder

    def prepare(self, image: str) -> None:
        """Make one ready, if none is. One call at a time.

        Args:
            image: id of an image with a shell.
        """
        with self._lock:
            if self._ready or self._closed:
                return
        made = ""
        with suppress(TemporaryError, PermanentError), self._client() as client:
            host = client.create_host_config(
                network_mode=NONE,
                read_only=True,
                cap_drop=["ALL"],
                security_opt=["no-new-privileges"],
                pids_limit=_PROCESSES,
                mem_limit=_MEMORY,
                memswap_limit=_MEMORY,
                log_config=docker.types.LogConfig(type="none"),
            )
            container = client.create_container(
                image,
                entrypoint=["/bin/sh", "-c", "exec sleep infinity"],
                command=[],
                user=f"{self._user}:{self._user}",
                hostname=self._hostname,
                labels=self._labels,
                host_config=host,
                use_config_proxy=False,
            )
            made = str(container["Id"])
            client.start(made)
        with self._lock:
            closed = self._closed
            if not closed:
                self._ready = made
        if made and closed:
            self._remove(made)

    def close(self) -> None:
        """Give back the one that is ready, and make none any more."""
        with self._lock:
            holder, self._ready, self._closed = self._ready, "", True
        if holder:
            self._remove(holder)
