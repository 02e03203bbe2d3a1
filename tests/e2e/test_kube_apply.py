"""kube, plan, apply, find, rollback and watch against a real kube-apiserver and etcd, without nodes."""

import base64
import json
import os
import secrets
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest
import urllib3
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from sekisho.errors import LeaseLost, PermanentError, Refusal, TemporaryError
from sekisho.inventory import NAME, Inventory, hold, read_inventory, take
from sekisho.kube import Conflict, Kube, Ref
from sekisho.model import Image, Release, Revision, SealedRelease, StandardImage
from sekisho.policy import load_policies
from sekisho.profile import load_profile
from sekisho.stage import run_stage
from sekisho.vault import FileVault
from sekisho.zones import home
from stages.agents import agent_objects, ensure_agents, ensure_policies
from stages.apply import ApplyStage, apply, filled, find
from stages.bind import Services, bind
from stages.harden import harden
from stages.plan import plan as make
from stages.render import render
from stages.watch import heal, look

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
POLICIES = load_policies(ROOT / "policies")
APISERVER = home() / "bin" / "kube-apiserver"
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
  web: {type: route, params: {path: /}}
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def kubeconfig(tmp_path_factory):
    if not APISERVER.exists() or shutil.which("etcd") is None:
        pytest.skip("no kube-apiserver or etcd here")
    folder = tmp_path_factory.mktemp("apiserver")
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    (folder / "sa.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    token = secrets.token_hex(16)
    (folder / "tokens").write_text(f'{token},admin,admin,"system:masters"\nweak,weak,weak\n')
    etcd_port, peer_port, port = free_port(), free_port(), free_port()
    etcd_url, peer_url = f"http://127.0.0.1:{etcd_port}", f"http://127.0.0.1:{peer_port}"
    commands = [
        [
            "etcd",
            "--data-dir",
            str(folder / "etcd"),
            "--listen-client-urls",
            etcd_url,
            "--advertise-client-urls",
            etcd_url,
            "--listen-peer-urls",
            peer_url,
            "--initial-advertise-peer-urls",
            peer_url,
            "--initial-cluster",
            f"default={peer_url}",
        ],
        [
            str(APISERVER),
            "--etcd-servers",
            etcd_url,
            "--secure-port",
            str(port),
            "--bind-address",
            "127.0.0.1",
            "--cert-dir",
            str(folder / "certs"),
            "--token-auth-file",
            str(folder / "tokens"),
            "--service-account-issuer",
            "https://test",
            "--service-account-key-file",
            str(folder / "sa.key"),
            "--service-account-signing-key-file",
            str(folder / "sa.key"),
            "--service-cluster-ip-range",
            "10.99.0.0/24",
            "--authorization-mode",
            "RBAC",
            "--disable-admission-plugins",
            "ServiceAccount",
        ],
    ]
    processes = []
    for index, command in enumerate(commands):
        log = (folder / f"log-{index}").open("wb")
        processes.append(
            subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "ETCD_UNSUPPORTED_ARCH": ""})
        )
    path = folder / "kubeconfig"
    path.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "admin",
                "clusters": [
                    {"name": "c", "cluster": {"server": f"https://127.0.0.1:{port}", "insecure-skip-tls-verify": True}}
                ],
                "users": [
                    {"name": "admin", "user": {"token": token}},
                    {"name": "weak", "user": {"token": "weak"}},
                    {"name": "none", "user": {"token": "wrong"}},
                ],
                "contexts": [
                    {"name": name, "context": {"cluster": "c", "user": name}} for name in ("admin", "weak", "none")
                ],
            }
        )
    )
    kube = Kube.connect(path)
    try:
        for _ in range(200):
            if kube.ready():
                break
            time.sleep(0.2)
        else:
            pytest.fail((folder / "log-1").read_text()[-3000:])
        yield path
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait(20)


@pytest.fixture(scope="session")
def kube(kubeconfig):
    return Kube.connect(kubeconfig)


@pytest.fixture(autouse=True)
def _quiet():
    urllib3.disable_warnings()


def config_map(name, namespace="default", **data):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}, "data": data}


# -- kube ------------------------------------------------------------------------------------------------------------


def test_apply_get_list_delete(kube):
    first = kube.apply(config_map("one", a="1"))
    assert kube.get(Ref.of(first))["data"] == {"a": "1"}
    assert kube.apply(config_map("one", a="2"), dry_run=True)["data"] == {"a": "2"}
    assert kube.get(Ref.of(first))["data"] == {"a": "1"}
    kube.apply(config_map("one", b="2"))
    assert kube.get(Ref.of(first))["data"] == {"b": "2"}
    listed = kube.list("v1", "ConfigMap", "default", fields="metadata.name=one")
    assert [(item["kind"], item["metadata"]["name"]) for item in listed] == [("ConfigMap", "one")]
    with pytest.raises(Conflict):
        kube.delete(Ref.of(first), uid="00000000-0000-0000-0000-000000000000")
    assert kube.delete(Ref.of(first), uid=first["metadata"]["uid"]) is True
    assert kube.delete(Ref.of(first)) is False
    assert kube.get(Ref.of(first)) is None


def test_list_goes_through_all_pages(kube, monkeypatch):
    monkeypatch.setattr("sekisho.kube._PAGE", 2)
    for index in range(5):
        kube.apply(
            {
                **config_map(f"page-{index}"),
                "metadata": {"name": f"page-{index}", "namespace": "default", "labels": {"page": "yes"}},
            }
        )
    assert len(kube.list("v1", "ConfigMap", labels="page=yes")) == 5


def test_errors_say_whose_fault_it_is(kube, kubeconfig):
    with pytest.raises(Refusal, match="unknownField"):
        kube.apply(
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": "x", "namespace": "default"},
                "spec": {"unknownField": 1},
            }
        )
    with pytest.raises(Refusal, match="does not know the kind"):
        kube.apply({"apiVersion": "example.org/v1", "kind": "Thing", "metadata": {"name": "x"}})
    with pytest.raises(Refusal, match="needs a namespace"):
        kube.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}})
    with pytest.raises(PermanentError, match="does not know this client"):
        Kube.connect(kubeconfig, "none").get(Ref("v1", "ConfigMap", "default", "x"))
    with pytest.raises(PermanentError, match="cannot") as refused:
        Kube.connect(kubeconfig, "weak").apply(config_map("x"))
    assert not isinstance(refused.value, Refusal)
    text = kubeconfig.read_text().replace("https://127.0.0.1:", "https://127.0.0.1:1")
    away = kubeconfig.with_name("away")
    away.write_text(text.replace(json.loads(text)["clusters"][0]["cluster"]["server"], "https://127.0.0.1:1"))
    with pytest.raises(TemporaryError, match="cannot be reached"):
        Kube.connect(away).get(Ref("v1", "ConfigMap", "default", "x"))
    assert Kube.connect(away).ready() is False
    assert kube.get(Ref("example.org/v1", "Thing", "", "x")) is None


def test_an_error_about_a_secret_shows_no_value(kube):
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "s", "namespace": "default"},
        "data": {"k": "hunter2-in-clear!"},
    }
    with pytest.raises(PermanentError) as refused:
        kube.apply(secret)
    assert "hunter2" not in str(refused.value)
    assert "hunter2" not in repr(refused.value.__cause__)


def test_a_name_does_not_lead_out_of_its_path(kube):
    with pytest.raises(PermanentError):
        kube.apply(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "../../kube-system/configmaps/x", "namespace": "default"},
            }
        )


def test_the_fence(kube):
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "fence"}})
    wanted = Inventory(generation=1, plan="sha256:" + "1" * 64, release="r", commit="c")
    first = take(kube, "fence", wanted, expected=0)
    assert first.generation == 1
    with pytest.raises(LeaseLost):
        take(kube, "fence", wanted, expected=0)
    second = take(kube, "fence", wanted, expected=1)
    hold(kube, "fence", second.generation)
    with pytest.raises(LeaseLost):
        hold(kube, "fence", first.generation)
    kube.apply(config_map(NAME, "fence", other="x"))
    kube.replace(config_map(NAME, "fence"))
    with pytest.raises(PermanentError, match="damaged"):
        read_inventory(kube, "fence")


# -- the outer stages ------------------------------------------------------------------------------------------------


class Standard:
    def get(self, name):
        return StandardImage(name=name, digest="sha256:" + "5" * 64, repository=f"standard/{name}")


def sealed_of(app, number=1):
    digest = "sha256:" + f"{number:x}" * 64
    image = Image(
        repository=f"apps/{app}", digest=digest, language="python", base="python", base_digest=digest, layers=()
    )
    revision = Revision(app=app, commit=f"{number:x}" * 40, tree="b" * 40, branch="main", author="a", committed_at=0)
    release = Release(app=app, revision=revision, image=image, manifests=digest, policy=digest, evidence=())
    return SealedRelease(repository=f"releases/{app}", digest=digest, summary=digest, release=release)


class Line:
    """bind, harden and plan of one app."""

    def __init__(self, kube, vault, app, zone="staging"):
        self.kube, self.vault, self.app = kube, vault, app
        self.profile = load_profile(ROOT / "cluster-profiles" / f"{zone}.yaml")

    def hardened(self, number=1, extra=()):
        sealed = sealed_of(self.app, number)
        score = SCORE.replace(b"name: shop", b"name: " + self.app.encode())
        manifests = render(score, app=self.app, image=sealed.release.image.reference)
        manifests = manifests.model_copy(update={"objects": (*manifests.objects, *extra)})
        services = Services(standard=Standard(), secrets=Path("/nonexistent"))
        bound = bind(manifests, sealed, self.profile, self.vault, services)
        return harden(bound, self.profile, Standard(), sealed), sealed

    def plan(self, number=1, extra=()):
        hardened, sealed = self.hardened(number, extra)
        inventory = read_inventory(self.kube, hardened.namespace)
        return make(hardened, sealed, self.kube, inventory, profile=self.profile, check=POLICIES.check_objects)


@pytest.fixture(scope="session", autouse=True)
def policies(kube):
    assert ensure_policies(kube, ROOT / "policies") == ()


@pytest.fixture
def line(kube, tmp_path):
    name = "t" + secrets.token_hex(4)
    return Line(kube, FileVault(tmp_path / "vault"), name)


def test_plan_changes_nothing_and_is_deterministic(line, kube):
    made, dry = line.plan()
    again, _ = line.plan()
    assert made.identity() == again.identity()
    assert {change.action for change in dry.changes} == {"create"}
    assert len(dry.changes) == len(made.objects)
    assert kube.get(Ref("v1", "Namespace", "", made.namespace)) is None
    assert made.smoke == ("/", "/healthz")
    assert line.vault.get(line.app, "db")["password"] not in made.canonical().decode()


def test_apply_is_idempotent_and_found(line, kube):
    made, _ = line.plan()
    stage = ApplyStage(kube, line.vault)
    outcome = run_stage(stage, made)
    assert outcome.found is False
    assert outcome.value.plan == made.identity()
    assert run_stage(stage, made).found is True
    inventory = read_inventory(kube, made.namespace)
    assert (inventory.plan, inventory.applied, inventory.generation) == (made.identity(), made.identity(), 1)
    assert len(inventory.objects) == len(made.objects)
    secret = kube.get(Ref("v1", "Secret", made.namespace, f"{line.app}-db-binding"))
    assert secret["type"] == "servicebinding.io/postgresql"
    data = {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}
    assert data == line.vault.get(line.app, "db")
    assert data["uri"] == f"postgresql://{data['username']}:{data['password']}@{data['host']}:5432/{data['database']}"
    applied = {str(Ref.of(obj)) for obj in made.objects}
    for text in applied:
        assert kube.get(Ref.parse(text)) is not None
    same, dry = line.plan()
    assert same == made
    assert {change.action for change in dry.changes} == {"none"}


def test_the_next_plan_shows_what_changes_and_is_bound_to_what_stands(line, kube):
    first, _ = line.plan(1)
    apply(first, kube, line.vault)
    second, dry = line.plan(2)
    assert second.previous == first.identity()
    changed = {change.object: change for change in dry.changes if change.action != "none"}
    assert set(changed) == {f"Deployment/{line.app}"}
    fields = " ".join(changed[f"Deployment/{line.app}"].fields)
    assert "/spec/template/spec/containers/0/image" in fields
    assert "SEKISHO_RELEASE" not in fields or "sha256:222" in fields
    apply(second, kube, line.vault)
    with pytest.raises(Refusal, match="Plan again"):
        apply(first, kube, line.vault)
    assert find(first, kube, line.vault) is None
    assert find(second, kube, line.vault).plan == second.identity()
    assert apply(first, kube, line.vault, rollback=True).plan == first.identity()
    assert line.plan(2)[0].previous == first.identity()


def test_prune_deletes_what_the_plan_names_and_nothing_else(line, kube):
    extra = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "old"}, "data": {"a": "1"}}
    first, _ = line.plan(1, (extra,))
    apply(first, kube, line.vault)
    kube.create(config_map("not-ours", first.namespace))
    second, dry = line.plan(2)
    assert second.prune == (f"v1/ConfigMap/{first.namespace}/old",)
    assert [change.object for change in dry.changes if change.action == "delete"] == ["ConfigMap/old"]
    assert kube.get(Ref("v1", "ConfigMap", first.namespace, "old")) is not None
    apply(second, kube, line.vault)
    assert kube.get(Ref("v1", "ConfigMap", first.namespace, "old")) is None
    assert kube.get(Ref("v1", "ConfigMap", first.namespace, "not-ours")) is not None
    assert line.plan(2)[0] == second


def test_a_rollback_deletes_what_the_newer_plan_added(line, kube):
    first, _ = line.plan(1)
    apply(first, kube, line.vault)
    extra = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "new"}, "data": {"a": "1"}}
    second, _ = line.plan(2, (extra,))
    apply(second, kube, line.vault)
    apply(first, kube, line.vault, rollback=True)
    assert kube.get(Ref("v1", "ConfigMap", first.namespace, "new")) is None
    assert find(first, kube, line.vault).plan == first.identity()


def test_the_deletion_budget(line, kube):
    extra = tuple({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"c{n}"}} for n in range(4))
    apply(line.plan(1, extra)[0], kube, line.vault)
    with pytest.raises(Refusal, match="would delete 4 objects"):
        line.plan(2)


def test_an_apply_that_was_cut_off_goes_on(line, kube, monkeypatch):
    made, _ = line.plan()
    real, count = Kube.apply, []

    def cut(self, obj, **options):
        count.append(obj["kind"])
        if obj["kind"] == "StatefulSet":
            raise TemporaryError("cut")
        return real(self, obj, **options)

    monkeypatch.setattr(Kube, "apply", cut)
    with pytest.raises(TemporaryError):
        apply(made, kube, line.vault)
    monkeypatch.undo()
    assert find(made, kube, line.vault) is None
    assert line.plan()[0] == made
    apply(made, kube, line.vault)
    inventory = read_inventory(kube, made.namespace)
    assert (inventory.generation, inventory.applied) == (2, made.identity())
    assert count.index("NetworkPolicy") < count.index("Secret") < count.index("StatefulSet")


def test_a_second_writer_stops_the_first(line, kube, monkeypatch):
    made, _ = line.plan()
    real = Kube.apply
    intruded = []

    def intrude(self, obj, **options):
        if obj["kind"] == "Service" and not intruded:
            intruded.append(True)
            apply(made, kube, line.vault)
        return real(self, obj, **options)

    monkeypatch.setattr(Kube, "apply", intrude)
    with pytest.raises(LeaseLost):
        apply(made, kube, line.vault)
    monkeypatch.undo()
    assert read_inventory(kube, made.namespace).generation == 2
    assert find(made, kube, line.vault) is not None


def test_other_credentials_than_planned_are_refused_before_anything(line, kube):
    made, _ = line.plan()
    entries = line.vault.get(line.app, "db")
    line.vault.put(line.app, "db", {**entries, "password": "other"})
    with pytest.raises(Refusal, match="credentials"):
        apply(made, kube, line.vault)
    assert kube.get(Ref("v1", "Namespace", "", made.namespace)) is None


def test_the_cluster_itself_refuses_and_all_refusals_are_named(line, kube):
    hardened, sealed = line.hardened()
    broken = []
    for obj in hardened.objects:
        spoilt = {**obj, "spec": {**obj.get("spec", {}), "ports": [{"port": 99999}]}}
        broken.append(spoilt if obj["kind"] == "Service" else obj)
    bad = hardened.model_copy(update={"objects": tuple(broken)})
    with pytest.raises(Refusal, match="refuses 3 of"):
        make(bad, sealed, kube, None, profile=line.profile, check=POLICIES.check_objects)
    assert kube.get(Ref("v1", "Namespace", "", hardened.namespace)) is None


def test_every_object_passes_the_admission_policies_and_pods_pass_pod_security(line, kube):
    """The API server with the policies in force and the namespace's own Pod Security takes each object and pod."""
    made, _ = line.plan()
    apply(made, kube, line.vault)
    pods = 0
    for obj in made.objects:
        kube.apply(filled(obj, line.app, line.vault), dry_run=True)
        template = obj.get("spec", {}).get("template")
        if template:
            pod = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {**template["metadata"], "name": "probe", "namespace": made.namespace},
                "spec": template["spec"],
            }
            kube.create(pod, dry_run=True)
            with pytest.raises(Refusal, match=r"violates PodSecurity|no-host-access"):
                kube.create({**pod, "spec": {**template["spec"], "hostNetwork": True}}, dry_run=True)
            pods += 1
    assert pods == 2


# -- watch -----------------------------------------------------------------------------------------------------------


def patched(kube, ref, patch, manager="kubectl-edit"):
    return kube.request(
        "PATCH", kube.path(ref), {"fieldManager": manager}, patch, content_type="application/strategic-merge-patch+json"
    )


def test_drift_is_seen_named_and_healed(line, kube):
    made, _ = line.plan()
    apply(made, kube, line.vault)
    assert look(kube, made, line.vault) == ()
    deployment = Ref("apps/v1", "Deployment", made.namespace, line.app)
    patched(kube, deployment, {"spec": {"replicas": 0}})
    kube.delete(Ref("networking.k8s.io/v1", "NetworkPolicy", made.namespace, "default-deny"))
    secret = Ref("v1", "Secret", made.namespace, f"{line.app}-db-binding")
    patched(kube, secret, {"data": {"password": base64.b64encode(b"hunter2").decode()}})
    seen = look(kube, made, line.vault)
    assert {(item.kind, Ref.parse(item.object).short) for item in seen} == {
        ("drift", f"Deployment/{line.app}"),
        ("missing", "NetworkPolicy/default-deny"),
        ("drift", f"Secret/{line.app}-db-binding"),
    }
    by_kind = {Ref.parse(item.object).kind: item for item in seen}
    assert by_kind["Deployment"].fields == ("/spec/replicas: 0 -> 1",)
    assert by_kind["Deployment"].by == "kubectl-edit"
    assert by_kind["Secret"].fields == ("/data/password: (secret) -> (secret)",)
    healed = heal(kube, made, line.vault, seen, {}, now=1000)
    assert {item.action for item in healed.observations} == {"healed"}
    assert look(kube, made, line.vault) == ()


def test_an_added_container_is_seen_and_taken_out(line, kube):
    made, _ = line.plan()
    apply(made, kube, line.vault)
    deployment = Ref("apps/v1", "Deployment", made.namespace, line.app)
    template = kube.get(deployment)["spec"]["template"]["spec"]["containers"][0]
    spy = {**template, "name": "spy"}
    patched(
        kube, deployment, {"spec": {"template": {"spec": {"containers": [spy]}}}, "metadata": {"labels": {"x": "y"}}}
    )
    (seen,) = look(kube, made, line.vault)
    assert (seen.kind, seen.by) == ("stranger", "kubectl-edit")
    assert "/spec/template/spec/containers[name=spy]" in seen.fields
    healed = heal(kube, made, line.vault, (seen,), {}, now=1)
    assert healed.observations[0].action == "healed"
    live = kube.get(deployment)
    assert [item["name"] for item in live["spec"]["template"]["spec"]["containers"]] == ["web"]
    assert "x" not in live["metadata"]["labels"]
    assert look(kube, made, line.vault) == ()


def test_a_fight_is_reported_and_not_fought(line, kube):
    made, _ = line.plan()
    apply(made, kube, line.vault)
    deployment = Ref("apps/v1", "Deployment", made.namespace, line.app)
    history, actions = {}, []
    for now in (100, 200, 300, 400, 4000):
        patched(kube, deployment, {"spec": {"replicas": 3}})
        healed = heal(kube, made, line.vault, look(kube, made, line.vault), history, now=now)
        history = healed.history
        actions.append(healed.observations[0].action)
    assert actions == ["healed", "healed", "healed", "contested", "healed"]


def test_pods_without_their_agent_and_pods_of_nobody_are_seen(line, kube):
    made, _ = line.plan()
    apply(made, kube, line.vault)
    deployment = next(obj for obj in made.objects if obj["kind"] == "Deployment")
    live = kube.get(Ref.of(deployment))
    patched(
        kube,
        Ref.of(deployment),
        {"metadata": {"annotations": {"deployment.kubernetes.io/revision": "1"}}},
        "kube-controller-manager",
    )
    template = deployment["spec"]["template"]
    owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": line.app, "uid": live["metadata"]["uid"]}
    replica_set = kube.create(
        {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": {
                "name": line.app,
                "namespace": made.namespace,
                "ownerReferences": [owner],
                "annotations": {"deployment.kubernetes.io/revision": "1"},
            },
            "spec": {"selector": deployment["spec"]["selector"], "template": template},
        }
    )
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": line.app, "uid": replica_set["metadata"]["uid"]}

    def pod(name, spec, owners):
        metadata = {
            "name": name,
            "namespace": made.namespace,
            "labels": template["metadata"]["labels"],
            "ownerReferences": owners,
        }
        return kube.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})

    pod("good", template["spec"], [owner])
    bare = {key: value for key, value in template["spec"].items() if key != "initContainers"}
    pod("bare", bare, [owner])
    pod("nobody", template["spec"], [])
    seen = {Ref.parse(item.object).name: item for item in look(kube, made, line.vault)}
    assert set(seen) == {"bare", "nobody"}
    assert seen["bare"].message == "It runs without guard."
    healed = heal(kube, made, line.vault, tuple(seen.values()), {}, now=1)
    actions = {Ref.parse(item.object).name: item.action for item in healed.observations}
    assert actions == {"bare": "healed", "nobody": "failed"}


def test_another_plan_is_said_and_not_healed_over(line, kube):
    first, _ = line.plan(1)
    apply(first, kube, line.vault)
    second, _ = line.plan(2)
    apply(second, kube, line.vault)
    (seen,) = look(kube, first, line.vault)
    assert seen.kind == "superseded"
    healed = heal(kube, first, line.vault, (seen,), {}, now=1)
    assert healed.observations[0].action == ""
    assert find(second, kube, line.vault) is not None


# -- agents ----------------------------------------------------------------------------------------------------------


def test_agents_are_restricted_applied_and_taken_away(kube):
    profile = load_profile(ROOT / "cluster-profiles" / "staging.yaml")
    objects = agent_objects(profile, Standard(), "staging")
    assert ensure_agents(kube, objects) == ()
    assert ensure_agents(kube, objects) == ()
    daemon = next(obj for obj in objects if obj["kind"] == "DaemonSet")
    template = daemon["spec"]["template"]
    metadata = {"name": "probe", "namespace": "sekisho-agents"}
    kube.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}, dry_run=True)
    gone = ensure_agents(
        kube, [obj for obj in objects if obj["metadata"]["name"] in {"sekisho-agents", "default-deny"}]
    )
    assert set(gone) == {
        "DaemonSet/trivy-agent",
        "NetworkPolicy/trivy-agent",
        "ServiceAccount/trivy-agent",
        "ClusterRole/sekisho-trivy-agent",
        "ClusterRoleBinding/sekisho-trivy-agent",
    }


def test_policies_that_are_gone_from_the_folder_are_taken_away(kube, tmp_path):
    shutil.copytree(ROOT / "policies" / "admission", tmp_path / "admission")
    extra = (tmp_path / "admission" / "sekisho-seccomp.yaml").read_text().replace("sekisho-seccomp", "sekisho-extra")
    (tmp_path / "admission" / "extra.yaml").write_text(extra)
    assert ensure_policies(kube, tmp_path) == ()
    assert ensure_policies(kube, ROOT / "policies") == (
        "ValidatingAdmissionPolicyBinding/sekisho-extra",
        "ValidatingAdmissionPolicy/sekisho-extra",
    )
