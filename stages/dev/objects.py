"""What is different about objects in the dev cluster. Pure.

The rendered and bound objects are the same as in any zone. Here they get the developer's namespace, and the workload
gets what makes a save run soon: it ends within a moment instead of half a minute, and the old version serves until the
new one is ready. Nothing of that reaches a release.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from sekisho.canonical import digest_of_json
from sekisho.errors import Refusal
from sekisho.refs import apply_order
from sekisho.workloads import pod_template

_OWN_IMAGE = "image-of-the-working-copy"
_GRACE = 1
"""Seconds a program is given to end after SIGTERM."""
_LIVENESS_SECONDS = 90
"""How long a program runs before its liveness probe counts. The kubelet goes on counting failures when a container is
exchanged: at a save every ten seconds, three that each met a program on its start would end the third one."""
_ROLLING = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
"""The old version serves until the new one is ready."""
_CLUSTER_WIDE = {"Namespace", "ClusterRole", "ClusterRoleBinding"}
_SOON: Mapping[str, Mapping[str, str]] = {"java": {"JDK_JAVA_OPTIONS": "-XX:TieredStopAtLevel=1"}}
"""What a language's programs are told, so that they start soon rather than run fast. Java: only the compiler that needs
no time to get going; a Spring Boot program starts in two thirds of its time."""


@dataclass(frozen=True)
class Port:
    """One port of the workload's Service."""

    name: str
    port: int
    target: int


@dataclass(frozen=True)
class Probe:
    """How a version is asked whether it answers."""

    port: int
    path: str = ""
    """HTTP path of the readiness probe; empty when a connection is enough."""
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Composition:
    """All objects of one version, in order of apply."""

    app: str
    namespace: str
    image: str
    """Reference of the image that was built of the working copy."""
    objects: tuple[dict[str, Any], ...]

    @property
    def workload(self) -> dict[str, Any]:
        """The Deployment or StatefulSet of the app itself."""
        return next(obj for obj in self.objects if _is_workload(obj, self.app))

    @property
    def frame(self) -> str:
        """A digest over everything but the image: of one frame, only the program changes."""
        return digest_of_json([_without(obj, self.image) for obj in self.objects])

    @property
    def swappable(self) -> tuple[str, ...]:
        """Containers whose image alone may be changed in a running pod; empty when that is not enough.

        A container that runs first (`before` in score.yaml) must run again with the new image, so a new pod is needed.
        """
        pod = self.workload["spec"]["template"]["spec"]
        if any(container["image"] == self.image for container in pod.get("initContainers") or []):
            return ()
        return tuple(container["name"] for container in pod["containers"] if container["image"] == self.image)

    @property
    def ports(self) -> tuple[Port, ...]:
        """TCP ports of the workload's own Service."""
        for obj in self.objects:
            if obj["kind"] == "Service" and obj["metadata"]["name"] == self.app:
                return tuple(
                    Port(str(port.get("name", "")), int(port["port"]), int(port.get("targetPort", port["port"])))
                    for port in obj["spec"].get("ports") or []
                    if port.get("protocol", "TCP") == "TCP"
                )
        return ()

    @property
    def probe(self) -> Probe | None:
        """How to ask whether a version answers: by its readiness probe over HTTP, else by a connection to its port."""
        for container in self.workload["spec"]["template"]["spec"]["containers"]:
            get = (container.get("readinessProbe") or {}).get("httpGet")
            if get and isinstance(get.get("port"), int) and get.get("scheme", "HTTP") == "HTTP":
                headers = tuple((str(item["name"]), str(item["value"])) for item in get.get("httpHeaders") or [])
                return Probe(get["port"], str(get.get("path", "/")), headers)
        return Probe(self.ports[0].target) if self.ports else None

    def swap(self) -> dict[str, Any]:
        """Return the patch that gives a running pod this version's image."""
        return {"spec": {"containers": [{"name": name, "image": self.image} for name in self.swappable]}}


def compose(
    objects: Sequence[Mapping[str, Any]], *, app: str, namespace: str, image: str, zone: str, language: str = ""
) -> Composition:
    """Return bound objects as they are applied in the dev cluster.

    Args:
        objects: bound objects, without a namespace.
        app: the workload.
        namespace: the developer's own.
        image: reference of the built image.
        zone: name of the zone, for the workload's environment.
        language: what the image was built of.

    Raises:
        Refusal: there is no workload among them.
    """
    placed = []
    for obj in objects:
        mine = deepcopy(dict(obj))
        if mine["kind"] not in _CLUSTER_WIDE:
            mine["metadata"] = {**mine["metadata"], "namespace": namespace}
        if _is_workload(mine, app):
            _tune(mine, {"SEKISHO_APP": app, "SEKISHO_ZONE": zone}, image, _SOON.get(language, {}))
        placed.append(mine)
    if any(obj["kind"] in {"Job", "CronJob"} and obj["metadata"]["name"] == app for obj in placed):
        raise Refusal(
            "A Job comes to its end, and there is nothing to keep running here.",
            where="score.yaml",
            remedy="Run its command yourself, or leave the annotation k8s.score.dev/kind out while you develop.",
        )
    if not any(_is_workload(obj, app) for obj in placed):
        raise Refusal("score.yaml renders to no workload.", where="score.yaml", remedy="Add a container.")
    return Composition(app, namespace, image, apply_order(placed))


def services_first(composition: Composition) -> tuple[dict[str, Any], ...]:
    """Return the StatefulSets of bound services: a program that needs its database may fall over without it."""
    return tuple(
        obj for obj in composition.objects if obj["kind"] == "StatefulSet" and not _is_workload(obj, composition.app)
    )


def _is_workload(obj: Mapping[str, Any], app: str) -> bool:
    return obj["kind"] in {"Deployment", "StatefulSet"} and obj["metadata"]["name"] == app


def _tune(workload: dict[str, Any], environment: Mapping[str, str], image: str, soon: Mapping[str, str]) -> None:
    spec = workload["spec"]
    if workload["kind"] == "Deployment":
        spec.setdefault("strategy", _ROLLING)
        spec["revisionHistoryLimit"] = 1
    pod = spec["template"]["spec"]
    pod["terminationGracePeriodSeconds"] = _GRACE
    # A program that is process 1 ignores SIGTERM unless it has a handler, and then its end takes seconds.
    pod["shareProcessNamespace"] = True
    for container in (*pod.get("initContainers", ()), *pod["containers"]):
        named = {entry["name"] for entry in container.get("env") or []}
        own = soon if container["image"] == image else {}
        told = sorted({**environment, **own}.items())
        added = [{"name": name, "value": value} for name, value in told if name not in named]
        container["env"] = [*(container.get("env") or []), *added]
        if probe := container.get("livenessProbe"):
            delay = max(_LIVENESS_SECONDS, int(probe.get("initialDelaySeconds", 0)))
            container["livenessProbe"] = {**probe, "initialDelaySeconds": delay}
        # A program's start takes more of the processor than its work; memory stays limited, for it shows mistakes.
        limits = {key: value for key, value in container["resources"]["limits"].items() if key != "cpu"}
        container["resources"] = {**container["resources"], "limits": limits}


def _without(obj: Mapping[str, Any], image: str) -> dict[str, Any]:
    """Return an object with a mark in place of the built image."""
    if pod_template(obj) is None:
        return dict(obj)
    bare = deepcopy(dict(obj))
    template = pod_template(bare) or {}
    for field in ("initContainers", "containers"):
        for container in template.get("spec", {}).get(field) or []:
            if container.get("image") == image:
                container["image"] = _OWN_IMAGE
    return bare
