"""What a build may use, and what becomes of a workload without a lock file: builds.yaml of a policies folder."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from sekisho.model import NAME_PATTERN, Document
from sekisho.policy_documents import load_document

BUILDS_FILE = "builds.yaml"

_SIZE = re.compile(r"([1-9][0-9]{0,5})(Ki|Mi|Gi|Ti)")
_UNITS = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40}

WithoutLock = Literal["resolve", "refuse"]


def _bytes(value: Any) -> Any:
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("write a size such as 512Mi or 4Gi")
    return int(match[1]) * _UNITS[match[2]]


Size = Annotated[int, BeforeValidator(_bytes)]
"""Bytes, written as `512Mi`."""


class SandboxLimits(Document):
    """What one step may use."""

    seconds: int = Field(default=900, ge=1, le=86_400)
    """Longest run of one step; a language may ask for less."""
    memory: Size = 4 << 30
    """Bytes, with what the step's files hold: they are in memory."""
    cpus: float = Field(default=2.0, gt=0, le=1024)
    processes: int = Field(default=512, ge=8)
    """Threads count as well."""
    output: Size = 2 << 30
    """Bytes of the files in /out."""
    scratch: Size = 1 << 30
    """Bytes of the files in /tmp."""
    files: int = Field(default=200_000, ge=100)
    """Files and folders in /out, and as many in /tmp."""
    log: Size = 64 << 20
    """Bytes that a step may print."""


class CacheLimits(Document):
    """How large the builder's caches may grow."""

    size: Size = 20 << 30
    """What kept outputs and layers take on the disk together; what was not used for longest goes first."""


class BuilderSpec(Document):
    """Who builds: what the provenance says, and what it promises."""

    id: str = Field(default="https://sekisho.dev/builders/embedded-unhosted/v1", pattern=r"^https://[!-~]{1,500}$")
    """SLSA's `builder.id`. Each that promises something else has an id and a key of its own."""
    level: Literal[1, 2] = 1
    """The Build level that the line's summaries claim: 2 only where it runs on a hosted platform."""

    @model_validator(mode="after")
    def _hosted(self) -> Self:
        if self.level > 1 and "unhosted" in self.id:
            raise ValueError("a builder that is called unhosted claims level 1: give a hosted one an id of its own")
        return self


class BuildRules(Document):
    """The content of builds.yaml."""

    format: Literal["sekisho.dev/builds/v1"] = "sekisho.dev/builds/v1"
    builder: BuilderSpec = BuilderSpec()
    sandbox: SandboxLimits = SandboxLimits()
    cache: CacheLimits = CacheLimits()
    without_lock: dict[Annotated[str, Field(pattern=NAME_PATTERN)], WithoutLock] = Field(default_factory=dict)
    """For each language, or `default` for those that are not named, what becomes of a workload without a lock file:
    `resolve` (once, by the line; the result is kept as evidence and used for that commit ever after) or `refuse`."""

    def resolves(self, language: str) -> bool:
        """Tell whether the line makes the lock of a workload in this language that has none."""
        return self.without_lock.get(language, self.without_lock.get("default", "resolve")) == "resolve"


def load_builds(folder: Path) -> BuildRules:
    """Read builds.yaml of a policies folder; without the file everything is as by default.

    Raises:
        PermanentError: not valid; says the field and the line.
    """
    path = folder / BUILDS_FILE
    return load_document(path, BuildRules) if path.exists() else BuildRules()
