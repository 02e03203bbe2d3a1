"""What waits until nothing is built: it is done, in order, when it is quiet or when somebody asks."""

from __future__ import annotations

import threading

import pytest

from stages.build.engine_chores import MOST, Chores

NEVER = 3_600.0
SOON = 0.05
LONG = 30.0


def test_chores_are_done_in_order_when_it_is_quiet() -> None:
    done: list[int] = []
    last = threading.Event()
    chores = Chores(SOON)
    with chores.work():
        for number in range(5):
            chores.add(lambda number=number: done.append(number))
        chores.add(last.set)
        assert not last.wait(SOON * 4)
        assert done == []
    assert last.wait(LONG)
    assert done == [0, 1, 2, 3, 4]


def test_what_was_built_a_moment_ago_is_not_yet_quiet() -> None:
    done = threading.Event()
    chores = Chores(NEVER)
    with chores.work():
        pass
    chores.add(done.set)
    assert not done.wait(SOON)
    chores.settle()
    assert done.is_set()


def test_where_nothing_was_built_nothing_is_waited_for() -> None:
    done = threading.Event()
    Chores(NEVER).add(done.set)
    assert done.wait(LONG)


def test_who_rests_need_not_wait_for_quiet() -> None:
    done: list[str] = []
    last = threading.Event()
    chores = Chores(NEVER)
    with chores.work():
        chores.add(lambda: done.append("later"))
        chores.add(last.set)
        chores.add(lambda: done.append("first"), first=True)
        chores.rest()
        assert not last.wait(SOON)  # something else is being built
    chores.rest()
    assert last.wait(LONG)
    assert done == ["first", "later"]


def test_a_line_that_never_rests_still_has_its_chores_done() -> None:
    done: list[int] = []
    enough = threading.Event()

    def chore(number: int) -> None:
        done.append(number)
        if len(done) == 3:
            enough.set()

    chores = Chores(NEVER)
    with chores.work():
        for number in range(MOST + 3):
            chores.add(lambda number=number: chore(number))
        assert enough.wait(LONG)
        assert done[:3] == [0, 1, 2]


def test_settling_waits_for_what_is_under_way_and_does_what_it_adds() -> None:
    begun, go = threading.Event(), threading.Event()
    done: list[str] = []
    chores = Chores(0.0)

    def slow() -> None:
        begun.set()
        assert go.wait(LONG)
        chores.add(lambda: done.append("after"))
        done.append("slow")

    chores.add(slow)
    assert begun.wait(LONG)
    settled = threading.Event()
    waiter = threading.Thread(target=lambda: (chores.settle(), settled.set()))
    waiter.start()
    assert not settled.wait(SOON)
    go.set()
    assert settled.wait(LONG)
    waiter.join(LONG)
    assert done == ["slow", "after"]


def test_a_chore_that_fails_all_the_same_keeps_nobody_from_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    faults: list[threading.ExceptHookArgs] = []
    told = threading.Event()
    monkeypatch.setattr(threading, "excepthook", lambda fault: (faults.append(fault), told.set()))

    def wrong() -> None:
        raise ValueError("a mistake of ours")

    done = threading.Event()
    chores = Chores(0.0)
    chores.add(wrong)
    chores.add(done.set)
    assert done.wait(LONG)
    assert told.wait(LONG)
    assert [fault.exc_type for fault in faults] == [ValueError]


def test_settling_from_several_threads_does_each_chore_once() -> None:
    chores = Chores(NEVER)
    done: list[int] = []
    with chores.work():
        for number in range(MOST):
            chores.add(lambda number=number: done.append(number))
        threads = [threading.Thread(target=chores.settle) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LONG)
    assert done == list(range(MOST))
