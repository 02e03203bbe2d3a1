"""The machine's processes, seen through /proc: which belong to a zone, what they use, and ending them."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

from sekisho.embedded import netns
from sekisho.embedded.cluster_home import ClusterHome
from sekisho.embedded.kubernetes import cgroup_hierarchies
from sekisho.embedded.services import docker_cgroup
from sekisho.zones import CLUSTER_ZONES, SANDBOX_ZONES, Network, Zone, ZoneHome

_PROC = Path("/proc")


def in_network(network: Network | Zone | str) -> set[int]:
    """Return the processes in a network's namespace, without those of containers that have one of their own."""
    name = netns.namespace(network)
    if not name or not netns.exists(name):
        return set()
    inode = netns.namespace_path(name).stat().st_ino
    return {pid for pid in _pids() if _inode(pid, "net") == inode}


def in_containers(zone: Zone | str) -> set[int]:
    """Return the processes in a zone's containers, also of those whose shim is gone.

    Told by the root file system: an overlay whose upper layer lies in the zone's folder. Cgroups do not tell, the
    runtime puts the containers of every zone side by side.
    """
    upper = f"upperdir={ZoneHome(Zone(str(zone))).root}/"
    ours = _inode(os.getpid(), "mnt")
    return {pid for pid in _pids() if _inode(pid, "mnt") not in {0, ours} and upper in _root_mount(pid)}


def _root_mount(pid: int) -> str:
    """Return the line of proc(5) mountinfo about a process's root; empty when it is gone."""
    try:
        lines = (_PROC / str(pid) / "mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.split()[4] == "/"), "")


def _pids() -> list[int]:
    return [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit()]


def _inode(pid: int, kind: str) -> int:
    try:
        return (_PROC / str(pid) / "ns" / kind).stat().st_ino
    except OSError:
        return 0


def cgroups_of(zone: Zone | str) -> tuple[str, ...]:
    """Return a zone's cgroups: its own, and one for each of its containers that the runtime knows."""
    if str(zone) not in CLUSTER_ZONES:
        return ()
    known = Zone(str(zone))
    cluster = ClusterHome(known)
    bundles = cluster.containerd_state.glob("io.containerd.runtime.v2.task/k8s.io/*")
    own = [cluster.cgroup, *(f"/k8s.io/{bundle.name}" for bundle in bundles)]
    return (*own, docker_cgroup(known)) if known in SANDBOX_ZONES else tuple(own)


def _cgroup_folders(paths: Iterable[str]) -> list[Path]:
    wanted = tuple(paths)
    found = []
    for hierarchy in cgroup_hierarchies():
        for path in wanted:
            top = hierarchy / path.strip("/")
            if top.is_dir():
                found += [Path(current) for current, _, _ in os.walk(top)]
    return found


def remove_cgroups(zone: Zone | str) -> None:
    """Remove a zone's cgroups, deepest first; those that still hold a process stay."""
    for folder in sorted(_cgroup_folders(cgroups_of(zone)), key=lambda path: len(path.parts), reverse=True):
        try:
            folder.rmdir()
        except OSError:
            continue


def remove_top_cgroups() -> None:
    """Remove the cgroups that hold those of all zones, where they are empty."""
    for hierarchy, name in itertools.product(cgroup_hierarchies(), ("sekisho", "k8s.io")):
        try:
            (hierarchy / name).rmdir()
        except OSError:
            continue


def strays(zone: Zone | str) -> set[int]:
    """Return a zone's processes that are neither pods nor what holds pods: left by a supervisor that was killed."""
    candidates = in_network(zone) - in_containers(zone) - _ancestors()
    return {pid for pid in candidates if not _comm(pid).startswith("containerd-shim")}


def everything(zone: Zone | str) -> set[int]:
    """Return all processes of a zone: in its namespace or in its containers."""
    return (in_network(zone) | in_containers(zone)) - _ancestors()


def end(pids: Iterable[int], *, sign: int = signal.SIGKILL, seconds: float = 5.0) -> set[int]:
    """Send a signal to processes and wait; returns those that are still there."""
    left = set(pids)
    for pid in left:
        try:
            os.kill(pid, sign)
        except ProcessLookupError:
            continue
    finish = time.monotonic() + seconds
    while left and time.monotonic() < finish:
        left = {pid for pid in left if _alive(pid)}
        if left:
            time.sleep(0.02)
    return left


def memory(pid: int) -> int:
    """Return a process's share of the machine's memory in bytes (Pss of proc(5); 0 when it is gone)."""
    try:
        for line in (_PROC / str(pid) / "smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return 0


def resident(pid: int) -> int:
    """Return a process's resident memory in bytes (0 when it is gone)."""
    try:
        return int((_PROC / str(pid) / "statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def _ancestors() -> set[int]:
    """Return the caller and those above it, which must not be ended by a `down` that runs inside a zone."""
    found = set()
    pid = os.getpid()
    while pid > 0:
        found.add(pid)
        try:
            pid = int((_PROC / str(pid) / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            break
    return found


def _alive(pid: int) -> bool:
    try:
        return (_PROC / str(pid) / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] not in {"Z", "X"}
    except OSError:
        return False


def _comm(pid: int) -> str:
    try:
        return (_PROC / str(pid) / "comm").read_text(encoding="utf-8").strip()
    except OSError:
        return ""
