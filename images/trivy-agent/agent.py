# ruff: noqa: INP001 - a single file inside an image, not a package
"""A security agent for one node: scans every image that runs there for known vulnerabilities, again and again.

It runs as a DaemonSet with a ServiceAccount that may list pods, and nothing else: no privileges, no host paths, a
read-only root file system with /tmp for its cache. Only Python's standard library and the trivy binary.

Environment: NODE_NAME, ZONE, REGISTRY (host:port of the zone's read-only registry), TRIVY_DB_REPOSITORY
(host:port/repository:tag), INTERVAL (seconds between passes, 300), LISTEN (port, 9480).

GET /healthz answers 200 after the first complete pass and while the last one is not older than three intervals.
GET /report answers what was scanned, what was found, with which database, and what could not be scanned and why.
Each new finding is one JSON line on stdout. An outage of the registry or the API server is reported, never fatal.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from agent_node import HTTP_SECONDS, Running, Settings, Unreachable, list_pods, running_images
from agent_scanner import SEVERITIES, Database, fetch_database, look_up_database, scan


@dataclass
class State:
    """What is known so far; the HTTP server reads it, the scanner writes it."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    report: dict[str, Any] = field(default_factory=dict)
    last_complete: float | None = None
    """Monotonic time of the last complete pass."""

    def healthy(self, now: float, interval: float) -> tuple[bool, str]:
        """Return whether the agent does its work, and why not."""
        with self.lock:
            last = self.last_complete
        if last is None:
            return False, "no complete pass yet"
        if now - last > 3 * interval:
            return False, f"the last complete pass is {now - last:.0f} s old"
        return True, "ok"


class Agent:
    """Scans in passes and keeps the report."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.state = State()
        self.database: Database | None = None
        self.scanned: dict[tuple[str, str, str], dict[str, Any]] = {}
        """By repository, image digest and database digest."""
        self.told: set[tuple[str, str, str, str]] = set()
        self.passes = 0

    def run(self, stop: threading.Event) -> None:
        """Make passes until `stop` is set."""
        while not stop.is_set():
            start = time.monotonic()
            self.make_pass()
            stop.wait(max(1.0, self.settings.interval - (time.monotonic() - start)))

    def make_pass(self) -> bool:
        """Look at everything that runs here once; return whether the pass was complete.

        Complete means: the pods were listed, a database was there, and each image was scanned or its reason told.
        """
        self.passes += 1
        problems: list[str] = []
        try:
            self._update_database()
        except Exception as error:  # noqa: BLE001 - an agent that dies watches nothing
            problems.append(f"advisory database: {error}")
        images: list[Running] | None = None
        try:
            images = running_images(list_pods(self.settings))
        except Exception as error:  # noqa: BLE001
            problems.append(f"pods: {error}")
        results, unscanned = [], []
        for image in images or []:
            try:
                results.append({"image": image.reference, "pods": list(image.pods), **self._scan(image)})
            except Exception as error:  # noqa: BLE001
                unscanned.append({"image": image.reference, "pods": list(image.pods), "why": str(error)[:500]})
        complete = images is not None and self.database is not None
        if images is None:
            results, unscanned = self._kept("images"), self._kept("unscanned")
        else:
            self._forget(images)
        self._publish(results, unscanned, problems, complete=complete)
        return complete

    def _update_database(self) -> None:
        offered = look_up_database(self.settings)
        if self.database is None or offered.digest != self.database.digest:
            self.database = fetch_database(self.settings, offered)
            self._log(event="database", digest=self.database.digest, kind=self.database.kind)

    def _scan(self, image: Running) -> dict[str, Any]:
        if image.why:
            raise Unreachable(image.why)
        if self.database is None:
            raise Unreachable("there is no advisory database yet")
        key = (image.repository, image.digest, self.database.digest)
        if key not in self.scanned:
            summary = scan(self.settings, image)
            self.scanned[key] = {**summary, "scanned_at": _now()}
            for finding in summary["findings"]:
                self._tell(image, finding)
        return self.scanned[key]

    def _tell(self, image: Running, finding: dict[str, str]) -> None:
        key = (image.digest, finding["id"], finding["package"], finding["installed"])
        if key not in self.told:
            self.told.add(key)
            self._log(event="finding", image=image.reference, pods=list(image.pods), **finding)

    def _forget(self, images: list[Running]) -> None:
        digests = {image.digest for image in images}
        known = self.database.digest if self.database else ""
        self.scanned = {key: value for key, value in self.scanned.items() if key[1] in digests and key[2] == known}
        self.told = {key for key in self.told if key[0] in digests}

    def _kept(self, name: str) -> list[Any]:
        with self.state.lock:
            return list(self.state.report.get(name, []))

    def _publish(self, results: list[Any], unscanned: list[Any], problems: list[str], *, complete: bool) -> None:
        for problem in problems:
            self._log(event="problem", problem=problem)
        database = self.database
        report = {
            "format": "sekisho.dev/agent-report/v1",
            "node": self.settings.node,
            "zone": self.settings.zone,
            "at": _now(),
            "passes": self.passes,
            "complete": complete,
            "database": {
                "digest": database.digest,
                "kind": database.kind,
                "updated_at": database.updated_at,
                "age_seconds": _age(database.updated_at),
            }
            if database
            else None,
            "images": results,
            "counts": {name: sum(item["counts"][name] for item in results) for name in SEVERITIES},
            "unscanned": unscanned,
            "problems": problems,
        }
        with self.state.lock:
            self.state.report = report
            if complete:
                self.state.last_complete = time.monotonic()

    def _log(self, **fields: Any) -> None:
        line = {"time": _now(), "zone": self.settings.zone, "node": self.settings.node, **fields}
        sys.stdout.write(json.dumps(line, ensure_ascii=True) + "\n")
        sys.stdout.flush()


def _now() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _age(updated_at: str) -> int | None:
    try:
        moment = dt.datetime.fromisoformat(updated_at)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
    return max(0, int((dt.datetime.now(dt.UTC) - moment).total_seconds()))


def make_server(agent: Agent, address: str = "") -> ThreadingHTTPServer:
    """Return the HTTP server of an agent, bound and not yet serving."""

    class Handler(BaseHTTPRequestHandler):
        """GET /healthz and GET /report."""

        server_version, sys_version = "sekisho-agent", ""
        timeout = HTTP_SECONDS

        def do_GET(self) -> None:
            """Answer."""
            if self.path == "/healthz":
                well, why = agent.state.healthy(time.monotonic(), agent.settings.interval)
                self._answer(200 if well else 503, "text/plain; charset=utf-8", why.encode())
            elif self.path == "/report":
                with agent.state.lock:
                    report = agent.state.report
                self._answer(200 if report else 503, "application/json", json.dumps(report).encode())
            else:
                self._answer(404, "text/plain; charset=utf-8", b"GET /healthz or /report")

        def _answer(self, code: int, kind: str, body: bytes) -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Probes are not worth a line."""

    ThreadingHTTPServer.daemon_threads = True
    return ThreadingHTTPServer((address, agent.settings.port), Handler)


def _signals(stop: threading.Event) -> Iterator[int]:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
        yield number


def main() -> int:
    """Run the agent until SIGTERM or SIGINT."""
    try:
        settings = Settings.from_environment(dict(os.environ))
    except ValueError as error:
        sys.stderr.write(f"trivy-agent: {error}\n")
        return 2
    agent, stop = Agent(settings), threading.Event()
    list(_signals(stop))
    server = make_server(agent)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    agent.run(stop)
    server.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
