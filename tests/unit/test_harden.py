import copy
import json
from pathlib import Path

import pytest

from sekisho.errors import Refusal
from sekisho.model import Bound, Image, Release, Revision, SealedRelease, StandardImage
from sekisho.policy import load_policies
from sekisho.profile import Agent, Capability, NetworkSpec, Profile, load_profile
from sekisho.vault import FileVault
from stages.agents import agent_objects
from stages.agents import load_policies as load_admission
from stages.bind import Services, bind
from stages.harden import harden
from stages.harden.restricted import restrict, violations
from stages.render import render

ROOT = Path(__file__).parents[2]
D = "sha256:" + "a" * 64
FIXTURES = json.loads((Path(__file__).parent / "data" / "pod-security-v1.35.json").read_text())
SCORE = b"""
apiVersion: score.dev/v1b1
metadata: {name: shop}
containers:
  web:
    image: .
    variables: {DB_HOST: "${resources.db.host}"}
    readinessProbe: {httpGet: {path: /healthz, port: 8080}}
service: {ports: {http: {port: 80, targetPort: 8080}}}
resources:
  db: {type: postgres}
  web: {type: route}
"""


class Standard:
    def get(self, name):
        return StandardImage(name=name, digest=D, repository=f"standard/{name}")


def sealed():
    image = Image(repository="apps/shop", digest=D, language="python", base="python", base_digest=D, layers=())
    revision = Revision(app="shop", commit="a" * 40, tree="b" * 40, branch="main", author="a", committed_at=0)
    release = Release(app="shop", revision=revision, image=image, manifests=D, policy=D, evidence=())
    return SealedRelease(repository="releases/shop", digest=D, summary=D, release=release)


def production():
    """Production's own profile, with a database that this test can bind: the address alone matters here."""
    profile = load_profile(ROOT / "cluster-profiles" / "production.yaml")
    capabilities = (
        Capability(type="postgres", provider="postgres-in-cluster"),
        Capability(type="route", provider="node-port"),
    )
    return profile.model_copy(update={"capabilities": capabilities})


@pytest.fixture
def staging():
    return load_profile(ROOT / "cluster-profiles" / "staging.yaml")


@pytest.fixture
def bound(tmp_path, staging):
    manifests = render(SCORE, app="shop", image=sealed().release.image.reference)
    return bind(manifests, sealed(), staging, FileVault(tmp_path / "vault"), Services(Standard(), tmp_path))


def named(hardened, kind, name):
    return next(obj for obj in hardened.objects if (obj["kind"], obj["metadata"]["name"]) == (kind, name))


def minimal(*extra, **pod):
    """Return a Bound of one Deployment, with these fields of its pod."""
    spec = {"containers": [{"name": "web", "image": "x", "ports": [{"containerPort": 8080}]}], **pod}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "shop"},
        "spec": {
            "selector": {"matchLabels": {"app": "shop"}},
            "template": {"metadata": {"labels": {"app": "shop"}}, "spec": spec},
        },
    }
    return Bound(app="shop", zone="z", release=D, objects=(deployment, *extra), bindings=())


def service(*ports, **spec):
    return {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "shop"},
        "spec": {"selector": {"app": "shop"}, "ports": list(ports), **spec},
    }  # fmt: skip


def zone(*agents, **network):
    return Profile(zone="z", description="x", agents=agents, network=NetworkSpec(**network))


GUARD = Agent(
    name="guard",
    kind="sidecar",
    image="guard",
    why="limits",
    options={"port": 8443, "max_body_bytes": 7, "requests_per_second": 9},
)


# -- the whole -----------------------------------------------------------------------------------------------------


def test_the_result_is_deterministic_and_does_not_change_its_input(bound, staging):
    before = bound.canonical()
    assert harden(bound, staging, Standard(), sealed()) == harden(bound, staging, Standard(), sealed())
    assert bound.canonical() == before


def test_the_order_is_that_of_apply_and_everything_has_its_namespace(bound, staging):
    hardened = harden(bound, staging, Standard(), sealed())
    kinds = list(dict.fromkeys(obj["kind"] for obj in hardened.objects))
    assert kinds == ["Namespace", "NetworkPolicy", "ServiceAccount", "Secret", "Service", "StatefulSet", "Deployment"]
    assert {obj["metadata"].get("namespace") for obj in hardened.objects[1:]} == {"app-shop"}
    assert hardened.objects[0]["metadata"]["labels"] == {
        "pod-security.kubernetes.io/enforce": "restricted",
        "pod-security.kubernetes.io/audit": "restricted",
        "pod-security.kubernetes.io/warn": "restricted",
        "sekisho.dev/governed": "true",
        "sekisho.dev/app": "shop",
        "app.kubernetes.io/managed-by": "sekisho",
    }


def test_the_admission_policies_pass_every_hardened_object(bound, staging):
    hardened = harden(bound, staging, Standard(), sealed())
    reasons = load_policies(ROOT / "policies").check_objects(hardened.objects, namespace="app-shop")
    assert [reason for reason in reasons if reason.result == "fail"] == []


def test_the_guard_stands_in_front_and_the_ways_in_lead_to_it(bound, staging):
    hardened = harden(bound, staging, Standard(), sealed())
    pod = named(hardened, "Deployment", "shop")["spec"]["template"]["spec"]
    guard = pod["initContainers"][0]
    assert (guard["name"], guard["restartPolicy"]) == ("guard", "Always")
    assert {item["name"]: item["value"] for item in guard["env"]} == {
        "GUARD_LISTEN": "8443",
        "GUARD_TARGET": "127.0.0.1:8080",
        "GUARD_MAX_BODY": "1048576",
        "GUARD_RATE": "200",
    }
    assert guard["readinessProbe"]["httpGet"] == {"path": "/__guard/healthz", "port": 8443}
    assert guard["securityContext"]["runAsUser"] != pod["securityContext"]["runAsUser"]
    for name in ("shop", "shop-route"):
        assert [port["targetPort"] for port in named(hardened, "Service", name)["spec"]["ports"]] == [8443]
    assert named(hardened, "Service", "shop-db")["spec"]["ports"][0]["targetPort"] == 5432
    assert "initContainers" not in named(hardened, "StatefulSet", "shop-db")["spec"]["template"]["spec"]


def test_the_workload_is_told_where_it_runs(bound, staging):
    hardened = harden(bound, staging, Standard(), sealed())
    env = named(hardened, "Deployment", "shop")["spec"]["template"]["spec"]["containers"][0]["env"]
    told = {item["name"]: item.get("value") for item in env if item["name"].startswith("SEKISHO_")}
    assert told == {"SEKISHO_ZONE": "staging", "SEKISHO_RELEASE": D, "SEKISHO_APP": "shop"}


def test_the_network_is_closed_but_for_what_is_named(bound, staging):
    hardened = harden(bound, staging, Standard(), sealed())
    rules = {obj["metadata"]["name"]: obj["spec"] for obj in hardened.objects if obj["kind"] == "NetworkPolicy"}
    assert rules["default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert set(rules) == {"default-deny", "allow-dns", "shop-ingress", "shop-to-db", "db-from-shop"}
    app = {"matchLabels": {"app.kubernetes.io/name": "shop"}}
    database = {"matchLabels": {"app.kubernetes.io/name": "shop-db"}}
    assert rules["shop-ingress"] == {
        "podSelector": app,
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [{"ipBlock": {"cidr": "10.77.0.0/16"}}], "ports": [{"protocol": "TCP", "port": 8443}]}],
    }
    to_database = [{"protocol": "TCP", "port": 5432}]
    assert rules["shop-to-db"]["egress"] == [{"to": [{"podSelector": database}], "ports": to_database}]
    assert rules["shop-to-db"]["podSelector"] == app
    assert rules["db-from-shop"]["ingress"] == [{"from": [{"podSelector": app}], "ports": to_database}]
    assert rules["db-from-shop"]["podSelector"] == database
    node, pods = rules["allow-dns"]["egress"]
    assert node["to"] == [{"ipBlock": {"cidr": "10.77.40.10/32"}}]
    assert {port["port"] for port in node["ports"]} == {10053}
    assert set(pods["to"][0]) == {"namespaceSelector", "podSelector"}
    assert {(port["protocol"], port["port"]) for port in pods["ports"]} == {("UDP", 53), ("TCP", 53)}


def test_an_external_binding_opens_that_address_and_port_alone(bound, staging):
    bindings = tuple(
        item.model_copy(update={"address": "10.77.50.20:5433", "objects": ()}) if item.type == "postgres" else item
        for item in bound.bindings
    )
    objects = tuple(obj for obj in bound.objects if not obj["metadata"]["name"].startswith("shop-db"))
    hardened = harden(
        bound.model_copy(update={"bindings": bindings, "objects": objects}), staging, Standard(), sealed()
    )
    rule = named(hardened, "NetworkPolicy", "shop-to-db")["spec"]
    assert rule["egress"] == [
        {"to": [{"ipBlock": {"cidr": "10.77.50.20/32"}}], "ports": [{"protocol": "TCP", "port": 5433}]}
    ]
    named_host = tuple(
        item.model_copy(update={"address": "db.example:5432"}) if item.address else item for item in bindings
    )
    with pytest.raises(Refusal, match="IP address"):
        harden(bound.model_copy(update={"bindings": named_host, "objects": objects}), staging, Standard(), sealed())


def test_every_difference_is_explained(bound, staging):
    """Each object that is new, and each field that differs, is at or below a pointer of an explanation."""
    hardened = harden(bound, staging, Standard(), sealed())
    explained = {(item.object, item.path) for item in hardened.explained}
    assert all(item.why and item.by for item in hardened.explained)
    before = {(obj["kind"], obj["metadata"]["name"]): obj for obj in bound.objects}

    def differences(old, new, path):
        if isinstance(old, dict) and isinstance(new, dict):
            for key in old.keys() | new.keys():
                yield from differences(old.get(key), new.get(key), f"{path}/{key.replace('/', '~1')}")
        elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
            for index, pair in enumerate(zip(old, new, strict=True)):
                yield from differences(*pair, f"{path}/{index}")
        elif old != new:
            yield path

    for obj in hardened.objects:
        kind, name = obj["kind"], obj["metadata"]["name"]
        short = f"{kind}/{name}"
        if (kind, name) not in before:
            assert any(owner == short for owner, _ in explained), short
            continue
        for path in differences(before[kind, name], obj, ""):
            mine = [at for owner, at in explained if owner in {short, "*"}]
            # A list that was not there before is explained by its items.
            assert any(path.startswith(at) or at.startswith(f"{path}/") for at in mine), (short, path)


def test_staging_and_production_get_the_same_workload_from_the_same_bytes(tmp_path, staging):
    manifests = render(SCORE, app="shop", image=sealed().release.image.reference)
    pods = []
    for profile in (staging, production()):
        services = Services(Standard(), tmp_path)
        one = bind(manifests, sealed(), profile, FileVault(tmp_path / profile.zone), services)
        hardened = harden(one, profile, Standard(), sealed())
        template = copy.deepcopy(named(hardened, "Deployment", "shop")["spec"]["template"])
        template["metadata"].pop("annotations")
        for container in template["spec"]["containers"]:
            container["env"] = [item for item in container["env"] if item["name"] != "SEKISHO_ZONE"]
        pods.append(template)
    assert pods[0] == pods[1]


# -- Jobs ------------------------------------------------------------------------------------------------------------


def job_of(tmp_path, profile, annotations, release=None):
    score = f"""
apiVersion: score.dev/v1b1
metadata: {{name: shop, annotations: {json.dumps(annotations)}}}
containers: {{main: {{image: ., variables: {{DB_HOST: "${{resources.db.host}}"}}}}}}
resources: {{db: {{type: postgres}}}}
"""
    release = release or sealed()
    manifests = render(score.encode(), app="shop", image=release.release.image.reference)
    one = bind(manifests, release, profile, FileVault(tmp_path / "vault"), Services(Standard(), tmp_path))
    hardened = harden(one, profile, Standard(), release)
    return hardened, next(obj for obj in hardened.objects if obj["apiVersion"] == "batch/v1")


def test_another_version_of_a_job_is_another_job(tmp_path, staging):
    """A Job's template cannot be changed, so that the same name with another template would be refused for ever."""
    annotations = {"k8s.score.dev/kind": "Job"}
    hardened, job = job_of(tmp_path, staging, annotations)
    _, again = job_of(tmp_path, staging, annotations)
    _, other = job_of(tmp_path, staging, annotations, sealed().model_copy(update={"digest": "sha256:" + "b" * 64}))
    assert job == again
    assert job["metadata"]["name"].startswith("shop-")
    assert job["metadata"]["name"] != other["metadata"]["name"]
    assert len("shop") + 11 == len(job["metadata"]["name"])
    # What was said about it, also by bind, is said under its final name.
    owners = {item.object for item in hardened.explained if item.object.startswith("Job/")}
    assert owners == {f"Job/{job['metadata']['name']}"}


def test_jobs_and_cron_jobs_are_hardened_as_everything_else(tmp_path, staging):
    for kind, more in (("Job", {}), ("CronJob", {"workload.sekisho.dev/schedule": "@daily"})):
        hardened, job = job_of(tmp_path, staging, {"k8s.score.dev/kind": kind} | more)
        spec = job["spec"]["jobTemplate"]["spec"] if kind == "CronJob" else job["spec"]
        assert violations(spec["template"]) == ()
        assert {"name": "SEKISHO_ZONE", "value": "staging"} in spec["template"]["spec"]["containers"][0]["env"]
        policies = load_policies(ROOT / "policies")
        assert [found for found in policies.check_objects(hardened.objects) if found.result == "fail"] == []
        rules = [obj for obj in hardened.objects if obj["kind"] == "NetworkPolicy"]
        chosen = [rule["spec"]["podSelector"].get("matchLabels", {}) for rule in rules]
        assert any(labels.items() <= spec["template"]["metadata"]["labels"].items() for labels in chosen if labels)


# -- Pod Security --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(FIXTURES["fail"]))
def test_what_kubernetes_fails_is_a_violation(name):
    pod = FIXTURES["fail"][name]
    assert violations({**pod, "spec": {**pod["spec"], "automountServiceAccountToken": False}})


@pytest.mark.parametrize("name", sorted(FIXTURES["pass"]))
def test_what_kubernetes_passes_is_none(name):
    pod = FIXTURES["pass"][name]
    found = violations({**pod, "spec": {**pod["spec"], "automountServiceAccountToken": False}})
    # Pods of Windows are let off some rules there; no zone has such nodes, so here they are not.
    assert bool(found) == (name == "restricted/base_windows")


def test_what_is_missing_is_filled_in_and_said():
    template = {"spec": {"containers": [{"name": "web"}]}}
    result, added = restrict(template, where="Deployment/x")
    assert violations(result) == ()
    assert violations(template) != ()
    assert {path for path, _ in added} == {
        "/spec/securityContext/runAsNonRoot",
        "/spec/securityContext/seccompProfile",
        "/spec/automountServiceAccountToken",
        "/spec/containers/0/securityContext/allowPrivilegeEscalation",
        "/spec/containers/0/securityContext/capabilities",
    }
    assert restrict(result, where="x") == (result, ())


@pytest.mark.parametrize(
    "pod",
    [
        {"hostNetwork": True},
        {"securityContext": {"runAsNonRoot": False}},
        {"volumes": [{"name": "h", "hostPath": {"path": "/"}}]},
        {"volumes": [{"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]},
        {"containers": [{"name": "web", "securityContext": {"privileged": True}}]},
        {"containers": [{"name": "web", "securityContext": {"capabilities": {"add": ["SYS_ADMIN"], "drop": ["ALL"]}}}]},
        {"containers": [{"name": "web", "securityContext": {"capabilities": {"add": ["NET_RAW"]}}}]},
        {"containers": [{"name": "web", "ports": [{"containerPort": 1, "hostPort": 1}]}]},
        {"containers": []},
    ],
)
def test_a_workload_that_cannot_be_restricted_is_refused_by_field(pod):
    with pytest.raises(Refusal, match="Pod Security restricted: /"):
        harden(minimal(**pod), zone(), Standard(), sealed())


def test_a_token_of_the_api_is_taken_from_a_workload():
    hardened = harden(minimal(automountServiceAccountToken=True), zone(), Standard(), sealed())
    assert named(hardened, "Deployment", "shop")["spec"]["template"]["spec"]["automountServiceAccountToken"] is False
    assert any(item.path.endswith("/automountServiceAccountToken") for item in hardened.explained)


# -- what a release may bring --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "extra",
    [
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}},
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kube-system"}},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "x"}},
        {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "allow-all"}},
        {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "x"}},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "namespace": "kube-system"}},
        service({"port": 80, "targetPort": 8080}, type="NodePort"),
        service({"port": 80, "targetPort": 8080}, type="LoadBalancer"),
        service({"port": 80, "targetPort": 8080}, externalIPs=["10.0.0.1"]),
        service({"port": 80, "targetPort": 8080}, type="ExternalName", externalName="x"),
    ],
)
def test_a_release_may_not_bring_this(extra):
    with pytest.raises(Refusal, match="may not"):
        harden(minimal(extra), zone(), Standard(), sealed())


def test_bound_objects_of_another_zone_or_release_are_refused():
    with pytest.raises(Refusal):
        harden(minimal().model_copy(update={"zone": "other"}), zone(), Standard(), sealed())
    with pytest.raises(Refusal):
        harden(minimal().model_copy(update={"release": "sha256:" + "b" * 64}), zone(), Standard(), sealed())
    with pytest.raises(Refusal, match="no objects"):
        harden(minimal().model_copy(update={"objects": ()}), zone(), Standard(), sealed())


# -- sidecars ------------------------------------------------------------------------------------------------------


def test_each_port_gets_its_guard_and_no_guard_takes_a_port_of_the_workload():
    ports = [{"containerPort": 8443, "name": "tls"}, {"containerPort": 8080}]
    containers = [{"name": "web", "image": "x", "ports": ports}]
    both = service({"name": "a", "port": 80, "targetPort": 8080}, {"name": "b", "port": 81, "targetPort": "tls"})
    hardened = harden(minimal(both, containers=containers), zone(GUARD), Standard(), sealed())
    pod = named(hardened, "Deployment", "shop")["spec"]["template"]["spec"]
    env = [{item["name"]: item["value"] for item in guard["env"]} for guard in pod["initContainers"]]
    assert [(item["GUARD_LISTEN"], item["GUARD_TARGET"]) for item in env] == [
        ("8444", "127.0.0.1:8080"),
        ("8445", "127.0.0.1:8443"),
    ]
    assert [guard["name"] for guard in pod["initContainers"]] == ["guard", "guard-2"]
    assert [port["targetPort"] for port in named(hardened, "Service", "shop")["spec"]["ports"]] == [8444, 8445]


def test_two_front_agents_stand_one_behind_the_other():
    second = GUARD.model_copy(update={"name": "inner", "options": {"port": 9000}})
    hardened = harden(minimal(service({"port": 80, "targetPort": 8080})), zone(GUARD, second), Standard(), sealed())
    pod = named(hardened, "Deployment", "shop")["spec"]["template"]["spec"]
    chain = {c["name"]: {e["name"]: e["value"] for e in c["env"]} for c in pod["initContainers"]}
    assert chain["inner"]["GUARD_TARGET"] == "127.0.0.1:8080"
    assert chain["guard"]["GUARD_TARGET"] == "127.0.0.1:9000"
    assert named(hardened, "Service", "shop")["spec"]["ports"][0]["targetPort"] == 8443
    rule = named(
        harden(
            minimal(service({"port": 80, "targetPort": 8080})),
            zone(GUARD, ingress_from=("10.0.0.0/8",)),
            Standard(),
            sealed(),
        ),
        "NetworkPolicy",
        "shop-ingress",
    )
    assert rule["spec"]["ingress"][0]["ports"] == [{"protocol": "TCP", "port": 8443}]


def test_without_a_guard_the_network_opens_the_workloads_own_port():
    hardened = harden(
        minimal(service({"port": 80, "targetPort": 8080})), zone(ingress_from=("10.0.0.0/8",)), Standard(), sealed()
    )
    assert named(hardened, "NetworkPolicy", "shop-ingress")["spec"]["ingress"][0]["ports"] == [
        {"protocol": "TCP", "port": 8080}
    ]
    closed = harden(minimal(service({"port": 80, "targetPort": 8080})), zone(), Standard(), sealed())
    assert "ingress" not in named(closed, "NetworkPolicy", "shop-ingress")["spec"]


@pytest.mark.parametrize(
    ("bound", "profile", "match"),
    [
        (minimal(service({"port": 53, "protocol": "UDP"})), zone(GUARD), "Only TCP"),
        (minimal(service({"port": 80, "targetPort": "none"})), zone(GUARD), "is no port"),
        (minimal(service({"port": 80}), containers=[{"name": "guard"}]), zone(GUARD), "name of an agent"),
        (minimal(service({"port": 80})), zone(GUARD.model_copy(update={"options": {"port": 80}})), "no usable port"),
        (
            minimal(service({"port": 80})),
            zone(GUARD.model_copy(update={"options": {"port": 8443, "x": 1}})),
            "unknown options",
        ),
        (minimal(service({"port": 80})), zone(ingress_from=("10.0.0.0/33",)), "not a network"),
    ],
)
def test_what_cannot_be_guarded_is_refused(bound, profile, match):
    with pytest.raises(Refusal, match=match):
        harden(bound, profile, Standard(), sealed())


# -- node agents ---------------------------------------------------------------------------------------------------


def test_node_agents_are_restricted_but_for_reading_pods(staging):
    objects = agent_objects(staging, Standard(), "staging")
    daemon = next(obj for obj in objects if obj["kind"] == "DaemonSet")
    template = copy.deepcopy(daemon["spec"]["template"])
    template["spec"]["automountServiceAccountToken"] = False
    assert violations(template) == ()
    env = {item["name"]: item.get("value") for item in template["spec"]["containers"][0]["env"]}
    assert env == {
        "NODE_NAME": None,
        "ZONE": "staging",
        "REGISTRY": "10.77.40.10:5000",
        "TRIVY_DB_REPOSITORY": "10.77.40.10:5000/mirror/trivy-db:2",
        "INTERVAL": "60",
    }
    (role,) = [obj for obj in objects if obj["kind"] == "ClusterRole"]
    assert role["rules"] == [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]
    assert objects == agent_objects(staging, Standard(), "staging")
    assert agent_objects(zone(), Standard(), "z") == ()


def test_a_node_agent_that_does_not_know_its_registry_is_refused():
    agent = Agent(name="trivy-agent", kind="daemonset", image="trivy-agent", why="x")
    with pytest.raises(Refusal, match="registry"):
        agent_objects(zone(agent), Standard(), "z")
    with pytest.raises(Refusal, match="IP address"):
        agent_objects(
            zone(agent.model_copy(update={"options": {"registry": "registry.example:5000"}})), Standard(), "z"
        )
    with pytest.raises(Refusal, match="unknown options"):
        agent_objects(zone(agent.model_copy(update={"options": {"privileged": True}})), Standard(), "z")


def test_admission_policies_are_read_and_nothing_else_is(tmp_path):
    kinds = [obj["kind"] for obj in load_admission(ROOT / "policies")]
    assert kinds == sorted(kinds)
    with pytest.raises(Refusal, match="no admission policies"):
        load_admission(tmp_path)
    (tmp_path / "admission").mkdir()
    (tmp_path / "admission" / "x.yaml").write_text("kind: Pod\n")
    with pytest.raises(Refusal, match="not an admission policy"):
        load_admission(tmp_path)
