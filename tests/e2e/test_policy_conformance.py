"""The evaluation in Python and a real API server give the same answer, policy by policy and word by word.

Twice: against a kube-apiserver of its own, where each policy is bound alone (an API server names only the first policy
that denies), and against the staging cluster, with the policies as they are bound there.
"""

import importlib.util
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from sekisho.embedded.kubeapi import KubeApi
from sekisho.errors import PermanentError
from sekisho.kinds import resource_of
from sekisho.policy import GOVERNED, Policy, load_policies
from sekisho.zones import Zone, home
from stages.render import render

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
POLICIES = load_policies(ROOT / "policies")
APISERVER = home() / "bin" / "kube-apiserver"
ALONE = "sekisho.dev/conformance"

Create = Callable[[Mapping[str, Any], str], str]
"""Creates an object in a namespace, as a dry run; returns why it is denied, or nothing."""


def load_cases() -> ModuleType:
    spec = importlib.util.spec_from_file_location("policy_cases", ROOT / "tests/unit/policy_cases.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


CASES = load_cases().CASES


def collection(obj: Mapping[str, Any], namespace: str) -> str:
    resource = resource_of(obj)
    assert resource is not None
    base = f"/apis/{obj['apiVersion']}" if "/" in obj["apiVersion"] else f"/api/{obj['apiVersion']}"
    return f"{base}/namespaces/{namespace}/{resource.name}" if resource.namespaced else f"{base}/{resource.name}"


def here(policies: tuple[Policy, ...], obj: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the denials of the evaluation in Python, by policy."""
    names = {f"admission/{policy.name.removeprefix('sekisho-')}": policy.name for policy in policies}
    found: dict[str, list[str]] = {}
    for reason in POLICIES.check_objects([obj]):
        if reason.result == "fail" and reason.rule in names:
            found.setdefault(names[reason.rule], []).append(reason.message.removeprefix(f"{reason.where}: "))
    return found


def until_in_force(create: Create, namespace: str, obj: Mapping[str, Any]) -> None:
    """Wait until a policy denies what it must: an API server takes policies up within seconds."""
    deadline = time.monotonic() + 60
    while not create(obj, namespace):
        assert time.monotonic() < deadline, f"no policy denies anything in {namespace}"
        time.sleep(0.2)


# -- an API server of its own -----------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    if not APISERVER.exists() or shutil.which("etcd") is None:
        pytest.skip("no kube-apiserver or etcd here")
    folder = tmp_path_factory.mktemp("conformance")
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    (folder / "sa.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    token = secrets.token_hex(16)
    (folder / "tokens").write_text(f'{token},admin,admin,"system:masters"\n', encoding="utf-8")
    etcd, peer, port = (free_port() for _ in range(3))
    etcd_url, peer_url = f"http://127.0.0.1:{etcd}", f"http://127.0.0.1:{peer}"
    commands = [
        ["etcd", "--data-dir", str(folder / "etcd"), "--listen-client-urls", etcd_url, "--advertise-client-urls",
         etcd_url, "--listen-peer-urls", peer_url, "--initial-advertise-peer-urls", peer_url, "--initial-cluster",
         f"default={peer_url}"],
        [str(APISERVER), "--etcd-servers", etcd_url, "--secure-port", str(port), "--bind-address", "127.0.0.1",
         "--cert-dir", str(folder / "certs"), "--token-auth-file", str(folder / "tokens"), "--service-account-issuer",
         "https://test", "--service-account-key-file", str(folder / "sa.key"), "--service-account-signing-key-file",
         str(folder / "sa.key"), "--service-cluster-ip-range", "10.99.0.0/24", "--authorization-mode", "RBAC",
         # Else validation refuses privileged pods before any policy is asked.
         "--allow-privileged=true",
         # Its controller, which makes the accounts, does not run here.
         "--disable-admission-plugins", "ServiceAccount"],
    ]  # fmt: skip
    log = folder / "log"
    with log.open("wb") as output:
        processes = [subprocess.Popen(command, stdout=output, stderr=output) for command in commands]
    try:
        with httpx.Client(
            base_url=f"https://127.0.0.1:{port}",
            headers={"Authorization": f"Bearer {token}"},
            verify=False,  # noqa: S501 - its certificate is a minute old and its own
            timeout=30,
            trust_env=False,
        ) as client:
            _wait_ready(client, log)
            yield client
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait(20)


def _wait_ready(client: httpx.Client, log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            if client.get("/readyz").status_code == httpx.codes.OK:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.3)
    pytest.fail(log.read_text(errors="replace")[-3000:])


@pytest.fixture(scope="module")
def alone(api: httpx.Client) -> Create:
    """Each policy bound alone, to a namespace of its own name."""
    place = "/apis/admissionregistration.k8s.io/v1"
    for policy in POLICIES.policies:
        labels = {ALONE: policy.name}
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": policy.name, "labels": labels}}
        binding = json.loads(json.dumps(policy.binding))
        assert binding["spec"]["matchResources"]["namespaceSelector"] == {"matchLabels": GOVERNED}
        binding["spec"]["matchResources"]["namespaceSelector"]["matchLabels"] = labels
        for path, body in (
            ("/api/v1/namespaces", namespace),
            (f"{place}/validatingadmissionpolicies", policy.manifest),
            (f"{place}/validatingadmissionpolicybindings", binding),
        ):
            answer = api.post(path, json=body, params={"fieldValidation": "Strict"})
            assert answer.status_code == httpx.codes.CREATED, answer.text
            assert "Warning" not in answer.headers, answer.headers["Warning"]

    def create(obj: Mapping[str, Any], namespace: str) -> str:
        answer = api.post(collection(obj, namespace), json=obj, params={"dryRun": "All", "fieldValidation": "Strict"})
        return "" if answer.is_success else str(answer.json()["message"])

    for policy in POLICIES.policies:
        short = policy.name.removeprefix("sekisho-")
        until_in_force(create, policy.name, next(case.object for case in CASES if short in case.denied))
    return create


@pytest.mark.parametrize("policy", POLICIES.policies, ids=lambda policy: policy.name)
def test_an_api_server_agrees_with_each_policy(alone: Create, policy: Policy) -> None:
    for case in CASES:
        denied = here((policy,), case.object).get(policy.name, [])
        said = alone(case.object, policy.name)
        assert bool(said) == bool(denied), f"{case.name}: here {denied}, there {said!r}"
        prefix = f"ValidatingAdmissionPolicy '{policy.name}' with binding '{policy.name}' denied request: "
        if denied:
            assert said.partition(prefix)[2] in denied, f"{case.name}: here {denied}, there {said!r}"


def test_an_api_server_finds_nothing_odd_in_the_expressions(api: httpx.Client, alone: Create) -> None:
    """The server checks types by itself where it knows them; its warnings stand in the status."""
    assert callable(alone)
    place = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"
    odd = {
        item["metadata"]["name"]: item["status"]["typeChecking"]
        for item in api.get(place).json()["items"]
        if item.get("status", {}).get("typeChecking")
    }
    assert odd == {}


def test_an_api_server_takes_what_is_rendered(api: httpx.Client) -> None:
    """Everything that Score offers, in a namespace of level restricted: no unknown field, nothing rewritten."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "rendered", "labels": labels}}
    assert api.post("/api/v1/namespaces", json=namespace).status_code == httpx.codes.CREATED
    score = (ROOT / "tests/unit/golden/full.score.yaml").read_bytes()
    image = f"registry.sekisho.internal/apps/orders@sha256:{'a' * 64}"
    objects = render(score, app="orders", image=image).objects
    pod = {"apiVersion": "v1", "kind": "Pod", **objects[-1]["spec"]["template"]}
    pod["metadata"] = {**pod["metadata"], "name": "orders"}
    for obj in (*objects, pod):
        query = {"dryRun": "All", "fieldValidation": "Strict"}
        answer = api.post(collection(obj, "rendered"), json=obj, params=query)
        assert answer.status_code == httpx.codes.CREATED, answer.text
        assert "Warning" not in answer.headers, answer.headers["Warning"]
        assert kept(obj, answer.json()) == obj


def kept(wanted: Any, found: Any) -> Any:
    """Return of what a server made of an object those fields that were asked for."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        return {key: kept(value, found.get(key)) for key, value in wanted.items()}
    if isinstance(wanted, list) and isinstance(found, list):
        return [kept(one, other) for one, other in zip(wanted, found, strict=True)]
    return found


# -- the staging cluster ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def staging(zones: Any) -> Iterator[Create]:
    """The staging cluster, with its own bindings, in a governed namespace that goes afterwards."""
    assert zones is not None
    api = KubeApi(Zone.STAGING)
    name = f"app-conformance-{os.getpid()}"
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": GOVERNED}}
    api.request("POST", "/api/v1/namespaces", namespace)

    def create(obj: Mapping[str, Any], _: str) -> str:
        try:
            api.request("POST", f"{collection(obj, name)}?dryRun=All&fieldValidation=Strict", obj)
        except PermanentError as error:
            return error.what
        return ""

    try:
        deadline = time.monotonic() + 60
        while api.request("GET", f"/api/v1/namespaces/{name}/serviceaccounts/default") is None:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        until_in_force(create, name, next(case.object for case in CASES if case.denied))
        yield create
    finally:
        api.request("DELETE", f"/api/v1/namespaces/{name}")
        api.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_staging_cluster_agrees(staging: Create, case: Any) -> None:
    denied = here(POLICIES.policies, case.object)
    said = staging(case.object, "")
    assert bool(said) == bool(denied), f"here {denied}, there {said!r}"
    if denied and "disallowed by cluster policy" not in said:
        assert any(f"ValidatingAdmissionPolicy '{name}'" in said for name in denied), f"here {denied}, there {said!r}"
