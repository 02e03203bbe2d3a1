"""Runs the example's own tests, which are in its own language."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def test_the_scale() -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    folder = Path(__file__).parent
    done = subprocess.run(
        [node, "--test", str(folder / "palette.test.js")], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
