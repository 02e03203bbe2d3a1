import pytest

from sekisho.errors import Refusal
from sekisho.inventory import Inventory
from sekisho.model import Hardened, Image, Release, Revision, SealedRelease
from stages.plan import make_plan, smoke_paths

D = "sha256:" + "a" * 64


def sealed(digest=D):
    image = Image(repository="apps/shop", digest=D, language="python", base="python", base_digest=D, layers=())
    revision = Revision(app="shop", commit="a" * 40, tree="b" * 40, branch="main", author="a", committed_at=0)
    release = Release(app="shop", revision=revision, image=image, manifests=D, policy=D, evidence=())
    return SealedRelease(repository="releases/shop", digest=digest, summary=D, release=release)


def obj(kind, name, **rest):
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": "app-shop"}, **rest}


DEPLOYMENT = obj("Deployment", "shop", spec={"template": {"spec": {"containers": [{"name": "web"}]}}})


def hardened(*objects, release=D):
    return Hardened(
        app="shop", zone="z", release=release, namespace="app-shop", objects=objects, bindings=(), explained=()
    )


def inventory(plan, objects, **changes):
    fields = {
        "generation": 1, "plan": plan, "release": D, "commit": "c", "applied": plan,
        "objects": tuple(f"v1/{kind}/app-shop/{name}" for kind, name in objects),
    }  # fmt: skip
    return Inventory(**{**fields, **changes})


def test_the_same_inputs_give_the_same_plan_in_any_order():
    first = make_plan(hardened(DEPLOYMENT, obj("ConfigMap", "a")), sealed(), None, budget=3)
    assert first == make_plan(hardened(obj("ConfigMap", "a"), DEPLOYMENT), sealed(), None, budget=3)
    assert [item["kind"] for item in first.objects] == ["ConfigMap", "Deployment"]
    assert (first.previous, first.prune) == ("", ())


def test_each_thing_that_is_applied_is_in_the_digest():
    base = make_plan(hardened(DEPLOYMENT), sealed(), None, budget=3)
    changed = make_plan(
        hardened({**DEPLOYMENT, "spec": {**DEPLOYMENT["spec"], "replicas": 2}}), sealed(), None, budget=3
    )
    other = "sha256:" + "b" * 64
    released = make_plan(hardened(DEPLOYMENT, release=other), sealed(other), None, budget=3)
    upon = make_plan(hardened(DEPLOYMENT), sealed(), inventory(other, [("Deployment", "shop")]), budget=3)
    pruned = make_plan(hardened(DEPLOYMENT), sealed(), inventory("", [("ConfigMap", "old")]), budget=3)
    assert len({plan.identity() for plan in (base, changed, released, upon, pruned)}) == 5


def test_an_empty_plan_is_refused():
    for objects in ((), (obj("ConfigMap", "a"), obj("Service", "b", spec={}))):
        with pytest.raises(Refusal, match="empty"):
            make_plan(hardened(*objects), sealed(), None, budget=99)


def test_hardened_objects_of_another_release_are_refused():
    with pytest.raises(Refusal, match="another release"):
        make_plan(hardened(DEPLOYMENT, release="sha256:" + "b" * 64), sealed(), None, budget=3)


def test_what_is_gone_is_pruned_within_the_budget_and_a_namespace_never():
    found = inventory(D, [("ConfigMap", "old"), ("Deployment", "shop"), ("Namespace", "app-shop")])
    assert make_plan(hardened(DEPLOYMENT), sealed(), found, budget=1).prune == ("v1/ConfigMap/app-shop/old",)
    with pytest.raises(Refusal, match=r"would delete 1 objects.*ConfigMap/old"):
        make_plan(hardened(DEPLOYMENT), sealed(), found, budget=0)


def test_planning_what_stands_there_gives_the_plan_that_put_it_there():
    found = inventory("sha256:" + "c" * 64, [("ConfigMap", "old"), ("Deployment", "shop")])
    first = make_plan(hardened(DEPLOYMENT), sealed(), found, budget=3)
    assert first.previous == "sha256:" + "c" * 64
    stands = inventory(first.identity(), [("Deployment", "shop")], previous=first.previous, prune=first.prune)
    assert make_plan(hardened(DEPLOYMENT), sealed(), stands, budget=0) == first
    cut_off = stands.model_copy(update={"applied": first.previous, "objects": found.objects})
    assert make_plan(hardened(DEPLOYMENT), sealed(), cut_off, budget=3) == first


def test_smoke_paths_are_the_routes_and_the_probes():
    web = obj(
        "Deployment",
        "shop",
        spec={
            "template": {"spec": {"containers": [{"name": "w", "readinessProbe": {"httpGet": {"path": "/healthz"}}}]}}
        },
    )
    service = obj("Service", "shop", spec={"type": "ClusterIP"})
    route = obj("Service", "shop-route", spec={"type": "NodePort"})
    asked = {**route, "metadata": {**route["metadata"], "annotations": {"sekisho.dev/smoke-path": "/start"}}}
    assert smoke_paths([web]) == ()
    assert smoke_paths([web, service]) == ("/healthz",)
    assert smoke_paths([web, service, asked]) == ("/healthz", "/start")
    assert smoke_paths([DEPLOYMENT, route]) == ("/",)
    assert smoke_paths([DEPLOYMENT, service]) == ()
