"""The sandbox's edges. Containers are started in tests/e2e/test_sandbox_escape.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from sekisho.errors import TemporaryError
from sekisho.registry import Registry
from stages.build.sandbox import Sandbox


def test_an_engine_that_is_not_there_is_temporary(tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path / "none.sock", Registry("http://127.0.0.1:9"), tmp_path)
    with pytest.raises(TemporaryError, match="Docker engine"):
        sandbox.sweep()
