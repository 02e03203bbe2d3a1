import copy
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sekisho.errors import Refusal, TemporaryError
from sekisho.kube import Ref
from sekisho.model import Plan
from sekisho.vault import FileVault
from stages.verify import redact, verify
from stages.verify.causes import event_causes, last_words, newest_pods, pod_causes, readiness, workload_cause
from stages.verify.smoke import smoke

D = "sha256:" + "a" * 64


def deployment(**status):
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": "shop",
            "namespace": "app-shop",
            "uid": "d",
            "generation": 2,
            "annotations": {"deployment.kubernetes.io/revision": "2"},
        },
        "spec": {"replicas": 1},
        "status": {"observedGeneration": 2, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1, **status},
    }


def pod(name="shop-1", owner="r2", waiting=None, restarts=0, conditions=(), **extra):
    container = {"name": "web", "restartCount": restarts, "state": {"waiting": waiting} if waiting else {"running": {}}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "app-shop", "uid": name, "ownerReferences": [{"uid": owner}], **extra},
        "status": {"phase": "Pending", "conditions": list(conditions), "containerStatuses": [container]},
    }


def replica_set(uid, revision):
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": uid,
            "uid": uid,
            "ownerReferences": [{"uid": "d"}],
            "annotations": {"deployment.kubernetes.io/revision": revision},
        },
    }


# -- readiness and causes, from recorded statuses ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "ready"),
    [
        ({}, True),
        ({"observedGeneration": 1}, False),
        ({"updatedReplicas": 0}, False),
        ({"availableReplicas": 0}, False),
        ({"replicas": 2}, False),
    ],
)
def test_a_deployment_is_ready_when_all_pods_are_new_and_available(status, ready):
    assert readiness(deployment(**status))[0] is ready


def test_a_deployment_without_a_status_is_not_ready():
    assert readiness({**deployment(), "status": {}})[0] is False


@pytest.mark.parametrize(
    ("status", "ready"),
    [
        ({"observedGeneration": 1, "readyReplicas": 1, "currentRevision": "a", "updateRevision": "a"}, True),
        ({"observedGeneration": 1, "readyReplicas": 1, "currentRevision": "a", "updateRevision": "b"}, False),
        (
            {
                "observedGeneration": 1,
                "readyReplicas": 1,
                "currentRevision": "a",
                "updateRevision": "b",
                "updatedReplicas": 1,
            },
            True,
        ),
        ({"observedGeneration": 1, "currentRevision": "a", "updateRevision": "a"}, False),
        ({}, False),
    ],
)
def test_a_stateful_set_is_ready_when_it_rolled_out(status, ready):
    live = {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "x", "generation": 1},
        "spec": {"replicas": 1},
        "status": status,
    }
    assert readiness(live)[0] is ready


def test_jobs_and_claims():
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "x"},
        "status": {"conditions": [{"type": "Complete", "status": "True"}]},
    }
    assert readiness(job)[0] is True
    assert readiness({**job, "status": {}})[0] is False
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "x"},
        "status": {"phase": "Lost"},
    }
    assert readiness(claim)[0] is False
    assert readiness({**claim, "status": {"phase": "Pending"}})[0] is True


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (
            pod(waiting={"reason": "ImagePullBackOff", "message": 'Back-off pulling image "x"'}),
            "image of web cannot be pulled",
        ),
        (pod(waiting={"reason": "ErrImagePull", "message": "not found"}), "cannot be pulled: not found"),
        (
            pod(waiting={"reason": "CreateContainerConfigError", "message": 'secret "s" not found'}),
            'cannot be started: secret "s" not found',
        ),
        (pod(waiting={"reason": "CrashLoopBackOff"}, restarts=2), "crashes again and again"),
        (
            pod(conditions=[{"type": "PodScheduled", "status": "False", "message": "0/1 nodes: Insufficient cpu"}]),
            "fits on no node: 0/1 nodes",
        ),
    ],
)
def test_what_is_wrong_with_a_pod_is_named(bad, words):
    (cause,) = pod_causes([bad])
    assert words in cause.text


def test_why_a_program_does_not_start_is_told():
    bad = pod(waiting={"reason": "CrashLoopBackOff"}, restarts=5)
    ended = {"exitCode": 128, "reason": "StartError", "message": 'exec: "/app": permission denied'}
    bad["status"]["containerStatuses"][0]["lastState"] = {"terminated": ended}
    (cause,) = pod_causes([bad])
    assert cause.text.endswith('(exit code 128, exec: "/app": permission denied)')
    ended |= {"exitCode": 137, "reason": "OOMKilled", "message": ""}
    assert pod_causes([bad])[0].text.endswith("(exit code 137, out of memory)")


def test_what_is_only_slow_is_no_cause():
    slow = pod(waiting={"reason": "ContainerCreating"})
    once = pod(waiting={"reason": "CrashLoopBackOff"}, restarts=1)
    assert pod_causes([slow, once, pod()]) == ()


def test_what_the_workload_itself_says_is_wrong():
    quota = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota:\n cpu"}
    assert "exceeded quota: cpu" in workload_cause(deployment(conditions=[quota])).text
    late = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "timed out"}
    assert "timed out" in workload_cause(deployment(conditions=[late])).text
    assert workload_cause(deployment()) is None
    event = {"reason": "FailedCreate", "involvedObject": {"uid": "d"}, "message": "violates PodSecurity"}
    other = {"reason": "FailedCreate", "involvedObject": {"uid": "z"}, "message": "x"}
    assert ["violates PodSecurity" in cause.text for cause in event_causes(deployment(), [event, other])] == [True]


def test_only_pods_of_the_newest_revision_count():
    pods = [pod("old", "r1"), pod("new", "r2"), pod("going", "r2", deletionTimestamp="now"), pod("alien", "x")]
    sets = [replica_set("r1", "1"), replica_set("r2", "2")]
    assert [item["metadata"]["name"] for item in newest_pods(deployment(), sets, pods)] == ["new"]


def test_the_last_words_are_the_newest_warning():
    events = [
        {
            "type": "Warning",
            "involvedObject": {"uid": "shop-1"},
            "lastTimestamp": "2026-01-02",
            "message": "probe: 503",
        },
        {"type": "Warning", "involvedObject": {"uid": "shop-1"}, "lastTimestamp": "2026-01-01", "message": "old"},
        {"type": "Warning", "involvedObject": {"uid": "else"}, "lastTimestamp": "2026-01-03", "message": "no"},
        {"type": "Normal", "involvedObject": {"uid": "shop-1"}, "lastTimestamp": "2026-01-04", "message": "no"},
    ]
    assert last_words([pod()], events) == "probe: 503"
    assert last_words([pod()], []) == ""


# -- verify, over a recorded cluster -------------------------------------------------------------------------------


class Recorded:
    """A cluster as a list of its states, one a look; the last one stays."""

    def __init__(self, *states, log=""):
        self.states = list(states)
        self.log = log

    def get(self, ref):
        return next((obj for obj in self.states[0] if Ref.of(obj) == ref), None)

    def list(self, _, kind, *__, **___):
        return tuple(obj for obj in self.states[0] if obj["kind"] == kind)

    def logs(self, *_, **__):
        return self.log

    def next(self):
        if len(self.states) > 1:
            self.states.pop(0)


PLAN = Plan(
    app="shop",
    zone="z",
    release=D,
    summary=D,
    commit="c",
    image="i",
    namespace="app-shop",
    objects=(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "s", "namespace": "app-shop", "annotations": {"sekisho.dev/need": "db"}},
        },
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "shop", "namespace": "app-shop"}},
    ),
)
SECRET = copy.deepcopy(PLAN.objects[0])


def run(kube, tmp_path, seconds=60):
    vault = FileVault(tmp_path / "vault")
    vault.put("shop", "db", {"password": "hunter2-long", "port": "5432"})
    now = [0.0]

    def sleep(amount):
        now[0] += amount
        kube.next()

    return verify(PLAN, kube, seconds=seconds, vault=vault, sleep=sleep, clock=lambda: now[0]), now[0]


def test_what_becomes_ready_is_healthy(tmp_path):
    kube = Recorded([SECRET, deployment(availableReplicas=0)], [SECRET, deployment()])
    health, _ = run(kube, tmp_path)
    assert (health.healthy, health.cause) == (True, "")
    assert health.checks == ("Deployment/shop: 1 of 1 available",)


def test_a_terminal_cause_ends_the_wait_early_with_the_log_and_without_secrets(tmp_path):
    bad = pod(waiting={"reason": "CrashLoopBackOff"}, restarts=2)
    state = [SECRET, deployment(availableReplicas=0), replica_set("r2", "2"), bad]
    health, waited = run(
        Recorded(state, log="starting\npassword hunter2-long is wrong\x1b[31m\n\n"), tmp_path, seconds=600
    )
    assert health.healthy is False
    assert "Last lines: starting | password (secret) is wrong[31m" in health.cause
    assert waited < 10


def test_what_stands_there_before_the_controller_has_looked_is_no_cause(tmp_path):
    """Right after a rollback the newest pods are still those that crashed, and so says the Deployment's condition."""
    failed = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "late"}
    before = deployment(observedGeneration=1, availableReplicas=0, conditions=[failed])
    bad = pod(waiting={"reason": "CrashLoopBackOff"}, restarts=9)
    crashed = [SECRET, before, replica_set("r2", "2"), bad]
    health, _ = run(Recorded(crashed, crashed, [SECRET, deployment()]), tmp_path)
    assert (health.healthy, health.cause) == (True, "")


def test_a_cause_that_passes_within_its_grace_does_not_end_the_wait(tmp_path):
    pulling = [SECRET, deployment(availableReplicas=0), replica_set("r2", "2"), pod(waiting={"reason": "ErrImagePull"})]
    health, _ = run(Recorded(pulling, pulling, [SECRET, deployment()]), tmp_path)
    assert health.healthy is True
    health, waited = run(Recorded(pulling), tmp_path, seconds=600)
    assert "cannot be pulled" in health.cause
    assert 5 <= waited < 10


def test_time_over_names_what_is_waited_for_and_the_last_words(tmp_path):
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "e"},
        "type": "Warning",
        "involvedObject": {"uid": "shop-1"},
        "message": "Readiness probe failed: 503",
    }
    state = [SECRET, deployment(availableReplicas=0), replica_set("r2", "2"), pod(), event]
    health, waited = run(Recorded(state), tmp_path, seconds=20)
    assert "not healthy after 20 s: Deployment/shop: 0 of 1 available" in health.cause
    assert "Readiness probe failed: 503" in health.cause
    assert waited >= 20


def test_a_missing_object_is_a_cause(tmp_path):
    health, _ = run(Recorded([deployment()]), tmp_path)
    assert health.cause == "Secret/s is missing"


def test_a_cluster_that_does_not_answer_is_waited_for(tmp_path):
    class Away(Recorded):
        calls = 0

        def list(self, *arguments, **options):
            self.calls += 1
            if self.calls < 4:
                raise TemporaryError("connection refused")
            return super().list(*arguments, **options)

    health, _ = run(Away([SECRET, deployment()]), tmp_path)
    assert health.healthy is True


def test_redaction_takes_out_every_value():
    assert redact("a uri://u:p@h and p", ("uri://u:p@h", "p")) == "a (secret) and (secret)"


# -- smoke, over real HTTP -----------------------------------------------------------------------------------------


@contextmanager
def serving(answers):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            status = answers.get(self.path, [404])
            code = status.pop(0) if len(status) > 1 else status[0]
            self.send_response(code)
            self.send_header("Location", "http://127.0.0.1:1/")
            self.end_headers()
            if self.path == "/flood":
                try:
                    while True:
                        self.wfile.write(b"x" * 65536)
                except OSError:
                    pass

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def asked(base, *paths, seconds=1.0):
    now = [0.0]

    def sleep(amount):
        now[0] += amount

    return smoke(base, paths, seconds=seconds, sleep=sleep, clock=lambda: now[0])


def test_paths_are_good_below_400_and_redirects_are_not_followed():
    with serving({"/": [200], "/moved": [302], "/bad": [500]}) as base:
        answers = asked([base], "/", "/moved", "/bad", "/missing")
    assert [(answer.good, answer.text) for answer in answers] == [
        (True, "GET /: 200"),
        (True, "GET /moved: 302"),
        (False, f"GET /bad: 500 (asked as {base.removeprefix('http://')})"),
        (False, f"GET /missing: 404 (asked as {base.removeprefix('http://')})"),
    ]


def test_a_path_may_need_a_moment():
    with serving({"/": [503, 503, 200]}) as base:
        assert asked([base], "/", seconds=5)[0].good is True


def test_a_flood_is_cut_off_and_its_status_counts():
    with serving({"/flood": [200]}) as base:
        assert asked([base], "/flood")[0].good is True


def test_the_second_address_is_used_when_the_first_does_not_connect():
    with serving({"/": [200]}) as base:
        assert asked(["http://127.0.0.1:1", base], "/")[0].good is True
    assert asked(["http://127.0.0.1:1"], "/")[0].text == "GET /: no answer (ConnectError)"


def test_checks_without_a_way_in_are_refused():
    with pytest.raises(Refusal):
        asked([], "/")
