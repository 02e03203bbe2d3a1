"""agents: the security agents that run once a node, and the admission policies, put there when a zone starts.

Agents beside a workload are in `stages.harden`. These here live in a namespace of their own, as restricted as a
workload but for the one thing they need: reading which pods run on their node.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import yaml

from sekisho import zones
from sekisho.errors import Refusal
from sekisho.kube import Kube, Ref
from sekisho.profile import Agent, Profile
from sekisho.refs import apply_order
from stages.bind import Standard
from stages.harden.network import dns_rules, network_policy
from stages.harden.sidecars import reference

NAMESPACE = "sekisho-agents"
AGENT_PORT = 9480
_OPTIONS = {"interval_seconds", "registry", "api_server", "resources", "scrape_from"}
_USER = 10001
_RESOURCES = {"requests": {"cpu": "20m", "memory": "128Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}}
_MANAGED = {"app.kubernetes.io/managed-by": "sekisho"}
_KINDS = (
    ("apps/v1", "DaemonSet"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("v1", "ServiceAccount"),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"),
    ("rbac.authorization.k8s.io/v1", "ClusterRole"),
)
_POLICY_KINDS = {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}


def agent_objects(profile: Profile, standard: Standard, zone: str) -> tuple[dict[str, Any], ...]:
    """Return all objects of a zone's node agents, in order of apply; pure.

    Args:
        profile: the zone's profile.
        standard: the standard images in force.
        zone: the zone's name, told to the agents.

    Raises:
        Refusal: an agent's options are unknown or incomplete.
    """
    agents = [agent for agent in profile.agents if agent.kind == "daemonset"]
    if not agents:
        return ()
    objects: list[dict[str, Any]] = [_namespace(), network_policy("default-deny", {}, ingress=[], egress=[])]
    for agent in agents:
        registry = _registry(agent, profile, zone)
        objects += _account(agent)
        objects.append(_daemon_set(agent, reference(standard.get(agent.image)), zone, registry))
        objects.append(_network(agent, profile, zone, registry))
    for obj in objects:
        if obj["kind"] not in {"Namespace", "ClusterRole", "ClusterRoleBinding"}:
            obj["metadata"]["namespace"] = NAMESPACE
    return apply_order(objects)


def ensure_agents(kube: Kube, objects: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Apply the agents' objects, and delete what an earlier profile had; safe to run again.

    Returns:
        `Kind/name` of what was deleted.

    Raises:
        Refusal, TemporaryError, PermanentError: the cluster's.
    """
    for obj in objects:
        kube.apply(obj)
    wanted = {str(Ref.of(obj)) for obj in objects}
    gone = []
    selector = ",".join(f"{key}={value}" for key, value in _MANAGED.items())
    for api_version, kind in _KINDS:
        namespace = NAMESPACE if kube.namespaced(api_version, kind) else ""
        for obj in kube.list(api_version, kind, namespace, labels=f"{selector},sekisho.dev/agent"):
            ref = Ref.of(obj)
            if str(ref) not in wanted and kube.delete(ref, uid=obj["metadata"]["uid"]):
                gone.append(ref.short)
    return tuple(gone)


def load_policies(policies: Path) -> tuple[dict[str, Any], ...]:
    """Return the admission policies and bindings of `policies/admission/*.yaml`, policies before bindings.

    Raises:
        Refusal: unreadable, of another kind, or there is none at all: a zone without policies is not governed.
    """
    found: list[dict[str, Any]] = []
    for path in sorted((policies / "admission").glob("*.yaml")):
        try:
            documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise Refusal("The policy cannot be read.", where=str(path)) from error
        for document in documents:
            if document is None:
                continue
            if not isinstance(document, dict) or document.get("kind") not in _POLICY_KINDS:
                raise Refusal("This is not an admission policy.", where=str(path))
            found.append(document)
    if not found:
        raise Refusal("There are no admission policies.", where=str(policies / "admission"))
    return tuple(sorted(found, key=lambda obj: (str(obj["kind"]), str(Ref.of(obj)))))


def ensure_policies(kube: Kube, policies: Path) -> tuple[str, ...]:
    """Apply the admission policies server-side, and delete those of ours that are gone from the folder.

    Returns:
        `Kind/name` of what was deleted.

    Raises:
        Refusal, TemporaryError, PermanentError: as `load_policies`, and the cluster's.
    """
    objects = [_labelled(obj) for obj in load_policies(policies)]
    for obj in objects:
        kube.apply(obj)
    wanted = {str(Ref.of(obj)) for obj in objects}
    gone = []
    for api_version, kind in sorted({(obj["apiVersion"], obj["kind"]) for obj in objects}, reverse=True):
        for obj in kube.list(api_version, kind, labels="app.kubernetes.io/managed-by=sekisho"):
            ref = Ref.of(obj)
            if str(ref) not in wanted and kube.delete(ref, uid=obj["metadata"]["uid"]):
                gone.append(ref.short)
    return tuple(gone)


def _labelled(obj: dict[str, Any]) -> dict[str, Any]:
    metadata = obj["metadata"]
    return {**obj, "metadata": {**metadata, "labels": {**(metadata.get("labels") or {}), **_MANAGED}}}


def _registry(agent: Agent, profile: Profile, zone: str) -> str:
    if unknown := sorted(set(agent.options) - _OPTIONS):
        raise Refusal(f"Agent {agent.name} has unknown options: {', '.join(unknown)}.", where=f"agents/{agent.name}")
    if registry := agent.options.get("registry"):
        return str(registry)
    if profile.cluster is not None and profile.cluster.provider == "local":
        return f"{zones.address(zone)}:{zones.Port.REGISTRY}"
    raise Refusal(
        f"Agent {agent.name} does not know the zone's registry.",
        where=f"agents/{agent.name}",
        remedy="Set its option registry to host:port.",
    )


def _labels(agent: Agent) -> dict[str, str]:
    return {"app.kubernetes.io/name": agent.name, **_MANAGED, "sekisho.dev/agent": agent.name}


def _namespace() -> dict[str, Any]:
    levels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "audit", "warn")}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": {**levels, **_MANAGED}}}


def _account(agent: Agent) -> Iterable[dict[str, Any]]:
    name = f"sekisho-{agent.name}"
    yield {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": agent.name, "labels": _labels(agent)},
        "automountServiceAccountToken": False,
    }
    yield {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": name, "labels": _labels(agent)},
        "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}],
    }
    yield {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name, "labels": _labels(agent)},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": agent.name, "namespace": NAMESPACE}],
    }


def _daemon_set(agent: Agent, image: str, zone: str, registry: str) -> dict[str, Any]:
    labels = _labels(agent)
    probe = {"httpGet": {"path": "/healthz", "port": AGENT_PORT}, "timeoutSeconds": 5}
    container = {
        "name": agent.name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "env": [
            {"name": "INTERVAL", "value": str(int(agent.options.get("interval_seconds", 300)))},
            {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "spec.nodeName"}}},
            {"name": "REGISTRY", "value": registry},
            {"name": "TRIVY_DB_REPOSITORY", "value": f"{registry}/mirror/trivy-db:2"},
            {"name": "ZONE", "value": zone},
        ],
        "ports": [{"name": "report", "containerPort": AGENT_PORT, "protocol": "TCP"}],
        "readinessProbe": {**probe, "periodSeconds": 5},
        "livenessProbe": {**probe, "initialDelaySeconds": 60, "periodSeconds": 60, "failureThreshold": 5},
        "resources": agent.options.get("resources", _RESOURCES),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108  a path in the container
    }
    pod = {
        "serviceAccountName": agent.name,
        # The one pod of the line that talks to the Kubernetes API: it asks which pods run on its node.
        "automountServiceAccountToken": True,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "tolerations": [{"operator": "Exists"}],
        "containers": [container],
        # Room for the advisory database, twice while it is renewed, and for the layers of the image being scanned.
        "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "4Gi"}}],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": agent.name, "labels": labels},
        "spec": {
            "selector": {"matchLabels": {"sekisho.dev/agent": agent.name}},
            "template": {"metadata": {"labels": labels, "annotations": {"sekisho.dev/why": agent.why}}, "spec": pod},
        },
    }


def _network(agent: Agent, profile: Profile, zone: str, registry: str) -> dict[str, Any]:
    """Let the agent resolve names, pull from the zone's registry, ask the API server, and be read by the zone."""
    host, _, port = registry.rpartition(":")
    node = zones.address(zone) if profile.cluster is not None and profile.cluster.provider == "local" else ""
    egress: list[dict[str, Any]] = [
        *dns_rules(profile),
        {"to": [{"ipBlock": {"cidr": _single(host, agent)}}], "ports": [{"protocol": "TCP", "port": int(port)}]},
    ]
    api_server = str(agent.options.get("api_server", f"{node}:{zones.Port.APISERVER}" if node else ""))
    if api_server:
        host, _, port = api_server.rpartition(":")
        egress.append(
            {"to": [{"ipBlock": {"cidr": _single(host, agent)}}], "ports": [{"protocol": "TCP", "port": int(port)}]}
        )
    sources = agent.options.get("scrape_from") or ([f"{node}/32"] if node else [])
    ingress = [
        {
            "from": [{"ipBlock": {"cidr": str(source)}} for source in sources],
            "ports": [{"protocol": "TCP", "port": AGENT_PORT}],
        }
    ]
    policy = network_policy(
        agent.name, {"sekisho.dev/agent": agent.name}, ingress=ingress if sources else [], egress=egress
    )
    return {**policy, "metadata": {**policy["metadata"], "labels": _labels(agent)}}


def _single(host: str, agent: Agent) -> str:
    try:
        address = ip_address(host.strip("[]"))
    except ValueError as error:
        raise Refusal(
            f"Agent {agent.name} needs an IP address, not {host[:80]!r}: a network rule holds no names.",
            where=f"agents/{agent.name}",
        ) from error
    return f"{address}/{address.max_prefixlen}"
