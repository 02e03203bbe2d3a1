"""Putting versions into the dev cluster, with as little done as is enough.

Where only the program changed, the image of the running pod's container is changed in its place: the pod keeps its
network, its volumes and its node, and what starts is exactly the image that the builder made. Anything else, and the
first version, is applied as in every zone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Literal

from sekisho.errors import PermanentError, Refusal, TemporaryError
from sekisho.kube import Kube, Ref
from sekisho.vault import Vault
from stages.apply import filled
from stages.dev.objects import Composition, services_first
from stages.verify.causes import newest_pods, pod_causes, readiness

How = Literal["swapped", "applied"]

_KINDS = (
    ("apps/v1", "Deployment"),
    ("apps/v1", "StatefulSet"),
    ("v1", "Service"),
    ("v1", "ConfigMap"),
    ("v1", "Secret"),
    ("v1", "PersistentVolumeClaim"),
    ("v1", "ServiceAccount"),
)
_MANAGED = "app.kubernetes.io/managed-by=sekisho"
_PATCH = "application/strategic-merge-patch+json"
_SERVICE_SECONDS = 90
_CAUSE_SECONDS = 15
"""How long a service may be in trouble before that is told; its image may have to be fetched first."""
_PAUSE = 0.2


class Cluster:
    """One app in one namespace of the dev cluster.

    Args:
        kube: the dev cluster, with the developer's rights.
        vault: the credentials of bound services.
        namespace: the developer's namespace.
        tell: told what is waited for, one sentence.
    """

    def __init__(self, kube: Kube, vault: Vault, namespace: str, tell: Callable[[str], None]) -> None:
        self._kube = kube
        self._vault = vault
        self._namespace = namespace
        self._tell = tell
        self._applied: dict[Ref, dict[str, Any]] = {}
        self._frame = ""
        self._whole = False
        """Whether the last version was applied to its end: of half a version, no image is exchanged alone."""

    def put(self, version: Composition) -> How:
        """Have the cluster run a version.

        Raises:
            Refusal: the cluster refuses an object, or a bound service does not come up.
            TemporaryError: the cluster is not reachable.
        """
        if self._whole and version.frame == self._frame and version.swappable:
            pods = self.pods(version)
            if len(pods) == 1 and self.swap(version, pods[0]["metadata"]["name"]):
                return "swapped"
        services = services_first(version)
        self._whole = False
        for obj in version.objects:
            if obj is not version.workload:
                self._apply(obj, version.app)
        for obj in services:
            self._wait_for(obj)
        self._apply(version.workload, version.app)
        self._prune(version)
        self._unstick(version)
        self._frame, self._whole = version.frame, True
        return "applied"

    def swap(self, version: Composition, pod: str) -> bool:
        """Give a running pod a version's image; False when it cannot take it."""
        path = self._kube.path(Ref("v1", "Pod", self._namespace, pod))
        try:
            self._kube.request("PATCH", path, body=version.swap(), content_type=_PATCH, where=f"Pod/{pod}")
        except PermanentError:
            return False  # gone just now, or it has a container that may not change
        return True

    def pods(self, version: Composition) -> tuple[dict[str, Any], ...]:
        """Return the workload's pods of the newest revision that are not on their way out."""
        live = self._kube.get(Ref.of(version.workload))
        if live is None:
            return ()
        found = self._kube.list("v1", "Pod", self._namespace, labels=f"app.kubernetes.io/name={version.app}")
        sets = self._kube.list("apps/v1", "ReplicaSet", self._namespace)
        return tuple(dict(pod) for pod in newest_pods(live, sets, found))

    def _apply(self, obj: dict[str, Any], app: str) -> None:
        ref = Ref.of(obj)
        if self._applied.get(ref) == obj:
            return
        self._kube.apply(filled(obj, app, self._vault))
        self._applied[ref] = obj

    def _prune(self, version: Composition) -> None:
        """Delete what an earlier version had and this one has not; at first also what an earlier session left."""
        wanted = {Ref.of(obj) for obj in version.objects}
        if self._frame:
            left = set(self._applied) - wanted
        else:
            left = {
                Ref.of(obj)
                for api_version, kind in _KINDS
                for obj in self._kube.list(api_version, kind, self._namespace, labels=_MANAGED)
            } - wanted
        for ref in sorted(left):
            self._kube.delete(ref)
            self._applied.pop(ref, None)

    def _unstick(self, version: Composition) -> None:
        """A StatefulSet waits for a pod of the last version to become ready, and a broken one never does."""
        if version.workload["kind"] != "StatefulSet":
            return
        labels = f"app.kubernetes.io/name={version.app}"
        for pod in self._kube.list("v1", "Pod", self._namespace, labels=labels):
            images = {container["image"] for container in pod["spec"]["containers"]}
            if version.image not in images:
                self._kube.delete(Ref.of(pod), uid=pod["metadata"]["uid"])

    def _wait_for(self, service: dict[str, Any]) -> None:
        """Wait until a bound service is ready."""
        ref = Ref.of(service)
        start = time.monotonic()
        told = False
        while True:
            live = self._kube.get(ref)
            if live is not None and readiness(live)[0]:
                return
            if not told:
                self._tell(
                    f"Starting {ref.name}, which {service['metadata']['labels'].get(_PART_OF, 'the app')} needs."
                )
                told = True
            passed = time.monotonic() - start
            if live is not None and passed > _CAUSE_SECONDS:
                self._in_trouble(live)
            if passed > _SERVICE_SECONDS:
                raise TemporaryError(f"{ref.name} is not ready after {_SERVICE_SECONDS} s.", where=ref.short)
            time.sleep(_PAUSE)

    def _in_trouble(self, live: dict[str, Any]) -> None:
        pods = self._kube.list("v1", "Pod", self._namespace)
        causes = pod_causes(newest_pods(live, (), pods))
        if causes:
            raise Refusal(
                f"{live['metadata']['name']} does not start: {causes[0].text}",
                where=Ref.of(live).short,
                remedy="It is the dev zone's service and not your program; ask the platform team.",
            )


_PART_OF = "app.kubernetes.io/part-of"
