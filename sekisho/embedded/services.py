"""The other processes of a zone: registries, the build sandbox's engine, the package proxy, the line itself."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from sekisho.canonical import digest_of_file
from sekisho.embedded.binaries import binary
from sekisho.embedded.content import content_digest
from sekisho.embedded.owners import GIT_USER, PROXY_USER, Owner, ensure_folder, write_file
from sekisho.embedded.runtime import Python
from sekisho.embedded.supervise import Check, Program
from sekisho.package_indexes import HTTPS, handed_on, index_hosts, valid_host
from sekisho.zones import CLUSTER_ZONES, ENGINE_ZONES, Network, Port, Zone, ZoneHome, address, home, prefix

# -- registries ----------------------------------------------------------------------------------------------------


def write_registry(zone: Zone) -> None:
    """Write the configuration of a zone's two registry faces: one storage, one may write."""
    zone_home = ZoneHome(zone)
    owner = Owner.of(zone_home.user)
    folder = zone_home.root / "registry"
    ensure_folder(folder, 0o700, owner)
    ensure_folder(folder / "storage", 0o700, owner)
    secret = folder / "http-secret"
    if not secret.exists():
        write_file(secret, secrets.token_hex(32), 0o600, owner)
    shared = secret.read_text(encoding="ascii")
    faces = {
        "write.json": _registry(folder, f"{_writable_from(zone)}:{Port.REGISTRY_WRITE}", shared, read_only=False),
        "read.json": _registry(folder, f"{address(zone)}:{Port.REGISTRY}", shared, read_only=True),
    }
    for name, text in faces.items():
        write_file(folder / name, text, 0o600, owner)


def _writable_from(zone: Zone) -> str:
    """Return the address of the writable face: only developers may come from outside, and the firewall says who."""
    return "0.0.0.0" if zone is Zone.DEV else "127.0.0.1"  # noqa: S104


def _registry(folder: Path, listen: str, secret: str, *, read_only: bool) -> str:
    """Return a configuration of distribution v3 (its configuration.md; JSON is YAML)."""
    return json.dumps(
        {
            "version": "0.1",
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            "storage": {
                "filesystem": {"rootdirectory": str(folder / "storage")},
                # What is released stays: nothing is deleted over the network, by either face.
                "delete": {"enabled": False},
                "maintenance": {
                    "uploadpurging": {"enabled": not read_only, "age": "24h", "interval": "6h", "dryrun": False},
                    "readonly": {"enabled": read_only},
                },
            },
            "http": {
                "addr": listen,
                "secret": secret,
                "relativeurls": True,
                "headers": {"X-Content-Type-Options": ["nosniff"]},
            },
        },
        indent=2,
    )


def registry_programs(zone: Zone) -> tuple[Program, ...]:
    """Return the two registry processes of a zone with a cluster."""
    if zone not in CLUSTER_ZONES:
        return ()
    zone_home = ZoneHome(zone)
    folder = zone_home.root / "registry"
    faces = (
        ("registry", "write", "127.0.0.1", Port.REGISTRY_WRITE),
        ("registry-read", "read", address(zone), Port.REGISTRY),
    )
    return tuple(
        Program(
            str(zone),
            name,
            (binary("registry"), "serve", str(folder / f"{face}.json")),
            user=zone_home.user,
            environment={
                "OTEL_TRACES_EXPORTER": "none",
                "OTEL_METRICS_EXPORTER": "none",
                # It takes 4 MiB for each blob that it reads: with less, most of a request is collecting them.
                "GOGC": "200",
                # Read once, at its start: `up` starts it anew when it has changed.
                "SEKISHO_CONTENT": _content(folder / f"{face}.json"),
            },
            check=Check("http", host=host, port=port, path="/v2/"),
        )
        for name, face, host, port in faces
    )


def _content(path: Path) -> str:
    return digest_of_file(path).removeprefix("sha256:")[:16] if path.is_file() else ""


# -- the build sandbox's engine ------------------------------------------------------------------------------------


def write_docker(zone: Zone) -> None:
    """Write the container engine's folder and an empty configuration of its own."""
    owner = Owner.of(ZoneHome(zone).user)
    folder = docker_folder(zone)
    ensure_folder(folder, 0o750, Owner(0, owner.gid))
    write_file(folder / "daemon.json", "{}\n", 0o600, Owner())


def docker_folder(zone: Zone) -> Path:
    """Return the folder of a zone's container engine."""
    return ZoneHome(zone).root / "docker"


def docker_cgroup(zone: Zone) -> str:
    """Return the cgroup that holds all containers of a zone's container engine."""
    return f"/sekisho/{zone}-docker"


def docker_programs(zone: Zone) -> tuple[Program, ...]:
    """Return a zone's container engine: no bridge, no firewall rules, no network for what it runs."""
    folder = docker_folder(zone)
    return (
        Program(
            str(zone),
            "docker",
            (
                binary("dockerd"),
                f"--config-file={folder / 'daemon.json'}",
                f"--data-root={folder / 'data'}",
                f"--exec-root={folder / 'exec'}",
                f"--pidfile={folder / 'docker.pid'}",
                f"--host=unix://{folder / 'docker.sock'}",
                f"--group={ZoneHome(zone).user}",
                "--bridge=none",
                "--iptables=false",
                "--ip6tables=false",
                "--ip-forward=false",
                "--ip-masq=false",
                "--userland-proxy=false",
                "--exec-opt=native.cgroupdriver=cgroupfs",
                f"--cgroup-parent={docker_cgroup(zone)}",
                "--log-level=warn",
                "--max-concurrent-downloads=1",
            ),
            environment={"GOGC": "50", "HOME": str(folder)},
            umask="022",
            check=Check("socket", path=str(folder / "docker.sock")),
            stop_seconds=15,
        ),
    )


# -- the package proxy ---------------------------------------------------------------------------------------------


def write_proxy() -> None:
    """Write the package proxy's configuration (tinyproxy.conf(5)): one client, few hosts, deny by default."""
    owner = Owner.of(PROXY_USER)
    folder = proxy_folder()
    ensure_folder(folder, 0o700, owner)
    hosts = index_hosts()
    names = "".join("^" + re.escape(host) + "$\n" for host in sorted({host for host, _ in hosts}))
    ports = sorted({port for _, port in hosts} - {80} | {HTTPS})
    lines = [
        f"Port {Port.EGRESS_PROXY}",
        f"Listen {address(Network.CONSOLE)}",
        "Timeout 300",
        # Builds at the same time have some forty connections each; one too many would wait until another ends.
        "MaxClients 400",
        "LogLevel Warning",
        "DisableViaHeader Yes",
        f"Allow {address(Zone.BUILD)}",
        f'Filter "{folder / "hosts"}"',
        "FilterDefaultDeny Yes",
        "FilterExtended On",
        "FilterCaseSensitive Off",
        *(f"ConnectPort {port}" for port in ports),
        *_upstream(),
        "",
    ]
    write_file(folder / "hosts", names.replace("\\-", "-"), 0o600, owner)
    write_file(folder / "tinyproxy.conf", "\n".join(lines), 0o600, owner)


def _upstream() -> list[str]:
    """Return the way through the machine's own proxy, where it has one."""
    proxy = os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy") or ""
    try:
        parts = urlsplit(proxy)
        port = parts.port
    except ValueError:
        return []
    if parts.scheme != "http" or not parts.hostname or port is None or not valid_host(parts.hostname):
        return []
    return [f"Upstream http {parts.netloc}"] if re.fullmatch(r"[A-Za-z0-9._~%!$&*+=:@-]+", parts.netloc) else []


def proxy_folder() -> Path:
    """Return the package proxy's folder."""
    return home() / "egress-proxy"


def proxy_programs() -> tuple[Program, ...]:
    """Return the package proxy, which lives on the console: the build zone has no other way out."""
    hasher = hashlib.sha256()
    for name in ("tinyproxy.conf", "hosts"):
        path = proxy_folder() / name
        hasher.update(path.read_bytes() if path.exists() else b"")
    return (
        Program(
            str(Network.CONSOLE),
            "egress-proxy",
            (binary("tinyproxy"), "-d", "-c", str(proxy_folder() / "tinyproxy.conf")),
            user=PROXY_USER,
            # It reads its files once: with other ones `up` starts it anew.
            environment={"SEKISHO_CONTENT": hasher.hexdigest()[:16]},
            check=Check("tcp", host=address(Network.CONSOLE), port=Port.EGRESS_PROXY),
        ),
    )


# -- the line ------------------------------------------------------------------------------------------------------


def line_programs(zone: Zone, python: Python) -> tuple[Program, ...]:
    """Return the processes of the line in a zone: receiver, Prefect server, zone process, ops."""
    zone_home = ZoneHome(zone)
    found = []
    if zone is Zone.BUILD:
        found.append(
            # The zone's process shares the group of the repositories and reads them; nobody else does.
            _line(
                zone,
                "receiver",
                ("sekisho.receiver",),
                python,
                after=("trust",),
                port=Port.GIT,
                user=GIT_USER,
                folder=zone_home.root / "receiver",
                umask="027",
            )
        )
    if zone in ENGINE_ZONES:
        arguments = ("--zone", str(zone))
        found.append(
            _line(
                zone,
                "engine",
                ("flows.engine", *arguments),
                python,
                after=("databases",),
                port=Port.PREFECT,
                path="/api/health",
            )
        )
        needs = ("engine", "node-ready", "registry", "registry-read", "trust")
        indexes = handed_on(os.environ) if zone is Zone.BUILD else {}
        found.append(
            _line(
                zone,
                "zone",
                ("flows.zone", *arguments),
                python,
                after=needs,
                port=Port.ZONE_API,
                environment=indexes,
            )
        )
    if zone is Zone.OPS:
        found.append(_line(zone, "ops", ("sekisho.ops",), python, after=("databases", "trust"), port=Port.OPS))
    return tuple(found)


def _line(
    zone: Zone,
    name: str,
    module: tuple[str, ...],
    python: Python,
    *,
    after: tuple[str, ...],
    port: int,
    path: str = "/healthz",
    user: str = "",
    folder: Path | None = None,
    umask: str = "077",
    environment: Mapping[str, str] | None = None,
) -> Program:
    zone_home = ZoneHome(zone)
    place = folder or zone_home.root / "home"
    return Program(
        str(zone),
        name,
        (str(python.executable), "-m", *module),
        user=user or zone_home.user,
        directory=place,
        environment={
            "HOME": str(place),
            "LANG": "C.UTF-8",
            "SEKISHO_HOME": str(home()),
            "SEKISHO_NETWORK": prefix(),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
            "SEKISHO_CONTENT": content_digest(zone),
            **(environment or {}),
            **python.environment,
        },
        after=after,
        check=Check("http", host=address(zone), port=port, path=path),
        essential=False,
        stop_seconds=15,
        umask=umask,
        start_seconds=20,
    )
