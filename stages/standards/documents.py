"""What is kept and told about standard images."""

from __future__ import annotations

from pydantic import Field

from sekisho.model import AdvisoryDatabase, DigestField, Document, NameField, Reason, Result, Scan


class StandardVerdict(Document):
    """The gate's word about one standard image."""

    name: str = NameField
    image: str = DigestField
    result: Result
    reasons: tuple[Reason, ...]
    notes: tuple[str, ...] = ()
    rules: str = DigestField
    """Digest of limits, waivers and the image's end of life."""
    database: AdvisoryDatabase
    findings: dict[str, int] = Field(default_factory=dict)
    """Known vulnerabilities by severity."""
    provenance: str = DigestField
    scan: str = DigestField
    sbom: str = DigestField
    """Digests of the referrer manifests with the statements of builder and scanner."""

    @property
    def failures(self) -> tuple[Reason, ...]:
        """The reasons that failed."""
        return tuple(reason for reason in self.reasons if reason.result == "fail")


class StandardScan(Document):
    """The scan of a standard image, kept to be judged again."""

    scan: Scan
    provenance: str = DigestField
    statement: str = DigestField
    sbom_statement: str = DigestField


class StandardState(Document):
    """One standard image, for people: what it is and what the gate says of it now."""

    name: str
    kind: str
    language: str
    version: str
    title: str
    owner: str
    end_of_life: str
    digest: str = ""
    """Empty: never built."""
    size: int = 0
    verdict: str
    """PASSED, FAILED, waiting, or not built."""
    findings: dict[str, int] = Field(default_factory=dict)
    reasons: tuple[Reason, ...] = ()
    """What failed, and what is only said."""
    advisories: str = ""
    """`sample` or `mirror`."""
