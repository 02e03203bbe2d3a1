"""Cluster profiles: everything that differs between zones, in one validated file a zone."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from sekisho.errors import Refusal
from sekisho.model import NAME_PATTERN, Document


class ClusterSpec(Document):
    """How the zone's cluster is reached."""

    provider: Literal["local", "kind", "kubeconfig"]
    kubeconfig: str = ""
    """kubeconfig: path of the file."""
    context: str = ""

    @model_validator(mode="after")
    def _complete(self) -> ClusterSpec:
        if self.provider == "kubeconfig" and not self.kubeconfig:
            raise ValueError("provider kubeconfig needs the path of a kubeconfig")
        return self


class SourceSpec(Document):
    """Where the zone pulls releases from."""

    zone: str
    feed: str
    registry: str
    require: tuple[Literal["verifier", "staging"], ...] = ("verifier",)
    """Whose word an offered release needs: the verifier's summary, and staging's receipt."""


class Capability(Document):
    """One kind of service that the zone offers to workloads."""

    type: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]{0,61}[A-Za-z0-9]$")
    resource_class: str = "default"
    provider: Literal["postgres-in-cluster", "postgres-external", "node-port", "volume"]
    options: dict[str, Any] = Field(default_factory=dict)


class Agent(Document):
    """A security agent of the zone."""

    name: str = Field(pattern=NAME_PATTERN)
    kind: Literal["daemonset", "sidecar"]
    image: str
    """Name in policies/standard-images.yaml."""
    why: str
    options: dict[str, Any] = Field(default_factory=dict)


class NetworkSpec(Document):
    """Rules beside default-deny."""

    dns: bool = True
    ingress_from: tuple[str, ...] = ()
    """CIDRs that may reach workloads' declared ports; with a sidecar in front, the sidecar's."""


class GateSpec(Document):
    """What opens the gate."""

    mode: Literal["automatic", "approval"]
    approvals: int = Field(default=0, ge=0)
    approvers: str = "allowed_signers"
    """File in the zone's trust folder (ssh-keygen(1), ALLOWED SIGNERS)."""

    @model_validator(mode="after")
    def _consistent(self) -> GateSpec:
        if self.mode == "approval" and self.approvals < 1:
            raise ValueError("mode approval needs approvals >= 1")
        return self


class WatchSpec(Document):
    """What the zone does about what it sees."""

    interval_seconds: int = Field(default=60, ge=5)
    drift: Literal["heal", "report"] = "report"


class Profile(Document):
    """A zone's profile."""

    zone: str = Field(pattern=NAME_PATTERN)
    description: str
    cluster: ClusterSpec | None = None
    source: SourceSpec | None = None
    capabilities: tuple[Capability, ...] = ()
    agents: tuple[Agent, ...] = ()
    network: NetworkSpec = NetworkSpec()
    gate: GateSpec | None = None
    watch: WatchSpec = WatchSpec()
    deletion_budget: int = Field(default=3, ge=0)
    """Objects one plan may delete."""
    ready_seconds: int = Field(default=120, ge=1)
    """How long an apply may take to become healthy before it is rolled back."""

    def capability(self, type_: str, resource_class: str) -> Capability | None:
        """Return the capability for a need's type and class, or None."""
        for capability in self.capabilities:
            if (capability.type, capability.resource_class) == (type_, resource_class):
                return capability
        return None


def load_profile(path: Path) -> Profile:
    """Read and validate a profile.

    Raises:
        Refusal: not readable, not YAML, or not a valid profile; says the field.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise Refusal(f"The profile cannot be read: {error}", where=str(path)) from error
    if not isinstance(data, dict):
        raise Refusal("The profile is not a YAML mapping.", where=str(path))
    try:
        return Profile.model_validate(data)
    except ValidationError as error:
        problems = "; ".join(
            f"/{'/'.join(str(part) for part in item['loc'])}: {item['msg']}"
            for item in error.errors(include_url=False, include_input=False)
        )
        raise Refusal(
            f"The profile does not validate: {problems}", where=str(path), remedy="See docs/profiles.md for each field."
        ) from error
