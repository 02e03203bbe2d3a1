"""Developers in the dev cluster: their names, their namespaces, and what each may do there. Pure.

A developer is a user `sekisho:developer:<name>` of the group `sekisho:developers` in the cluster. RBAC cannot say "only
namespaces that begin with my name", so it is said in two places that both must agree: RBAC lets the group make
namespaces and bind itself to one role, and an admission policy ties both to the developer's own prefix. What a
developer may do inside a namespace, that role says. Nobody reads another's Secrets, and no pod there is privileged.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

from sekisho.errors import UsageError

GROUP = "sekisho:developers"
USER_PREFIX = "sekisho:developer:"
ROLE = "sekisho:developer-namespace"
"""The ClusterRole that a developer has inside a namespace of their own."""
OWNER = "sekisho.dev/developer"
"""Label of a namespace: whose it is."""

_LABEL = 63
_NAME = 16
_HASH = 6
_READ = ["get", "list", "watch"]
_WRITE = [*_READ, "create", "update", "patch", "delete"]
_POLICY = "sekisho-developers"
_RESTRICTED = "pod-security.kubernetes.io/enforce"


def developer_name(login: str) -> str:
    """Return the name of a developer in the cluster: letters and digits only, at most 16.

    Without a dash, so that no name followed by a dash begins another: `dev-ann-` is nobody's but ann's.

    Raises:
        UsageError: the login name is empty.
    """
    plain = re.sub(r"[^a-z0-9]", "", login.lower())
    if not login.strip():
        raise UsageError("Who you are cannot be told.", remedy="Give your name: sekisho dev --as ann")
    if plain == login and len(plain) <= _NAME:
        return plain
    # Two logins that look alike without their dots and dashes stay two developers.
    return plain[: _NAME - _HASH] + hashlib.sha256(login.encode()).hexdigest()[:_HASH]


def namespace_of(name: str, app: str) -> str:
    """Return the namespace of a developer's copy of an app: `dev-<name>-<app>`, shortened to a DNS label."""
    whole = f"{prefix_of(name)}{app}"
    if len(whole) <= _LABEL:
        return whole
    tail = hashlib.sha256(app.encode()).hexdigest()[:8]
    return f"{whole[: _LABEL - 9].rstrip('-')}-{tail}"


def prefix_of(name: str) -> str:
    """Return how every namespace of a developer begins."""
    return f"dev-{name}-"


def namespace_labels(name: str) -> dict[str, str]:
    """Return the labels that a developer's namespace must have."""
    return {"app.kubernetes.io/managed-by": "sekisho", OWNER: name, _RESTRICTED: "restricted"}


def own_binding(name: str, namespace: str) -> dict[str, Any]:
    """Return the RoleBinding by which a developer takes hold of a namespace of their own."""
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "sekisho-developer", "namespace": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": ROLE},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": f"{USER_PREFIX}{name}"}],
    }


def cluster_objects() -> list[dict[str, Any]]:
    """Return what a dev cluster needs for developers, in order of apply: the policy stands before the rights."""
    return [_policy(), _policy_binding(), _role(ROLE, _inside()), _role(GROUP, _outside()), _group_binding()]


def _inside() -> list[dict[str, Any]]:
    """Return the rights inside one's own namespace."""
    return [
        _rule([""], ["services", "configmaps", "secrets", "serviceaccounts", "persistentvolumeclaims"], _WRITE),
        _rule(["apps"], ["deployments", "statefulsets"], _WRITE),
        _rule(["apps"], ["replicasets", "controllerrevisions"], _READ),
        _rule([""], ["pods"], [*_READ, "patch", "delete"]),
        _rule([""], ["pods/log"], ["get"]),
        _rule([""], ["pods/exec", "pods/portforward"], ["get", "create"]),
        _rule(["", "events.k8s.io"], ["events"], _READ),
        _rule(["coordination.k8s.io"], ["leases"], _WRITE),
    ]


def _outside() -> list[dict[str, Any]]:
    """Return the rights in the whole cluster; the policy narrows what is written to one's own namespaces."""
    return [
        _rule([""], ["namespaces"], [*_READ, "create", "patch", "delete"]),
        _rule(["rbac.authorization.k8s.io"], ["rolebindings"], ["get", "create", "patch"]),
        {**_rule(["rbac.authorization.k8s.io"], ["clusterroles"], ["bind"]), "resourceNames": [ROLE]},
    ]


def _policy() -> dict[str, Any]:
    own = f"('dev-' + request.userInfo.username.replace('{USER_PREFIX}', '') + '-')"
    place = "(request.resource.resource == 'namespaces' ? request.name : request.namespace)"
    binding = (
        "object == null || request.resource.resource != 'rolebindings' || ("
        f"object.roleRef.kind == 'ClusterRole' && object.roleRef.name == '{ROLE}' && "
        "has(object.subjects) && object.subjects.size() == 1 && object.subjects[0].kind == 'User' && "
        "object.subjects[0].name == request.userInfo.username)"
    )
    restricted = (
        "object == null || request.resource.resource != 'namespaces' || (has(object.metadata.labels) && "
        f"'{_RESTRICTED}' in object.metadata.labels && object.metadata.labels['{_RESTRICTED}'] == 'restricted')"
    )
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": _POLICY},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {
                "resourceRules": [
                    _matches([""], ["v1"], ["namespaces"]),
                    _matches(["rbac.authorization.k8s.io"], ["v1"], ["rolebindings"]),
                ]
            },
            "matchConditions": [{"name": "developers", "expression": f"'{GROUP}' in request.userInfo.groups"}],
            "validations": [
                {
                    "expression": f"request.userInfo.username.startsWith('{USER_PREFIX}') && {place}.startsWith({own})",
                    "message": "A developer's namespaces begin with dev-<own name>-.",
                    "reason": "Forbidden",
                },
                {
                    "expression": restricted,
                    "message": f"A developer's namespace has the label {_RESTRICTED}: restricted.",
                    "reason": "Forbidden",
                },
                {
                    "expression": binding,
                    "message": f"A developer binds themself alone, to {ROLE} alone.",
                    "reason": "Forbidden",
                },
            ],
        },
    }


def _policy_binding() -> dict[str, Any]:
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": _POLICY},
        "spec": {"policyName": _POLICY, "validationActions": ["Deny"]},
    }


def _matches(groups: list[str], versions: list[str], resources: list[str]) -> dict[str, Any]:
    return {
        "apiGroups": groups,
        "apiVersions": versions,
        "resources": resources,
        "operations": ["CREATE", "UPDATE", "DELETE"],
    }


def _role(name: str, rules: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": name},
        "rules": rules,
    }


def _group_binding() -> dict[str, Any]:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": GROUP},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": GROUP},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": GROUP}],
    }


def _rule(groups: list[str], resources: list[str], verbs: list[str]) -> dict[str, Any]:
    return {"apiGroups": groups, "resources": resources, "verbs": verbs}
