"""What the flows share that needs no engine: loops that never end, and strangers' words on pages."""

from __future__ import annotations

import asyncio

import pytest

from flows import glue
from sekisho.errors import TemporaryError


@pytest.mark.parametrize("trouble", [TemporaryError("away"), ValueError("a bug")])
def test_a_loop_tries_again_soon_after_an_error_and_pauses_after_success(
    trouble: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    turns = iter([trouble, None, trouble, None])

    async def turn() -> None:
        found = next(turns)
        if found is not None:
            raise found

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 4:
            raise asyncio.CancelledError

    monkeypatch.setattr(glue.anyio, "sleep", sleep)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(glue.forever("prepare", turn, pause=300.0, after_error=2.0))
    assert slept == [2.0, 300.0, 2.0, 300.0]


def test_a_strangers_words_are_shown_and_not_obeyed() -> None:
    shown = glue.in_markdown("<img src=x onerror=alert(1)> | [a](javascript:b) `c` ![d](http://e)\n# f \x1b[31m\u202e")
    for raw in ("<", "\n", "\x1b", "\u202e"):
        assert raw not in shown
    for mark in "|[]()`!#":
        assert shown.count(mark) == shown.count(f"\\{mark}")
    assert glue.in_markdown("GET /healthz: 200") == "GET /healthz: 200"


def test_a_page_that_cannot_be_kept_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(**_: str) -> None:
        raise RuntimeError("the engine takes no such text")

    monkeypatch.setattr(glue, "acreate_markdown_artifact", refuse)
    asyncio.run(glue.leave_artifact("shop-verdict", "text", "words"))
