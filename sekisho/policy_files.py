"""The part of the admission API that the policies may use, as closed models.

Source: Kubernetes API, admissionregistration.k8s.io/v1. What is left out (parameters, other failure policies,
selectors beside a namespace's labels, authorizer checks) has no meaning outside of an API server, or would make a rule
optional; a file that uses it is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import ConfigDict, Field, ValidationError, field_validator

from sekisho.errors import PermanentError, Refusal
from sekisho.kinds import Resource
from sekisho.model import Document
from sekisho.score.source import Source, read_documents

P = TypeVar("P", bound="_Part")


class _Part(Document):
    """A part of an API object: closed, with the API's own field names."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class _Metadata(_Part):
    name: str
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


class ResourceRule(_Part):
    """Which requests a policy is asked about."""

    api_groups: tuple[str, ...] = Field(alias="apiGroups", min_length=1)
    api_versions: tuple[str, ...] = Field(alias="apiVersions", min_length=1)
    operations: tuple[Literal["CREATE", "UPDATE", "*"], ...] = Field(min_length=1)
    resources: tuple[str, ...] = Field(min_length=1)

    def matches(self, resource: Resource) -> bool:
        """Tell whether creating such an object is meant."""
        return (
            bool({"*", resource.group} & set(self.api_groups))
            and bool({"*", resource.version} & set(self.api_versions))
            and bool({"*", "CREATE"} & set(self.operations))
            and bool({"*", "*/*", resource.name} & set(self.resources))
        )


class _MatchConstraints(_Part):
    resource_rules: tuple[ResourceRule, ...] = Field(alias="resourceRules", min_length=1)


class _Named(_Part):
    name: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    expression: str


class _Condition(_Part):
    name: str
    expression: str


class _Validation(_Part):
    expression: str
    message: str = Field(default="", pattern=r"^[^\r\n]*$")
    message_expression: str = Field(default="", alias="messageExpression")
    reason: Literal["", "Unauthorized", "Forbidden", "Invalid", "RequestEntityTooLarge"] = ""


class _PolicySpec(_Part):
    failure_policy: Literal["Fail"] = Field(alias="failurePolicy")
    match_constraints: _MatchConstraints = Field(alias="matchConstraints")
    match_conditions: tuple[_Condition, ...] = Field(default=(), alias="matchConditions")
    variables: tuple[_Named, ...] = ()
    validations: tuple[_Validation, ...] = Field(min_length=1)

    @field_validator("match_conditions", "variables")
    @classmethod
    def _once(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        """Refuse two of one name: which of them is meant, an API server would not ask."""
        if len({each.name for each in value}) != len(value):
            raise ValueError("a name stands here twice")
        return value


class PolicyObject(_Part):
    """A ValidatingAdmissionPolicy."""

    api_version: Literal["admissionregistration.k8s.io/v1"] = Field(alias="apiVersion")
    kind: Literal["ValidatingAdmissionPolicy"]
    metadata: _Metadata
    spec: _PolicySpec


class _Selector(_Part):
    match_labels: dict[str, str] = Field(alias="matchLabels", min_length=1)


class _MatchResources(_Part):
    namespace_selector: _Selector = Field(alias="namespaceSelector")


class _BindingSpec(_Part):
    policy_name: str = Field(alias="policyName")
    validation_actions: tuple[Literal["Deny", "Audit"], ...] = Field(alias="validationActions", min_length=1)
    match_resources: _MatchResources = Field(alias="matchResources")


class BindingObject(_Part):
    """A ValidatingAdmissionPolicyBinding that denies."""

    api_version: Literal["admissionregistration.k8s.io/v1"] = Field(alias="apiVersion")
    kind: Literal["ValidatingAdmissionPolicyBinding"]
    metadata: _Metadata
    spec: _BindingSpec


def read_policy_file(path: Path) -> list[Source]:
    """Read the documents of a policy file.

    Raises:
        PermanentError: not a readable YAML file with at least one document.
    """
    if path.suffix != ".yaml" or not path.is_file():
        raise PermanentError("This is not a policy file (*.yaml).", where=str(path), remedy="Remove it from here.")
    try:
        sources = read_documents(path.read_bytes(), str(path))
    except (OSError, Refusal) as error:
        raise PermanentError(f"The policy file cannot be read: {error}", where=str(path)) from error
    if not sources:
        raise PermanentError("The policy file is empty.", where=str(path))
    return sources


def parsed(cls: type[P], source: Source) -> P:
    """Return a document as an API object.

    Raises:
        PermanentError: a field is missing, unknown here, or of the wrong form; says the line.
    """
    try:
        return cls.model_validate(source.value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        pointer = "".join(f"/{part}" for part in first["loc"])
        raise PermanentError(
            f"{pointer}: {first['msg']}",
            where=f"{source.file}:{source.line(pointer)}",
            remedy="docs/policies.md lists the fields of a policy that are understood.",
        ) from error
