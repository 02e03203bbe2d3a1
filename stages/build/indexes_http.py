"""HTTP to package indexes: pooled connections, whole files on disk, limits in bytes and time, retries, few redirects.

`http.client` and not httpx: it costs half the processor time, and what goes over the wire is said here. A body counts
only when all of it came. Nothing is decoded that was not asked for, and that within the limit.
"""

from __future__ import annotations

import base64
import http.client
import random
import ssl
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urljoin, urlsplit

from sekisho.errors import PermanentError, Refusal, TemporaryError
from stages.build.indexes import Indexes
from stages.build.language import Ecosystem

_PIECE = 1 << 16
_ATTEMPTS = 4
_FIRST_DELAY = 0.3
_LONGEST_WAIT = 10.0
"""Seconds that a Retry-After is waited for here; a longer one is the caller's to wait."""
_LONGEST_DELAY = 300.0
_REDIRECTS = 4
_IDLE = 24
_CONNECT_SECONDS = 10.0
_SILENT_SECONDS = 30.0
_FILE_SECONDS = 600.0
_OK = 200
_MOVED = {301, 302, 303, 307, 308}
_BUSY = 429
_SERVER_ERROR = 500
_DENIED = {401, 403, 407}


@dataclass(frozen=True)
class Answer:
    """An answer whose body, if the status is 200, stands in a file."""

    status: int
    kind: str = ""
    """Content type."""
    size: int = 0
    url: str = ""
    """Where it came from in the end; without credentials or query."""


class IndexClient:
    """Reads from the indexes. Safe for use by several threads.

    Args:
        indexes: where they are.
        silent: seconds that a connect or a read may be silent.
        whole: seconds that one file may take.
    """

    def __init__(self, indexes: Indexes, *, silent: float = _SILENT_SECONDS, whole: float = _FILE_SECONDS) -> None:
        self.indexes = indexes
        self._silent = silent
        self._whole = whole
        self._context: ssl.SSLContext | None = None
        self._idle: dict[tuple[str, str], list[http.client.HTTPConnection]] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the connections that nobody uses."""
        with self._lock:
            idle = [connection for pool in self._idle.values() for connection in pool]
            self._idle.clear()
        for connection in idle:
            connection.close()

    def get(
        self,
        ecosystem: Ecosystem,
        path: str,
        target: Path,
        *,
        limit: int,
        accept: str = "*/*",
        packed: bool = False,
    ) -> Answer:
        """Read one file of an index whole.

        Args:
            ecosystem: whose index.
            path: path below its root.
            target: file to write.
            limit: bytes that it may have, also unpacked.
            accept: content types to ask for.
            packed: whether it may come in gzip's encoding, which is then taken off. For pages, not for packages.

        Returns:
            The answer: 200, or the 4xx that the index said.

        Raises:
            TemporaryError: unreachable, cut off, too slow, 429 or 5xx, also after retries.
            PermanentError: the certificate, the login or the proxy does not let it through.
            Refusal: larger than `limit`, or a redirect to a place that is not allowed.
        """
        url = self.indexes.locate(ecosystem, path)
        headers = {"Accept": accept, "Accept-Encoding": "gzip" if packed else "identity", "User-Agent": "sekisho"}
        for attempt in range(_ATTEMPTS):
            wait = _FIRST_DELAY * 2**attempt * random.uniform(0.5, 1.0)  # noqa: S311 -- not a secret
            try:
                answer = self._once(ecosystem, url, headers, target, limit, packed=packed)
            except ssl.SSLCertVerificationError as error:
                raise _untrusted(url, error) from error
            except (OSError, http.client.HTTPException, zlib.error) as error:
                _raise_if_denied(error, url)
                failure = _unreachable(error, url)
            else:
                if not isinstance(answer, _Busy):
                    return answer
                failure = TemporaryError(
                    f"The package index answers {answer.status}.",
                    where=_shown(url),
                    delay=min(answer.after or 10.0, _LONGEST_DELAY),
                )
                wait = max(wait, answer.after)
            if attempt == _ATTEMPTS - 1 or wait > _LONGEST_WAIT:
                raise failure
            time.sleep(wait)
        raise AssertionError

    def _once(
        self, ecosystem: Ecosystem, url: str, headers: Mapping[str, str], target: Path, limit: int, *, packed: bool
    ) -> Answer | _Busy:
        deadline = time.monotonic() + self._whole
        for _ in range(_REDIRECTS):
            with self._response(url, headers) as response:
                status = response.status
                if status != _OK:
                    response.read(_PIECE)  # so that the connection can be used again
                if status in _MOVED:
                    url = self._next(ecosystem, url, response.getheader("Location", ""))
                    continue
                if status == _BUSY or status >= _SERVER_ERROR:
                    return _Busy(status, _seconds(response.getheader("Retry-After", "")))
                if status in _DENIED:
                    # Some indexes answer so for what is not there; with no login there is nothing to mend in it.
                    if self.indexes.authorization(url):
                        raise _denied(status, url)
                    return Answer(status, url=_shown(url))
                if status != _OK:
                    return Answer(status, url=_shown(url))
                with target.open("wb") as file:
                    copy = _Copy(limit, deadline, _shown(url), packed=packed)
                    size = copy.run(response, file)
                return Answer(_OK, response.getheader("Content-Type", ""), size, _shown(url))
        raise Refusal("The package index redirects without end.", where=_shown(url))

    def _next(self, ecosystem: Ecosystem, url: str, location: str) -> str:
        try:
            there = urljoin(url, location)
            allowed = location != "" and self.indexes.allows(ecosystem, there)
            lower = urlsplit(url).scheme == "https" and urlsplit(there).scheme != "https"
        except ValueError:
            there, allowed, lower = "", False, False
        if not allowed or lower:
            host = "" if not there else urlsplit(there).hostname or ""
            raise Refusal(
                f"The package index redirects to a place that is not allowed: {host[:100] or 'none'}.",
                where=_shown(url),
                remedy="The platform team allows a host with SEKISHO_EGRESS_HOSTS, if this is right.",
            )
        return there

    @contextmanager
    def _response(self, url: str, headers: Mapping[str, str]) -> Iterator[http.client.HTTPResponse]:
        """Ask once; a kept connection that the other side has closed meanwhile is replaced by a new one."""
        parts = urlsplit(url)
        proxy = self.indexes.proxy(url)
        key = (f"{parts.scheme}://{parts.netloc}", proxy)
        sent = dict(headers)
        if login := self.indexes.authorization(url):
            sent["Authorization"] = login
        path = parts.path or "/"
        if parts.query:
            path += f"?{parts.query}"
        if proxy and parts.scheme == "http":
            sent |= _proxy_login(proxy)
            path = f"http://{parts.netloc}{path}"
        connection, response = self._ask(key, path, sent)
        try:
            yield response
        finally:
            if response.isclosed() and not response.will_close:
                self._give_back(key, connection)
            else:
                # What was not read to its end would be taken for the next answer.
                response.close()
                connection.close()

    def _ask(
        self, key: tuple[str, str], path: str, headers: Mapping[str, str]
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        while True:
            connection, used = self._take(key)
            try:
                if not used:
                    connection.connect()
                    connection.sock.settimeout(self._silent)
                connection.request("GET", path, headers=dict(headers))
                return connection, connection.getresponse()
            except BaseException as error:
                connection.close()
                stale = isinstance(error, OSError | http.client.HTTPException) and not isinstance(error, TimeoutError)
                if not used or not stale:
                    raise

    def _give_back(self, key: tuple[str, str], connection: http.client.HTTPConnection) -> None:
        with self._lock:
            pool = self._idle.setdefault(key, [])
            if len(pool) < _IDLE:
                pool.append(connection)
                return
        connection.close()

    def _take(self, key: tuple[str, str]) -> tuple[http.client.HTTPConnection, bool]:
        with self._lock:
            pool = self._idle.get(key)
            if pool:
                return pool.pop(), True
        origin, proxy = urlsplit(key[0]), urlsplit(key[1])
        secure = origin.scheme == "https"
        host, port = str(origin.hostname), origin.port or (443 if secure else 80)
        first, at = (proxy.hostname or "", proxy.port or 80) if key[1] else (host, port)
        patience = min(self._silent, _CONNECT_SECONDS)
        if not secure:
            return http.client.HTTPConnection(first, at, timeout=patience), False
        with self._lock:
            if self._context is None:  # reads the authorities, which takes a while; a warm store needs none
                self._context = ssl.create_default_context()
        connection = http.client.HTTPSConnection(first, at, timeout=patience, context=self._context)
        if key[1]:
            connection.set_tunnel(host, port, headers=_proxy_login(key[1]))
        return connection, False


@dataclass(frozen=True)
class _Busy:
    status: int
    after: float


@dataclass(frozen=True)
class _Copy:
    """Writes a body whole."""

    limit: int
    deadline: float
    where: str
    packed: bool

    def run(self, response: http.client.HTTPResponse, file: BinaryIO) -> int:
        """Write the body, gzip's encoding taken off where that was asked for, and return its size."""
        encoded = response.getheader("Content-Encoding", "").strip().lower() in {"gzip", "x-gzip"}
        unpack = zlib.decompressobj(wbits=31) if self.packed and encoded else None
        expected, came, size = response.length, 0, 0
        if (expected or 0) > self.limit:
            raise self._too_large()
        while piece := response.read1(_PIECE):
            came += len(piece)
            if time.monotonic() > self.deadline:
                raise TimeoutError("it sends too slowly")
            data = unpack.decompress(piece, self.limit - size + 1) if unpack else piece
            size += len(data)
            if size > self.limit:
                raise self._too_large()
            file.write(data)
        if (expected is not None and came < expected) or (unpack and not unpack.eof):
            raise http.client.IncompleteRead(b"")
        response.read()  # notes the end, which read1 does not
        return size

    def _too_large(self) -> Refusal:
        return Refusal(f"The file is larger than {self.limit >> 20} MiB.", where=self.where)


def _seconds(text: str) -> float:
    """Return how long a Retry-After header asks to wait: a number of seconds or a date (RFC 9110, 10.2.3)."""
    if text.isascii() and text.isdigit():
        return float(text[:6])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, IndexError):
        return 0.0


def _proxy_login(proxy: str) -> dict[str, str]:
    parts = urlsplit(proxy)
    if parts.username is None:
        return {}
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"Proxy-Authorization": "Basic " + base64.b64encode(pair.encode()).decode("ascii")}


def _shown(url: str) -> str:
    """Return a URL for people: signed redirects carry secrets in their query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _unreachable(error: Exception, url: str) -> TemporaryError:
    why = type(error).__name__ if isinstance(error, http.client.HTTPException) else str(error) or type(error).__name__
    return TemporaryError(
        f"The package index cannot be reached or broke off: {why[:200]}",
        where=_shown(url),
        remedy="Check the package proxy and the index; `sekisho doctor` names the indexes that are let through.",
        delay=10.0,
    )


def _raise_if_denied(error: Exception, url: str) -> None:
    """A proxy that says no to a tunnel is heard as an OSError with its status in the text (http.client)."""
    said = str(error) if isinstance(error, OSError) else ""
    if said.startswith(("Tunnel connection failed: 403", "Tunnel connection failed: 407")):
        raise PermanentError(
            f"The package proxy does not let {urlsplit(url).hostname} through.",
            where=_shown(url),
            remedy="Set SEKISHO_INDEX_… or SEKISHO_EGRESS_HOSTS for `sekisho up`; `sekisho doctor` shows what counts.",
        ) from error


def _denied(status: int, url: str) -> PermanentError:
    return PermanentError(
        f"The package index does not accept the login ({status}).",
        where=_shown(url),
        remedy="Mend it in the index's URL or in .netrc on the build zone.",
    )


def _untrusted(url: str, error: ssl.SSLCertVerificationError) -> PermanentError:
    return PermanentError(
        f"The package index's certificate is not trusted: {error.verify_message}",
        where=_shown(url),
        remedy="Name the file with your own authority in SSL_CERT_FILE.",
    )
