"""Policies: each rule on objects that must pass and that must not, and every way in which a folder fails closed."""

import copy
import importlib.util
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sekisho.errors import PermanentError
from sekisho.policy import PolicySet, load_policies, policy_digest

HERE = Path(__file__).parent
POLICIES = HERE.parent.parent / "policies"


def load_cases() -> ModuleType:
    spec = importlib.util.spec_from_file_location("policy_cases", HERE / "policy_cases.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


CASES = load_cases()


@pytest.fixture(scope="module")
def policies() -> PolicySet:
    return load_policies(POLICIES)


def denied_by(policies: PolicySet, *objects: dict[str, Any], **kwargs: Any) -> set[str]:
    reasons = policies.check_objects(objects, **kwargs)
    return {reason.rule.removeprefix("admission/") for reason in reasons if reason.result == "fail"}


@pytest.mark.parametrize("case", CASES.CASES, ids=lambda case: case.name)
def test_cases(policies: PolicySet, case: Any) -> None:
    assert denied_by(policies, case.object) == set(case.denied)


def test_every_policy_has_a_case_that_it_denies(policies: PolicySet) -> None:
    tried = set().union(*(case.denied for case in CASES.CASES))
    assert {policy.name.removeprefix("sekisho-") for policy in policies.policies} == tried


def test_every_policy_answers_with_its_reason(policies: PolicySet) -> None:
    reasons = policies.check_objects([CASES.pod({"hostNetwork": True})])
    assert [reason.rule for reason in reasons] == [
        f"admission/{policy.name.removeprefix('sekisho-')}" for policy in policies.policies
    ]
    (failed,) = [reason for reason in reasons if reason.result == "fail"]
    assert failed.where == "Pod/case"
    assert failed.message == "Pod/case: the pod shares hostNetwork, hostPID or hostIPC with the node"
    assert failed.remedy.startswith("Remove privileged, hostNetwork")


def test_ungoverned_namespaces_are_left_alone(policies: PolicySet) -> None:
    bad = CASES.pod({"hostNetwork": True})
    assert denied_by(policies, bad, namespace_labels={"team": "x"}) == set()
    assert denied_by(policies, bad, namespace_labels={"sekisho.dev/governed": "false"}) == set()


def test_what_the_api_server_would_not_see_is_not_seen(policies: PolicySet) -> None:
    # A null is dropped by the server's typed objects: has() must not find it.
    assert denied_by(policies, CASES.pod({"initContainers": []}) | {}) == set()
    nulls = CASES.pod()
    nulls["spec"]["initContainers"] = None
    nulls["spec"]["securityContext"]["seccompProfile"] = None
    assert denied_by(policies, nulls) == {"seccomp"}
    # A pod with a harmless `template` beside its real containers is judged by its containers.
    double = CASES.pod(container={"image": "nginx"})
    double["spec"]["template"] = {"spec": copy.deepcopy(CASES.POD)}
    assert denied_by(policies, double) == {"images-by-digest"}


@pytest.mark.parametrize(
    "obj",
    [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {}},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {"containers": "web"}},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {"containers": [{"name": "web"}]}},
        {"apiVersion": "v1", "kind": "Pod", "metadata": None, "spec": {"containers": [None]}},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}, "spec": {"template": []}},
    ],
)
def test_an_error_in_an_expression_denies(policies: PolicySet, obj: dict[str, Any]) -> None:
    reasons = [reason for reason in policies.check_objects([obj]) if reason.rule == "admission/images-by-digest"]
    assert [reason.result for reason in reasons] == ["fail"]
    assert "resulted in error" in reasons[0].message


@pytest.mark.parametrize(
    "obj",
    [
        {"apiVersion": "example.com/v1", "kind": "Pod", "metadata": {"name": "x"}},
        {"apiVersion": "v2", "kind": "Pod", "metadata": {"name": "x"}},
        {"kind": "Pod"},
        {"apiVersion": ["v1"], "kind": {}},
        {},
    ],
)
def test_unknown_kinds_are_denied(policies: PolicySet, obj: dict[str, Any]) -> None:
    assert denied_by(policies, obj) == {"known-kinds"}


@pytest.mark.parametrize("name", ["good\0evil", "\ud800"])
def test_an_object_that_does_not_arrive_whole_is_denied(policies: PolicySet, name: str) -> None:
    image = CASES.pod(container={"image": f"{CASES.IMAGE}{name}"})
    assert denied_by(policies, image) == {"readable"}
    deep: Any = {}
    for _ in range(100_000):
        deep = {"a": deep}
    assert denied_by(policies, CASES.named("ConfigMap", data=deep)) == {"readable"}


def test_what_is_written_empty_is_seen(tmp_path: Path) -> None:
    """A Role without rules has `rules: null` in an API server; who does not expect it denies, there and here."""
    changed(
        tmp_path,
        "(has(object.rules) && object.rules != null ? object.rules : [])",
        "object.?rules.orValue([])",
        name="sekisho-no-rbac-escalation",
    )
    assert denied_by(load_policies(tmp_path), CASES.rbac("Role")) == {"no-rbac-escalation"}


def test_cluster_wide_objects_are_never_skipped_by_a_namespace(tmp_path: Path) -> None:
    folder = changed(
        tmp_path,
        "resources: [roles, rolebindings]",
        "resources: [roles, rolebindings, clusterroles]",
        name="sekisho-no-rbac-escalation",
    )
    text = folder.read_text(encoding="utf-8").replace('!(object.kind == "Role")', 'object.kind != "ClusterRole"')
    folder.write_text(text, encoding="utf-8")
    cluster = CASES.rbac("ClusterRole", rules=[{"verbs": ["*"]}])
    assert denied_by(load_policies(tmp_path), cluster, namespace_labels={}) == {"no-rbac-escalation"}


# -- folders that must not load -----------------------------------------------------------------------------------


def changed(folder: Path, old: str, new: str, *, name: str = "sekisho-seccomp") -> Path:
    shutil.copytree(POLICIES, folder, dirs_exist_ok=True)
    path = folder / "admission" / f"{name}.yaml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("failurePolicy: Fail", "failurePolicy: Ignore", "/spec/failurePolicy"),
        ("  failurePolicy: Fail\n", "", "/spec/failurePolicy"),
        ("validationActions: [Deny]", "validationActions: [Warn]", "/spec/validationActions"),
        ("validationActions: [Deny]", "validationActions: [Audit]", "does not deny"),
        ("  matchResources:\n", "  paramRef: {name: x}\n  matchResources:\n", "/spec/paramRef"),
        (
            "  failurePolicy: Fail\n",
            "  failurePolicy: Fail\n  paramKind: {apiVersion: v1, kind: ConfigMap}\n",
            "paramKind",
        ),
        ("size(variables.bad) == 0", "size(variables.bda) == 0", "does not compile"),
        ("size(variables.bad) == 0", "size(variables.bad)", "not BOOL"),
        ("size(variables.bad) == 0", "object.spec", "not BOOL"),
        ("policyName: sekisho-seccomp", "policyName: sekisho-none", "do not pair: sekisho-none, sekisho-seccomp"),
        ("policyName: sekisho-seccomp", "policyName: sekisho-volumes", "bound twice"),
        ("  name: sekisho-seccomp\n  annotations", "  name: sekisho-volumes\n  annotations", "stands here twice"),
        ("    sekisho.dev/title: System calls are filtered\n", "", "sekisho.dev/title"),
        ("kind: ValidatingAdmissionPolicy\n", "kind: ConfigMap\n", "/kind"),
        (
            "apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingAdmissionPolicy\n",
            "apiVersion: admissionregistration.k8s.io/v1beta1\nkind: ValidatingAdmissionPolicy\n",
            "/apiVersion",
        ),
        # Whatever has a meaning in an API server only, or would make a rule hold for less than it says.
        ("  failurePolicy: Fail\n", "  failurePolicy: Fail\n  auditAnnotations: []\n", "auditAnnotations"),
        ("    resourceRules:\n", "    matchPolicy: Exact\n    resourceRules:\n", "matchPolicy"),
        ("    resourceRules:\n", "    objectSelector: {}\n    resourceRules:\n", "objectSelector"),
        ("    resourceRules:\n", "    namespaceSelector: {}\n    resourceRules:\n", "namespaceSelector"),
        ("    resourceRules:\n", "    excludeResourceRules: []\n    resourceRules:\n", "excludeResourceRules"),
        ("operations: [CREATE, UPDATE]", "operations: [CREATE, DELETE]", "operations"),
        ("operations: [CREATE, UPDATE]", "operations: []", "operations"),
        ("operations: [CREATE, UPDATE]", "operations: [CREATE]\n        resourceNames: [x]", "resourceNames"),
        ("operations: [CREATE, UPDATE]", "operations: [CREATE]\n        scope: Cluster", "scope"),
        ("    namespaceSelector:\n", "    objectSelector: {}\n    namespaceSelector:\n", "objectSelector"),
        ("    namespaceSelector:\n", "    resourceRules: []\n    namespaceSelector:\n", "resourceRules"),
        ("      matchLabels:\n", "      matchExpressions: []\n      matchLabels:\n", "matchExpressions"),
        ('      matchLabels:\n        sekisho.dev/governed: "true"\n', "      matchLabels: {}\n", "matchLabels"),
        ("    - name: bad\n", "    - name: containers\n", "stands here twice"),
        ("    - name: bad\n", "    - name: b.ad\n", "/spec/variables/2/name"),
        ("- expression: size", "- reason: Teapot\n      expression: size", "/reason"),
        ("- expression: size", '- message: "two\\nlines"\n      expression: size', "/message"),
        ("size(variables.bad) == 0", "quantity('1').isLessThan('2')", "does not compile"),
        ("size(variables.bad) == 0", "dyn(quantity('1')) == object.spec", "does not compile"),
        (
            "size(variables.bad) == 0",
            "params.x == 1 && authorizer.path('/').check('get').allowed()",
            "does not compile",
        ),
        ("spec:", "spec: &x", "cannot be read"),
        ("metadata:", "metadata: [", "cannot be read"),
    ],
)
def test_a_policy_that_is_not_understood_stops_everything(tmp_path: Path, old: str, new: str, message: str) -> None:
    changed(tmp_path, old, new)
    with pytest.raises(PermanentError, match=message.replace("[", r"\[")):
        load_policies(tmp_path)


def test_a_policy_without_validations_stops_everything(tmp_path: Path) -> None:
    path = changed(tmp_path, "spec:", "spec:")
    text = path.read_text(encoding="utf-8")
    start, end = text.index("  validations:\n"), text.index("---")
    path.write_text(text[:start] + "  validations: []\n" + text[end:], encoding="utf-8")
    with pytest.raises(PermanentError, match="/spec/validations"):
        load_policies(tmp_path)


def test_a_binding_alone_stops_everything(tmp_path: Path) -> None:
    path = changed(tmp_path, "spec:", "spec:")
    path.write_text(path.read_text(encoding="utf-8").partition("---\n")[2], encoding="utf-8")
    with pytest.raises(PermanentError, match="do not pair: sekisho-seccomp"):
        load_policies(tmp_path)


def test_empty_and_strange_folders(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match="no admission policy"):
        load_policies(tmp_path)
    (tmp_path / "admission").mkdir()
    with pytest.raises(PermanentError, match="no admission policy"):
        load_policies(tmp_path)
    (tmp_path / "admission" / "empty.yaml").write_text("# nothing\n", encoding="utf-8")
    with pytest.raises(PermanentError, match="empty"):
        load_policies(tmp_path)
    (tmp_path / "admission" / "empty.yaml").rename(tmp_path / "admission" / "policy.yaml.disabled")
    with pytest.raises(PermanentError, match="not a policy file"):
        load_policies(tmp_path)


def test_digest_is_about_what_is_said(tmp_path: Path) -> None:
    path = changed(tmp_path, "spec:", "spec:")
    first = policy_digest(tmp_path)
    path.write_text("# a comment\n" + path.read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "README.md").write_text("about", encoding="utf-8")
    assert policy_digest(tmp_path) == first
    seen = {first}
    for name, text in (("waivers.yaml", "format: x\n"), ("limits.yaml", "format: y\n"), ("keys.pem", "z")):
        (tmp_path / name).write_text(text, encoding="utf-8")
        seen.add(policy_digest(tmp_path))
    assert len(seen) == 4
    (tmp_path / "more.yaml").write_text("a: [", encoding="utf-8")
    with pytest.raises(PermanentError):
        policy_digest(tmp_path)


def test_match_conditions(tmp_path: Path) -> None:
    condition = "  matchConditions:\n    - name: no-{0}\n      expression: '{1}'\n  variables:\n"
    bad = CASES.pod({"securityContext": {"seccompProfile": None}})
    for name, expression, denied in (
        ("pods", 'object.kind != "Pod"', set()),
        ("jobs", 'object.kind != "Job"', {"seccomp"}),
        ("error", "object.none == 1", {"seccomp"}),
    ):
        changed(tmp_path, "  variables:\n", condition.format(name, expression))
        assert denied_by(load_policies(tmp_path), bad) == denied
