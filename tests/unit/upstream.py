"""A package index on the loopback address that a test makes answer as badly as it likes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from sekisho.package_indexes import ROOTS, variable
from stages.build.indexes import Indexes


@dataclass
class Reply:
    """One answer; `cut` bytes are kept back although the length promises them."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int = 0
    hang_up: bool = False
    """Close the connection afterwards without a word, as servers do with idle ones."""
    pause: float = 0.0


@dataclass
class Upstream:
    """What the index holds, and what it was asked for."""

    url: str = ""
    replies: dict[str, Any] = field(default_factory=dict)
    """By path: bytes, a Reply, a list of them in order (the last stays), or a function of the request's headers."""
    asked: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def reply(self, path: str, headers: dict[str, str]) -> Reply:
        self.asked.append(path)
        self.headers.append(headers)
        found = self.replies.get(path, Reply(status=404))
        if isinstance(found, list):
            found = found.pop(0) if len(found) > 1 else found[0]
        if isinstance(found, Callable):  # type: ignore[arg-type]
            found = found(headers)
        return Reply(found) if isinstance(found, bytes) else found

    def indexes(self, home: Path, **more: str) -> Indexes:
        """Return indexes that all stand here, each below a folder with its name."""
        environment = {variable(name): f"{self.url}/{name}/" for name in ROOTS} | {"HOME": str(home)} | more
        return Indexes.from_environment(environment=environment)


@contextmanager
def upstream() -> Iterator[Upstream]:
    """Serve an index until the block ends."""
    held = Upstream()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            reply = held.reply(self.path, {name.lower(): value for name, value in self.headers.items()})
            time.sleep(reply.pause)
            self.send_response(reply.status)
            for name, value in {"Content-Length": str(len(reply.body)), **reply.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(reply.body[: len(reply.body) - reply.cut])
            if reply.cut or reply.hang_up:
                self.close_connection = True

        def do_CONNECT(self) -> None:
            """As a proxy it lets nothing through."""
            held.asked.append(self.path)
            self.send_error(403)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    held.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield held
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
