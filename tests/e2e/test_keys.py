"""Every key of the build zone is made anew, on the running zones: what was sealed stands, what is sealed counts."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from line import ROOT, cli, cli_json, pushed, receipt, verdict, workload

pytestmark = [pytest.mark.e2e, pytest.mark.long]

APP = "e2e-keys"
ROLES = ("builder", "scanner", "verifier")


def _sealed(folder: Path) -> str:
    """Push the static site, and return the release."""
    commit, output = pushed(APP, workload(folder, APP, source=ROOT / "examples" / "site"))
    record = verdict(APP, commit)
    assert record["release"], output
    return str(record["release"])


def _keys() -> dict[str, dict[str, Any]]:
    return {item["key_id"]: item for item in cli_json("keys", "list") if item["role"] in ROLES}


def test_keys_are_rotated_and_one_is_revoked_while_the_line_runs(zones: Any, tmp_path: Path) -> None:
    before = _sealed(tmp_path / "before")
    receipt(APP, before, "staging", "healthy")
    old = {key for key, item in _keys().items() if item["signs_here"]}
    for role in ROLES:
        cli("keys", "rotate", role, "--overlap", "1h")
    cli("up")
    new = {key for key, item in _keys().items() if item["signs_here"]}
    assert len(new) == len(old) == len(ROLES)
    assert not new & old

    # What the new keys seal is built, judged, received and run, beside what the old ones sealed.
    after = _sealed(tmp_path / "after")
    receipt(APP, after, "staging", "healthy")
    for release in (before, after):
        cli("verify", release)
        assert "PASSED" in cli("why", release).stdout

    # Taken back, an old key says nothing any more to who sees it now; what counted then is asked for by its time.
    then = _time(-1)
    now = _time(0)
    for key in sorted(old):
        cli("keys", "revoke", key, "--from", now, "--reason", "the old laptop was sold")
    assert all("sold" in _keys()[key]["revoked_because"] for key in old)
    refused = cli("verify", before, check=False)
    assert refused.returncode == 1
    assert "revoked" in refused.stdout
    cli("verify", before, "--at", then)
    cli("verify", after)

    last = _sealed(tmp_path / "last")
    receipt(APP, last, "staging", "healthy")
    cli("verify", last)


def _time(after: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + after))
