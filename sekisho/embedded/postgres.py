"""PostgreSQL: one server for each zone that keeps records, and production's server outside the cluster."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path

from sekisho.embedded import firewall, netns
from sekisho.embedded.binaries import binary
from sekisho.embedded.owners import EXTERNAL_USER, Owner, ensure_folder, write_file
from sekisho.embedded.supervise import Check, Program
from sekisho.errors import PermanentError, TemporaryError
from sekisho.zones import EXTERNAL_DATABASE_HOST, Port, Zone, ZoneHome, address, home, subnet

ZONES = (Zone.BUILD, Zone.OPS, Zone.STAGING, Zone.PRODUCTION)
"""Zones with a server of their own."""
DATABASES = ("prefect", "sekisho")
EXTERNAL = "external-postgres"
_ADMIN = "postgres"


@dataclass(frozen=True)
class Server:
    """One PostgreSQL server.

    Attributes:
        zone: whose network it lives in.
        name: the program's name.
        folder: holds its data, configuration and socket.
        user: the operating system's user.
        listen: the one address that it listens on.
        networks: who may try a password over TCP.
    """

    zone: Zone
    name: str
    folder: Path
    user: str
    listen: str
    networks: tuple[str, ...]

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.folder / "data"

    @property
    def socket(self) -> Path:
        """Folder of the unix socket."""
        return self.folder / "socket"

    def program(self) -> Program:
        """Return the process."""
        return Program(
            str(self.zone),
            self.name,
            (binary("postgres"), "-D", str(self.data), "-c", f"config_file={self.folder / 'postgresql.conf'}"),
            user=self.user,
            environment={"LANG": "C.UTF-8"},
            after=(f"{self.name}-data",),
            check=Check("tcp", host=self.listen, port=Port.POSTGRES),
            # SIGINT would be PostgreSQL's fast shutdown; SIGTERM waits for clients, and supervisord then kills.
            stop_signal="INT",
            whole_group=False,
        )


def zone_server(zone: Zone) -> Server:
    """Return a zone's own server: on the loopback address of its namespace only."""
    zone_home = ZoneHome(zone)
    return Server(zone, "postgres", zone_home.root / "postgres", zone_home.user, "127.0.0.1", ("127.0.0.1/32",))


def external_server() -> Server:
    """Return production's server outside the cluster: for production's nodes and pods, nobody else."""
    zone = Zone.PRODUCTION
    return Server(
        zone,
        EXTERNAL,
        home() / EXTERNAL,
        EXTERNAL_USER,
        address(zone, EXTERNAL_DATABASE_HOST),
        (subnet(zone), firewall.pod_range(zone)),
    )


def write_server(server: Server) -> None:
    """Write a server's folders and configuration."""
    owner = Owner.of(server.user)
    ensure_folder(server.folder, 0o700, owner)
    ensure_folder(server.socket, 0o700, owner)
    hosts = [f"host all all {network} scram-sha-256" for network in server.networks]
    files = {
        "postgresql.conf": _configuration(server),
        "pg_hba.conf": "\n".join(["local all all peer map=sekisho", *hosts, ""]),
        "pg_ident.conf": f"sekisho root {_ADMIN}\nsekisho {server.user} {_ADMIN}\n",
    }
    for name, text in files.items():
        write_file(server.folder / name, text, 0o600, owner)


def _configuration(server: Server) -> str:
    return f"""listen_addresses = '{server.listen}'
port = {Port.POSTGRES}
unix_socket_directories = '{server.socket}'
hba_file = '{server.folder / "pg_hba.conf"}'
ident_file = '{server.folder / "pg_ident.conf"}'
password_encryption = 'scram-sha-256'
max_connections = 60
shared_buffers = 32MB
work_mem = 2MB
maintenance_work_mem = 16MB
wal_buffers = 1MB
max_wal_size = 256MB
min_wal_size = 32MB
autovacuum_max_workers = 1
max_worker_processes = 2
max_parallel_workers = 0
max_logical_replication_workers = 0
jit = off
log_min_messages = warning
log_timezone = 'UTC'
timezone = 'UTC'
"""


def initialise(server: Server) -> None:
    """Make the data directory, whole or not at all."""
    if (server.data / "PG_VERSION").exists():
        return
    partial = server.folder / "data.new"
    if partial.exists():
        netns.run(["rm", "-rf", "--one-file-system", partial])
    netns.run_in(
        server.zone,
        [binary("initdb"), "-D", partial, "-U", _ADMIN, "--auth-local=peer", "--auth-host=scram-sha-256",
         "--encoding=UTF8", "--locale=C.UTF-8", "--no-instructions"],
        user=server.user,
        env={"LANG": "C.UTF-8", "PATH": "/usr/bin:/bin"},
        timeout=120,
    )  # fmt: skip
    partial.rename(server.data)


def ensure_password(path: Path, owner: Owner) -> str:
    """Return the password in a file, made at first use."""
    if not path.exists():
        write_file(path, secrets.token_urlsafe(24), 0o600, owner)
    return path.read_text(encoding="ascii").strip()


def ensure_databases(zone: Zone) -> None:
    """Make a zone's roles and databases, with the passwords of its secrets folder."""
    zone_home = ZoneHome(zone)
    owner = Owner.of(zone_home.user)
    passwords = {name: ensure_password(zone_home.secrets / f"postgres-{name}", owner) for name in DATABASES}
    _provision(zone_server(zone), passwords, databases=DATABASES)


def ensure_external() -> None:
    """Set the administrator's password of production's external server."""
    zone_home = ZoneHome(Zone.PRODUCTION)
    password = ensure_password(zone_home.secrets / EXTERNAL, Owner.of(zone_home.user))
    _provision(external_server(), {_ADMIN: password}, databases=())


def _provision(server: Server, passwords: dict[str, str], databases: tuple[str, ...]) -> None:
    import psycopg  # noqa: PLC0415 -- a tenth of a second that `sekisho --help` must not pay
    from psycopg import sql  # noqa: PLC0415

    try:
        with psycopg.connect(
            host=str(server.socket),
            port=Port.POSTGRES,
            user=_ADMIN,
            dbname="postgres",
            autocommit=True,
            connect_timeout=5,
        ) as connection:
            for role, password in passwords.items():
                found = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,)).fetchone()
                if not found:
                    connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(role)))
                # Only the verifier crosses the wire, so no log can hold the password.
                verifier = connection.pgconn.encrypt_password(
                    password.encode(), role.encode(), b"scram-sha-256"
                ).decode()
                connection.execute(
                    sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), sql.Literal(verifier))
                )
            for name in databases:
                found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone()
                if not found:
                    connection.execute(
                        sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(name), sql.Identifier(name))
                    )
                connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(sql.Identifier(name)))
    except psycopg.OperationalError as error:
        raise TemporaryError(f"PostgreSQL does not answer: {error}", where=str(server.socket), delay=0.3) from error
    except psycopg.Error as error:
        raise PermanentError(f"PostgreSQL refuses: {error}", where=str(server.socket)) from error
