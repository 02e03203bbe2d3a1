"""A zone's cluster: its files on disk and the commands of its components."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from sekisho.embedded import cluster_config, firewall
from sekisho.embedded.binaries import binary
from sekisho.embedded.cluster_home import ClusterHome
from sekisho.embedded.owners import Owner, ensure_folder, write_file
from sekisho.embedded.pki import ensure_signing_key
from sekisho.embedded.supervise import Check, Program
from sekisho.model import IMAGE_HOST
from sekisho.zones import Port, Zone, ZoneHome, address

GOVERNED = (Zone.STAGING, Zone.PRODUCTION)
"""Clusters with an audit log."""

_UNUSED_CONTROLLERS = (
    "certificatesigningrequest-approving-controller",
    "certificatesigningrequest-cleaner-controller",
    "certificatesigningrequest-signing-controller",
    "cloud-node-lifecycle-controller",
    "endpoints-controller",
    "endpointslice-mirroring-controller",
    "horizontal-pod-autoscaler-controller",
    "node-route-controller",
    "persistentvolume-attach-detach-controller",
    "persistentvolume-expander-controller",
    "service-lb-controller",
    "ttl-controller",
)
_LEAN = {"GOGC": "50"}
"""Go's collector runs twice as often: a few percent of CPU for a third of the memory."""


def write_cluster(zone: Zone) -> None:
    """Write certificates, kubeconfigs and configuration files of a zone's cluster; safe to call again."""
    home = ClusterHome(zone)
    root = Owner()
    zone_owner = Owner.of(ZoneHome(zone).user)
    for folder in (home.root, home.config, home.config / "cni", home.etcd, home.kubelet, home.root / "volume-plugins"):
        ensure_folder(folder, 0o700, root)
    # Containers' users pass through here to their own root file systems.
    ensure_folder(home.root, 0o711, root)
    home.authority.ensure(f"sekisho {zone}", home.leaves())
    # An authority that signs nobody: the components insist on one, and there is no aggregated API here.
    home.front_authority.ensure(f"sekisho {zone} front proxy", ())
    ensure_signing_key(home.authority.folder / "service-accounts.key")
    encryption = home.config / "encryption.json"
    if not encryption.exists():
        write_file(encryption, cluster_config.encryption(secrets.token_bytes(32)), 0o600, root)
    files = {
        "kubelet.json": cluster_config.kubelet(home),
        "kube-proxy.json": cluster_config.kube_proxy(home),
        "containerd.toml": cluster_config.containerd(home),
        "authentication.json": cluster_config.authentication(),
        "audit.json": cluster_config.audit_policy(),
        "cni/10-sekisho.conflist": cluster_config.cni(home),
        "resolv.conf": "",
        f"certs.d/{IMAGE_HOST}/hosts.toml": cluster_config.registry_hosts(home),
    }
    for name, text in files.items():
        ensure_folder((home.config / name).parent, 0o700, root)
        write_file(home.config / name, text, 0o600, root)
    for component in ("admin", "controller-manager", "scheduler", "kubelet", "kube-proxy"):
        write_file(home.kubeconfig_of(component), cluster_config.kubeconfig(home, component), 0o600, root)
    ensure_folder(home.dns, 0o700, zone_owner)
    write_file(home.dns / "Corefile", cluster_config.corefile(home), 0o600, zone_owner)
    write_file(home.dns / "kubeconfig", cluster_config.kubeconfig(home, "coredns"), 0o600, zone_owner)
    write_file(ZoneHome(zone).kubeconfig, cluster_config.kubeconfig(home, "zone"), 0o600, zone_owner)


def make_cgroups(home: ClusterHome) -> None:
    """Make the kubelet's cgroup, in every hierarchy of the machine."""
    for hierarchy in cgroup_hierarchies():
        folder = hierarchy
        for part in home.cgroup.strip("/").split("/"):
            folder = folder / part
            folder.mkdir(exist_ok=True)
            # A cpuset of cgroup v1 begins empty, and an empty one takes no process.
            for name in ("cpuset.cpus", "cpuset.mems"):
                own, parent = folder / name, folder.parent / name
                if hierarchy.name == "cpuset" and not own.read_text(encoding="ascii").strip():
                    own.write_text(parent.read_text(encoding="ascii"), encoding="ascii")


def cgroup_hierarchies() -> list[Path]:
    """Return the mount points of the cgroup hierarchies (one with v2, several with v1)."""
    found = []
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        _, point, kind, options, *_ = line.split()
        if kind in {"cgroup", "cgroup2"} and "ro" not in options.split(","):
            found.append(Path(point))
    return found


def programs(zone: Zone) -> tuple[Program, ...]:
    """Return the processes of a zone's cluster."""
    home = ClusterHome(zone)
    ready = Check("https", address(zone), Port.APISERVER, "/readyz")

    def program(name: str, argv: list[str], after: tuple[str, ...], check: Check | None, **more: object) -> Program:
        return Program(str(zone), name, tuple(argv), after=after, check=check, **{"environment": _LEAN, **more})  # type: ignore[arg-type]

    return (
        program("etcd", _etcd(home), (), Check("tcp", port=2379), environment=_etcd_environment()),
        program(
            "containerd",
            [binary("containerd"), "--config", str(home.config / "containerd.toml")],
            (),
            Check("socket", path=str(home.containerd_socket)),
            # Its shims, and with them the pods, outlive a restart of containerd; `down` ends them by itself.
            whole_group=False,
            # Root file systems and volumes are for containers' users, who are not root.
            umask="022",
        ),
        program("apiserver", _apiserver(home), ("etcd",), ready, stop_seconds=15),
        program(
            "controller-manager", _controller_manager(home), ("apiserver",), Check("https", port=10257, path="/healthz")
        ),
        program("scheduler", _scheduler(home), ("apiserver",), Check("https", port=10259, path="/healthz")),
        program(
            "kubelet",
            _kubelet(home),
            ("apiserver", "containerd", "pause-image"),
            Check("http", port=10248, path="/healthz"),
            whole_group=False,
            umask="022",
        ),
        program(
            "kube-proxy",
            [binary("kube-proxy"), f"--config={home.config / 'kube-proxy.json'}"],
            ("apiserver",),
            Check("http", port=10256, path="/livez"),
        ),
        program(
            "coredns",
            [binary("coredns"), "-conf", str(home.dns / "Corefile")],
            ("cluster-objects",),
            Check("http", port=8054, path="/ready"),
            user=ZoneHome(zone).user,
        ),
    )


def _etcd_environment() -> dict[str, str]:
    # etcd 3.4 wants to be told that it may run on arm64.
    return _LEAN | ({"ETCD_UNSUPPORTED_ARCH": "arm64"} if os.uname().machine == "aarch64" else {})


def _etcd(home: ClusterHome) -> list[str]:
    certificate, key = home.authority.path("etcd")
    authority = home.authority.certificate
    return [
        binary("etcd"),
        f"--name={home.node}",
        f"--data-dir={home.etcd / 'data'}",
        "--listen-client-urls=https://127.0.0.1:2379",
        "--advertise-client-urls=https://127.0.0.1:2379",
        "--listen-peer-urls=https://127.0.0.1:2380",
        "--initial-advertise-peer-urls=https://127.0.0.1:2380",
        f"--initial-cluster={home.node}=https://127.0.0.1:2380",
        f"--cert-file={certificate}",
        f"--key-file={key}",
        f"--trusted-ca-file={authority}",
        "--client-cert-auth",
        f"--peer-cert-file={certificate}",
        f"--peer-key-file={key}",
        f"--peer-trusted-ca-file={authority}",
        "--peer-client-cert-auth",
        "--snapshot-count=5000",
        "--auto-compaction-retention=1",
        f"--quota-backend-bytes={1 << 30}",
        "--log-level=warn",
        "--logger=zap",
        "--log-outputs=stderr",
    ]


def _apiserver(home: ClusterHome) -> list[str]:
    pki = home.authority
    accounts = pki.folder / "service-accounts.key"

    def pair(leaf: str, certificate_flag: str, key_flag: str) -> list[str]:
        certificate, key = pki.path(leaf)
        return [f"--{certificate_flag}={certificate}", f"--{key_flag}={key}"]

    argv = [
        binary("kube-apiserver"),
        f"--advertise-address={address(home.zone)}",
        "--bind-address=0.0.0.0",
        f"--secure-port={Port.APISERVER}",
        "--etcd-servers=https://127.0.0.1:2379",
        f"--etcd-cafile={pki.certificate}",
        *pair("etcd-client", "etcd-certfile", "etcd-keyfile"),
        *pair("apiserver", "tls-cert-file", "tls-private-key-file"),
        *pair("kubelet-client", "kubelet-client-certificate", "kubelet-client-key"),
        f"--kubelet-certificate-authority={pki.certificate}",
        "--kubelet-preferred-address-types=InternalIP",
        f"--client-ca-file={pki.certificate}",
        f"--service-cluster-ip-range={firewall.service_range(home.zone)}",
        f"--service-node-port-range={Port.NODE_PORTS[0]}-{Port.NODE_PORTS[1]}",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={accounts.with_suffix('.pub')}",
        f"--service-account-signing-key-file={accounts}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        f"--authentication-config={home.config / 'authentication.json'}",
        f"--encryption-provider-config={home.config / 'encryption.json'}",
        "--tls-min-version=VersionTLS12",
        "--allow-privileged=true",
        f"--requestheader-client-ca-file={home.front_authority.certificate}",
        "--requestheader-allowed-names=sekisho:no-one",
        # etcd 3.4 cannot answer progress requests, and the estimate then waits three seconds for each of them.
        "--feature-gates=SizeBasedListCostEstimate=false",
        "--profiling=false",
        "--event-ttl=1h",
        "--max-requests-inflight=100",
        "--max-mutating-requests-inflight=50",
        "--shutdown-send-retry-after=true",
    ]
    if home.zone in GOVERNED:
        argv += [
            f"--audit-policy-file={home.config / 'audit.json'}",
            f"--audit-log-path={home.root / 'audit' / 'audit.log'}",
            "--audit-log-maxsize=10",
            "--audit-log-maxbackup=1",
        ]
    return argv


def _controller_manager(home: ClusterHome) -> list[str]:
    config = home.kubeconfig_of("controller-manager")
    return [
        binary("kube-controller-manager"),
        f"--kubeconfig={config}",
        f"--authentication-kubeconfig={config}",
        f"--authorization-kubeconfig={config}",
        "--bind-address=127.0.0.1",
        "--leader-elect=false",
        f"--root-ca-file={home.authority.certificate}",
        f"--service-account-private-key-file={home.authority.folder / 'service-accounts.key'}",
        # The controllers act as this component and not as service accounts of kube-system: no pod can take their place.
        "--use-service-account-credentials=false",
        "--controllers=" + ",".join(["*", *(f"-{name}" for name in _UNUSED_CONTROLLERS)]),
        "--profiling=false",
    ]


def _scheduler(home: ClusterHome) -> list[str]:
    config = home.kubeconfig_of("scheduler")
    return [
        binary("kube-scheduler"),
        f"--kubeconfig={config}",
        f"--authentication-kubeconfig={config}",
        f"--authorization-kubeconfig={config}",
        "--bind-address=127.0.0.1",
        "--leader-elect=false",
        "--profiling=false",
    ]


def _kubelet(home: ClusterHome) -> list[str]:
    return [
        binary("kubelet"),
        f"--config={home.config / 'kubelet.json'}",
        f"--kubeconfig={home.kubeconfig_of('kubelet')}",
        f"--root-dir={home.kubelet}",
        f"--hostname-override={home.node}",
        f"--node-ip={address(home.zone)}",
        f"--node-labels=sekisho.dev/zone={home.zone}",
        "--v=1",
    ]


def limit_path_lengths(home: ClusterHome) -> int:
    """Return the length of the longest unix socket path of a cluster, in bytes."""
    return len(os.fsencode(home.containerd_socket)) + len(".ttrpc")
