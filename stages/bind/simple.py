"""node-port (type route) and volume: capabilities that need no credential."""

from __future__ import annotations

import re
from typing import Any

from sekisho.model import Binding, Explained
from sekisho.vault import Vault
from stages.bind.contract import Request, check_need

SMOKE_PATH = "sekisho.dev/smoke-path"
_PATH = re.compile(r"/[A-Za-z0-9._~/%-]{0,200}")
_SIZE = re.compile(r"[1-9][0-9]{0,9}(Ki|Mi|Gi|Ti)")


class NodePort:
    """A Service of type NodePort in front of the workload's own Service.

    Parameters of the need: `port` (number or name of the Service's port; the first one), `path` (checked after a
    deployment; `/`), `host` (kept as an annotation: a node port answers to every host name).
    """

    def names(self, request: Request) -> tuple[tuple[str, str], ...]:
        """Return what `bind` will give."""
        return (("Service", f"{request.app}-route"),)

    def check(self, request: Request) -> None:
        """Refuse a route to nowhere."""
        check_need(request, {"host", "path", "port"})
        path = request.need.params.get("path", "/")
        if not isinstance(path, str) or not _PATH.fullmatch(path):
            raise request.refuse("its path is not an absolute URL path.", "Write for example `path: /`.")
        host = request.need.params.get("host", "")
        if not isinstance(host, str) or len(host) > 253:  # noqa: PLR2004  RFC 1035
            raise request.refuse("its host is not a host name.")
        self._port(request)

    def bind(self, request: Request, vault: Vault) -> Binding:  # noqa: ARG002  no credential here
        """Return the Service."""
        service, port = self._port(request)
        name = f"{request.app}-route"
        annotations = {SMOKE_PATH: request.need.params["path"]} if "path" in request.need.params else {}
        if request.need.params.get("host"):
            annotations["sekisho.dev/host"] = request.need.params["host"]
        route = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": name,
                "labels": {**request.labels(request.app), "sekisho.dev/ingress": "platform"},
                "annotations": annotations,
            },
            "spec": {
                "type": "NodePort",
                "selector": dict(service["spec"]["selector"]),
                "ports": [
                    {
                        "name": port.get("name") or "http",
                        "port": port["port"],
                        "targetPort": port.get("targetPort", port["port"]),
                        "protocol": "TCP",
                    }
                ],
            },
        }
        return Binding(
            need=request.need.name,
            type=request.need.type,
            provider=request.capability.provider,
            objects=(route,),
            explained=(
                Explained(
                    object=f"Service/{name}",
                    path="",
                    why="The workload asks for a way in from outside; this zone gives a port of its nodes.",
                    by=request.by,
                ),
            ),
        )

    def _port(self, request: Request) -> tuple[dict[str, Any], dict[str, Any]]:
        wanted = request.need.params.get("port")
        for obj in request.objects:
            if obj.get("kind") != "Service" or obj.get("metadata", {}).get("name") != request.app:
                continue
            for port in obj.get("spec", {}).get("ports") or []:
                if port.get("protocol", "TCP") == "TCP" and wanted in {None, port.get("port"), port.get("name")}:
                    if not obj["spec"].get("selector"):
                        raise request.refuse("the workload's Service selects no pods.")
                    return obj, port
        raise request.refuse(
            "the workload's Service has no such TCP port.", "Declare the port under service.ports in score.yaml."
        )


class Volume:
    """A PersistentVolumeClaim `<app>-<need>-volume`, the name that the rendered pods mount.

    Parameter of the need: `size`. Options: `size` (the largest, and the default: `1Gi`), `storage_class`.
    """

    def names(self, request: Request) -> tuple[tuple[str, str], ...]:
        """Return what `bind` will give."""
        return (("PersistentVolumeClaim", self._name(request)),)

    def check(self, request: Request) -> None:
        """Refuse what is not a size, or is more than the zone gives."""
        check_need(request, {"size"})
        if _bytes(self._size(request)) > _bytes(str(request.capability.options.get("size", "1Gi"))):
            raise request.refuse("it asks for more than the zone gives to one volume.", "Ask for less.")

    def bind(self, request: Request, vault: Vault) -> Binding:  # noqa: ARG002  no credential here
        """Return the claim."""
        spec: dict[str, Any] = {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": self._size(request)}},
        }
        if storage_class := request.capability.options.get("storage_class"):
            spec["storageClassName"] = str(storage_class)
        claim = {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": self._name(request), "labels": request.labels(request.app)},
            "spec": spec,
        }
        return Binding(
            need=request.need.name,
            type=request.need.type,
            provider=request.capability.provider,
            objects=(claim,),
            explained=(
                Explained(
                    object=f"PersistentVolumeClaim/{self._name(request)}",
                    path="",
                    why="The workload asks for storage that outlives its pods.",
                    by=request.by,
                ),
            ),
        )

    def _name(self, request: Request) -> str:
        return f"{request.name}-volume"

    def _size(self, request: Request) -> str:
        size = str(request.need.params.get("size", request.capability.options.get("size", "1Gi")))
        if not _SIZE.fullmatch(size):
            raise request.refuse(f"{size[:40]!r} is not a size.", "Write for example `size: 500Mi`.")
        return size


def _bytes(size: str) -> int:
    return int(size[:-2]) * {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40}[size[-2:]]
