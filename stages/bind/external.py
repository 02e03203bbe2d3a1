"""postgres-external: a role and a database of its own for the workload, in a server outside the cluster."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import psycopg
from psycopg import sql

from sekisho.errors import PermanentError, Refusal, TemporaryError
from sekisho.model import Binding, Explained
from sekisho.vault import Vault, fingerprint
from stages.bind.contract import Request, binding_secret, check_need, identifier, postgres_entries

_OPTIONS = {"host", "port", "admin_secret", "admin_user", "admin_database", "sslmode"}
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}")
_CONNECT_SECONDS = 5
_ATTRIBUTES = sql.SQL("LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS NOINHERIT")


@dataclass(frozen=True)
class _Server:
    host: str
    port: int
    user: str
    password: str
    database: str
    sslmode: str


class PostgresExternal:
    """Ensures a role and a database in a PostgreSQL server, with the zone's admin credential.

    Options: `host` (an address, so that the network rule can name it), `port` (5432), `admin_secret` (file in the
    zone's secrets: the password, or JSON with username and password), `admin_user` (`postgres`), `admin_database`
    (`postgres`), `sslmode` (`prefer`; see libpq).
    """

    def names(self, request: Request) -> tuple[tuple[str, str], ...]:
        """Return what `bind` will give."""
        return (("Secret", request.secret),)

    def check(self, request: Request) -> None:
        """Refuse a need or options that cannot be met; reads the admin credential, connects nowhere."""
        check_need(request)
        _server(request)

    def bind(self, request: Request, vault: Vault) -> Binding:
        """Ensure role and database, and return the Secret without data."""
        server = _server(request)
        role = identifier(request.app, request.need.name)
        entries = postgres_entries(request, vault, host=server.host, port=server.port, username=role, database=role)
        _ensure(server, role, entries["password"])
        mark = fingerprint(vault, entries)
        return Binding(
            need=request.need.name,
            type=request.need.type,
            provider=request.capability.provider,
            secret=request.secret,
            fingerprint=mark,
            address=f"{server.host}:{server.port}",
            objects=(binding_secret(request, mark, entries),),
            explained=(
                Explained(
                    object=f"Secret/{request.secret}",
                    path="",
                    why="The workload needs a postgres; this zone keeps data outside the cluster, "
                    f"so it has role and database {role} there and may reach nothing else in that server.",
                    by=request.by,
                ),
            ),
        )


def _server(request: Request) -> _Server:
    options = request.capability.options
    unknown = sorted(set(options) - _OPTIONS)
    if unknown:
        raise request.refuse(f"the profile's capability has unknown options: {', '.join(unknown)}.")
    try:
        host = str(ip_address(str(options.get("host", ""))))
        port = int(options.get("port", 5432))
    except ValueError as error:
        raise request.refuse(
            "the profile gives no address of the server.", "Set options host (an IP address) and port."
        ) from error
    name = str(options.get("admin_secret", ""))
    if not _FILE.fullmatch(name):
        raise request.refuse("the profile names no admin credential.", "Set option admin_secret to a file's name.")
    user, password = _credential(request, name)
    return _Server(
        host=host,
        port=port,
        user=user,
        password=password,
        database=str(options.get("admin_database", "postgres")),
        sslmode=str(options.get("sslmode", "prefer")),
    )


def _credential(request: Request, name: str) -> tuple[str, str]:
    path = request.services.secrets / name
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        with os.fdopen(handle, encoding="utf-8") as file:
            if os.fstat(file.fileno()).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise PermanentError(
                    "The admin credential is open to others.", where=str(path), remedy="chmod 0600 it, and change it."
                )
            text = file.read(10_000).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise PermanentError(
            "The admin credential of the external server cannot be read.",
            where=str(path),
            remedy="Put the password there, with mode 0600.",
        ) from error
    user = str(request.capability.options.get("admin_user", "postgres"))
    if text.startswith("{"):
        try:
            content = json.loads(text)
            return str(content.get("username", user)), str(content["password"])
        except (ValueError, KeyError) as error:
            raise PermanentError("The admin credential is not valid JSON with a password.", where=str(path)) from error
    if not text:
        raise PermanentError("The admin credential is empty.", where=str(path))
    return user, text


@contextmanager
def _connection(server: _Server, database: str) -> Iterator[psycopg.Connection[Any]]:
    where = f"postgres {server.host}:{server.port}/{database}"
    try:
        with psycopg.connect(
            host=server.host,
            port=server.port,
            user=server.user,
            password=server.password,
            dbname=database,
            sslmode=server.sslmode,
            connect_timeout=_CONNECT_SECONDS,
            autocommit=True,
            application_name="sekisho",
            options="-c statement_timeout=20000 -c lock_timeout=10000",
        ) as connection:
            yield connection
    except psycopg.OperationalError as error:
        # Before a session exists there is no SQLSTATE; the server's words on a wrong password are stable.
        if "authentication failed" in str(error) or "no pg_hba.conf entry" in str(error):
            raise PermanentError(
                f"The external PostgreSQL does not accept {server.user}.",
                where=where,
                remedy="Check the admin credential in the zone's secrets and the server's pg_hba.conf.",
            ) from None
        raise TemporaryError(
            f"The external PostgreSQL cannot be reached: {type(error).__name__}.",
            where=where,
            remedy="Check that the server runs and that the zone may connect to it.",
            delay=5.0,
        ) from None
    except psycopg.Error as error:
        raise PermanentError(
            f"The external PostgreSQL refuses: {error.diag.message_primary or type(error).__name__}.", where=where
        ) from None


def _ensure(server: _Server, role: str, password: str) -> None:
    """Ensure the role, its password, its database, and that nobody else may connect to that."""
    name = sql.Identifier(role)
    with _connection(server, server.database) as admin:
        # Two binds of one app at once would both find nothing and both create.
        admin.execute("SELECT pg_advisory_lock(hashtext(%s))", (f"sekisho/{role}",))
        found = admin.execute("SELECT rolsuper FROM pg_roles WHERE rolname = %s", (role,)).fetchone()
        if found is not None and found[0]:
            raise Refusal(
                f"The role {role} is a superuser of the external server; the line does not take it over.",
                where=f"postgres {server.host}:{server.port}",
                remedy="Remove the role, or rename the workload's resource.",
            )
        verb = sql.SQL("CREATE" if found is None else "ALTER")
        if found is None or not _accepts(server, role, password):
            # The server's log may hold the statement: it gets the SCRAM verifier, never the password.
            verifier = admin.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256").decode()
            admin.execute(sql.SQL("{} ROLE {} {} PASSWORD {}").format(verb, name, _ATTRIBUTES, sql.Literal(verifier)))
        else:
            admin.execute(sql.SQL("ALTER ROLE {} {}").format(name, _ATTRIBUTES))
        owner = admin.execute("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = %s", (role,)).fetchone()
        if owner is None:
            admin.execute(sql.SQL("GRANT {} TO CURRENT_USER").format(name))
            admin.execute(sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE template0 ENCODING 'UTF8'").format(name, name))
        elif owner[0] != role:
            raise Refusal(
                f"The database {role} of the external server belongs to somebody else.",
                where=f"postgres {server.host}:{server.port}",
                remedy="Give it to the role of the same name, or rename the workload's resource.",
            )
        admin.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(name))
    with _connection(server, role) as inside:
        # Before PostgreSQL 15 everybody may create in schema public; from 15 on its owner is the database's.
        inside.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        inside.execute(sql.SQL("GRANT USAGE, CREATE ON SCHEMA public TO {}").format(name))


def _accepts(server: _Server, role: str, password: str) -> bool:
    """Return whether the role's password is this one; a password is not set anew for nothing."""
    try:
        with psycopg.connect(
            host=server.host,
            port=server.port,
            user=role,
            password=password,
            dbname=role,
            sslmode=server.sslmode,
            connect_timeout=_CONNECT_SECONDS,
        ):
            return True
    except psycopg.Error:
        return False
