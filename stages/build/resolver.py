"""The way from the sandbox to the package indexes while a lock is resolved: a proxy that only reads, and notes all.

It listens on a unix socket in a folder of its own, which is mounted into one sandbox. There is no other way out of it.
Asked for is `GET /<ecosystem>/<path>`; nothing of a request goes on but its path, and that only below the roots of the
configured indexes. Each file that is given is noted with its sha256, as the index gave it, and put into the store, so
that the fetch by hash that follows finds it there.
"""

from __future__ import annotations

import os
import socket
import socketserver
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from email.message import Message
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from io import BytesIO
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, BinaryIO, Self

from sekisho.errors import Refusal, SekishoError, TemporaryError
from stages.build import resolver_paths as paths
from stages.build.artifacts_digests import DIGESTS
from stages.build.artifacts_store import Store, Use
from stages.build.indexes import ECOSYSTEMS, Indexes
from stages.build.indexes_http import IndexClient
from stages.build.resolver_paths import Request

SEEN_AS = "http://127.0.0.1:8001"
"""Where the sandbox's forwarder listens."""
SOCKET = "index.sock"

_IDLE_SECONDS = 120
_MAX_CONNECTIONS = 256
_UPSTREAM = 16
_PAGES = 4
"""Pages that are turned at once; each is in memory whole."""
_POLL = 0.05
"""Seconds after which it is noticed that the resolver is to end."""
_OK = 200
_PLAIN = "application/octet-stream"


@dataclass(frozen=True)
class ResolverLimits:
    """What one resolution may take."""

    bytes: int = 2 << 30
    """Bytes of all files given."""
    file: int = 512 << 20
    """Bytes of one file."""
    page: int = 128 << 20
    """Bytes of one page whose URLs are turned."""
    requests: int = 50_000
    seconds: float = 900.0


class Resolver:
    """The proxy, as long as its `with` block lasts.

    Args:
        indexes: where packages come from.
        work: folder for the socket's folder; its path must be short.
        cache: the fetcher's cache, so that nothing is downloaded twice; None keeps nothing.
        seen_as: URL under which the sandbox's tools see it.
        limits: what may be taken.
        ecosystems: which indexes are served; the others are as if there were none.
    """

    def __init__(
        self,
        indexes: Indexes,
        work: Path,
        *,
        cache: Path | None = None,
        seen_as: str = SEEN_AS,
        limits: ResolverLimits | None = None,
        ecosystems: Sequence[str] = ECOSYSTEMS,
    ) -> None:
        self._indexes = indexes
        self._work = work
        self._cache = cache
        self._seen_as = seen_as
        self._limits = limits or ResolverLimits()
        self._ecosystems = frozenset(ecosystems)
        self._lock = threading.Lock()
        self._recorded: dict[str, str] = {}
        self._exceeded: _Exceeded | None = None
        self._failures: dict[str, SekishoError] = {}
        self._lasting = True
        self._requests = 0
        self._bytes = 0

    def __enter__(self) -> Self:
        self._scratch = tempfile.TemporaryDirectory(dir=self._work, prefix="resolve-")
        folder = Path(self._scratch.name)
        try:
            folder.chmod(0o755)
            self.folder = folder / "index"
            self.folder.mkdir()
            self.folder.chmod(0o755)  # the sandbox runs as another user, whatever the umask is
            self._store = Store((self._cache / "artifacts") if self._cache else folder / "store")
            with self._store.shared():
                self._use: Use = self._store.use(f"resolving-{folder.name}")
            self._client = IndexClient(self._indexes)
            self._upstream = threading.BoundedSemaphore(_UPSTREAM)
            self._turning = threading.BoundedSemaphore(_PAGES)
            self._ends = time.monotonic() + self._limits.seconds
            self._server = _Server(self.folder, self)
        except BaseException:
            self._scratch.cleanup()
            raise
        self._thread = threading.Thread(target=self._server.serve_forever, args=(_POLL,), name="resolver", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.end()
        self._thread.join()
        self._client.close()
        self._use.close()
        self._scratch.cleanup()

    @property
    def recorded(self) -> Mapping[str, str]:
        """What was given, `<ecosystem>/<path>` to `sha256:<hex>`, in order of the names.

        Of a page that was given in two forms, or changed meanwhile, the last one counts.
        """
        with self._lock:
            return MappingProxyType(dict(sorted(self._recorded.items())))

    @property
    def lasting(self) -> bool:
        """Whether nothing was given but what never changes in an index: no page, no list of versions."""
        with self._lock:
            return self._lasting and not self._failures and self._exceeded is None

    @property
    def failure(self) -> SekishoError | None:
        """Why requests were not served: a limit, or an index that cannot be reached. What the tool says is vaguer.

        What the index says is not there is no failure, and neither is what was asked for again and then was served.
        """
        with self._lock:
            found = [self._exceeded, *self._failures.values()] if self._exceeded else list(self._failures.values())
            # A NO counts more than a fault that may pass.
            return min(found, key=lambda error: isinstance(error, TemporaryError), default=None)

    # -- one request -------------------------------------------------------------------------------------------------

    def serve(self, target: str, accept: str) -> Served:
        """Return the answer to one request.

        Args:
            target: the request's target as it came.
            accept: its Accept header.
        """
        try:
            self._count()
            request = paths.parse(target, self._ecosystems)
        except _Exceeded as error:
            return Served(HTTPStatus.FORBIDDEN, text=str(error))
        except Refusal as error:
            return Served(HTTPStatus.BAD_REQUEST, text=error.what)
        try:
            served = self._answer(request, accept)
        except TemporaryError as error:
            self._note_failure(request, error)
            return Served(HTTPStatus.BAD_GATEWAY, text=str(error))
        except SekishoError as error:
            self._note_failure(request, error)
            return Served(HTTPStatus.FORBIDDEN, text=str(error))
        except OSError as error:
            failure = TemporaryError(f"The line cannot store a package: {error.strerror}.", delay=30.0)
            self._note_failure(request, failure)
            return Served(HTTPStatus.INSUFFICIENT_STORAGE, text="The line cannot store it.")
        with self._lock:
            self._failures.pop(request.key, None)
        return served

    def _answer(self, request: Request, accept: str) -> Served:
        if request.kind == "settings":
            return Served(HTTPStatus.OK, "application/json", text=paths.cargo_settings(self._seen_as))
        if request.fixed and (kept := self._kept(request)):
            return self._given(request, kept, _PLAIN)
        page = request.kind == "page"
        limit = self._limits.page if page else self._limits.file
        with self._store.part() as part:
            with self._upstream:
                answer = self._client.get(
                    request.ecosystem,
                    request.path,
                    part,
                    limit=limit,
                    accept=paths.accept(request, accept),
                    packed=page,
                )
            if answer.status != _OK:
                return Served(answer.status, text=f"The package index answers {answer.status}.")
            sha256 = DIGESTS.of(part, ())["sha256"]
            if page:
                with self._turning:
                    turned = paths.turned(request, part.read_bytes(), answer.kind, self._indexes, self._seen_as)
                    part.write_bytes(turned)
                self._record(request, sha256, len(turned))
                return Served(HTTPStatus.OK, answer.kind or "text/html", file=part.open("rb"), size=len(turned))
            while not self._store.keep(part, sha256, self._use):
                if self._whole(sha256):
                    break
            if request.fixed:
                self._store.note(sha256, request.ecosystem, request.path)
        return self._given(request, sha256, answer.kind or _PLAIN)

    def _kept(self, request: Request) -> str:
        """Return the sha256 of a file that was given before and is whole; empty where there is none."""
        sha256 = self._store.hint(request.ecosystem, request.path)
        if not sha256:
            return ""
        with self._store.shared():
            self._use.add([sha256])
            return sha256 if self._whole(sha256) else ""

    def _whole(self, sha256: str) -> bool:
        try:
            whole = DIGESTS.of(self._store.path(sha256), ())["sha256"] == sha256
        except FileNotFoundError:
            return False
        except OSError:
            whole = False
        if not whole:
            self._store.drop(sha256)
        return whole

    def _given(self, request: Request, sha256: str, kind: str) -> Served:
        path = self._store.path(sha256)
        size = path.stat().st_size
        self._record(request, sha256, size)
        return Served(HTTPStatus.OK, kind, file=path.open("rb"), size=size)

    def _count(self) -> None:
        with self._lock:
            self._requests += 1
            over = (
                f"{self._limits.requests} requests" if self._requests > self._limits.requests
                else f"{self._limits.bytes >> 20} MiB" if self._bytes > self._limits.bytes
                else f"{self._limits.seconds:.0f} seconds" if time.monotonic() > self._ends
                else ""
            )  # fmt: skip
            if over:
                self._exceeded = self._exceeded or _Exceeded(
                    f"Resolving the packages took more than {over}.",
                    remedy="Lock the packages yourself and commit the lock file, or depend on fewer.",
                )
                raise self._exceeded

    def _record(self, request: Request, sha256: str, size: int) -> None:
        digest = f"sha256:{sha256}"
        with self._lock:
            self._bytes += size
            self._lasting &= request.fixed
            before = self._recorded.get(request.key, digest)
            changed = before != digest and request.fixed
            if not changed:
                self._recorded[request.key] = digest
        if changed:  # and stays so, however often it is asked for: the tool may have used the other one
            raise TemporaryError(
                "The package index changed a file while packages were resolved.", where=request.key, delay=5.0
            )

    def _note_failure(self, request: Request, error: SekishoError) -> None:
        with self._lock:
            self._failures[request.key] = error


class _Exceeded(Refusal):
    """A limit of the whole resolution."""


@dataclass(frozen=True)
class Served:
    """An answer: text, or an open file, which is given whole whatever becomes of its name."""

    status: int
    kind: str = "text/plain; charset=utf-8"
    text: str = ""
    file: BinaryIO | None = None
    size: int = 0


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """A thread a connection, of which there are not too many."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 512

    def __init__(self, folder: Path, resolver: Resolver) -> None:
        self.resolver = resolver
        self._free = threading.BoundedSemaphore(_MAX_CONNECTIONS)
        self._open: set[socket.socket] = set()
        self._ending = threading.Event()
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:  # by descriptor: a socket's path may have 107 bytes only, a folder's more
            super().__init__(f"/proc/self/fd/{descriptor}/{SOCKET}", _Handler)
        finally:
            os.close(descriptor)
        (folder / SOCKET).chmod(0o666)

    def process_request(self, request: Any, client_address: Any) -> None:
        while not self._free.acquire(timeout=0.2):
            if self._ending.is_set():
                self.shutdown_request(request)
                return
        self._open.add(request)
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._open.discard(request)
            self._free.release()

    def end(self) -> None:
        """Stop serving, also those who are connected."""
        self._ending.set()
        self.shutdown()
        self.server_close()
        for request in tuple(self._open):
            with suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle is no event."""


class _Handler(BaseHTTPRequestHandler):
    """HTTP/1.1 for the tools in the sandbox."""

    protocol_version = "HTTP/1.1"
    server_version = "sekisho"
    sys_version = ""
    timeout = _IDLE_SECONDS
    server: _Server
    headers: Message

    def do_GET(self) -> None:
        self._serve(body=True)

    def do_HEAD(self) -> None:
        self._serve(body=False)

    def _refused(self) -> None:
        """Nothing is ever sent to an index: no publishing, no login, no audit."""
        self.close_connection = True
        self._send(Served(HTTPStatus.METHOD_NOT_ALLOWED, text="Only GET and HEAD are served."), body=True)

    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_CONNECT = do_TRACE = _refused  # noqa: N815

    def _serve(self, *, body: bool) -> None:
        if self.headers.get("Content-Length", "0") != "0" or self.headers.get("Transfer-Encoding"):
            self._refused()
            return
        self._send(self.server.resolver.serve(self.path, self.headers.get("Accept", "")), body=body)

    def _send(self, served: Served, *, body: bool) -> None:
        data = served.text.encode()
        with served.file or BytesIO(data) as file:
            self.send_response(served.status)
            self.send_header("Content-Type", _header(served.kind))
            self.send_header("Content-Length", str(served.size if served.file else len(data)))
            if self.close_connection:
                self.send_header("Connection", "close")
            self.end_headers()
            if body and served.file:
                self.connection.sendfile(file)
            elif body:
                self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the base class's name
        """Say nothing: what was given is recorded."""

    def address_string(self) -> str:
        return "sandbox"


def _header(text: str) -> str:
    """Return a content type that is safe in a header."""
    return text[:200] if text.isascii() and text.isprintable() else _PLAIN
