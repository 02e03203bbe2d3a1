"""The sandbox's edges. Containers are started in tests/e2e/test_sandbox_escape.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from sekisho.builds import SandboxLimits
from sekisho.errors import TemporaryError
from sekisho.registry import Registry
from stages.build.failures import remedy_of
from stages.build.sandbox import Sandbox

LIMITS = SandboxLimits(output="8Mi", scratch="4Mi", files=200, processes=32)


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        ("dd: error writing 'x': No space left on device", "8 MiB and 200 files"),
        ("npm error code ENOSPC", "/tmp holds 4 MiB"),
        ("sh: 1: Cannot fork", "32 processes"),
        ("RuntimeError: can't start new thread", "32 processes"),
        ("java.lang.OutOfMemoryError: unable to create native thread: possibly out of memory", "32 processes"),
        ("runtime: failed to create new OS thread (have 9 already; errno=11)", "32 processes"),
        ("npm error code EAI_AGAIN", "no network"),
        ("curl: (6) Could not resolve host: example.org", "no network"),
        ("fatal: unable to access 'https://x/': Couldn't resolve host 'x'", "no network"),
        ("dial tcp: lookup proxy.golang.org: no such host", "no network"),
        (
            "hint\npsycopg2-binary==2.9.3 has only a source package here, and it cannot be built.",
            "Lock a version of psycopg2-binary that has a wheel",
        ),
        (
            "the current Python version (3.11.2) does not satisfy Python>=3.12\n and django>=6.0 depends on it",
            "Write 3.12 or newer",
        ),
        ("(3.11.2) does not\n      satisfy Python>=3.12 and y (3.11.2) does not satisfy Python>=3.13", "Write 3.13 or"),
        ("error TS2304: Cannot find name 'x'.", "Run the step where there is no network"),
        ("", "Run the step where there is no network"),
    ],
)
def test_what_the_last_words_mean_is_said(words: str, advice: str) -> None:
    assert advice in remedy_of(words, LIMITS)
    assert "fewer workers" in remedy_of(words, LIMITS, starved=True)


def test_an_engine_that_is_not_there_is_temporary(tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path / "none.sock", Registry("http://127.0.0.1:9"), tmp_path)
    with pytest.raises(TemporaryError, match="Docker engine"):
        sandbox.sweep()
