"""Every language's example through the whole line: pushed, judged, sealed, and answering in staging."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from line import ROOT, pushed, receipt, until, verdict, workload

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("zones")]
COLD = 900.0
"""Seconds: the first push of a language may fetch and compile all that later ones find."""


@pytest.mark.parametrize(
    ("example", "image", "path", "shown"),
    [
        ("palette", "node", "/", "<"),
        ("tegata", "go", "/", "<"),
        ("site", "static", "/", "<"),
        pytest.param("guestbook", "python-3-13", "/", "Guestbook", marks=pytest.mark.long),
        pytest.param("tokaido", "rust", "/", "Odawara", marks=pytest.mark.long),
        pytest.param("chaya", "java", "/", "", marks=pytest.mark.long),
    ],
)
def test_the_example_of_each_language_is_released_and_answers_in_staging(
    tmp_path: Path, example: str, image: str, path: str, shown: str
) -> None:
    app = f"{example}-line"
    source = workload(tmp_path, app, source=ROOT / "examples" / example)
    if image == "python-3-13":
        (source / ".python-version").write_text("3.13\n")
    commit, output = pushed(app, source, seconds=COLD)
    record = verdict(app, commit)
    assert record["verdict"]["result"] == "PASSED", output
    assert f" on {image}, " in output
    assert record["release"], output
    healthy = receipt(app, record["release"], "staging", "healthy")
    url = healthy["body"]["url"].rstrip("/") + path
    answer = until(lambda: _get(url), f"an answer of {app}")
    assert answer.status_code == httpx.codes.OK
    assert shown in answer.text


def _get(url: str) -> httpx.Response | None:
    try:
        return httpx.get(url, timeout=30, follow_redirects=True, trust_env=False)
    except httpx.HTTPError:
        return None
