"""Carrying out a plan: fetch, run, keep, pack. What decides an output is digested before anything is run.

A step runs only if somebody needs what it makes: a dependencies layer that is in the cache needs no step, and a step
whose output was kept does not run again. What is kept is found by a digest of all that decides it (the command, its
files and variables, the packages' digests, the manifests it sees, the build image, the kept steps before it), never by
a name; `store` says how it is checked.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from sekisho.canonical import Digest, digest_of, digest_of_json
from sekisho.errors import PermanentError
from sekisho.model import Layer, StandardImage
from stages.build.cache import CachedLayer, LayerCache
from stages.build.compose import Base
from stages.build.inputs import Packages, overlay_entries, packages_folder, seed_folder, subset
from stages.build.language import PACKAGES_FILE, SOURCE, Plan, Step, Take
from stages.build.materials import Fetcher, Material, declared, materials_of
from stages.build.pack import (
    FIXED_TIME,
    RECIPE,
    Entry,
    PackedLayer,
    digest_of_entry,
    entries_of_archive,
    entries_of_tree,
    merged,
    opened,
    write_layer,
)
from stages.build.plan_check import KINDS, check_plan
from stages.build.project import Project
from stages.build.sandbox import Command, Sandbox, SandboxLimits
from stages.build.store import Store
from stages.build.takes import roots, taken, wanted
from stages.build.unpack import write_tree
from stages.trees import Limits

STEPS_RECIPE = "sekisho-steps/1"
"""How steps are run. Part of every kept output's key: another recipe may give other files."""

_PACKAGES_LIMIT = 4 << 20


@dataclass(frozen=True)
class Job:
    """One plan for one workload, with what it is carried out on."""

    project: Project
    plan: Plan
    tools: StandardImage | None
    """The image that steps run in."""
    time: int
    """Time of the application's files, seconds since the epoch."""


@dataclass(frozen=True)
class Made:
    """Layers of one build in files, with what went into them."""

    layers: tuple[tuple[Layer, Path], ...]
    materials: tuple[Material, ...]
    locked: tuple[str, ...]
    """Package URLs that the scan must find."""
    used_tools: bool
    """Whether anything in the image came out of a step."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Where the time went, by step."""
    logs: Mapping[str, str] = field(default_factory=dict)
    """The end of each step's log, of those that ran."""


class Bases(Protocol):
    """Reads standard images."""

    def __call__(self, image: StandardImage) -> Base:
        """Return a standard image, read from the registry."""
        ...


class Workshop:
    """Carries out plans. Safe for use by several threads.

    Args:
        sandbox: where steps run.
        limits: of one step.
        store: the builder's cache.
        fetcher: fetches packages by hash.
        bases: reads standard images.
    """

    def __init__(self, sandbox: Sandbox, limits: SandboxLimits, store: Store, fetcher: Fetcher, bases: Bases) -> None:
        self.sandbox = sandbox
        self.limits = limits
        self.store = store
        self.layers = LayerCache(store)
        self.fetcher = fetcher
        self.bases = bases

    def make(self, job: Job, scratch: Path, held: ExitStack) -> Made:
        """Make the layers of a workload.

        Args:
            job: what is to be done.
            scratch: an empty folder for the time of the build; the layers are below it or in the cache.
            held: keeps what is used of the cache until it is closed.

        Raises:
            Refusal: a package or a step fails in a way that the workload has to mend.
            TemporaryError: an index or the engine cannot be reached.
            PermanentError: the plan contradicts itself, or there is no image to run its steps in.
        """
        check_plan(job.plan)
        return _Work(self, job, scratch, held).made()


@dataclass(frozen=True)
class _Output:
    listed: Callable[[], tuple[Entry, ...]]
    """Lists its files; who only mounts the folder never asks."""
    folder: Path | None
    """The same as files; None where no step uses them."""

    @property
    def entries(self) -> tuple[Entry, ...]:
        return self.listed()


class _Work:
    """One run of a plan; each output is made when it is first asked for."""

    def __init__(self, shop: Workshop, job: Job, scratch: Path, held: ExitStack) -> None:
        self._shop = shop
        self._job = job
        self._plan = job.plan
        self._scratch = scratch
        self._held = held
        self._steps = {step.name: step for step in job.plan.steps}
        self._outputs: dict[str, _Output] = {}
        self._keys: dict[str, Digest] = {}
        self._packages: Packages | None = None
        self._materials: tuple[Material, ...] | None = materials_of(job.plan.artifacts)
        self._seconds: dict[str, float] = {}
        self._logs: dict[str, str] = {}

    def made(self) -> Made:
        layers = [found for kind in KINDS if (found := self._layer(kind)) is not None]
        sources = {take.source for take in self._plan.takes} - {SOURCE}
        return Made(
            layers=tuple(layers),
            materials=self._materials_known(),
            locked=self._listed() if self._plan.listed_by else self._plan.locked,
            used_tools=bool(sources),
            seconds=dict(self._seconds),
            logs=dict(self._logs),
        )

    # -- layers ---------------------------------------------------------------------------------------------------

    def _layer(self, kind: str) -> tuple[Layer, Path] | None:
        takes = tuple(take for take in self._plan.takes if take.kind == kind)
        if not takes:
            return None
        packed = self._packed_once(takes) if kind == "dependencies" else self._packed(kind, self._merged(kind, takes))
        layer = {"digest": packed.digest, "diff_id": packed.diff_id, "size": packed.size, "kind": kind}
        return Layer.model_validate(layer), packed.path

    def _packed_once(self, takes: Sequence[Take]) -> PackedLayer:
        """Pack the layer that commits share, or find it: by what made it, else by what is in it."""
        kept = all(self._kept(take.source) for take in takes)
        decided: dict[str, Any]
        if kept:
            parts = [[self._key(take.source), take.below, take.into, list(take.exclude)] for take in takes]
            decided = {"takes": parts}
        else:
            decided = {"content": _content(self._merged("dependencies", takes))}

        def make() -> CachedLayer:
            packed = self._packed("dependencies", self._merged("dependencies", takes))
            return CachedLayer(packed, {"materials": [[*material.parts()] for material in self._materials_known()]})

        key = digest_of_json({"recipe": [RECIPE, FIXED_TIME], **decided})
        cached = self._shop.layers.get(key, self._held, make)
        if self._materials is None and kept:
            self._materials = tuple(Material.of(parts) for parts in cached.data["materials"])
        return cached.packed

    def _merged(self, kind: str, takes: Sequence[Take]) -> tuple[Entry, ...]:
        return merged([taken(self._entries(take.source), take) for take in takes], where=f"the {kind} layer")

    def _packed(self, kind: str, entries: tuple[Entry, ...]) -> PackedLayer:
        when = FIXED_TIME if kind == "dependencies" else self._job.time
        start = time.monotonic()
        packed = write_layer(entries, self._scratch / f"{kind}.tar.gz", time=when)
        self._spent(f"pack {kind}", start)
        return packed

    def _entries(self, source: str) -> tuple[Entry, ...]:
        if source != SOURCE:
            return self._output(source).entries
        found = {entry.path: entry for entry in entries_of_tree(self._job.project.root)}
        found |= {entry.path: entry for entry in overlay_entries(self._job.project)}
        return tuple(found.values())

    def _listed(self) -> tuple[str, ...]:
        name = self._plan.listed_by
        entry = next((entry for entry in self._output(name).entries if entry.path == PACKAGES_FILE), None)
        if entry is None or entry.kind != "file" or entry.size > _PACKAGES_LIMIT:
            raise PermanentError(f"The {self._steps[name].what or name} did not say which packages are in the image.")
        with opened(entry) as file:
            lines = file.read(entry.size).decode("utf-8", "replace").splitlines()
        return tuple(sorted({line.strip() for line in lines if line.strip()}))

    # -- steps ----------------------------------------------------------------------------------------------------

    def _kept(self, source: str) -> bool:
        return source != SOURCE and self._steps[source].keep

    def _output(self, name: str) -> _Output:
        if name not in self._outputs:
            step = self._steps[name]
            self._outputs[name] = self._of_store(step) if step.keep else self._run(step)
        return self._outputs[name]

    def _of_store(self, step: Step) -> _Output:
        key = self._key(step.name)
        start = time.monotonic()
        kept = self._shop.store.find(key, self._held)
        if kept is None:
            made = self._run(step)
            start = time.monotonic()
            materials = [[*material.parts()] for material in self._materials_known()] if step.packages else []
            kept = self._shop.store.add(key, made.entries, self._held, data={"materials": materials})
            self._spent(f"keep {step.name}", start)
        else:
            self._spent(f"check {step.name}", start)
        if step.packages and self._materials is None:
            self._materials = tuple(Material.of(parts) for parts in kept.data["materials"])
        return _Output(lambda: kept.entries, kept.folder)

    def _run(self, step: Step) -> _Output:
        tools = needed(self._job.tools)
        shop, place = self._shop, self._scratch / "steps" / step.name
        base = shop.bases(tools)
        place.mkdir(parents=True)
        what = step.what or f"{step.name} step"
        used = any(step.name in other.uses for other in self._plan.steps)
        takes = tuple(take for take in self._plan.takes if take.source == step.name)
        all_of_it = step.keep or used
        command = Command(
            step.command,
            directory=step.directory,
            inputs=self._inputs(step, place),
            environment={
                "SOURCE_DATE_EPOCH": str(FIXED_TIME if step.keep else self._job.time),
                **step.environment,
            },
            outputs=() if all_of_it else roots(takes, listed=step.name == self._plan.listed_by),
            what=what,
            seconds=step.seconds,
            ahead=step.ahead,
            lasting={"packages": hold} if step.packages and (hold := self._fetched().hold) else {},
        )
        archive = place / "output.tar"
        start = time.monotonic()
        self._logs[step.name] = shop.sandbox.run(base, tools.repository, command, archive)
        self._spent(step.name, start)
        limits = Limits(files=shop.limits.files, size=shop.limits.output, folders=shop.limits.files)
        test: Callable[[str], bool] = (lambda _: True) if all_of_it else wanted(takes)
        entries = entries_of_archive(archive, limits=limits, where=what, wanted=test)
        folder = None
        if used and not step.keep:
            folder = place / "files"
            folder.mkdir()
            write_tree(entries, folder)
        return _Output(lambda: entries, folder)

    def _inputs(self, step: Step, place: Path) -> dict[str, Path]:
        inputs = seed_folder(self._job.project, step.source, place)
        if step.files:
            inputs["line"] = place / "line"
            entries = [Entry(name, "file", size=len(data), data=data) for name, data in sorted(step.files.items())]
            inputs["line"].mkdir()
            write_tree(merged([entries], where="line"), inputs["line"])
        for name in step.uses:
            folder = self._output(name).folder
            if folder is None:
                raise PermanentError(f"The output of {name} is not there as files.")
            inputs[name] = folder
        if step.packages:
            inputs["packages"] = self._fetched().folder
        return inputs

    def _fetched(self) -> Packages:
        if self._packages is None:
            start = time.monotonic()
            self._packages = packages_folder(self._shop.fetcher, self._plan.artifacts, self._scratch, self._held)
            self._materials = self._packages.materials
            self._spent("fetch", start)
        return self._packages

    def _materials_known(self) -> tuple[Material, ...]:
        """Return what was fetched. A layer of the cache does not say which wheels are in it: the kept step does."""
        if self._materials is None:
            step = next((step for step in self._plan.steps if step.packages and step.keep), None)
            if step is not None:
                self._output(step.name)
        if self._materials is None:
            self._fetched()
        return self._materials or ()

    # -- keys -----------------------------------------------------------------------------------------------------

    def _key(self, name: str) -> Digest:
        """Return the digest of all that decides a kept step's output."""
        if name not in self._keys:
            step = self._steps[name]
            self._keys[name] = digest_of_json(
                {
                    "recipe": STEPS_RECIPE,
                    "image": needed(self._job.tools).digest,
                    "command": list(step.command),
                    "directory": step.directory,
                    "environment": dict(step.environment),
                    "files": {path: digest_of(data) for path, data in step.files.items()},
                    "packages": declared(self._plan.artifacts) if step.packages else "",
                    "source": None if step.source is None else self._source_key(step.source),
                    "uses": {other: self._key(other) for other in step.uses},
                }
            )
        return self._keys[name]

    def _source_key(self, paths: Sequence[str]) -> list[list[str | bool]]:
        return _content(subset(self._job.project, paths))

    def _spent(self, name: str, start: float) -> None:
        self._seconds[name] = self._seconds.get(name, 0.0) + time.monotonic() - start


def _content(entries: Iterable[Entry]) -> list[list[str | bool]]:
    """Return names, modes and digests of files."""
    return [
        [entry.path, entry.executable, digest_of_entry(entry) if entry.kind == "file" else f"link:{entry.target}"]
        for entry in entries
    ]


def needed(tools: StandardImage | None) -> StandardImage:
    """Return the image that steps run in.

    Raises:
        PermanentError: there is none for this language.
    """
    if tools is None:
        raise PermanentError(
            "There is no standard image to build this language in.",
            where="standard-images.yaml",
            remedy="The platform team adds one with kind: build.",
        )
    return tools
