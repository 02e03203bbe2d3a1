"""One git push travels from a developer to production, on the real zones."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from line import GUESTBOOK, ROOT, cli, cli_json, ops, plan_of, pushed, receipt, until, verdict, workload

from sekisho.decisions import sign_decision
from sekisho.embedded.netns import call_in, namespace
from sekisho.errors import SekishoError
from sekisho.kube import Kube, Ref
from sekisho.model import Decision
from sekisho.zones import Zone, ZoneHome

pytestmark = pytest.mark.e2e

APP = "guestbook"


class Journey:
    """The release that these tests follow."""

    def __init__(self, folder: Path) -> None:
        def stamp(target: Path) -> None:
            (target / "REVISION").write_text(f"{time.time_ns()}\n")

        self.commit, self.output = pushed(APP, workload(folder, APP, stamp))
        self.record = verdict(APP, self.commit)
        self.release: str = self.record["release"]


@pytest.fixture(scope="module")
def journey(zones: Any, tmp_path_factory: pytest.TempPathFactory) -> Journey:
    return Journey(tmp_path_factory.mktemp("journey"))


@pytest.fixture(scope="module")
def held(journey: Journey) -> dict[str, Any]:
    return receipt(APP, journey.release, "production", "held")


@pytest.fixture(scope="module")
def in_production(held: dict[str, Any], journey: Journey) -> dict[str, Any]:
    cli("approve", plan_of(held), "--yes")
    return receipt(APP, journey.release, "production", "healthy")


class _Inside:
    """A zone's API server, asked from inside the zone: from the console it is closed."""

    def __init__(self, zone: Zone) -> None:
        self._zone = zone
        self._kube = Kube.connect(ZoneHome(zone).kubeconfig)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *args, **more: call_in(namespace(self._zone), lambda: getattr(self._kube, name)(*args, **more))


def _kube(zone: Zone) -> Any:
    return _Inside(zone)


def test_the_pusher_reads_the_verdict_stage_by_stage(journey: Journey) -> None:
    assert journey.record["verdict"]["result"] == "PASSED", journey.output
    for stage in ("source", "build", "render", "scan", "judge", "seal"):
        assert f"{stage}" in journey.output
    assert "PASSED" in journey.output
    assert "sample advisories" in journey.output


def test_the_release_verifies_offline(journey: Journey) -> None:
    report = cli_json("verify", journey.release)
    assert report["ok"], report
    assert len(report["checks"]) >= 10


def test_staging_opens_by_itself_and_answers(journey: Journey) -> None:
    healthy = receipt(APP, journey.release, "staging", "healthy")
    info = httpx.get(healthy["body"]["url"] + "api/info", trust_env=False, timeout=60).json()
    assert info["zone"] == "staging"
    assert info["release"] == journey.release


def test_production_waits_for_exactly_one_plan(held: dict[str, Any], journey: Journey) -> None:
    assert held["body"]["gate"]["open"] is False
    shown = cli_json("plan", APP, "--zone", "production")
    assert shown["digest"] == plan_of(held)
    assert shown["plan"]["release"] == journey.release


def test_no_secret_is_in_the_plan(held: dict[str, Any]) -> None:
    vault = ZoneHome(Zone.PRODUCTION).vault
    passwords = [
        json.loads(path.read_bytes())["password"]
        for path in vault.rglob("*.json")
        if b'"password"' in path.read_bytes()
    ]
    assert passwords
    text = json.dumps(held)
    assert not [password for password in passwords if password in text]


@pytest.mark.parametrize("wrong", ["key", "plan", "zone"])
def test_a_wrong_approval_does_not_open_the_gate(wrong: str, held: dict[str, Any], tmp_path: Path) -> None:
    key = tmp_path / "stranger"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    approver = ZoneHome(Zone.PRODUCTION).root.parents[1] / "console" / "approver"
    decision = Decision(
        kind="approve",
        zone="staging" if wrong == "zone" else "production",
        app=APP,
        subject="sha256:" + "1" * 64 if wrong == "plan" else plan_of(held),
        principal="approver@example.com",
        issued_at=int(time.time()),
        nonce=f"{time.time_ns():032x}",
    )
    signed = sign_decision(decision, key if wrong == "key" else approver)
    # Ops may refuse a wrong key at its door; what counts is that production does not move.
    with contextlib.suppress(SekishoError):
        ops().post_decision(signed)
    time.sleep(3)
    assert not ops().receipts(app=APP, release=held["release"], zone="production", event="applied")


def test_an_approval_opens_production(in_production: dict[str, Any], journey: Journey) -> None:
    base = in_production["body"]["url"]
    info = httpx.get(base + "api/info", trust_env=False, timeout=60).json()
    assert (info["zone"], info["release"]) == ("production", journey.release)
    text = f"hello {time.time_ns()}"
    with httpx.Client(base_url=base, trust_env=False, timeout=60, follow_redirects=True) as browser:
        token = re.search(r'name="token" value="([^"]+)"', browser.get("/").text)
        assert token is not None
        browser.post("/entries", data={"author": "test", "message": text, "token": token[1]}).raise_for_status()
        assert text in browser.get("/").text


def test_an_approval_counts_once(in_production: dict[str, Any], held: dict[str, Any]) -> None:
    before = len(ops().receipts(app=APP, zone="production", event="applied"))
    again = cli("approve", plan_of(held), "--yes", check=False)
    assert again.returncode in {0, 1}
    time.sleep(3)
    assert len(ops().receipts(app=APP, zone="production", event="applied")) == before


def test_both_zones_run_the_same_digest_on_different_databases(in_production: dict[str, Any]) -> None:
    pods = {}
    for zone in (Zone.STAGING, Zone.PRODUCTION):
        deployment = _kube(zone).get(Ref("apps/v1", "Deployment", f"app-{APP}", APP))
        assert deployment is not None
        pods[zone] = deployment["spec"]["template"]["spec"]
    images = {zone: [item["image"] for item in spec["containers"]] for zone, spec in pods.items()}
    assert images[Zone.STAGING] == images[Zone.PRODUCTION]
    assert _kube(Zone.STAGING).get(Ref("apps/v1", "StatefulSet", f"app-{APP}", f"{APP}-db")) is not None
    assert _kube(Zone.PRODUCTION).get(Ref("apps/v1", "StatefulSet", f"app-{APP}", f"{APP}-db")) is None


@pytest.mark.parametrize("zone", [Zone.STAGING, Zone.PRODUCTION])
def test_what_runs_is_hardened(zone: Zone, in_production: dict[str, Any]) -> None:
    kube = _kube(zone)
    namespace = kube.get(Ref("v1", "Namespace", "", f"app-{APP}"))
    assert namespace is not None
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    policies = kube.list("networking.k8s.io/v1", "NetworkPolicy", f"app-{APP}")
    assert any(item["spec"]["podSelector"] == {} and not item["spec"].get("ingress") for item in policies)
    deployment = kube.get(Ref("apps/v1", "Deployment", f"app-{APP}", APP))
    assert deployment is not None
    sidecars = deployment["spec"]["template"]["spec"]["initContainers"]
    assert [item["restartPolicy"] for item in sidecars if item["name"] == "guard"] == ["Always"]

    def agent_ready() -> bool:
        found = kube.get(Ref("apps/v1", "DaemonSet", "sekisho-agents", "trivy-agent"))
        status = (found or {}).get("status", {})
        return status.get("numberReady", 0) == status.get("desiredNumberScheduled", -1) >= 1

    assert until(agent_ready, f"the Trivy agent in {zone}")


def test_the_api_server_refuses_what_the_policies_refuse(in_production: dict[str, Any]) -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "stranger", "namespace": f"app-{APP}"},
        "spec": {"containers": [{"name": "x", "image": "docker.io/library/nginx:latest"}]},
    }
    with pytest.raises(Exception, match=r"(?i)polic|podsecurity|restricted|forbidden"):
        _kube(Zone.PRODUCTION).create(pod, dry_run=True)


def test_the_ledger_is_whole(in_production: dict[str, Any]) -> None:
    report = ops().verify_ledger()
    assert report["ok"], report


def test_developers_see_how_far_their_commit_is(in_production: dict[str, Any], journey: Journey) -> None:
    from line import feed

    def look() -> bool:
        progress = feed().commit(APP, journey.commit)["progress"]
        return {("staging", "healthy"), ("production", "healthy")} <= {
            (item["zone"], item["event"]) for item in progress
        }

    assert until(look, "progress on the developers' page")


def test_rollback_goes_to_the_release_before(in_production: dict[str, Any], journey: Journey, tmp_path: Path) -> None:
    def stamp(target: Path) -> None:
        (target / "REVISION").write_text(f"second {time.time_ns()}\n")

    commit, _ = pushed(APP, workload(tmp_path, APP, stamp, source=GUESTBOOK))
    second = verdict(APP, commit)["release"]
    cli("approve", plan_of(receipt(APP, second, "production", "held")), "--yes")
    receipt(APP, second, "production", "healthy")
    before = len(ops().receipts(app=APP, release=journey.release, zone="production", event="healthy"))
    cli("rollback", APP, "--zone", "production", "--to", journey.release, "--yes")

    def back() -> bool:
        found = ops().receipts(app=APP, release=journey.release, zone="production", event="healthy")
        return len(found) > before

    assert until(back, "the earlier release healthy again")
    info = httpx.get(in_production["body"]["url"] + "api/info", trust_env=False, timeout=60).json()
    assert info["release"] == journey.release


@pytest.mark.long
def test_a_rejected_plan_is_not_applied(zones: Any, tmp_path: Path) -> None:
    app = "rejected"
    commit, _ = pushed(app, workload(tmp_path, app))
    release = verdict(app, commit)["release"]
    plan = plan_of(receipt(app, release, "production", "held"))
    cli("reject", plan, "--reason", "not on a Friday")
    said = receipt(app, release, "production", "rejected")
    assert "not on a Friday" in said["message"]
    cli("approve", plan, "--yes", check=False)
    time.sleep(3)
    assert not ops().receipts(app=app, release=release, zone="production", event="applied")


def test_a_static_site_needs_no_lock_and_no_database(zones: Any, tmp_path: Path) -> None:
    app = "site"
    commit, output = pushed(app, workload(tmp_path, app, source=ROOT / "examples" / "site"))
    record = verdict(app, commit)
    assert record["verdict"]["result"] == "PASSED", output
    healthy = receipt(app, record["release"], "staging", "healthy")
    page = httpx.get(healthy["body"]["url"], trust_env=False, timeout=60)
    assert page.status_code == 200
    assert "<html" in page.text
