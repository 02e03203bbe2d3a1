"""What no reader of a stranger's files foresaw: a refusal, logged, and no fault of the line."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from sekisho.errors import Refusal
from stages.build.language import Plan, Unlocked
from stages.build.planning import draft
from stages.build.project import Project


class _Offered:
    def offered(self, language: str) -> tuple[str, ...]:
        del language
        return ("1",)

    def for_language(self, language: str, version: str = "") -> Any:
        raise NotImplementedError(language, version)


class _Broken:
    name, title = "broken", "Broken"

    def __init__(self, error: BaseException, *, early: bool = False) -> None:
        self._error, self._early = error, early

    def recognise(self, project: Project) -> str:
        del project
        if self._early:
            raise self._error
        return "x"

    def plan(self, project: Project, offered: tuple[str, ...]) -> Plan | Unlocked:
        del project, offered
        raise self._error


@pytest.mark.parametrize(
    "error",
    [ValueError("\ud800"), TypeError(), KeyError("x"), AttributeError(), IndexError(), RecursionError(),
     UnicodeEncodeError("utf-8", "\ud800", 0, 1, "x")],
)  # fmt: skip
@pytest.mark.parametrize("early", [False, True])
def test_what_no_reader_foresaw_is_a_refusal(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, error: Exception, *, early: bool
) -> None:
    with caplog.at_level(logging.ERROR), pytest.raises(Refusal, match="a form that cannot be read") as caught:
        draft(Project(tmp_path), _Offered(), [_Broken(error, early=early)])
    assert caught.value.remedy
    assert ("this folder" if early else "Broken") in caught.value.what
    assert "Traceback" in caplog.text  # for who mends the reader
    caplog.text.encode()


@pytest.mark.parametrize("error", [OSError("disk"), MemoryError(), Refusal("no"), KeyboardInterrupt()])
def test_faults_of_the_line_and_refusals_pass(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        draft(Project(tmp_path), _Offered(), [_Broken(error)])
    assert caught.value is error
