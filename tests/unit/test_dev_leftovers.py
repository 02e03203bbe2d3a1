"""What a killed session left is cleared by the next one of the same app, and nobody else's is."""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path
from typing import Any

import pytest

from sekisho.developers import namespace_of
from sekisho.errors import PermanentError
from sekisho.profile import Profile
from stages.build.sandbox import Sandbox
from stages.dev import caretaker, holding
from stages.dev.forward import listen
from stages.dev.image import Workbench
from stages.dev.leftovers import Leftovers, work_folder
from stages.dev.place import Place
from stages.dev.screen import Screen
from stages.dev.session import Session

POLICIES = Path(__file__).parents[2] / "policies"
SITE = Path(__file__).parents[2] / "examples" / "site"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    root = tmp_path / "ann"
    root.mkdir()
    return Place(
        developer="ann", profile=Profile.model_validate({"zone": "dev", "description": "d"}),
        kubeconfig=tmp_path / "none", context="", registry="http://127.0.0.1:1", docker=tmp_path / "no.sock",
        policies=POLICIES, root=root,
    )  # fmt: skip


@pytest.fixture
def swept(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Owners whose containers were removed."""
    found: list[str] = []
    monkeypatch.setattr(Sandbox, "sweep", lambda self: found.append(self.owner) or 1)
    return found


def owner(place: Place, app: str) -> str:
    return Sandbox(place.docker, None, work_folder(place.root, app)).owner  # type: ignore[arg-type]


def left(place: Place, app: str) -> Path:
    folder = work_folder(place.root, app) / "build-killed" / "tree"
    folder.mkdir(parents=True)
    (folder / "file").write_text("x")
    return folder


def test_each_app_of_a_developer_is_its_own_owner(place: Place, tmp_path: Path) -> None:
    bob = tmp_path / "bob"
    assert len({owner(place, "one"), owner(place, "two"), work_folder(bob, "one")}) == 3
    bench = Workbench(place, "one", tmp_path)
    assert bench._builder.sandbox.owner == owner(place, "one")
    assert bench._builder.work == work_folder(place.root, "one")


def test_a_session_clears_what_an_earlier_one_of_its_app_left(place: Place, swept: list[str], tmp_path: Path) -> None:
    mine, theirs = left(place, "one"), left(place, "two")
    Workbench(place, "one", tmp_path).sweep()
    assert (mine.exists(), theirs.exists(), swept) == (False, True, [owner(place, "one")])


def test_leftovers_are_cleared_without_a_builder(place: Place, swept: list[str]) -> None:
    mine, theirs = left(place, "one"), left(place, "two")
    assert Leftovers(place.docker, place.registry, work_folder(place.root, "one")).clear() == 1
    assert (mine.exists(), theirs.exists(), swept) == (False, True, [owner(place, "one")])


def test_where_nothing_was_built_nothing_is_asked(place: Place, swept: list[str]) -> None:
    assert Leftovers(place.docker, place.registry, work_folder(place.root, "one")).clear() == 0
    assert swept == []


# -- a session --------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sekisho.kube.Kube.connect", lambda *_: None)
    monkeypatch.setattr("stages.dev.session.Dialer", lambda _: None)


@pytest.fixture
def session(place: Place) -> Session:
    return Session(SITE, place, Screen())


def opened(session: Session) -> None:
    nothing: Any = lambda *_: None  # noqa: E731
    session.open(lost=nothing, changed=nothing, outcome=nothing, hint=nothing)


class Keeper:
    """A caretaker that nobody waits for."""

    begun: list[tuple[Any, ...]] = []  # noqa: RUF012

    def __init__(self, *arguments: Any) -> None:
        self.begun.append(arguments)

    def dismiss(self) -> None:
        pass


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """A session that opens without a cluster; returns its caretakers' arguments."""
    Keeper.begun = []
    monkeypatch.setattr("stages.dev.session.Caretaker", Keeper)
    monkeypatch.setattr("stages.dev.session.Pods", lambda *_: None)
    monkeypatch.setattr(holding.Holding, "release", lambda _: False)
    monkeypatch.setattr(Session, "_keep", lambda *_: None)
    return Keeper.begun


def test_the_sweep_comes_after_the_namespace_was_taken(
    session: Session, quiet: list[tuple[Any, ...]], swept: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before: list[list[str]] = []
    monkeypatch.setattr(holding.Holding, "take", lambda *_: before.append(list(swept)))
    opened(session)
    session.close()
    assert (before, swept) == ([[]], [owner(session.place, session.app)])
    work = work_folder(session.place.root, session.app)
    assert quiet[0][-1] == Leftovers(session.place.docker, session.place.registry, work)


def test_a_session_that_is_refused_sweeps_nothing(
    session: Session, quiet: list[tuple[Any, ...]], swept: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other session of the same app builds in this very folder."""
    mine = left(session.place, session.app)

    def refuse(*_: Any) -> None:
        raise PermanentError("This app runs already.")

    monkeypatch.setattr(holding.Holding, "take", refuse)
    with pytest.raises(PermanentError, match="runs already"):
        opened(session)
    session.close()
    assert (swept, mine.exists()) == ([], True)


def test_without_an_engine_a_session_begins_all_the_same(
    session: Session, quiet: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """That nothing can be built is told of the version."""
    monkeypatch.setattr(holding.Holding, "take", lambda *_: None)
    opened(session)
    session.close()


def test_with_the_namespace_of_another_app_its_builds_leftovers_go(
    session: Session, swept: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    dead, alive = left(session.place, "dead"), left(session.place, "alive")
    gone = (namespace_of("ann", "dead"),)
    monkeypatch.setattr(holding.Holding, "sweep", lambda _: gone)
    session._stop.set()
    session._keep(lambda _: None)
    session.close()
    assert (dead.exists(), alive.exists(), swept) == (False, True, [owner(session.place, "dead")])


def test_a_port_that_is_taken_is_told_before_anything_is_taken(
    place: Place, quiet: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holding.Holding, "take", lambda *_: pytest.fail("the namespace was taken"))
    with contextlib.closing(listen("x", 0, exactly=False)) as other:
        port = other.getsockname()[1]
        session = Session(SITE, place, Screen(), port=port)
        with pytest.raises(PermanentError, match=f"Port {port} of this machine is taken"):
            opened(session)
        session.close()
    assert quiet == []


def test_the_port_that_was_asked_for_is_the_first_ports(place: Place) -> None:
    with contextlib.closing(listen("x", 0, exactly=False)) as free:
        port = free.getsockname()[1]
    session = Session(SITE, place, Screen(), port=port)
    session._reserved = listen("x", port, exactly=True)
    first = session._listener(8080)
    assert first.getsockname()[1] == port
    first.close()
    again = session._listener(8081)  # after the workload's port was changed in score.yaml
    assert again.getsockname()[1] == port
    again.close()
    session.close()


# -- the caretaker ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cleared", [1, 0])
def test_the_caretaker_clears_what_nobody_has_taken_over(
    place: Place, swept: list[str], monkeypatch: pytest.MonkeyPatch, cleared: int
) -> None:
    left(place, "one")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    monkeypatch.setattr(holding, "remove_if_held", lambda *_: bool(cleared))
    work = work_folder(place.root, "one")
    arguments = ["kubeconfig", "", "dev-ann-one", "h/1.2", str(place.docker), place.registry, str(work)]
    assert caretaker.main(arguments) == 0
    assert len(swept) == cleared
    assert len(list(work.iterdir())) == 1 - cleared


def test_a_caretaker_that_cannot_reach_the_engine_has_done_its_work(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    left(place, "one")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    monkeypatch.setattr(holding, "remove_if_held", lambda *_: True)
    work = work_folder(place.root, "one")
    arguments = ["kubeconfig", "", "dev-ann-one", "h/1.2", str(place.docker), place.registry, str(work)]
    assert caretaker.main(arguments) == 0
