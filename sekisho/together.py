"""Several calls at once: what waits for a registry's answers waits once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, overload

A = TypeVar("A")
B = TypeVar("B")
T = TypeVar("T")

AT_ONCE = 6
"""Calls that are made at the same time."""


@overload
def together(first: Callable[[], A], second: Callable[[], B], /) -> tuple[A, B]: ...


@overload
def together(*calls: Callable[[], T]) -> tuple[T, ...]: ...


def together(*calls: Callable[[], Any]) -> tuple[Any, ...]:
    """Make calls in threads of their own, and return their results in the order of the calls.

    All of them have ended when it returns or raises. The threads are new ones: they have the network namespace of the
    thread that asks for them.

    Raises:
        BaseException: that of the first call, in their order, that raised.
    """
    if len(calls) <= 1:
        return tuple(call() for call in calls)
    with ThreadPoolExecutor(min(len(calls), AT_ONCE), thread_name_prefix="together") as pool:
        futures = [pool.submit(call) for call in calls]
    return tuple(future.result() for future in futures)
