"""The networks: a namespace for each, one router between them, nftables rules in all of them.

Of the machine's own network nothing is touched but one veth (`sk-console`) and one route to the embedded range.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable
from pathlib import Path

from sekisho.embedded import firewall, netns
from sekisho.errors import PermanentError
from sekisho.zones import EXTERNAL_DATABASE_HOST, Network, address, gateway, prefix

_CONSOLE_LINK = "sk-console"
_MARK = Path("/run/sekisho-network.json")
"""Says whose namespaces these are; lies in /run like the namespaces themselves, so a reboot forgets both."""


def embedded_range() -> str:
    """Return the /16 that holds every embedded address."""
    return f"{prefix()}.0.0/16"


def check_range_free() -> None:
    """Refuse to start when the machine already uses the embedded range for something else.

    Raises:
        PermanentError: another interface or route overlaps; names it.
    """
    mine = ipaddress.ip_network(embedded_range())
    for link, text in _machine_ranges():
        if link == _CONSOLE_LINK:
            continue
        theirs = ipaddress.ip_network(text, strict=False)
        if theirs.version == mine.version and theirs.prefixlen > 0 and mine.overlaps(theirs):
            raise PermanentError(
                f"The address range {mine} is in use on this machine: {link} has {theirs}.",
                where=link,
                remedy="Choose another: SEKISHO_NETWORK=10.99 sekisho up",
            )


def _machine_ranges() -> list[tuple[str, str]]:
    links = json.loads(netns.run(["ip", "-json", "-4", "address", "show"]).stdout or "[]")
    routes = json.loads(netns.run(["ip", "-json", "-4", "route", "show"]).stdout or "[]")
    found = [
        (str(link["ifname"]), f"{item['local']}/{item['prefixlen']}")
        for link in links
        for item in link.get("addr_info", [])
    ]
    return found + [
        (str(route["dev"]), str(route["dst"])) for route in routes if route.get("dst") != "default" and "dev" in route
    ]


def up_networks(owner: Path) -> None:
    """Make every network, or mend what is missing of it. Safe to call again at any time.

    Args:
        owner: the home of this installation, kept so that two installations do not share namespaces.

    Raises:
        PermanentError: not permitted, the range is taken, or the namespaces belong to another installation.
    """
    _check_owner(owner)
    check_range_free()
    try:
        _make(netns.ROUTER)
        netns.run(["ip", "-n", netns.ROUTER, "link", "set", "lo", "up"])
        # Filter first, forward after: no packet passes before there are rules.
        _apply(netns.ROUTER, firewall.router_rules())
        netns.call_in(netns.ROUTER, lambda: _sysctls(forward=True))
        for network in Network:
            _up_network(network)
    except PermanentError as error:
        raise PermanentError(
            f"The networks cannot be made: {error.what}",
            where=error.where,
            remedy="Network namespaces, veth pairs and nftables need root with CAP_NET_ADMIN and CAP_SYS_ADMIN; "
            "`sekisho doctor` says which of them this machine refuses.",
        ) from error


def _check_owner(owner: Path) -> None:
    mine = {"home": str(owner), "range": embedded_range()}
    if _MARK.exists() and netns.exists(netns.ROUTER):
        theirs = json.loads(_MARK.read_text(encoding="utf-8"))
        if theirs != mine:
            raise PermanentError(
                f"Another installation's zones run here: {theirs.get('home')} on {theirs.get('range')}.",
                where=str(_MARK),
                remedy=f"End them first: SEKISHO_HOME={theirs.get('home')} sekisho down",
            )
    _MARK.write_text(json.dumps(mine), encoding="utf-8")


def _make(name: str) -> None:
    if netns.exists(name):
        return
    path = netns.namespace_path(name)
    if path.exists():
        # Left by a process killed between the creation of the file and the mount.
        path.unlink()
    netns.run(["ip", "netns", "add", name])


def _up_network(network: Network) -> None:
    outside = firewall.interface(network)
    name = netns.namespace(network)
    inside = "eth0" if name else _CONSOLE_LINK
    if name:
        _make(name)
        _apply(name, firewall.zone_rules(network))
        netns.call_in(name, lambda: _sysctls(forward=True))
    links = {link["ifname"] for link in json.loads(netns.run(["ip", "-n", netns.ROUTER, "-json", "link"]).stdout)}
    if outside not in links:
        peer = [inside, "netns", name] if name else [inside]
        netns.run(
            ["ip", "link", "add", outside, "netns", netns.ROUTER, "type", "veth", "peer", "name", *peer], timeout=10
        )
    _batch(netns.ROUTER, [f"address replace {gateway(network)}/24 dev {outside}", f"link set {outside} up"])
    lines = [f"address replace {address(network)}/24 dev {inside}", f"link set {inside} up"]
    if name:
        lines += ["link set lo up", f"route replace default via {gateway(network)}"]
    else:
        lines.append(f"route replace {embedded_range()} via {gateway(network)} dev {inside}")
    if network is Network.PRODUCTION:
        lines.append(f"address replace {address(network, EXTERNAL_DATABASE_HOST)}/24 dev {inside}")
    _batch(name, lines)


def _batch(name: str, lines: Iterable[str]) -> None:
    where = ["-n", name] if name else []
    netns.run(["ip", *where, "-batch", "-"], stdin="\n".join(lines) + "\n", where=name or "console")


def _apply(name: str, rules: str) -> None:
    netns.run(
        ["nsenter", f"--net={netns.namespace_path(name)}", "--", "nft", "-f", "-"],
        stdin=rules,
        where=f"{name}: nftables",
    )


def _sysctls(*, forward: bool) -> None:
    """Set the sysctls of the namespace that the calling thread is in."""
    values = {
        "net/ipv4/ip_forward": "1" if forward else "0",
        "net/ipv6/conf/all/disable_ipv6": "1",
        "net/ipv6/conf/default/disable_ipv6": "1",
        # One refusal a second and caller is the default: the next caller would wait for a retry to be told no.
        "net/ipv4/icmp_ratelimit": "0",
        "net/ipv4/conf/all/send_redirects": "0",
        "net/ipv4/conf/all/accept_redirects": "0",
    }
    for key, value in values.items():
        path = Path("/proc/sys") / key
        if path.exists() and path.read_text(encoding="ascii").strip() != value:
            path.write_text(value, encoding="ascii")


def down_networks() -> None:
    """Remove every namespace, link and rule that `up_networks` made."""
    for name in [*(netns.namespace(network) for network in Network), netns.ROUTER]:
        remove_namespace(name)
    netns.run(["ip", "link", "delete", _CONSOLE_LINK], check=False)
    _MARK.unlink(missing_ok=True)


def remove_namespace(name: str) -> None:
    """Remove one named namespace; its links and rules go with it once no process is left in it."""
    if name and netns.namespace_path(name).exists():
        netns.run(["ip", "netns", "delete", name], check=False)
        netns.namespace_path(name).unlink(missing_ok=True)
