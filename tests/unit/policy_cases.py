"""Objects that each policy must pass or deny: for the evaluation here, and for a real API server (tests/e2e)."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

IMAGE = f"registry.sekisho.internal/standard/python@sha256:{'a' * 64}"
LABELS = {"app.kubernetes.io/name": "case", "app.kubernetes.io/managed-by": "sekisho"}
SECURITY = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True}
CONTAINER: dict[str, Any] = {
    "name": "web",
    "image": IMAGE,
    "readinessProbe": {"httpGet": {"path": "/", "port": 8080}},
    "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}},
    "securityContext": SECURITY,
}
POD: dict[str, Any] = {
    "automountServiceAccountToken": False,
    "securityContext": {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}},
    "containers": [CONTAINER],
}


@dataclass(frozen=True)
class Case:
    """One object, and the policies that deny it (their names without `sekisho-`); none: it passes."""

    name: str
    object: dict[str, Any]
    denied: frozenset[str] = field(default_factory=frozenset)


def merged(base: Any, change: Any) -> Any:
    """Return `base` with `change` merged in; None deletes, lists are replaced."""
    if not isinstance(base, dict) or not isinstance(change, dict):
        return copy.deepcopy(change)
    found = copy.deepcopy(base)
    for key, value in change.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = merged(found.get(key), value)
    return found


def pod(change: dict[str, Any] | None = None, container: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return a pod that passes, with changes."""
    spec = merged(POD, change or {})
    if container is not None:
        spec["containers"] = [merged(CONTAINER, container)]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "case", "labels": LABELS}, "spec": spec}


def deployment(
    change: dict[str, Any] | None = None,
    container: dict[str, Any] | None = None,
    *,
    kind: str = "Deployment",
    labels: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Return a Deployment or StatefulSet that passes, with changes to its pod."""
    spec: dict[str, Any] = {
        "selector": {"matchLabels": LABELS},
        "template": {"metadata": {"labels": LABELS}, "spec": pod(change, container)["spec"]},
    }
    if kind == "StatefulSet":
        spec["serviceName"] = "case"
    metadata = {"name": "case", "labels": LABELS if labels is None else labels}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": metadata, "spec": spec}


def job(change: dict[str, Any], *, cron: bool = False) -> dict[str, Any]:
    """Return a Job or CronJob with a changed pod."""
    spec = {"template": {"spec": merged(POD, {"restartPolicy": "Never"} | change)}}
    metadata = {"name": "case", "labels": LABELS}
    if cron:
        body = {"schedule": "0 0 * * *", "jobTemplate": {"spec": spec}}
        return {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": metadata, "spec": body}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


def service(spec: dict[str, Any], labels: dict[str, str] | None = None) -> dict[str, Any]:
    """Return a Service."""
    metadata = {"name": "case", "labels": LABELS | (labels or {})}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": [{"port": 80}]} | spec}


def rbac(kind: str, **body: Any) -> dict[str, Any]:
    """Return an RBAC object."""
    return {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": "case"}, **body}


def sidecar(**change: Any) -> dict[str, Any]:
    """Return a native sidecar as the outer loop adds it."""
    return merged(CONTAINER, {"name": "guard", "restartPolicy": "Always", "readinessProbe": None, **change})


def deny(name: str, obj: dict[str, Any], *policies: str) -> Case:
    """Return a case that must be denied by exactly these policies."""
    return Case(name, obj, frozenset(policies))


_PORT = {"containerPort": 80, "hostPort": 80}
_TOKEN = {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}

CASES = (
    Case("pod", pod()),
    Case("deployment", deployment()),
    Case("stateful set", deployment(kind="StatefulSet")),
    Case("job without probe", job({})),
    Case("cron job", job({}, cron=True)),
    Case("deployment with sidecar", deployment({"initContainers": [sidecar()]})),
    Case(
        "limits count as requests",
        pod(container={"resources": {"requests": None, "limits": {"cpu": "1", "memory": "64Mi"}}}),
    ),
    Case(
        "security per container",
        pod(
            {"securityContext": None},
            {"securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}},
        ),
    ),
    Case(
        "volumes",
        pod(
            {
                "volumes": [
                    {"name": "a", "emptyDir": {}},
                    {"name": "b", "configMap": {"name": "x"}},
                    {"name": "c", "secret": {"secretName": "x"}},
                    {"name": "d", "persistentVolumeClaim": {"claimName": "x"}},
                ]
            }
        ),
    ),
    Case("service", service({"type": "ClusterIP"})),
    Case("node port of the platform", service({"type": "NodePort"}, {"sekisho.dev/ingress": "platform"})),
    Case("small role", rbac("Role", rules=[{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}])),
    deny("tag", pod(container={"image": "registry.sekisho.internal/standard/python:3"}), "images-by-digest"),
    deny("foreign registry", pod(container={"image": f"docker.io/nginx@sha256:{'a' * 64}"}), "images-by-digest"),
    deny(
        "lookalike registry",
        pod(container={"image": f"registry.sekisho.internal.evil/x@sha256:{'a' * 64}"}),
        "images-by-digest",
    ),
    deny("init container by tag", deployment({"initContainers": [sidecar(image="guard:1")]}), "images-by-digest"),
    deny(
        "privileged",
        pod(container={"securityContext": {"privileged": True, "allowPrivilegeEscalation": None}}),
        "no-host-access",
        "no-privilege-escalation",
    ),
    deny("host network", pod({"hostNetwork": True}), "no-host-access"),
    deny("host pid", deployment({"hostPID": True}), "no-host-access"),
    deny("host ipc in a job", job({"hostIPC": True}), "no-host-access"),
    deny("host port", pod(container={"ports": [_PORT]}), "no-host-access"),
    deny(
        "probe to another host", pod(container={"readinessProbe": {"httpGet": {"host": "10.0.0.1"}}}), "no-host-access"
    ),
    deny("host path", pod({"volumes": [{"name": "h", "hostPath": {"path": "/"}}]}), "volumes"),
    deny(
        "nfs in a cron job",
        job({"volumes": [{"name": "h", "nfs": {"server": "x", "path": "/"}}]}, cron=True),
        "volumes",
    ),
    deny("root", pod({"securityContext": {"runAsNonRoot": None, "runAsUser": None}}), "run-as-non-root"),
    deny("user 0", pod({"securityContext": {"runAsUser": 0}}), "run-as-non-root"),
    deny(
        "root in a sidecar",
        deployment({"initContainers": [sidecar(securityContext={"runAsNonRoot": False})]}),
        "run-as-non-root",
    ),
    deny(
        "escalation", pod(container={"securityContext": {"allowPrivilegeEscalation": True}}), "no-privilege-escalation"
    ),
    deny(
        "escalation unset",
        pod(container={"securityContext": {"allowPrivilegeEscalation": None}}),
        "no-privilege-escalation",
    ),
    deny("capabilities kept", pod(container={"securityContext": {"capabilities": None}}), "no-privilege-escalation"),
    deny(
        "capability added",
        pod(container={"securityContext": {"capabilities": {"add": ["NET_ADMIN"]}}}),
        "no-privilege-escalation",
    ),
    deny("no seccomp", pod({"securityContext": {"seccompProfile": None}}), "seccomp"),
    deny("unconfined", pod(container={"securityContext": {"seccompProfile": {"type": "Unconfined"}}}), "seccomp"),
    deny("writable root", pod(container={"securityContext": {"readOnlyRootFilesystem": False}}), "read-only-root"),
    deny("no resources", deployment(container={"resources": None}), "resources"),
    deny("no memory limit", pod(container={"resources": {"limits": None}}), "resources"),
    deny("no cpu", pod(container={"resources": {"requests": {"cpu": None}}}), "resources"),
    deny("no readiness probe", deployment(container={"readinessProbe": None}), "readiness-probe"),
    deny(
        "no readiness probe in a stateful set",
        deployment(container={"readinessProbe": None}, kind="StatefulSet"),
        "readiness-probe",
    ),
    deny("token", pod({"automountServiceAccountToken": None}), "no-api-token"),
    deny("projected token", pod({"serviceAccountName": "default", "volumes": [_TOKEN]}), "no-api-token"),
    deny("no labels", deployment(labels={}), "required-labels"),
    deny(
        "somebody else's label", deployment(labels=LABELS | {"app.kubernetes.io/managed-by": "Helm"}), "required-labels"
    ),
    deny("load balancer", service({"type": "LoadBalancer"}), "services-stay-inside"),
    deny("external name", service({"type": "ExternalName", "externalName": "evil.org"}), "services-stay-inside"),
    deny("node port", service({"type": "NodePort"}), "services-stay-inside"),
    deny("external address", service({"externalIPs": ["203.0.113.9"]}), "services-stay-inside"),
    deny(
        "role over everything",
        rbac("Role", rules=[{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]),
        "no-rbac-escalation",
    ),
    deny(
        "role that escalates",
        rbac(
            "Role", rules=[{"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles"], "verbs": ["escalate"]}]
        ),
        "no-rbac-escalation",
    ),
    deny(
        "binding to a cluster role",
        rbac(
            "RoleBinding",
            roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
            subjects=[],
        ),
        "no-rbac-escalation",
    ),
)
