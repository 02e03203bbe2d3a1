"""Who holds a developer's namespace, and since when that counts no more."""

from __future__ import annotations

import datetime as dt
import os
import socket
import subprocess
from typing import Any

import pytest

from sekisho.developers import OWNER
from sekisho.errors import Refusal
from sekisho.kube import Conflict, Ref
from stages.dev.holding import LEASE_SECONDS, Holder, Holding, holds, remove_if_held

NOW = dt.datetime(2026, 11, 21, 12, 0, tzinfo=dt.UTC)


def lease(holder: str, age: float = 0.0) -> dict[str, Any]:
    renewed = (NOW - dt.timedelta(seconds=age)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    spec = {"holderIdentity": holder, "renewTime": renewed, "leaseDurationSeconds": LEASE_SECONDS}
    return {"metadata": {"resourceVersion": "1"}, "spec": spec}


def ended_process() -> int:
    with subprocess.Popen(["true"]) as process:
        process.wait()
        return process.pid


def test_this_process_holds_what_it_took() -> None:
    me = Holder.me()
    assert (me.pid, me.host, Holder.parse(str(me))) == (os.getpid(), socket.gethostname(), me)
    assert holds(lease(str(me)), NOW) == me


def test_a_process_of_another_machine_holds_as_long_as_its_heart_beats() -> None:
    other = Holder("elsewhere", 1, "5")
    assert holds(lease(str(other), age=LEASE_SECONDS - 1), NOW) == other
    assert holds(lease(str(other), age=LEASE_SECONDS + 1), NOW) is None


def test_a_process_of_this_machine_that_is_gone_holds_nothing_at_once() -> None:
    assert holds(lease(f"{socket.gethostname()}/{ended_process()}.5"), NOW) is None


def test_a_process_id_that_was_given_again_is_not_the_holder() -> None:
    assert holds(lease(f"{socket.gethostname()}/{os.getpid()}.1"), NOW) is None


@pytest.mark.parametrize("holder", ["", "x", "host/", "host/abc.1", "/1.2"])
def test_a_lease_that_is_none_of_ours_holds_nothing(holder: str) -> None:
    assert holds(lease(holder), NOW) is None
    assert holds(None, NOW) is None
    assert holds({"spec": {"holderIdentity": "h/1.2", "renewTime": "yesterday"}}, NOW) is None


class FakeKube:
    """A cluster's namespaces and Leases in memory."""

    def __init__(self) -> None:
        self.objects: dict[Ref, dict[str, Any]] = {}
        self.version = 0

    def get(self, ref: Ref) -> dict[str, Any] | None:
        return self.objects.get(ref)

    def list(self, api_version: str, kind: str, labels: str = "") -> tuple[dict[str, Any], ...]:
        key, _, value = labels.partition("=")
        return tuple(
            obj
            for ref, obj in self.objects.items()
            if (ref.api_version, ref.kind) == (api_version, kind)
            and (obj["metadata"].get("labels") or {}).get(key) == value
        )

    def apply(self, obj: dict[str, Any]) -> dict[str, Any]:
        return self._put(obj)

    def create(self, obj: dict[str, Any]) -> dict[str, Any]:
        if Ref.of(obj) in self.objects:
            raise Conflict("it is there")
        return self._put(obj)

    def replace(self, obj: dict[str, Any]) -> dict[str, Any]:
        if self.objects[Ref.of(obj)]["metadata"]["resourceVersion"] != obj["metadata"]["resourceVersion"]:
            raise Conflict("it was written")
        return self._put(obj)

    def delete(self, ref: Ref) -> bool:
        gone = [known for known in self.objects if known == ref or known.namespace == ref.name]
        for known in gone:
            del self.objects[known]
        return bool(gone)

    def _put(self, obj: dict[str, Any]) -> dict[str, Any]:
        self.version += 1
        metadata = {
            **obj["metadata"],
            "resourceVersion": str(self.version),
            "creationTimestamp": "2020-01-01T00:00:00Z",
        }
        self.objects[Ref.of(obj)] = {**obj, "metadata": metadata}
        return self.objects[Ref.of(obj)]


@pytest.fixture
def kube() -> FakeKube:
    return FakeKube()


def holding(kube: FakeKube, namespace: str = "dev-ann-x", developer: str = "ann") -> Holding:
    return Holding(kube, developer, namespace)  # type: ignore[arg-type]


def held_by(kube: FakeKube, holder: str, namespace: str = "dev-ann-x") -> None:
    """Put a namespace there that somebody holds, with a heartbeat of just now."""
    holding(kube, namespace).take(lambda _: None)
    ref = Ref("coordination.k8s.io/v1", "Lease", namespace, "sekisho-dev")
    kube.objects[ref]["spec"]["holderIdentity"] = holder


def test_a_namespace_is_taken_with_its_owner_and_given_back(kube: FakeKube) -> None:
    mine = holding(kube)
    mine.take(lambda _: None)
    mine.beat()
    assert kube.objects[Ref("v1", "Namespace", "", "dev-ann-x")]["metadata"]["labels"][OWNER] == "ann"
    assert mine.release()
    assert kube.objects == {}
    assert not mine.release()


def test_a_namespace_that_somebody_holds_is_left_alone(kube: FakeKube) -> None:
    held_by(kube, "elsewhere/1.2")
    with pytest.raises(Refusal, match="process 1 of elsewhere"):
        holding(kube).take(lambda _: None)


def test_a_namespace_whose_holder_is_gone_is_taken_over(kube: FakeKube) -> None:
    held_by(kube, f"{socket.gethostname()}/{ended_process()}.5")
    holding(kube).take(lambda _: None)


def test_a_namespace_of_somebody_else_is_not_touched(kube: FakeKube) -> None:
    holding(kube, developer="bob").take(lambda _: None)
    before = dict(kube.objects)
    with pytest.raises(Refusal, match="not yours"):
        holding(kube, developer="ann").take(lambda _: None)
    assert kube.objects == before


def test_who_lost_the_namespace_notices_and_removes_nothing(kube: FakeKube) -> None:
    mine = holding(kube)
    mine.take(lambda _: None)
    held_by(kube, "elsewhere/1.2")
    with pytest.raises(Refusal, match="Another process took"):
        mine.beat()
    assert not mine.release()
    assert not remove_if_held(kube, "dev-ann-x", mine.holder)  # type: ignore[arg-type]
    assert Ref("v1", "Namespace", "", "dev-ann-x") in kube.objects


def test_leftovers_are_removed_and_what_lives_is_not(kube: FakeKube) -> None:
    held_by(kube, "elsewhere/1.2", "dev-ann-alive")
    held_by(kube, f"{socket.gethostname()}/{ended_process()}.5", "dev-ann-dead")
    holding(kube, "dev-bob-x", developer="bob").take(lambda _: None)
    kube.objects[Ref("coordination.k8s.io/v1", "Lease", "dev-bob-x", "sekisho-dev")]["spec"]["holderIdentity"] = ""
    mine = holding(kube)
    mine.take(lambda _: None)
    assert mine.sweep() == ("dev-ann-dead",)
    left = {ref.name for ref in kube.objects if ref.kind == "Namespace"}
    assert left == {"dev-ann-alive", "dev-ann-x", "dev-bob-x"}
