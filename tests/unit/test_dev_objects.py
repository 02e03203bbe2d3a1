"""Objects of the dev cluster, and what pods say about a version."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from sekisho.canonical import digest_of
from sekisho.errors import Refusal
from sekisho.model import IMAGE_HOST
from stages.dev.objects import Composition, Port, Probe, compose, services_first
from stages.dev.pods import Fate, Log, carries, fate, logs
from stages.render import render

IMAGE = f"{IMAGE_HOST}/dev/ann/site@{digest_of(b'one')}"
OTHER = f"{IMAGE_HOST}/dev/ann/site@{digest_of(b'two')}"
SCORE = (Path(__file__).parents[2] / "examples" / "site" / "score.yaml").read_bytes()


def composed(image: str = IMAGE, score: bytes = SCORE) -> Composition:
    objects = render(score, app="site", image=image).objects
    return compose(objects, app="site", namespace="dev-ann-site", image=image, zone="dev")


def test_everything_is_in_the_developers_namespace() -> None:
    assert {obj["metadata"]["namespace"] for obj in composed().objects} == {"dev-ann-site"}


def test_a_job_is_not_run_here() -> None:
    job = b"""
apiVersion: score.dev/v1b1
metadata: {name: site, annotations: {k8s.score.dev/kind: Job}}
containers: {main: {image: .}}
"""
    with pytest.raises(Refusal, match="comes to its end"):
        composed(score=job)


def test_the_rendered_objects_are_not_changed() -> None:
    objects = render(SCORE, app="site", image=IMAGE).objects
    before = copy.deepcopy(objects)
    compose(objects, app="site", namespace="x", image=IMAGE, zone="dev")
    assert objects == before


def test_what_differs_from_the_rendered_workload_is_this_and_nothing_else() -> None:
    rendered = next(obj for obj in render(SCORE, app="site", image=IMAGE).objects if obj["kind"] == "Deployment")
    mine = copy.deepcopy(composed().workload)
    assert mine["metadata"].pop("namespace") == "dev-ann-site"
    assert mine["spec"].pop("revisionHistoryLimit") == 1
    assert mine["spec"].pop("strategy")["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    pod = mine["spec"]["template"]["spec"]
    assert (pod.pop("terminationGracePeriodSeconds"), pod.pop("shareProcessNamespace")) == (1, True)
    container = pod["containers"][0]
    added = [{"name": "SEKISHO_APP", "value": "site"}, {"name": "SEKISHO_ZONE", "value": "dev"}]
    assert container["env"][-2:] == added
    theirs = rendered["spec"]["template"]["spec"]["containers"][0]
    container["env"] = container["env"][:-2]
    theirs.setdefault("env", [])
    assert theirs["resources"]["limits"].pop("cpu") == "200m"
    assert mine == rendered


def test_failures_of_a_liveness_probe_do_not_add_up_over_versions() -> None:
    live = b"    livenessProbe: {httpGet: {path: /live, port: 8080}}\n"
    version = composed(score=SCORE.replace(b"    readinessProbe:\n", live + b"    readinessProbe:\n"))
    container = version.workload["spec"]["template"]["spec"]["containers"][0]
    assert container["livenessProbe"]["initialDelaySeconds"] == 90
    assert container["livenessProbe"]["httpGet"]["path"] == "/live"
    assert "initialDelaySeconds" not in container["readinessProbe"]


def test_a_java_program_is_told_to_start_soon() -> None:
    def variables(language: str, score: bytes = SCORE) -> dict[str, str]:
        objects = render(score, app="site", image=IMAGE).objects
        version = compose(objects, app="site", namespace="x", image=IMAGE, zone="dev", language=language)
        containers = version.workload["spec"]["template"]["spec"]["containers"]
        return {entry["name"]: entry["value"] for entry in containers[0]["env"]}

    assert variables("java")["JDK_JAVA_OPTIONS"] == "-XX:TieredStopAtLevel=1"
    assert "JDK_JAVA_OPTIONS" not in variables("go")
    own = SCORE.replace(b"    image: .\n", b"    image: .\n    variables: {JDK_JAVA_OPTIONS: -Xint}\n")
    assert own != SCORE
    assert variables("java", own)["JDK_JAVA_OPTIONS"] == "-Xint"


def test_a_container_of_another_image_is_told_nothing_of_java() -> None:
    image = f"{IMAGE_HOST}/standard/helper@{digest_of(b'helper')}"
    helper = f"  helper: {{image: '{image}', command: [/bin/helper]}}\n".encode()
    objects = render(SCORE.replace(b"service:\n", helper + b"service:\n"), app="site", image=IMAGE).objects
    version = compose(objects, app="site", namespace="x", image=IMAGE, zone="dev", language="java")
    containers = version.workload["spec"]["template"]["spec"]["containers"]
    told = {one["name"]: [entry["name"] for entry in one["env"]] for one in containers}
    assert set(told) == {"web", "helper"}
    assert "JDK_JAVA_OPTIONS" in told["web"]
    assert "JDK_JAVA_OPTIONS" not in told["helper"]


def test_a_new_image_is_the_same_frame() -> None:
    assert composed(IMAGE).frame == composed(OTHER).frame


def test_any_other_change_is_another_frame() -> None:
    assert composed().frame != composed(score=SCORE.replace(b"memory: 64Mi", b"memory: 65Mi")).frame


def test_a_swap_changes_the_image_of_the_containers_that_run_it() -> None:
    version = composed(OTHER)
    assert version.swappable == ("web",)
    assert version.swap() == {"spec": {"containers": [{"name": "web", "image": OTHER}]}}


def test_what_runs_before_has_to_run_again() -> None:
    migrate = b"""  migrate:
    image: .
    command: [/bin/true]
    before: {web: {ready: complete}}
"""
    version = composed(score=SCORE.replace(b"containers:\n", b"containers:\n" + migrate))
    assert version.swappable == ()


def test_the_ports_are_the_services() -> None:
    assert composed().ports == (Port("http", 8080, 8080),)


def test_a_version_is_asked_by_its_readiness_probe() -> None:
    assert composed().probe == Probe(8080, "/")


def test_without_a_probe_a_connection_is_enough() -> None:
    score = SCORE.replace(b"    readinessProbe:\n      httpGet: {path: /, port: 8080}\n", b"")
    assert composed(score=score).probe == Probe(8080)


def test_objects_without_the_workload_are_refused() -> None:
    with pytest.raises(Refusal):
        compose([], app="site", namespace="x", image=IMAGE, zone="dev")


def test_bound_services_come_first() -> None:
    database = {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "site-db"}, "spec": {}}
    objects = [*render(SCORE, app="site", image=IMAGE).objects, database]
    version = compose(objects, app="site", namespace="x", image=IMAGE, zone="dev")
    assert [obj["metadata"]["name"] for obj in services_first(version)] == ["site-db"]


# -- pods -----------------------------------------------------------------------------------------------------------


def pod(
    image: str = IMAGE, runs: str = IMAGE, *, ready: bool = False, last: Any = None, **state: Any
) -> dict[str, Any]:
    status = {"name": "web", "imageID": runs, "containerID": "containerd://1", "ready": ready, "state": state}
    if last:
        status["lastState"] = {"terminated": last}
    return {
        "metadata": {"name": "site-1", "uid": "u"},
        "spec": {"containers": [{"name": "web", "image": image}]},
        "status": {"containerStatuses": [status]},
    }


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (pod(running={}), Fate("site-1", "started")),
        (pod(running={}, ready=True), Fate("site-1", "ready")),
        (pod(waiting={"reason": "ContainerCreating"}), Fate("site-1", "starting")),
        (pod(terminated={"exitCode": 1}), Fate("site-1", "crashed", "It ended with exit code 1.")),
        (
            pod(waiting={"reason": "CrashLoopBackOff"}, last={"exitCode": 3, "message": "no  such\nfile"}),
            Fate("site-1", "crashed", "It ended with exit code 3: no such file."),
        ),
        (
            pod(terminated={"exitCode": 137, "reason": "OOMKilled"}),
            Fate("site-1", "crashed",
                 "It used more memory than score.yaml allows (resources.limits.memory), and was killed."),
        ),
    ],
)  # fmt: skip
def test_the_fate_of_a_version(shown: dict[str, Any], expected: Fate) -> None:
    assert fate(shown, IMAGE) == expected


@pytest.mark.parametrize("state", [{"running": {}}, {"terminated": {"exitCode": 143}}, {}])
def test_after_a_swap_the_status_of_the_old_image_says_nothing(state: dict[str, Any]) -> None:
    assert fate(pod(image=OTHER, runs=IMAGE, ready=True, **state), OTHER) == Fate("site-1", "starting")


def test_an_image_that_cannot_be_pulled_is_an_obstacle() -> None:
    found = fate(pod(runs="", waiting={"reason": "ErrImagePull", "message": "not found"}), IMAGE)
    assert (found.state, "not found" in found.why) == ("stuck", True)


def test_a_pod_on_its_way_out_carries_nothing() -> None:
    going = pod()
    assert carries(going, IMAGE)
    assert not carries(going, OTHER)
    going["metadata"]["deletionTimestamp"] = "now"
    assert not carries(going, IMAGE)


def test_each_run_of_a_container_has_its_own_words() -> None:
    ended = pod(terminated={"exitCode": 1, "containerID": "containerd://1"})
    waits = pod(waiting={"reason": "CrashLoopBackOff"}, last={"containerID": "containerd://1"})
    assert logs([pod(running={})]) == (Log("site-1", "web", "containerd://1", ended=False),)
    assert logs([ended]) == (Log("site-1", "web", "containerd://1", ended=True),)
    assert logs([waits]) == (Log("site-1", "web", "containerd://1", ended=True),)
    assert logs([pod(waiting={"reason": "ContainerCreating"})]) == ()
