"""Documents of the outer loop: from a feed's offer to what runs, and what people decide."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from sekisho.model.base import COMMIT_PATTERN, DigestField, Document, NameField


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
    """For `planned`: {"plan": Plan, "dry_run": DryRun}; else {"plan": digest, ...}. Never a secret."""
