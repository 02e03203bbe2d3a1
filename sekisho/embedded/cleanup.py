"""Taking zones away: processes, mounts, sockets, cgroups, namespaces, and with `purge` the data."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterable
from pathlib import Path

from sekisho.embedded import netns, network, processes
from sekisho.embedded.cluster_home import ClusterHome
from sekisho.embedded.postgres import EXTERNAL
from sekisho.embedded.services import docker_folder, proxy_folder
from sekisho.embedded.supervise import run_folder
from sekisho.errors import PermanentError
from sekisho.zones import CLUSTER_ZONES, SANDBOX_ZONES, Zone, ZoneHome, home

_ROUNDS = 20
_SHIM_SOCKETS = Path("/run/containerd/s")


def end_strays(zones: Iterable[Zone]) -> None:
    """End what a killed supervisor left running; pods go on, containerd takes them over again.

    Databases are asked first: PostgreSQL's children end with it, and its next start needs no recovery.
    """
    pids = {pid for zone in zones for pid in processes.strays(zone)} | _proxy_pids()
    left = processes.end(pids, sign=signal.SIGTERM, seconds=3) if pids else set()
    if left:
        processes.end(left)
    for zone in zones:
        processes.end(processes.strays(zone))


def end_console() -> None:
    """End what runs in the machine's own namespace."""
    processes.end(_proxy_pids())


def _proxy_pids() -> set[int]:
    """Return the package proxy's processes: the only ones of ours in no namespace of ours."""
    wanted = str(proxy_folder() / "tinyproxy.conf").encode()
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if len(words) > 1 and words[0].endswith(b"tinyproxy") and wanted in words:
                found.add(int(entry.name))
    return found


def clear_zone(zone: Zone, *, purge: bool) -> None:
    """Remove all of a zone that is not data, and with `purge` that too.

    Raises:
        PermanentError: a process or a mount stays.
    """
    _end_all(zone)
    roots = [ZoneHome(zone).root, *([home() / EXTERNAL] if zone is Zone.PRODUCTION else [])]
    if zone in CLUSTER_ZONES:
        _remove_shim_sockets(zone)
    for root in roots:
        unmount_below(root)
    processes.remove_cgroups(zone)
    network.remove_namespace(netns.namespace(zone))
    netns.run(["ip", "-n", netns.ROUTER, "link", "delete", f"sk-{zone}"], check=False)
    if zone in CLUSTER_ZONES:
        _forget_runtime(ClusterHome(zone))
    if zone in SANDBOX_ZONES:
        remove_tree(docker_folder(zone) / "exec")
    if purge:
        for root in roots:
            remove_tree(root)


def _end_all(zone: Zone) -> None:
    for _ in range(_ROUNDS):
        # Again and again: a shim starts a process for each container that it loses.
        pids = processes.everything(zone)
        if not pids:
            return
        processes.end(pids)
    left = sorted(processes.everything(zone))
    if left:
        raise PermanentError(
            f"{len(left)} processes do not end: {left[:10]}",
            where=str(zone),
            remedy="See `ps -fp PID`; then `sekisho down`.",
        )


def _remove_shim_sockets(zone: Zone) -> None:
    """Remove the sockets of the zone's shims; containerd 1.x keeps them in one folder for all of the machine."""
    for path in ClusterHome(zone).containerd_state.glob("io.containerd.runtime.v2.task/*/*/address"):
        name = Path(path.read_text(encoding="utf-8").strip().removeprefix("unix://"))
        if name.parent == _SHIM_SOCKETS and re.fullmatch(r"[0-9a-f]{64}", name.name):
            name.unlink(missing_ok=True)


def _forget_runtime(cluster: ClusterHome) -> None:
    """Remove what describes containers that are no more."""
    for path in (cluster.containerd_state, cluster.root / "cni-addresses", cluster.root / "pod-logs"):
        remove_tree(path)
    for name in ("containerd.sock", "containerd.sock.ttrpc"):
        (cluster.root / name).unlink(missing_ok=True)
    links = Path("/var/log/containers")
    for link in links.iterdir() if links.is_dir() else ():
        if link.is_symlink() and str(link.readlink()).startswith(str(cluster.root)):
            link.unlink()


def mounts_below(root: Path) -> list[Path]:
    """Return the mount points below a folder, deepest first (proc(5), mountinfo)."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        escaped = line.split()[4]
        path = Path(re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), escaped))
        if path != root and path.is_relative_to(root):
            found.append(path)
    return sorted(found, key=lambda path: len(path.parts), reverse=True)


def unmount_below(root: Path) -> None:
    """Unmount everything below a folder.

    Raises:
        PermanentError: a mount stays.
    """
    for _ in range(_ROUNDS):
        points = mounts_below(root)
        if not points:
            return
        for point in points:
            netns.run(["umount", point], check=False)
        if mounts_below(root):
            time.sleep(0.1)
    for point in mounts_below(root):
        netns.run(["umount", "--lazy", point], check=False)
    left = mounts_below(root)
    if left:
        raise PermanentError(f"{len(left)} mounts stay: {left[0]}", where=str(root), remedy=f"umount {left[0]}")


def remove_tree(root: Path) -> None:
    """Remove a folder with all in it; never crosses into another file system, so nothing mounted is emptied."""
    if root.exists() or root.is_symlink():
        unmount_below(root)
        netns.run(["rm", "-rf", "--one-file-system", "--", root], timeout=300)


def purge_rest() -> None:
    """Remove what belongs to no zone: console, proxy, runtime, sockets. Tools and standard images stay."""
    for path in (home() / "zones", home() / "console", proxy_folder(), home() / "runtime"):
        remove_tree(path)
    for path in run_folder().iterdir():
        # The lock is held by whoever calls us.
        if path.name != "up.lock":
            remove_tree(path) if path.is_dir() else os.unlink(path)  # noqa: PTH108
