"""What the build asks of a score.yaml before it is rendered: the workload's name, an annotation.

It is read as the render stage reads it, without anchors, aliases and tags, and bounded. Whether it is valid is for the
render stage to say: what cannot be read says nothing here.
"""

from __future__ import annotations

from typing import Any

from sekisho.errors import Refusal
from sekisho.score.files import SCORE
from sekisho.score.source import MAX_BYTES, read_document

__all__ = ["MAX_BYTES", "SCORE", "annotation", "read_mapping", "score_name"]


def score_name(data: bytes) -> str:
    """Return metadata.name; empty where there is none."""
    name = _inside(read_mapping(data, SCORE), "metadata").get("name")
    return str(name) if isinstance(name, (str, int)) else ""  # a number is no name, and is shown to who wrote it


def annotation(data: bytes, name: str) -> Any:
    """Return one of metadata.annotations, None where it is not there."""
    return _inside(_inside(read_mapping(data, SCORE), "metadata"), "annotations").get(name)


def read_mapping(data: bytes, file: str) -> dict[str, Any]:
    """Return the mapping that a file of YAML is; an empty one for any other, also for what cannot be read."""
    try:
        value = read_document(data, file).value
    except Refusal:
        return {}
    return value if isinstance(value, dict) else {}


def _inside(value: dict[str, Any], key: str) -> dict[str, Any]:
    found = value.get(key)
    return found if isinstance(found, dict) else {}
