"""127.0.0.1:<port> on the developer's machine, and behind it the pod that runs the newest good version.

While a version starts, a caller waits for it instead of being refused: a browser that is reloaded right after a save
shows the new version. What the caller has sent is kept until the first byte comes back, and given again where nobody
had listened yet; a request that anybody has heard is never sent twice.
"""

from __future__ import annotations

import contextlib
import hashlib
import socket
import threading
import time

from sekisho.errors import PermanentError, SekishoError
from sekisho.kube_forward import Channel, Dialer, Refused

HOST = "127.0.0.1"
_WAIT_SECONDS = 60.0
"""How long a caller waits for a version that answers."""
_PAUSE = 0.1
_LONGEST_PAUSE = 0.4
_KEEP = 256 << 10
"""Bytes of a request that can be given again."""
_PIECE = 32 << 10
_FIRST, _SPAN = 20_000, 10_000


def listen(namespace: str, wanted: int, *, exactly: bool) -> socket.socket:
    """Return a listening socket on this machine alone.

    Args:
        namespace: decides the port where the wanted one is taken, so that it stays the same from day to day.
        wanted: the port to try first.
        exactly: refuse to take another.

    Raises:
        PermanentError: the wanted port is taken, and no other is good enough.
    """
    own = _FIRST + int.from_bytes(hashlib.sha256(namespace.encode()).digest()[:4], "big") % _SPAN
    for port in (wanted,) if exactly else (*((wanted,) if wanted >= 1024 else ()), own, own + 1, own + 2, 0):  # noqa: PLR2004
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((HOST, port))
            sock.listen(128)
        except OSError:
            sock.close()
            continue
        return sock
    raise PermanentError(
        f"Port {wanted} of this machine is taken.", where=f"{HOST}:{wanted}", remedy="Choose another with --port."
    )


class Forward:
    """Carries connections from a listening socket to a port of whichever pod is the target.

    Args:
        dialer: opens connections to pods.
        namespace: the developer's namespace.
        port: the port in the pod.
        listener: where callers come in.
    """

    def __init__(self, dialer: Dialer, namespace: str, port: int, listener: socket.socket) -> None:
        self._dialer = dialer
        self._namespace = namespace
        self._port = port
        self._listener = listener
        self._target = ""
        self._change = threading.Condition()
        self._closed = False
        self._served: set[_Sent] = set()
        threading.Thread(target=self._accept, name="forward", daemon=True).start()

    @property
    def url(self) -> str:
        """Where callers come in."""
        return f"http://{HOST}:{self._listener.getsockname()[1]}"

    def point_to(self, pod: str, port: int) -> None:
        """Send new connections to a pod; empty for none: callers wait."""
        with self._change:
            self._target, self._port = pod, port
            self._change.notify_all()

    def hang_up(self) -> None:
        """End the connections on which nothing is awaited.

        A program that is asked to end finishes what it has begun, and an idle connection of a browser looks begun.
        """
        with self._change:
            idle = [sent for sent in self._served if not sent.awaited]
        for sent in idle:
            sent.drop()

    def close(self) -> None:
        """Take no more callers."""
        self._closed = True
        with self._change:
            self._change.notify_all()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while not self._closed:
            try:
                caller, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(caller,), name="forwarded", daemon=True).start()

    def _serve(self, caller: socket.socket) -> None:
        with caller:
            sent = _Sent(caller)
            with self._change:
                self._served.add(sent)
            try:
                self._connect(caller, sent)
            finally:
                sent.end()
                with self._change:
                    self._served.discard(sent)

    def _connect(self, caller: socket.socket, sent: _Sent) -> None:
        end = time.monotonic() + _WAIT_SECONDS
        pause = _PAUSE
        while not self._closed and time.monotonic() < end:
            pod, port = self._wait_for_target(end)
            if not pod:
                return
            try:
                with self._dialer.open(self._namespace, pod, port) as channel:
                    sent.to(channel)
                    self._carry(channel, caller, sent)
            except Refused:
                if not sent.again():
                    return
                time.sleep(pause)
                # Many who wait shall not keep the program that they wait for from starting.
                pause = min(pause * 1.3, _LONGEST_PAUSE)
                continue
            except (SekishoError, OSError):
                return
            return

    def _wait_for_target(self, end: float) -> tuple[str, int]:
        with self._change:
            self._change.wait_for(lambda: self._target or self._closed, timeout=max(0.0, end - time.monotonic()))
            return self._target, self._port

    def _carry(self, channel: Channel, caller: socket.socket, sent: _Sent) -> None:
        """Carry what comes back, until either side ends."""
        while data := channel.receive():
            sent.heard()
            caller.sendall(data)
        # The caller's reader wakes up when the socket is shut down.
        with contextlib.suppress(OSError):
            caller.shutdown(socket.SHUT_RDWR)


class _Sent:
    """What a caller sends: read by a thread of its own, kept until somebody has heard it.

    More than can be given again is not kept: with nobody to give it to, the caller waits with the rest.
    """

    def __init__(self, caller: socket.socket) -> None:
        self._caller = caller
        self._kept = bytearray()
        self._whole = True
        """Whether all that came so far is kept."""
        self._heard = False
        self._ended = False
        self.awaited = False
        """Whether the caller has spoken last: an answer is to come."""
        self._channel: Channel | None = None
        self._lock = threading.Condition()
        threading.Thread(target=self._read, name="forwarded-sent", daemon=True).start()

    def to(self, channel: Channel) -> None:
        """Send what came so far, and all that comes, to a channel."""
        with self._lock:
            self._channel = channel
            if self._kept:
                channel.send(bytes(self._kept))
            if self._ended:
                channel.close()
            self._lock.notify_all()

    def heard(self) -> None:
        """Note that an answer came: nothing is sent again from now on."""
        self.awaited = False
        if not self._heard:
            with self._lock:
                self._heard = True
                self._kept.clear()

    def drop(self) -> None:
        """End the connection."""
        with self._lock:
            if self._channel is not None:
                self._channel.close()

    def again(self) -> bool:
        """Tell whether all that was sent can be sent again, because nobody heard it; ends the sending until then."""
        with self._lock:
            self._channel = None
            return not self._heard and not self._ended and self._whole and len(self._kept) <= _KEEP

    def end(self) -> None:
        """Have no more read; whoever waits in the reading wakes up."""
        with contextlib.suppress(OSError):
            self._caller.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._ended = True
            self._lock.notify_all()

    def _read(self) -> None:
        while True:
            with self._lock:
                self._lock.wait_for(lambda: self._ended or self._channel is not None or len(self._kept) <= _KEEP)
            try:
                data = self._caller.recv(_PIECE)
            except OSError:
                data = b""
            with self._lock:
                if not data:
                    self._ended = True
                    if self._channel is not None:
                        self._channel.close()
                    return
                self.awaited = True
                if not self._heard:
                    self._keep(data)
                if self._channel is not None:
                    with contextlib.suppress(SekishoError):
                        self._channel.send(data)

    def _keep(self, data: bytes) -> None:
        """Keep what may have to be given again. The lock is held."""
        if self._channel is None or (self._whole and len(self._kept) + len(data) <= _KEEP):
            self._kept += data
        else:
            self._whole = False
            self._kept.clear()
