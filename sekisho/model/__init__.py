"""The documents of the line: frozen, closed, content-addressed.

Every document is closed (unknown fields are refused) and has one canonical form (RFC 8785), whose sha256 is its
identity. Field names in JSON are those of the models. `base` says what a document is, `inner` holds those of the inner
loop up to the sealed release, `outer` those of the outer loop.
"""

from __future__ import annotations

from sekisho.model.base import COMMIT_PATTERN, DIGEST_PATTERN, NAME_PATTERN, DigestField, Document, NameField
from sekisho.model.inner import (
    IMAGE_HOST,
    AdvisoryDatabase,
    Coverage,
    EvidenceRef,
    Finding,
    Image,
    Layer,
    Manifests,
    Need,
    Reason,
    Release,
    Result,
    Revision,
    Scan,
    SealedRelease,
    Severity,
    StandardImage,
    Tool,
    Verdict,
)
from sekisho.model.outer import (
    Binding,
    Bound,
    Change,
    Decision,
    Deployment,
    DryRun,
    Explained,
    GateState,
    Hardened,
    Health,
    Offer,
    Plan,
    Receipt,
    SignedDecision,
)

__all__ = [
    "COMMIT_PATTERN",
    "DIGEST_PATTERN",
    "IMAGE_HOST",
    "NAME_PATTERN",
    "AdvisoryDatabase",
    "Binding",
    "Bound",
    "Change",
    "Coverage",
    "Decision",
    "Deployment",
    "DigestField",
    "Document",
    "DryRun",
    "EvidenceRef",
    "Explained",
    "Finding",
    "GateState",
    "Hardened",
    "Health",
    "Image",
    "Layer",
    "Manifests",
    "NameField",
    "Need",
    "Offer",
    "Plan",
    "Reason",
    "Receipt",
    "Release",
    "Result",
    "Revision",
    "Scan",
    "SealedRelease",
    "Severity",
    "SignedDecision",
    "StandardImage",
    "Tool",
    "Verdict",
]
