"""The sandbox: where installs, compilers and the user's own build step run, without network, keys or sockets.

Each run is a fresh container from a standard image, addressed by the image's id: no network, read-only root, no
capabilities, no new privileges, an ordinary user, limits on processes, memory, processor, files and time. What it may
read is bind-mounted read-only. What it makes is in a tmpfs of limited size, comes out as a tar archive through a pipe,
and is hostile until `pack` has read it. Nothing of a run survives it, and its log is kept by nobody but the caller.
Some containers are started before their step is known (`sandbox_rooms`): they differ in nothing else.

A pipe and not the engine's own stream: it is several times faster, and a step that prints without end meets a full
pipe, then its end, while the engine and the line hold no more than a few kilobytes of it.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

import docker
import docker.errors

from sekisho.builds import SandboxLimits
from sekisho.errors import Refusal, SekishoError, TemporaryError
from sekisho.registry import Registry
from stages.build.compose import Base
from stages.build.engine import HOSTNAME, LABEL, USER, Engine
from stages.build.engine_network import NONE
from stages.build.failures import remedy_of
from stages.build.sandbox_command import INPUTS, ITSELF_KILLED, KILLED, PIPES, STARVED, Command, script
from stages.build.sandbox_pipes import LOG, OUTPUT, Pipe, Reading
from stages.build.sandbox_rooms import Room, Rooms

__all__ = ["INPUTS", "LABEL", "USER", "Command", "Sandbox", "SandboxLimits"]

_SLACK = 64 << 20
"""What a tar archive may have beyond the files' bytes, for headers; per file another 1.5 KiB."""
_HEADERS = 1536


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
        self._rooms = Rooms(self._engine, self._make_ready, work) if ahead else None
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
            room = stack.enter_context(self._room(image, command))
            client = stack.enter_context(self._engine.client())
            try:
                said = self._watch(client, room, command, output)
            except BaseException:
                self._engine.remove_now(room.container)  # it may be running still
                raise
            self._engine.remove(room.container)
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
        if self._rooms is not None:
            self._rooms.close()
        self._engine.close()

    @contextmanager
    def _room(self, image: str, command: Command) -> Iterator[Room]:
        """Give a container for one command: one that was made ready for such a command, else a new one."""
        with self._engine.building(image), ExitStack() as held:
            ready = self._rooms.take(image, command, held) if self._rooms is not None else None
            if ready is not None:
                yield ready
                return
            folder = Path(held.enter_context(tempfile.TemporaryDirectory(dir=self._work, prefix="pipes-")))
            folder.chmod(0o755)
            pipes = {name: held.enter_context(Pipe(folder / name)) for name in (OUTPUT, LOG)}
            network = held.enter_context(self._engine.network())
            client = held.enter_context(self._engine.client())
            inputs = {**command.inputs, PIPES: folder}
            container = self._create(
                client, image, script(command, inputs), inputs, environment=command.environment, network=network
            )
            yield Room(container, pipes, partial(client.start, container))

    def _make_ready(self, image: str, entry: str, inputs: Mapping[str, Path]) -> str:
        """Start a container whose command comes later."""
        with self._engine.client() as client:
            container = self._create(client, image, entry, inputs)
            try:
                client.start(container)
            except BaseException:
                self._engine.remove_now(container)
                raise
        return container

    def _create(
        self,
        client: docker.APIClient,
        image: str,
        entry: str,
        inputs: Mapping[str, Path],
        *,
        environment: Mapping[str, str] = {},
        network: str = NONE,
    ) -> str:
        limits = self._limits
        rights = f"rw,nosuid,nodev,uid={USER},gid={USER},mode=0755,nr_inodes={limits.files}"
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
                docker.types.Mount(
                    target=f"{INPUTS}/{name}".rstrip("/"), source=str(path.resolve()), type="bind", read_only=True
                )
                for name, path in sorted(inputs.items())
            ],
            log_config=docker.types.LogConfig(type="none"),
        )
        made = client.create_container(
            image,
            entrypoint=["/bin/sh", "-c", entry],
            command=[],
            user=f"{USER}:{USER}",
            working_dir="/out",
            environment={
                "HOME": "/tmp",  # noqa: S108  (a tmpfs of the container)
                "LC_ALL": "C.UTF-8",
                "PYTHONDONTWRITEBYTECODE": "1",
                **environment,
            },
            # Who joins a network namespace has the name of the container that holds it.
            hostname=HOSTNAME if network == NONE else None,
            labels={LABEL: self._engine.owner},
            host_config=host,
            # The engine's client configuration may hold proxies with passwords.
            use_config_proxy=False,
        )
        return str(made["Id"])

    def _watch(self, client: docker.APIClient, room: Room, command: Command, output: Path) -> str:
        limits = self._limits
        seconds = min(command.seconds or limits.seconds, limits.seconds)
        with output.open("wb") as file:
            reading = Reading(
                room.pipes,
                file,
                deadline=time.monotonic() + seconds,
                output=limits.output + _SLACK + _HEADERS * limits.files,
                log=limits.log,
            )
            ended = _Ended(self._engine, room.container)
            try:
                room.begin()
                ended.start()
                reading.until(ended.pipe)
            finally:
                over = reading.over
                if not reading.whole:
                    with suppress(docker.errors.APIError):
                        client.kill(room.container)
                ended.close()
            status = ended.status()
        what = command.what
        if over == "time":
            raise Refusal(f"The {what} ran longer than {seconds} seconds.", where=what,
                          remedy="Make the step shorter, or ask the platform team for more time.")  # fmt: skip
        if over == LOG:
            raise Refusal(f"The {what} printed more than {limits.log >> 20} MiB.", where=what,
                          remedy=f"Make it say less. Its last words: {_last_lines(reading.text)}")  # fmt: skip
        if over:
            raise Refusal(f"The {what} made more than {limits.output >> 20} MiB.", where=what,
                          remedy="Leave out what the workload does not need to run.")  # fmt: skip
        if status:
            raise self._failed(client, room.container, what, status, reading.text)
        return reading.text

    def _failed(
        self, client: docker.APIClient, container: str, what: str, status: int, text: str
    ) -> Refusal | TemporaryError:
        try:
            state = client.inspect_container(container)["State"]
        except docker.errors.NotFound:
            state = {}
        # The step counts for itself; the engine knows when its shell was ended too.
        starved = status == STARVED or state.get("OOMKilled", False)
        if status == KILLED and not starved:
            return TemporaryError(
                f"The {what} was stopped from outside, with its container.", where="Docker engine",
                remedy="See whether the engine was started anew.", delay=5.0,
            )  # fmt: skip
        shown = KILLED if status == ITSELF_KILLED else status
        why = f"used more memory than its {self._limits.memory >> 20} MiB" if starved else f"failed with status {shown}"
        return Refusal(
            f"The {what} {why}. Its last words: {_last_lines(text)}",
            where=what,
            remedy=remedy_of(text, self._limits, starved=starved),
        )


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
