"""The build stage: find what was built, or build it, sign what was done, and note it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from sekisho.canonical import Digest, digest_of_json, hex_of
from sekisho.errors import PermanentError
from sekisho.evidence import attach_statement
from sekisho.keys import Signer
from sekisho.model import DigestField, Document, Image, Layer, Revision, StandardImage
from sekisho.oci import OCI_MANIFEST, Manifest
from sekisho.records import get_record, put_record
from sekisho.registry import Registry
from stages.build import fetch
from stages.build.cache import LayerCache
from stages.build.compose import Base, Runtime, base_layers, image_config, image_manifest, read_base
from stages.build.detect import Detection, detect
from stages.build.languages import python, static
from stages.build.locks import Locked, lock_digest
from stages.build.pack import (
    FIXED_TIME,
    RECIPE,
    Entry,
    PackedLayer,
    entries_of_archive,
    entries_of_tree,
    moved,
    write_layer,
)
from stages.build.provenance import provenance
from stages.build.sandbox import Sandbox
from stages.source import workload

_CONFIG_LIMIT = 1 << 20


class Standards(Protocol):
    """The platform team's standard images; `sekisho.standard.StandardImages` is one."""

    def for_language(self, language: str) -> tuple[StandardImage, StandardImage | None]:
        """Return the image to run on and the image to build in, if one is needed."""
        ...


@dataclass(frozen=True)
class BuildInput:
    """What the build stage takes."""

    revision: Revision
    tree: Path
    """A checkout of the revision's commit, whole; the workload is in `revision.path` of it."""


class BuildRecord(Document):
    """The stage's own note of what it made."""

    image: Image
    provenance: str = DigestField
    """Digest of the referrer manifest with the builder's statement."""


@dataclass(frozen=True)
class _Made:
    """Layers of one build in files, with what went into them."""

    layers: tuple[tuple[Layer, Path], ...]
    locked: tuple[Locked, ...]
    wheels: tuple[fetch.Wheel, ...]
    runtime: Runtime


class BuildStage:
    """Makes the image of a revision.

    Args:
        registry: the zone's registry, writable.
        standard: the standard images.
        signer: the builder's key.
        cache: folder for wheels and layers; everything in it can be made again.
        docker_socket: socket of the zone's Docker engine, for the sandbox.
        proxy: URL of the only way out of the zone; None leaves pip's configuration alone.
        builder_id: URI in the provenance; it says what this builder promises.
    """

    name = "build"

    def __init__(
        self,
        registry: Registry,
        standard: Standards,
        signer: Signer,
        *,
        cache: Path,
        docker_socket: Path,
        proxy: str | None,
        builder_id: str,
    ) -> None:
        self._registry = registry
        self._standard = standard
        self._signer = signer
        self._wheels = cache / "wheels"
        self._layers = LayerCache(cache / "layers")
        self._work = cache / "work"
        self._work.mkdir(parents=True, exist_ok=True)
        self._sandbox = Sandbox(docker_socket, registry, self._work)
        self._proxy = proxy
        self._builder_id = builder_id

    def sweep(self) -> None:
        """Remove containers that an earlier, killed process left in the engine."""
        self._sandbox.sweep()

    def key(self, subject: BuildInput) -> Digest:
        """Return a digest over all that decides the image.

        Raises:
            Refusal: the language cannot be told.
        """
        run, tools = self._images(detect(workload(subject.tree, subject.revision)))
        revision = subject.revision
        return digest_of_json(
            {
                "stage": self.name,
                "recipe": [RECIPE, python.INSTALL_RECIPE],
                "app": revision.app,
                "commit": revision.commit,
                "path": revision.path,
                "time": revision.committed_at,
                "standard": [run.name, run.digest, tools.digest if tools else ""],
                "builder": [self._builder_id, self._signer.key_id],
            }
        )

    def find(self, subject: BuildInput) -> Image | None:
        """Return the image if the registry holds all of it, with the builder's statement."""
        record = self.record(subject)
        return record.image if record else None

    def record(self, subject: BuildInput) -> BuildRecord | None:
        """Return the stage's note about a revision, if all that it names is there."""
        repository = _repository(subject)
        record = get_record(self._registry, repository, self._tag(subject), BuildRecord)
        if record is None:
            return None
        image = record.image
        whole = (
            self._registry.get_manifest(repository, image.digest) is not None
            and self._registry.get_manifest(repository, record.provenance) is not None
            and all(self._registry.has_blob(repository, Digest(layer.digest)) for layer in image.layers)
        )
        return record if whole else None

    def perform(self, subject: BuildInput) -> Image:
        """Build the image, push it, attach the builder's statement, and note it; in this order.

        Raises:
            Refusal: the workload cannot be built, and what to do about it.
            TemporaryError: the package index, the Docker engine or the registry cannot be reached.
            PermanentError: a standard image is not there or not whole.
        """
        revision = subject.revision
        folder = workload(subject.tree, revision)
        detection = detect(folder)
        run, tools = self._images(detection)
        base = self._base(run)
        with tempfile.TemporaryDirectory(dir=self._work, prefix="build-") as scratch:
            made = self._make(folder, detection, tools, revision, Path(scratch))
            layers = (*base_layers(base), *(layer for layer, _ in made.layers))
            config = image_config(base, layers, made.runtime, revision)
            manifest = image_manifest(base, layers, config, revision)
            repository = _repository(subject)
            self._push(repository, run, base, made, config)
            digest = self._registry.put_manifest(repository, manifest, OCI_MANIFEST)
        image = Image(
            repository=repository,
            digest=digest,
            language=detection.language,
            base=run.name,
            base_digest=run.digest,
            layers=layers,
            locked=tuple(locked.purl for locked in made.locked),
        )
        used = (run, tools) if tools and (made.wheels or detection.command) else (run,)
        statement = provenance(
            image,
            revision,
            used,
            made.wheels,
            builder_id=self._builder_id,
            invocation=self._tag(subject),
            recipe=RECIPE,
        )
        attached = attach_statement(self._registry, repository, statement, self._signer)
        put_record(self._registry, repository, self._tag(subject), BuildRecord(image=image, provenance=attached))
        return image

    def _images(self, detection: Detection) -> tuple[StandardImage, StandardImage | None]:
        """Return the image to run on and the one to build in; a static site's build step runs in Python's."""
        run, tools = self._standard.for_language(detection.language)
        if tools is None and detection.command:
            tools = self._standard.for_language("python")[1]
        return run, tools

    def _tag(self, subject: BuildInput) -> str:
        return f"build-{hex_of(self.key(subject))[:40]}"

    def _base(self, image: StandardImage) -> Base:
        raw = self._registry.get_manifest(image.repository, image.digest)
        if raw is None:
            raise PermanentError(
                f"The standard image {image.name} is not in the zone's registry.",
                where=f"{image.repository}@{image.digest}",
                remedy="Make or mirror the standard images again: sekisho up does.",
            )
        manifest = Manifest.parse(raw.data, where=image.repository)
        config = self._registry.get_blob(image.repository, Digest(manifest.config.digest), limit=_CONFIG_LIMIT)
        return read_base(image.name, image.digest, manifest, config)

    def _make(
        self, folder: Path, detection: Detection, tools: StandardImage | None, revision: Revision, scratch: Path
    ) -> _Made:
        if detection.language == "static":
            files = self._files(folder, detection, tools, revision, scratch, dependencies=None)
            below = "" if detection.root == "." else detection.root
            return _Made((_application(moved(files, static.SITE, below=below), revision, scratch),), (), (),
                         static.runtime())  # fmt: skip
        locked = python.packages(folder)
        runtime = python.runtime(folder)
        layers: list[tuple[Layer, Path]] = []
        wheels: tuple[fetch.Wheel, ...] = ()
        dependencies: Path | None = None
        if locked:
            wheels = fetch.fetch(locked, self._wheels, proxy=self._proxy)
            packed = self._dependencies(locked, wheels, tools)
            layers.append((_layer(packed, "dependencies"), packed.path))
            dependencies = packed.path
        files = self._files(folder, detection, tools, revision, scratch, dependencies=dependencies)
        layers.append(_application(moved(files, python.APPLICATION), revision, scratch))
        return _Made(tuple(layers), locked, wheels, runtime)

    def _dependencies(
        self, locked: Sequence[Locked], wheels: Sequence[fetch.Wheel], tools: StandardImage | None
    ) -> PackedLayer:
        tools = _needed(tools)
        wanted = [lock_digest(tuple(locked)), sorted(wheel.sha256 for wheel in wheels), tools.digest]
        key = digest_of_json([*wanted, RECIPE, python.INSTALL_RECIPE, FIXED_TIME])

        def make(scratch: Path) -> PackedLayer:
            offered = scratch / "wheels"
            offered.mkdir()
            offered.chmod(0o755)  # whatever the umask is: the sandbox runs as another user
            for wheel in wheels:
                (offered / wheel.path.name).hardlink_to(wheel.path)
            lines = "".join(f"{replace(item.locked, hashes=(item.sha256,)).requirement()}\n" for item in wheels)
            (offered / "requirements.txt").write_text(lines, encoding="utf-8")
            (offered / "requirements.txt").chmod(0o644)
            output = scratch / "output.tar"
            base = self._base(tools)
            what = "install of the packages"
            self._sandbox.run(
                base, tools.repository, python.install_command(), output,
                directory=python.DEPENDENCIES, inputs={"wheels": offered}, what=what,
            )  # fmt: skip
            entries = entries_of_archive(output, where=what)
            inside = moved(entries, python.DEPENDENCIES, below=python.DEPENDENCIES)
            return write_layer(inside, scratch / "layer.tar.gz", time=FIXED_TIME)

        return self._layers.get(key, make)

    def _files(
        self,
        folder: Path,
        detection: Detection,
        tools: StandardImage | None,
        revision: Revision,
        scratch: Path,
        *,
        dependencies: Path | None,
    ) -> tuple[Entry, ...]:
        if not detection.command:
            return entries_of_tree(folder)
        tools = _needed(tools)
        entries_of_tree(folder)  # the rules hold for what goes in, too
        inputs = {"seed": folder}
        environment = {"SOURCE_DATE_EPOCH": str(revision.committed_at)}
        if dependencies is not None:
            inputs["dependencies.tar.gz"] = dependencies
            environment["PYTHONPATH"] = f"/tmp/dependencies/{python.DEPENDENCIES}"  # noqa: S108  (in the sandbox)
        output = scratch / "output.tar"
        self._sandbox.run(
            self._base(tools), tools.repository, detection.command, output,
            directory="work", inputs=inputs, environment=environment,
        )  # fmt: skip
        made = entries_of_archive(output)
        return tuple(replace(entry, path=entry.path.removeprefix("work/")) for entry in made if _below(entry, "work"))

    def _push(self, repository: str, run: StandardImage, base: Base, made: _Made, config: bytes) -> None:
        for layer in base.manifest.layers:
            digest = Digest(layer.digest)
            if self._registry.has_blob(repository, digest):
                continue
            if not self._registry.mount_blob(repository, digest, run.repository):
                self._copy(repository, digest, layer.size, run.repository)
        for layer_, path in made.layers:
            self._registry.push_blob(repository, path, Digest(layer_.digest))
        self._registry.put_blob(repository, config)

    def _copy(self, repository: str, digest: Digest, size: int, source: str) -> None:
        with tempfile.TemporaryDirectory(dir=self._work) as scratch:
            part = Path(scratch) / "layer"
            self._registry.pull_blob(source, digest, part, size=size)
            self._registry.push_blob(repository, part, digest)


def _repository(subject: BuildInput) -> str:
    return f"apps/{subject.revision.app}"


def _needed(tools: StandardImage | None) -> StandardImage:
    if tools is None:
        raise PermanentError(
            "There is no standard image to build this language in.",
            where="standard-images.yaml",
            remedy="The platform team adds one with kind: build.",
        )
    return tools


def _below(entry: Entry, folder: str) -> bool:
    return entry.path.startswith(f"{folder}/")


def _layer(packed: PackedLayer, kind: str) -> Layer:
    return Layer.model_validate({"digest": packed.digest, "diff_id": packed.diff_id, "size": packed.size, "kind": kind})


def _application(entries: Sequence[Entry], revision: Revision, scratch: Path) -> tuple[Layer, Path]:
    packed = write_layer(entries, scratch / "application.tar.gz", time=revision.committed_at)
    return _layer(packed, "application"), packed.path
