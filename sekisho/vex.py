"""OpenVEX: statements that a vulnerability does not matter in an image, read and weighed by the line itself.

The scanner's own reading is too wide for a gate: a statement whose product is a package holds in every image. Here a
statement counts only when it names one of the line's images and, in it, packages. OpenVEX has no owner and no end, so
each document is listed in vex.yaml with both; one that is not listed, or not understood, stops the line.
Format: https://github.com/openvex/spec/blob/main/OPENVEX-SPEC.md, version 0.2.0.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from packageurl import PackageURL
from pydantic import AwareDatetime, Field, model_validator

from sekisho.canonical import parse_digest
from sekisho.errors import PermanentError, Refusal
from sekisho.model import IMAGE_HOST, Document, Finding
from sekisho.oci import check_repository
from sekisho.policy_documents import load_document
from sekisho.waivers import Place, read_purl, same_package

VEX_FILE, VEX_FOLDER = "vex.yaml", "vex"

_REMEDY = "docs/scanning.md says what a statement must name."
_HOLDING = frozenset({"not_affected", "fixed"})

Status = Literal["not_affected", "affected", "fixed", "under_investigation"]
Justification = Literal[
    "component_not_present",
    "vulnerable_code_not_present",
    "vulnerable_code_not_in_execute_path",
    "vulnerable_code_cannot_be_controlled_by_adversary",
    "inline_mitigations_already_exist",
]


class _Identifiers(Document):
    purl: str = ""
    cpe22: str = ""
    cpe23: str = ""


class _Component(Document):
    id: str = Field(default="", alias="@id")
    identifiers: _Identifiers = _Identifiers()
    hashes: dict[str, str] = Field(default_factory=dict)

    @property
    def name(self) -> str:
        """What it is called: its package URL where there is one."""
        return self.identifiers.purl or self.id

    @model_validator(mode="after")
    def _package(self) -> _Component:
        read_purl(self.name)
        return self


class _Product(Document):
    id: str = Field(default="", alias="@id")
    identifiers: _Identifiers = _Identifiers()
    hashes: dict[str, str] = Field(default_factory=dict)
    subcomponents: tuple[_Component, ...] = ()

    @model_validator(mode="after")
    def _narrow(self) -> _Product:
        image_of(self.identifiers.purl or self.id)
        if not self.subcomponents:
            raise ValueError("a product without subcomponents is the whole image: name the packages")
        return self


class _Vulnerability(Document):
    id: str = Field(default="", alias="@id")
    name: str = Field(min_length=3)
    description: str = ""
    aliases: tuple[str, ...] = ()


class _Statement(Document):
    id: str = Field(default="", alias="@id")
    version: int = Field(default=1, ge=1)
    vulnerability: _Vulnerability
    timestamp: AwareDatetime | None = None
    last_updated: AwareDatetime | None = None
    products: tuple[_Product, ...] = Field(min_length=1)
    status: Status
    supplier: str = ""
    status_notes: str = ""
    justification: Justification | None = None
    impact_statement: str = ""
    action_statement: str = ""
    action_statement_timestamp: AwareDatetime | None = None

    @model_validator(mode="after")
    def _said(self) -> _Statement:
        if self.status == "not_affected" and not (self.justification or self.impact_statement):
            raise ValueError("not_affected needs a justification or an impact_statement")
        if self.status != "not_affected" and self.justification:
            raise ValueError("a justification belongs to not_affected")
        if self.status == "affected" and not self.action_statement:
            raise ValueError("affected needs an action_statement")
        return self


class _Document(Document):
    context: Literal["https://openvex.dev/ns/v0.2.0"] = Field(alias="@context")
    id: str = Field(alias="@id", min_length=1)
    author: str = Field(min_length=1)
    role: str = ""
    timestamp: AwareDatetime
    last_updated: AwareDatetime | None = None
    version: int = Field(ge=1)
    tooling: str = ""
    statements: tuple[_Statement, ...] = Field(min_length=1)


class _Listed(Document):
    file: str = Field(pattern=r"^vex/[A-Za-z0-9][A-Za-z0-9._-]*\.json$")
    owner: str = Field(min_length=2)
    reason: str = Field(min_length=10)
    expires: dt.date


class _Index(Document):
    format: Literal["sekisho.dev/vex/v1"]
    documents: tuple[_Listed, ...] = ()


class VexClaim(Document):
    """What one statement says about one image."""

    file: str
    owner: str
    reason: str
    expires: dt.date
    """The last day (UTC) on which it holds."""
    ids: tuple[str, ...]
    """The vulnerability's name and its aliases."""
    repository: str
    """The image: `apps/NAME` or `standard/NAME`."""
    digest: str = ""
    """One image only; empty for each of that name."""
    packages: tuple[str, ...]
    """Package URLs, with or without a version."""
    status: Status
    why: str
    at: AwareDatetime

    @property
    def holds(self) -> bool:
        """Whether it says that the vulnerability does not matter."""
        return self.status in _HOLDING

    def covers(self, place: Place, finding: Finding) -> bool:
        """Tell whether this is about a finding, expired or not."""
        if finding.kind != "vulnerability" or finding.id not in self.ids:
            return False
        if self.repository == f"apps/{place.app}":
            digest = place.digest
        elif self.repository == f"standard/{place.base}" and finding.owner == "platform":
            digest = place.base_digest
        else:
            return False
        return self.digest in {"", digest} and any(same_package(item, finding.purl) for item in self.packages)

    def expired(self, today: dt.date) -> bool:
        """Tell whether its last day has passed."""
        return today > self.expires


def image_of(text: str) -> tuple[str, str]:
    """Return repository and digest of a product; the digest is empty where the product names none.

    Args:
        text: `pkg:oci/NAME[@sha256:...]?repository_url=registry.sekisho.internal/apps/NAME`, or the reference itself.

    Raises:
        ValueError: it is none of the line's images.
    """
    reference, digest = text, ""
    if text.startswith("pkg:"):
        parsed = PackageURL.from_string(text)
        url = dict(parsed.qualifiers).get("repository_url", "")
        reference, digest = url, parsed.version or ""
        if parsed.type != "oci" or url.rpartition("/")[2] != parsed.name:
            raise ValueError(_no_image(text))
    elif "@" in text:
        reference, _, digest = text.partition("@")
    host, _, repository = reference.partition("/")
    kind = repository.partition("/")[0]
    try:
        if host != IMAGE_HOST or kind not in {"apps", "standard"}:
            raise ValueError(_no_image(text))
        return check_repository(repository), parse_digest(digest) if digest else ""
    except Refusal as error:
        raise ValueError(_no_image(text)) from error


def _no_image(text: str) -> str:
    return f"{text!r:.120} is no image of this line: write {IMAGE_HOST}/apps/NAME, or its pkg:oci URL"


def weigh(claims: Sequence[VexClaim], place: Place, finding: Finding, today: dt.date) -> tuple[VexClaim | None, str]:
    """Return the statement that holds a finding, or None; and what is to be said of those that hold no more.

    The newest word counts, as OpenVEX has it. One that speaks against the finding's being harmless counts also when its
    document has expired, and wins when both are of one time.
    """
    about = [claim for claim in claims if claim.covers(place, finding)]
    against = max((claim.at for claim in about if not claim.holds), default=None)
    holding = [claim for claim in about if claim.holds and (against is None or claim.at > against)]
    valid = [claim for claim in holding if not claim.expired(today)]
    if valid:
        return max(valid, key=lambda claim: claim.at), ""
    if holding:
        last = max(holding, key=lambda claim: claim.expires)
        return None, f"The VEX document {last.file} of {last.owner} expired on {last.expires.isoformat()}."
    return None, ""


def load_vex(folder: Path) -> tuple[VexClaim, ...]:
    """Read vex.yaml of a policies folder and the OpenVEX documents that it lists; without both there are none.

    Raises:
        PermanentError: a document is not valid, not there, or not listed; says the field and the line.
    """
    index = folder / VEX_FILE
    listed = load_document(index, _Index, remedy=_REMEDY).documents if index.exists() else ()
    names = [item.file for item in listed]
    place = folder / VEX_FOLDER
    found = place.iterdir() if place.is_dir() else ()
    # As everywhere in the folder, Markdown is for people (sekisho/policy.py).
    there = {f"{VEX_FOLDER}/{path.name}" for path in found if path.suffix != ".md" and not path.name.startswith(".")}
    for name in sorted(there - set(names)):
        raise PermanentError(
            f"{name} is not listed, so nobody answers for it.",
            where=str(index),
            remedy="List it with owner, reason and its last day, or take it away.",
        )
    if len(set(names)) < len(names):
        raise PermanentError("A document is listed twice.", where=str(index), remedy="Once, with one owner and end.")
    return tuple(claim for item in listed for claim in _claims(folder, item))


def _claims(folder: Path, listed: _Listed) -> Iterator[VexClaim]:
    document = load_document(folder / listed.file, _Document, remedy=_REMEDY)
    for statement in document.statements:
        said = statement.justification or statement.status
        notes = statement.impact_statement or statement.status_notes
        for product in statement.products:
            repository, digest = image_of(product.identifiers.purl or product.id)
            yield VexClaim(
                file=listed.file,
                owner=listed.owner,
                reason=listed.reason,
                expires=listed.expires,
                ids=(statement.vulnerability.name, *statement.vulnerability.aliases),
                repository=repository,
                digest=digest,
                packages=tuple(item.name for item in product.subcomponents),
                status=statement.status,
                why=f"{said}: {notes}" if notes else said,
                at=statement.timestamp or document.timestamp,
            )
