"""`up` and `down`: all of an embedded installation, or some zones of it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sekisho.canonical import digest_of_json
from sekisho.embedded import (
    cleanup,
    cluster_objects,
    content,
    kubernetes,
    network,
    owners,
    pause,
    postgres,
    processes,
    runtime,
    services,
    supervise,
    trust,
)
from sekisho.embedded.cluster_home import ClusterHome
from sekisho.embedded.kubeapi import KubeApi
from sekisho.embedded.seeds import seed_steps
from sekisho.embedded.steps import Progress, Step, StepDone, run_steps
from sekisho.embedded.supervise import Program, Supervisor
from sekisho.errors import PermanentError, TemporaryError
from sekisho.profile import Profile
from sekisho.zones import CLUSTER_ZONES, SANDBOX_ZONES, Network, Port, Zone, ZoneHome, address, home

_LEAST_FREE_BYTES = 2 << 30


@dataclass(frozen=True)
class UpReport:
    """What `up` did.

    Attributes:
        seconds: how long it took.
        zones: which zones it was about.
        warnings: what does not run although the zones do, by full name, with why.
    """

    seconds: float
    zones: tuple[Zone, ...]
    warnings: dict[str, str]


def _silent(_: StepDone) -> None:
    return


def up(
    zones: Iterable[Zone] = tuple(Zone),
    progress: Progress = _silent,
    *,
    profiles: Path | None = None,
    policies: Path | None = None,
    line: bool = True,
    seconds: float = 240.0,
) -> UpReport:
    """Bring zones up; safe to call at any time, and quick when all is up.

    Args:
        zones: which.
        progress: told about each step.
        profiles: folder of the cluster profiles; the project's own when None.
        policies: folder of the policies; the project's own when None.
        line: also start the processes of the line, not only clusters and services.
        seconds: how long the clusters and services may take.

    Raises:
        SekishoError: not root, a tool missing, disk full, address range or port taken, namespaces or cgroups not
            permitted, another `up` at work, or something essential that does not come up.
    """
    began = time.monotonic()
    wanted = tuple(zone for zone in Zone if zone in set(zones))
    check_machine()
    with exclusive():
        tell = partial(_tell, progress, began)
        owners.ensure_users()
        network.up_networks(home())
        tell("networks")
        _ensure_images(progress, began)
        programs = _prepare(wanted, profiles or content.default_profiles(), policies or content.default_policies())
        tell("files")
        if not Supervisor.alive():
            cleanup.end_strays(Zone)
        _check_ports()
        logs = {str(zone): ZoneHome(zone).logs for zone in Zone} | {
            str(Network.CONSOLE): supervise.run_folder() / "logs"
        }
        supervisor, _ = supervise.ensure_supervisor(supervise.render(programs, logs))
        tell("supervisor")
        chosen = {str(zone) for zone in wanted} | {str(Network.CONSOLE)}
        steps = [
            Step.of(item) for item in programs if item.zone in chosen and item.enabled and (line or item.essential)
        ]
        steps += [step for zone in wanted for step in _actions(zone)]
        failed = run_steps(steps, supervisor, progress, lambda zone: logs[zone], seconds=seconds, began=began)
    essential = {step.full_name for step in steps if step.essential}
    fatal = {name: error for name, error in failed.items() if name in essential}
    if fatal:
        causes = [error for error in fatal.values() if not error.what.startswith("Not started")] or list(fatal.values())
        raise type(causes[0])(
            f"{len(fatal)} of {len(steps)} steps did not come up; first: {causes[0].what}",
            where=causes[0].where,
            remedy=causes[0].remedy or "See `sekisho status`; `sekisho up` goes on from here.",
        )
    return UpReport(time.monotonic() - began, wanted, {name: str(error) for name, error in failed.items()})


def _ensure_images(progress: Progress, began: float) -> None:
    """Build the standard images that are missing or whose recipe changed; minutes once, a look afterwards."""
    from sekisho.images import build_all  # noqa: PLC0415 -- its imports are not needed by `down` and `status`

    def told(line: str) -> None:
        progress(StepDone(str(Network.CONSOLE), "standard-images", "waiting", time.monotonic() - began, line))

    build_all(told)
    _tell(progress, began, "standard-images")


def _tell(progress: Progress, began: float, what: str) -> None:
    progress(StepDone(str(Network.CONSOLE), what, "done", time.monotonic() - began))


def down(zones: Iterable[Zone] | None = None, *, purge: bool = False, progress: Progress = _silent) -> None:
    """End zones; leaves no process, mount, namespace, link, firewall rule or cgroup of them behind.

    Args:
        zones: which; all, with the router and the supervisor, when None.
        purge: also remove their data: registries, databases, keys, trust. Tools and standard images stay.
        progress: told about each zone.

    Raises:
        SekishoError: not root, or a process or mount that cannot be ended.
    """
    began = time.monotonic()
    _check_root()
    wanted = tuple(Zone) if zones is None else tuple(zones)
    with exclusive():
        if Supervisor.alive():
            supervisor = Supervisor()
            names = {str(zone) for zone in wanted}
            supervisor.stop(
                [
                    name
                    for name, state in supervisor.states().items()
                    if name.partition(".")[0] in names and state.running
                ],
                seconds=30,
            )
        for zone in wanted:
            cleanup.clear_zone(zone, purge=purge)
            progress(StepDone(str(zone), "down", "done", time.monotonic() - began))
        if set(wanted) == set(Zone):
            supervise.shutdown()
            cleanup.end_console()
            network.down_networks()
            processes.remove_top_cgroups()
            if purge:
                cleanup.purge_rest()
            progress(StepDone(str(Network.CONSOLE), "down", "done", time.monotonic() - began))


@contextlib.contextmanager
def exclusive() -> Iterator[None]:
    """Hold the installation's lock: one `up` or `down` at a time.

    Raises:
        TemporaryError: another one is at work; says its process.
    """
    owners.ensure_folder(home(), 0o755, owners.Owner())
    owners.ensure_folder(supervise.run_folder(), 0o700, owners.Owner())
    path = supervise.run_folder() / "up.lock"
    with path.open("a+", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise TemporaryError(
                f"Another `sekisho up` or `down` is at work (process {file.read().strip() or 'unknown'}).",
                where=str(path),
                remedy="Wait for it, or end it; what it has done is kept.",
                delay=5,
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _check_root() -> None:
    if os.geteuid() != 0:
        raise PermanentError(
            "The embedded zones need root: network namespaces, nftables and containers are the kernel's.",
            remedy="Run it with sudo, or use the kind or kubeconfig provider.",
        )


def check_machine() -> None:
    """Refuse early what cannot work.

    Raises:
        PermanentError: not root, not Linux, or the disk is nearly full.
    """
    if sys.platform != "linux":
        raise PermanentError(
            "The embedded zones need Linux.", remedy="Use the kind or kubeconfig provider on this machine."
        )
    _check_root()
    place = home()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < _LEAST_FREE_BYTES:
        raise PermanentError(
            f"The disk has {free >> 20} MB left; the zones need {_LEAST_FREE_BYTES >> 20} MB to start.",
            where=str(home()),
            remedy="Free some space, or choose another disk with SEKISHO_HOME.",
        )


def _check_ports() -> None:
    """Refuse when somebody else has the one port that the zones need on the machine itself."""
    if Supervisor.alive():
        return
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address(Network.CONSOLE), Port.EGRESS_PROXY))
        except OSError as error:
            raise PermanentError(
                f"Port {Port.EGRESS_PROXY} of this machine is taken: {error.strerror}.",
                where=f"{address(Network.CONSOLE)}:{Port.EGRESS_PROXY}",
                remedy=f"End what listens there; `ss -ltnp sport = :{Port.EGRESS_PROXY}` names it.",
            ) from error


def _prepare(wanted: Sequence[Zone], profiles: Path, policies: Path) -> list[Program]:
    """Write every file, and return the programs of all zones: those that are not wanted now may run already."""
    python = runtime.prepare()
    owners.ensure_folder(supervise.run_folder() / "logs", 0o700, owners.Owner())
    for zone in Zone:
        owners.zone_folders(zone)
    trust.provision_trust()
    trust.provision_approver()
    content.write_tokens()
    services.write_proxy()
    for zone in wanted:
        profile = content.write_content(zone, profiles, policies)
        _check_provider(zone, profile)
        _write_zone(zone)
    programs = list(services.proxy_programs())
    for zone in Zone:
        programs += zone_programs(zone, python)
    return programs


def _check_provider(zone: Zone, profile: Profile) -> None:
    if zone in CLUSTER_ZONES and (profile.cluster is None or profile.cluster.provider != "local"):
        raise PermanentError(
            "The embedded zones run clusters of the provider `local`; this profile asks for another.",
            where=f"{zone}: {profile.cluster.provider if profile.cluster else 'no cluster'}",
            remedy="Leave this zone out of `sekisho up`, or set `cluster: {provider: local}` in its profile.",
        )


def _write_zone(zone: Zone) -> None:
    if zone in CLUSTER_ZONES:
        kubernetes.write_cluster(zone)
        try:
            kubernetes.make_cgroups(ClusterHome(zone))
        except OSError as error:
            raise PermanentError(
                f"Cgroups cannot be made: {error}.",
                where=str(zone),
                remedy="Containers need a writable cgroup tree; inside another container, that one must be privileged.",
            ) from error
        services.write_registry(zone)
    if zone in postgres.ZONES:
        postgres.write_server(postgres.zone_server(zone))
    if zone is Zone.PRODUCTION:
        postgres.write_server(postgres.external_server())
    if zone in SANDBOX_ZONES:
        services.write_docker(zone)


def zone_programs(zone: Zone, python: runtime.Python) -> list[Program]:
    """Return every program of a zone."""
    found: list[Program] = []
    if zone in CLUSTER_ZONES:
        found += kubernetes.programs(zone)
        found += services.registry_programs(zone)
    if zone in postgres.ZONES:
        found.append(postgres.zone_server(zone).program())
    if zone is Zone.PRODUCTION:
        found.append(postgres.external_server().program())
    if zone in SANDBOX_ZONES:
        found += services.docker_programs(zone)
    return [*found, *services.line_programs(zone, python)]


def _actions(zone: Zone) -> list[Step]:
    """Return the steps of a zone that are no programs."""
    name = str(zone)
    steps: list[Step] = []

    def step(what: str, after: tuple[str, ...], action: Callable[[], None]) -> None:
        steps.append(Step(name, what, after, action=action))

    if zone in CLUSTER_ZONES:
        cluster = ClusterHome(zone)
        step("pause-image", ("containerd",), partial(pause.import_pause, cluster))
        step("cluster-objects", ("apiserver",), partial(_apply_objects, zone))
        step(
            "node-ready",
            ("kubelet", "kube-proxy", "coredns", "controller-manager", "scheduler"),
            partial(_await_node, zone),
        )
        steps += seed_steps(zone)
    if zone in postgres.ZONES:
        server = postgres.zone_server(zone)
        step("postgres-data", (), partial(postgres.initialise, server))
        step("databases", ("postgres",), partial(postgres.ensure_databases, zone))
    if zone is Zone.PRODUCTION:
        external = postgres.external_server()
        step(f"{postgres.EXTERNAL}-data", (), partial(postgres.initialise, external))
        step(f"{postgres.EXTERNAL}-password", (postgres.EXTERNAL,), postgres.ensure_external)
    return steps


def _apply_objects(zone: Zone) -> None:
    objects = cluster_objects.bootstrap_objects(zone)
    wanted = digest_of_json(objects)
    mark = ClusterHome(zone).etcd / "objects-applied"
    if mark.exists() and mark.read_text(encoding="ascii") == wanted:
        return
    api = KubeApi(zone)
    try:
        for item in objects:
            api.apply(item)
    finally:
        api.close()
    # Beside the data of etcd: who removes the one removes the other.
    mark.write_text(wanted, encoding="ascii")


def _await_node(zone: Zone) -> None:
    api = KubeApi(zone)
    try:
        if not api.node_ready():
            raise TemporaryError("The node is not Ready.", where=str(zone), delay=0.2)
    finally:
        api.close()
