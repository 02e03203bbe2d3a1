"""What the builder says about an image: SLSA provenance v1. Pure.

Every field is made by the line itself, none by a step of the user's; `externalParameters` is complete, so that a
reader can refuse what it does not know. The predicate's form: https://slsa.dev/spec/v1.2/build-provenance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from packageurl import PackageURL

from sekisho.canonical import hex_of
from sekisho.model import IMAGE_HOST, Image, Revision, StandardImage
from sekisho.statements import PROVENANCE, Statement, Subject
from stages.build.compose import source_uri
from stages.build.language import Plan
from stages.build.materials import Material

BUILD_TYPE = "https://sekisho.dev/build/v1"
"""Explained in docs/builder.md."""


@dataclass(frozen=True)
class How:
    """How an image was made."""

    run: StandardImage
    tools: StandardImage | None
    """The image that steps ran in; None where nothing of the image came out of a step."""
    materials: tuple[Material, ...]
    plan: Plan
    recipe: tuple[str, ...]
    """How steps were run and layers packed."""
    locks: Mapping[str, str] = field(default_factory=dict)
    """Lock files that the line resolved, and their digests."""
    rebased_from: str = ""
    """Digest of the image whose layers were put on another standard image."""

    def with_locks(self, locks: Mapping[str, str]) -> How:
        """Return the same with lock files that the line resolved."""
        return replace(self, locks=dict(locks))


def provenance(image: Image, revision: Revision, how: How, *, builder_id: str, invocation: str) -> Statement:
    """Return the builder's statement about an image.

    Args:
        image: what was made.
        revision: from what.
        how: by what means.
        builder_id: URI of the builder, which says what is promised.
        invocation: id of the run.
    """
    source = {"uri": f"{source_uri(revision)}@{revision.commit}", "digest": {"gitCommit": revision.commit}}
    internal: dict[str, Any] = {
        "language": how.plan.language,
        "version": how.plan.version,
        "recipe": list(how.recipe),
        "steps": [{"name": step.name, "command": list(step.command), "kept": step.keep} for step in how.plan.steps],
    }
    if how.plan.built_in:
        internal["builtIn"] = how.plan.built_in
    if how.locks:
        internal["resolvedLocks"] = sorted(how.locks)
    if how.rebased_from:
        internal["rebasedFrom"] = how.rebased_from
    return Statement(
        subjects=(Subject(name=f"{IMAGE_HOST}/{image.repository}", digest=image.digest),),
        predicate_type=PROVENANCE,
        predicate={
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "repository": source_uri(revision),
                    "commit": revision.commit,
                    "path": revision.path,
                },
                "internalParameters": internal,
                "resolvedDependencies": [
                    source,
                    *(_standard(tool) for tool in (how.run, how.tools) if tool is not None),
                    *(
                        {"name": path, "uri": f"{IMAGE_HOST}/{image.repository}@{digest}",
                         "digest": {"sha256": hex_of(digest)}}
                        for path, digest in sorted(how.locks.items())
                    ),
                    *({"name": item.name, "uri": item.uri, "digest": dict(item.digest)} for item in how.materials),
                ],
            },
            "runDetails": {"builder": {"id": builder_id}, "metadata": {"invocationId": invocation}},
        },
    )  # fmt: skip


def _standard(image: StandardImage) -> dict[str, Any]:
    uri = PackageURL(
        "oci", None, image.repository.rpartition("/")[2], image.digest, {"repository_url": _url(image)}
    ).to_string()
    return {"name": image.name, "uri": uri, "digest": {"sha256": hex_of(image.digest)}}


def _url(image: StandardImage) -> str:
    return f"{IMAGE_HOST}/{image.repository}"
