"""What this machine can and cannot do for the embedded zones, each with its remedy. Changes nothing."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from sekisho.embedded import netns, network, runtime, supervise
from sekisho.embedded.cluster_home import ClusterHome
from sekisho.embedded.kubernetes import cgroup_hierarchies, limit_path_lengths
from sekisho.errors import SekishoError
from sekisho.model import Document
from sekisho.package_indexes import index_hosts, read_roots
from sekisho.tools import report as tools_report
from sekisho.zones import CLUSTER_ZONES, Network, Port, address, home

_MEMORY_FOR_ALL = 5 << 30
_DISK_WANTED = 10 << 30
_DISK_NEEDED = 2 << 30
_SOCKET_LIMIT = 107
_DOWNLOADS = ("dl.k8s.io", 443)
_CAP_SYS_RESOURCE = 24


class Finding(Document):
    """One check's word."""

    check: str
    result: Literal["ok", "warn", "fail"]
    message: str
    remedy: str = ""


class Diagnosis(Document):
    """All checks."""

    findings: tuple[Finding, ...]

    @property
    def healthy(self) -> bool:
        """Whether nothing failed; a warning is no failure."""
        return all(finding.result != "fail" for finding in self.findings)


def doctor() -> Diagnosis:
    """Run every check; a check that breaks is reported as failed and does not hide the others."""
    findings: list[Finding] = []
    for check in _CHECKS:
        try:
            findings += check()
        except (SekishoError, OSError, ValueError) as error:
            name = check.__name__.strip("_").replace("_", " ")
            findings.append(_finding(name, "fail", f"The check itself failed: {error}"))
    return Diagnosis(findings=tuple(findings))


def _finding(check: str, result: Literal["ok", "warn", "fail"], message: str, remedy: str = "") -> Finding:
    return Finding(check=check, result=result, message=message, remedy="" if result == "ok" else remedy)


def _platform() -> list[Finding]:
    root = os.geteuid() == 0
    linux = sys.platform == "linux"
    remedy = "Run it as root on Linux, or use the kind or kubeconfig provider."
    message = f"{'Linux' if linux else sys.platform}, {'root' if root else 'not root'}"
    return [_finding("platform", "ok" if linux and root else "fail", message, remedy)]


def _tools() -> list[Finding]:
    missing = [status for status in tools_report(versions=False) if status.problem]
    if not missing:
        return [_finding("tools", "ok", "All tools are there.")]
    return [_finding("tools", "fail", f"{status.name}: {status.problem}", "Run scripts/setup.") for status in missing]


def _python() -> list[Finding]:
    hidden = runtime.unreadable_parts()
    if not hidden:
        return [_finding("python", "ok", f"The zones' users can read {sys.executable}.")]
    parts = ", ".join(f"{name} ({path})" for name, path in hidden.items())
    return [
        _finding(
            "python",
            "warn",
            f"The zones' users cannot read: {parts}. `sekisho up` copies it to {home() / 'runtime'}.",
            "Install Python, virtual environment and checkout where every user may read, for example below /opt.",
        )
    ]


def _disk() -> list[Finding]:
    place = home()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    result: Literal["ok", "warn", "fail"] = "ok" if free >= _DISK_WANTED else "warn" if free >= _DISK_NEEDED else "fail"
    return [
        _finding("disk", result, f"{free >> 30} GB free at {place}.", "Free some, or set SEKISHO_HOME to another disk.")
    ]


def _memory() -> list[Finding]:
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
    available = int(lines["MemAvailable"].split()[0]) * 1024
    needed = 0 if supervise.Supervisor.alive() else _MEMORY_FOR_ALL
    return [
        _finding(
            "memory",
            "ok" if available >= needed else "warn",
            f"{available / (1 << 30):.1f} GB available; all zones take about {_MEMORY_FOR_ALL >> 30} GB.",
            "Start fewer zones: sekisho up --zones build,staging",
        )
    ]


def _cgroups() -> list[Finding]:
    hierarchies = cgroup_hierarchies()
    if not hierarchies:
        return [
            _finding("cgroups", "fail", "There is no writable cgroup tree.", "Mount one, or run on a whole machine.")
        ]
    version = "v2" if len(hierarchies) == 1 else f"v1 ({len(hierarchies)} hierarchies)"
    writable = all(os.access(path, os.W_OK) for path in hierarchies)
    found = [
        _finding("cgroups", "ok" if writable else "fail", f"cgroup {version}", "The cgroup tree must be writable.")
    ]
    capabilities = int(Path("/proc/self/status").read_text(encoding="ascii").split("CapEff:")[1].split()[0], 16)
    if not capabilities >> _CAP_SYS_RESOURCE & 1:
        found.append(
            _finding(
                "capabilities",
                "warn",
                "CAP_SYS_RESOURCE is missing: resource limits cannot be raised; the local provider does without.",
                "Nothing to do for the local provider; kind needs a machine that grants it.",
            )
        )
    return found


def _namespaces() -> list[Finding]:
    tried = netns.run(["unshare", "--net", "--", "nft", "add", "table", "inet", "sekisho-doctor"], check=False)
    return [
        _finding(
            "network namespaces and nftables",
            "ok" if tried.returncode == 0 else "fail",
            "Both work." if tried.returncode == 0 else tried.stderr.strip()[-300:],
            "Root with CAP_NET_ADMIN and CAP_SYS_ADMIN, and a kernel with nf_tables, are needed.",
        )
    ]


def _addresses() -> list[Finding]:
    try:
        network.check_range_free()
    except SekishoError as error:
        return [_finding("addresses", "fail", error.what, error.remedy)]
    return [_finding("addresses", "ok", f"{network.embedded_range()} is free for the zones.")]


def _ports() -> list[Finding]:
    if supervise.Supervisor.alive():
        return [_finding("ports", "ok", "The zones are up and hold their ports.")]
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            # The console's address may not be there yet; whoever holds the port on all addresses holds it here too.
            probe.bind(("127.0.0.1", Port.EGRESS_PROXY))
        except OSError as error:
            return [
                _finding(
                    "ports", "fail", f"Port {Port.EGRESS_PROXY} is taken: {error.strerror}.",
                    f"End what listens there; `ss -ltnp sport = :{Port.EGRESS_PROXY}` names it.",
                )
            ]  # fmt: skip
    return [_finding("ports", "ok", f"Port {Port.EGRESS_PROXY} is free; all others are inside the zones.")]


def _paths() -> list[Finding]:
    longest = max(limit_path_lengths(ClusterHome(zone)) for zone in CLUSTER_ZONES)
    return [
        _finding(
            "paths",
            "ok" if longest <= _SOCKET_LIMIT else "fail",
            f"The longest socket path has {longest} of {_SOCKET_LIMIT} bytes.",
            "Choose a shorter SEKISHO_HOME.",
        )
    ]


def _network_policies() -> list[Finding]:
    return [
        _finding(
            "network policies",
            "warn",
            "NetworkPolicy objects are stored but not enforced by the local provider's network. Zones are segregated "
            "by nftables; pods reach only their own zone's pods, API server, DNS, registry and named database.",
            "For policies between pods of one zone use a cluster whose CNI enforces them: kind, or one by kubeconfig.",
        )
    ]


def _kind() -> list[Finding]:
    remedy = (
        "Only for profiles with provider kind: install kind and a Docker engine that may start privileged containers."
    )
    if shutil.which("kind") is None and not (home() / "bin" / "kind").exists():
        return [_finding("kind", "warn", "kind is not installed.", remedy)]
    engine = next((name for name in ("docker", "podman") if shutil.which(name)), "")
    if not engine or netns.run([engine, "info"], check=False, timeout=20).returncode != 0:
        return [
            _finding("kind", "warn", "kind cannot start a node: no container engine of the machine answers.", remedy)
        ]
    return [_finding("kind", "ok", f"kind and {engine} are there.")]


def _downloads() -> list[Finding]:
    try:
        socket.create_connection(_DOWNLOADS, timeout=3).close()
    except OSError:
        return [
            _finding(
                "downloads",
                "warn",
                f"{_DOWNLOADS[0]} is not reachable: missing Kubernetes tools are built from their Go modules instead.",
                "Nothing to do once the tools are there.",
            )
        ]
    return [_finding("downloads", "ok", f"{_DOWNLOADS[0]} is reachable.")]


def _egress() -> list[Finding]:
    indexes = ", ".join(f"{root.name}: {root.url}" for root in read_roots(os.environ))
    hosts = ", ".join(host for host, _ in index_hosts())
    proxy = f"{address(Network.CONSOLE)}:{Port.EGRESS_PROXY}"
    message = f"Builds take packages from {indexes}; the package proxy at {proxy} lets these hosts through: {hosts}."
    return [_finding("package indexes", "ok", message)]


def _line() -> list[Finding]:
    missing = [name for name in ("flows", "stages") if importlib.util.find_spec(name) is None]
    return [
        _finding(
            "the line",
            "warn" if missing else "ok",
            f"Not installed: {', '.join(missing)}." if missing else "All of the line is installed.",
            "Install the whole project: pip install sekisho",
        )
    ]


_CHECKS: tuple[Callable[[], list[Finding]], ...] = (
    _platform,
    _tools,
    _python,
    _disk,
    _memory,
    _cgroups,
    _namespaces,
    _addresses,
    _ports,
    _paths,
    _network_policies,
    _kind,
    _downloads,
    _egress,
    _line,
)
