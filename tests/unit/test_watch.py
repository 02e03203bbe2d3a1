import copy

from sekisho.kube import Ref
from sekisho.model import Plan
from sekisho.vault import FileVault
from stages.watch import FIGHT_LIMIT, FIGHT_SECONDS, Observation, heal, look

D = "sha256:" + "a" * 64
TEMPLATE = {
    "metadata": {"labels": {"app": "shop"}},
    "spec": {"initContainers": [{"name": "guard", "image": "g"}], "containers": [{"name": "web", "image": "w"}]},
}
SHOP = {
    "apiVersion": "apps/v1",
    "kind": "StatefulSet",
    "metadata": {"name": "shop", "namespace": "n"},
    "spec": {"template": TEMPLATE},
}
PLAN = Plan(app="shop", zone="z", release=D, summary=D, commit="c", image="i", namespace="n", objects=(SHOP,))
LIVE = {**SHOP, "metadata": {**SHOP["metadata"], "uid": "s"}}
AGENT = {
    "apiVersion": "apps/v1",
    "kind": "DaemonSet",
    "metadata": {"name": "trivy-agent", "namespace": "a"},
    "spec": {},
}


class Recorded:
    """A cluster that stays as it was recorded; what is applied to it comes back as it is."""

    def __init__(self, *objects):
        self.objects = objects
        self.applied = []

    def get(self, ref):
        return next((obj for obj in self.objects if Ref.of(obj) == ref), None)

    def list(self, _, kind, *__, **___):
        return tuple(obj for obj in self.objects if obj["kind"] == kind)

    def apply(self, obj, *, dry_run=False):
        if not dry_run:
            self.applied.append(Ref.of(obj).short)
        live = self.get(Ref.of(obj)) or {}
        return {**obj, "metadata": {**live.get("metadata", {}), **obj["metadata"]}}


def pod(name, *, drop=None, add=None, owner="s", phase="Running", **spec):
    template = copy.deepcopy(TEMPLATE["spec"])
    if drop:
        template["initContainers"] = [item for item in template["initContainers"] if item["name"] != drop]
    if add:
        template["containers"].append(add)
    references = [{"uid": owner}] if owner else []
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "n", "uid": name, "ownerReferences": references},
        "spec": {**template, **spec},
        "status": {"phase": phase},
    }


def seen(kube, tmp_path, agents=()):
    return look(kube, PLAN, FileVault(tmp_path / "vault"), agents)


def test_all_as_approved_is_nothing_seen(tmp_path):
    assert seen(Recorded(LIVE, pod("shop-0")), tmp_path) == ()


def test_pods_with_other_containers_than_their_template_are_seen(tmp_path):
    other = pod("image")
    other["spec"]["containers"][0]["image"] = "evil"
    pods = (
        pod("bare", drop="guard"),
        pod("spy", add={"name": "spy", "image": "x"}),
        pod("debug", ephemeralContainers=[{"name": "sh", "image": "x"}]),
        other,
        pod("nobody", owner=""),
        pod("done", owner="", phase="Succeeded"),
    )
    found = {Ref.parse(item.object).name: item.message for item in seen(Recorded(LIVE, *pods), tmp_path)}
    assert found == {
        "bare": "It runs without guard.",
        "spy": "It runs with a foreign spy.",
        "debug": "It runs with a foreign sh.",
        "image": "It runs with another image of web.",
        "nobody": "No workload of the plan made this pod.",
    }


def test_node_agents_that_are_gone_or_not_ready_are_seen(tmp_path):
    (gone,) = seen(Recorded(LIVE), tmp_path, (AGENT,))
    assert (gone.kind, gone.message) == ("agent", "The node agent is not there.")
    for status, message in (
        ({"desiredNumberScheduled": 2, "numberReady": 1}, "The node agent is ready on 1 of 2 nodes."),
        ({}, "The node agent is ready on 0 of 0 nodes."),
    ):
        (unready,) = seen(Recorded(LIVE, {**AGENT, "status": status}), tmp_path, (AGENT,))
        assert unready.message == message
    good = {**AGENT, "status": {"desiredNumberScheduled": 1, "numberReady": 1}}
    assert seen(Recorded(LIVE, good), tmp_path, (AGENT,)) == ()


def test_healing_stops_at_the_limit_and_starts_again_when_the_hour_is_over(tmp_path):
    vault, kube = FileVault(tmp_path / "vault"), Recorded(LIVE)
    drift = Observation(kind="drift", object="apps/v1/StatefulSet/n/shop", message="x")
    history, actions = {}, []
    for now in (*range(FIGHT_LIMIT + 2), FIGHT_SECONDS + 10):
        healed = heal(kube, PLAN, vault, (drift, drift), history, now=now)
        history = healed.history
        actions.append({item.action for item in healed.observations})
    assert actions == [{"healed"}] * FIGHT_LIMIT + [{"contested"}] * 2 + [{"healed"}]
    assert len(kube.applied) == FIGHT_LIMIT + 1


def test_agents_and_other_plans_are_not_healed_here(tmp_path):
    kube = Recorded(LIVE)
    told = (
        Observation(kind="agent", object="apps/v1/DaemonSet/a/trivy-agent", message="x"),
        Observation(kind="superseded", object="v1/Namespace//n", message="x"),
    )
    healed = heal(kube, PLAN, FileVault(tmp_path / "vault"), told, {}, now=1)
    assert [item.action for item in healed.observations] == ["", ""]
    assert kube.applied == []


# -- CronJobs --------------------------------------------------------------------------------------------------------

CRON = {
    "apiVersion": "batch/v1",
    "kind": "CronJob",
    "metadata": {"name": "shop", "namespace": "n"},
    "spec": {"jobTemplate": {"spec": {"template": TEMPLATE}}},
}


def run(name, created, owner="s"):
    metadata = {"name": name, "namespace": "n", "uid": name, "creationTimestamp": created}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {**metadata, "ownerReferences": [{"uid": owner}]}}


def test_the_runs_of_a_cron_job_are_its_own(tmp_path):
    """Without that, every run would be a stranger's pod, and healing would delete it."""
    written = [
        {"time": "2026-01-02T00:00:00Z", "manager": "sekisho"},
        {"time": "2026-01-09T00:00:00Z", "manager": "kube-controller-manager", "subresource": "status"},
    ]
    metadata = {"uid": "s", "creationTimestamp": "2026-01-01T00:00:00Z", "managedFields": written}
    live = {**CRON, "metadata": {**CRON["metadata"], **metadata}}
    old, new = run("old", "2026-01-01T12:00:00Z"), run("new", "2026-01-03T00:00:00Z")
    alien = run("alien", "2026-01-03T00:00:00Z", owner="nobody")
    pods = (
        pod("before-the-change", owner="old", drop="guard"),
        pod("good", owner="new"),
        pod("bare", owner="new", drop="guard"),
        pod("strange", owner="alien"),
    )
    plan = PLAN.model_copy(update={"objects": (CRON,)})
    found = look(Recorded(live, old, new, alien, *pods), plan, FileVault(tmp_path / "vault"), ())
    assert {Ref.parse(item.object).name: item.message for item in found if item.kind == "pod"} == {
        "bare": "It runs without guard.",
        "strange": "No workload of the plan made this pod.",
    }
