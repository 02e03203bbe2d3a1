"""Network rules of an app's namespace: default deny, and beside it only what the manifests and bindings need."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_address, ip_network
from typing import Any

from sekisho import zones
from sekisho.errors import Refusal
from sekisho.model import Binding, Explained
from sekisho.profile import Profile

_DNS_PORT = 53
_NODE_DNS_PORT = 10053
"""Where the embedded clusters' resolver listens on its node, behind the Service kube-dns."""

Rule = tuple[dict[str, Any], Explained]


def network_policy(name: str, selector: Mapping[str, str], **rules: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a NetworkPolicy; `rules` are ingress and egress, and name the directions it governs."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/managed-by": "sekisho"}},
        "spec": {
            "podSelector": {"matchLabels": dict(selector)} if selector else {},
            "policyTypes": [direction.capitalize() for direction in sorted(rules, reverse=True)],
            **{direction: peers for direction, peers in rules.items() if peers},
        },
    }


def default_deny() -> Rule:
    """Return the rule that closes everything."""
    return _explained(
        network_policy("default-deny", {}, ingress=[], egress=[]),
        "Nothing talks to anything unless a rule beside this one names it.",
        "harden: default-deny",
    )


def allow_dns(profile: Profile) -> Rule:
    """Return the rule for name resolution, to the cluster's own resolver only."""
    return _explained(
        network_policy("allow-dns", {}, egress=dns_rules(profile)),
        "Names of Services must resolve; only the cluster's own resolver is allowed.",
        "harden: profile network/dns",
    )


def dns_rules(profile: Profile) -> list[dict[str, Any]]:
    """Return egress to the cluster's resolver: pods of kube-system, or in the embedded zones a process of the node.

    A NetworkPolicy sees a connection after the Service's address was translated, so the port is the resolver's own.
    """
    pods = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
        "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
    }
    rules = [{"to": [pods], "ports": _ports(_DNS_PORT)}]
    if profile.cluster is not None and profile.cluster.provider == "local":
        node = {"ipBlock": {"cidr": f"{zones.address(profile.zone)}/32"}}
        rules.insert(0, {"to": [node], "ports": _ports(_NODE_DNS_PORT)})
    return rules


def _ports(port: int) -> list[dict[str, Any]]:
    return [{"protocol": "UDP", "port": port}, {"protocol": "TCP", "port": port}]


def allow_ingress(name: str, selector: Mapping[str, str], ports: Iterable[int], profile: Profile, by: str) -> Rule:
    """Return the rule that lets the profile's networks reach a workload's ports."""
    for cidr in profile.network.ingress_from:
        try:
            ip_network(cidr)
        except ValueError as error:
            raise Refusal(
                f"{cidr[:60]!r} is not a network.", where=f"profile of {profile.zone}: /network/ingress_from"
            ) from error
    peers = [{"ipBlock": {"cidr": cidr}} for cidr in profile.network.ingress_from]
    rules = [{"from": peers, "ports": [{"protocol": "TCP", "port": port} for port in ports]}] if peers else []
    return _explained(
        network_policy(f"{name}-ingress", selector, ingress=rules),
        f"The networks {', '.join(profile.network.ingress_from) or '(none)'} may reach {by}.",
        "harden: profile network/ingress_from",
    )


def allow_binding(binding: Binding, app: str, selector: Mapping[str, str]) -> tuple[Rule, ...]:
    """Return the rules for one binding: out of the workload, and into a service that runs beside it.

    Args:
        binding: with its objects and its address.
        app: the app.
        selector: labels of the workload's pods.

    Raises:
        Refusal: the address is a name, which no NetworkPolicy can hold.
    """
    if not binding.address:
        return ()
    host, _, port_text = binding.address.rpartition(":")
    ports = [{"protocol": "TCP", "port": int(port_text)}]
    by = f"harden: binding {binding.need} ({binding.provider})"
    pods = next(
        (
            obj["spec"]["selector"]
            for obj in binding.objects
            if obj["kind"] == "Service" and host.startswith(f"{obj['metadata']['name']}.")
        ),
        None,
    )
    if pods is not None:
        out = network_policy(
            f"{app}-to-{binding.need}",
            selector,
            egress=[{"to": [{"podSelector": {"matchLabels": dict(pods)}}], "ports": ports}],
        )
        into = network_policy(
            f"{binding.need}-from-{app}",
            pods,
            ingress=[{"from": [{"podSelector": {"matchLabels": dict(selector)}}], "ports": ports}],
        )
        return (
            _explained(out, f"{app} reaches its {binding.type} and nothing else beside it.", by),
            _explained(into, f"Only {app} reaches this {binding.type}.", by),
        )
    try:
        single = ip_address(host.strip("[]"))
    except ValueError as error:
        raise Refusal(
            f"Need {binding.need!r} has the address {host[:100]!r}, and a network rule needs an IP address.",
            where=f"capability {binding.type}",
            remedy="Give the service's IP address in the profile.",
        ) from error
    out = network_policy(
        f"{app}-to-{binding.need}",
        selector,
        egress=[{"to": [{"ipBlock": {"cidr": f"{single}/{single.max_prefixlen}"}}], "ports": ports}],
    )
    return (_explained(out, f"{app} reaches its {binding.type} at {binding.address}.", by),)


def _explained(policy: dict[str, Any], why: str, by: str) -> Rule:
    return policy, Explained(object=f"NetworkPolicy/{policy['metadata']['name']}", path="", why=why, by=by)
