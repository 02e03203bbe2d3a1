"""The Docker engine as the sandbox needs it: standard images by digest, containers that surely go again."""

from __future__ import annotations

import atexit
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from io import BytesIO
from pathlib import Path

import docker
import docker.errors
import requests

from sekisho.canonical import Digest, canonical, digest_of, hex_of
from sekisho.errors import PermanentError, TemporaryError
from sekisho.registry import Registry
from stages.build.compose import Base
from stages.build.engine_chores import Chores
from stages.build.engine_network import NONE, Networks

LABEL = "dev.sekisho.sandbox"
"""Label of every container of the sandbox; its value says whose it is, so that nobody sweeps another's."""
HOLDER_LABEL = "dev.sekisho.sandbox-network"
"""Label of what holds a network namespace ready for the next one."""
USER = 1000
"""User and group in the sandbox."""
HOSTNAME = "sandbox"

_VERSION = "1.41"
"""Version of the engine's API: Docker 20.10 and later."""
_CONNECT_SECONDS = 60


class Engine:
    """One Docker engine. Safe for use by several threads; each thread keeps one client.

    Args:
        socket: the engine's socket, reachable by the line and by nothing that it builds.
        registry: the zone's registry, from which standard images are loaded by digest.
        work: folder for files in passing.
        ahead: keep a network namespace ready for the next container. Whoever asks for that calls `close` at the end.
    """

    def __init__(self, socket: Path, registry: Registry, work: Path, *, ahead: bool = False) -> None:
        self._socket = socket
        self._registry = registry
        self._work = work
        self.owner = hex_of(digest_of(str(work.resolve()).encode()))[:16]
        """The same for the builders that have one work folder, one after the other."""
        self._local = threading.local()
        self._loading = threading.Lock()
        self._chores = Chores()
        self._networks: Networks | None = None
        if ahead:
            self._networks = Networks(
                self.client, self.remove, label=HOLDER_LABEL, owner=self.owner, user=USER, hostname=HOSTNAME
            )
        atexit.register(self.close)

    @contextmanager
    def client(self) -> Iterator[docker.APIClient]:
        """Give this thread's client, and say in the line's words what goes wrong with it."""
        where = str(self._socket)
        try:
            client = getattr(self._local, "client", None)
            if client is None:
                client = docker.APIClient(f"unix://{self._socket}", version=_VERSION, timeout=_CONNECT_SECONDS)
                self._local.client = client
            yield client
        except requests.exceptions.RequestException as error:
            self._local.client = None
            raise TemporaryError(
                "The Docker engine cannot be reached.", where=where, remedy="Start it: sekisho up.", delay=5.0
            ) from error
        except docker.errors.APIError as error:
            if error.is_server_error():
                raise TemporaryError(f"The Docker engine failed: {error.explanation}", where=where) from error
            raise PermanentError(f"The Docker engine refused: {error.explanation}", where=where) from error
        except docker.errors.DockerException as error:
            self._local.client = None
            raise TemporaryError(
                "The Docker engine cannot be reached.", where=where, remedy="Start it: sekisho up.", delay=5.0
            ) from error

    def sweep(self) -> int:
        """Remove what a killed builder of this work folder left behind, and return how many containers that were."""
        with self.client() as client:
            left = [
                container
                for label in (LABEL, HOLDER_LABEL)
                for container in client.containers(all=True, filters={"label": f"{label}={self.owner}"})
            ]
            for container in left:
                with suppress(docker.errors.NotFound):
                    client.remove_container(container["Id"], force=True, v=True)
            return len(left)

    @contextmanager
    def building(self, image: str) -> Iterator[None]:
        """Say that something is built: chores wait, and then a network namespace is made ready for the next one.

        Args:
            image: id of the image that it can be made ready from.
        """
        with self._chores.work():
            try:
                yield
            finally:
                if self._networks is not None:
                    self._chores.add(partial(self._networks.prepare, image), first=True)  # the next one waits for it

    @contextmanager
    def network(self) -> Iterator[str]:
        """Give the network mode of one container: none, or joining a namespace of its own that was made ready."""
        holder = self._networks.take() if self._networks is not None else ""
        try:
            yield f"container:{holder}" if holder else NONE
        finally:
            if holder:
                self.remove(holder)

    def later(self, chore: Callable[[], None]) -> None:
        """Have something done when it is quiet; it raises nothing."""
        self._chores.add(chore)

    def remove(self, container: str) -> None:
        """Remove a container that has ended, or sleeps, soon. What cannot be removed then is by the next `sweep`."""
        self.later(partial(self.remove_now, container))

    def remove_now(self, container: str) -> None:
        """Remove a container, whatever state it is in. What cannot be removed now is by the next `sweep`."""
        with suppress(TemporaryError, PermanentError), self.client() as client:
            client.remove_container(container, force=True, v=True)

    def rest(self) -> None:
        """Say that nobody waits for anything just now: what can wait until it is quiet is done."""
        self._chores.rest()

    def settle(self) -> None:
        """Remove every container that was to go, now."""
        self._chores.settle()

    def close(self) -> None:
        """Remove what was made ready, and everything that was to go."""
        if self._networks is not None:
            self._networks.close()
        self.settle()
        atexit.unregister(self.close)

    def image(self, base: Base, repository: str) -> str:
        """Return the engine's id of a standard image, loaded from the zone's registry if it is not there yet."""
        tag = f"sekisho.local/{base.name}:{hex_of(base.digest)[:40]}"
        with self._loading, self.client() as client:
            found = self._known(client, base, tag)
            if found is None:
                with tempfile.TemporaryDirectory(dir=self._work) as scratch:
                    archive = Path(scratch) / "image.tar"
                    self._archive(base, repository, tag, Path(scratch), archive)
                    with archive.open("rb") as file:
                        list(client.load_image(file))  # type: ignore[no-untyped-call]
                found = self._known(client, base, tag)
        if found is None:
            raise PermanentError(f"The Docker engine did not load standard/{base.name}.", where=str(self._socket))
        return found

    def _known(self, client: docker.APIClient, base: Base, tag: str) -> str | None:
        """A tag is only a name: an image counts when its layers are the standard image's."""
        try:
            image = client.inspect_image(tag)  # type: ignore[no-untyped-call]
        except docker.errors.ImageNotFound:
            return None
        same = tuple(image["RootFS"].get("Layers") or ()) == base.diff_ids
        return str(image["Id"]) if same else None

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
