"""The build stage: find what was built, or build it, sign what was done, and note it.

Two notes are kept in the app's repository. The content note says which layers a commit gave, whatever standard image
it runs on: when only that image moves, nothing is built again, the layers are put on the new one, and it is proven
that nothing else changed. The build note says which image that made, and where its provenance is.
"""

from __future__ import annotations

import json
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from sekisho.canonical import Digest, digest_of_json, hex_of
from sekisho.errors import PermanentError, Refusal
from sekisho.evidence import attach_statement
from sekisho.keys import Signer
from sekisho.model import DigestField, Document, Image, Layer, Revision, StandardImage
from sekisho.oci import Manifest
from sekisho.records import get_record, put_record
from stages.build.commands import check_command
from stages.build.compose import Composed, Origin, only_base_changed
from stages.build.image import Builder
from stages.build.materials import Material
from stages.build.pack import RECIPE
from stages.build.planning import Draft, Planned, Unresolved, digest_of_plan, unsatisfied
from stages.build.project import Project
from stages.build.provenance import How, provenance
from stages.build.resolution import Resolution, find_earlier, find_resolution, keep_resolution
from stages.build.steps import STEPS_RECIPE
from stages.source import workload

_DRAFTS = 8


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


class ContentRecord(Document):
    """The stage's own note of what a commit gave, whatever it stands on."""

    layers: tuple[Layer, ...]
    """The workload's own, without the standard image's."""
    locked: tuple[str, ...]
    materials: tuple[tuple[str, str, dict[str, str]], ...]
    used_tools: bool
    image: str = DigestField
    """The image that was made of it first."""
    run: StandardImage
    """What that image stands on."""


class BuildStage:
    """Makes the image of a revision.

    Args:
        builder: makes images of folders.
        signer: the builder's key.
        builder_id: URI in the provenance; it says what this builder promises.
    """

    name = "build"

    def __init__(self, builder: Builder, signer: Signer, *, builder_id: str) -> None:
        self._builder = builder
        self._registry = builder.registry
        self._signer = signer
        self._builder_id = builder_id
        self._drafts: dict[tuple[object, ...], Draft] = {}

    def sweep(self) -> None:
        """Remove what an earlier, killed process left in the engine and in the cache."""
        self._builder.sweep()

    def rest(self) -> None:
        """Say that the last run has ended and nobody waits: the engine does what it left for later."""
        self._builder.sandbox.rest()

    def key(self, subject: BuildInput) -> Digest:
        """Return a digest over all that decides the image.

        Raises:
            Refusal: the workload cannot be built.
        """
        return self._key(subject, self._plan(subject)[0])

    def marker(self, subject: BuildInput) -> str:
        """Return the file that shows the language, also of what was built before; what `key` asked is remembered.

        Raises:
            Refusal: the workload cannot be built.
        """
        return self._draft(subject, Project(workload(subject.tree, subject.revision))).detection.marker

    def find(self, subject: BuildInput) -> Image | None:
        """Return the image if the registry holds all of it, with the builder's statement."""
        record = self.record(subject)
        return record.image if record else None

    def record(self, subject: BuildInput) -> BuildRecord | None:
        """Return the stage's note about a revision, if all that it names is there."""
        plan, _ = self._plan(subject)
        if isinstance(plan, Unresolved):
            return None
        repository = _repository(subject)
        record = get_record(self._registry, repository, _tag(self._key(subject, plan)), BuildRecord)
        if record is None:
            return None
        image = record.image
        whole = (
            self._registry.get_manifest(repository, image.digest) is not None
            and self._registry.get_manifest(repository, record.provenance) is not None
            and self._has(repository, image.layers)
        )
        return record if whole else None

    def perform(self, subject: BuildInput) -> Image:
        """Build the image, push it, attach the builder's statement, and note it; in this order.

        Raises:
            Refusal: the workload cannot be built, and what to do about it.
            TemporaryError: a package index, the Docker engine or the registry cannot be reached.
            PermanentError: a standard image is not there or not whole.
        """
        repository = _repository(subject)
        planned, resolution = self._resolved(subject)
        check_command(planned.project, planned.plan)
        key = _tag(self._key(subject, planned))
        image, how = self._moved(subject, planned) or self._built(subject, planned)
        if resolution is not None:
            said = {"notes": (resolution.note, resolution.remedy, *image.notes)}
            image = image.model_copy(update=said if image.lock == "listed" else {**said, "lock": "resolved"})
            how = how.with_locks(resolution.files)
        statement = provenance(image, subject.revision, how, builder_id=self._builder_id, invocation=key)
        attached = attach_statement(self._registry, repository, statement, self._signer)
        put_record(self._registry, repository, key, BuildRecord(image=image, provenance=attached))
        return image

    # -- planning -------------------------------------------------------------------------------------------------

    def _plan(self, subject: BuildInput) -> tuple[Planned | Unresolved, Resolution | None]:
        """Return the plan, with the lock that was resolved for this commit if one is kept."""
        project = Project(workload(subject.tree, subject.revision))
        plan = self._builder.plan(project, self._draft(subject, project))
        if isinstance(plan, Planned):
            return plan, None
        kept = find_resolution(self._registry, _repository(subject), subject.revision, plan)
        if kept is None:
            return plan, None
        project = project.with_files(kept[1])
        plan = self._builder.plan(project, self._draft(subject, project))
        if isinstance(plan, Unresolved):
            raise unsatisfied(plan)
        return plan, kept[0]

    def _draft(self, subject: BuildInput, project: Project) -> Draft:
        """Return what the language says of a commit; one run asks several times, and a commit does not change."""
        key = (subject, *sorted(hash(item) for item in project.overlay.items()))
        found = self._drafts.pop(key, None) or self._builder.draft(project)
        self._drafts[key] = found
        for old in list(self._drafts)[:-_DRAFTS]:
            self._drafts.pop(old, None)
        return found

    def _resolved(self, subject: BuildInput) -> tuple[Planned, Resolution | None]:
        """Return the plan; where there is no lock, make it, keep it, and plan by what was kept."""
        plan, resolution = self._plan(subject)
        if isinstance(plan, Unresolved):
            of = (self._registry, _repository(subject), subject.revision, plan)
            keep_resolution(*of, find_earlier(*of) or self._builder.resolve(plan))
            plan, resolution = self._plan(subject)
        if isinstance(plan, Unresolved):
            raise PermanentError("The registry does not keep the lock that was resolved.", where=_repository(subject))
        return plan, resolution

    def _key(self, subject: BuildInput, plan: Planned | Unresolved) -> Digest:
        if isinstance(plan, Unresolved):
            return digest_of_json(["unresolved", subject.revision.identity()])
        return digest_of_json([self._content_key(subject, plan), plan.run.name, plan.run.digest])

    def _content_key(self, subject: BuildInput, planned: Planned) -> Digest:
        """Return a digest over all that decides the workload's own layers, and who says so."""
        revision = subject.revision
        return digest_of_json(
            {
                "stage": self.name,
                "recipe": [RECIPE, STEPS_RECIPE],
                "app": revision.app,
                "commit": revision.commit,
                "path": revision.path,
                "time": revision.committed_at,
                "plan": digest_of_plan(planned.plan),
                "tools": planned.tools.digest if planned.tools else "",
                "builder": [self._builder_id, self._signer.key_id],
            }
        )

    # -- making ---------------------------------------------------------------------------------------------------

    def _built(self, subject: BuildInput, planned: Planned) -> tuple[Image, How]:
        """Build the workload's layers, and the image on them."""
        builder, repository = self._builder, _repository(subject)
        with tempfile.TemporaryDirectory(dir=builder.work, prefix="build-") as scratch, ExitStack() as held:
            made = builder.make(planned, subject.revision.committed_at, Path(scratch), held)
            image = builder.push(repository, planned, made, Origin.of(subject.revision))
        content = ContentRecord(
            layers=tuple(layer for layer, _ in made.layers),
            locked=made.locked,
            materials=tuple(material.parts() for material in made.materials),
            used_tools=made.used_tools,
            image=image.digest,
            run=planned.run,
        )
        put_record(self._registry, repository, _tag(self._content_key(subject, planned), "content"), content)
        return image, _how(planned, content)

    def _moved(self, subject: BuildInput, planned: Planned) -> tuple[Image, How] | None:
        """Put layers that were built before on another standard image; None when there are none or they moved away."""
        repository = _repository(subject)
        tag = _tag(self._content_key(subject, planned), "content")
        content = get_record(self._registry, repository, tag, ContentRecord)
        if content is None or content.run.digest == planned.run.digest or not self._has(repository, content.layers):
            return None
        try:
            before = self._composed(repository, content.image, content.run)
        except (PermanentError, Refusal):
            return None  # without the image that it was, nothing can be proven: build it again
        runtime, origin = planned.plan.runtime, Origin.of(subject.revision)
        digest, layers = self._builder.compose(repository, planned.run, content.layers, runtime, origin)
        only_base_changed(before, self._composed(repository, digest, planned.run))
        image = self._builder.image(repository, planned, digest, layers, content.locked)
        return image, _how(planned, content, rebased_from=content.image)

    def _composed(self, repository: str, digest: str, run: StandardImage) -> Composed:
        raw = self._registry.get_manifest(repository, digest)
        if raw is None:
            raise PermanentError(f"The image {digest} is not there.", where=repository)
        manifest = Manifest.parse(raw.data, where=repository)
        config = json.loads(self._registry.get_blob(repository, manifest.config.digest))
        return Composed(self._builder.known_base(run), manifest, config)

    def _has(self, repository: str, layers: tuple[Layer, ...]) -> bool:
        return all(self._registry.has_blob(repository, Digest(layer.digest)) for layer in layers)


def _how(planned: Planned, content: ContentRecord, *, rebased_from: str = "") -> How:
    return How(
        run=planned.run,
        tools=planned.tools if content.used_tools else None,
        materials=tuple(Material.of(parts) for parts in content.materials),
        plan=planned.plan,
        recipe=(RECIPE, STEPS_RECIPE),
        rebased_from=rebased_from,
    )


def _repository(subject: BuildInput) -> str:
    return f"apps/{subject.revision.app}"


def _tag(key: Digest, kind: str = "build") -> str:
    return f"{kind}-{hex_of(key)[:40]}"
