"""Where a zone's cluster keeps its things, and the certificates that it needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sekisho.embedded import firewall
from sekisho.embedded.pki import Authority, Leaf
from sekisho.zones import Port, Zone, ZoneHome, address

SERVICE_HOST = 1
"""Host number of the `kubernetes` Service in the zone's Service range; the API server gives itself the first."""
DNS_HOST = 10


@dataclass(frozen=True)
class ClusterHome:
    """Paths of one cluster; everything below is root's own."""

    zone: Zone

    @property
    def root(self) -> Path:
        """The cluster's folder (0700, root)."""
        return ZoneHome(self.zone).root / "cluster"

    @property
    def config(self) -> Path:
        """Configuration files of the components."""
        return self.root / "config"

    @property
    def authority(self) -> Authority:
        """The zone's certificate authority."""
        return Authority(self.root / "pki")

    @property
    def front_authority(self) -> Authority:
        """The authority of aggregated APIs; signs nobody."""
        return Authority(self.root / "pki" / "front")

    @property
    def etcd(self) -> Path:
        """Data of etcd."""
        return self.root / "etcd"

    @property
    def kubelet(self) -> Path:
        """The kubelet's root directory."""
        return self.root / "kubelet"

    @property
    def containerd_socket(self) -> Path:
        """The socket of containerd."""
        return self.root / "containerd.sock"

    @property
    def containerd_state(self) -> Path:
        """The state of containerd: what a restart of the machine may forget."""
        return self.root / "containerd-state"

    @property
    def node(self) -> str:
        """The name of the one node."""
        return f"{self.zone}-node"

    @property
    def server(self) -> str:
        """URL of the API server, as the zone's own processes reach it."""
        return f"https://{address(self.zone)}:{Port.APISERVER}"

    @property
    def admin_kubeconfig(self) -> Path:
        """Kubeconfig with all rights (root only)."""
        return self.config / "admin.kubeconfig"

    @property
    def cgroup(self) -> str:
        """The cgroup that the kubelet takes for the node's own."""
        return f"/sekisho/{self.zone}"

    @property
    def dns(self) -> Path:
        """Folder of CoreDNS, readable by the zone's user."""
        return ZoneHome(self.zone).root / "dns"

    def kubeconfig_of(self, component: str) -> Path:
        """Return the kubeconfig file of a component."""
        return self.config / f"{component}.kubeconfig"

    def leaves(self) -> tuple[Leaf, ...]:
        """Return every certificate of the cluster."""
        node = address(self.zone)
        here = ("127.0.0.1", "localhost")
        return (
            Leaf(
                "apiserver",
                "kube-apiserver",
                hosts=(
                    *here,
                    node,
                    firewall.service_address(self.zone, SERVICE_HOST),
                    "kubernetes",
                    "kubernetes.default",
                    "kubernetes.default.svc",
                    "kubernetes.default.svc.cluster.local",
                ),
            ),
            Leaf("etcd", "etcd", hosts=here),
            Leaf("etcd-client", "kube-apiserver-etcd"),
            Leaf("kubelet-client", "sekisho:kubelet-client", ("sekisho:kubelet-clients",)),
            Leaf("admin", "sekisho:admin", ("system:masters",)),
            Leaf("controller-manager", "system:kube-controller-manager"),
            Leaf("scheduler", "system:kube-scheduler"),
            Leaf("kubelet", f"system:node:{self.node}", ("system:nodes",), hosts=(self.node, node)),
            Leaf("kube-proxy", "system:kube-proxy"),
            Leaf("coredns", "sekisho:coredns"),
            Leaf("zone", f"sekisho:{self.zone}"),
        )
