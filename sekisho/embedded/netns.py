"""Being in another network namespace: by `nsenter` for programs, by setns(2) for single sockets."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from sekisho.errors import PermanentError, SekishoError, TemporaryError
from sekisho.zones import Network, Zone

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_RUN_NETNS = Path("/run/netns")
ROUTER = "sk-router"
"""Name of the namespace that joins the zones' networks; the firewall between zones lives in it."""


def namespace(network: Network | Zone | str) -> str:
    """Return the name of a network's namespace; empty for the console, which is the machine's own."""
    network = Network(str(network))
    return "" if network is Network.CONSOLE else f"sk-{network}"


def namespace_path(name: str) -> Path:
    """Return the file that holds a named namespace open."""
    return _RUN_NETNS / name


def exists(name: str) -> bool:
    """Tell whether a named namespace is there and is really a namespace (not the empty file of a failed mount)."""
    path = namespace_path(name)
    return path.exists() and path.stat().st_dev != _RUN_NETNS.stat().st_dev


def in_zone(network: Network | Zone | str) -> list[str]:
    """Return the command prefix that enters a network; empty for the console.

    `ip netns exec` would remount /sys and hide the cgroups, hence nsenter.
    """
    name = namespace(network)
    return [] if not name else ["nsenter", f"--net={namespace_path(name)}", "--"]


def run_in(
    network: Network | Zone | str,
    argv: Sequence[str | Path],
    *,
    user: str = "",
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
    timeout: float = 60.0,
    check: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Run a program in a network.

    Args:
        network: where.
        argv: program and arguments.
        user: the operating system's user to run as; empty for the caller's.
        env: the whole environment; the caller's when None.
        stdin: text for the standard input.
        timeout: seconds.
        check: raise when the program fails.

    Raises:
        TemporaryError: not done in time.
        PermanentError: the program is missing, or failed and `check` is set; carries the end of its standard error.
    """
    command = [*in_zone(network), *as_user(user), *map(str, argv)]
    return run(command, env=env, stdin=stdin, timeout=timeout, check=check, where=str(network))


def as_user(user: str) -> list[str]:
    """Return the command prefix that becomes a user for good: no capability, no way back by a setuid program."""
    if not user:
        return []
    return [
        "setpriv",
        f"--reuid={user}",
        f"--regid={user}",
        "--init-groups",
        "--no-new-privs",
        "--inh-caps=-all",
        "--bounding-set=-all",
        "--",
    ]


def run(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
    timeout: float = 60.0,
    check: bool = True,
    where: str = "",
) -> subprocess.CompletedProcess[str]:
    """Run a program and return what it wrote; see `run_in`."""
    command = [str(part) for part in argv]
    try:
        done = subprocess.run(
            command,
            env=None if env is None else dict(env),
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError as error:
        raise PermanentError(
            f"The program {command[0]} is not installed.",
            where=where,
            remedy="Run scripts/setup, then `sekisho doctor`.",
        ) from error
    except subprocess.TimeoutExpired as error:
        raise TemporaryError(f"{_name(command)} did not end within {timeout:g} s.", where=where) from error
    if check and done.returncode != 0:
        raise PermanentError(f"{_name(command)} failed ({done.returncode}): {done.stderr.strip()[-400:]}", where=where)
    return done


def _name(command: Sequence[str]) -> str:
    """Return what a command is really about, without its prefixes and without arguments that may be secret."""
    words = list(command)
    while "--" in words and Path(words[0]).name in {"nsenter", "setpriv"}:
        words = words[words.index("--") + 1 :]
    return " ".join(word for word in words[:3] if "=" not in word)


def call_in(network_namespace: str, call: Callable[[], T]) -> T:
    """Run `call` in a thread that has entered a named namespace, and return its result.

    A network namespace is a property of the thread, so nobody else notices; a socket keeps the namespace it was
    made in.

    Raises:
        PermanentError: the namespace is not there, or may not be entered.
    """
    if not network_namespace:
        return call()
    result: list[T] = []
    failure: list[Exception] = []

    def enter() -> None:
        try:
            _setns(network_namespace)
            result.append(call())
        except Exception as error:  # noqa: BLE001 -- carried over to the caller's thread
            failure.append(error)

    thread = threading.Thread(target=enter, daemon=True)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]


def _setns(name: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        descriptor = os.open(namespace_path(name), os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise PermanentError(
            f"The network namespace {name} is not there.", remedy="Start the zones: sekisho up"
        ) from error
    try:
        if libc.setns(descriptor, _CLONE_NEWNET) != 0:
            code = ctypes.get_errno()
            raise PermanentError(
                f"The network namespace {name} cannot be entered: {os.strerror(code)}.",
                remedy="Run as root with CAP_SYS_ADMIN.",
            )
    finally:
        os.close(descriptor)


def open_socket(network: Network | Zone | str) -> socket.socket:
    """Return a new IPv4 TCP socket that lives in a network."""
    return call_in(namespace(network), lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))


def connect(network: Network | Zone | str, host: str, port: int, *, timeout: float = 2.0) -> socket.socket:
    """Open a TCP connection from inside a network.

    Raises:
        OSError: refused, unreachable or timed out, as connect(2) says it.
    """
    sock = open_socket(network)
    try:
        sock.settimeout(timeout)
        sock.connect((host, port))
    except BaseException:
        sock.close()
        raise
    return sock


def answers(network: Network | Zone | str, host: str, port: int, *, timeout: float = 0.5) -> bool:
    """Tell whether something accepts TCP connections at an address, seen from inside a network."""
    try:
        connect(network, host, port, timeout=timeout).close()
    except (OSError, SekishoError):
        return False
    return True
