"""What comes out of a sandbox: its output and its log, through named pipes, each within its bounds."""

from __future__ import annotations

import fcntl
import os
import select
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

OUTPUT, LOG = "output", "log"
"""Names of the two."""

_LOG_SHOWN = 64 * 1024
_PIECE = 1 << 20
_PIPE_BYTES = 1 << 20
_F_SETPIPE_SZ = 1031


class Pipe:
    """A named pipe that both sides may open at any time; gives the descriptor to read from."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path, 0o600)
        path.chmod(0o622)  # whatever the umask: the sandbox's user writes, and does not read
        # Open for writing as well: a writer that closes is then no end, which only the container's end is.
        self._descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        with suppress(OSError):
            fcntl.fcntl(self._descriptor, _F_SETPIPE_SZ, _PIPE_BYTES)

    def __enter__(self) -> int:
        return self._descriptor

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


class Reading:
    """What has come out of a container so far, within its bounds."""

    def __init__(self, pipes: Mapping[str, int], file: IO[bytes], *, deadline: float, output: int, log: int) -> None:
        self._names = {descriptor: name for name, descriptor in pipes.items()}
        self._file = file
        self._deadline = deadline
        self._left = {OUTPUT: output, LOG: log}
        self._log = bytearray()
        self.over = ""
        """What was exceeded: `time`, `output` or `log`; empty while all is well."""
        self.whole = False
        """Whether the container ended by itself and everything was read."""

    @property
    def text(self) -> str:
        """The end of the log."""
        return self._log.decode("utf-8", "replace")

    def until(self, end: int) -> None:
        """Read until `end` can be read and the pipes are empty, or a bound is exceeded."""
        poll = select.poll()
        for descriptor in (*self._names, end):
            poll.register(descriptor, select.POLLIN)
        ended = False
        while not self.over:
            left = self._deadline - time.monotonic()
            ready = [descriptor for descriptor, _ in poll.poll(0 if ended else max(left, 0) * 1000)]
            if end in ready:
                ended = True
                poll.unregister(end)
                continue
            for descriptor in ready:
                self._take(descriptor)
            if not ready and ended:
                self.whole = True
                return
            if not ended and time.monotonic() >= self._deadline:
                self.over = "time"

    def _take(self, descriptor: int) -> None:
        name = self._names[descriptor]
        try:
            piece = os.read(descriptor, _PIECE)
        except BlockingIOError:
            return
        self._left[name] -= len(piece)
        if self._left[name] < 0:
            self.over = name
        elif name == OUTPUT:
            self._file.write(piece)
        if name == LOG:
            self._log += piece
            del self._log[:-_LOG_SHOWN]
