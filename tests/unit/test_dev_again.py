"""What was not put, or does not run, is tried again where that helps, and left alone where it does not."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from test_dev_loop import Changing, bad, good
from test_dev_objects import IMAGE, OTHER, composed

from sekisho.errors import Refusal, TemporaryError
from sekisho.kube import Ref
from stages.dev import loop as module
from stages.dev.cluster import Cluster
from stages.dev.loop import Loop, Lost, Saved
from stages.dev.objects import Composition
from stages.dev.rollout import Version


@dataclass
class Changes:
    """A copy that finds what was saved once, as the real one does."""

    saves: list[tuple[str, ...]]
    saved_at: float = 0.0
    folder: Path = Path("/copy")

    def update(self) -> tuple[str, ...]:
        return self.saves.pop(0) if self.saves else ()


class World(Changing):
    """Notes when the gate is stopped, and fails to put what it is told to."""

    def __init__(self, *builds: str | Exception, saves: tuple[tuple[str, ...], ...]) -> None:
        super().__init__(*builds)
        self.copy: Any = Changes(list(saves))
        self.puts: list[Exception | None] = []
        self.loop = Loop(self)  # type: ignore[arg-type]

    def put(self, composition: Composition) -> str:
        how = super().put(composition)
        if self.puts and (error := self.puts.pop(0)) is not None:
            raise error
        return how

    def stop(self) -> None:
        self.done.append(("stop",))

    def run(self, *events: Any, until: str = "", count: int = 1) -> World:
        """Give events, and the end as soon as something was done so many times; the tests' own end is a deadline."""
        for event in events:
            self.loop.put(event)
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(0.01):
                if len(self.did(until)) >= count or not until:
                    break
            self.loop.put(Lost(Refusal("the end")))

        threading.Thread(target=watch, daemon=True).start()
        deadline = threading.Timer(60, ended.set)
        deadline.start()
        with pytest.raises(Refusal, match="the end"):
            self.loop.run()
        deadline.cancel()
        return self

    def images(self) -> list[str]:
        return [item[1] for item in self.did("put")]


FIRST, SAVED = ("score.yaml", "web.py"), ("web.py",)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_RETRY_SECONDS", 0.05)


def away() -> TemporaryError:
    return TemporaryError("It does not answer.", delay=0.0)


def test_a_later_version_is_tried_again_without_a_save() -> None:
    """The copy holds the save already: looking at it once more finds no change."""
    world = World(IMAGE, away(), OTHER, saves=(FIRST, SAVED)).run(good(1, IMAGE), Saved(1.0), until="follow", count=2)
    assert world.images() == [IMAGE, OTHER]
    assert [item["version"] for item in world.said("failed")] == [2]


def test_a_version_that_is_tried_again_names_the_files_of_its_save() -> None:
    world = World(IMAGE, away(), OTHER, saves=(FIRST, SAVED))
    follow = world.follow

    def answered(what: Any) -> None:
        follow(what)
        if isinstance(what, Version) and what.number == 3:
            world.loop.put(good(3, OTHER))

    world.follow = answered  # type: ignore[method-assign]
    world.run(good(1, IMAGE), Saved(1.0), until="judge", count=2)
    assert [(item["version"], item["changed"]) for item in world.said("running")] == [(1, [*FIRST]), (3, [*SAVED])]


def test_a_first_version_that_could_not_be_put_is_put_later() -> None:
    world = World(IMAGE, IMAGE, saves=(FIRST,))
    world.puts = [away()]
    world.run(until="follow")
    assert world.images() == [IMAGE, IMAGE]
    assert world.said("note") == []


def test_a_version_that_the_cluster_refused_is_put_when_it_is_saved_again() -> None:
    world = World(IMAGE, OTHER, OTHER, saves=(FIRST, SAVED, SAVED))
    world.puts = [None, Refusal("site-db does not start.")]
    world.run(good(1, IMAGE), Saved(1.0), Saved(2.0), until="follow", count=2)
    assert world.images() == [IMAGE, OTHER, OTHER]
    assert world.said("note") == []


def test_after_a_refusal_the_version_before_is_put_again_and_not_called_the_same() -> None:
    """Half of the refused one may be in the cluster."""
    world = World(IMAGE, OTHER, IMAGE, saves=(FIRST, SAVED, SAVED))
    world.puts = [None, Refusal("site-db does not start.")]
    world.run(good(1, IMAGE), Saved(1.0), Saved(2.0), until="follow", count=2)
    assert world.images() == [IMAGE, OTHER, IMAGE]


def test_what_is_refused_is_not_tried_again_when_nothing_of_the_workload_was_saved() -> None:
    world = World(Refusal("Procfile:1: no"), saves=(FIRST,)).run(Saved(1.0), Saved(2.0))
    assert len(world.said("failed")) == 1


def test_an_ignored_file_does_not_end_the_gates_hint() -> None:
    world = World(IMAGE, OTHER, saves=(FIRST, (), SAVED)).run(good(1, IMAGE), Saved(1.0))
    assert [item[0] for item in world.done if item[0] in {"stop", "judge"}] == ["stop", "judge"]
    world.run(Saved(2.0))
    assert len(world.did("stop")) == 2


def test_a_good_version_that_ends_when_it_is_put_back_is_told_once_and_left_alone() -> None:
    world = World(IMAGE, OTHER, OTHER, saves=(FIRST, SAVED, SAVED))
    follow = world.follow

    def crashing(what: Any) -> None:
        """Both end at once, as with a database whose tables the second has changed."""
        if isinstance(what, Version) and world.said("running"):
            world.loop.put(bad(what.number, what.made.image))
        follow(what)

    world.follow = crashing  # type: ignore[method-assign]
    world.run(good(1, IMAGE), Saved(1.0), until="follow", count=3)
    assert world.images() == [IMAGE, OTHER, IMAGE]
    assert world.did("judge") == [("judge", 1), ("judge", 2)]
    assert [(item["version"], item["good"]) for item in world.said("failed")] == [(2, 1), (1, None)]
    world.follow = follow  # type: ignore[method-assign]
    world.run(Saved(2.0), until="put", count=4)
    assert world.images()[3] == OTHER


# -- half a version in the cluster ------------------------------------------------------------------------------------


@dataclass
class FakeKube:
    """Takes everything, but refuses one kind when it is told to."""

    refuse: str = ""
    live: dict[Ref, dict[str, Any]] = field(default_factory=dict)
    patched: int = 0

    def apply(self, obj: dict[str, Any]) -> dict[str, Any]:
        if obj["kind"] == self.refuse:
            raise Refusal("The cluster refuses it.")
        self.live[Ref.of(obj)] = obj
        return obj

    def get(self, ref: Ref) -> dict[str, Any] | None:
        return self.live.get(ref)

    def list(self, *_: Any, **__: Any) -> tuple[dict[str, Any], ...]:
        return ()

    def path(self, ref: Ref) -> str:
        return ref.name

    def request(self, *_: Any, **__: Any) -> None:
        self.patched += 1


def test_of_half_a_version_no_image_is_exchanged_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    kube = FakeKube()
    cluster = Cluster(kube, None, "dev-ann-site", lambda _: None)  # type: ignore[arg-type]
    monkeypatch.setattr(cluster, "pods", lambda _: ({"metadata": {"name": "site-1"}},))
    assert cluster.put(composed(IMAGE)) == "applied"
    assert cluster.put(composed(OTHER)) == "swapped"
    kube.refuse = "Deployment"
    from test_dev_objects import SCORE

    with pytest.raises(Refusal):
        cluster.put(composed(OTHER, SCORE.replace(b"memory: 64Mi", b"memory: 65Mi")))
    kube.refuse = ""
    assert cluster.put(composed(OTHER)) == "applied"
    assert cluster.put(composed(IMAGE)) == "swapped"
