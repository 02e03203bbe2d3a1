"""Several calls at once."""

from __future__ import annotations

import threading

import pytest

from sekisho.together import AT_ONCE, together


def test_the_results_come_in_the_order_of_the_calls():
    barrier = threading.Barrier(3, timeout=10)  # none returns before all have begun

    def call(number):
        barrier.wait()
        return number

    assert together(*(lambda number=number: call(number) for number in range(3))) == (0, 1, 2)
    assert together() == ()
    assert together(lambda: 7) == (7,)


def test_the_first_error_is_raised_after_all_have_ended():
    ended = []

    def fail(text):
        raise ValueError(text)

    with pytest.raises(ValueError, match="first"):
        together(lambda: fail("first"), lambda: fail("second"), lambda: ended.append("third"))
    assert ended == ["third"]


def test_more_calls_than_threads_are_all_made():
    assert together(*(lambda number=number: number for number in range(5 * AT_ONCE))) == tuple(range(5 * AT_ONCE))
