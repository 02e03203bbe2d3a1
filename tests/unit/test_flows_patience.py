"""Patience: what ended in a fault is tried again, later each time."""

from __future__ import annotations

from flows.patience import FIRST_SECONDS, LONGEST_SECONDS, Patience


def test_each_fault_waits_longer_up_to_a_limit() -> None:
    now = 0.0
    patience = Patience(lambda: now)
    waits = [patience.fault("shop") for _ in range(40)]
    assert waits[:3] == [FIRST_SECONDS, 2 * FIRST_SECONDS, 4 * FIRST_SECONDS]
    assert waits[-1] == LONGEST_SECONDS


def test_what_is_due_and_what_waits() -> None:
    now = 100.0
    patience = Patience(lambda: now)
    assert not patience.waits("shop")
    patience.fault("shop")
    assert patience.waits("shop")
    assert patience.due() == ()
    now += FIRST_SECONDS
    assert not patience.waits("shop")
    assert patience.due() == ("shop",)
    assert patience.fault("shop") == 2 * FIRST_SECONDS


def test_success_is_forgiveness() -> None:
    now = 0.0
    patience = Patience(lambda: now)
    patience.fault("shop")
    patience.done("shop")
    patience.done("never failed")
    now += LONGEST_SECONDS
    assert patience.due() == ()
    assert patience.fault("shop") == FIRST_SECONDS
