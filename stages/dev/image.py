"""The builder on a copy of the working copy: the line's own, with the developer's own key.

A clean working copy becomes the very image that the gate builds of its commit on the same standard image: same files,
same labels, same time. Anything else has the labels of no commit, and is built all the same.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from sekisho.builds import load_builds
from sekisho.canonical import digest_of
from sekisho.evidence import attach_statement
from sekisho.keys import FileSigner
from sekisho.model import IMAGE_HOST, Image
from sekisho.registry import Registry
from sekisho.standard import load_standard
from sekisho.statements import PROVENANCE, Statement, Subject
from stages.build import Builder
from stages.build.artifacts import Fetcher
from stages.build.commands import check_command
from stages.build.compose import SOURCE_HOST, Origin
from stages.build.indexes import Indexes
from stages.build.planning import Planned
from stages.build.project import Project
from stages.build.resolver import Resolver
from stages.dev.leftovers import work_folder
from stages.dev.place import Place
from stages.working_copy import head, is_clean

BUILDER_ID = "https://sekisho.dev/builders/dev-unhosted/v1"
"""Whoever reads it knows that nobody but the developer vouches for the image; see docs/dev.md."""
BUILD_TYPE = "https://sekisho.dev/dev-build/v1"

_HASTY = "Own code is not optimised as long as it is not committed: --optimised does that at each save."
_NO_COMMIT_TIME = 315_532_800
"""1980-01-01: files of a folder that no commit dates."""
_MANIFESTS = (
    *("*.toml", "*.in", "*.lock", "*.mod", "*.sum", "*.work", "*.cfg", "requirements*.txt"),
    *("Pipfile", "package.json", "pom.xml", "setup.py"),
)
"""What a lock is made of: as long as none of these changes, a lock that was resolved still holds."""


@dataclass(frozen=True)
class Made:
    """One build of the working copy."""

    image: Image
    why: str
    """How the language was seen."""
    notes: tuple[str, ...]
    seconds: float


@dataclass
class _Resolved:
    """The lock that was made for a workload without one."""

    manifests: str = ""
    files: dict[str, bytes] = field(default_factory=dict)


class Workbench:
    """Builds one workload again and again.

    Args:
        place: the developer's place.
        app: the workload.
        source: the working copy, to ask git about it.
        optimised: compile each version as for a release, not only those that are committed.
    """

    def __init__(self, place: Place, app: str, source: Path, *, optimised: bool = False) -> None:
        self._builder = builder_of(place, work_folder(place.root, app))
        self._app = app
        self._source = source
        self._optimised = optimised
        self._repository = f"dev/{place.developer}/{app}"
        self._signer = _signer(place.root / "builder.pem")
        self._resolved = _Resolved()

    def build(self, folder: Path) -> Made:
        """Build a copy of the working copy and push its image.

        Raises:
            Refusal, TemporaryError, PermanentError: as the line's builder.
        """
        start = time.monotonic()
        project = Project(folder)
        manifests = _digest_of_manifests(project)
        kept = self._resolved.files if self._resolved.manifests == manifests else {}
        found = self._builder.plan(project.with_files(kept))
        if isinstance(found, Planned):
            check_command(project, found.plan)
        origin = self._origin()
        # What is committed is to be the gate's very image; anything else goes no further than here.
        hasty = not origin.revision and not self._optimised
        built = self._builder.build(folder, self._repository, origin, resolved=kept, hasty=hasty)
        check_command(built.planned.project, built.planned.plan)
        self._resolved = _Resolved(manifests, dict(built.resolved))
        notes = (*built.image.notes, *((_HASTY,) if hasty and built.planned.plan.hasty else ()))
        return Made(built.image, built.planned.plan.why, notes, time.monotonic() - start)

    def vouch(self, image: Image) -> str:
        """Attach the developer's own statement to an image; returns the digest of its manifest."""
        return attach_statement(self._builder.registry, self._repository, statement_of(image), self._signer)

    def sweep(self) -> None:
        """Remove what an earlier, killed session of this app left. Only who holds its namespace may.

        Raises:
            TemporaryError: the Docker engine cannot be reached.
        """
        self._builder.sweep()

    def close(self) -> None:
        """Wait until no container of a build is left."""
        self._builder.sandbox.close()

    def _origin(self) -> Origin:
        base = head(self._source)
        if base.commit and is_clean(self._source):
            return Origin(self._app, f"git+https://{SOURCE_HOST}/{self._app}.git", base.commit, base.time)
        return Origin(self._app, "", "", base.time or _NO_COMMIT_TIME)


def builder_of(place: Place, work: Path) -> Builder:
    """Return the builder of a developer's place: the line's own, with its own engine, registry and caches.

    Args:
        place: the developer's.
        work: folder for what does not last; containers carry its name.
    """
    cache = place.root / "cache"
    indexes = Indexes.from_environment()
    return Builder(
        Registry(place.registry),
        load_standard(place.policies),
        load_builds(place.policies),
        cache=cache,
        docker_socket=place.docker,
        fetcher=Fetcher(cache, indexes),
        resolver=lambda ecosystems: Resolver(indexes, work, cache=cache, ecosystems=ecosystems),
        cleared=lambda _: None,  # the free side: a standard image that waits for its own verdict may be tried here
        work=work,
    )


def statement_of(image: Image) -> Statement:
    """Return what the developer's builder says of an image: SLSA provenance that names no commit."""
    own = [layer for layer in image.layers if layer.kind != "base"]
    return Statement(
        subjects=(Subject(name=f"{IMAGE_HOST}/{image.repository}", digest=image.digest),),
        predicate_type=PROVENANCE,
        predicate={
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"workingCopy": [layer.diff_id for layer in own]},
                "internalParameters": {"language": image.language},
                "resolvedDependencies": [
                    {"name": image.base, "digest": {"sha256": image.base_digest.removeprefix("sha256:")}}
                ],
            },
            "runDetails": {"builder": {"id": BUILDER_ID}},
        },
    )


def _signer(path: Path) -> FileSigner:
    """Return the developer's own builder key. No zone's trust root holds it, and none ever should."""
    return FileSigner.load(path, "builder") if path.exists() else FileSigner.create(path, "builder")


def _digest_of_manifests(project: Project) -> str:
    names = sorted({name for pattern in _MANIFESTS for name in project.files(pattern)})
    parts = [f"{PurePosixPath(name)}\0{digest_of(project.read(name) or b'')}" for name in names]
    return digest_of("\0".join(parts).encode("utf-8", "surrogateescape"))
