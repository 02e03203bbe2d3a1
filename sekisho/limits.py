"""What the gate tolerates: limits.yaml, with the waivers and VEX statements that hold single findings for a while."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from sekisho.errors import PermanentError
from sekisho.model import Document, Finding, Severity
from sekisho.own_advisories import ADVISORIES_FILE, load_own
from sekisho.policy_documents import load_document
from sekisho.schemas import release, versions
from sekisho.vex import VEX_FILE, VexClaim, load_vex
from sekisho.waivers import WAIVERS_FILE, Waiver, load_waivers

LIMITS_FILE = "limits.yaml"

_ORDER = (Severity.UNKNOWN, Severity.LOW, Severity.MEDIUM, Severity.HIGH, Severity.CRITICAL)


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


class UnfixedLimits(Document):
    """What becomes of a vulnerability that would fail, while nobody has mended it yet."""

    platform: Literal["fail", "warn"] = "fail"
    """In the standard image: it is mended as soon as there is a fix, and workloads are rebased."""
    workload: Literal["fail", "warn"] = "fail"
    """In what a workload brings along."""
    days: int | None = Field(default=None, ge=1)
    """How long `warn` holds after the vulnerability became known; without it, until there is a fix."""

    def answer(self, finding: Finding, today: dt.date) -> Literal["fail", "warn"]:
        """Return what a vulnerability without a fix says today. What the operator denies is denied."""
        said = self.platform if finding.owner == "platform" else self.workload
        if finding.fixed or finding.kind != "vulnerability" or finding.source or said == "fail":
            return "fail"
        if self.days is None:
            return "warn"
        known = dt.date.fromisoformat(finding.published) if finding.published else None
        return "warn" if known is not None and today <= known + dt.timedelta(days=self.days) else "fail"


class Limits(Document):
    """The content of limits.yaml, together with the waivers."""

    format: Literal["sekisho.dev/limits/v1"]
    release_branches: tuple[str, ...] = Field(min_length=1)
    """Commits on these branches are released when they pass."""
    vulnerabilities: SeverityLimits
    unfixed: UnfixedLimits = UnfixedLimits()
    misconfigurations: SeverityLimits
    secrets: Literal["fail", "warn"]
    secrets_of_packages: Literal["fail", "warn"] = "fail"
    """The same in what locked packages brought along: test keys in published packages are nobody's secret."""
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
    vex: tuple[VexClaim, ...] = ()
    """From vex.yaml and the documents that it lists."""
    own_advisories: bool = False
    """Whether the operator has advisories of their own (advisories.yaml): then a scan without them is not whole."""

    @field_validator("kubernetes")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if strange := sorted(set(value) - set(versions())):
            raise ValueError(f"no schemas of Kubernetes {', '.join(strange)} here; known are {', '.join(versions())}")
        return tuple(sorted(set(value), key=release))

    def releases(self, branch: str) -> bool:
        """Tell whether a passing commit on this branch is released."""
        return branch in self.release_branches


def load_limits(folder: Path) -> Limits:
    """Read limits.yaml of a policies folder, and what holds single findings or adds to them.

    Raises:
        PermanentError: not there, or not valid; says the field and the line.
    """
    limits = load_document(folder / LIMITS_FILE, Limits)
    if limits.waivers or limits.vex or limits.own_advisories:
        remedy = f"Move them to {WAIVERS_FILE}, {VEX_FILE} or {ADVISORIES_FILE}, where their owners are asked for."
        raise PermanentError(
            "Waivers, VEX and advisories do not stand in limits.yaml.", where=str(folder / LIMITS_FILE), remedy=remedy
        )
    return limits.model_copy(
        update={
            "waivers": load_waivers(folder),
            "vex": load_vex(folder),
            "own_advisories": load_own(folder) is not None,
        }
    )
