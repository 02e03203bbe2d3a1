"""What the gate tolerates: limits.yaml, and the waivers that hold single findings for a while (waivers.yaml)."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import Field, ValidationError, field_validator, model_validator

from sekisho.errors import PermanentError, Refusal
from sekisho.model import NAME_PATTERN, Document, Finding, Severity
from sekisho.schemas import release, versions
from sekisho.score.source import read_document

LIMITS_FILE = "limits.yaml"
WAIVERS_FILE = "waivers.yaml"

_ORDER = (Severity.UNKNOWN, Severity.LOW, Severity.MEDIUM, Severity.HIGH, Severity.CRITICAL)

D = TypeVar("D", bound=Document)


def at_least(severity: Severity, limit: Severity) -> bool:
    """Tell whether a severity is as bad as a limit, or worse."""
    return _ORDER.index(severity) >= _ORDER.index(limit)


class SeverityLimits(Document):
    """From which severity on a finding fails, and from which it is shown."""

    fail: Severity
    warn: Severity

    @model_validator(mode="after")
    def _ordered(self) -> SeverityLimits:
        if not at_least(self.fail, self.warn):
            raise ValueError("warn must not be worse than fail")
        return self


class DatabaseLimits(Document):
    """How old advisories may be."""

    max_age_hours: int = Field(ge=1)


class EndOfLifeLimits(Document):
    """When the end of life of a standard image is announced, and what comes after it."""

    warn_days: int = Field(ge=0)
    after: Literal["fail", "warn"] = "fail"
    """What an image says that stands on one past its end of life: `warn` is for the weeks of a move."""


class Waiver(Document):
    """One finding that is tolerated in one app, until a day."""

    id: str = Field(min_length=3)
    """The finding's id, for example CVE-2026-1234."""
    app: str = Field(pattern=NAME_PATTERN)
    package: str = ""
    """For a vulnerability: the package. Exactly one of package and where."""
    where: str = ""
    """For anything else: the finding's place."""
    owner: str = Field(min_length=2)
    reason: str = Field(min_length=10)
    expires: dt.date
    """The last day (UTC) on which it holds."""

    @model_validator(mode="after")
    def _narrow(self) -> Waiver:
        if bool(self.package) == bool(self.where):
            raise ValueError("a waiver names exactly one of package and where")
        return self

    def covers(self, app: str, finding: Finding) -> bool:
        """Tell whether this waiver is about a finding, expired or not. A secret cannot be waived."""
        if finding.kind == "secret" or (app, finding.id) != (self.app, self.id):
            return False
        return finding.package == self.package if self.package else finding.where == self.where

    def expired(self, today: dt.date) -> bool:
        """Tell whether its last day has passed."""
        return today > self.expires


class Limits(Document):
    """The content of limits.yaml, together with the waivers."""

    format: Literal["sekisho.dev/limits/v1"]
    release_branches: tuple[str, ...] = Field(min_length=1)
    """Commits on these branches are released when they pass."""
    vulnerabilities: SeverityLimits
    misconfigurations: SeverityLimits
    secrets: Literal["fail", "warn"]
    database: DatabaseLimits
    os_families: tuple[str, ...] = Field(min_length=1)
    """Operating systems that the scanner understands."""
    end_of_life: EndOfLifeLimits
    kinds: tuple[str, ...] = Field(min_length=1)
    """Kinds of objects that a workload may consist of."""
    kubernetes: tuple[str, ...] = ()
    """Kubernetes versions (`1.36`) that the zones may run; each has to take the objects. Empty: all known."""

    waivers: tuple[Waiver, ...] = ()
    """From waivers.yaml; limits.yaml itself does not name them."""

    @field_validator("kubernetes")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if strange := sorted(set(value) - set(versions())):
            raise ValueError(f"no schemas of Kubernetes {', '.join(strange)} here; known are {', '.join(versions())}")
        return tuple(sorted(set(value), key=release))

    def releases(self, branch: str) -> bool:
        """Tell whether a passing commit on this branch is released."""
        return branch in self.release_branches


class _WaiversFile(Document):
    format: Literal["sekisho.dev/waivers/v1"]
    waivers: tuple[Waiver, ...] = ()


def load_limits(folder: Path) -> Limits:
    """Read limits.yaml and waivers.yaml of a policies folder.

    Raises:
        PermanentError: not there, or not valid; says the field and the line.
    """
    limits = load_document(folder / LIMITS_FILE, Limits)
    if limits.waivers:
        remedy = f"Move them to {WAIVERS_FILE}, where their owners are asked for."
        raise PermanentError("Waivers do not stand in limits.yaml.", where=str(folder / LIMITS_FILE), remedy=remedy)
    return limits.model_copy(update={"waivers": load_waivers(folder)})


def load_waivers(folder: Path) -> tuple[Waiver, ...]:
    """Read waivers.yaml of a policies folder; without the file there are none.

    Raises:
        PermanentError: not valid; says the field and the line.
    """
    path = folder / WAIVERS_FILE
    return load_document(path, _WaiversFile).waivers if path.exists() else ()


def load_document(path: Path, cls: type[D]) -> D:
    """Read one YAML file of a policies folder.

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
        raise PermanentError(
            f"{pointer or '/'}: {first['msg']}",
            where=f"{path}:{source.line(pointer)}",
            remedy="docs/policies.md describes each field.",
        ) from error
