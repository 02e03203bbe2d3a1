"""An operator's own advisories: a package and version that nobody may use as of now (policies/advisories.yaml).

The world's database knows a vulnerability hours or days after the people who run things do. What stands in this file
becomes a database in trivy's own format, beside the mirror, and is looked into with every scan. It is as old as it is:
a denial does not expire, it is taken out.

Which versions are meant is compared by the scanner. It passes over a range that it cannot read without a word, so a
range is read here first, in a form that the scanner's comparers (go-pep440-version, go-npm-version, go-version,
go-mvn-version) understand.
"""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path
from typing import Any, Final, Literal

from packageurl import PackageURL
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version
from pydantic import Field, model_validator

from sekisho.advisories import ANNOTATION, metadata_of, pack_layer, push_layer
from sekisho.boltdb import Bucket
from sekisho.canonical import Digest, canonical
from sekisho.errors import Refusal
from sekisho.model import Document, Severity
from sekisho.oci import Manifest
from sekisho.policy_documents import load_document
from sekisho.registry import Registry

ADVISORIES_FILE = "advisories.yaml"
REPOSITORY, TAG = "mirror/own-advisories", "2"
SOURCE: Final = "own advisories"
"""What a finding names as its source."""
EVERY: Final = "all"
_SOURCE_ID: Final = "sekisho"

Ecosystem = Literal["pip", "npm", "go", "maven", "cargo", "debian"]

_PURL_TYPES: dict[str, Ecosystem] = {
    "pypi": "pip", "npm": "npm", "golang": "go", "maven": "maven", "cargo": "cargo", "deb": "debian",
}  # fmt: skip
_NAMES: dict[Ecosystem, re.Pattern[str]] = {
    "pip": re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?"),
    "npm": re.compile(r"(@[A-Za-z0-9~-][\w.~-]*/)?[A-Za-z0-9_.~-]+", re.ASCII),
    "go": re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*(/[\w.~-]+)*", re.ASCII),
    "maven": re.compile(r"[\w.-]+:[\w.-]+", re.ASCII),
    "cargo": re.compile(r"[A-Za-z0-9_-]+"),
    "debian": re.compile(r"[a-z0-9][a-z0-9.+-]+"),
}
_SEMANTIC = re.compile(r"v?\d+(\.\d+){0,2}(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?", re.ASCII)
_WHOLE = re.compile(r"v?\d+\.\d+\.\d+", re.ASCII)
_MAVEN = re.compile(r"\d[0-9A-Za-z]*([._-][0-9A-Za-z]+)*", re.ASCII)
_DEBIAN = re.compile(r"(\d+:)?\d[A-Za-z0-9.+~-]*", re.ASCII)
_PART = re.compile(r"(<=|>=|<|>|=)\s*(\S+)")
_RELEASES = range(8, 31)
"""Debian's, past and to come: whose base moves on stays denied."""
_SEVERITIES = {severity: number for number, severity in enumerate(Severity)}
_DATE = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
"""The database's date: it has none of its own, and the same list must give the same bytes."""


class OwnAdvisory(Document):
    """One package that is denied, in some versions or in all."""

    id: str = Field(pattern=r"^[A-Z][A-Z0-9]{1,19}-[0-9]{4}-[0-9]{4,}$")
    """An id of the operator's own, for example ACME-2026-0001."""
    ecosystem: Ecosystem
    package: str = Field(max_length=200)
    """For Debian the source package, for Maven `group:artifact`."""
    versions: tuple[str, ...] | Literal["all"] | None = None
    """Exactly these, or `all`. Exactly one of versions and ranges."""
    ranges: tuple[str, ...] | None = None
    """One of these, for example `>=2.0, <2.4.1`; for Debian one `<` and the version that mends it."""
    fixed: tuple[str, ...] = ()
    """Versions to go to."""
    severity: Severity = Severity.CRITICAL
    title: str = Field(min_length=10, max_length=300)
    """What is wrong, for the developer who reads the verdict."""

    @model_validator(mode="after")
    def _readable(self) -> OwnAdvisory:
        if not _NAMES[self.ecosystem].fullmatch(self.package):
            raise ValueError(f"{self.package!r} is not the name of a package of {self.ecosystem}")
        if bool(self.versions) == bool(self.ranges):
            raise ValueError("an advisory names exactly one of versions and ranges, and at least one of them")
        if self.versions == EVERY and self.fixed:
            raise ValueError("where all versions are denied, none is a fix")
        exact = () if self.versions is None or self.versions == EVERY else self.versions
        for text in (*exact, *self.fixed):
            if not readable(self.ecosystem, text):
                raise ValueError(f"the version {text!r:.60} cannot be compared")
            if self.ecosystem in {"npm", "cargo", "go"} and not _WHOLE.match(text):
                raise ValueError(f"the version {text!r:.60} is not whole: write all three numbers")
        for text in self.ranges or ():
            _check_range(self.ecosystem, text)
        if self.ecosystem == "debian" and self.ranges and (len(self.ranges) > 1 or not self.ranges[0].startswith("<")):
            raise ValueError("for Debian one range, of the form '<VERSION'")
        return self

    @property
    def name(self) -> str:
        """The package's name, as the scanner looks it up."""
        return canonicalize_name(self.package) if self.ecosystem == "pip" else self.package

    @property
    def exact(self) -> tuple[str, ...]:
        """The versions that are denied one by one."""
        return () if self.versions is None or self.versions == EVERY else self.versions


class OwnAdvisories(Document):
    """The content of advisories.yaml."""

    format: Literal["sekisho.dev/advisories/v1"]
    owner: str = Field(min_length=2)
    """Who denies, and whom to ask."""
    advisories: tuple[OwnAdvisory, ...] = ()

    @model_validator(mode="after")
    def _distinct(self) -> OwnAdvisories:
        seen: set[str] = set()
        for advisory in self.advisories:
            if advisory.id in seen:
                raise ValueError(f"{advisory.id} stands there twice")
            seen.add(advisory.id)
        return self


def load_own(folder: Path) -> OwnAdvisories | None:
    """Read advisories.yaml of a policies folder; without the file there are none.

    Raises:
        PermanentError: not valid; says the field and the line.
    """
    path = folder / ADVISORIES_FILE
    return load_file(path) if path.exists() else None


def load_file(path: Path) -> OwnAdvisories:
    """Read a list of own advisories.

    Raises:
        PermanentError: not there, or not valid; says the field and the line.
    """
    return load_document(path, OwnAdvisories, remedy="docs/scanning.md describes each field.")


def readable(ecosystem: Ecosystem, version: str) -> bool:
    """Tell whether the scanner can compare a version; one that it cannot compare it passes over."""
    if ecosystem == "pip":
        try:
            Version(version)
        except InvalidVersion:
            return False
        return True
    form = {"maven": _MAVEN, "debian": _DEBIAN}.get(ecosystem, _SEMANTIC)
    return form.fullmatch(version) is not None


def _check_range(ecosystem: Ecosystem, text: str) -> None:
    parts = [_PART.fullmatch(part.strip()) for part in text.split(",")]
    for part in parts:
        if part is None or not readable(ecosystem, part[2]):
            raise ValueError(f"the range {text!r:.60} cannot be read; write for example '>=2.0, <2.4.1'")
    if ecosystem == "debian" and len(parts) != 1:
        raise ValueError("for Debian one range, of the form '<VERSION'")
    if ecosystem == "pip":
        try:
            SpecifierSet(re.sub(r"(?<![<>=])=", "==", text))
        except InvalidSpecifier as error:
            raise ValueError(f"the range {text!r:.60} cannot be read") from error


def identify(purl: str) -> tuple[Ecosystem, str, str] | None:
    """Return ecosystem, name and version of a package URL; None for what no advisory here can be about."""
    try:
        parsed = PackageURL.from_string(purl)
    except ValueError:
        return None
    ecosystem = _PURL_TYPES.get(parsed.type)
    if ecosystem is None:
        return None
    name = parsed.name
    if parsed.namespace and ecosystem not in {"pip", "debian"}:
        name = f"{parsed.namespace}{':' if ecosystem == 'maven' else '/'}{name}"
    return ecosystem, canonicalize_name(name) if ecosystem == "pip" else name, parsed.version or ""


def own_buckets(own: OwnAdvisories) -> dict[bytes, Bucket]:
    """Return the advisories in trivy-db's schema."""
    buckets: dict[bytes, dict[bytes, dict[bytes, bytes]]] = {}
    details: dict[bytes, bytes] = {}
    for advisory in own.advisories:
        key = advisory.id.encode()
        for bucket in _buckets_of(advisory.ecosystem):
            packages = buckets.setdefault(bucket.encode(), {})
            packages.setdefault(advisory.name.encode(), {})[key] = canonical(_value(advisory))
        details[key] = canonical(
            {
                "Title": advisory.title,
                "Severity": advisory.severity.value,
                "VendorSeverity": {_SOURCE_ID: _SEVERITIES[advisory.severity]},
            }
        )
    source = canonical({"ID": _SOURCE_ID, "Name": SOURCE, "URL": ADVISORIES_FILE})
    return {b"data-source": dict.fromkeys(buckets, source), b"vulnerability": details, **buckets}


def _buckets_of(ecosystem: Ecosystem) -> tuple[str, ...]:
    if ecosystem == "debian":
        return tuple(f"debian {release}" for release in _RELEASES)
    return (f"{ecosystem}::{SOURCE}",)


def _value(advisory: OwnAdvisory) -> dict[str, Any]:
    if advisory.ecosystem == "debian":
        # Debian's comparer knows "older than" and "each"; single versions are picked out of the report.
        return {"FixedVersion": advisory.ranges[0].removeprefix("<").strip() if advisory.ranges else ""}
    # An empty range means every version, also one that cannot be compared (trivy, pkg/detector/library/compare).
    ranges = advisory.ranges or tuple(f"={version}" for version in advisory.exact) or ("",)
    return {"PatchedVersions": list(advisory.fixed), "VulnerableVersions": list(ranges)}


def push_own(registry: Registry, own: OwnAdvisories) -> Digest:
    """Publish own advisories in a zone's registry: the next scan looks into them.

    Returns:
        Digest of the artifact's manifest: what a scan's evidence names.

    Raises:
        Refusal: the registry refuses it.
        TemporaryError: the registry does not answer.
    """
    layer = pack_layer(own_buckets(own), metadata_of(_DATE))
    return push_layer(registry, layer, {ANNOTATION: "own"}, repository=REPOSITORY, tag=TAG, config=own.canonical())


def published(registry: Registry, digest: Digest | None = None) -> OwnAdvisories | None:
    """Return the own advisories that a zone's registry holds; None where none were ever published.

    Raises:
        Refusal: what stands there is something else.
        TemporaryError: the registry does not answer.
    """
    wanted = digest or registry.resolve(REPOSITORY, TAG)
    raw = registry.get_manifest(REPOSITORY, wanted) if wanted else None
    if raw is None:
        return None
    manifest = Manifest.parse(raw.data, where=REPOSITORY)
    if manifest.annotations.get(ANNOTATION) != "own":
        raise Refusal("These are not own advisories.", where=REPOSITORY, remedy="sekisho advisories publish")
    return OwnAdvisories.parse(registry.get_blob(REPOSITORY, Digest(manifest.config.digest)), where=REPOSITORY)
