"""One TCP connection to a port of a pod, through the API server.

The way of `kubectl port-forward`, in its older form over a WebSocket: subprotocol `v4.channel.k8s.io`, where the first
byte of each message is its channel, 0 for data and 1 for an error, and the first message of each channel is the port in
two bytes. Source: kubernetes/kubernetes pkg/kubelet/.../streaming/portforward/websocket.go; there is no half-close.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from typing import Any, Self
from urllib.parse import quote, urlsplit

import websocket

from sekisho.errors import TemporaryError
from sekisho.kube import Kube

_SUBPROTOCOL = "v4.channel.k8s.io"
_CONNECT_SECONDS = 5.0
_DATA = 0
_ERROR = 1
_PORT_BYTES = 2
_PIECE = 32 << 10


class Refused(TemporaryError):
    """Nobody listens on the port, or the pod is not there: not one byte was delivered."""


class Dialer:
    """Opens connections to pods. Safe for use by several threads."""

    def __init__(self, kube: Kube) -> None:
        settings = kube.settings
        host = urlsplit(settings.host)
        self._base = f"{'wss' if host.scheme == 'https' else 'ws'}://{host.netloc}{host.path.rstrip('/')}"
        self._headers = [
            f"{item['key']}: {item['value']}" for item in settings.auth_settings().values() if item["value"]
        ]
        self._context = _context(settings) if host.scheme == "https" else None

    def open(self, namespace: str, pod: str, port: int) -> Channel:
        """Open a connection; whether somebody listens shows with the first bytes that are read.

        Raises:
            Refused: there is no such pod, or it has no network yet.
        """
        path = f"/api/v1/namespaces/{quote(namespace, safe='')}/pods/{quote(pod, safe='')}/portforward?ports={port}"
        try:
            connection = websocket.create_connection(
                f"{self._base}{path}",
                timeout=_CONNECT_SECONDS,
                sslopt={"context": self._context} if self._context else {},
                header=self._headers,
                subprotocols=[_SUBPROTOCOL],
                enable_multithread=True,
                # A zone's own API server is asked directly, as everywhere.
                http_no_proxy=["*"],
            )
        except (websocket.WebSocketException, OSError) as error:
            raise Refused(f"The pod cannot be reached: {_first_line(error)}", where=f"{pod}:{port}") from error
        return Channel(connection, f"{pod}:{port}")


class Channel:
    """One connection. One thread may read while another writes."""

    def __init__(self, connection: Any, where: str) -> None:
        self._connection = connection
        self._where = where
        self._greeted: set[int] = set()
        self._closing = threading.Lock()
        connection.settimeout(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, data: bytes) -> None:
        """Send bytes.

        Raises:
            TemporaryError: the connection is closed.
        """
        try:
            for start in range(0, len(data), _PIECE):
                self._connection.send_binary(bytes((_DATA,)) + data[start : start + _PIECE])
        except (websocket.WebSocketException, OSError) as error:
            raise TemporaryError("The connection is closed.", where=self._where) from error

    def receive(self, timeout: float | None = None) -> bytes:
        """Return the next bytes; empty at the end.

        Args:
            timeout: seconds to wait; None waits as long as it takes.

        Raises:
            Refused: nobody listens there.
            TemporaryError: nothing came in time.
        """
        try:
            self._connection.settimeout(timeout)
            while True:
                code, message = self._connection.recv_data()
                if code == websocket.ABNF.OPCODE_CLOSE or not message:
                    return b""
                channel, data = message[0], message[1:]
                if channel not in self._greeted:
                    self._greeted.add(channel)
                    data = data[_PORT_BYTES:]
                if channel == _ERROR and data:
                    raise Refused(_first_line(data.decode("utf-8", "replace")), where=self._where)
                if channel == _DATA and data:
                    return bytes(data)
        except websocket.WebSocketTimeoutException as error:
            raise TemporaryError("Nothing came in time.", where=self._where) from error
        except (websocket.WebSocketException, OSError):
            return b""

    def close(self) -> None:
        """Close the connection; a reader of another thread comes back with nothing."""
        with self._closing:
            sock = self._connection.sock
            if sock is not None:
                with contextlib.suppress(OSError):
                    # Closing alone does not wake a thread that waits for bytes.
                    sock.shutdown(socket.SHUT_RDWR)
            self._connection.shutdown()


def _context(settings: Any) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=settings.ssl_ca_cert or None)
    if settings.cert_file:
        context.load_cert_chain(settings.cert_file, settings.key_file or None)
    if not settings.verify_ssl:
        # As the kubeconfig's `insecure-skip-tls-verify` asks for; never so in a zone's own.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _first_line(error: object) -> str:
    text = str(error).strip().splitlines()
    return text[0][:200] if text else type(error).__name__
