"""HTTP to a registry: connections kept for the next request, retries for temporary faults, no redirects, size limits.

`http.client` and not httpx: for blobs it needs less than half of the CPU time. Redirects are refused, not followed:
a hostile registry must not choose which address this process talks to.
"""

from __future__ import annotations

import http.client
import random
import ssl
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from sekisho.errors import PermanentError, TemporaryError

BLOCK = 1 << 20
_SLOWEST = 16 << 10
"""Bytes a second that an answer must bring, once the time of silence that is allowed has passed."""
_ATTEMPTS = 4
_FIRST_DELAY = 0.1
_IDLE = 8
"""Connections that are kept open."""
_TOO_MANY_REQUESTS = 429
_SERVER_ERROR = 500
_DEFAULT_PORTS = {"http": 80, "https": 443}
NETWORK_ERRORS = (OSError, http.client.HTTPException)
"""What a connection raises when the other side is away, breaks off, or does not speak HTTP."""


@dataclass(frozen=True)
class Answer:
    """A response whose body was read."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes = b""


class Transport:
    """Sends requests to one origin. Safe for use by several threads.

    Args:
        url: `http://host:port` or `https://host:port`.
        timeout: seconds that a connect, a read or a write may be silent.
        certificates: PEM file of the authorities to trust for https; the system's when None.

    Raises:
        PermanentError: `url` is not such a URL.
    """

    def __init__(self, url: str, *, timeout: float, certificates: Path | None = None) -> None:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise PermanentError(f"This is not a registry's URL: {error}", where=url[:200]) from error
        legal = parts.scheme in _DEFAULT_PORTS and parts.hostname and parts.path in ("", "/")
        if not legal or parts.query or parts.fragment or parts.username is not None or parts.password is not None:
            raise PermanentError(
                "This is not a registry's URL.", where=parts.hostname or "", remedy="Write it as http://host:port."
            )
        self.scheme = parts.scheme
        self.host = str(parts.hostname)
        self.port = port or _DEFAULT_PORTS[parts.scheme]
        self.timeout = timeout
        literal = f"[{self.host}]" if ":" in self.host else self.host
        self.url = f"{self.scheme}://{literal}:{self.port}"
        self._context = ssl.create_default_context(cafile=certificates) if parts.scheme == "https" else None
        self._idle: deque[http.client.HTTPConnection] = deque()

    def send(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        limit: int,
    ) -> Answer:
        """Send a request and read the answer, with retries for temporary faults.

        Args:
            method: the HTTP method.
            path: path and query, already quoted.
            headers: request headers.
            body: request body.
            limit: bytes that the answer's body may have.

        Raises:
            TemporaryError: unreachable, cut off or 5xx, also after the retries.
            PermanentError: the answer is larger than `limit`, or a redirect.
        """
        for attempt in range(_ATTEMPTS):
            last = attempt == _ATTEMPTS - 1
            try:
                answer = self._once(method, path, headers or {}, body, limit)
            except NETWORK_ERRORS as error:
                self.close()
                if last:
                    raise self.unreachable(error, path) from error
            else:
                if answer.status < _SERVER_ERROR and answer.status != _TOO_MANY_REQUESTS:
                    return answer
                if last:
                    raise self.busy(answer.status, method, path)
            wait(attempt)
        raise AssertionError

    @contextmanager
    def stream(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, body: BinaryIO | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        """Send one request, once, and give the unread response. The caller handles NETWORK_ERRORS and the status."""
        connection = self._taken()
        finished = False
        try:
            connection.request(method, path, body=body, headers=dict(headers or {}))
            response = connection.getresponse()
            self._refuse_redirect(response.status, path)
            yield response
            finished = response.isclosed()
        finally:
            # A response that was not read to its end leaves bytes on the connection that the next one would take.
            self._given_back(connection, whole=finished)

    def close(self) -> None:
        """Close the connections that nobody uses just now."""
        while self._idle:
            with suppress(IndexError):  # another thread took the last one
                self._idle.pop().close()

    def unreachable(self, error: Exception, path: str) -> TemporaryError:
        """Return the error that says that the registry cannot be reached."""
        detail = str(error) or type(error).__name__
        return TemporaryError(
            f"The registry cannot be reached or broke off: {detail[:200]}",
            where=self.url + path,
            remedy="Check that the registry runs and that this network may reach it.",
            delay=5.0,
        )

    def busy(self, status: int, method: str, path: str) -> TemporaryError:
        """Return the error that says that the registry cannot serve now."""
        return TemporaryError(f"The registry answers {status} to {method}.", where=self.url + path, delay=5.0)

    def same_origin(self, location: str) -> str:
        """Return path and query of a Location header.

        Raises:
            PermanentError: it points at another origin.
        """
        try:
            parts = urlsplit(location)
            port = parts.port
        except ValueError as error:
            raise PermanentError("The registry gave an upload address that is no URL.", where=self.url) from error
        if parts.scheme or parts.netloc:
            origin = (parts.scheme, parts.hostname, port or _DEFAULT_PORTS.get(parts.scheme))
            if origin != (self.scheme, self.host, self.port):
                raise PermanentError(
                    "The registry sends uploads to another address.",
                    where=f"{self.url} -> {location[:200]}",
                    remedy="Set http.relativeurls in the registry's configuration.",
                )
        if not parts.path.startswith("/"):
            raise PermanentError("The registry gave an upload address without a path.", where=self.url)
        return f"{parts.path}?{parts.query}" if parts.query else parts.path

    def _once(self, method: str, path: str, headers: Mapping[str, str], body: bytes, limit: int) -> Answer:
        connection = self._taken()
        whole = False
        try:
            connection.request(method, path, body=body or None, headers=dict(headers))
            response = connection.getresponse()
            self._refuse_redirect(response.status, path)
            data = self._read(response, path, limit)
            whole = response.isclosed()
        finally:
            self._given_back(connection, whole=whole)
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, data)

    def _read(self, response: http.client.HTTPResponse, path: str, limit: int) -> bytes:
        expected = response.length  # None for a chunked body
        data = bytearray()
        if (expected or 0) <= limit:
            end = time.monotonic() + self.timeout
            while len(data) <= limit and (piece := response.read1(BLOCK)):
                data += piece
                # The socket's timeout starts anew with each byte: a registry that drips would hold its reader for ever.
                if time.monotonic() > end + len(data) / _SLOWEST:
                    raise TimeoutError(f"the answer comes too slowly: {len(data)} bytes in {self.timeout:g} s and more")
        if max(expected or 0, len(data)) > limit:
            raise PermanentError(f"The registry's answer is larger than {limit} bytes.", where=self.url + path)
        if expected is not None:
            if len(data) < expected:
                raise http.client.IncompleteRead(bytes(data), expected - len(data))
            response.read()  # nothing is left; this frees the connection for the next request
        return bytes(data)

    def _refuse_redirect(self, status: int, path: str) -> None:
        if 300 <= status < 400:  # noqa: PLR2004 - the class of redirects
            raise PermanentError(
                f"The registry answers with a redirect ({status}); redirects are not followed.",
                where=self.url + path,
                remedy="Set storage.redirect.disable in the registry's configuration.",
            )

    def _taken(self) -> http.client.HTTPConnection:
        """Return a connection for one request; whoever takes it gives it back."""
        try:
            return self._idle.pop()
        except IndexError:
            if self._context is None:
                return http.client.HTTPConnection(self.host, self.port, timeout=self.timeout, blocksize=BLOCK)
            return http.client.HTTPSConnection(
                self.host, self.port, timeout=self.timeout, blocksize=BLOCK, context=self._context
            )

    def _given_back(self, connection: http.client.HTTPConnection, *, whole: bool) -> None:
        """Keep a connection whose last answer was read to its end; any other has bytes left, or has ended."""
        if whole and len(self._idle) < _IDLE:
            self._idle.append(connection)
        else:
            connection.close()


def expect(answer: Answer, where: str, *statuses: int) -> None:
    """Check an answer's status.

    Raises:
        PermanentError: it is another one; says what the registry says.
    """
    if answer.status not in statuses:
        detail = answer.body[:300].decode("utf-8", "replace").strip()
        raise PermanentError(f"The registry answers {answer.status}{': ' + detail if detail else ''}", where=where)


def wait(attempt: int) -> None:
    """Sleep before the next attempt: doubling, with jitter so that several writers do not move in step."""
    time.sleep(_FIRST_DELAY * 2**attempt * random.uniform(0.5, 1.0))  # noqa: S311 - not a secret
