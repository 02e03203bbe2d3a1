import json

import pytest

from sekisho.diff import diff
from sekisho.errors import PermanentError, Refusal, TemporaryError
from sekisho.kube import Conflict, Kube, Ref
from sekisho.kube_errors import error_of
from sekisho.owners import shown, strangers, without
from sekisho.refs import apply_order


def status(message, **details):
    return json.dumps({"kind": "Status", "message": message, "details": details}).encode()


@pytest.mark.parametrize(
    ("code", "message", "kind"),
    [
        (400, "bad", Refusal),
        (401, "Unauthorized", PermanentError),
        (403, 'deployments is forbidden: User "x" cannot patch resource', PermanentError),
        (403, 'pods "a" is forbidden: violates PodSecurity "restricted:latest"', Refusal),
        (403, 'pods "a" is forbidden: exceeded quota: q', Refusal),
        (404, "gone", PermanentError),
        (409, "the object has been modified", Conflict),
        (413, "too large", Refusal),
        (422, "spec.ports: Invalid value", Refusal),
        (429, "slow down", TemporaryError),
        (500, "etcdserver: leader changed", TemporaryError),
        (500, "failed to create typed patch object (x): field not declared in schema", Refusal),
        (503, "unavailable", TemporaryError),
        (504, "timeout", TemporaryError),
    ],
)
def test_each_status_becomes_the_right_error(code, message, kind):
    error = error_of(code, status(message), where="w", secret=False)
    assert type(error) is kind
    assert message in str(error) or code == 401
    assert error.where == "w"


def test_the_servers_delay_is_kept():
    error = error_of(429, status("slow", retryAfterSeconds=7), where="", secret=False)
    assert isinstance(error, TemporaryError)
    assert error.delay == 7.0


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"details": 3}', b"\xff"])
def test_a_body_that_is_no_status_is_an_error_too(body):
    assert isinstance(error_of(503, body, where="", secret=False), TemporaryError)


def test_a_secrets_message_is_left_out():
    body = status("Invalid value: hunter2", causes=[{"field": "data[password]", "message": "hunter2"}])
    error = error_of(422, body, where="", secret=True)
    assert "hunter2" not in str(error)
    assert "data[password]" in str(error)


def test_a_kubeconfig_that_is_none_is_a_permanent_error(tmp_path):
    for content in ("", "{", "apiVersion: v1\nkind: Config\n"):
        (tmp_path / "config").write_text(content)
        with pytest.raises(PermanentError, match="kubeconfig"):
            Kube.connect(tmp_path / "config")
    with pytest.raises(PermanentError, match="kubeconfig"):
        Kube.connect(tmp_path / "missing")


def test_refs_are_written_and_read():
    for ref in (
        Ref("v1", "Service", "app-x", "x"),
        Ref("apps/v1", "Deployment", "n", "x"),
        Ref("v1", "Namespace", "", "x"),
    ):
        assert Ref.parse(str(ref)) == ref
    for text in ("", "x", "v1/Service/x", "/Service/n/x", "v1//n/x", "v1/Service/n/"):
        with pytest.raises(Refusal):
            Ref.parse(text)
    for obj in (
        {},
        {"kind": "x"},
        {"apiVersion": "v1", "kind": "x", "metadata": None},
        {"apiVersion": "v1", "kind": "x", "metadata": {"name": 3}},
    ):
        with pytest.raises(Refusal):
            Ref.of(obj)


def obj(kind, name, **rest):
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, **rest}


def test_the_order_of_apply():
    kinds = ["Deployment", "Widget", "Secret", "Service", "NetworkPolicy", "Namespace", "StatefulSet", "ServiceAccount"]
    ordered = apply_order(obj(kind, "x") for kind in kinds)
    assert [item["kind"] for item in ordered] == [
        "Namespace", "NetworkPolicy", "ServiceAccount", "Secret", "Service", "StatefulSet", "Deployment", "Widget",
    ]  # fmt: skip
    assert apply_order([obj("Secret", "b"), obj("Secret", "a")]) == apply_order(
        [obj("Secret", "a"), obj("Secret", "b")]
    )
    with pytest.raises(Refusal, match="same name"):
        apply_order([obj("Secret", "a"), obj("Secret", "a")])


def test_a_diff_names_fields_and_leaves_the_servers_own_out():
    old = obj("ConfigMap", "x", data={"a": "1", "b": "2"}, status={"x": 1})
    new = obj("ConfigMap", "x", data={"a": "1", "c": "3", "b": "4"})
    new["metadata"] = {**new["metadata"], "resourceVersion": "7", "generation": 3, "uid": "u", "managedFields": []}
    assert [str(change) for change in diff(old, new)] == ['/data/b: "2" -> "4"', '/data/c: + "3"']
    assert diff(new, new) == ()


def test_a_diff_compares_lists_of_named_things_by_name():
    old = {"spec": {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]}}
    new = {"spec": {"containers": [{"name": "b", "image": "2"}]}}
    assert [str(change) for change in diff(old, new)] == [
        '/spec/containers/0: - {"image": "1", "name": "a"}',
        '/spec/containers/1/image: "1" -> "2"',
    ]
    turned = {"spec": {"containers": list(reversed(old["spec"]["containers"]))}}
    assert [change.path for change in diff(old, turned)] == ["/spec/containers"]


def test_a_diff_shows_no_value_of_a_secret():
    old, new = obj("Secret", "s", data={"p": "aHVudGVyMg=="}), obj("Secret", "s", data={"p": "eA==", "q": "eQ=="})
    text = " ".join(str(change) for change in diff(old, new))
    assert text == "/data/p: (secret) -> (secret) /data/q: + (secret)"


def live_with_strangers():
    fields = {
        "f:metadata": {"f:annotations": {".": {}, "f:x": {}}, "f:finalizers": {".": {}, 'v:"f"': {}}},
        "f:spec": {
            "f:replicas": {},
            "f:template": {"f:spec": {"f:containers": {'k:{"name":"spy"}': {".": {}, "f:image": {}, "f:name": {}}}}},
        },
    }
    return {
        "metadata": {
            "annotations": {"x": "1", "ours": "2"},
            "finalizers": ["f", "g"],
            "managedFields": [
                {"manager": "sekisho", "operation": "Apply", "fieldsV1": {"f:spec": {}}},
                {"manager": "kube-controller-manager", "operation": "Update", "fieldsV1": {"f:spec": {"f:x": {}}}},
                {
                    "manager": "kubelet",
                    "operation": "Update",
                    "subresource": "status",
                    "fieldsV1": {"f:spec": {"f:y": {}}},
                },
                {"manager": "somebody", "operation": "Update", "fieldsV1": fields},
                {"manager": "status-writer", "operation": "Update", "fieldsV1": {"f:status": {"f:z": {}}}},
            ],
        },
        "spec": {"replicas": 3, "template": {"spec": {"containers": [{"name": "spy"}, {"name": "web"}]}}},
    }


def test_strangers_are_found_and_taken_out():
    live = live_with_strangers()
    wanted = {"spec": {"replicas": 1, "template": {"spec": {"containers": [{"name": "web"}]}}}}
    ((manager, paths),) = strangers(live, wanted)
    assert manager == "somebody"
    assert sorted(map(shown, paths)) == [
        "/metadata/annotations/x",
        "/metadata/finalizers[f]",
        "/spec/template/spec/containers[name=spy]",
    ]
    clean = without(live, paths)
    assert clean["metadata"]["annotations"] == {"ours": "2"}
    assert clean["metadata"]["finalizers"] == ["g"]
    assert clean["spec"] == {"replicas": 3, "template": {"spec": {"containers": [{"name": "web"}]}}}
    assert live["metadata"]["annotations"] == {"x": "1", "ours": "2"}
