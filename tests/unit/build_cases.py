"""Parts for tests of the build stage that need no container: a sandbox of Python functions, a language made of data."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sekisho.builds import BuildRules, SandboxLimits
from sekisho.canonical import digest_of
from sekisho.errors import Refusal
from sekisho.model import StandardImage
from sekisho.oci import OCI_CONFIG, OCI_MANIFEST, Descriptor, make_manifest
from sekisho.registry import Registry
from stages.build.artifacts import Fetcher
from stages.build.compose import Runtime
from stages.build.image import Builder
from stages.build.indexes import Indexes
from stages.build.language import SOURCE, Plan, Take, Unlocked
from stages.build.languages import LANGUAGES
from stages.build.pack import Entry, write_layer
from stages.build.project import Project
from stages.build.sandbox import Command
from stages.build.steps import Job, Made, Workshop
from stages.build.store import Store

Make = Callable[[Mapping[str, str]], Project]
"""Writes files by path and returns the folder as a project; see the fixture `make`."""

TOOLS = StandardImage(name="plain-build", digest="sha256:" + "b" * 64, repository="standard/plain-build")
START = Runtime(("run",), "/app", {"MODE": "x"})

Action = Callable[[Command], Mapping[str, bytes | str]]
"""What a command leaves behind: bytes of a file, or the target of a link."""


@dataclass
class FakeSandbox:
    """Runs Python functions by the first word of a command, and counts."""

    actions: dict[str, Action]
    ran: list[Command] = field(default_factory=list)

    def run(self, base: Any, repository: str, command: Command, output: Path) -> str:
        del base, repository
        self.ran.append(command)
        with tarfile.open(output, "w", format=tarfile.GNU_FORMAT) as tar:
            for path, content in self.actions[command.command[0]](command).items():
                info = tarfile.TarInfo(f"./{path}")
                if isinstance(content, str):
                    info.type, info.linkname = tarfile.SYMTYPE, content
                    tar.addfile(info)
                else:
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
        return f"log of {command.command[0]}"

    @property
    def names(self) -> list[str]:
        """First words of the commands that ran, in order."""
        return [command.command[0] for command in self.ran]

    def settle(self) -> None:
        """Nothing is left to go."""

    def sweep(self) -> int:
        """Nothing is ever left."""
        return 0


class NoFetcher:
    """Fetches nothing."""

    def files(self, artifacts: Any) -> Any:
        raise AssertionError(f"nothing was to be fetched: {artifacts}")

    laid_out = wheels = files


class FolderFetcher:
    """Has everything in one folder, and remembers what was asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[Any] = []

    def files(self, artifacts: Any) -> Any:
        self.asked.append(artifacts)
        return artifacts

    def laid_out(self, fetched: Any) -> Any:
        del fetched
        return nullcontext(self.folder)


class Shop:
    """A workshop over a folder."""

    def __init__(self, folder: Path, actions: dict[str, Action], *, fetcher: Any = None, size: int = 1 << 30) -> None:
        self.folder = folder
        self.sandbox = FakeSandbox(actions)
        self.store = Store(folder / "kept", size)
        self.shop = Workshop(self.sandbox, SandboxLimits(), self.store, fetcher or NoFetcher(), lambda image: image)
        self.runs = 0

    def make(self, project: Path, plan: Plan, *, tools: StandardImage | None = TOOLS, time: int = 7) -> Made:
        """Carry out a plan; the layers stay."""
        self.runs += 1
        scratch = self.folder / f"run-{self.runs}"
        scratch.mkdir()
        with ExitStack() as held:
            return self.shop.make(Job(Project(project), plan, tools, time), scratch, held)


def plan_of(*takes: Take, **more: Any) -> Plan:
    return Plan("plain", "1", "plain", START, takes or (Take("application", SOURCE, into="app"),), **more)


def names_of(path: Path) -> dict[str, bytes]:
    """Return the files in a layer."""
    with tarfile.open(path) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar if member.isreg()}


class Plain:
    """A language of data: every folder with the file `plain` is in it."""

    name, title = "plain", "Plain"

    def __init__(self, plan: Plan | Unlocked | Callable[[Project], Plan | Unlocked]) -> None:
        self._plan = plan

    def recognise(self, project: Project) -> str:
        return "plain" if project.has("plain") else ""

    def plan(self, project: Project, offered: tuple[str, ...]) -> Plan | Unlocked:
        del offered
        return self._plan(project) if callable(self._plan) else self._plan


class Standards:
    """One image to run on, one to build in."""

    def __init__(self, run: StandardImage, tools: StandardImage | None = None) -> None:
        self.run, self.tools = run, tools

    def offered(self, language: str) -> tuple[str, ...]:
        del language
        return ("1",)

    def for_language(self, language: str, version: str = "") -> tuple[StandardImage, StandardImage | None]:
        del language, version
        return self.run, self.tools


def builder_for(
    registry: Registry, place: Path, standards: Any, *, resolver: Any = None, languages: Any = LANGUAGES
) -> Builder:
    """Return a builder without an engine and without a way to any index."""
    indexes = Indexes.from_environment(environment={})

    def none(_: Any) -> Any:
        raise Refusal("nothing is resolved here")

    return Builder(
        registry,
        standards,
        BuildRules(),
        cache=place / "cache",
        docker_socket=place / "none.sock",
        fetcher=Fetcher(place / "cache", indexes),
        resolver=resolver or none,
        cleared=lambda _: None,
        languages=languages,
    )


def standard_image(
    registry: Registry, folder: Path, name: str = "base", content: bytes = b"ID=debian\n", **config: Any
) -> StandardImage:
    """Push a standard image of one file."""
    entry = Entry("etc/os-release", "file", size=len(content), data=content)
    layer = write_layer([entry], folder / "base.tgz", time=0)
    repository = f"standard/{name}"
    registry.push_blob(repository, layer.path, layer.digest)
    run = {"Env": ["PATH=/usr/bin:/bin", "LANG=C.UTF-8"], "Cmd": ["serve"], "Healthcheck": {"Test": ["x"]}, **config}
    data = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": run,
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]},
            "history": [{"created_by": "the platform team"}],
        }
    ).encode()
    registry.put_blob(repository, data)
    media = "application/vnd.oci.image.layer.v1.tar+gzip"
    manifest = make_manifest(
        Descriptor(OCI_CONFIG, digest_of(data), len(data)), (Descriptor(media, layer.digest, layer.size),)
    )
    digest = registry.put_manifest(repository, manifest, OCI_MANIFEST)
    return StandardImage(name=name, digest=digest, repository=repository)
