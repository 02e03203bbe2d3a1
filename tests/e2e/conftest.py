"""The running zones of this machine. They stay up after the run: `sekisho down` ends them."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sandboxes import base, box, engine, registry_url  # noqa: F401  (fixtures)

from sekisho.embedded import netns, pause
from sekisho.embedded.kubeapi import KubeApi
from sekisho.embedded.steps import StepDone
from sekisho.embedded.zones import UpReport, up
from sekisho.errors import SekishoError
from sekisho.model import IMAGE_HOST
from sekisho.registry import Registry
from sekisho.zones import Port, Zone


@pytest.fixture(scope="session")
def zones() -> UpReport:
    """All zones, brought up once for the whole run."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("the embedded zones need root on Linux")

    def tell(event: StepDone) -> None:
        sys.stderr.write(f"{event.seconds:6.1f} s {event.zone}.{event.step} {event.state} {event.message}\n")

    try:
        return up(progress=tell)
    except SekishoError as error:
        pytest.fail(f"The zones do not come up: {error}")


APP = "e2e-pause"


def push_pause(zone: Zone) -> str:
    """Push a small image to the zone's registry and return its reference: pods then pull it as any workload's."""
    layout = json.loads(pause.members()["index.json"])
    manifest = layout["manifests"][0]

    def push() -> str:
        registry = Registry(f"http://127.0.0.1:{Port.REGISTRY_WRITE}")
        blobs = {name.rpartition("/")[2]: data for name, data in pause.members().items() if name.startswith("blobs/")}
        own = manifest["digest"].removeprefix("sha256:")
        for name, data in blobs.items():
            if name != own:
                registry.put_blob(f"apps/{APP}", data)
        return registry.put_manifest(f"apps/{APP}", blobs[own], manifest["mediaType"])

    return f"{IMAGE_HOST}/apps/{APP}@{netns.call_in(netns.namespace(zone), push)}"


def deployment(name: str, namespace: str, image: str, replicas: int) -> dict[str, Any]:
    """Return a Deployment that Pod Security's restricted profile takes."""
    labels = {"app.kubernetes.io/name": name}
    container = {
        "name": "app",
        "image": image,
        "resources": {"limits": {"memory": "32Mi", "cpu": "50m"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    pod = {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 0,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


@pytest.fixture(scope="session")
def pods(zones: UpReport) -> Iterator[Callable[..., list[dict[str, Any]]]]:
    """Return what runs a Deployment from the zone's registry until it is ready, and gives its pods."""
    del zones  # only: they are up
    made: set[tuple[Zone, str]] = set()

    def make(zone: Zone, name: str, replicas: int = 1) -> list[dict[str, Any]]:
        api = KubeApi(zone)
        namespace = f"e2e-{name}"
        made.add((zone, namespace))
        api.request(
            "PATCH", f"/api/v1/namespaces/{namespace}?fieldManager=e2e&force=true", restricted(namespace), **APPLY
        )
        path = f"/apis/apps/v1/namespaces/{namespace}/deployments/{name}"
        body = deployment(name, namespace, push_pause(zone), replicas)
        end = time.monotonic() + 180
        api.request("PATCH", f"{path}?fieldManager=e2e&force=true", body, **APPLY)
        while (api.request("GET", path).get("status", {}).get("readyReplicas") or 0) < replicas:
            assert time.monotonic() < end, api.request("GET", f"/api/v1/namespaces/{namespace}/events")
            time.sleep(0.2)
        found: list[dict[str, Any]] = api.request("GET", f"/api/v1/namespaces/{namespace}/pods")["items"]
        return found

    yield make
    for zone, namespace in made:
        KubeApi(zone).request("DELETE", f"/api/v1/namespaces/{namespace}")


APPLY = {"content_type": "application/apply-patch+yaml"}


def restricted(namespace: str) -> dict[str, Any]:
    """Return a namespace under Pod Security's restricted profile."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}}
