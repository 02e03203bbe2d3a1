"""What `up` puts into a fresh cluster: DNS, and who may do what. Pure."""

from __future__ import annotations

from typing import Any

from sekisho import developers
from sekisho.embedded import firewall
from sekisho.embedded.cluster_home import DNS_HOST
from sekisho.zones import Zone, address

_READ = ["get", "list", "watch"]
_WRITE = [*_READ, "create", "update", "patch", "delete"]


def _rule(groups: list[str], resources: list[str], verbs: list[str]) -> dict[str, Any]:
    return {"apiGroups": groups, "resources": resources, "verbs": verbs}


def zone_rules() -> list[dict[str, Any]]:
    """Return what a zone's process may do in its cluster.

    It may grant agents no more than it holds itself: `escalate`, `bind` and `impersonate` are not among its verbs.
    """
    return [
        _rule(
            [""],
            ["namespaces", "services", "configmaps", "secrets", "serviceaccounts", "persistentvolumeclaims",
             "resourcequotas", "limitranges"],
            _WRITE,
        ),
        _rule([""], ["pods"], [*_READ, "delete", "create"]),
        _rule([""], ["pods/log"], ["get"]),
        _rule([""], ["nodes", "endpoints", "replicationcontrollers", "persistentvolumes"], _READ),
        _rule(["", "events.k8s.io"], ["events"], [*_READ, "create", "patch"]),
        _rule(["apps"], ["deployments", "daemonsets", "statefulsets"], _WRITE),
        _rule(["apps"], ["deployments/scale", "statefulsets/scale"], ["get", "update", "patch"]),
        _rule(["apps"], ["replicasets", "controllerrevisions"], _READ),
        _rule(["batch"], ["jobs", "cronjobs"], _WRITE),
        _rule(["networking.k8s.io"], ["networkpolicies", "ingresses"], _WRITE),
        _rule(["policy"], ["poddisruptionbudgets"], _WRITE),
        _rule(["autoscaling"], ["horizontalpodautoscalers"], _WRITE),
        _rule(["discovery.k8s.io"], ["endpointslices"], _READ),
        _rule(["coordination.k8s.io"], ["leases"], _WRITE),
        _rule(["rbac.authorization.k8s.io"], ["roles", "rolebindings", "clusterroles", "clusterrolebindings"], _WRITE),
        _rule(
            ["admissionregistration.k8s.io"],
            ["validatingadmissionpolicies", "validatingadmissionpolicybindings"],
            _WRITE,
        ),
        _rule(["apiextensions.k8s.io"], ["customresourcedefinitions"], _READ),
        _rule(["scheduling.k8s.io"], ["priorityclasses"], _READ),
        _rule(["storage.k8s.io"], ["storageclasses"], _READ),
    ]  # fmt: skip


def _cluster_role(name: str, rules: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": name},
        "rules": rules,
    }


def _binding(name: str, role: str, subject_kind: str, subject: str) -> dict[str, Any]:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": subject_kind, "name": subject}],
    }


def bootstrap_objects(zone: Zone) -> list[dict[str, Any]]:
    """Return the objects of a fresh cluster, in order of apply."""
    dns = _rule([""], ["endpoints", "services", "pods", "namespaces"], ["list", "watch"])
    slices = _rule(["discovery.k8s.io"], ["endpointslices"], ["list", "watch"])
    people = developers.cluster_objects() if zone is Zone.DEV else []
    return [
        *people,
        _cluster_role("sekisho:zone", zone_rules()),
        _binding("sekisho:zone", "sekisho:zone", "User", f"sekisho:{zone}"),
        # It holds the key that signs every service account's token: less would only look like less.
        _binding("sekisho:controller-manager", "cluster-admin", "User", "system:kube-controller-manager"),
        _binding("sekisho:kubelet-clients", "system:kubelet-api-admin", "Group", "sekisho:kubelet-clients"),
        _binding("sekisho:kube-proxy", "system:node-proxier", "User", "system:kube-proxy"),
        _cluster_role("sekisho:coredns", [dns, slices]),
        _binding("sekisho:coredns", "sekisho:coredns", "User", "sekisho:coredns"),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": {"k8s-app": "kube-dns"}},
            "spec": {
                "clusterIP": firewall.service_address(zone, DNS_HOST),
                "ports": [
                    {"name": "dns", "port": 53, "targetPort": firewall.DNS_PORT, "protocol": "UDP"},
                    {"name": "dns-tcp", "port": 53, "targetPort": firewall.DNS_PORT, "protocol": "TCP"},
                ],
            },
        },
        # CoreDNS is a process of the node and no pod, so nobody makes this slice but us.
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": "kube-dns-node",
                "namespace": "kube-system",
                "labels": {
                    "kubernetes.io/service-name": "kube-dns",
                    "endpointslice.kubernetes.io/managed-by": "sekisho",
                },
            },
            "addressType": "IPv4",
            "ports": [
                {"name": "dns", "port": firewall.DNS_PORT, "protocol": "UDP"},
                {"name": "dns-tcp", "port": firewall.DNS_PORT, "protocol": "TCP"},
            ],
            "endpoints": [{"addresses": [address(zone)], "conditions": {"ready": True}}],
        },
    ]
