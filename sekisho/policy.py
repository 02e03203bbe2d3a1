"""The platform's rules over Kubernetes objects: ValidatingAdmissionPolicy files, evaluated as the API server does.

`policies/admission/*.yaml` holds policies and their bindings. The same files are applied to every governed cluster;
here they judge before anything gets near one. What holds:

1. Nothing passes for want of rules: an empty folder, a file that does not read, an expression that does not compile,
   a policy without a binding that denies, all stop the line.
2. Only the part of the API is taken whose meaning is the same here and there; every other field is refused.
3. An expression that fails on an object (a missing field) denies the object, as with failurePolicy Fail.
4. An object of a kind that is not known here is denied: nobody can say which rules are meant for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from sekisho.canonical import Digest, digest_of_file, digest_of_json
from sekisho.cel import Environment, EvaluationError, Expression, all_of
from sekisho.errors import PermanentError
from sekisho.kinds import Resource, resource_of
from sekisho.model import Reason
from sekisho.policy_archive import policy_files
from sekisho.policy_files import BindingObject, PolicyObject, ResourceRule, parsed, read_policy_file
from sekisho.score.source import Source

ADMISSION = "admission"
GOVERNED = {"sekisho.dev/governed": "true"}
"""Label of the namespaces in which the policies hold; harden sets it."""

_TITLE, _WHY, _REMEDY = "sekisho.dev/title", "sekisho.dev/why", "sekisho.dev/remedy"
_VARIABLES = ("object", "oldObject", "request", "namespaceObject", "params")
_NOTHING = dict.fromkeys(_VARIABLES)
_WRITTEN_EMPTY = {"Role": ("rules",), "ClusterRole": ("rules",), "EndpointSlice": ("endpoints", "ports")}
"""Lists that an API server's typed objects have even when nobody wrote them, as null (no `omitempty` in k8s.io/api)."""
_MAX_MESSAGE = 5 * 1024
"""The API server's limit on what a messageExpression may give."""


@dataclass(frozen=True)
class _Check:
    expression: Expression
    message: str
    message_expression: Expression | None


@dataclass(frozen=True)
class Policy:
    """One policy, compiled, with the namespaces in which it denies."""

    name: str
    title: str = field(repr=False)
    why: str = field(repr=False)
    remedy: str = field(repr=False)
    manifest: Mapping[str, Any] = field(repr=False)
    """The policy as it is applied to a cluster."""
    binding: Mapping[str, Any] = field(repr=False)
    """Its binding, as it is applied to a cluster."""
    rules: tuple[ResourceRule, ...] = field(repr=False)
    selector: Mapping[str, str] = field(repr=False)
    environment: Environment = field(repr=False)
    conditions: tuple[Expression, ...] = field(repr=False)
    whole: Expression = field(repr=False)
    """All of it as one expression: true where the object is not denied."""
    checks: tuple[_Check, ...] = field(repr=False)

    @property
    def rule(self) -> str:
        """The policy's name in a verdict."""
        return f"admission/{self.name.removeprefix('sekisho-')}"

    def applies_to(self, resource: Resource, labels: Mapping[str, str]) -> bool:
        """Tell whether creating an object of this kind, in a namespace with these labels, is judged."""
        chosen = not resource.namespaced and resource.name != "namespaces"
        chosen = chosen or all(labels.get(key) == value for key, value in self.selector.items())
        return chosen and any(rule.matches(resource) for rule in self.rules)

    def denials(self, values: Any) -> tuple[str, ...]:
        """Return why an object is denied; empty when it is not.

        Args:
            values: `object`, `request` and `namespaceObject`, from `Environment.values`.
        """
        outcomes = [self._condition(condition, values) for condition in self.conditions]
        if False in outcomes:
            return ()
        failed = tuple(str(outcome) for outcome in outcomes if outcome is not True)
        return failed or tuple(filter(None, (self._denial(check, values) for check in self.checks)))

    def _condition(self, condition: Expression, values: Any) -> bool | str:
        try:
            return bool(self.environment.evaluate(condition, values))
        except EvaluationError as error:
            return f"a match condition failed: {error}"

    def _denial(self, check: _Check, values: Any) -> str:
        try:
            if self.environment.evaluate(check.expression, values) is True:
                return ""
        except EvaluationError as error:
            return f"expression '{check.expression.text}' resulted in error: {error}"
        if check.message_expression is not None:
            try:
                text = str(self.environment.evaluate(check.message_expression, values)).strip()
            except EvaluationError:
                text = ""
            if text and "\n" not in text and len(text) <= _MAX_MESSAGE:
                return text
        return check.message or f"failed expression: {check.expression.text}"


@dataclass(frozen=True)
class PolicySet:
    """All admission policies of a folder."""

    policies: tuple[Policy, ...]
    """Sorted by name; never empty."""
    digest: Digest
    """Digest of the whole policies folder, limits and standard images included: what a verdict was judged by."""
    _together: dict[tuple[str, ...], Expression] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Policies that are asked about an object at once, by their names."""

    @property
    def objects(self) -> tuple[Mapping[str, Any], ...]:
        """Policies and bindings as API objects, to be applied to a governed cluster."""
        return tuple(policy.manifest for policy in self.policies) + tuple(policy.binding for policy in self.policies)

    def check_objects(
        self,
        objects: Sequence[Mapping[str, Any]],
        *,
        namespace: str = "app",
        namespace_labels: Mapping[str, str] | None = None,
        stage: str = "judge",
    ) -> tuple[Reason, ...]:
        """Judge objects as the API server would judge their creation.

        Args:
            objects: Kubernetes objects; one without a namespace is taken to go into `namespace`.
            namespace: the namespace's name.
            namespace_labels: its labels; by default those of a governed namespace.
            stage: the stage that asks, for the reasons.

        Returns:
            For each policy one `pass`, or a `fail` for each denial; first a `fail` for each object of unknown kind.
        """
        labels = {
            **(GOVERNED if namespace_labels is None else namespace_labels),
            "kubernetes.io/metadata.name": namespace,
        }
        reasons: list[Reason] = []
        prepared: list[_Asked] = []
        about = cache(self._asked_about)
        for obj in objects:
            where = _name_of(obj)
            resource = resource_of(obj)
            if resource is None:
                reasons.append(_unknown(where, stage))
                continue
            own = labels if resource.name != "namespaces" else _labels_of(obj)
            try:
                values = self.policies[0].environment.values(_request(obj, resource, namespace, labels))
            except EvaluationError as error:
                reasons.append(_unreadable(where, stage, error))
                continue
            asked = about(resource, tuple(sorted(own.items())))
            prepared.append(_Asked(where, asked, self._denying(asked, values), values))
        for policy in self.policies:
            reasons.extend(_judged(policy, prepared, stage))
        return tuple(reasons)

    def _asked_about(self, resource: Resource, labels: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
        return tuple(policy.name for policy in self.policies if policy.applies_to(resource, dict(labels)))

    def _denying(self, names: tuple[str, ...], values: Any) -> bool:
        """Tell whether any of these policies may deny an object: all are asked at once, and most often all say yes.

        Whatever is not a yes is asked again, policy by policy, for the reasons.
        """
        if not names:
            return False
        if names not in self._together:
            self._together[names] = all_of([policy.whole for policy in self.policies if policy.name in names])
        try:
            return self.policies[0].environment.evaluate(self._together[names], values) is not True
        except EvaluationError:
            return True


@dataclass(frozen=True)
class _Asked:
    """An object about which all policies are asked, converted once."""

    where: str
    policies: tuple[str, ...]
    """Those that are meant for it, by name."""
    denied: bool
    """Whether one of them may deny it."""
    values: Any


def _judged(policy: Policy, prepared: Sequence[_Asked], stage: str) -> list[Reason]:
    rule = policy.rule
    failed: list[Reason] = []
    seen = 0
    for asked in prepared:
        if policy.name not in asked.policies:
            continue
        seen += 1
        if not asked.denied:
            continue
        where = asked.where
        failed.extend(
            Reason(rule=rule, stage=stage, result="fail", message=f"{where}: {text}", remedy=policy.remedy, where=where)
            for text in policy.denials(asked.values)
        )
    count = f"{seen} object{'' if seen == 1 else 's'}"
    return failed or [Reason(rule=rule, stage=stage, result="pass", message=f"{policy.title} ({count}).")]


def _unknown(where: str, stage: str) -> Reason:
    return Reason(
        rule="admission/known-kinds",
        stage=stage,
        result="fail",
        message=f"{where} is of a kind that no policy knows.",
        remedy="Leave it out; the platform team adds kinds together with rules for them.",
        where=where,
    )


def _unreadable(where: str, stage: str, error: EvaluationError) -> Reason:
    return Reason(
        rule="admission/readable",
        stage=stage,
        result="fail",
        message=f"{where} cannot be judged: {error}.",
        remedy="Write plain text; no policy can be asked about what does not arrive whole.",
        where=where,
    )


def _name_of(obj: Mapping[str, Any]) -> str:
    metadata = obj.get("metadata")
    name = metadata.get("name") if isinstance(metadata, Mapping) else None
    return f"{str(obj.get('kind'))[:63]}/{str(name)[:253]}"


def _labels_of(obj: Mapping[str, Any]) -> dict[str, str]:
    metadata = obj.get("metadata")
    labels = metadata.get("labels") if isinstance(metadata, Mapping) else None
    return {str(key): str(value) for key, value in labels.items()} if isinstance(labels, Mapping) else {}


def _request(obj: Mapping[str, Any], resource: Resource, namespace: str, labels: Mapping[str, str]) -> dict[str, Any]:
    """Return what the API server would lay before a policy, each variable that it has.

    Raises:
        EvaluationError: the object is nested too deeply.
    """
    try:
        pruned: dict[str, Any] = _without_nulls(obj)
    except RecursionError as error:
        raise EvaluationError("it is nested too deeply") from error
    pruned = dict.fromkeys(_WRITTEN_EMPTY.get(resource.kind, ())) | pruned
    request: dict[str, Any] = {
        "operation": "CREATE",
        "name": str((pruned.get("metadata") or {}).get("name", "")),
        "kind": {"group": resource.group, "version": resource.version, "kind": resource.kind},
        "resource": {"group": resource.group, "version": resource.version, "resource": resource.name},
        "dryRun": False,
    }
    if not resource.namespaced:
        return {**_NOTHING, "object": pruned, "request": request}
    metadata = pruned.get("metadata") if isinstance(pruned.get("metadata"), dict) else {}
    pruned["metadata"] = {"namespace": namespace, **(metadata or {})}
    request["namespace"] = pruned["metadata"]["namespace"]
    space = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": request["namespace"], "labels": dict(labels)},
    }
    return {**_NOTHING, "object": pruned, "request": request, "namespaceObject": space}


def _without_nulls(value: Any) -> Any:
    """Drop fields that are null: the API server's typed objects do not have them, so has() must not see them."""
    kind = type(value)
    if kind is dict or isinstance(value, Mapping):
        return {str(key): _without_nulls(item) for key, item in value.items() if item is not None}
    if kind is list or kind is tuple:
        return [_without_nulls(item) for item in value]
    return value


# -- loading -------------------------------------------------------------------------------------------------------


def load_policies(folder: Path) -> PolicySet:
    """Read and compile `folder`/admission/*.yaml.

    Args:
        folder: the policies folder of a zone.

    Raises:
        PermanentError: there is no policy, or anything about one of them is not understood.
    """
    policies: dict[str, tuple[PolicyObject, Source]] = {}
    bindings: dict[str, tuple[BindingObject, Source]] = {}
    place, read = folder / ADMISSION, cache(read_policy_file)
    for path in sorted(place.glob("*")):
        for source in read(path):
            kind = source.value.get("kind") if isinstance(source.value, dict) else None
            if kind == "ValidatingAdmissionPolicyBinding":
                binding = parsed(BindingObject, source)
                if binding.spec.policy_name in bindings:
                    raise PermanentError(f"Policy {binding.spec.policy_name} is bound twice.", where=source.file)
                bindings[binding.spec.policy_name] = (binding, source)
            else:
                policy = parsed(PolicyObject, source)
                if policy.metadata.name in policies:
                    raise PermanentError(f"Policy {policy.metadata.name} stands here twice.", where=source.file)
                policies[policy.metadata.name] = (policy, source)
    if not policies:
        remedy = "Point the line to the platform's policies folder; without rules nothing passes."
        raise PermanentError("There is no admission policy here.", where=str(place), remedy=remedy)
    if lonely := sorted(policies.keys() ^ bindings.keys()):
        remedy = "Each policy needs one binding that denies, and each binding its policy."
        raise PermanentError(f"Policy and binding do not pair: {', '.join(lonely)}.", where=str(place), remedy=remedy)
    compiled = tuple(_compiled(*policies[name], *bindings[name]) for name in sorted(policies))
    return PolicySet(compiled, policy_digest(folder, read=read))


def _compiled(policy: PolicyObject, source: Source, binding: BindingObject, bound: Source) -> Policy:
    name, annotations, where = policy.metadata.name, policy.metadata.annotations, source.file
    if missing := [key for key in (_TITLE, _WHY, _REMEDY) if not annotations.get(key, "").strip()]:
        raise PermanentError(f"Policy {name} lacks the annotations {', '.join(missing)}.", where=where)
    if "Deny" not in binding.spec.validation_actions:
        raise PermanentError(f"The binding of policy {name} does not deny.", where=bound.file)
    base = environment = Environment.of(*_VARIABLES)
    for variable in policy.spec.variables:
        expression = environment.compile(variable.expression, where=f"{where} variable {variable.name}")
        environment = environment.defined(f"variables.{variable.name}", expression)
    checks = tuple(
        _Check(
            environment.compile(check.expression, where=where, wanted="BOOL"),
            check.message,
            environment.compile(check.message_expression, where=where, wanted="STRING")
            if check.message_expression
            else None,
        )
        for check in policy.spec.validations
    )
    conditions = tuple(
        base.compile(each.expression, where=where, wanted="BOOL") for each in policy.spec.match_conditions
    )
    whole = all_of([check.expression for check in checks], unless=conditions)
    return Policy(
        name=name,
        title=annotations[_TITLE],
        why=annotations[_WHY],
        remedy=annotations[_REMEDY],
        manifest=source.value,
        binding=bound.value,
        rules=policy.spec.match_constraints.resource_rules,
        selector=binding.spec.match_resources.namespace_selector.match_labels,
        environment=environment,
        conditions=conditions,
        whole=whole,
        checks=checks,
    )


def policy_digest(folder: Path, *, read: Callable[[Path], list[Source]] = read_policy_file) -> Digest:
    """Return the digest of a policies folder: of what its YAML says, not of comments and layout.

    Everything in the folder counts (admission rules, limits, standard images and their lock, waivers), except Markdown.

    Args:
        folder: the policies folder.
        read: reads a policy file; given by who has read some already.

    Raises:
        PermanentError: the folder holds nothing, or a YAML file in it cannot be read.
    """
    content: dict[str, Any] = {}
    for name, path in policy_files(folder).items():
        if path.suffix in {".yaml", ".yml"}:
            content[name] = digest_of_json([source.value for source in read(path)])
        else:
            content[name] = digest_of_file(path)
    if not content:
        raise PermanentError("There are no policies here.", where=str(folder))
    return digest_of_json(content)
