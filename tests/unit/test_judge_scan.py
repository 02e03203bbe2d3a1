"""What the judge makes of a scan: limits, what holds a finding and for how long, whose it is and what is to be done."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest

from sekisho.limits import Limits, UnfixedLimits, load_limits
from sekisho.model import AdvisoryDatabase, Coverage, Finding, Reason, Scan, Severity, Tool
from sekisho.vex import VexClaim
from sekisho.waivers import Waiver
from stages.judge_rules import scan_reasons

POLICIES = Path(__file__).parent.parent.parent / "policies"
DIGEST, BASE = "sha256:" + "1" * 64, "sha256:" + "2" * 64
NOW = dt.datetime(2026, 11, 26, 12, tzinfo=dt.UTC)
END = dt.date(2026, 12, 31)
AFTER = NOW + dt.timedelta(days=60)
JINJA = Finding(
    kind="vulnerability", id="CVE-2026-1", severity=Severity.CRITICAL, title="Sandbox escape", where="requirements.txt",
    package="jinja2", installed="2.10", fixed="2.11", purl="pkg:pypi/jinja2@2.10", owner="workload",
)  # fmt: skip
SSL = Finding(
    kind="vulnerability", id="CVE-2026-2", severity=Severity.CRITICAL, title="Overflow", where="apps/shop",
    package="libssl3", installed="3.0", purl="pkg:deb/debian/libssl3@3.0?arch=amd64&distro=debian-12", owner="platform",
)  # fmt: skip


@pytest.fixture(scope="module")
def limits() -> Limits:
    return load_limits(POLICIES)


def scan_of(*findings: Finding, own: str = "") -> Scan:
    return Scan(
        image=DIGEST,
        scanner=Tool(name="trivy", version="1", digest=DIGEST),
        database=AdvisoryDatabase(digest=DIGEST, updated_at="2026-11-26T00:00:00Z", kind="sample"),
        findings=findings,
        coverage=Coverage(os_family="debian", os_version="12.1", os_packages=1, language_packages=1, locked=1),
        sbom=DIGEST,
        own_advisories=own,
    )


def judged(limits: Limits, *findings: Finding, at: dt.datetime = NOW, own: str = "", **change: Any) -> list[Reason]:
    """Return what does not simply pass."""
    changed = limits.model_copy(update=change)
    reasons, _ = scan_reasons(
        "shop", scan_of(*findings, own=own), changed, int(at.timestamp()), base="python", base_digest=BASE
    )
    return [reason for reason in reasons if reason.result != "pass"]


def waiver(**change: Any) -> Waiver:
    return Waiver.model_validate(
        {"id": "CVE-2026-1", "app": "shop", "package": "jinja2", "owner": "security team",
         "reason": "not reachable here", "expires": END, **change}
    )  # fmt: skip


def claim(**change: Any) -> VexClaim:
    value = {"file": "vex/shop.json", "owner": "security team", "reason": "reviewed by hand", "expires": END,
             "ids": ("CVE-2026-1",), "repository": "apps/shop", "packages": ("pkg:pypi/jinja2",),
             "status": "not_affected", "why": "vulnerable_code_not_present", "at": NOW}  # fmt: skip
    return VexClaim.model_validate({**value, **change})


def test_what_holds_a_finding_is_said_and_the_finding_stays(limits: Limits) -> None:
    (waived,) = judged(limits, JINJA, waivers=(waiver(versions=("2.10",)),))
    said = "CRITICAL CVE-2026-1 in jinja2 2.10: Sandbox escape"
    assert (waived.rule, waived.result) == ("scan/vulnerabilities", "warn")
    assert waived.message == f"{said} Waived: not reachable here (security team, until 2026-12-31)"
    (stated,) = judged(limits, JINJA, vex=(claim(),))
    assert stated.message == (
        f"{said} Not affected: vulnerable_code_not_present (vex/shop.json, security team, until 2026-12-31)"
    )
    (mended,) = judged(limits, JINJA, vex=(claim(status="fixed", why="fixed"),))
    assert "Fixed: fixed (vex/shop.json" in mended.message


@pytest.mark.parametrize("change", [{"waivers": (waiver(),)}, {"vex": (claim(),)}])
def test_what_held_a_finding_and_expired_opens_the_gate_again(limits: Limits, change: dict[str, Any]) -> None:
    assert [reason.result for reason in judged(limits, JINJA, **change)] == ["warn"]
    (again,) = judged(limits, JINJA, at=AFTER, **change)
    assert (again.result, "expired on 2026-12-31." in again.message) == ("fail", True)


def test_a_waiver_for_one_version_does_not_hold_for_the_next(limits: Limits) -> None:
    newer = JINJA.model_copy(update={"installed": "2.10.1", "purl": "pkg:pypi/jinja2@2.10.1"})
    for one in (waiver(versions=("2.10",)), waiver(package="pkg:pypi/jinja2@2.10")):
        assert [reason.result for reason in judged(limits, newer, waivers=(one,))] == ["fail"]


def test_a_waiver_of_the_platform_team_holds_for_what_stands_on_their_image(limits: Limits) -> None:
    strict = {"unfixed": UnfixedLimits()}
    about = waiver(id="CVE-2026-2", app="", base="python", package="libssl3", owner="platform team")
    assert [reason.result for reason in judged(limits, SSL, **strict)] == ["fail"]
    assert [reason.result for reason in judged(limits, SSL, waivers=(about,), **strict)] == ["warn"]
    stated = claim(ids=("CVE-2026-2",), repository="standard/python", packages=("pkg:deb/debian/libssl3",))
    assert [reason.result for reason in judged(limits, SSL, vex=(stated,), **strict)] == ["warn"]
    exactly = stated.model_copy(update={"digest": BASE})
    assert [reason.result for reason in judged(limits, SSL, vex=(exactly,), **strict)] == ["warn"]
    other = stated.model_copy(update={"digest": DIGEST})
    assert [reason.result for reason in judged(limits, SSL, vex=(other,), **strict)] == ["fail"]


def test_what_nobody_has_mended_yet(limits: Limits) -> None:
    (waiting,) = judged(limits, SSL)
    assert (waiting.result, waiting.owner) == ("warn", "platform")
    assert waiting.message.endswith("Nobody has mended it yet: it fails as soon as there is a fix.")
    (mended,) = judged(limits, SSL.model_copy(update={"fixed": "3.1"}))
    assert mended.result == "fail"
    assert [reason.result for reason in judged(limits, JINJA.model_copy(update={"fixed": ""}))] == ["fail"]


def test_what_the_operator_denies_fails_and_names_its_source(limits: Limits) -> None:
    denied = SSL.model_copy(update={"id": "ACME-2026-0001", "source": "own advisories"})
    (found,) = judged(limits, denied, own=DIGEST)
    assert (found.result, found.message) == (
        "fail", "CRITICAL ACME-2026-0001 in libssl3 3.0: Overflow (from own advisories)",
    )  # fmt: skip


def test_a_scan_that_did_not_look_into_own_advisories_is_not_whole(limits: Limits) -> None:
    assert judged(limits, own_advisories=False) == []
    (missing,) = judged(limits, own_advisories=True)
    assert (missing.rule, missing.result, missing.owner) == ("scan/own-advisories", "fail", "platform")
    assert judged(limits, own=DIGEST, own_advisories=True) == []


def test_a_report_cannot_hold_its_own_findings_back(limits: Limits) -> None:
    assert [reason.result for reason in judged(limits, JINJA.model_copy(update={"suppressed": "trust me"}))] == ["fail"]


@pytest.mark.parametrize(
    ("finding", "remedy"),
    [
        (JINJA, "Update jinja2 to 2.11 and lock again."),
        (JINJA.model_copy(update={"fixed": ""}), ("There is no fix yet: replace jinja2, or ask the security team for a "
         "waiver with an end.")),
        (JINJA.model_copy(update={"fixed": "", "source": "own advisories"}),
         "Take another version of jinja2, or another package: this one is denied here."),
        (SSL.model_copy(update={"fixed": "3.1"}),
         ("It sits in the standard image python: the platform team moves it to 3.1. What stands on it is then rebased "
         "and judged again by itself; nothing is to be done in the workload.")),
        (SSL, ("It sits in the standard image python and has no fix yet. The platform team decides; nothing is to be "
         "done in the workload.")),
        (SSL.model_copy(update={"kind": "coverage", "id": "os-unknown"}),
         "The platform team looks at the standard image python; nothing is to be done in the workload."),
    ],
)  # fmt: skip
def test_each_finding_says_whose_it_is_and_what_to_do(limits: Limits, finding: Finding, remedy: str) -> None:
    (found,) = judged(limits, finding)
    assert (found.owner, found.remedy) == (finding.owner, remedy)
