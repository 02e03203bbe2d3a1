"""The zones' Prefect servers: named runs, results, runs from the dashboard, and what a kill -9 leaves behind."""

from __future__ import annotations

import os
import re
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from line import plan_of, pushed, receipt, until, verdict, workload

from sekisho.embedded.netns import call_in, namespace
from sekisho.zones import ENGINE_ZONES, Port, Zone, ZoneHome, address

pytestmark = pytest.mark.e2e


class Engine:
    """A zone's Prefect server, asked from inside the zone."""

    def __init__(self, zone: Zone) -> None:
        self.zone = zone
        user, password = (ZoneHome(zone).secrets / "prefect-auth").read_text().strip().split(":", 1)
        self._auth = (user, password)

    def ask(self, path: str, body: Any = None, *, method: str = "POST") -> Any:
        def call() -> Any:
            url = f"http://127.0.0.1:{Port.PREFECT}/api{path}"
            with httpx.Client(auth=self._auth, trust_env=False, timeout=20) as client:
                answer = client.request(method, url, json=body)
                answer.raise_for_status()
                return answer.json()

        return call_in(namespace(self.zone), call)

    def runs(self, **filters: Any) -> list[dict[str, Any]]:
        body: dict[str, Any] = {"sort": "START_TIME_DESC", "limit": 100}
        if filters:
            body["flow_runs"] = filters
        found: list[dict[str, Any]] = self.ask("/flow_runs/filter", body)
        return found


@pytest.mark.parametrize("zone", ENGINE_ZONES)
def test_every_zone_has_an_engine_of_its_own(zone: Zone, zones: Any) -> None:
    engine = Engine(zone)
    names = {item["name"] for item in engine.ask("/deployments/filter", {})}
    assert names == {str(zone)}
    others = {Engine(other)._auth for other in ENGINE_ZONES if other is not zone}
    assert engine._auth not in others


def test_an_engine_without_its_password_says_nothing(zones: Any) -> None:
    url = f"http://{address(Zone.PRODUCTION)}:{Port.PREFECT}/api/flow_runs/filter"
    assert httpx.post(url, json={}, trust_env=False).status_code == 401


def test_runs_are_named_and_leave_their_result(zones: Any, tmp_path: Path) -> None:
    app = "named"
    commit, _ = pushed(app, workload(tmp_path, app))
    release = verdict(app, commit)["release"]
    receipt(app, release, "production", "held")
    build = Engine(Zone.BUILD).runs(name={"like_": f"{app} {commit[:12]}"})
    assert build[0]["state_type"] == "COMPLETED"
    production = Engine(Zone.PRODUCTION).runs(name={"like_": app})
    assert production[0]["state_name"] == "Held"
    # The page is written after the verdict, for which nobody waits.
    page = {"artifacts": {"key": {"any_": [f"{app}-{commit[:12]}-verdict"]}}}
    until(lambda: Engine(Zone.BUILD).ask("/artifacts/filter", page), "the verdict's page in the engine")


def test_a_run_can_be_started_from_the_dashboard(zones: Any, tmp_path: Path) -> None:
    engine = Engine(Zone.STAGING)
    deployment = next(
        item
        for item in engine.ask("/deployments/filter", {})
        if "zone" in item["parameter_openapi_schema"]["properties"]
    )
    body = {"parameters": {"zone": "staging"}, "state": {"type": "SCHEDULED"}}
    run = engine.ask(f"/deployments/{deployment['id']}/create_flow_run", body)

    def done() -> bool:
        found = engine.ask(f"/flow_runs/{run['id']}", method="GET")
        return bool(found["state_type"] == "COMPLETED")

    assert until(done, "the run that the dashboard started", seconds=60)


def _kill(zone: Zone, word: str) -> int:
    """Kill -9 a zone's process; return its pid."""
    from sekisho.embedded.processes import in_network

    for pid in in_network(zone):
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        if word in command and f"--zone {zone}" in command:
            os.kill(pid, signal.SIGKILL)
            return pid
    raise AssertionError(f"no {word} in {zone}")


@pytest.mark.long
def test_each_zone_is_killed_in_the_middle_and_the_line_is_finished(zones: Any, tmp_path: Path) -> None:
    app = "killed"
    from line import ops

    from sekisho.demo.workload import prepare, push

    repository, commit = prepare(app, workload(tmp_path, app))
    process = push(app, repository)
    assert process.stdout is not None
    for line in process.stdout:
        if "build" in line or "source" in line:
            break
    _kill(Zone.BUILD, "flows.zone")
    process.kill()
    process.wait()
    release = until(lambda: verdict(app, commit)["release"], "the sealed release")
    receipt(app, release, "staging", "received")
    _kill(Zone.STAGING, "flows.zone")
    receipt(app, release, "staging", "healthy")
    receipt(app, release, "production", "received")
    _kill(Zone.PRODUCTION, "flows.zone")
    held = receipt(app, release, "production", "held")
    assert plan_of(held)
    applied = ops().receipts(app=app, release=release, zone="staging", event="healthy")
    assert len(applied) == 1

    def nothing_runs(zone: Zone) -> bool:
        return not Engine(zone).runs(state={"type": {"any_": ["RUNNING", "PENDING"]}}, name={"like_": app})

    for zone in (Zone.BUILD, Zone.STAGING, Zone.PRODUCTION):
        assert until(partial(nothing_runs, zone), "no run of the dead process says Running", seconds=120)


def test_an_engine_killed_in_the_middle_loses_nothing(zones: Any, tmp_path: Path) -> None:
    app = "no-engine"
    _kill_engine(Zone.BUILD)
    commit, output = pushed(app, workload(tmp_path, app))
    assert commit
    assert verdict(app, commit)["verdict"]["result"] == "PASSED", output


def _kill_engine(zone: Zone) -> None:
    from sekisho.embedded.processes import in_network

    for pid in in_network(zone):
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        if "prefect.server.api.server:create_app" in command:
            os.kill(pid, signal.SIGKILL)
            time.sleep(0.2)
            return
    raise AssertionError(f"no engine in {zone}")


@pytest.mark.parametrize("zone", ENGINE_ZONES)
def test_the_dashboard_is_served(zone: Zone, zones: Any) -> None:
    page = httpx.get(f"http://{address(zone)}:{Port.PREFECT}/", trust_env=False, timeout=20, follow_redirects=True)
    assert page.status_code == 200
    script = re.search(r'src="(/[^"]+\.js)"', page.text)
    assert script is not None, page.text[:500]
    code = httpx.get(f"http://{address(zone)}:{Port.PREFECT}{script[1]}", trust_env=False, timeout=20)
    assert code.status_code == 200
    assert b"mount" in code.content
