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


def named(kind: str, api: str = "v1", *, labels: dict[str, str] | None = None, **body: Any) -> dict[str, Any]:
    """Return an object of any kind with its fields."""
    metadata = {"name": "case", "labels": LABELS | (labels or {})} | body.pop("metadata", {})
    return {"apiVersion": api, "kind": kind, "metadata": metadata, **body}


def workload(
    kind: str, change: dict[str, Any] | None = None, container: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return a workload of any kind that passes, with changes to its pod."""
    template = {"metadata": {"labels": LABELS}, "spec": pod(change, container)["spec"]}
    match kind:
        case "Pod":
            return pod(change, container)
        case "Job" | "CronJob":
            return job(pod(change, container)["spec"], cron=kind == "CronJob")
        case "ReplicationController":
            return named(kind, spec={"selector": LABELS, "template": template})
        case _:
            spec = {"selector": {"matchLabels": LABELS}, "template": template}
            extra = {"serviceName": "case"} if kind == "StatefulSet" else {}
            return named(kind, "apps/v1", spec=spec | extra)


WORKLOADS = ("Pod", "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job", "CronJob")


def ingress(*, platform: bool = True, **spec: Any) -> dict[str, Any]:
    """Return an Ingress that passes, with changes."""
    backend = {"service": {"name": "case", "port": {"number": 80}}}
    rule = {"host": "shop.example", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}
    labels = {"sekisho.dev/ingress": "platform"} if platform else {}
    body = {"rules": [rule], "tls": [{"hosts": ["shop.example"], "secretName": "tls"}]}
    return named("Ingress", "networking.k8s.io/v1", labels=labels, spec=merged(body, spec))


def network(**spec: Any) -> dict[str, Any]:
    """Return a NetworkPolicy."""
    return named("NetworkPolicy", "networking.k8s.io/v1", spec={"podSelector": {}} | spec)


def block(cidr: str) -> list[dict[str, Any]]:
    """Return the peers of one network."""
    return [{"ipBlock": {"cidr": cidr}}]


def claim(storage: Any = "1Gi", **spec: Any) -> dict[str, Any]:
    """Return the spec of a claim for storage."""
    return {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": storage}}} | spec


def slices(*addresses: str, type_: str = "IPv4") -> dict[str, Any]:
    """Return an EndpointSlice with addresses."""
    endpoints = [{"addresses": list(addresses)}] if addresses else []
    return named("EndpointSlice", "discovery.k8s.io/v1", addressType=type_, endpoints=endpoints, ports=[{"port": 80}])


def deny(name: str, obj: dict[str, Any], *policies: str) -> Case:
    """Return a case that must be denied by exactly these policies."""
    return Case(name, obj, frozenset(policies))


_KEY = "-----BEGIN RSA PRIVATE KEY-----\nMIIE"
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

# -- what each kind of workload may and may not have ------------------------------------------------------------------

_LIVE = {"httpGet": {"path": "/", "port": 8080}}
_STORED = {"volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": claim()}]}

PASSING: tuple[tuple[str, dict[str, Any], dict[str, Any]], ...] = (
    ("as it is", {}, {}),
    ("localhost filter", {"securityContext": {"seccompProfile": {"type": "Localhost", "localhostProfile": "p"}}}, {}),
    ("a port below 1024", {}, {"securityContext": {"capabilities": {"add": ["NET_BIND_SERVICE"]}}}),
    ("a deeper path", {}, {"image": f"registry.sekisho.internal/a/b/c-d/e@sha256:{'0' * 64}"}),
    ("an own SELinux type", {"securityContext": {"seLinuxOptions": {"type": "container_t", "level": "s0:c1,c2"}}}, {}),
    ("AppArmor", {}, {"securityContext": {"appArmorProfile": {"type": "RuntimeDefault"}}}),
    ("exactly the cap", {}, {"resources": {"limits": {"memory": "8Gi", "cpu": "4000m"}}}),
    ("memory in bytes", {}, {"resources": {"limits": {"memory": "8589934592"}}}),
    ("memory with a fraction", {}, {"resources": {"limits": {"memory": "7.5Gi"}, "requests": {"memory": "0.5Gi"}}}),
    (
        "a small volume in memory",
        {"volumes": [{"name": "m", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}}]},
        {},
    ),
    ("name service options", {"dnsConfig": {"options": [{"name": "ndots", "value": "2"}]}}, {}),
    ("pulled always", {}, {"imagePullPolicy": "Always"}),
    ("a patient liveness probe", {}, {"livenessProbe": _LIVE | {"periodSeconds": 20, "timeoutSeconds": 20}}),
    ("a toleration of its own", {"tolerations": [{"key": "gpu", "operator": "Exists"}]}, {}),
    ("a value that only looks like a key", {}, {"env": [{"name": "A", "value": "AKIA-not-a-key"}]}),
    ("a secret by reference", {}, {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "x", "key": "y"}}}]}),
    ("another user", {}, {"securityContext": {"runAsUser": 65532}}),
    (
        "a projected config map",
        {"volumes": [{"name": "p", "projected": {"sources": [{"configMap": {"name": "x"}}]}}]},
        {},
    ),
)
"""Name, change of the pod, change of its container."""

DENIED: tuple[tuple[str, dict[str, Any], dict[str, Any], tuple[str, ...]], ...] = (
    ("latest", {}, {"image": "registry.sekisho.internal/standard/python:latest"}, ("images-by-digest",)),
    ("tag and digest", {}, {"image": f"registry.sekisho.internal/a:1@sha256:{'a' * 64}"}, ("images-by-digest",)),
    ("upper case digest", {}, {"image": f"registry.sekisho.internal/a@sha256:{'A' * 64}"}, ("images-by-digest",)),
    ("no registry", {}, {"image": f"python@sha256:{'a' * 64}"}, ("images-by-digest",)),
    ("process masks", {"hostUsers": False}, {"securityContext": {"procMount": "Unmasked"}}, ("no-host-access",)),
    (
        "sysctl",
        {"securityContext": {"sysctls": [{"name": "kernel.shm_rmid_forced", "value": "0"}]}},
        {},
        ("no-host-access",),
    ),
    (
        "hook to another host",
        {},
        {"lifecycle": {"preStop": {"httpGet": {"host": "10.0.0.1", "port": 80}}}},
        ("no-host-access",),
    ),
    ("empty host path", {"volumes": [{"name": "h", "hostPath": {"path": "/var/run"}}]}, {}, ("volumes",)),
    ("csi volume", {"volumes": [{"name": "c", "csi": {"driver": "x.example"}}]}, {}, ("volumes",)),
    ("container takes root back", {}, {"securityContext": {"runAsNonRoot": False}}, ("run-as-non-root",)),
    ("container is user 0", {}, {"securityContext": {"runAsNonRoot": True, "runAsUser": 0}}, ("run-as-non-root",)),
    (
        "only some dropped",
        {},
        {"securityContext": {"capabilities": {"drop": ["NET_RAW"]}}},
        ("no-privilege-escalation",),
    ),
    (
        "ALL in small letters",
        {},
        {"securityContext": {"capabilities": {"drop": ["all"]}}},
        ("no-privilege-escalation",),
    ),
    ("pod unconfined", {"securityContext": {"seccompProfile": {"type": "Unconfined"}}}, {}, ("seccomp",)),
    ("read only unset", {}, {"securityContext": {"readOnlyRootFilesystem": None}}, ("read-only-root",)),
    (
        "cpu only",
        {},
        {"resources": {"requests": {"cpu": "1", "memory": None}, "limits": {"cpu": "1", "memory": None}}},
        ("resources",),
    ),
    ("token wanted", {"automountServiceAccountToken": True}, {}, ("no-api-token",)),
    ("SELinux type of the node", {"securityContext": {"seLinuxOptions": {"type": "spc_t"}}}, {}, ("confined",)),
    ("SELinux user", {}, {"securityContext": {"seLinuxOptions": {"user": "system_u"}}}, ("confined",)),
    ("AppArmor off", {"securityContext": {"appArmorProfile": {"type": "Unconfined"}}}, {}, ("confined",)),
    (
        "AppArmor off in a container",
        {},
        {"securityContext": {"appArmorProfile": {"type": "Unconfined"}}},
        ("confined",),
    ),
    ("shared processes", {"shareProcessNamespace": True}, {}, ("confined",)),
    ("80Gi", {}, {"resources": {"limits": {"memory": "80Gi"}}}, ("resource-caps",)),
    ("a byte above the cap", {}, {"resources": {"limits": {"memory": "8589934593"}}}, ("resource-caps",)),
    ("a milli above the cap", {}, {"resources": {"limits": {"cpu": "4001m"}}}, ("resource-caps",)),
    (
        "a gigabyte above in decimal",
        {},
        {"resources": {"limits": {"memory": "9e9"}, "requests": {"memory": "9G"}}},
        ("resource-caps",),
    ),
    ("volume in memory", {"volumes": [{"name": "m", "emptyDir": {"medium": "Memory"}}]}, {}, ("resource-caps",)),
    (
        "large volume in memory",
        {"volumes": [{"name": "m", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}}]},
        {},
        ("resource-caps",),
    ),
    ("host entries", {"hostAliases": [{"ip": "10.0.0.1", "hostnames": ["db"]}]}, {}, ("own-names",)),
    ("own name server", {"dnsPolicy": "None", "dnsConfig": {"nameservers": ["8.8.8.8"]}}, {}, ("own-names",)),
    ("name server beside the cluster's", {"dnsConfig": {"nameservers": ["8.8.8.8"]}}, {}, ("own-names",)),
    ("the node's names", {"dnsPolicy": "Default"}, {}, ("own-names",)),
    ("never pulled", {}, {"imagePullPolicy": "Never"}, ("image-pull",)),
    ("own pull secret", {"imagePullSecrets": [{"name": "hub"}]}, {}, ("image-pull",)),
    (
        "hasty liveness",
        {},
        {"livenessProbe": _LIVE | {"periodSeconds": 1, "failureThreshold": 3}},
        ("liveness-timing",),
    ),
    ("late liveness", {}, {"livenessProbe": _LIVE | {"periodSeconds": 5, "timeoutSeconds": 6}}, ("liveness-timing",)),
    ("names its node", {"nodeName": "n1"}, {}, ("placement",)),
    ("own scheduler", {"schedulerName": "mine"}, {}, ("placement",)),
    ("tolerates everything", {"tolerations": [{"operator": "Exists"}]}, {}, ("placement",)),
    (
        "tolerates the control plane",
        {"tolerations": [{"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"}]},
        {},
        ("placement",),
    ),
    ("private key in a variable", {}, {"env": [{"name": "KEY", "value": _KEY}]}, ("no-secrets-in-the-clear",)),
    ("cloud key in an argument", {}, {"args": ["--key=AKIA" + "A1B2C3D4E5F6G7H8"]}, ("no-secrets-in-the-clear",)),
    ("git token in a command", {}, {"command": ["x", "ghp_" + "a" * 36]}, ("no-secrets-in-the-clear",)),
)
"""Name, change of the pod, change of its container, and the policies that deny it."""


def _spread() -> tuple[Case, ...]:
    """Each change in a pod, and in another kind in turn, so that every kind meets many of them."""
    found = []
    others = WORKLOADS[1:]
    for number, (name, change, container) in enumerate(PASSING):
        kinds = WORKLOADS if number == 0 else ("Pod", others[number % len(others)])
        found += [Case(f"{name} in a {kind}", workload(kind, change, container)) for kind in kinds]
    for number, (name, change, container, policies) in enumerate(DENIED):
        for kind in ("Pod", others[number % len(others)]):
            found.append(deny(f"{name} in a {kind}", workload(kind, change, container), *policies))
    return tuple(found)


CASES += _spread()
CASES += (
    # -- objects of the network -----------------------------------------------------------------------------------
    Case("ingress of the platform", ingress()),
    Case("ingress with an annotation", merged(ingress(), {"metadata": {"annotations": {"example.com/a": "b"}}})),
    Case("ingress of a class", ingress(ingressClassName="inner")),
    deny("ingress of a workload", ingress(platform=False), "ingress"),
    deny("ingress for every name", ingress(rules=[{"http": ingress()["spec"]["rules"][0]["http"]}]), "ingress"),
    deny(
        "ingress for a wildcard",
        ingress(rules=[{"host": "*.shop.example"}], tls=[{"hosts": ["*.shop.example"]}]),
        "ingress",
    ),
    deny("ingress without TLS", ingress(tls=None), "ingress"),
    deny("ingress with another's TLS", ingress(tls=[{"hosts": ["other.example"]}]), "ingress"),
    deny(
        "ingress for all that is left",
        ingress(defaultBackend={"service": {"name": "x", "port": {"number": 80}}}),
        "ingress",
    ),
    deny(
        "ingress with a snippet",
        merged(ingress(), {"metadata": {"annotations": {"nginx.ingress.kubernetes.io/configuration-snippet": "x"}}}),
        "ingress",
    ),
    Case("network closed", network(policyTypes=["Ingress", "Egress"])),
    Case("network to a pod", network(egress=[{"to": [{"podSelector": {"matchLabels": LABELS}}]}])),
    Case("network to a private net", network(egress=[{"to": block("10.77.0.0/16")}])),
    Case("network to one address", network(egress=[{"to": block("203.0.113.9/32")}])),
    Case("network to one address of IPv6", network(egress=[{"to": block("2001:db8::1/128")}])),
    Case("network from customers", network(ingress=[{"from": block("0.0.0.0/0")}])),
    deny("network to everywhere", network(egress=[{}]), "network-rules"),
    deny("network from everywhere", network(ingress=[{"ports": [{"port": 80}]}]), "network-rules"),
    deny("network to the world", network(egress=[{"to": block("0.0.0.0/0")}]), "network-rules"),
    deny("network to the world in two halves", network(egress=[{"to": block("128.0.0.0/1")}]), "network-rules"),
    deny("network to the world of IPv6", network(egress=[{"to": block("::/0")}]), "network-rules"),
    deny("network to the provider", network(egress=[{"to": block("169.254.169.254/32")}]), "network-rules"),
    deny("network to all link-local", network(egress=[{"to": block("169.254.0.0/16")}]), "network-rules"),
    Case("endpoints of a pod", slices("10.77.41.7")),
    Case("endpoints of nobody yet", slices()),
    Case("endpoints of IPv6", slices("fd00::7", type_="IPv6")),
    Case("old endpoints", named("Endpoints", subsets=[{"addresses": [{"ip": "10.77.41.7"}], "ports": [{"port": 80}]}])),
    deny("endpoints by name", slices("evil.example", type_="FQDN"), "endpoints"),
    Case("budget of one", named("PodDisruptionBudget", "policy/v1", spec={"maxUnavailable": 1})),
    Case("budget in percent", named("PodDisruptionBudget", "policy/v1", spec={"minAvailable": "50%"})),
    Case("budget left out", named("PodDisruptionBudget", "policy/v1", spec={"selector": {"matchLabels": LABELS}})),
    deny("budget of none", named("PodDisruptionBudget", "policy/v1", spec={"maxUnavailable": 0}), "disruption-budgets"),
    deny(
        "budget of no percent",
        named("PodDisruptionBudget", "policy/v1", spec={"maxUnavailable": "0%"}),
        "disruption-budgets",
    ),
    deny(
        "budget of all", named("PodDisruptionBudget", "policy/v1", spec={"minAvailable": "100%"}), "disruption-budgets"
    ),
    Case(
        "node port of the platform, labelled",
        service({"type": "NodePort"}, {"sekisho.dev/ingress": "platform", "a": "b"}),
    ),
    Case("headless service", service({"clusterIP": "None"})),
    deny(
        "node port with another label",
        service({"type": "NodePort"}, {"sekisho.dev/ingress": "mine"}),
        "services-stay-inside",
    ),
    deny(
        "load balancer of the platform",
        service({"type": "LoadBalancer"}, {"sekisho.dev/ingress": "platform"}),
        "services-stay-inside",
    ),
    # -- accounts, rights, storage, settings ------------------------------------------------------------------------
    Case("account without token", named("ServiceAccount", automountServiceAccountToken=False)),
    Case("the cluster's own account", named("ServiceAccount", metadata={"name": "default"})),
    Case("account of a team", named("ServiceAccount", automountServiceAccountToken=False, labels={"team": "blue"})),
    deny("account with a token", named("ServiceAccount"), "service-accounts"),
    deny("account that wants a token", named("ServiceAccount", automountServiceAccountToken=True), "service-accounts"),
    deny(
        "account that pulls",
        named("ServiceAccount", automountServiceAccountToken=False, imagePullSecrets=[{"name": "hub"}]),
        "service-accounts",
    ),
    Case(
        "role that reads a lease",
        rbac(
            "Role", rules=[{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "update"]}]
        ),
    ),
    Case("empty role", rbac("Role")),
    *(
        deny(
            f"role with {what}",
            rbac("Role", rules=[{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]} | rule]),
            "no-rbac-escalation",
        )
        for what, rule in {
            "all verbs": {"verbs": ["*"]},
            "all resources": {"resources": ["*"]},
            "all groups": {"apiGroups": ["*"]},
            "secrets": {"resources": ["configmaps", "secrets"]},
            "a shell": {"resources": ["pods/exec"], "verbs": ["create"]},
            "tokens": {"resources": ["serviceaccounts/token"], "verbs": ["create"]},
            "somebody else's name": {"resources": ["users"], "verbs": ["impersonate"]},
        }.items()
    ),
    deny(
        "binding to a person",
        rbac(
            "RoleBinding",
            roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
            subjects=[{"kind": "User", "name": "eve", "apiGroup": "rbac.authorization.k8s.io"}],
        ),
        "no-rbac-escalation",
    ),
    deny(
        "binding to another namespace",
        rbac(
            "RoleBinding",
            roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
            subjects=[{"kind": "ServiceAccount", "name": "x", "namespace": "kube-system"}],
        ),
        "no-rbac-escalation",
    ),
    Case("claim", named("PersistentVolumeClaim", spec=claim())),
    Case("claim of the largest size", named("PersistentVolumeClaim", spec=claim("1024Gi"))),
    Case("stateful set with storage", merged(workload("StatefulSet"), {"spec": _STORED})),
    deny("claim of a volume", named("PersistentVolumeClaim", spec=claim(volumeName="pv1")), "storage"),
    deny(
        "copied claim",
        named("PersistentVolumeClaim", spec=claim(dataSource={"kind": "PersistentVolumeClaim", "name": "x"})),
        "storage",
    ),
    deny("endless claim", named("PersistentVolumeClaim", spec=claim("1Pi")), "storage"),
    deny("claim a little too large", named("PersistentVolumeClaim", spec=claim("1.01Ti")), "storage"),
    deny("shared claim", named("PersistentVolumeClaim", spec=claim(accessModes=["ReadWriteMany"])), "storage"),
    deny(
        "stateful set with endless storage",
        merged(
            workload("StatefulSet"),
            {"spec": {"volumeClaimTemplates": [{"metadata": {"name": "d"}, "spec": claim("2Ti")}]}},
        ),
        "storage",
    ),
    Case("settings", named("ConfigMap", data={"a": "b", "key.pub": "-----BEGIN PUBLIC KEY-----"})),
    Case("empty settings", named("ConfigMap")),
    deny("settings with a private key", named("ConfigMap", data={"tls.key": _KEY}), "no-secrets-in-the-clear"),
    deny(
        "settings with a new private key",
        named("ConfigMap", data={"a": "x", "k": "-----BEGIN PRIVATE KEY-----"}),
        "no-secrets-in-the-clear",
    ),
    deny(
        "settings with two secrets",
        named("ConfigMap", data={"z": _KEY, "b": "token=ghp_" + "A" * 36}),
        "no-secrets-in-the-clear",
    ),
    deny("a hundred and one copies", merged(workload("Deployment"), {"spec": {"replicas": 101}}), "resource-caps"),
    Case("a hundred copies", merged(workload("StatefulSet"), {"spec": {"replicas": 100}})),
    *(
        deny(f"nobody's {kind}", merged(workload(kind), {"metadata": {"labels": None}}), "required-labels")
        for kind in ("StatefulSet", "DaemonSet", "CronJob")
    ),
    deny(
        "nobody's service",
        merged(service({}), {"metadata": {"labels": {"app.kubernetes.io/name": None}}}),
        "required-labels",
    ),
    *(
        deny(f"{name} in a sidecar", deployment({"initContainers": [sidecar(**change)]}), *policies)
        for name, change, policies in (
            (
                "privileged",
                {"securityContext": {"privileged": True, "allowPrivilegeEscalation": None}},
                ("no-host-access", "no-privilege-escalation"),
            ),
            ("writable root", {"securityContext": {"readOnlyRootFilesystem": False}}, ("read-only-root",)),
            ("no resources", {"resources": None}, ("resources",)),
            ("never pulled", {"imagePullPolicy": "Never"}, ("image-pull",)),
            ("too much memory", {"resources": {"limits": {"memory": "9Gi"}}}, ("resource-caps",)),
            ("unconfined", {"securityContext": {"seccompProfile": {"type": "Unconfined"}}}, ("seccomp",)),
        )
    ),
)
