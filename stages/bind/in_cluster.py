"""postgres-in-cluster: a small PostgreSQL beside the workload, from the platform's standard image."""

from __future__ import annotations

import re
from typing import Any

from sekisho.model import IMAGE_HOST, Binding, Explained
from sekisho.vault import Vault, fingerprint
from stages.bind.contract import FINGERPRINT, Request, binding_secret, check_need, identifier, postgres_entries

_PORT = 5432
_USER = 10001
_SIZE = re.compile(r"[1-9][0-9]{0,5}(Mi|Gi|Ti)")
_DEFAULT_RESOURCES = {
    "requests": {"cpu": "50m", "memory": "64Mi"},
    "limits": {"cpu": "1", "memory": "256Mi"},
}
_OPTIONS = {"image", "storage", "storage_class", "resources"}


class PostgresInCluster:
    """A StatefulSet of one pod, its Service and its Secret.

    Options: `image` (name of a standard image, `postgres`), `storage` (`ephemeral`, or a size such as `1Gi`),
    `storage_class`, `resources` (as in a container).
    """

    def names(self, request: Request) -> tuple[tuple[str, str], ...]:
        """Return what `bind` will give."""
        return (("Secret", request.secret), ("Service", request.name), ("StatefulSet", request.name))

    def check(self, request: Request) -> None:
        """Refuse a need or options that cannot be met."""
        check_need(request)
        options = request.capability.options
        unknown = sorted(set(options) - _OPTIONS)
        storage = str(options.get("storage", "ephemeral"))
        if unknown:
            raise request.refuse(f"the profile's capability has unknown options: {', '.join(unknown)}.")
        if storage != "ephemeral" and not _SIZE.fullmatch(storage):
            raise request.refuse(f"the profile's storage {storage[:40]!r} is neither `ephemeral` nor a size.")
        request.services.standard.get(str(options.get("image", "postgres")))

    def bind(self, request: Request, vault: Vault) -> Binding:
        """Keep credentials and return the objects."""
        role = identifier(request.app, request.need.name)
        host = f"{request.name}.{request.namespace}.svc"
        entries = postgres_entries(request, vault, host=host, port=_PORT, username=role, database=role)
        mark = fingerprint(vault, entries)
        storage = str(request.capability.options.get("storage", "ephemeral"))
        kept = "goes when the pod goes" if storage == "ephemeral" else f"is kept on a volume of {storage}"
        objects = (
            binding_secret(request, mark, entries),
            _service(request),
            _stateful_set(request, role, mark, storage),
        )
        why = f"The workload needs a postgres; this zone runs one beside it, and its data {kept}."
        return Binding(
            need=request.need.name,
            type=request.need.type,
            provider=request.capability.provider,
            secret=request.secret,
            fingerprint=mark,
            address=f"{host}:{_PORT}",
            objects=objects,
            explained=tuple(
                Explained(object=f"{obj['kind']}/{obj['metadata']['name']}", path="", why=why, by=request.by)
                for obj in objects
            ),
        )


def _service(request: Request) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": request.name, "labels": request.labels(request.name)},
        "spec": {
            "type": "ClusterIP",
            "selector": {"app.kubernetes.io/name": request.name},
            "ports": [{"name": "postgres", "port": _PORT, "targetPort": _PORT, "protocol": "TCP"}],
        },
    }


def _stateful_set(request: Request, role: str, mark: str, storage: str) -> dict[str, Any]:
    options = request.capability.options
    image = request.services.standard.get(str(options.get("image", "postgres")))
    ready = {"exec": {"command": ["pg_isready", "-h", "127.0.0.1", "-p", str(_PORT), "-U", role, "-d", role]}}
    # A process in the container costs the node a hundred times a connection: it is asked until the database is up.
    listens = {"tcpSocket": {"port": _PORT}}
    container = {
        "name": "postgres",
        "image": f"{IMAGE_HOST}/{image.repository}@{image.digest}",
        "imagePullPolicy": "IfNotPresent",
        "env": [
            {"name": "PGDATA", "value": "/var/lib/postgresql/data"},
            {"name": "POSTGRES_USER", "value": role},
            {"name": "POSTGRES_DB", "value": role},
            {"name": "POSTGRES_PASSWORD_FILE", "value": "/run/secrets/postgres/password"},
        ],
        "ports": [{"name": "postgres", "containerPort": _PORT, "protocol": "TCP"}],
        "startupProbe": {**ready, "periodSeconds": 1, "timeoutSeconds": 5, "failureThreshold": 300},
        "readinessProbe": {**listens, "periodSeconds": 5, "timeoutSeconds": 5, "failureThreshold": 3},
        "livenessProbe": {**listens, "periodSeconds": 20, "timeoutSeconds": 5, "failureThreshold": 6},
        "resources": options.get("resources", _DEFAULT_RESOURCES),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [
            # The server makes PGDATA inside, as its own user and with mode 0700; the volume's root is not its own.
            {"name": "data", "mountPath": "/var/lib/postgresql"},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108  a path in the container
            {"name": "credentials", "mountPath": "/run/secrets/postgres", "readOnly": True},
        ],
    }
    volumes: list[dict[str, Any]] = [
        {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}},
        {
            "name": "credentials",
            "secret": {
                "secretName": request.secret,
                "defaultMode": 0o440,
                "items": [{"key": "password", "path": "password"}],
            },
        },
    ]
    spec: dict[str, Any] = {
        "replicas": 1,
        "serviceName": request.name,
        "selector": {"matchLabels": {"app.kubernetes.io/name": request.name}},
        "template": {
            "metadata": {
                "labels": request.labels(request.name),
                "annotations": {f"{FINGERPRINT}.{request.need.name}": mark},
            },
            "spec": {
                "automountServiceAccountToken": False,
                "enableServiceLinks": False,
                "terminationGracePeriodSeconds": 30,
                "securityContext": {
                    "runAsNonRoot": True,
                    "runAsUser": _USER,
                    "runAsGroup": _USER,
                    "fsGroup": _USER,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [container],
                "volumes": volumes,
            },
        },
    }
    if storage == "ephemeral":
        volumes.insert(0, {"name": "data", "emptyDir": {"sizeLimit": "1Gi"}})
    else:
        claim: dict[str, Any] = {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": storage}},
        }
        if storage_class := options.get("storage_class"):
            claim["storageClassName"] = str(storage_class)
        spec["volumeClaimTemplates"] = [{"metadata": {"name": "data"}, "spec": claim}]
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": request.name, "labels": request.labels(request.name)},
        "spec": spec,
    }
