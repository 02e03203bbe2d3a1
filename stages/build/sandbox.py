"""The sandbox: where installs and the user's own build step run, without network, keys or sockets.

Each run is a fresh container from a standard image, addressed by the image's id: no network, read-only root, no
capabilities, no new privileges, an ordinary user, limits on processes, memory, processor and time. What it may read is
bind-mounted read-only. What it makes is in a tmpfs of limited size, comes out as a tar archive on standard output, and
is hostile until `pack` has read it. Nothing of a run survives it, and its logs are kept by nobody but the caller.
"""

from __future__ import annotations

import tarfile
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import docker
import docker.errors
import docker.types
import requests

from sekisho.canonical import Digest, canonical, hex_of
from sekisho.errors import PermanentError, Refusal, TemporaryError
from sekisho.registry import Registry
from stages.build.compose import Base

USER = 1000
LABEL = "dev.sekisho.sandbox"

_SCRIPT = """set -e
mkdir -p "$1"
if [ -d /in/seed ]; then cp -R /in/seed/. "$1"; fi
if [ -f /in/dependencies.tar.gz ]; then
  mkdir /tmp/dependencies
  tar --extract --gzip --file=/in/dependencies.tar.gz --directory=/tmp/dependencies --no-same-owner
fi
cd "$1"
shift
"$@" >&2
exec tar --create --file=- --format=gnu --hard-dereference --numeric-owner --directory=/out .
"""
_LOG_BYTES = 64 * 1024
_CONNECT_SECONDS = 60


@dataclass(frozen=True)
class SandboxLimits:
    """What one run may use."""

    seconds: int = 300
    memory: int = 2 << 30
    """Bytes, with what the tmpfs holds."""
    cpus: float = 2.0
    processes: int = 256
    output: int = 1 << 30
    """Bytes of the output."""
    scratch: int = 512 << 20
    """Bytes of /tmp."""


class Sandbox:
    """Runs steps in containers.

    Args:
        socket: the Docker engine's socket, reachable by the line and by nothing that it builds.
        registry: the zone's registry, from which standard images are loaded by digest.
        work: folder for files in passing.
        limits: what one run may use.
    """

    def __init__(self, socket: Path, registry: Registry, work: Path, limits: SandboxLimits | None = None) -> None:
        self._socket = socket
        self._registry = registry
        self._work = work
        self._limits = limits or SandboxLimits()
        self._loading = threading.Lock()

    def run(
        self,
        base: Base,
        repository: str,
        command: tuple[str, ...],
        output: Path,
        *,
        directory: str,
        inputs: Mapping[str, Path],
        environment: Mapping[str, str] | None = None,
        what: str = "build step",
    ) -> str:
        """Run one command and write what it made to a tar archive.

        Args:
            base: the standard image to run in.
            repository: its repository in the zone's registry.
            command: the command, run in `/out/<directory>`; its own output goes to the log.
            output: file to write; a tar archive of /out, hostile.
            directory: folder below /out to run in; it starts with a copy of the input named `seed`, if there is one.
            inputs: name and path of what it may read, as /in/<name>.
            environment: variables; never a secret.
            what: what this is, for messages.

        Returns:
            The end of the log, at most 64 KiB.

        Raises:
            Refusal: the command failed, took too long, or made too much.
            TemporaryError: the Docker engine cannot be reached.
        """
        with self._client() as client:
            image = self._image(client, base, repository)
            container = self._create(
                client, image, command, directory=directory, inputs=inputs, environment=environment or {}
            )
            try:
                return self._watch(container, output, what)
            finally:
                with suppress(docker.errors.APIError):
                    container.remove(force=True, v=True)

    def sweep(self) -> int:
        """Remove what a killed builder left behind, and return how many containers that were."""
        with self._client() as client:
            left = client.containers.list(all=True, filters={"label": LABEL})
            for container in left:
                with suppress(docker.errors.APIError):
                    container.remove(force=True, v=True)
            return len(left)

    @contextmanager
    def _client(self) -> Iterator[docker.DockerClient]:
        where = str(self._socket)
        try:
            client = docker.DockerClient(base_url=f"unix://{self._socket}", timeout=_CONNECT_SECONDS)
            try:
                yield client
            finally:
                client.close()
        except requests.exceptions.RequestException as error:
            raise TemporaryError("The Docker engine does not answer.", where=where, delay=5.0) from error
        except docker.errors.APIError as error:
            if error.is_server_error():
                raise TemporaryError(f"The Docker engine failed: {error.explanation}", where=where) from error
            raise PermanentError(f"The Docker engine refused: {error.explanation}", where=where) from error
        except docker.errors.DockerException as error:
            raise TemporaryError(
                "The Docker engine cannot be reached.", where=where, remedy="Start it: sekisho up.", delay=5.0
            ) from error

    def _create(
        self,
        client: docker.DockerClient,
        image: str,
        command: tuple[str, ...],
        *,
        directory: str,
        inputs: Mapping[str, Path],
        environment: Mapping[str, str],
    ) -> Any:
        limits = self._limits
        rights = f"rw,nosuid,nodev,uid={USER},gid={USER},mode=0755"
        return client.containers.create(
            image,
            entrypoint=["/bin/sh", "-c", _SCRIPT, "sandbox", f"/out/{directory}"],
            command=list(command),
            user=f"{USER}:{USER}",
            working_dir="/out",
            network_mode="none",
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            pids_limit=limits.processes,
            mem_limit=limits.memory,
            memswap_limit=limits.memory,
            nano_cpus=int(limits.cpus * 1_000_000_000),
            tmpfs={"/tmp": f"{rights},size={limits.scratch}", "/out": f"{rights},size={limits.output}"},  # noqa: S108
            mounts=[
                docker.types.Mount(f"/in/{name}", str(path.absolute()), type="bind", read_only=True)
                for name, path in inputs.items()
            ],
            environment={
                "PATH": "/usr/local/bin:/usr/bin:/bin",
                "HOME": "/tmp",  # noqa: S108  (the sandbox's own tmpfs)
                "LC_ALL": "C.UTF-8",
                "PYTHONDONTWRITEBYTECODE": "1",
                **environment,
            },
            hostname="sandbox",
            labels={LABEL: "1"},
            log_config=docker.types.LogConfig(type="none"),
            # The engine's client configuration may hold proxies with passwords.
            use_config_proxy=False,
            stdin_open=False,
            tty=False,
        )

    def _watch(self, container: Any, output: Path, what: str) -> str:
        limits = self._limits
        expired = threading.Event()

        def kill() -> None:
            expired.set()
            with suppress(docker.errors.APIError, requests.exceptions.RequestException):
                container.kill()

        stream = container.attach(stdout=True, stderr=True, stream=True, demux=True)
        timer = threading.Timer(limits.seconds, kill)
        timer.daemon = True
        log = bytearray()
        size = 0
        try:
            container.start()
            timer.start()
            with output.open("wb") as file:
                for out, err in stream:
                    if err:
                        log += err
                        del log[:-_LOG_BYTES]
                    if out:
                        size += len(out)
                        if size > limits.output + (64 << 20):
                            kill()
                            raise Refusal(f"The {what} made more than {limits.output >> 20} MiB.", where=what)
                        file.write(out)
            status = container.wait(timeout=_CONNECT_SECONDS)["StatusCode"]
        finally:
            timer.cancel()
        text = log.decode("utf-8", "replace")
        if expired.is_set():
            raise Refusal(
                f"The {what} ran longer than {limits.seconds} seconds.", where=what, remedy="Make the step shorter."
            )
        if status:
            container.reload()
            killed = " It used more memory than it may." if container.attrs["State"].get("OOMKilled") else ""
            raise Refusal(
                f"The {what} failed with status {status}.{killed} Its last words: {_last_lines(text)}",
                where=what,
                remedy="Run the step where there is no network and correct it.",
            )
        return text

    def _image(self, client: docker.DockerClient, base: Base, repository: str) -> str:
        """Return the engine's id of a standard image, loaded from the zone's registry if it is not there yet."""
        tag = f"sekisho.local/{base.name}:{hex_of(base.digest)[:40]}"
        with self._loading:
            found = self._known(client, base, tag)
            if found is None:
                with tempfile.TemporaryDirectory(dir=self._work) as scratch:
                    archive = Path(scratch) / "image.tar"
                    self._archive(base, repository, tag, Path(scratch), archive)
                    with archive.open("rb") as file:
                        client.images.load(file)
                found = self._known(client, base, tag)
        if found is None:
            raise PermanentError(f"The Docker engine did not load standard/{base.name}.", where=str(self._socket))
        return found

    def _known(self, client: docker.DockerClient, base: Base, tag: str) -> str | None:
        """A tag is only a name: an image counts when its layers are the standard image's."""
        try:
            image = client.images.get(tag)
        except docker.errors.ImageNotFound:
            return None
        same = tuple(image.attrs["RootFS"].get("Layers") or ()) == base.diff_ids
        return str(image.id) if same else None

    def _archive(self, base: Base, repository: str, tag: str, scratch: Path, archive: Path) -> None:
        with tarfile.open(archive, "w") as tar:
            names = []
            for layer in base.manifest.layers:
                name = f"{hex_of(layer.digest)}.tar.gz"
                names.append(name)
                if name in tar.getnames():
                    continue
                part = scratch / name
                self._registry.pull_blob(repository, layer.digest, part, size=layer.size)
                tar.add(part, arcname=name)
                part.unlink()
            config = self._registry.get_blob(repository, Digest(base.manifest.config.digest))
            inner = f"{hex_of(base.manifest.config.digest)}.json"
            _add(tar, inner, config)
            _add(tar, "manifest.json", canonical([{"Config": inner, "RepoTags": [tag], "Layers": names}]))


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, BytesIO(data))


def _last_lines(text: str) -> str:
    shown = "".join(letter if letter.isprintable() else " " for letter in " | ".join(text.strip().splitlines()[-5:]))
    return shown[-600:] or "(none)"
