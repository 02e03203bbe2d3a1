"""The evaluation in Python and a real API server give the same answer, policy by policy and word by word.

Twice: against a kube-apiserver of its own, where each policy is bound alone (an API server names only the first policy
that denies), and against the staging cluster, with the policies as they are bound there. And expression by expression:
the answers in tests/unit/data/cel.json, to which the unit tests hold the evaluation, are an API server's.
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
from concurrent.futures import ThreadPoolExecutor
from functools import cache
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
DATA = json.loads((ROOT / "tests/unit/data/cel.json").read_text(encoding="utf-8"))
ROWS = [(text, answer) for rows in DATA["expressions"].values() for text, *answer in rows]
PAIRS = 1000
"""So many pairs of an object and a policy that is asked about it are put to both."""
AT_ONCE = 4
"""Requests at a time."""


def cases_of(policy: Policy) -> list[Any]:
    """Return what a policy is asked: all that it denies, all that passes everywhere, and a third of the others."""
    short = policy.name.removeprefix("sekisho-")
    mine = [case for case in CASES if asked(policy, case.object)]
    others = [case for case in mine if case.denied and short not in case.denied]
    return [case for case in mine if case not in others] + others[::3]


def asked(policy: Policy, obj: Mapping[str, Any]) -> bool:
    resource = resource_of(obj)
    assert resource is not None
    return policy.applies_to(resource, GOVERNED)


def collection(obj: Mapping[str, Any], namespace: str) -> str:
    resource = resource_of(obj)
    assert resource is not None
    base = f"/apis/{obj['apiVersion']}" if "/" in obj["apiVersion"] else f"/api/{obj['apiVersion']}"
    return f"{base}/namespaces/{namespace}/{resource.name}" if resource.namespaced else f"{base}/{resource.name}"


@cache
def _here(written: str) -> dict[str, list[str]]:
    names = {f"admission/{policy.name.removeprefix('sekisho-')}": policy.name for policy in POLICIES.policies}
    found: dict[str, list[str]] = {}
    for reason in POLICIES.check_objects([json.loads(written)]):
        if reason.result == "fail":
            found.setdefault(names[reason.rule], []).append(reason.message.removeprefix(f"{reason.where}: "))
    return found


def here(obj: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the denials of the evaluation in Python, by policy."""
    return _here(json.dumps(obj))


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


def test_the_cases_are_many_and_differ() -> None:
    """No pair is counted twice, and none that a policy is not asked about."""
    pairs = {
        (policy.name, json.dumps(case.object, sort_keys=True)): policy.name.removeprefix("sekisho-") in case.denied
        for policy in POLICIES.policies
        for case in cases_of(policy)
    }
    assert len(pairs) >= PAIRS
    assert sum(pairs.values()) >= 150
    for policy in POLICIES.policies:
        answers = [denied for (name, _), denied in pairs.items() if name == policy.name]
        assert answers.count(True) >= 1, policy.name
        assert answers.count(False) >= 3, policy.name


@pytest.mark.parametrize("policy", POLICIES.policies, ids=lambda policy: policy.name)
def test_an_api_server_agrees_with_each_policy(alone: Create, policy: Policy) -> None:
    # One object of each kind that the policy is not asked about: both must leave it alone.
    others = {case.object["kind"]: case for case in CASES if not asked(policy, case.object)}
    cases = cases_of(policy) + list(others.values())
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(lambda case: alone(case.object, policy.name), cases))
    prefix = f"ValidatingAdmissionPolicy '{policy.name}' with binding '{policy.name}' denied request: "
    for case, said in zip(cases, answers, strict=True):
        denied = here(case.object).get(policy.name, [])
        assert bool(said) == bool(denied), f"{case.name}: here {denied}, there {said!r}"
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


# -- expressions ------------------------------------------------------------------------------------------------------

BATCH = 60
"""Expressions in one policy; a request names the one that it is about, or asks for all that have a value."""


def literal(value: Any) -> str:
    """Return a value as CEL writes it."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return json.dumps(value, ensure_ascii=False)
        case list():
            return f"[{', '.join(f'dyn({literal(item)})' for item in value)}]"
        case dict():
            return f"{{{', '.join(f'{literal(key)}: dyn({literal(item)})' for key, item in value.items())}}}"
        case _:
            return repr(value)


def question(text: str, answer: list[Any]) -> str:
    """Return an expression that is true where the API server gives the answer; an error stays one."""
    if answer[0] == "value":
        wanted = f"dyn({literal(answer[1])})"
        return f"dyn({text}) == {wanted} && type(dyn({text})) == type({wanted})"
    return f"dyn({text}) == dyn({text})"


def policy_of(name: str, questions: Mapping[int, str]) -> dict[str, Any]:
    validations = [
        {"expression": f"!(object.metadata.annotations.ask in {asked_by(number)}) || ({text})", "message": f"{number}"}
        for number, text in questions.items()
    ]
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    spec = {"failurePolicy": "Fail", "matchConstraints": {"resourceRules": [rule]}, "validations": validations}
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": spec,
    }


def asked_by(number: int) -> list[str]:
    """Return what makes a request ask for an expression."""
    return [str(number)] if number < 0 or ROWS[number][1][0] != "value" else [str(number), "values"]


def asking(number: int | str) -> dict[str, Any]:
    """Return the object about which the expressions are, with the number of the one that is meant."""
    found: dict[str, Any] = json.loads(json.dumps(DATA["object"]))
    found["metadata"]["annotations"] = {"ask": str(number)}
    found["metadata"].pop("namespace")
    return found


def test_an_api_server_gives_the_answers_of_the_unit_tests(api: httpx.Client) -> None:
    """Those that have one, and those that are errors; one request each."""
    place = "/apis/admissionregistration.k8s.io/v1"
    questions = {number: question(*row) for number, row in enumerate(ROWS) if row[1][0] in {"value", "error"}}
    numbers = list(questions)
    assert len(numbers) >= 1000
    batches = {f"cel-{start}": numbers[start : start + BATCH] for start in range(0, len(numbers), BATCH)}
    for name, batch in batches.items():
        labels = {ALONE: name}
        selector = {"namespaceSelector": {"matchLabels": labels}}
        binding = {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": name},
            "spec": {"policyName": name, "validationActions": ["Deny"], "matchResources": selector},
        }
        # The last one is false: a policy that denies it is in force.
        asked_about = {number: questions[number] for number in batch} | {-1: "false"}
        for path, body in (
            (
                "/api/v1/namespaces",
                {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}},
            ),
            (f"{place}/validatingadmissionpolicies", policy_of(name, asked_about)),
            (f"{place}/validatingadmissionpolicybindings", binding),
        ):
            answer = api.post(path, json=body)
            assert answer.status_code == httpx.codes.CREATED, answer.text

    def ask(namespace: str, number: int | str) -> str:
        answer = api.post(f"/api/v1/namespaces/{namespace}/pods", json=asking(number), params={"dryRun": "All"})
        return "" if answer.is_success else str(answer.json()["message"])

    for name in batches:
        until_in_force(lambda _obj, namespace: ask(namespace, -1), name, {})
    with ThreadPoolExecutor(AT_ONCE) as pool:
        # All values of a policy at once, which says which is another; and each error by itself.
        values = dict(zip(batches, pool.map(lambda name: ask(name, "values"), batches), strict=True))
        errors = [
            (name, number) for name, batch in batches.items() for number in batch if ROWS[number][1][0] == "error"
        ]
        answers = list(pool.map(lambda pair: ask(*pair), errors))
    assert {name: said for name, said in values.items() if said} == {}
    assert [ROWS[number][0] for (_, number), said in zip(errors, answers, strict=True) if "in error" not in said] == []


def test_an_api_server_refuses_what_does_not_compile(api: httpx.Client) -> None:
    """And takes what is refused here only because it could not be done exactly."""
    place = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"
    rows = [row for row in ROWS if row[1][0] in {"not compiled", "not here"}]
    assert len(rows) >= 200

    def taken(text: str) -> bool:
        body = policy_of("compiled", {0: f"dyn({text}) == null"})
        answer = api.post(place, json=body, params={"dryRun": "All"})
        assert answer.is_success or answer.json()["reason"] == "Invalid", answer.text
        return answer.is_success

    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(taken, [text for text, _ in rows]))
    wrong = [text for (text, answer), ok in zip(rows, answers, strict=True) if ok != (answer[0] == "not here")]
    assert wrong == []


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
            # What is there already passed the policies: they are asked before the store is.
            return "" if "already exists" in error.what else error.what
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
    denied = here(case.object)
    said = staging(case.object, "")
    assert bool(said) == bool(denied), f"here {denied}, there {said!r}"
    if denied and "disallowed by cluster policy" not in said:
        assert any(f"ValidatingAdmissionPolicy '{name}'" in said for name in denied), f"here {denied}, there {said!r}"
