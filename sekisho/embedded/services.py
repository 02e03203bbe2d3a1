"""The other processes of a zone: registries, the build sandbox's engine, the package proxy, the line itself."""

from __future__ import annotations

import configparser
import json
import os
import re
import secrets
import sys
from pathlib import Path
from urllib.parse import urlsplit

from sekisho.embedded.binaries import binary
from sekisho.embedded.content import content_digest
from sekisho.embedded.owners import GIT_USER, PROXY_USER, Owner, ensure_folder, write_file
from sekisho.embedded.runtime import Python
from sekisho.embedded.supervise import Check, Program
from sekisho.zones import CLUSTER_ZONES, ENGINE_ZONES, Network, Port, Zone, ZoneHome, address, home, prefix

_HTTPS = 443
DOCKER_CGROUP = "/sekisho/build-docker"


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
        "write.json": _registry(folder, f"127.0.0.1:{Port.REGISTRY_WRITE}", shared, read_only=False),
        "read.json": _registry(folder, f"{address(zone)}:{Port.REGISTRY}", shared, read_only=True),
    }
    for name, text in faces.items():
        write_file(folder / name, text, 0o600, owner)


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
            environment={"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none", "GOGC": "50"},
            check=Check("http", host=host, port=port, path="/v2/"),
        )
        for name, face, host, port in faces
    )


# -- the build sandbox's engine ------------------------------------------------------------------------------------


def write_docker() -> None:
    """Write the container engine's folder and an empty configuration of its own."""
    owner = Owner.of(ZoneHome(Zone.BUILD).user)
    folder = docker_folder()
    ensure_folder(folder, 0o750, Owner(0, owner.gid))
    write_file(folder / "daemon.json", "{}\n", 0o600, Owner())


def docker_folder() -> Path:
    """Return the folder of the build zone's container engine."""
    return ZoneHome(Zone.BUILD).root / "docker"


def docker_programs() -> tuple[Program, ...]:
    """Return the build zone's container engine: no bridge, no firewall rules, no network for what it runs."""
    folder = docker_folder()
    return (
        Program(
            str(Zone.BUILD),
            "docker",
            (
                binary("dockerd"),
                f"--config-file={folder / 'daemon.json'}",
                f"--data-root={folder / 'data'}",
                f"--exec-root={folder / 'exec'}",
                f"--pidfile={folder / 'docker.pid'}",
                f"--host=unix://{folder / 'docker.sock'}",
                f"--group={ZoneHome(Zone.BUILD).user}",
                "--bridge=none",
                "--iptables=false",
                "--ip6tables=false",
                "--ip-forward=false",
                "--ip-masq=false",
                "--userland-proxy=false",
                "--exec-opt=native.cgroupdriver=cgroupfs",
                f"--cgroup-parent={DOCKER_CGROUP}",
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


def index_hosts() -> tuple[tuple[str, int], ...]:
    """Return the package indexes that builds may reach, as host and port: pip's configured ones, else its default.

    SEKISHO_EGRESS_HOSTS (names, comma-separated) adds others.
    """
    urls = [os.environ.get("PIP_INDEX_URL", ""), *os.environ.get("PIP_EXTRA_INDEX_URL", "").split()]
    for path in _pip_files():
        parser = configparser.RawConfigParser()
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError):
            continue
        for section in ("global", "install", "download"):
            for key in ("index-url", "extra-index-url"):
                urls += parser.get(section, key, fallback="").split()
    found = {parts for url in urls if (parts := _host_and_port(url))}
    index, files = default_index()
    if not any(url for url in urls):
        found.add((index, _HTTPS))
    if any(host == index for host, _ in found):
        found.add((files, _HTTPS))
    extra = os.environ.get("SEKISHO_EGRESS_HOSTS", "")
    found |= {(name.strip().lower(), _HTTPS) for name in extra.split(",") if _HOST.fullmatch(name.strip().lower())}
    return tuple(sorted(found))


def default_index() -> tuple[str, str]:
    """Return the hosts of pip's default index and of its files, as the pip that is installed knows them."""
    from pip._internal.models.index import PyPI  # noqa: PLC0415 -- slow, and only `up` and `doctor` ask

    return PyPI.netloc, PyPI.file_storage_domain


_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")


def _pip_files() -> list[Path]:
    user = Path.home()
    return [
        Path("/etc/pip.conf"),
        user / ".pip" / "pip.conf",
        user / ".config" / "pip" / "pip.conf",
        Path(sys.prefix) / "pip.conf",
        *([Path(os.environ["PIP_CONFIG_FILE"])] if os.environ.get("PIP_CONFIG_FILE") else []),
    ]


def _host_and_port(url: str) -> tuple[str, int] | None:
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError:
        return None
    if parts.scheme not in {"http", "https"} or not _HOST.fullmatch(host):
        return None
    return host, port or (_HTTPS if parts.scheme == "https" else 80)


def write_proxy() -> None:
    """Write the package proxy's configuration (tinyproxy.conf(5)): one client, few hosts, deny by default."""
    owner = Owner.of(PROXY_USER)
    folder = proxy_folder()
    ensure_folder(folder, 0o700, owner)
    hosts = index_hosts()
    names = "".join("^" + re.escape(host) + "$\n" for host in sorted({host for host, _ in hosts}))
    ports = sorted({port for _, port in hosts} - {80} | {_HTTPS})
    lines = [
        f"Port {Port.EGRESS_PROXY}",
        f"Listen {address(Network.CONSOLE)}",
        "Timeout 300",
        "MaxClients 50",
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
    if parts.scheme != "http" or not parts.hostname or port is None or not _HOST.fullmatch(parts.hostname.lower()):
        return []
    return [f"Upstream http {parts.netloc}"] if re.fullmatch(r"[A-Za-z0-9._~%!$&*+=:@-]+", parts.netloc) else []


def proxy_folder() -> Path:
    """Return the package proxy's folder."""
    return home() / "egress-proxy"


def proxy_programs() -> tuple[Program, ...]:
    """Return the package proxy, which lives on the console: the build zone has no other way out."""
    return (
        Program(
            str(Network.CONSOLE),
            "egress-proxy",
            (binary("tinyproxy"), "-d", "-c", str(proxy_folder() / "tinyproxy.conf")),
            user=PROXY_USER,
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
        found.append(_line(zone, "zone", ("flows.zone", *arguments), python, after=needs, port=Port.ZONE_API))
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
            **python.environment,
        },
        after=after,
        check=Check("http", host=address(zone), port=port, path=path),
        essential=False,
        stop_seconds=15,
        umask=umask,
        start_seconds=20,
    )
