"""The sandbox: where installs, compilers and the user's own build step run, without network, keys or sockets.

Each run is a fresh container from a standard image, addressed by the image's id: no network, read-only root, no
capabilities, no new privileges, an ordinary user, limits on processes, memory, processor, files and time. What it may
read is bind-mounted read-only. What it makes is in a tmpfs of limited size, comes out as a tar archive through a pipe,
and is hostile until `pack` has read it. Nothing of a run survives it, and its log is kept by nobody but the caller.

A pipe and not the engine's own stream: it is several times faster, and a step that prints without end meets a full
pipe, then its end, while the engine and the line hold no more than a few kilobytes of it.
"""

from __future__ import annotations

import fcntl
import os
import select
import shlex
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import docker
import docker.errors

from sekisho.builds import SandboxLimits
from sekisho.errors import Refusal, SekishoError, TemporaryError
from sekisho.registry import Registry
from stages.build.compose import Base
from stages.build.engine import HOSTNAME, LABEL, USER, Engine
from stages.build.engine_network import NONE
from stages.build.failures import remedy_of

__all__ = ["INPUTS", "LABEL", "USER", "Command", "Sandbox", "SandboxLimits"]

INPUTS = "/in"
"""Folder in the sandbox whose entries are what the step may read."""
SEED, OVERLAY, INDEX, PIPES = "seed", "overlay", "index", "pipes"
"""Inputs with a meaning: `seed` and then `overlay` are copied into the step's folder; with `index`, a forwarder from
127.0.0.1:8001 to its socket runs beside the step; `pipes` is the way out."""

_OUTPUT, _LOG = "output", "log"
_LOG_SHOWN = 64 * 1024
_PIECE = 1 << 20
_PIPE_BYTES = 1 << 20
_F_SETPIPE_SZ = 1031
_KILLED, _ITSELF_KILLED = 137, 97
_SLACK = 64 << 20
"""What a tar archive may have beyond the files' bytes, for headers; per file another 1.5 KiB."""
_HEADERS = 1536


@dataclass(frozen=True)
class Command:
    """One command and all that it sees."""

    command: tuple[str, ...]
    directory: str = "."
    """Folder below /out to run in."""
    inputs: Mapping[str, Path] = field(default_factory=dict)
    """Name and path of what it may read, as /in/<name>."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables; never a secret."""
    outputs: tuple[str, ...] = ()
    """What to give back, as paths below /out; empty gives back all. What is not there is left out."""
    what: str = "build step"
    """What this is, for messages."""
    seconds: int | None = None
    """Longest run, if shorter than the limit."""


class Sandbox:
    """Runs commands in containers.

    Args:
        socket: the Docker engine's socket, reachable by the line and by nothing that it builds.
        registry: the zone's registry, from which standard images are loaded by digest.
        work: folder for files in passing.
        limits: what one run may use.
        ahead: keep something ready that the next run would wait for; see `Engine`.
    """

    def __init__(
        self,
        socket: Path,
        registry: Registry,
        work: Path,
        limits: SandboxLimits | None = None,
        *,
        ahead: bool = False,
    ) -> None:
        self._engine = Engine(socket, registry, work, ahead=ahead)
        self._work = work
        self._limits = limits or SandboxLimits()

    def run(self, base: Base, repository: str, command: Command, output: Path) -> str:
        """Run one command and write what it made to a tar archive.

        Args:
            base: the standard image to run in.
            repository: its repository in the zone's registry.
            command: the command.
            output: file to write; a tar archive of /out, hostile.

        Returns:
            The end of the log, at most 64 KiB.

        Raises:
            Refusal: the command failed, took too long, printed or made too much.
            TemporaryError: the Docker engine cannot be reached.
        """
        image = self._engine.image(base, repository)
        with ExitStack() as stack:
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=self._work, prefix="pipes-")))
            scratch.chmod(0o755)
            pipes = {name: stack.enter_context(_pipe(scratch / name)) for name in (_OUTPUT, _LOG)}
            network = stack.enter_context(self._engine.network(image))
            client = stack.enter_context(self._engine.client())
            container = self._create(client, image, command, scratch, network)
            try:
                said = self._watch(client, container, command, pipes, output)
            except BaseException:
                self._engine.remove_now(container)  # it may be running still
                raise
            self._engine.remove(container)
            return said

    @property
    def owner(self) -> str:
        """Value of the label of this sandbox's containers."""
        return self._engine.owner

    def sweep(self) -> int:
        """Remove what a killed builder left behind, and return how many containers that were."""
        return self._engine.sweep()

    def rest(self) -> None:
        """Say that nobody waits for anything just now: what can wait until it is quiet is done."""
        self._engine.rest()

    def settle(self) -> None:
        """Wait until every container of earlier runs has gone."""
        self._engine.settle()

    def close(self) -> None:
        """Remove what was kept ready, and wait until every container has gone."""
        self._engine.close()

    def _create(self, client: docker.APIClient, image: str, command: Command, pipes: Path, network: str) -> str:
        limits = self._limits
        rights = f"rw,nosuid,nodev,uid={USER},gid={USER},mode=0755,nr_inodes={limits.files}"
        inputs = {**command.inputs, PIPES: pipes}
        host = client.create_host_config(
            network_mode=network,
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            pids_limit=limits.processes,
            mem_limit=limits.memory,
            memswap_limit=limits.memory,
            nano_cpus=int(min(limits.cpus, os.cpu_count() or 1) * 1_000_000_000),
            tmpfs={"/tmp": f"{rights},size={limits.scratch},exec", "/out": f"{rights},size={limits.output},exec"},  # noqa: S108
            mounts=[
                docker.types.Mount(target=f"{INPUTS}/{name}", source=str(path.resolve()), type="bind", read_only=True)
                for name, path in sorted(inputs.items())
            ],
            log_config=docker.types.LogConfig(type="none"),
        )
        made = client.create_container(
            image,
            entrypoint=["/bin/sh", "-c", script(command, inputs)],
            command=[],
            user=f"{USER}:{USER}",
            working_dir="/out",
            environment={
                "HOME": "/tmp",  # noqa: S108  (a tmpfs of the container)
                "LC_ALL": "C.UTF-8",
                "PYTHONDONTWRITEBYTECODE": "1",
                **command.environment,
            },
            # Who joins a network namespace has the name of the container that holds it.
            hostname=HOSTNAME if network == NONE else None,
            labels={LABEL: self._engine.owner},
            host_config=host,
            # The engine's client configuration may hold proxies with passwords.
            use_config_proxy=False,
        )
        return str(made["Id"])

    def _watch(
        self, client: docker.APIClient, container: str, command: Command, pipes: Mapping[str, int], output: Path
    ) -> str:
        limits = self._limits
        seconds = min(command.seconds or limits.seconds, limits.seconds)
        with output.open("wb") as file:
            reading = _Reading(
                pipes,
                file,
                deadline=time.monotonic() + seconds,
                output=limits.output + _SLACK + _HEADERS * limits.files,
                log=limits.log,
            )
            ended = _Ended(self._engine, container)
            try:
                client.start(container)
                ended.start()
                reading.until(ended.pipe)
            finally:
                over = reading.over
                if not reading.whole:
                    with suppress(docker.errors.APIError):
                        client.kill(container)
                ended.close()
            status = ended.status()
        what = command.what
        if over == "time":
            raise Refusal(f"The {what} ran longer than {seconds} seconds.", where=what,
                          remedy="Make the step shorter, or ask the platform team for more time.")  # fmt: skip
        if over == _LOG:
            raise Refusal(f"The {what} printed more than {limits.log >> 20} MiB.", where=what,
                          remedy=f"Make it say less. Its last words: {_last_lines(reading.text)}")  # fmt: skip
        if over:
            raise Refusal(f"The {what} made more than {limits.output >> 20} MiB.", where=what,
                          remedy="Leave out what the workload does not need to run.")  # fmt: skip
        if status:
            raise self._failed(client, container, what, status, reading.text)
        return reading.text

    def _failed(
        self, client: docker.APIClient, container: str, what: str, status: int, text: str
    ) -> Refusal | TemporaryError:
        try:
            state = client.inspect_container(container)["State"]
        except docker.errors.NotFound:
            state = {}
        starved = state.get("OOMKilled", False)
        if status == _KILLED and not starved:
            return TemporaryError(
                f"The {what} was stopped from outside, with its container.", where="Docker engine",
                remedy="See whether the engine was started anew.", delay=5.0,
            )  # fmt: skip
        why = f" It used more memory than its {self._limits.memory >> 20} MiB." if starved else ""
        shown = _KILLED if status == _ITSELF_KILLED else status
        return Refusal(
            f"The {what} failed with status {shown}.{why} Its last words: {_last_lines(text)}",
            where=what,
            remedy=remedy_of(text, self._limits, starved=starved),
        )


def script(command: Command, inputs: Mapping[str, Any]) -> str:
    """Return the shell script that is the container's process: copy in, run, give back."""
    folder = shlex.quote(f"/out/{command.directory}")
    way = f"{INPUTS}/{PIPES}"
    lines = ["set -e", f"exec >{way}/{_LOG} 2>&1 </dev/null", f"mkdir -p {folder}"]
    lines += [f"cp -R {INPUTS}/{name}/. {folder}" for name in (SEED, OVERLAY) if name in inputs]
    if INDEX in inputs:
        forward = f"UNIX-CONNECT:{INPUTS}/{INDEX}/index.sock"
        lines.append(f"socat TCP-LISTEN:8001,bind=127.0.0.1,fork,reuseaddr {forward} &")
        ask = "socat -u OPEN:/dev/null TCP:127.0.0.1:8001"
        lines.append(f"tries=0; until {ask} 2>/dev/null || [ $tries = 50 ]; do tries=$((tries + 1)); sleep 0.1; done")
    # 137 is left to what happens to the container as a whole.
    status = f"status=$?; if [ $status = {_KILLED} ]; then status={_ITSELF_KILLED}; fi; exit $status"
    lines += [f"cd {folder}", f"{shlex.join(command.command)} || {{ {status}; }}", "cd /out"]
    tar = f"exec tar --create --file={way}/{_OUTPUT} --format=gnu --hard-dereference --numeric-owner"
    if command.outputs:
        wanted = " ".join(shlex.quote(f"./{path}") for path in command.outputs)
        lines.append(f'set -- ; for path in {wanted}; do if [ -e "$path" ]; then set -- "$@" "$path"; fi; done')
        lines.append(f'{tar} --files-from=/dev/null -- "$@"')
    else:
        lines.append(f"{tar} .")
    return "\n".join(lines)


class _pipe:  # noqa: N801  (used like a function)
    """A named pipe that both sides may open at any time; gives the descriptor to read from."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path, 0o600)
        path.chmod(0o622)  # whatever the umask: the sandbox's user writes, and does not read
        # Open for writing as well: a writer that closes is then no end, which only the container's end is.
        self._descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        with suppress(OSError):
            fcntl.fcntl(self._descriptor, _F_SETPIPE_SZ, _PIPE_BYTES)

    def __enter__(self) -> int:
        return self._descriptor

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


class _Reading:
    """What has come out of a container so far, within its bounds."""

    def __init__(self, pipes: Mapping[str, int], file: IO[bytes], *, deadline: float, output: int, log: int) -> None:
        self._names = {descriptor: name for name, descriptor in pipes.items()}
        self._file = file
        self._deadline = deadline
        self._left = {_OUTPUT: output, _LOG: log}
        self._log = bytearray()
        self.over = ""
        """What was exceeded: `time`, `output` or `log`; empty while all is well."""
        self.whole = False
        """Whether the container ended by itself and everything was read."""

    @property
    def text(self) -> str:
        """The end of the log."""
        return self._log.decode("utf-8", "replace")

    def until(self, end: int) -> None:
        """Read until `end` can be read and the pipes are empty, or a bound is exceeded."""
        poll = select.poll()
        for descriptor in (*self._names, end):
            poll.register(descriptor, select.POLLIN)
        ended = False
        while not self.over:
            left = self._deadline - time.monotonic()
            ready = [descriptor for descriptor, _ in poll.poll(0 if ended else max(left, 0) * 1000)]
            if end in ready:
                ended = True
                poll.unregister(end)
                continue
            for descriptor in ready:
                self._take(descriptor)
            if not ready and ended:
                self.whole = True
                return
            if not ended and time.monotonic() >= self._deadline:
                self.over = "time"

    def _take(self, descriptor: int) -> None:
        name = self._names[descriptor]
        try:
            piece = os.read(descriptor, _PIECE)
        except BlockingIOError:
            return
        self._left[name] -= len(piece)
        if self._left[name] < 0:
            self.over = name
        elif name == _OUTPUT:
            self._file.write(piece)
        if name == _LOG:
            self._log += piece
            del self._log[:-_LOG_SHOWN]


class _Ended:
    """Waits for a container's end in a thread of its own; `pipe` can be read then."""

    def __init__(self, engine: Engine, container: str) -> None:
        self._engine = engine
        self._container = container
        self.pipe, self._end = os.pipe2(os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._wait, name="sandbox-wait", daemon=True)
        self._status: int | None = None
        self._error: Exception | None = None

    def start(self) -> None:
        self._thread.start()

    def status(self) -> int:
        """Return the exit status, after `close`."""
        if self._error is not None:
            raise self._error
        return self._status or 0

    def close(self) -> None:
        if self._thread.ident is not None:
            self._thread.join()
        os.close(self.pipe)
        os.close(self._end)

    def _wait(self) -> None:
        try:
            with self._engine.client() as client:
                self._status = int(client.wait(self._container, timeout=None)["StatusCode"])
        except SekishoError as error:
            self._error = error
        finally:
            os.write(self._end, b"x")


def _last_lines(text: str) -> str:
    shown = "".join(letter if letter.isprintable() else " " for letter in " | ".join(text.strip().splitlines()[-5:]))
    return shown[-600:] or "(none)"
