"""What a document is."""

from __future__ import annotations

import json
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sekisho.canonical import Digest, canonical, digest_of
from sekisho.errors import Refusal

DIGEST_PATTERN = r"^sha256:[0-9a-f]{64}$"
NAME_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
COMMIT_PATTERN = r"^[0-9a-f]{40}$"

DigestField = Field(pattern=DIGEST_PATTERN)
NameField = Field(pattern=NAME_PATTERN)


class Document(BaseModel):
    """Base of all documents: frozen, closed, with a canonical form."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def canonical(self) -> bytes:
        """Return the document as canonical JSON (RFC 8785)."""
        return canonical(self.model_dump(mode="json"))

    def identity(self) -> Digest:
        """Return the digest of the canonical form: the document's name."""
        return digest_of(self.canonical())

    @classmethod
    def parse(cls, data: bytes | str, *, where: str = "") -> Self:
        """Read a document from JSON.

        Raises:
            Refusal: not JSON, a field is missing, unknown or of the wrong form.
        """
        try:
            return cls.model_validate(json.loads(data))
        except (ValueError, RecursionError, ValidationError) as error:
            raise Refusal(f"This is not a valid {cls.__name__}: {_brief(error)}", where=where) from error


def _brief(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        return f"/{'/'.join(str(part) for part in first['loc'])}: {first['msg']}"
    return str(error)[:300]
