"""The supervisor: supervisord's configuration, and talking to it over its unix socket (XML-RPC).

Starting, restarting, log rotation and exit codes are supervisord's; the order is `sekisho.embedded.zones`'s.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Iterable
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any

from supervisor.xmlrpc import SupervisorTransport

from sekisho.embedded import netns
from sekisho.embedded.pki import write_private
from sekisho.errors import PermanentError, TemporaryError
from sekisho.zones import Network, home

_SOCKET_PATH_LIMIT = 107
"""sun_path of unix(7), less the closing zero."""


@dataclass(frozen=True)
class Check:
    """How a program says that it serves.

    Attributes:
        kind: `tcp` (accepts a connection), `http` (answers 200 at path), `https` (the same, trusting nothing and
            telling nothing: only whether it answers), `socket` (a unix socket at path accepts a connection).
    """

    kind: str
    host: str = "127.0.0.1"
    port: int = 0
    path: str = ""


@dataclass(frozen=True)
class Program:
    """One process of a zone.

    Attributes:
        zone: a zone, or `console` for what runs in the machine's own namespace.
        name: name within the zone.
        argv: program and arguments, without prefixes.
        user: the operating system's user; empty for root.
        environment: the whole environment beside PATH.
        after: names of steps of the same zone that must be done first.
        check: how it says that it serves; None when running is enough.
        enabled: False keeps it in the configuration, stopped.
        essential: False lets `up` succeed while this one still comes up.
        whole_group: stop every process of its process group with it.
    """

    zone: str
    name: str
    argv: tuple[str, ...]
    user: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    directory: Path | None = None
    after: tuple[str, ...] = ()
    check: Check | None = None
    enabled: bool = True
    essential: bool = True
    whole_group: bool = True
    stop_seconds: int = 10
    stop_signal: str = "TERM"
    umask: str = "077"
    start_seconds: int = 3
    """Who dies within this time is started again later and later, and not at once."""

    @property
    def full_name(self) -> str:
        """Name in the supervisor."""
        return f"{self.zone}.{self.name}"

    @property
    def network(self) -> Network:
        """The network that it lives in."""
        return Network(self.zone)


@dataclass(frozen=True)
class ProcessState:
    """What the supervisor says about a program."""

    name: str
    state: str
    pid: int
    started_at: int
    description: str

    @property
    def running(self) -> bool:
        """Whether there is a process."""
        return self.state in {"RUNNING", "STARTING"}


def run_folder() -> Path:
    """Return the folder of sockets, pid files and locks (mode 0700)."""
    return home() / "run"


def socket_path() -> Path:
    """Return the supervisor's control socket."""
    return run_folder() / "supervisor.sock"


def pid_path() -> Path:
    """Return the supervisor's pid file."""
    return run_folder() / "supervisord.pid"


def config_path() -> Path:
    """Return the supervisor's configuration."""
    return run_folder() / "supervisord.conf"


def render(programs: Iterable[Program], logs: dict[str, Path]) -> str:
    """Return supervisord's configuration.

    Args:
        programs: all programs of all zones, running or not.
        logs: the log folder of each zone.
    """
    folder = run_folder()
    parts = [
        "[unix_http_server]",
        f"file = {_value(socket_path())}",
        "chmod = 0700",
        "",
        "[supervisord]",
        f"logfile = {_value(folder / 'supervisord.log')}",
        "logfile_maxbytes = 10MB",
        "logfile_backups = 1",
        "loglevel = info",
        f"pidfile = {_value(pid_path())}",
        "minfds = 1024",
        "minprocs = 200",
        f"identifier = {_value(home())}",
        f"directory = {_value(folder)}",
        f"childlogdir = {_value(folder)}",
        "user = root",
        "strip_ansi = false",
        "",
        "[rpcinterface:supervisor]",
        "supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface",
        "",
        "[supervisorctl]",
        f"serverurl = unix://{_value(socket_path())}",
        "",
    ]
    for program in programs:
        parts += [*_section(program, logs[program.zone]), ""]
    return "\n".join(parts)


def _section(program: Program, logs: Path) -> list[str]:
    argv = [*netns.in_zone(program.network), *netns.as_user(program.user), *program.argv]
    environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", **program.environment}
    return [
        f"[program:{program.full_name}]",
        f"command = {' '.join(_word(word) for word in argv)}",
        # The environment of whoever called `up` does not reach the zones.
        "environment = " + ",".join(f"{key}={_quoted(value)}" for key, value in sorted(environment.items())),
        f"directory = {_value(program.directory or '/')}",
        f"umask = {program.umask}",
        "autostart = false",
        "autorestart = true",
        f"startsecs = {program.start_seconds}",
        "startretries = 1000000",
        f"stopsignal = {program.stop_signal}",
        f"stopwaitsecs = {program.stop_seconds}",
        f"stopasgroup = {str(program.whole_group).lower()}",
        f"killasgroup = {str(program.whole_group).lower()}",
        "redirect_stderr = true",
        f"stdout_logfile = {_value(logs / f'{program.name}.log')}",
        "stdout_logfile_maxbytes = 10MB",
        "stdout_logfile_backups = 1",
    ]


def _value(text: object) -> str:
    """Return `text` as a value of an INI file, where `%` expands and `;` after a space starts a comment."""
    value = str(text)
    if any(sign in value for sign in "\n\r\0") or " ;" in value:
        raise PermanentError("A path or argument holds a character that the supervisor cannot carry.", where=value[:80])
    return value.replace("%", "%%")


def _word(word: str) -> str:
    """Return one word of a command for shlex, which is what supervisord splits with."""
    value = _value(word)
    if value and all(sign.isalnum() or sign in "@%+=:,./_-" for sign in value):
        return value
    return "'" + value.replace("'", "'\"'\"'") + "'"


def _quoted(value: str) -> str:
    if '"' in value or "\\" in value:
        raise PermanentError("A value of the environment holds a character that the supervisor cannot carry.")
    return f'"{_value(value)}"'


class Supervisor:
    """The running supervisord of this installation."""

    def __init__(self) -> None:
        transport = SupervisorTransport(None, None, f"unix://{socket_path()}")
        self._proxy: Any = xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)

    @staticmethod
    def alive() -> bool:
        """Tell whether a supervisord answers on the socket."""
        probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        probe.settimeout(2)
        try:
            probe.connect(str(socket_path()))
        except OSError:
            return False
        finally:
            probe.close()
        return True

    def call(self, method: str, *arguments: object) -> Any:
        """Call a method of supervisord's API (http://supervisord.org/api.html).

        Raises:
            TemporaryError: no supervisor answers.
            xmlrpc.client.Fault: the supervisor says no.
        """
        target = self._proxy
        for part in ("supervisor", *method.split(".")):
            target = getattr(target, part)
        try:
            return target(*arguments)
        except (OSError, HTTPException) as error:
            raise TemporaryError(
                "The supervisor of the zones does not answer.", where=str(socket_path()), remedy="sekisho up"
            ) from error

    def states(self) -> dict[str, ProcessState]:
        """Return the state of every program by its full name."""
        return {
            item["name"]: ProcessState(
                name=item["name"],
                state=item["statename"],
                pid=item["pid"],
                started_at=item["start"],
                description=item["description"]
                if item["statename"] == "RUNNING"
                else item["spawnerr"] or item["description"],
            )
            for item in self.call("getAllProcessInfo")
        }

    def reload(self) -> None:
        """Take over the configuration; what ran and changed is started anew with it."""
        added, changed, removed = self.call("reloadConfig")[0]
        states = self.states()
        ran = [name for name in changed if states[name].running]
        self.stop([*removed, *changed], seconds=30)
        for name in [*removed, *changed]:
            self.call("stopProcessGroup", name)
            self.call("removeProcessGroup", name)
        for name in [*added, *changed]:
            self.call("addProcessGroup", name)
        for name in ran:
            self.start(name)

    def start(self, name: str) -> None:
        """Start a program unless it runs; does not wait."""
        try:
            self.call("startProcess", name, False)
        except xmlrpc.client.Fault as fault:
            if "ALREADY_STARTED" not in fault.faultString:
                raise PermanentError(f"{name} cannot be started: {fault.faultString}", where=name) from fault

    def stop(self, names: Iterable[str], *, seconds: float = 20.0) -> None:
        """Stop programs side by side and wait until they are gone."""
        wanted = set(names)
        for name in wanted:
            try:
                self.call("stopProcess", name, False)
            except xmlrpc.client.Fault:
                continue
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            left = [state for name, state in self.states().items() if name in wanted and state.state not in _ENDED]
            if not left:
                return
            time.sleep(0.1)


_ENDED = {"STOPPED", "EXITED", "FATAL", "UNKNOWN"}


def ensure_supervisor(config: str) -> tuple[Supervisor, bool]:
    """Write the configuration and have a supervisord run with it.

    Returns:
        the supervisor, and whether it was started just now.

    Raises:
        PermanentError: it cannot be started; says the end of its log.
    """
    if len(os.fsencode(socket_path())) + len(".12345") > _SOCKET_PATH_LIMIT:
        raise PermanentError(
            "The path of the embedded home is too long for unix sockets.",
            where=str(home()),
            remedy="Choose a shorter SEKISHO_HOME.",
        )
    before = config_path().read_text(encoding="utf-8") if config_path().exists() else ""
    if before != config:
        write_private(config_path(), config.encode())
    if Supervisor.alive():
        supervisor = Supervisor()
        if before != config:
            supervisor.reload()
        return supervisor, False
    _start()
    return Supervisor(), True


def _start() -> None:
    socket_path().unlink(missing_ok=True)
    # A script that starts us with `&` makes us ignore SIGINT, and every process of the zones would inherit that.
    command = ["env", "--default-signal", sys.executable, "-m", "supervisor.supervisord", "-c", str(config_path())]
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8"},
        start_new_session=True,
        cwd="/",
        timeout=30,
        check=False,
    )
    if done.returncode != 0:
        raise PermanentError(
            f"The supervisor does not start: {done.stderr.decode(errors='replace').strip()[-400:]}",
            where=str(config_path()),
            remedy=f"See {run_folder() / 'supervisord.log'}.",
        )
    end = time.monotonic() + 15
    while not Supervisor.alive():
        if time.monotonic() > end:
            raise TemporaryError("The supervisor does not answer.", where=str(socket_path()))
        time.sleep(0.05)


def shutdown(*, seconds: float = 20.0) -> None:
    """End the supervisor, after all its programs."""
    if not Supervisor.alive():
        return
    pid = int(pid_path().read_text(encoding="ascii")) if pid_path().exists() else 0
    Supervisor().call("shutdown")
    end = time.monotonic() + seconds
    while time.monotonic() < end and (Supervisor.alive() or (pid and Path(f"/proc/{pid}").exists())):
        time.sleep(0.05)
