"""From a folder to an image in a registry. Knows nothing of git, of records or of keys."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from sekisho.builds import BuildRules
from sekisho.canonical import Digest
from sekisho.model import Image, Layer, StandardImage
from sekisho.oci import OCI_MANIFEST
from sekisho.registry import Registry
from stages.build.bases import load_base
from stages.build.compose import Base, Origin, Runtime, base_layers, image_config, image_manifest
from stages.build.disk import full_disk_said
from stages.build.language import Language
from stages.build.languages import LANGUAGES
from stages.build.materials import Fetcher
from stages.build.planning import Draft, Planned, Standards, Unresolved, draft, placed, unsatisfied
from stages.build.project import Project
from stages.build.resolution import Resolve, Resolved, resolve
from stages.build.sandbox import Sandbox
from stages.build.steps import Job, Made, Workshop
from stages.build.store import Store


@dataclass(frozen=True)
class Built:
    """An image in the registry, and how it came to be."""

    image: Image
    planned: Planned
    made: Made
    resolved: Mapping[str, bytes]
    """Lock files that the line made for this build."""


class Builder:
    """Makes images of folders. Safe for use by several threads.

    Args:
        registry: the zone's registry, writable.
        standard: the standard images.
        rules: what a build may use.
        cache: folder for kept outputs and layers; everything in it can be made again.
        docker_socket: socket of the zone's Docker engine, for the sandbox.
        fetcher: fetches packages by hash.
        resolver: the way to package indexes while a lock is made.
        cleared: returns when a standard image may be built on, and raises when it may not, or not yet.
        languages: those that are built.
        work: folder for files in passing, by which `sweep` knows its own; by default one in the cache.
    """

    def __init__(
        self,
        registry: Registry,
        standard: Standards,
        rules: BuildRules,
        *,
        cache: Path,
        docker_socket: Path,
        fetcher: Fetcher,
        resolver: Resolve,
        cleared: Callable[[StandardImage], None],
        languages: Sequence[Language] = LANGUAGES,
        work: Path | None = None,
    ) -> None:
        self.registry = registry
        self.standard = standard
        self.rules = rules
        self.work = work or cache / "work"
        self.work.mkdir(parents=True, exist_ok=True)
        self._left = tuple(self.work.iterdir())
        self.sandbox = Sandbox(docker_socket, registry, self.work, rules.sandbox, ahead=True)
        self._resolver = resolver
        self._cleared = cleared
        self._languages = languages
        self._bases: dict[str, Base] = {}
        store = Store(cache / "kept", rules.cache.size)
        self.shop = Workshop(self.sandbox, rules.sandbox, store, fetcher, self.base)

    def sweep(self) -> None:
        """Remove what an earlier, killed process left: its containers, and its files in passing.

        Called by the one process that has this work folder to itself. What it has begun itself since it started stays.
        """
        for path in self._left:
            shutil.rmtree(path, ignore_errors=True)
        self.sandbox.sweep()

    def draft(self, project: Project) -> Draft:
        """Return what a folder's language says is to be done.

        Raises:
            Refusal: it cannot be built, and what to do about it.
        """
        return draft(project, self.standard, self._languages)

    def plan(self, project: Project, found: Draft | None = None) -> Planned | Unresolved:
        """Return what is to be done to build a folder, and on which images.

        Args:
            project: the folder.
            found: what its language said of exactly these files before; None asks it.

        Raises:
            Refusal: it cannot be built, and what to do about it.
        """
        return placed(project, found or self.draft(project), self.standard, self.rules)

    def resolve(self, unresolved: Unresolved) -> Resolved:
        """Make the lock files of a workload that has none."""
        with full_disk_said():
            return resolve(self.shop, unresolved, self._resolver, self.work)

    def build(
        self,
        folder: Path,
        repository: str,
        origin: Origin,
        *,
        resolved: Mapping[str, bytes] = {},
        hasty: bool = False,
    ) -> Built:
        """Build the workload in a folder and push its image; nothing is signed, and nothing is noted.

        Args:
            folder: the workload: plain files that everybody may read, no `.git`.
            repository: where to push it.
            origin: what its labels say, and the time of its files.
            resolved: lock files of an earlier build, so that nothing is resolved again.
            hasty: take the language's hasty steps, where it has any.

        Raises:
            Refusal: the workload cannot be built, and what to do about it.
            TemporaryError: an index, the Docker engine or the registry cannot be reached.
            PermanentError: a standard image is not there or not whole.
        """
        project = Project(folder, dict(resolved))
        plan = self.plan(project)
        if isinstance(plan, Unresolved):
            resolved = {**resolved, **self.resolve(plan).files}
            plan = self.plan(project.with_files(resolved))
        if isinstance(plan, Unresolved):
            raise unsatisfied(plan)
        if hasty and plan.plan.hasty:
            plan = replace(plan, plan=replace(plan.plan, steps=plan.plan.hasty))
        with tempfile.TemporaryDirectory(dir=self.work, prefix="build-") as scratch, ExitStack() as held:
            made = self.make(plan, origin.time, Path(scratch), held)
            image = self.push(repository, plan, made, origin)
        return Built(image, plan, made, resolved)

    def make(self, planned: Planned, time: int, scratch: Path, held: ExitStack) -> Made:
        """Make the layers of a workload; see `Workshop.make`."""
        self.base(planned.run)  # what may not be stood on is said before anything is fetched or run
        with full_disk_said():
            return self.shop.make(Job(planned.project, planned.plan, planned.tools, time), scratch, held)

    def push(self, repository: str, planned: Planned, made: Made, origin: Origin) -> Image:
        """Push a workload's layers, compose the image on its standard image, and push it."""
        for layer, path in made.layers:
            self.registry.push_blob(repository, path, Digest(layer.digest))
        own = tuple(layer for layer, _ in made.layers)
        digest, layers = self.compose(repository, planned.run, own, planned.plan.runtime, origin)
        return self.image(repository, planned, digest, layers, made.locked)

    def image(
        self, repository: str, planned: Planned, digest: Digest, layers: tuple[Layer, ...], locked: tuple[str, ...]
    ) -> Image:
        """Return the document about an image that was pushed."""
        return Image(
            repository=repository,
            digest=digest,
            language=planned.plan.language,
            base=planned.run.name,
            base_digest=planned.run.digest,
            layers=layers,
            locked=locked,
            lock="listed" if planned.plan.listed_by else "committed",
            notes=planned.notes,
            launcher=self.known_base(planned.run).launcher,
        )

    def compose(
        self, repository: str, run: StandardImage, own: tuple[Layer, ...], runtime: Runtime, origin: Origin
    ) -> tuple[Digest, tuple[Layer, ...]]:
        """Put a workload's layers, which are in the registry, on a standard image; return its digest and all layers."""
        base = self.base(run)
        layers = (*base_layers(base), *own)
        for layer in base.manifest.layers:
            self._mount(repository, Digest(layer.digest), layer.size, run.repository)
        config = image_config(base, layers, runtime, origin)
        self.registry.put_blob(repository, config)
        manifest = image_manifest(base, layers, config, origin)
        return self.registry.put_manifest(repository, manifest, OCI_MANIFEST), layers

    def base(self, image: StandardImage) -> Base:
        """Return a standard image that may be built on, read from the registry; by digest, so once is enough.

        Raises:
            TemporaryError: it is being judged itself.
            PermanentError: it has not passed, is not there, or is not whole.
        """
        self._cleared(image)
        return self.known_base(image)

    def known_base(self, image: StandardImage) -> Base:
        """Return a standard image, also one that nothing may be built on any more.

        Raises:
            PermanentError: it is not there, or is not whole.
        """
        if image.digest not in self._bases:
            self._bases[image.digest] = load_base(self.registry, image)
        return self._bases[image.digest]

    def _mount(self, repository: str, digest: Digest, size: int, source: str) -> None:
        if self.registry.has_blob(repository, digest) or self.registry.mount_blob(repository, digest, source):
            return
        with tempfile.TemporaryDirectory(dir=self.work) as scratch:
            part = Path(scratch) / "layer"
            self.registry.pull_blob(source, digest, part, size=size)
            self.registry.push_blob(repository, part, digest)
