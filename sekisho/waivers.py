"""Waivers: findings that are tolerated for a while, each with owner, reason, scope and last day (waivers.yaml)."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from packageurl import PackageURL
from packaging.utils import canonicalize_name
from pydantic import Field, model_validator

from sekisho.model import NAME_PATTERN, Document, Finding
from sekisho.policy_documents import load_document

WAIVERS_FILE = "waivers.yaml"

_REMEDY = "docs/scanning.md describes each field."


@dataclass(frozen=True)
class Place:
    """Where something was found: in which image, and on which standard image that stands."""

    app: str
    """The workload; `standard-NAME` for a standard image itself."""
    digest: str = ""
    base: str = ""
    base_digest: str = ""


def read_purl(text: str) -> PackageURL:
    """Return a package URL, a Python name in its normal form.

    Raises:
        ValueError: it is not one.
    """
    parsed = PackageURL.from_string(text)
    if parsed.type == "pypi":
        return parsed._replace(name=canonicalize_name(parsed.name))
    return parsed


def same_package(meant: str, found: str) -> bool:
    """Tell whether a package URL, perhaps without a version, means the package of another.

    Args:
        meant: what a person wrote; a version and qualifiers count where they are there.
        found: what the scanner says.
    """
    try:
        one, other = read_purl(meant), read_purl(found)
    except ValueError:
        return False
    return (
        (one.type, one.namespace, one.name) == (other.type, other.namespace, other.name)
        and one.version in {None, "", other.version}
        and dict(one.qualifiers).items() <= dict(other.qualifiers).items()
    )


class Waiver(Document):
    """One finding that is tolerated in one app, or in one standard image and all that stands on it, until a day."""

    id: str = Field(min_length=3)
    """The finding's id, for example CVE-2026-1234."""
    app: str = Field(default="", pattern=f"^$|{NAME_PATTERN}")
    """The workload. Exactly one of app and base."""
    base: str = Field(default="", pattern=f"^$|{NAME_PATTERN}")
    """The standard image; then only what is the platform's to mend."""
    package: str = ""
    """For a vulnerability: the package, by its name or as a package URL. Exactly one of package and where."""
    versions: tuple[str, ...] = ()
    """Only these installed versions; without them, and without one in the package URL, every version."""
    where: str = ""
    """For anything else: the finding's place."""
    owner: str = Field(min_length=2)
    reason: str = Field(min_length=10)
    expires: dt.date
    """The last day (UTC) on which it holds."""

    @model_validator(mode="after")
    def _narrow(self) -> Waiver:
        if bool(self.app) == bool(self.base):
            raise ValueError("a waiver names exactly one of app and base")
        if bool(self.package) == bool(self.where):
            raise ValueError("a waiver names exactly one of package and where")
        if self.versions and self.where:
            raise ValueError("only a package has versions")
        if self.package.startswith("pkg:") and read_purl(self.package).version and self.versions:
            raise ValueError("the version stands in the package URL already")
        return self

    def covers(self, place: Place, finding: Finding) -> bool:
        """Tell whether this waiver is about a finding, expired or not. A secret cannot be waived."""
        if finding.kind == "secret" or finding.id != self.id:
            return False
        if self.base:
            if place.base != self.base or finding.owner != "platform":
                return False
        elif place.app != self.app:
            return False
        if self.where:
            return finding.where == self.where
        if self.versions and finding.installed not in self.versions:
            return False
        if self.package.startswith("pkg:"):
            return same_package(self.package, finding.purl)
        return finding.package == self.package

    def expired(self, today: dt.date) -> bool:
        """Tell whether its last day has passed."""
        return today > self.expires


class _WaiversFile(Document):
    format: Literal["sekisho.dev/waivers/v1"]
    waivers: tuple[Waiver, ...] = ()


def load_waivers(folder: Path) -> tuple[Waiver, ...]:
    """Read waivers.yaml of a policies folder; without the file there are none.

    Raises:
        PermanentError: not valid; says the field and the line.
    """
    path = folder / WAIVERS_FILE
    return load_document(path, _WaiversFile, remedy=_REMEDY).waivers if path.exists() else ()
