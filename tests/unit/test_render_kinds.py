"""Which controller a workload becomes, how many of it, and when it runs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from sekisho.policy import PolicySet, load_policies
from sekisho.schemas import faults, knows, removed, versions
from sekisho.score import Problems, reader
from stages.judge_schema import schema_reasons
from stages.render import render
from stages.render_schedule import schedule_fault

ROOT = Path(__file__).parents[2]
IMAGE = f"registry.sekisho.internal/apps/shop@sha256:{'a' * 64}"
KIND, LINE = "k8s.score.dev/kind", "workload.sekisho.dev/"


def objects(annotations: dict[str, str], **more: Any) -> tuple[dict[str, Any], ...]:
    document = {
        "apiVersion": "score.dev/v1b1",
        "metadata": {"name": "shop", "annotations": annotations},
        "containers": {"main": {"image": "."}},
    } | more
    text = yaml.safe_dump(json.loads(json.dumps(document)), sort_keys=False).encode()
    return render(text, app="shop", image=IMAGE).objects


def runs(annotations: dict[str, str], **more: Any) -> dict[str, Any]:
    return objects(annotations, **more)[-1]


def refused(annotations: dict[str, str], **more: Any) -> list[str]:
    with pytest.raises(Problems) as caught:
        objects(annotations, **more)
    assert all(problem.remedy and problem.line for problem in caught.value.problems)
    return [problem.pointer for problem in caught.value.problems]


@pytest.fixture(scope="module")
def policies() -> PolicySet:
    return load_policies(ROOT / "policies")


def test_replicas() -> None:
    assert runs({f"{LINE}replicas": "3"})["spec"]["replicas"] == 3
    assert runs({KIND: "StatefulSet", f"{LINE}replicas": "2"})["spec"]["replicas"] == 2
    assert "annotations" not in runs({f"{LINE}replicas": "3"})["spec"]["template"]["metadata"]


def test_a_job_runs_to_its_end() -> None:
    job = runs({KIND: "Job", f"{LINE}retries": "0", f"{LINE}timeout-seconds": "90", "example.com/team": "green"})
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    assert (job["spec"]["backoffLimit"], job["spec"]["activeDeadlineSeconds"]) == (0, 90)
    template = job["spec"]["template"]
    assert template["spec"]["restartPolicy"] == "Never"
    assert template["metadata"]["annotations"] == {"example.com/team": "green"}
    # The API server writes the selector of a Job itself, and a Job that deletes itself would be seen as drift.
    assert set(job["spec"]) == {"backoffLimit", "activeDeadlineSeconds", "template"}


def test_a_cron_job_runs_on_a_schedule() -> None:
    cron = runs({KIND: "CronJob", f"{LINE}schedule": "15 3 * * *"})["spec"]
    assert (cron["schedule"], cron["timeZone"], cron["concurrencyPolicy"]) == ("15 3 * * *", "Etc/UTC", "Forbid")
    assert cron["jobTemplate"]["spec"]["backoffLimit"] == 3
    assert cron["jobTemplate"]["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/name"] == "shop"
    berlin = {f"{LINE}time-zone": "Europe/Berlin", f"{LINE}concurrency": "Replace", f"{LINE}schedule": "@daily"}
    cron = runs({KIND: "CronJob"} | berlin)["spec"]
    assert (cron["schedule"], cron["timeZone"], cron["concurrencyPolicy"]) == ("@daily", "Europe/Berlin", "Replace")


@pytest.mark.parametrize(
    ("annotations", "wrong"),
    [
        ({KIND: "DaemonSet"}, KIND),
        ({KIND: "job"}, KIND),
        ({KIND: "CronJob"}, KIND),
        ({f"{LINE}replicas": "0"}, f"{LINE}replicas"),
        ({f"{LINE}replicas": "21"}, f"{LINE}replicas"),
        ({f"{LINE}replicas": "two"}, f"{LINE}replicas"),
        ({f"{LINE}replicas": "\u0663"}, f"{LINE}replicas"),
        ({KIND: "Job", f"{LINE}replicas": "2"}, f"{LINE}replicas"),
        ({KIND: "Job", f"{LINE}schedule": "@daily"}, f"{LINE}schedule"),
        ({KIND: "Job", f"{LINE}retries": "-1"}, f"{LINE}retries"),
        ({KIND: "Job", f"{LINE}timeout-seconds": "0"}, f"{LINE}timeout-seconds"),
        ({f"{LINE}retries": "1"}, f"{LINE}retries"),
        ({KIND: "CronJob", f"{LINE}schedule": "daily"}, f"{LINE}schedule"),
        ({KIND: "CronJob", f"{LINE}schedule": "@daily", f"{LINE}time-zone": "Local"}, f"{LINE}time-zone"),
        ({KIND: "CronJob", f"{LINE}schedule": "@daily", f"{LINE}time-zone": "../etc"}, f"{LINE}time-zone"),
        ({KIND: "CronJob", f"{LINE}schedule": "@daily", f"{LINE}concurrency": "forbid"}, f"{LINE}concurrency"),
        ({f"{LINE}anything": "x"}, f"{LINE}anything"),
    ],
)
def test_settings_that_cannot_be(annotations: dict[str, str], wrong: str) -> None:
    assert refused(annotations) == [f"/metadata/annotations/{wrong.replace('/', '~1')}"]


def test_what_ends_cannot_be_reached() -> None:
    ports = {"ports": {"web": {"port": 80}}}
    assert refused({KIND: "Job"}, service=ports, resources={"way": {"type": "route"}}) == ["/service", "/resources/way"]


def test_pods_side_by_side_share_no_volume() -> None:
    container = {"main": {"image": ".", "volumes": {"/data": {"source": "data"}}}}
    kept, passing = {"data": {"type": "volume"}}, {"data": {"type": "volume", "class": "ephemeral"}}
    alone = {KIND: "CronJob", f"{LINE}schedule": "@daily"}
    for many in ({f"{LINE}replicas": "2"}, alone | {f"{LINE}concurrency": "Allow"}):
        assert refused(many, containers=container, resources=kept) == ["/metadata/annotations"]
        objects(many, containers=container, resources=passing)
    objects(alone, containers=container, resources=kept)


def test_one_need_under_two_names() -> None:
    """The first name stands for both; each has its own folder, and both read the same Secret."""
    document = {
        "apiVersion": "score.dev/v1b1",
        "metadata": {"name": "shop"},
        "containers": {
            "main": {"image": ".", "variables": {"A": "${resources.db.host}", "B": "x${resources.other.host}"}}
        },
        "resources": {
            "other": {"type": "postgres", "id": "shop.db"},
            "db": {"type": "postgres"},
            "more": {"type": "postgres", "id": "shop.more"},
        },
    }
    manifests = render(yaml.safe_dump(document).encode(), app="shop", image=IMAGE)
    assert [(need.name, need.id) for need in manifests.needs] == [("db", ""), ("more", "")]
    pod = manifests.objects[-1]["spec"]["template"]["spec"]
    names = {
        entry["valueFrom"]["secretKeyRef"]["name"] for entry in pod["containers"][0]["env"] if "valueFrom" in entry
    }
    assert names == {"shop-db-binding"}
    mounts = {mount["mountPath"]: mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
    assert mounts["/bindings/db"] == mounts["/bindings/other"] == "binding-db"
    assert mounts["/bindings/more"] == "binding-more"


def test_files_by_source_and_their_bounds(tmp_path: Path) -> None:
    (tmp_path / "menu").write_text("for ${metadata.name}, $$5")
    (tmp_path / "leaf").write_bytes(b"\xff")
    (tmp_path / "half").write_bytes(b"x" * (1 << 19))

    def config(files: dict[str, Any]) -> dict[str, Any]:
        container = {"image": ".", "files": files}
        document = {"apiVersion": "score.dev/v1b1", "metadata": {"name": "shop"}, "containers": {"main": container}}
        return render(yaml.safe_dump(document).encode(), app="shop", image=IMAGE, read=reader(tmp_path)).objects[1]

    found = config({"/a": {"source": "menu"}, "/b": {"source": "menu", "noExpand": True}, "/c": {"source": "leaf"}})
    assert sorted(found["data"].values()) == ["for ${metadata.name}, $$5", "for shop, $5"]
    assert list(found["binaryData"].values()) == ["/w=="]
    config({"/a": {"source": "half"}, "/b": {"source": "half"}})
    with pytest.raises(Problems, match="bigger than 1048576 bytes together"):
        config({"/a": {"source": "half"}, "/b": {"source": "half"}, "/c": {"content": "x"}})


def test_no_placeholders_in_an_image() -> None:
    with pytest.raises(Problems, match="expands no placeholders in an image"):
        objects({}, containers={"main": {"image": "${metadata.name}"}})


# -- schedules ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "* * * * *", "0 0 1 1 0", "59 23 31 12 6", "*/5 * * * *", "1,2,3 4-6 * * *", "0-30/10 * * * *",
        "0 0 * jan,Dec *", "0 9 * * MON-FRI", "0 0 ? * ?", "5/15 * * * *", "@daily", "@hourly", "@weekly",
    ],
)  # fmt: skip
def test_schedules(text: str) -> None:
    assert schedule_fault(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "", "*", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * 32 * *", "* * * 13 *",
        "* * * 0 *", "* * * * 7", "* * * * mun", "* * * jam *", "5-1 * * * *", "*/0 * * * *", "1- * * * *", ", * * * *",
        "1,,2 * * * *", "*-5 * * * *", "@every 5m", "@reboot", "TZ=UTC * * * * *", "*  * * * *", " * * * * *",
        "\u0665 * * * *", "*/99 * * * *", "mon * * * *", "L * * * *", "1#2 * * * *", "* * * * *\n",
    ],
)  # fmt: skip
def test_schedules_that_a_cluster_would_refuse(text: str) -> None:
    assert schedule_fault(text)


# -- schemas --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "Job", "CronJob"])
def test_every_kind_fits_the_schemas_and_the_policies(kind: str, policies: PolicySet) -> None:
    annotations = {KIND: kind} | ({f"{LINE}schedule": "@daily"} if kind == "CronJob" else {})
    probe = {"httpGet": {"path": "/", "port": 80}}
    found = objects(annotations, containers={"main": {"image": ".", "readinessProbe": probe}})
    assert [item.result for item in schema_reasons(found)] == ["pass"]
    assert [item for item in policies.check_objects(found) if item.result != "pass"] == []


CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "/spec/replicas": lambda obj: obj["spec"].update(replicas="1"),
    "/spec/replica": lambda obj: obj["spec"].update(replica=1),
    "/spec": lambda obj: obj["spec"].pop("selector"),
    "/spec/template/spec/containers": lambda obj: obj["spec"]["template"]["spec"].update(containers={}),
    "/spec/template/spec/containers/0": lambda obj: obj["spec"]["template"]["spec"]["containers"][0].pop("name"),
    "/spec/template/spec/containers/0/imagePullPolice": lambda obj: obj["spec"]["template"]["spec"]["containers"][
        0
    ].update(imagePullPolice="Never"),
    "/spec/template/spec/containers/0/readinessProbe/httpGet/port": lambda obj: obj["spec"]["template"]["spec"][
        "containers"
    ][0].update(readinessProbe={"httpGet": {"port": True}}),
    "/spec/template/metadata/labels/x~1y": lambda obj: obj["spec"]["template"]["metadata"]["labels"].update({"x/y": 1}),
    "/metadata/label": lambda obj: obj["metadata"].update(label={}),
    "/status": lambda obj: obj.update(status={}),
    "/spec/strategy/type": lambda obj: obj["spec"].update(strategy={"type": 1}),
    "/spec/template/spec/restartPolicy": lambda obj: obj["spec"]["template"]["spec"].update(restartPolicy="Sometimes"),
    "/spec/minReadySeconds": lambda obj: obj["spec"].update(minReadySeconds=2**31),
}


@pytest.mark.parametrize("pointer", CHANGES)
def test_what_a_cluster_would_drop_or_refuse_is_named(pointer: str) -> None:
    deployment = json.loads(json.dumps(runs({})))
    CHANGES[pointer](deployment)
    for version in versions():
        assert [fault.pointer for fault in faults(deployment, version)] == [pointer]
    (reason,) = schema_reasons([deployment])
    assert (reason.rule, reason.result, reason.where) == ("schema/valid", "fail", "Deployment/shop")
    assert f"Deployment/shop: {pointer}: " in reason.message
    assert versions()[-1] in reason.message


def test_a_field_that_only_newer_versions_have() -> None:
    deployment = json.loads(json.dumps(runs({})))
    # Came with Kubernetes 1.34.
    deployment["spec"]["template"]["spec"]["containers"][0]["restartPolicyRules"] = [{"action": "Restart"}]
    pointer = "/spec/template/spec/containers/0/restartPolicyRules"
    assert [fault.pointer for fault in faults(deployment, "1.33")] == [pointer]
    assert faults(deployment, "1.34") == ()
    (reason,) = schema_reasons([deployment], ("1.33", "1.34"))
    assert (reason.result, reason.owner) == ("fail", "platform")
    assert reason.message.endswith("There is no such field. (Kubernetes 1.33)")


def test_the_versions_that_are_asked_are_said() -> None:
    (reason,) = schema_reasons([runs({})], ("1.34", "1.36"))
    assert (reason.result, reason.message) == ("pass", "All 1 objects fit Kubernetes 1.34, 1.36.")
    (reason,) = schema_reasons([runs({})])
    assert reason.message == f"All 1 objects fit Kubernetes {', '.join(versions())}."


def test_schemas_say_where_they_are_from() -> None:
    document = json.loads((ROOT / "sekisho/schemas/kubernetes.json").read_text(encoding="utf-8"))
    assert set(document["versions"]) == set(versions()) >= {"1.33", "1.34", "1.35", "1.36", "1.37"}
    for version, source in document["versions"].items():
        assert source["module"].startswith(f"k8s.io/kubernetes@v{version}.")
        assert source["sum"].startswith("h1:")
    # Each version has one form of a definition, and no form stands there twice.
    for variants in document["definitions"].values():
        said = [version for variant in variants for version in variant["in"]]
        assert sorted(said) == sorted(set(said))
        assert len({json.dumps(variant["schema"], sort_keys=True) for variant in variants}) == len(variants)


@pytest.mark.parametrize(
    ("api", "kind", "gone", "instead"),
    [
        ("extensions/v1beta1", "Deployment", "1.16", "apps/v1"),
        ("apps/v1beta2", "StatefulSet", "1.16", "apps/v1"),
        ("batch/v1beta1", "CronJob", "1.25", "batch/v1"),
        ("policy/v1beta1", "PodDisruptionBudget", "1.25", "policy/v1"),
        ("autoscaling/v2beta2", "HorizontalPodAutoscaler", "1.26", "autoscaling/v2"),
        ("policy/v1beta1", "PodSecurityPolicy", "1.25", ""),
        ("flowcontrol.apiserver.k8s.io/v1beta3", "FlowSchema", "1.32", "flowcontrol.apiserver.k8s.io/v1"),
        (
            "admissionregistration.k8s.io/v1beta1",
            "ValidatingAdmissionPolicy",
            "1.34",
            "admissionregistration.k8s.io/v1",
        ),
        ("networking.k8s.io/v1beta1", "ServiceCIDR", "1.37", "networking.k8s.io/v1"),
    ],
)
def test_removed_apis_are_named_with_their_version(api: str, kind: str, gone: str, instead: str) -> None:
    obj = {"apiVersion": api, "kind": kind, "metadata": {"name": "old"}}
    found = removed(obj)
    assert found is not None
    assert (found.version, found.instead) == (gone, instead)
    (reason,) = schema_reasons([obj])
    assert reason.result == "fail"
    assert f"removed in Kubernetes {gone}" in reason.message


def test_an_api_is_removed_where_the_asked_versions_no_longer_have_it() -> None:
    obj = {"apiVersion": "networking.k8s.io/v1beta1", "kind": "ServiceCIDR", "metadata": {"name": "old"}}
    assert [item.result for item in schema_reasons([obj], ("1.33", "1.36"))] == ["pass"]
    assert [item.result for item in schema_reasons([obj], ("1.33", "1.37"))] == ["fail"]


def test_there_are_schemas_for_every_kind_that_a_workload_may_have() -> None:
    kinds = yaml.safe_load((ROOT / "policies/limits.yaml").read_text())["kinds"]
    api = {"Deployment": "apps/v1", "StatefulSet": "apps/v1", "Job": "batch/v1", "CronJob": "batch/v1"}
    assert versions()
    for version in versions():
        assert all(knows({"apiVersion": api.get(kind, "v1"), "kind": kind}, version) for kind in kinds)
    assert removed({"apiVersion": "apps/v1", "kind": "Deployment"}) is None
