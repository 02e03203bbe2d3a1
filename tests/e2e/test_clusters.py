"""The embedded clusters are real: they schedule, pull, resolve names, and refuse what they must refuse."""

from __future__ import annotations

import base64
import http.client
import json
import os
import signal
import socket
import ssl
import struct
import time
from collections.abc import Callable
from typing import Any

import pytest

from sekisho.clusters import provider_for
from sekisho.embedded import firewall, kubernetes, netns, processes, supervise
from sekisho.embedded.cleanup import mounts_below
from sekisho.embedded.cluster_home import ClusterHome
from sekisho.embedded.doctor import doctor
from sekisho.embedded.kubeapi import KubeApi
from sekisho.embedded.status import status
from sekisho.embedded.zones import down, exclusive, up
from sekisho.errors import PermanentError, TemporaryError
from sekisho.profile import load_profile
from sekisho.zones import CLUSTER_ZONES, Port, Zone, ZoneHome, address, home

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("zones")]
Pods = Callable[..., list[dict[str, Any]]]


@pytest.mark.parametrize("zone", CLUSTER_ZONES)
def test_every_node_is_ready(zone: Zone) -> None:
    assert KubeApi(zone).node_ready()
    profile = load_profile(ZoneHome(zone).profile)
    assert provider_for(profile).status().state == "ready"


@pytest.mark.parametrize("zone", CLUSTER_ZONES)
def test_two_pods_from_the_zones_own_registry_become_ready(zone: Zone, pods: Pods) -> None:
    found = pods(zone, "two", 2)
    addresses = {pod["status"]["podIP"] for pod in found if pod["status"]["phase"] == "Running"}
    assert len(addresses) == 2
    network = firewall.pod_range(zone).removesuffix("0/24")
    assert all(item.startswith(network) for item in addresses)


def ask(zone: Zone, name: str) -> tuple[int, list[str]]:
    """Ask the zone's cluster DNS by its Service (RFC 1035); return the response code and the IPv4 addresses."""
    query = struct.pack(">HHHHHH", 7, 0x0100, 1, 0, 0, 0)
    query += b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0" + struct.pack(">HH", 1, 1)
    sock = netns.call_in(netns.namespace(zone), lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    with sock:
        sock.settimeout(3)
        sock.sendto(query, (firewall.service_address(zone, 10), 53))
        answer = sock.recv(512)
    count = struct.unpack(">H", answer[6:8])[0]
    # Each record of the answer: a name pointer, type, class, ttl, length, then the address.
    rest = answer[len(query) :]
    return answer[3] & 0x0F, [
        socket.inet_ntoa(rest[16 * n + 12 : 16 * n + 16]) for n in range(count) if len(rest) >= 16
    ]


@pytest.mark.parametrize("zone", CLUSTER_ZONES)
def test_the_cluster_resolves_its_own_names_and_no_others(zone: Zone) -> None:
    code, answer = ask(zone, "kubernetes.default.svc.cluster.local")
    assert code == 0
    assert firewall.service_address(zone, 1) in answer or answer
    assert ask(zone, "example.org")[0] != 0


def test_pod_security_refuses_a_privileged_pod(pods: Pods) -> None:
    pods(Zone.STAGING, "two", 2)
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "rogue", "namespace": "e2e-two"},
        "spec": {"containers": [{"name": "a", "image": "x", "securityContext": {"privileged": True}}]},
    }
    with pytest.raises(PermanentError, match=r"403.*PodSecurity"):
        KubeApi(Zone.STAGING).request("POST", "/api/v1/namespaces/e2e-two/pods", pod)


class ZoneApi(KubeApi):
    """The API server as the zone's own process sees it."""

    def __init__(self, zone: Zone) -> None:
        super().__init__(zone)
        self._context = ssl.create_default_context(cafile=str(self.home.authority.certificate))
        self._context.load_cert_chain(*self.home.authority.path("zone"))


def test_a_zones_process_is_no_cluster_admin() -> None:
    api = ZoneApi(Zone.PRODUCTION)
    assert api.request("GET", "/api/v1/namespaces")["items"]
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "e2e-take-over"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "sekisho:production"}],
    }
    with pytest.raises(PermanentError, match="403"):
        api.request("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding)


def test_one_zones_certificate_says_nothing_to_another_zone() -> None:
    api = KubeApi(Zone.PRODUCTION)
    api._context = ssl.create_default_context(cafile=str(ClusterHome(Zone.PRODUCTION).authority.certificate))
    api._context.load_cert_chain(*ClusterHome(Zone.STAGING).authority.path("admin"))
    with pytest.raises((PermanentError, TemporaryError), match=r"401|answer"):
        api.request("GET", "/api/v1/namespaces")


@pytest.mark.parametrize(("path", "expected"), [("/readyz", 200), ("/api/v1/namespaces", 401), ("/version", 401)])
def test_anonymous_callers_see_health_only(path: str, expected: int) -> None:
    context = ssl.create_default_context(cafile=str(ClusterHome(Zone.BUILD).authority.certificate))
    host = address(Zone.BUILD)
    connection = http.client.HTTPSConnection(host, Port.APISERVER, context=context, timeout=5)
    sock = netns.connect(Zone.BUILD, host, Port.APISERVER)
    connection.sock = context.wrap_socket(sock, server_hostname=host)
    connection.request("GET", path)
    assert connection.getresponse().status == expected
    connection.close()


def test_secrets_are_encrypted_at_rest(pods: Pods) -> None:
    pods(Zone.STAGING, "two", 2)
    marker = "plain-to-see-in-the-database-file"
    body = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "probe", "namespace": "e2e-two"},
        "stringData": {"key": marker},
    }
    api = KubeApi(Zone.STAGING)
    api.request("PATCH", "/api/v1/namespaces/e2e-two/secrets/probe?fieldManager=e2e", body,
                content_type="application/apply-patch+yaml")  # fmt: skip
    stored = b"".join(
        path.read_bytes()
        for path in ClusterHome(Zone.STAGING).etcd.rglob("*")
        if path.is_file() and path.stat().st_size
    )
    assert b"/registry/secrets/e2e-two/probe" in stored
    assert b"k8s:enc:secretbox:v1:first" in stored
    assert marker.encode() not in stored
    assert base64.b64encode(marker.encode()) not in stored


def test_the_read_face_of_the_registry_takes_nothing() -> None:
    connection = http.client.HTTPConnection(address(Zone.BUILD), Port.REGISTRY, timeout=5)
    connection.sock = netns.connect(Zone.STAGING, address(Zone.BUILD), Port.REGISTRY)
    connection.request("POST", "/v2/apps/evil/blobs/uploads/")
    assert connection.getresponse().status in {403, 405}
    connection.close()


@pytest.mark.parametrize("zone", [zone for zone in Zone if zone is not Zone.BUILD])
def test_one_zones_user_reads_nothing_of_another(zone: Zone) -> None:
    other = ZoneHome(Zone.BUILD)
    for path in (other.keys / "builder.pem", other.kubeconfig, other.secrets, other.root / "docker" / "docker.sock",
                 ClusterHome(Zone.BUILD).admin_kubeconfig, home() / "console" / "approver"):  # fmt: skip
        done = netns.run_in(zone, ["test", "-r", path], user=ZoneHome(zone).user, check=False)
        assert done.returncode != 0, f"{zone} reads {path}"


def test_a_zones_user_cannot_change_what_the_zone_trusts() -> None:
    own = ZoneHome(Zone.PRODUCTION)
    for path in (
        own.root,
        own.trust,
        own.trust / "root.json",
        own.trust / "allowed_signers",
        own.policies,
        own.profile,
    ):
        assert netns.run_in("production", ["test", "-e", path], user=own.user, check=False).returncode == 0
        assert netns.run_in("production", ["test", "-w", path], user=own.user, check=False).returncode != 0


def test_up_again_is_quick_and_starts_nothing() -> None:
    before = {name: state.pid for name, state in supervise.Supervisor().states().items()}
    report = up(line=False)
    after = {name: state.pid for name, state in supervise.Supervisor().states().items()}
    assert {
        name: pid for name, pid in after.items() if name.partition(".")[2] not in {"zone", "engine", "ops", "receiver"}
    } == {
        name: pid for name, pid in before.items() if name.partition(".")[2] not in {"zone", "engine", "ops", "receiver"}
    }
    assert report.warnings == {}


def test_two_ups_do_not_run_at_once() -> None:
    with exclusive(), pytest.raises(TemporaryError, match="Another"):
        up(line=False)


def test_status_counts_every_zone() -> None:
    document = status()
    assert {zone.zone: zone.cluster for zone in document.zones} == {
        "dev": "ready", "build": "ready", "ops": "none", "staging": "ready", "production": "ready",
    }  # fmt: skip
    assert all(zone.memory_bytes > 0 for zone in document.zones)
    assert json.loads(document.canonical())["supervisor"] is True


def test_doctor_finds_nothing_wrong_and_says_what_is_not_enforced() -> None:
    diagnosis = doctor()
    assert [finding for finding in diagnosis.findings if finding.result == "fail"] == []
    said = next(finding for finding in diagnosis.findings if finding.check == "network policies")
    assert said.result == "warn"
    assert "not enforced" in said.message


@pytest.mark.long
def test_a_killed_supervisor_is_replaced_and_pods_live_on(pods: Pods) -> None:
    before = {pod["metadata"]["uid"] for pod in pods(Zone.DEV, "survivor")}
    running = processes.in_containers(Zone.DEV)
    assert len(running) >= 2
    os.kill(int(supervise.pid_path().read_text()), signal.SIGKILL)
    time.sleep(0.2)
    assert not supervise.Supervisor.alive()
    up()
    assert running <= processes.in_containers(Zone.DEV)
    assert {pod["metadata"]["uid"] for pod in pods(Zone.DEV, "survivor")} == before


def test_a_killed_component_comes_back() -> None:
    pid = supervise.Supervisor().states()["dev.scheduler"].pid
    os.kill(pid, signal.SIGKILL)
    end = time.monotonic() + 90
    while (state := supervise.Supervisor().states()["dev.scheduler"]).pid in {0, pid}:
        assert time.monotonic() < end, state
        time.sleep(0.1)


@pytest.mark.long
def test_down_leaves_nothing_of_a_zone_and_touches_no_other(pods: Pods) -> None:
    pods(Zone.DEV, "leaving")
    containers = processes.in_containers(Zone.DEV)
    assert len(containers) >= 2
    cgroups = [cgroup for cgroup in processes.cgroups_of(Zone.DEV) if cgroup.startswith("/k8s.io/")]
    assert cgroups
    others = {name: state.pid for name, state in supervise.Supervisor().states().items() if not name.startswith("dev.")}
    down([Zone.DEV])
    try:
        assert processes.everything(Zone.DEV) == set()
        assert mounts_below(ZoneHome(Zone.DEV).root) == []
        assert not netns.exists("sk-dev")
        assert processes.end(containers, sign=0, seconds=5) == set()
        for hierarchy in kubernetes.cgroup_hierarchies():
            assert not any((hierarchy / name.strip("/")).exists() for name in ("/sekisho/dev", *cgroups))
        states = supervise.Supervisor().states()
        assert {name: state.pid for name, state in states.items() if not name.startswith("dev.")} == others
        assert (ClusterHome(Zone.DEV).etcd / "data").is_dir()
    finally:
        up([Zone.DEV])
    assert KubeApi(Zone.DEV).request("GET", "/api/v1/namespaces/e2e-leaving") is not None
