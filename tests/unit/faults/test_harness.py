"""Without a fault the line passes and releases: else no test in here could fail."""

from __future__ import annotations

from fault_line import GateLine


def test_without_a_fault_the_commit_passes_and_is_released(line: GateLine) -> None:
    line.real_scanner()
    outcome = line.start().push()
    line.check_released(outcome)
    assert "2 packages, 0 findings (mirror advisories)" in outcome.text
    assert ", seen by requirements.txt." in outcome.text
    assert line.traces() == {
        "release", "signature", "summary in apps", "summary in releases", "summary in verdicts", "feed",
    }  # fmt: skip


def test_from_the_scan_on_too(scanned: GateLine) -> None:
    outcome = scanned.start().push()
    scanned.check_released(outcome)
    assert "(known)" in outcome.text
    assert ", seen by requirements.txt. (known)" in outcome.text
