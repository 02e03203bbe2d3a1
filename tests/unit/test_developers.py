"""Developers' names, namespaces and rights."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sekisho.developers import (
    GROUP,
    ROLE,
    cluster_objects,
    developer_name,
    namespace_labels,
    namespace_of,
    own_binding,
    prefix_of,
)
from sekisho.embedded import cluster_objects as embedded
from sekisho.errors import UsageError
from sekisho.zones import ARROWS, Network, Port, Zone


@pytest.mark.parametrize(
    ("login", "name"), [("ann", "ann"), ("bob2", "bob2"), ("sixteenletters16", "sixteenletters16")]
)
def test_a_plain_login_is_the_name(login: str, name: str) -> None:
    assert developer_name(login) == name


def test_logins_that_look_alike_stay_apart() -> None:
    names = {
        developer_name(login) for login in ("annmarie", "ann-marie", "ann.marie", "Ann-Marie", "ANNMARIE", "ann_marie")
    }
    assert len(names) == 6


def test_nobody_is_nobody() -> None:
    with pytest.raises(UsageError):
        developer_name(" ")


@given(
    st.text(min_size=1).filter(str.strip),
    st.text(min_size=1).filter(str.strip),
    st.from_regex(r"[a-z][a-z0-9-]{0,48}[a-z0-9]", fullmatch=True),
)
def test_no_namespace_of_one_begins_with_the_prefix_of_another(one: str, other: str, app: str) -> None:
    first, second = developer_name(one), developer_name(other)
    namespace = namespace_of(first, app)
    assert len(namespace) <= 63
    assert namespace.startswith(prefix_of(first))
    assert not namespace.endswith("-")
    if first != second:
        assert not namespace.startswith(prefix_of(second))


def test_long_apps_stay_apart() -> None:
    names = {namespace_of("sixteenletters16", "a" * 40 + f"-{number}") for number in range(50)}
    assert len(names) == 50


def test_a_developers_namespace_takes_no_privileged_pod() -> None:
    assert namespace_labels("ann")["pod-security.kubernetes.io/enforce"] == "restricted"


def rules(name: str) -> list[dict[str, list[str]]]:
    return next(
        item["rules"]
        for item in cluster_objects()
        if item["kind"] == "ClusterRole" and item["metadata"]["name"] == name
    )


def test_the_policy_stands_before_the_rights() -> None:
    kinds = [item["kind"] for item in cluster_objects()]
    assert kinds.index("ValidatingAdmissionPolicyBinding") < kinds.index("ClusterRoleBinding")


def test_nothing_is_granted_by_a_star_or_by_impersonation() -> None:
    text = json.dumps([rules(ROLE), rules(GROUP)])
    assert not any(
        f'"{word}"' in text
        for word in ("*", "escalate", "impersonate", "nodes", "clusterrolebindings", "persistentvolumes")
    )


def test_a_developer_may_bind_one_role_only() -> None:
    bind = [rule for rule in rules(GROUP) if "bind" in rule["verbs"]]
    assert [rule["resourceNames"] for rule in bind] == [[ROLE]]


def test_secrets_are_read_inside_ones_own_namespace_only() -> None:
    assert not any("secrets" in rule["resources"] for rule in rules(GROUP))
    assert any("secrets" in rule["resources"] for rule in rules(ROLE))


def test_a_binding_is_of_the_developer_alone() -> None:
    binding = own_binding("ann", "dev-ann-x")
    assert [subject["name"] for subject in binding["subjects"]] == ["sekisho:developer:ann"]
    assert binding["roleRef"]["name"] == ROLE


@pytest.mark.parametrize("zone", [Zone.BUILD, Zone.STAGING, Zone.PRODUCTION])
def test_developers_exist_in_the_dev_cluster_only(zone: Zone) -> None:
    assert "sekisho:developer" not in json.dumps(embedded.bootstrap_objects(zone))
    assert "sekisho:developer" in json.dumps(embedded.bootstrap_objects(Zone.DEV))


def test_no_arrow_leads_to_a_writable_registry_but_devs() -> None:
    writable = {(arrow.source, arrow.target) for arrow in ARROWS if Port.REGISTRY_WRITE in arrow.ports}
    assert writable == {(Network.DEVELOPER, Network.DEV), (Network.CONSOLE, Network.DEV)}


def test_no_arrow_leads_to_an_api_server_but_devs() -> None:
    assert {arrow.target for arrow in ARROWS if Port.APISERVER in arrow.ports} == {Network.DEV}
