"""The small typed files of a policies folder: read strictly, and a fault names the field and the line."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from sekisho.errors import PermanentError, Refusal
from sekisho.model import Document
from sekisho.score.source import read_document

D = TypeVar("D", bound=Document)


def load_document(path: Path, cls: type[D], *, remedy: str = "docs/policies.md describes each field.") -> D:
    """Read one YAML or JSON file of a policies folder.

    Raises:
        PermanentError: not there, or not valid; says the field and the line.
    """
    try:
        source = read_document(path.read_bytes(), str(path))
    except (OSError, Refusal) as error:
        raise PermanentError(f"The file cannot be read: {error}", where=str(path)) from error
    try:
        return cls.model_validate(source.value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        pointer = "".join(f"/{part}" for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise PermanentError(
            f"{pointer or '/'}: {message}", where=f"{path}:{source.line(pointer)}", remedy=remedy
        ) from error
