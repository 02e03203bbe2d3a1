"""The zones, their addresses and ports, and who may open a connection to whom.

Pure data: the embedded provider turns it into namespaces and nftables rules, the tests try every closed arrow of it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Zone(StrEnum):
    """The zones with processes of the line or a cluster."""

    DEV = "dev"
    BUILD = "build"
    OPS = "ops"
    STAGING = "staging"
    PRODUCTION = "production"


class Network(StrEnum):
    """Every network of the embedded installation: the zones', and the two that people sit in.

    `CONSOLE` is the machine's own root namespace. It exists so that a browser on the laptop can show the dashboards
    and the workloads; a real installation has no such network.
    """

    CONSOLE = "console"
    DEVELOPER = "developer"
    INFRA = "infra"
    DEV = "dev"
    BUILD = "build"
    OPS = "ops"
    STAGING = "staging"
    PRODUCTION = "production"


ENGINE_ZONES = (Zone.BUILD, Zone.STAGING, Zone.PRODUCTION)
CLUSTER_ZONES = (Zone.DEV, Zone.BUILD, Zone.STAGING, Zone.PRODUCTION)
SANDBOX_ZONES = (Zone.DEV, Zone.BUILD)
"""Zones with a Docker engine of their own: what is built there runs in its containers."""

_SEGMENT = {
    Network.CONSOLE: 0,
    Network.DEVELOPER: 1,
    Network.INFRA: 2,
    Network.DEV: 10,
    Network.BUILD: 20,
    Network.OPS: 30,
    Network.STAGING: 40,
    Network.PRODUCTION: 50,
}


class Port:
    """Ports on a zone's node address."""

    APISERVER = 6443
    REGISTRY = 5000
    """Read-only face of the zone's registry; the writable one listens on the loopback address only."""
    REGISTRY_WRITE = 5001
    """Reached from outside in the dev zone alone: what developers build there is believed by nobody."""
    PREFECT = 4200
    ZONE_API = 8080
    GIT = 8081
    FEED = 8082
    OPS = 8090
    EGRESS_PROXY = 8888
    """On the console: the allow-listed way from the build zone to the package indexes."""
    POSTGRES = 5432
    NODE_PORTS = (30000, 32767)


def prefix() -> str:
    """Return the first two octets of every embedded address; SEKISHO_NETWORK=10.77 is the default."""
    return os.environ.get("SEKISHO_NETWORK", "10.77")


def address(network: Network | Zone | str, host: int = 10) -> str:
    """Return the address of a network's node (host 10) or of another host in it."""
    return f"{prefix()}.{_SEGMENT[Network(str(network))]}.{host}"


def gateway(network: Network | Zone | str) -> str:
    """Return the router's address in a network."""
    return address(network, 254)


def subnet(network: Network | Zone | str) -> str:
    """Return a network's /24."""
    return f"{address(network, 0)}/24"


def segment(network: Network | Zone | str) -> int:
    """Return a network's third octet; clusters derive their pod and service ranges from it."""
    return _SEGMENT[Network(str(network))]


EXTERNAL_DATABASE_HOST = 20
"""Host number, in production's network, of the PostgreSQL server outside the cluster."""


@dataclass(frozen=True)
class Arrow:
    """One permitted direction: `source` may open TCP connections to `target` on `ports`."""

    source: Network
    target: Network
    ports: tuple[int | tuple[int, int], ...]
    why: str


ARROWS = (
    Arrow(Network.DEVELOPER, Network.BUILD, (Port.GIT,), "push with own token"),
    Arrow(Network.DEVELOPER, Network.BUILD, (Port.REGISTRY,), "own images"),
    Arrow(Network.DEVELOPER, Network.BUILD, (Port.FEED,), "the page of their commits"),
    Arrow(Network.DEVELOPER, Network.DEV, (Port.APISERVER, Port.REGISTRY_WRITE, Port.NODE_PORTS), "`sekisho dev`"),
    Arrow(Network.DEV, Network.BUILD, (Port.GIT, Port.REGISTRY, Port.FEED), "push with own token, own images"),
    Arrow(Network.OPS, Network.BUILD, (Port.FEED,), "feed (pull), receipts (post)"),
    Arrow(Network.STAGING, Network.BUILD, (Port.REGISTRY, Port.FEED), "pull"),
    Arrow(Network.STAGING, Network.OPS, (Port.OPS,), "post receipts, fetch decisions"),
    Arrow(Network.PRODUCTION, Network.OPS, (Port.OPS,), "post receipts, fetch decisions"),
    Arrow(Network.PRODUCTION, Network.STAGING, (Port.REGISTRY, Port.FEED), "pull what staging verified"),
    Arrow(Network.INFRA, Network.OPS, (Port.OPS,), "the board and the mailbox"),
    Arrow(Network.BUILD, Network.CONSOLE, (Port.EGRESS_PROXY,), "package indexes, by an allow-list"),
    Arrow(Network.CONSOLE, Network.BUILD, (Port.GIT, Port.FEED, Port.PREFECT), "a laptop's browser"),
    Arrow(Network.CONSOLE, Network.OPS, (Port.OPS,), "a laptop's browser"),
    Arrow(Network.CONSOLE, Network.DEV, (Port.APISERVER, Port.REGISTRY_WRITE, Port.NODE_PORTS), "`sekisho dev`"),
    Arrow(Network.CONSOLE, Network.STAGING, (Port.PREFECT, Port.NODE_PORTS), "a laptop's browser"),
    Arrow(Network.CONSOLE, Network.PRODUCTION, (Port.PREFECT, Port.NODE_PORTS), "a laptop's browser"),
)


def home() -> Path:
    """Return the root of all embedded state; SEKISHO_HOME=/var/lib/sekisho is the default."""
    return Path(os.environ.get("SEKISHO_HOME", "/var/lib/sekisho"))


@dataclass(frozen=True)
class ZoneHome:
    """Where a zone keeps its things. Nothing of one zone is readable by the user of another."""

    zone: Zone

    @property
    def root(self) -> Path:
        """The zone's own directory."""
        return home() / "zones" / self.zone

    @property
    def user(self) -> str:
        """The operating system's user that the zone's processes run as."""
        return f"sekisho-{self.zone}"

    @property
    def kubeconfig(self) -> Path:
        """Kubeconfig of the zone's process (mode 0600)."""
        return self.root / "kubeconfig"

    @property
    def keys(self) -> Path:
        """Private role keys: builder.pem, scanner.pem, verifier.pem (build), zone.pem (all)."""
        return self.root / "keys"

    @property
    def trust(self) -> Path:
        """root.json (public keys by role) and allowed_signers (approvers)."""
        return self.root / "trust"

    @property
    def policies(self) -> Path:
        """The policies in force: the platform team's folder, with the standard images' digests."""
        return self.root / "policies"

    @property
    def profile(self) -> Path:
        """The zone's cluster profile."""
        return self.root / "profile.yaml"

    @property
    def secrets(self) -> Path:
        """Passwords of the zone's own services, one file each (mode 0600)."""
        return self.root / "secrets"

    @property
    def vault(self) -> Path:
        """Credentials of bound services."""
        return self.root / "vault"

    @property
    def state(self) -> Path:
        """The zone process's own durable state: queue, feed, deployment records."""
        return self.root / "state"

    @property
    def cache(self) -> Path:
        """What can be made again: wheels, layers, scanner database."""
        return self.root / "cache"

    @property
    def git(self) -> Path:
        """Bare repositories of the build zone, NAME.git."""
        return self.root / "git"

    @property
    def logs(self) -> Path:
        """Logs of the zone's processes."""
        return self.root / "logs"
