"""The configuration files of a zone's cluster, rendered. Pure: paths in, text out.

Formats: kubelet.config.k8s.io/v1beta1, kubeproxy.config.k8s.io/v1alpha1, apiserver.config.k8s.io/v1, audit.k8s.io/v1,
containerd's CRI configuration (version 2), the CNI network configuration list 1.0.0, and a Corefile.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from sekisho.embedded import firewall
from sekisho.embedded.cluster_home import DNS_HOST, ClusterHome
from sekisho.model import IMAGE_HOST
from sekisho.zones import Port, Zone, address

PAUSE_IMAGE = f"{IMAGE_HOST}/standard/pause:latest"
CNI_PLUGINS = "/usr/lib/cni"


def _json(value: dict[str, Any]) -> str:
    # JSON is YAML, and every component reads it.
    return json.dumps(value, indent=2) + "\n"


def kubelet(home: ClusterHome) -> str:
    """Return the kubelet's configuration."""
    certificate, key = home.authority.path("kubelet")
    return _json(
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": address(home.zone),
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(home.authority.certificate)},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": str(certificate),
            "tlsPrivateKeyFile": str(key),
            "healthzBindAddress": "127.0.0.1",
            "readOnlyPort": 0,
            "containerRuntimeEndpoint": f"unix://{home.containerd_socket}",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": home.cgroup,
            # A machine without systemd and with cgroup v1 is served too; the limits of containers hold all the same.
            "failCgroupV1": False,
            "cgroupsPerQOS": False,
            "enforceNodeAllocatable": [],
            "failSwapOn": False,
            "localStorageCapacityIsolation": False,
            "featureGates": {"KubeletInUserNamespace": True},
            "clusterDNS": [firewall.service_address(home.zone, DNS_HOST)],
            "clusterDomain": "cluster.local",
            # No resolver of the machine reaches a pod: names outside the cluster do not exist for it.
            "resolvConf": str(home.config / "resolv.conf"),
            "podLogsDir": str(home.root / "pod-logs"),
            "volumePluginDir": str(home.root / "volume-plugins"),
            "staticPodPath": "",
            "containerLogMaxSize": "5Mi",
            "containerLogMaxFiles": 2,
            "maxPods": 100,
            "serializeImagePulls": False,
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "512Mi", "imagefs.available": "512Mi"},
            "imageGCHighThresholdPercent": 98,
            "imageGCLowThresholdPercent": 97,
            # In the dev cluster each save is an image of its own; elsewhere an image that may be gone back to stays.
            "imageMaximumGCAge": "6h" if home.zone is Zone.DEV else "0s",
            "nodeStatusUpdateFrequency": "10s",
            "syncFrequency": "1m",
            "enableProfilingHandler": False,
            "enableDebugFlagsHandler": False,
            "protectKernelDefaults": False,
            "shutdownGracePeriod": "0s",
        }
    )


def kube_proxy(home: ClusterHome) -> str:
    """Return kube-proxy's configuration."""
    return _json(
        {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "nftables",
            "clientConnection": {"kubeconfig": str(home.kubeconfig_of("kube-proxy"))},
            "hostnameOverride": home.node,
            "clusterCIDR": firewall.pod_range(home.zone),
            "bindAddress": address(home.zone),
            "healthzBindAddress": "127.0.0.1:10256",
            "metricsBindAddress": "127.0.0.1:10249",
            "nodePortAddresses": [f"{address(home.zone)}/32"],
            # The conntrack table belongs to the machine; its size is not ours to set.
            "conntrack": {"maxPerCore": 0, "min": 0},
            "nftables": {"minSyncPeriod": "500ms", "syncPeriod": "1m"},
        }
    )


def containerd(home: ClusterHome) -> str:
    """Return containerd's configuration."""
    return f"""version = 2
root = {_toml(home.root / "containerd")}
state = {_toml(home.containerd_state)}
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing",
]

[grpc]
  address = {_toml(home.containerd_socket)}

[debug]
  level = "warn"

[plugins."io.containerd.internal.v1.opt"]
  path = {_toml(home.root / "containerd-opt")}

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  disable_hugetlb_controller = true
  tolerate_missing_hugetlb_controller = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{CNI_PLUGINS}"
    conf_dir = {_toml(home.config / "cni")}
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = {_toml(home.config / "certs.d")}
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
"""


def _toml(path: Path) -> str:
    return json.dumps(str(path))


def registry_hosts(home: ClusterHome) -> str:
    """Return containerd's hosts.toml: the zone-neutral image host is the zone's own registry, for reading only."""
    url = f"http://{address(home.zone)}:{Port.REGISTRY}"
    return f'server = "{url}"\n\n[host."{url}"]\n  capabilities = ["pull", "resolve"]\n'


def cni(home: ClusterHome) -> str:
    """Return the CNI configuration: a routed veth for each pod.

    Routed and not bridged, so that every packet between pods passes the zone's forward filter, and Services work
    between pods of one node without the br_netfilter module.
    """
    return _json(
        {
            "cniVersion": "1.0.0",
            "name": f"sekisho-{home.zone}",
            "plugins": [
                {
                    "type": "ptp",
                    "ipMasq": False,
                    "mtu": 1400,
                    "ipam": {
                        "type": "host-local",
                        "dataDir": str(home.root / "cni-addresses"),
                        "ranges": [[{"subnet": firewall.pod_range(home.zone)}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                    },
                },
                {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True},
            ],
        }
    )


def corefile(home: ClusterHome) -> str:
    """Return CoreDNS's configuration: the cluster's names and no others; nothing is forwarded out of the zone."""
    certificate_host = address(home.zone)
    return f""".:{firewall.DNS_PORT} {{
    bind {certificate_host}
    errors
    health 127.0.0.1:8053
    ready 127.0.0.1:8054
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {home.dns / "kubeconfig"}
        ttl 10
    }}
    cache 10
}}
"""


def audit_policy() -> str:
    """Return the audit policy of governed clusters: who did what, without bodies and without the components' noise."""
    quiet_users = ["system:kube-proxy", "system:kube-scheduler", "system:kube-controller-manager", "sekisho:coredns"]
    return _json(
        {
            "apiVersion": "audit.k8s.io/v1",
            "kind": "Policy",
            "omitStages": ["RequestReceived"],
            "rules": [
                {"level": "None", "users": quiet_users, "verbs": ["get", "list", "watch"]},
                {"level": "None", "userGroups": ["system:nodes"], "verbs": ["get", "list", "watch"]},
                {"level": "None", "resources": [{"group": "coordination.k8s.io", "resources": ["leases"]}]},
                {"level": "None", "resources": [{"group": "", "resources": ["events"]}]},
                {"level": "None", "nonResourceURLs": ["/healthz*", "/livez*", "/readyz*", "/version"]},
                {"level": "Metadata"},
            ],
        }
    )


def authentication() -> str:
    """Return the API server's authentication configuration: anonymous for the health endpoints and nothing else."""
    return _json(
        {
            "apiVersion": "apiserver.config.k8s.io/v1",
            "kind": "AuthenticationConfiguration",
            "anonymous": {
                "enabled": True,
                "conditions": [{"path": path} for path in ("/livez", "/readyz", "/healthz")],
            },
        }
    )


def encryption(secret: bytes) -> str:
    """Return the encryption of Secrets at rest.

    Args:
        secret: 32 random bytes.
    """
    return _json(
        {
            "apiVersion": "apiserver.config.k8s.io/v1",
            "kind": "EncryptionConfiguration",
            "resources": [
                {
                    "resources": ["secrets"],
                    "providers": [
                        {"secretbox": {"keys": [{"name": "first", "secret": base64.b64encode(secret).decode()}]}},
                        {"identity": {}},
                    ],
                }
            ],
        }
    )


def kubeconfig(home: ClusterHome, leaf: str) -> str:
    """Return a kubeconfig with everything inside it."""
    certificate, key = home.authority.path(leaf)
    return _json(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": str(home.zone),
                    "cluster": {
                        "server": home.server,
                        "certificate-authority-data": _base64(home.authority.certificate),
                    },
                }
            ],
            "users": [
                {
                    "name": leaf,
                    "user": {"client-certificate-data": _base64(certificate), "client-key-data": _base64(key)},
                }
            ],
            "contexts": [{"name": str(home.zone), "context": {"cluster": str(home.zone), "user": leaf}}],
            "current-context": str(home.zone),
        }
    )


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode("ascii")
