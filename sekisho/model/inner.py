"""Documents of the inner loop: from the pushed revision to the sealed release."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from sekisho.model.base import COMMIT_PATTERN, DIGEST_PATTERN, DigestField, Document, NameField


def _without_empty(value: dict[str, Any], *names: str) -> dict[str, Any]:
    return {key: item for key, item in value.items() if item or key not in names}


class Result(StrEnum):
    """The word of the gate, as in SLSA's Verification Summary."""

    PASSED = "PASSED"
    FAILED = "FAILED"


class Severity(StrEnum):
    """Severities as Trivy names them."""

    UNKNOWN = "UNKNOWN"
    LOW = "LOW"
    MEDIUM = "MEDIUM"
    HIGH = "HIGH"
    CRITICAL = "CRITICAL"


# -- source ----------------------------------------------------------------------------------------------------


class Revision(Document):
    """One commit of a workload repository, as the receiver stored it."""

    app: str = NameField
    commit: str = Field(pattern=COMMIT_PATTERN)
    tree: str = Field(pattern=COMMIT_PATTERN)
    branch: str
    author: str
    committed_at: int
    """Committer time, seconds since the epoch; the only time that goes into images and releases."""
    path: str = "."


# -- build -----------------------------------------------------------------------------------------------------


class StandardImage(Document):
    """A standard image of the platform team, by digest."""

    name: str = NameField
    digest: str = DigestField
    repository: str
    """Repository in the zone's registry, for example `standard/python`."""
    version: str = ""
    packages: tuple[str, ...] = ()


class Layer(Document):
    """One layer of an image (OCI image-spec layer.md)."""

    digest: str = DigestField
    diff_id: str = DigestField
    size: int
    kind: Literal["base", "dependencies", "application"]


class Image(Document):
    """What the build stage made."""

    repository: str
    digest: str = DigestField
    language: str
    base: str = NameField
    base_digest: str = DigestField
    layers: tuple[Layer, ...]
    locked: tuple[str, ...] = ()
    """Package URLs of what belongs in it; the scan must find each of them in the image."""
    lock: Literal["committed", "resolved", "listed"] = "committed"
    """Where `locked` comes from: a lock file of the commit, one that the line resolved, or the build's own list."""
    notes: tuple[str, ...] = ()
    """What people should know about how it was made, one sentence each; said with every verdict."""
    launcher: tuple[str, ...] = ()
    """What its standard image puts in front of every command, also of one that score.yaml names: a small init, which
    is process 1 in the workload's place and passes signals on."""

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what came later and says nothing: releases that were sealed before keep their bytes."""
        value: dict[str, Any] = handler(self)
        if self.lock == "committed":
            value.pop("lock", None)
        if not self.notes:
            value.pop("notes", None)
        if not self.launcher:
            value.pop("launcher", None)
        return value

    @property
    def reference(self) -> str:
        """The zone-neutral reference; every zone's container runtime maps the host to its own registry."""
        return f"{IMAGE_HOST}/{self.repository}@{self.digest}"


IMAGE_HOST = "registry.sekisho.internal"
"""Host in every image reference; no DNS knows it, each zone's containerd maps it to the zone's own registry."""


# -- scan ------------------------------------------------------------------------------------------------------


class Tool(Document):
    """A tool and its identity."""

    name: str
    version: str
    digest: str = DigestField


class AdvisoryDatabase(Document):
    """The advisory database that a scan used."""

    digest: str = DigestField
    updated_at: str
    """RFC 3339."""
    kind: Literal["mirror", "sample"]
    """`sample`: a small database for demo and tests. Every report says so."""


class Finding(Document):
    """One thing a scanner found."""

    kind: Literal["vulnerability", "secret", "misconfiguration", "coverage"]
    id: str
    severity: Severity
    title: str
    where: str
    package: str = ""
    installed: str = ""
    fixed: str = ""
    owner: Literal["platform", "workload"]
    """Who mends it: `platform` when it sits in the standard image, else `workload`."""
    suppressed: str = ""
    """Always empty: what holds a finding is the policies' to say, never the report's."""
    purl: str = ""
    """The package's URL; empty for what is not about a package."""
    published: str = ""
    """Day on which the vulnerability became known, `2026-11-26`; empty where the database does not say."""
    source: str = ""
    """Where it is known from, when that is not the advisory database: the operator's own advisories."""
    layer: Literal["", "dependencies"] = ""
    """`dependencies` for a secret in what locked packages brought along, as everybody can download it."""

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what came later and says nothing: reports that were signed before keep their bytes."""
        return _without_empty(handler(self), "purl", "published", "source", "layer")


class Coverage(Document):
    """What was looked at: what was not scanned has not passed."""

    os_family: str
    os_version: str
    os_packages: int
    language_packages: int
    locked: int
    missing: tuple[str, ...] = ()
    """Locked packages that the scan did not find in the image."""


class Scan(Document):
    """The scan's evidence about one image, its source tree and its manifests."""

    image: str = DigestField
    scanner: Tool
    database: AdvisoryDatabase
    findings: tuple[Finding, ...]
    coverage: Coverage
    sbom: str = DigestField
    """Digest of the normalised CycloneDX SBOM."""
    own_advisories: str = Field(default="", pattern=f"^$|{DIGEST_PATTERN}")
    """Digest of the operator's own advisories, when there were any to look into."""

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what came later and says nothing: reports that were signed before keep their bytes."""
        return _without_empty(handler(self), "own_advisories")


# -- render ----------------------------------------------------------------------------------------------------


class Need(Document):
    """A resource that the workload asks for in its score.yaml (Score v1b1 `resources`)."""

    name: str
    type: str
    resource_class: str = "default"
    id: str = ""
    params: dict[str, Any] = Field(default_factory=dict)


class Manifests(Document):
    """Environment-neutral objects, rendered from score.yaml. The same bytes serve every zone."""

    app: str = NameField
    objects: tuple[dict[str, Any], ...]
    needs: tuple[Need, ...] = ()


# -- judge -----------------------------------------------------------------------------------------------------


class Reason(Document):
    """One rule's answer."""

    rule: str
    stage: str
    result: Literal["pass", "fail", "warn"]
    message: str
    remedy: str = ""
    where: str = ""
    owner: Literal["", "platform", "workload"] = ""
    finding: Finding | None = None
    """What the scanner found, where that is what the rule answers; `suppressed` says the waiver that holds."""

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what came later and says nothing: verdicts that were signed before keep their bytes."""
        value: dict[str, Any] = handler(self)
        if self.finding is None:
            value.pop("finding", None)
        return value


class Verdict(Document):
    """The gatekeeper's word about one revision."""

    app: str
    commit: str
    result: Result
    policy: str = DigestField
    reasons: tuple[Reason, ...]
    notes: tuple[str, ...] = ()
    """Said with every verdict, for example that sample advisories were used."""

    @property
    def failures(self) -> tuple[Reason, ...]:
        """The reasons that failed."""
        return tuple(reason for reason in self.reasons if reason.result == "fail")


class JudgeInput(Document):
    """All that is known about one commit. What a stage refused is None, and its reason stands in `problems`."""

    app: str = NameField
    commit: str
    image: Image | None = None
    manifests: Manifests | None = None
    scan: Scan | None = None
    problems: tuple[Reason, ...] = ()


class Archive(Document):
    """A policies folder as it was in force, packed (`sekisho.policy_archive`)."""

    digest: str = DigestField
    size: int = Field(ge=0)


class Judgement(Document):
    """A verdict with all that decided it: whoever has this and the archive can judge again and compare."""

    format: Literal["sekisho.dev/judgement/v1"] = "sekisho.dev/judgement/v1"
    subject: JudgeInput
    at: int
    """When it was judged, seconds since the epoch: advisories age, waivers and standard images end."""
    policies: Archive
    verdict: Verdict
    versions: dict[str, str] = Field(default_factory=dict)
    """Of the judge and of what it counts on, by name: another version may say another thing."""


# -- seal ------------------------------------------------------------------------------------------------------


class EvidenceRef(Document):
    """A signed statement by digest of its referrer manifest, with what it claims to be."""

    role: Literal["builder", "scanner", "verifier"]
    predicate_type: str
    manifest: str = DigestField
    subject: str = DigestField


class Release(Document):
    """One sealed release: what crosses the border. Stored as the config blob of an OCI artifact."""

    format: Literal["sekisho.dev/release/v1"] = "sekisho.dev/release/v1"
    app: str = NameField
    revision: Revision
    image: Image
    manifests: str = DigestField
    """Digest of the canonical bytes of Manifests, the artifact's layer."""
    policy: str = DigestField
    evidence: tuple[EvidenceRef, ...]
    """Builder's and scanner's statements. The verifier's statement is about the release and refers to it."""


class SealedRelease(Document):
    """A release as it stands in a registry."""

    repository: str
    """For example `releases/guestbook`."""
    digest: str = DigestField
    """Digest of the release's OCI manifest: the name of the release."""
    summary: str = DigestField
    """Digest of the referrer manifest that carries the verifier's summary (VSA)."""
    release: Release
