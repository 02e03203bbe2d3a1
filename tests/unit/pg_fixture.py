"""A real PostgreSQL for the tests of the ledger and ops: started once a process, emptied for each test."""

from __future__ import annotations

import atexit
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from sekisho.ops.store import engine_for


def _binaries() -> Path:
    for folder in (
        *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True),
        Path(shutil.which("initdb") or "/none").parent,
    ):
        if (folder / "initdb").exists():
            return folder
    pytest.skip("no PostgreSQL: install Debian's postgresql")


def _user() -> str | None:
    """PostgreSQL refuses to run as root."""
    return "postgres" if os.geteuid() == 0 else None


@cache
def server_port() -> int:
    """Start PostgreSQL in a directory that goes away with this process; return its port."""
    binaries = _binaries()
    folder = Path(tempfile.mkdtemp(prefix="sekisho-pg-"))
    if user := _user():
        os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    data = str(folder / "data")
    subprocess.run(
        [binaries / "initdb", "-D", data, "-U", "sekisho", "-A", "trust", "-N", "-E", "UTF8", "--locale=C.UTF-8"],
        user=user, check=True, capture_output=True, cwd="/",
    )  # fmt: skip
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
    control = [binaries / "pg_ctl", "-D", data, "-w"]
    subprocess.run(
        [*control, "-o", options, "-l", f"{data}/log", "start"],
        user=user, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/",
    )  # fmt: skip

    def stop() -> None:
        subprocess.run([*control, "-m", "immediate", "stop"], user=user, check=False, capture_output=True, cwd="/")
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(stop)
    return port


def fresh_engine() -> Engine:
    """Return an engine of an empty database; what was in it before is gone."""
    engine = engine_for("127.0.0.1", server_port(), "", database="postgres")
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    return engine
