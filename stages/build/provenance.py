"""What the builder says about an image: SLSA provenance v1. Pure.

Every field is made by the line itself, none by a step of the user's; `externalParameters` is complete, so that a
reader can refuse what it does not know. The predicate's form: https://slsa.dev/spec/v1.2/build-provenance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from packageurl import PackageURL

from sekisho.canonical import hex_of
from sekisho.model import IMAGE_HOST, Image, Revision, StandardImage
from sekisho.statements import PROVENANCE, Statement, Subject
from stages.build.compose import source_uri
from stages.build.fetch import Wheel

BUILD_TYPE = "https://sekisho.dev/build/v1"
"""Explained in docs/builder.md."""


def provenance(
    image: Image,
    revision: Revision,
    tools: Sequence[StandardImage],
    wheels: Sequence[Wheel],
    *,
    builder_id: str,
    invocation: str,
    recipe: str,
) -> Statement:
    """Return the builder's statement about an image.

    Args:
        image: what was made.
        revision: from what.
        tools: the standard images that it was made on and with.
        wheels: the packages in it.
        builder_id: URI of the builder, which says what is promised.
        invocation: id of the run.
        recipe: how layers are packed.
    """
    source = {"uri": f"{source_uri(revision)}@{revision.commit}", "digest": {"gitCommit": revision.commit}}
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
                "internalParameters": {"language": image.language, "recipe": recipe},
                "resolvedDependencies": [
                    source,
                    *(_standard(tool) for tool in tools),
                    *(_wheel(wheel) for wheel in wheels),
                ],
            },
            "runDetails": {"builder": {"id": builder_id}, "metadata": {"invocationId": invocation}},
        },
    )


def _standard(image: StandardImage) -> dict[str, Any]:
    uri = PackageURL(
        "oci", None, image.repository.rpartition("/")[2], image.digest, {"repository_url": _url(image)}
    ).to_string()
    return {"name": image.name, "uri": uri, "digest": {"sha256": hex_of(image.digest)}}


def _url(image: StandardImage) -> str:
    return f"{IMAGE_HOST}/{image.repository}"


def _wheel(wheel: Wheel) -> dict[str, Any]:
    return {"name": wheel.path.name, "uri": wheel.locked.purl, "digest": {"sha256": wheel.sha256}}
