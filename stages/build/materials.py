"""What was fetched for a build, as provenance names it."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sekisho.canonical import Digest, digest_of_json
from sekisho.errors import PermanentError
from stages.build.language import Artifact, Wheels
from stages.build.locks import lock_digest


class FetchedFile(Protocol):
    """A fetched artifact; `stages.build.artifacts.Fetched` is one."""

    @property
    def artifact(self) -> Artifact:
        """What was asked for."""
        ...

    @property
    def path(self) -> Path:
        """The file in the cache."""
        ...


class FetchedWheel(Protocol):
    """A fetched wheel; `stages.build.artifacts.Wheel` is one."""

    @property
    def locked(self) -> Any:
        """What the lock says."""
        ...

    @property
    def name(self) -> str:
        """File name, which pip and uv read."""
        ...

    @property
    def path(self) -> Path:
        """The file in the cache."""
        ...

    @property
    def sha256(self) -> str:
        """Its digest, in hexadecimal."""
        ...


class Fetcher(Protocol):
    """Fetches packages by hash."""

    def files(self, artifacts: Sequence[Artifact]) -> Sequence[FetchedFile]:
        """Return the files of artifacts, each with all its digests checked."""
        ...

    def laid_out(self, fetched: Any) -> AbstractContextManager[Path]:
        """Give a folder with files under the names that the sandbox sees."""
        ...

    def wheels(self, packages: Any, *, python: str) -> Sequence[FetchedWheel]:
        """Return a file for each package of a Python lock, one of the locked hashes checked."""
        ...


@dataclass(frozen=True)
class Material:
    """One thing that went into a build (in-toto's ResourceDescriptor)."""

    name: str
    uri: str
    digest: Mapping[str, str]
    """in-toto's DigestSet: values in hexadecimal."""

    def parts(self) -> tuple[str, str, dict[str, str]]:
        """Return it as JSON."""
        return self.name, self.uri, dict(self.digest)

    @classmethod
    def of(cls, parts: Sequence[Any]) -> Material:
        """Read it from JSON."""
        name, uri, digest = parts
        return cls(str(name), str(uri), {str(kind): str(value) for kind, value in digest.items()})


def materials_of(artifacts: tuple[Artifact, ...] | Wheels) -> tuple[Material, ...] | None:
    """Return what artifacts are, which their lock says in full; None for wheels, which are chosen while fetching."""
    if isinstance(artifacts, Wheels):
        return None if artifacts.packages else ()
    return tuple(
        Material(
            artifact.path, artifact.purl or f"{artifact.ecosystem}:{artifact.path}",
            dict(map(_digest, artifact.digests)),
        )
        for artifact in artifacts
    )  # fmt: skip


def materials_of_wheels(wheels: Sequence[FetchedWheel]) -> tuple[Material, ...]:
    """Return what wheels are."""
    return tuple(Material(wheel.name, str(wheel.locked.purl), {"sha256": wheel.sha256}) for wheel in wheels)


def declared(artifacts: tuple[Artifact, ...] | Wheels) -> Digest:
    """Return a digest over what a lock says of the packages, whatever its comments and order."""
    if isinstance(artifacts, Wheels):
        return digest_of_json(["wheels", artifacts.python, lock_digest(artifacts.packages)])  # type: ignore[arg-type]
    return digest_of_json(
        sorted([item.save_as, item.ecosystem, item.path, *sorted(item.digests)] for item in artifacts)
    )


def _digest(said: str) -> tuple[str, str]:
    """Return a lock's digest as in-toto writes it (digest_set.md): Go's `h1` is a dirHash, in hexadecimal."""
    kind, _, value = said.partition(":")
    if kind not in ("h1", "h1mod"):
        return kind, value
    try:
        return "dirHash", base64.b64decode(value, validate=True).hex()
    except (binascii.Error, ValueError) as error:
        raise PermanentError(f"{said[:100]!r} is not a digest.", remedy="Tell the platform team.") from error
