"""The documents of the line: frozen, closed, content-addressed.

Every document is closed (unknown fields are refused) and has one canonical form (RFC 8785), whose sha256 is its
identity. Field names in JSON are those of the models.
"""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Any, Literal, Self

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
    """Package URLs of what the lock file pins; the scan must find each of them in the image."""

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
    """The waiver's reason, when a waiver holds; the finding stays in the report."""


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


# -- outer loop ------------------------------------------------------------------------------------------------


class Offer(Document):
    """One line of a zone's release feed. Untrusted: whoever reads it verifies what it names."""

    sequence: int
    app: str = NameField
    release: str = DigestField
    summary: str = DigestField
    commit: str = Field(pattern=COMMIT_PATTERN)
    receipt: str = ""
    """In staging's feed: digest of the referrer manifest with the zone's statement that it verified the release."""


class Explained(Document):
    """A field that the outer loop added or changed, and why."""

    object: str
    """`Kind/name`."""
    path: str
    """JSON pointer."""
    why: str
    by: str
    """The stage, with the capability, agent or rule of the profile."""


class Binding(Document):
    """One need, bound to a zone's real service. Holds no credential."""

    need: str
    type: str
    provider: str
    secret: str = ""
    """Name of the Secret with the Service Binding entries; empty where a need gives none (a route)."""
    fingerprint: str = ""
    """HMAC-SHA256 of the credentials under the zone's own key: shows a change, gives nothing away."""
    address: str = ""
    """`host:port` that the workload must reach; empty where none."""
    objects: tuple[dict[str, Any], ...] = ()
    explained: tuple[Explained, ...] = ()


class Bound(Document):
    """Manifests with every need bound; the input of harden."""

    app: str
    zone: str
    release: str = DigestField
    objects: tuple[dict[str, Any], ...]
    bindings: tuple[Binding, ...]
    explained: tuple[Explained, ...] = ()


class Hardened(Document):
    """Bound objects with agents, network rules and Pod Security."""

    app: str
    zone: str
    release: str = DigestField
    namespace: str
    objects: tuple[dict[str, Any], ...]
    bindings: tuple[Binding, ...]
    explained: tuple[Explained, ...]


class Change(Document):
    """What one object's apply will do, from a server-side dry run."""

    object: str
    action: Literal["create", "update", "none", "delete"]
    fields: tuple[str, ...] = ()
    """JSON pointers with old and new value, secrets left out."""


class Plan(Document):
    """Exactly what will be applied. Its digest is what people approve."""

    format: Literal["sekisho.dev/plan/v1"] = "sekisho.dev/plan/v1"
    app: str = NameField
    zone: str
    release: str = DigestField
    summary: str = DigestField
    commit: str
    image: str
    namespace: str
    objects: tuple[dict[str, Any], ...]
    """In order of apply. Secrets are named with a fingerprint of their data, never with the data."""
    prune: tuple[str, ...] = ()
    """`apiVersion/Kind/namespace/name` of what will be deleted."""
    previous: str = ""
    """Digest of the plan that runs now; empty for the first."""
    smoke: tuple[str, ...] = ()
    """HTTP paths of the workload's Service that must answer below 400."""


class DryRun(Document):
    """The diff that goes with a plan. Not part of its digest: the cluster moves."""

    plan: str = DigestField
    changes: tuple[Change, ...]
    explained: tuple[Explained, ...] = ()


class Decision(Document):
    """What a person decided. Signed with the person's SSH key over these canonical bytes."""

    format: Literal["sekisho.dev/decision/v1"] = "sekisho.dev/decision/v1"
    kind: Literal["approve", "reject", "rollback"]
    zone: str
    app: str
    subject: str = DigestField
    """approve, reject: the plan's digest. rollback: the digest of the release to go back to."""
    reason: str = ""
    principal: str
    issued_at: int
    nonce: str = Field(pattern=r"^[0-9a-f]{32}$")


class SignedDecision(Document):
    """A decision and its SSH signature (PROTOCOL.sshsig, armored)."""

    decision: Decision
    signature: str


class GateState(Document):
    """Whether the gate is open, and if not, why, who opens it."""

    open: bool
    why: str
    who: tuple[str, ...] = ()
    decisions: tuple[str, ...] = ()
    """Digests of the decisions that counted."""


class Deployment(Document):
    """What was applied. Written once the apply is through."""

    app: str
    zone: str
    plan: str = DigestField
    release: str = DigestField
    commit: str
    namespace: str
    url: str = ""


class Health(Document):
    """What verify found."""

    healthy: bool
    cause: str = ""
    checks: tuple[str, ...] = ()
    rolled_back_to: str = ""


class Receipt(Document):
    """What a zone did, signed by the zone's key and kept in the ledger."""

    format: Literal["sekisho.dev/receipt/v1"] = "sekisho.dev/receipt/v1"
    zone: str
    app: str
    release: str = ""
    commit: str = ""
    event: str
    """received, refused, planned, held, approved, rejected, applied, healthy, failed, rolled-back, drift, ..."""
    message: str = ""
    at: int
    """Seconds since the epoch."""
    body: dict[str, Any] = Field(default_factory=dict)
    """For `planned` and `held`: {"plan": Plan, "dry_run": DryRun, "gate": GateState}; no secret ever."""
