"""Every arrow that is not drawn is closed, and each is tried: from every network to every other, on every port.

Where nothing listens, a listener is put there first, and the target itself connects to it. So a closed arrow is closed
by the firewall, and not by the absence of somebody who answers.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import itertools
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from sekisho.embedded import firewall, netns
from sekisho.embedded.cluster_home import ClusterHome
from sekisho.package_indexes import default_index, read_roots
from sekisho.zones import (
    ARROWS,
    CLUSTER_ZONES,
    EXTERNAL_DATABASE_HOST,
    Network,
    Port,
    Zone,
    address,
    gateway,
)

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("zones")]

Pods = Callable[..., list[dict[str, Any]]]
NODE_PORT = 30999
PORTS = (
    Port.APISERVER,
    Port.REGISTRY,
    Port.REGISTRY_WRITE,
    Port.PREFECT,
    Port.ZONE_API,
    Port.GIT,
    Port.FEED,
    Port.OPS,
    Port.EGRESS_PROXY,
    Port.POSTGRES,
    10250,
    2379,
    NODE_PORT,
)
BARRED = {errno.EHOSTUNREACH, errno.EACCES, errno.ENETUNREACH}
"""What a refusal by the firewall looks like; ECONNREFUSED would be an open way to a port where nobody listens."""


def permitted(source: Network, target: Network, port: int) -> bool:
    for arrow in ARROWS:
        if (arrow.source, arrow.target) == (source, target):
            for item in arrow.ports:
                low, high = item if isinstance(item, tuple) else (item, item)
                if low <= port <= high:
                    return True
    return False


@contextlib.contextmanager
def listening(network: Network) -> Iterator[None]:
    """Have something listen on every port of a node; only for as long as needed, the real owner may be starting."""
    with contextlib.ExitStack() as stack:
        for port in PORTS:
            if outcome(network, address(network), port) == 0:
                continue
            sock = stack.enter_context(contextlib.closing(netns.open_socket(network)))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):  # its owner was quicker
                sock.bind((address(network), port))
                sock.listen(64)
        yield


def outcome(source: Network | str, host: str, port: int) -> int:
    """Return 0 for a connection, else the error's number; ETIMEDOUT for silence."""
    try:
        netns.connect(source, host, port, timeout=2).close()
    except TimeoutError:
        return errno.ETIMEDOUT
    except OSError as error:
        return error.errno or -1
    return 0


@pytest.mark.parametrize(("source", "target"), list(itertools.permutations(Network, 2)))
def test_connections_follow_the_arrows(source: Network, target: Network) -> None:
    with listening(target):
        for port in PORTS:
            assert outcome(target, address(target), port) == 0, f"nothing at {target}:{port}: this proves nothing"
            result = outcome(source, address(target), port)
            if permitted(source, target, port):
                assert result == 0, f"{source} -> {target}:{port} is an arrow and closed: {errno.errorcode.get(result)}"
            else:
                assert result in BARRED, f"{source} -> {target}:{port} is none: {errno.errorcode.get(result, 'OPEN')}"


def test_the_external_database_answers_production_only() -> None:
    host = address(Network.PRODUCTION, EXTERNAL_DATABASE_HOST)
    assert outcome(Network.PRODUCTION, host, Port.POSTGRES) == 0
    for source in set(Network) - {Network.PRODUCTION}:
        assert outcome(source, host, Port.POSTGRES) in BARRED


@pytest.mark.parametrize("source", [network for network in Network if network is not Network.CONSOLE])
def test_no_network_reaches_the_outside(source: Network) -> None:
    for host in ("1.1.1.1", "8.8.8.8"):
        assert outcome(source, host, 443) in BARRED


@pytest.mark.parametrize("source", [network for network in Network if network is not Network.CONSOLE])
def test_a_forged_sender_does_not_pass_the_router(source: Network) -> None:
    """Staging may pull from build's registry; nobody else may by taking staging's address."""
    if source is Network.STAGING:
        pytest.skip("its own address is no forgery")
    forged = address(Network.STAGING)
    name = netns.namespace(source)
    netns.run(["ip", "-n", name, "address", "add", f"{forged}/32", "dev", "lo"])
    try:
        sock = netns.open_socket(source)
        with contextlib.closing(sock):
            sock.settimeout(1)
            sock.bind((forged, 0))
            target = address(Network.BUILD) if source is not Network.BUILD else address(Network.OPS)
            with pytest.raises(OSError):  # noqa: PT011 -- refused or silence: the answer goes to the real staging
                sock.connect((target, Port.REGISTRY if source is not Network.BUILD else Port.OPS))
    finally:
        netns.run(["ip", "-n", name, "address", "delete", f"{forged}/32", "dev", "lo"])


def test_the_router_offers_nothing() -> None:
    for source in Network:
        assert outcome(source, gateway(source), 22) != 0
        assert outcome(source, gateway(source), Port.REGISTRY) != 0


def proxy_answer(host: str) -> int:
    connection = http.client.HTTPConnection(address(Network.CONSOLE), Port.EGRESS_PROXY, timeout=20)
    connection.sock = netns.connect(Network.BUILD, address(Network.CONSOLE), Port.EGRESS_PROXY)
    with contextlib.closing(connection):
        connection.putrequest("CONNECT", f"{host}:443", skip_host=True, skip_accept_encoding=True)
        connection.endheaders()
        return connection.getresponse().status


def test_the_package_proxy_refuses_every_host_that_is_no_index() -> None:
    for host in ("example.com", f"{default_index()[0]}.example.com", "192.0.2.1", address(Network.OPS), "127.0.0.1"):
        assert proxy_answer(host) == 403


def test_the_package_proxy_lets_the_index_of_each_ecosystem_through() -> None:
    for root in read_roots(os.environ):
        host = urlsplit(root.url).hostname or ""
        try:
            socket.create_connection((host, 443), timeout=5).close()
        except OSError as error:
            pytest.skip(f"{host} cannot be reached from this machine: {error}")
        assert proxy_answer(host) == 200


# -- pods ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[Zone.BUILD, Zone.PRODUCTION])
def pod(request: pytest.FixtureRequest, pods: Pods) -> tuple[Zone, str]:
    """Return a zone and the network namespace of a pod in it."""
    zone: Zone = request.param
    pods(zone, "segregation")
    mounts = sorted((ClusterHome(zone).containerd_state / "io.containerd.grpc.v1.cri" / "netns").glob("*"))
    mounts = mounts or sorted(ClusterHome(zone).containerd_state.rglob("cni-*"))
    assert mounts, "containerd keeps the pods' namespaces elsewhere"
    return zone, str(mounts[-1])


def test_a_pod_reaches_its_own_zone_only(pod: tuple[Zone, str]) -> None:
    zone, namespace = pod
    for network in Network:
        with listening(network):
            for port in PORTS:
                result = pod_outcome(namespace, address(network), port)
                if str(network) == str(zone) and port in {Port.APISERVER, Port.REGISTRY}:
                    assert result == 0
                else:
                    assert result in BARRED, f"pod in {zone} -> {network}:{port}: {errno.errorcode.get(result, 'OPEN')}"


def test_a_pod_reaches_its_cluster_by_its_service_and_production_its_database(pod: tuple[Zone, str]) -> None:
    zone, namespace = pod
    assert pod_outcome(namespace, firewall.service_address(zone, 1), 443) == 0
    database = address(Network.PRODUCTION, EXTERNAL_DATABASE_HOST)
    result = pod_outcome(namespace, database, Port.POSTGRES)
    assert result == 0 if zone is Zone.PRODUCTION else result in BARRED


def pod_outcome(namespace: str, host: str, port: int) -> int:
    sock = netns.call_in(namespace, lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
    with contextlib.closing(sock):
        sock.settimeout(2)
        return sock.connect_ex((host, port))


def test_every_cluster_zone_was_tried() -> None:
    assert {str(zone) for zone in CLUSTER_ZONES} <= {str(network) for network in Network}
