"""A real API server takes what any valid Score file renders to, and Pod Security `restricted` takes its pods.

What a schema cannot say (names, ports, mounts, keys of Secrets, quantities) only the server's own validation knows.
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings

from sekisho.workloads import pod_template
from stages.render import render

pytestmark = pytest.mark.e2e

HERE = Path(__file__).parent
NAMESPACE = "app-shop"


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


CASES = load(HERE.parent / "unit" / "test_render_any.py")
SERVER = load(HERE / "test_policy_conformance.py")
api = SERVER.api


@pytest.fixture(scope="module")
def namespace(api: httpx.Client) -> str:
    labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "audit", "warn")}
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}
    answer = api.post("/api/v1/namespaces", json=body)
    assert answer.status_code == httpx.codes.CREATED, answer.text
    return NAMESPACE


def refused(api: httpx.Client, namespace: str, obj: dict[str, Any]) -> str:
    """Create an object, as a dry run; return what the server says against it, a warning included."""
    asked = {"dryRun": "All", "fieldValidation": "Strict"}
    answer = api.post(SERVER.collection(obj, namespace), json=obj, params=asked)
    return str(answer.headers.get("Warning", "")) if answer.is_success else str(answer.json()["message"])


@settings(suppress_health_check=list(HealthCheck), deadline=None, max_examples=100)
@given(document=CASES.scores())
def test_the_server_takes_any_rendering(api: httpx.Client, namespace: str, document: dict[str, Any]) -> None:
    objects = render(CASES.written(document), app="shop", image=CASES.IMAGE, read=CASES.SOURCES.__getitem__).objects
    template = pod_template(objects[-1]) or {}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "shop", **template["metadata"]}}
    # By itself, as its controller would make it: Pod Security refuses pods, and only warns about controllers.
    pod["spec"] = {"restartPolicy": "Always", **template["spec"]}
    said = {f"{obj['kind']}/{obj['metadata']['name']}": refused(api, namespace, obj) for obj in (*objects, pod)}
    assert {name: word for name, word in said.items() if word} == {}
