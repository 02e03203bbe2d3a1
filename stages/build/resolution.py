"""A workload without a lock file: the line makes the lock once, keeps it as evidence, and uses it ever after.

The package manager itself resolves, in the sandbox, with a way to the line's own read-only index proxy and to nothing
else. What it leaves behind is only read as a lock: every package in it is then fetched by hash like any other. The
evidence is an OCI artifact in the app's repository: a document that says what was resolved, and one layer a lock file.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydantic import Field

from sekisho.canonical import Digest, canonical, digest_of, digest_of_json, hex_of
from sekisho.errors import Refusal, SekishoError
from sekisho.model import COMMIT_PATTERN, DigestField, Document, NameField, Revision
from sekisho.oci import EMPTY, OCI_EMPTY, OCI_MANIFEST, Descriptor, Manifest, make_manifest
from sekisho.registry import Registry
from stages.build.failures import OFFLINE, OTHERWISE
from stages.build.inputs import seed_folder
from stages.build.pack import Entry, entries_of_archive, merged, opened
from stages.build.planning import Unresolved
from stages.build.sandbox import Command
from stages.build.sandbox_command import INDEX
from stages.build.steps import Workshop, needed
from stages.build.unpack import write_tree

RESOLUTION_TYPE = "application/vnd.sekisho.resolution.v1+json"
LOCK_TYPE = "application/vnd.sekisho.lock.v1"
_TITLE = "org.opencontainers.image.title"
_LOCK_LIMIT = 16 << 20
_RECORDED = "sekisho.dev/recorded/v1"


class Resolver(Protocol):
    """The line's read-only index proxy while it runs; `stages.build.resolver.Resolver` is one."""

    @property
    def folder(self) -> Path:
        """Folder with the socket, to be mounted at /in/index."""
        ...

    @property
    def recorded(self) -> Mapping[str, str]:
        """What was served: `<ecosystem>/<path>` and its digest."""
        ...

    @property
    def failure(self) -> SekishoError | None:
        """Why something could not be served."""
        ...

    @property
    def lasting(self) -> bool:
        """Whether all that was served is of a kind that never changes in an index."""
        ...


Resolve = Callable[[Sequence[str]], AbstractContextManager[Resolver]]


class Resolution(Document):
    """What was resolved for a commit."""

    app: str = NameField
    commit: str = Field(pattern=COMMIT_PATTERN)
    path: str
    language: str = NameField
    version: str
    tools: str = DigestField
    """Digest of the standard image whose package manager resolved."""
    files: dict[str, str]
    """Path of each lock file, relative to the workload, and its digest."""
    first: str = ""
    """The earlier commit that it was resolved for, where what decides it has not changed since; empty: this one."""

    @property
    def note(self) -> str:
        """One sentence for people."""
        shown = ", ".join(f"{path} {hex_of(digest)[:12]}" for path, digest in sorted(self.files.items()))
        start = "No usable lock file was committed: the"
        if self.first:
            return (
                f"{start} lock that the line resolved for {self.first[:12]} ({shown}) stands, because nothing that "
                "decides it has changed."
            )
        return f"{start} line resolved the packages and kept the lock ({shown}) as evidence."

    @property
    def remedy(self) -> str:
        """How people get the lock, one sentence."""
        command = f"sekisho lock {self.app}@{self.commit[:12]}"
        return f"`{command}` writes that lock into a working copy, to be committed."


@dataclass(frozen=True)
class Resolved:
    """Lock files of a workload that committed none."""

    files: Mapping[str, bytes]
    lasting: bool = False
    """Whether another commit with the same manifests may take them: the manifests alone decide them, and what they
    name never changes in an index. A range of versions is asked for anew, so that mended ones come in."""
    first: str = ""
    """The earlier commit that they were made for."""


def resolve(shop: Workshop, unresolved: Unresolved, proxy: Resolve, scratch: Path) -> Resolved:
    """Run a language's package manager once, and return the lock files that it made.

    Raises:
        Refusal: it failed, or made no lock; or something was asked for that an index has and may not give.
        TemporaryError: an index or the engine cannot be reached, also where the package manager goes on without it.
    """
    unlocked, step = unresolved.unlocked, unresolved.unlocked.step
    tools = needed(unresolved.tools)
    base = shop.bases(tools)
    what = step.what or "resolving of the packages"
    with tempfile.TemporaryDirectory(dir=scratch, prefix="resolve-") as folder, proxy(unlocked.ecosystems) as index:
        place = Path(folder)
        inputs = seed_folder(unresolved.project, step.source, place)
        inputs[INDEX] = index.folder
        if step.files:
            inputs["line"] = place / "line"
            inputs["line"].mkdir()
            entries = [Entry(name, "file", size=len(data), data=data) for name, data in sorted(step.files.items())]
            write_tree(merged([entries], where="line"), inputs["line"])
        prefix = "" if step.directory in ("", ".") else f"{step.directory.strip('/')}/"
        wanted = {prefix + path: path for path in unlocked.produces}
        command = Command(
            step.command, directory=step.directory, inputs=inputs, environment=dict(step.environment),
            outputs=tuple(wanted) or (".sekisho",), what=what, seconds=step.seconds,
        )  # fmt: skip
        archive = place / "output.tar"
        try:
            shop.sandbox.run(base, tools.repository, command, archive)
        except Refusal as refusal:
            if index.failure is not None:
                raise index.failure from refusal  # says more than the package manager does
            # What a step without a network is told does not fit one that has a way to the index.
            known = "" if refusal.remedy in (OTHERWISE, OFFLINE) else refusal.remedy
            remedy = f"{known or 'Correct what it says.'} Or lock the packages yourself. {unlocked.refusal.remedy}"
            raise Refusal(refusal.what, where=refusal.where, remedy=remedy) from refusal
        if index.failure is not None:
            # The package manager went on without it (an optional package, a list of versions): what it made lacks
            # something that the index has, and would be kept.
            raise index.failure
        found = {}
        for entry in entries_of_archive(archive, where=what, wanted=lambda path: path in wanted):
            if entry.kind != "file" or entry.size > _LOCK_LIMIT:
                raise Refusal(f"{wanted[entry.path]} is no plain file of at most {_LOCK_LIMIT >> 20} MiB.", where=what)
            with opened(entry) as file:
                found[wanted[entry.path]] = file.read(entry.size)
        recorded, lasting = dict(index.recorded), index.lasting
    missing = sorted(set(unlocked.produces) - found.keys())
    if missing:
        raise Refusal(
            f"The {what} made no {missing[0]}.", where=unresolved.project.name, remedy=unlocked.refusal.remedy
        )
    if unlocked.record_as:
        found[unlocked.record_as] = canonical({"format": _RECORDED, "files": recorded})
    return Resolved(found, lasting=lasting and bool(unlocked.record_as) and unlocked.decided_by is not None)


def find_resolution(
    registry: Registry, repository: str, revision: Revision, unresolved: Unresolved
) -> tuple[Resolution, dict[str, bytes]] | None:
    """Return what was resolved for this commit before, every byte checked; None for nothing.

    Raises:
        Refusal: what stands in its place is not a resolution.
    """
    found = _read(registry, repository, _tag(revision, unresolved))
    if found is not None and (found[0].app, found[0].commit) != (revision.app, revision.commit):
        raise Refusal("The resolution is not about what is in it.", where=repository)
    return found


def find_earlier(registry: Registry, repository: str, revision: Revision, unresolved: Unresolved) -> Resolved | None:
    """Return what was resolved for an earlier commit of the app, whose manifests were the same; None for nothing.

    Raises:
        Refusal: what stands in its place is not a resolution.
    """
    tag = _lasting_tag(revision, unresolved)
    kept = _read(registry, repository, tag) if tag else None
    if kept is None:
        return None
    found, files = kept
    if (found.app, found.path) != (revision.app, revision.path):
        raise Refusal("The resolution is not about what is in it.", where=repository)
    return Resolved(files, first=found.commit)


def _read(registry: Registry, repository: str, tag: str) -> tuple[Resolution, dict[str, bytes]] | None:
    raw = registry.get_manifest(repository, tag)
    if raw is None:
        return None
    manifest = Manifest.parse(raw.data, where=repository)
    if manifest.artifact_type != RESOLUTION_TYPE or not manifest.layers:
        raise Refusal("This is not a resolution.", where=repository)
    first, *rest = manifest.layers
    found = Resolution.parse(registry.get_blob(repository, first.digest), where=repository)
    files = {layer.annotations.get(_TITLE, ""): layer.digest for layer in rest}
    if files != found.files:
        raise Refusal("The resolution is not about what is in it.", where=repository)
    return found, {path: registry.get_blob(repository, digest) for path, digest in files.items()}


def keep_resolution(
    registry: Registry, repository: str, revision: Revision, unresolved: Unresolved, resolved: Resolved
) -> Resolution:
    """Keep what was resolved, as evidence for this commit, and for later ones where it lasts."""
    files = resolved.files
    found = Resolution(
        app=revision.app,
        commit=revision.commit,
        path=revision.path,
        language=unresolved.unlocked.language,
        version=unresolved.unlocked.version,
        tools=needed(unresolved.tools).digest,
        files={path: digest_of(data) for path, data in sorted(files.items())},
        first=resolved.first,
    )
    document = found.canonical()
    registry.put_blob(repository, EMPTY)
    registry.put_blob(repository, document)
    layers = [Descriptor.of(document, RESOLUTION_TYPE)]
    for path, data in sorted(files.items()):
        registry.put_blob(repository, data)
        layers.append(Descriptor(LOCK_TYPE, digest_of(data), len(data), annotations={_TITLE: path}))
    manifest = make_manifest(Descriptor.of(EMPTY, OCI_EMPTY), tuple(layers), artifact_type=RESOLUTION_TYPE)
    registry.put_manifest(repository, manifest, OCI_MANIFEST, tag=_tag(revision, unresolved))
    if resolved.lasting and (lasting := _lasting_tag(revision, unresolved)):
        registry.put_manifest(repository, manifest, OCI_MANIFEST, tag=lasting)
    return found


def _tag(revision: Revision, unresolved: Unresolved) -> str:
    unlocked = unresolved.unlocked
    key: Digest = digest_of_json(
        [revision.app, revision.commit, revision.path, unlocked.language, unlocked.version, unlocked.built_in,
         _tool(unresolved)]
    )  # fmt: skip
    return f"resolved-{hex_of(key)[:40]}"


def _lasting_tag(revision: Revision, unresolved: Unresolved) -> str:
    """Return the tag under which later commits look, by all that decides a lock; empty where any file may."""
    unlocked, step = unresolved.unlocked, unresolved.unlocked.step
    if unlocked.decided_by is None:
        return ""
    decided = {path: digest_of(unresolved.project.read(path) or b"") for path in unlocked.decided_by}
    line = {name: digest_of(data) for name, data in step.files.items()}
    key: Digest = digest_of_json(
        [revision.app, revision.path, unlocked.language, unlocked.version, unlocked.built_in, _tool(unresolved),
         decided, list(step.command), step.directory, line, dict(step.environment)]
    )  # fmt: skip
    return f"lasting-{hex_of(key)[:40]}"


def _tool(unresolved: Unresolved) -> str:
    """Return what of the build image decides whether a lock still holds.

    Not its digest: a mended library there must not give a commit other packages than it had. A record of files
    (`record_as`) holds for one release of the tool that asked for them.
    """
    name, tools = unresolved.unlocked.tool, needed(unresolved.tools)
    return next((package for package in tools.packages if package.startswith(f"{name}=")), tools.digest) if name else ""
