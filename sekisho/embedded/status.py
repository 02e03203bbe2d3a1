"""What runs: every process of every zone, whether its cluster is Ready, what it costs, and where to look."""

from __future__ import annotations

import time
from typing import Literal

from sekisho.embedded import netns, network, processes, supervise
from sekisho.embedded.kubeapi import KubeApi
from sekisho.embedded.supervise import ProcessState, Supervisor
from sekisho.errors import SekishoError
from sekisho.model import Document
from sekisho.zones import CLUSTER_ZONES, ENGINE_ZONES, Network, Port, Zone, address, home


class ProcessStatus(Document):
    """One process."""

    name: str
    state: str
    """As the supervisor says: RUNNING, STARTING, BACKOFF, STOPPED, EXITED, FATAL."""
    pid: int = 0
    uptime_seconds: int = 0
    rss_bytes: int = 0
    message: str = ""


class Url(Document):
    """Somewhere to look."""

    name: str
    url: str
    reached_from: str
    """The networks whose arrows lead there."""


class ZoneStatus(Document):
    """One zone."""

    zone: str
    state: Literal["up", "partly", "down"]
    cluster: Literal["ready", "not-ready", "none", "down"]
    processes: tuple[ProcessStatus, ...] = ()
    containers: int = 0
    """Processes in the zone's containers."""
    memory_bytes: int = 0
    """Proportional share (PSS) of all processes of the zone, containers included."""
    urls: tuple[Url, ...] = ()


class Status(Document):
    """The installation."""

    home: str
    range: str
    supervisor: bool
    zones: tuple[ZoneStatus, ...]
    console: tuple[ProcessStatus, ...] = ()
    memory_bytes: int = 0


def status() -> Status:
    """Return what runs now; needs root for the processes' memory and the clusters' word."""
    states: dict[str, ProcessState] = {}
    alive = Supervisor.alive()
    if alive:
        states = Supervisor().states()
    zones = tuple(_zone(zone, states) for zone in Zone)
    console = _processes(str(Network.CONSOLE), states)
    return Status(
        home=str(home()),
        range=network.embedded_range(),
        supervisor=alive,
        zones=zones,
        console=console,
        memory_bytes=sum(zone.memory_bytes for zone in zones) + _supervisor_memory(),
    )


def _zone(zone: Zone, states: dict[str, ProcessState]) -> ZoneStatus:
    own = _processes(str(zone), states)
    running = [process for process in own if process.pid]
    pids = processes.everything(zone) if running else set()
    return ZoneStatus(
        zone=str(zone),
        state="down" if not running else "up" if len(running) == len(own) else "partly",
        cluster=_cluster(zone, bool(running)),
        processes=own,
        containers=len(processes.in_containers(zone)) if running else 0,
        memory_bytes=sum(processes.memory(pid) for pid in pids),
        urls=urls(zone),
    )


def _processes(zone: str, states: dict[str, ProcessState]) -> tuple[ProcessStatus, ...]:
    now = int(time.time())
    return tuple(
        ProcessStatus(
            name=name.partition(".")[2],
            state=state.state,
            pid=state.pid,
            uptime_seconds=max(0, now - state.started_at) if state.pid else 0,
            rss_bytes=processes.resident(state.pid) if state.pid else 0,
            message="" if state.running else state.description,
        )
        for name, state in sorted(states.items())
        if name.partition(".")[0] == zone
    )


def _cluster(zone: Zone, running: bool) -> Literal["ready", "not-ready", "none", "down"]:  # noqa: FBT001
    if zone not in CLUSTER_ZONES:
        return "none"
    if not running or not netns.exists(netns.namespace(zone)):
        return "down"
    api = KubeApi(zone)
    try:
        return "ready" if api.node_ready() else "not-ready"
    except (SekishoError, OSError):
        return "not-ready"
    finally:
        api.close()


def urls(zone: Zone) -> tuple[Url, ...]:
    """Return where a zone can be looked at, and from which network."""
    node = address(zone)
    found = []
    if zone is Zone.BUILD:
        found.append(Url(name="git", url=f"http://{node}:{Port.GIT}", reached_from="developer, console"))
        found.append(Url(name="commits", url=f"http://{node}:{Port.FEED}", reached_from="developer, console"))
    if zone in ENGINE_ZONES:
        found.append(Url(name="prefect", url=f"http://{node}:{Port.PREFECT}", reached_from="console"))
    if zone is Zone.OPS:
        found.append(Url(name="board", url=f"http://{node}:{Port.OPS}", reached_from="infra, console"))
    if zone is Zone.DEV:
        found.append(Url(name="cluster", url=f"https://{node}:{Port.APISERVER}", reached_from="developer, console"))
    return tuple(found)


def _supervisor_memory() -> int:
    try:
        return processes.memory(int(supervise.pid_path().read_text(encoding="ascii")))
    except (OSError, ValueError):
        return 0
