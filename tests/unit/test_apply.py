import base64

import pytest

from sekisho.errors import Refusal
from sekisho.model import Plan
from sekisho.vault import FileVault, fingerprint
from stages.apply import ApplyStage, filled

D = "sha256:" + "a" * 64
ENTRIES = {"type": "postgresql", "password": "hunter2-ü"}


@pytest.fixture
def vault(tmp_path):
    vault = FileVault(tmp_path / "vault")
    vault.put("shop", "db", ENTRIES)
    return vault


def secret(mark, need="db"):
    annotations = {"sekisho.dev/binding-fingerprint": mark, "sekisho.dev/need": need}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "shop-db-binding", "annotations": annotations}}


def test_a_secret_is_filled_from_the_vault_at_the_last_moment(vault):
    planned = secret(fingerprint(vault, ENTRIES))
    sent = filled(planned, "shop", vault)
    assert {key: base64.b64decode(value).decode() for key, value in sent["data"].items()} == ENTRIES
    assert "data" not in planned


@pytest.mark.parametrize("need", ["db", "other", "../x"])
def test_other_credentials_are_refused_without_showing_them(vault, need):
    with pytest.raises(Refusal) as refused:
        filled(secret("hmac-sha256:" + "0" * 64, need), "shop", vault)
    assert "hunter2" not in str(refused.value)


def test_other_objects_are_sent_as_they_are(vault):
    plain = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"a": "b"}}
    assert filled(plain, "shop", vault) == plain


def test_the_key_of_the_stage_is_the_plans(vault):
    plan = Plan(app="shop", zone="z", release=D, summary=D, commit="c", image="i", namespace="n", objects=())
    stage = ApplyStage(None, vault)
    assert stage.key(plan) == stage.key(plan.model_copy())
    assert stage.key(plan) != stage.key(plan.model_copy(update={"previous": D}))
    assert stage.name == "apply"
