"""The zone's memory: what a process that is killed finds again."""

from __future__ import annotations

from pathlib import Path

import pytest
from flows_cases import decision, deployed, held, release

from flows.desk import Desk, Ended
from sekisho.errors import Refusal


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "desk")


def test_a_plan_waits_until_it_is_let_go_also_for_another_process(desk: Desk, tmp_path: Path) -> None:
    one = held("one")
    digest = desk.put_plan(one)
    later = Desk(tmp_path / "desk")
    assert later.held("shop") == one
    assert later.all_held() == (one,)
    later.let_go("shop")
    assert desk.held("shop") is None
    assert desk.all_held() == ()
    assert desk.plan(digest) == one
    desk.let_go("shop")


def test_a_newer_plan_takes_the_place_of_the_older_one(desk: Desk) -> None:
    desk.put_plan(held("one"))
    desk.put_plan(held("two"))
    desk.put_plan(held("other", app="forum"))
    found = desk.held("shop")
    assert found is not None
    assert found.plan.release == release("two")
    assert [item.plan.app for item in desk.all_held()] == ["forum", "shop"]


def test_a_failed_plan_stays_until_the_zone_has_gone_back(desk: Desk, tmp_path: Path) -> None:
    one = held("one")
    desk.put_plan(one)
    assert desk.failed("shop") == ""
    desk.fail("shop", "it crashes")
    assert Desk(tmp_path / "desk").failed("shop") == "it crashes"
    assert desk.held("shop") == one
    desk.put_plan(held("two"))
    assert desk.failed("shop") == ""


def test_a_failure_without_words_is_a_failure(desk: Desk) -> None:
    desk.fail("shop", "nothing is held: nothing happens")
    assert desk.failed("shop") == ""
    desk.put_plan(held("one"))
    desk.fail("shop", "")
    assert desk.failed("shop")


def test_a_decision_is_kept_once(desk: Desk) -> None:
    signed = decision("approve", release("plan"), 1)
    assert desk.put_decision(signed)
    assert not desk.put_decision(signed)
    assert desk.put_decision(decision("approve", release("plan"), 2, app="forum"))
    assert desk.decisions("shop") == (signed,)


def test_a_rollback_is_pending_until_it_is_settled_and_never_again(desk: Desk, tmp_path: Path) -> None:
    later = decision("rollback", release("one"), 1, issued_at=20)
    earlier = decision("rollback", release("two"), 2, issued_at=10)
    for signed in (later, earlier, decision("approve", release("plan"), 3)):
        desk.put_decision(signed)
    again = Desk(tmp_path / "desk")
    assert again.pending() == (earlier, later)
    again.settle(earlier)
    assert not again.put_decision(earlier)
    assert again.pending() == (later,)


def test_what_is_spent_is_spent_for_its_subject_only(desk: Desk, tmp_path: Path) -> None:
    one, two = release("one"), release("two")
    desk.spend(one, [f"{1:032x}", f"{2:032x}"])
    desk.spend(one, [f"{1:032x}"])
    assert Desk(tmp_path / "desk").spent(one) == {f"{1:032x}", f"{2:032x}"}
    assert desk.spent(two) == frozenset()


def test_a_history_holds_each_change_once(desk: Desk) -> None:
    one, two = deployed(held("one")), deployed(held("two"))
    for item in (one, one, two, one):
        desk.add_deployed("shop", item)
    assert desk.deployed("shop") == (one, two, one)
    assert desk.apps() == ("shop",)


def test_outcomes_are_by_release(desk: Desk) -> None:
    ended = Ended(app="shop", release=release("one"), outcome="failed", why="it crashed")
    assert desk.outcome(ended.release) is None
    desk.end(ended)
    assert desk.outcome(ended.release) == ended
    assert desk.outcome(release("two")) is None


def test_a_write_that_was_cut_off_is_not_seen(desk: Desk, tmp_path: Path) -> None:
    desk.put_plan(held("one"))
    (tmp_path / "desk" / "held" / "shop.1234.part").write_text('{"plan": ')
    assert [item.plan.app for item in desk.all_held()] == ["shop"]
    assert not list((tmp_path / "desk").rglob("*.json.part"))


def test_a_damaged_file_is_not_taken_for_nothing(desk: Desk, tmp_path: Path) -> None:
    desk.put_plan(held("one"))
    (tmp_path / "desk" / "held" / "shop.json").write_text("{}")
    with pytest.raises(Refusal, match="not a valid"):
        desk.held("shop")
