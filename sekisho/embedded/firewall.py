"""nftables rules, rendered from the table of arrows. Pure: text in the language of nft(8), nothing is applied here.

Two layers say the same thing: the router forwards only what an arrow permits, and every zone's own input filter takes
only what an arrow permits. Whoever breaks one of them still meets the other.
"""

from __future__ import annotations

from collections.abc import Iterable

from sekisho.zones import ARROWS, EXTERNAL_DATABASE_HOST, Arrow, Network, Port, address, prefix, segment

TABLE = "sekisho"
DNS_PORT = 10053
"""CoreDNS on the node address; not 53, so that it needs no capability."""


def interface(network: Network) -> str:
    """Return the name of the router's interface towards a network."""
    return f"sk-{network}"


def pod_range(network: Network | str) -> str:
    """Return the /24 of a zone's pods."""
    return f"{prefix()}.{segment(network) + 1}.0/24"


def service_range(network: Network | str) -> str:
    """Return the /24 of a zone's Services."""
    return f"{prefix()}.{segment(network) + 2}.0/24"


def service_address(network: Network | str, host: int) -> str:
    """Return one address of a zone's Service range."""
    return f"{prefix()}.{segment(network) + 2}.{host}"


def ports(arrow: Arrow) -> str:
    """Return an arrow's ports as an nft set."""
    parts = [f"{port[0]}-{port[1]}" if isinstance(port, tuple) else str(port) for port in arrow.ports]
    return "{ " + ", ".join(parts) + " }"


def router_rules(arrows: Iterable[Arrow] = ARROWS) -> str:
    """Return the router's rules: nothing is forwarded but what an arrow permits, node to node.

    What is refused is refused aloud (ICMP administratively prohibited, EHOSTUNREACH at the caller), so that a person
    sees at once that the network said no; a port without a listener says ECONNREFUSED instead.
    """
    lines = [
        f'iifname "{interface(arrow.source)}" oifname "{interface(arrow.target)}" ip saddr {address(arrow.source)} '
        f"ip daddr {address(arrow.target)} tcp dport {ports(arrow)} ct state new accept"
        for arrow in arrows
    ]
    return _table(
        [
            _chain(
                "forward",
                ["ct state invalid drop", "ct state established,related accept", *lines, _REJECT],
            ),
            # The router itself offers nothing to anybody.
            _chain("input", ["ct state established,related accept", "meta l4proto icmp accept", _REJECT]),
        ]
    )


def zone_rules(network: Network, arrows: Iterable[Arrow] = ARROWS) -> str:
    """Return the rules inside a network's own namespace: its input filter and what its pods may reach.

    Pods reach each other, the zone's API server, DNS, the read-only registry (agents scan from it) and, in production,
    the database server outside the cluster; nothing else of the node, and nothing outside the zone.
    """
    pods = pod_range(network)
    accepted = [
        f'iifname "eth0" ip saddr {address(arrow.source)} tcp dport {ports(arrow)} accept'
        for arrow in arrows
        if arrow.target is network
    ]
    from_pods = [
        f"ip saddr {pods} tcp dport {{ {Port.APISERVER}, {DNS_PORT}, {Port.REGISTRY} }} accept",
        f"ip saddr {pods} udp dport {DNS_PORT} accept",
    ]
    if network is Network.PRODUCTION:
        external = address(network, EXTERNAL_DATABASE_HOST)
        from_pods.append(f"ip saddr {pods} ip daddr {external} tcp dport {Port.POSTGRES} accept")
    return _table(
        [
            _chain(
                "input",
                [
                    'iifname "lo" accept',
                    "ct state established,related accept",
                    "meta l4proto icmp accept",
                    *accepted,
                    *from_pods,
                    _REJECT,
                ],
            ),
            _chain(
                "forward",
                [
                    "ct state established,related accept",
                    f"ip saddr {pods} ip daddr {pods} accept",
                    # A NodePort's packet has passed the router's filter and was then sent on to a pod by kube-proxy.
                    f'iifname "eth0" ip daddr {pods} ct status dnat accept',
                    _REJECT,
                ],
            ),
        ]
    )


_REJECT = "reject with icmpx type admin-prohibited"


def _chain(hook: str, rules: list[str]) -> str:
    # Before kube-proxy's own filter chains (priority 0): a refused packet costs no more than this.
    head = f"    type filter hook {hook} priority -10; policy drop;"
    return "\n".join([f"  chain {hook} {{", head, *(f"    {rule}" for rule in rules), "  }"])


def _table(chains: list[str]) -> str:
    # Declared, deleted and made again in one transaction: there is no moment without the rules.
    return "\n".join(
        [f"table inet {TABLE} {{}}", f"delete table inet {TABLE}", f"table inet {TABLE} {{", *chains, "}", ""]
    )
