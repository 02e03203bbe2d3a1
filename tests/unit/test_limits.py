"""limits.yaml and waivers.yaml: what they may say, and that a fault in them stops the line."""

import datetime as dt
import shutil
from pathlib import Path

import pytest

from sekisho.errors import PermanentError
from sekisho.limits import UnfixedLimits, at_least, load_limits
from sekisho.model import Finding, Severity
from sekisho.waivers import Place, Waiver

POLICIES = Path(__file__).parent.parent.parent / "policies"
WAIVER = """\
format: sekisho.dev/waivers/v1
waivers:
  - id: CVE-2026-1
    app: shop
    package: jinja2
    owner: security team
    reason: not reachable, no template is user input
    expires: 2026-12-31
"""
ONE = "{id: CVE-1, app: shop, package: x, owner: me, reason: because I say so, expires: 2026-01-01}"


def folder(tmp_path: Path, *, limits: tuple[str, str] = ("", ""), waivers: str = "") -> Path:
    text = (POLICIES / "limits.yaml").read_text(encoding="utf-8")
    assert limits[0] in text
    (tmp_path / "limits.yaml").write_text(text.replace(*limits) if limits[0] else text, encoding="utf-8")
    if waivers:
        (tmp_path / "waivers.yaml").write_text(waivers, encoding="utf-8")
    return tmp_path


def test_the_limits_in_force() -> None:
    limits = load_limits(POLICIES)
    assert (limits.vulnerabilities.fail, limits.misconfigurations.fail, limits.secrets) == ("CRITICAL", "HIGH", "fail")
    assert limits.releases("main")
    assert not limits.releases("topic")


def test_kubernetes_versions_in_their_order(tmp_path: Path) -> None:
    assert load_limits(folder(tmp_path, limits=('"1.33", "1.34", "1.35"', '"1.35", "1.33"'))).kubernetes == (
        "1.33", "1.35", "1.36", "1.37"
    )  # fmt: skip


def test_order_of_severities() -> None:
    order = [Severity.UNKNOWN, Severity.LOW, Severity.MEDIUM, Severity.HIGH, Severity.CRITICAL]
    assert [[at_least(one, other) for other in order] for one in order] == [
        [index >= other for other in range(5)] for index in range(5)
    ]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("format: sekisho.dev/limits/v1\n", "", "/format"),
        ("limits/v1", "limits/v2", "/format"),
        ("secrets: fail", "secrets: ignore", "/secrets"),
        ("secrets: fail", "secrets: fail\nunknown: 1", "/unknown"),
        ("max_age_hours: 72", "max_age_hours: 0", "/database/max_age_hours"),
        ('"1.37"]', '"1.99"]', "no schemas of Kubernetes 1.99 here"),
        ('kubernetes: ["1.33", ', "kubernetes: [1.33, ", "/kubernetes/0"),
        ("fail: CRITICAL, warn: HIGH", "fail: HIGH, warn: CRITICAL", "/vulnerabilities"),
        ("fail: CRITICAL", "fail: SERIOUS", "/vulnerabilities/fail"),
        ("release_branches: [main]", "release_branches: []", "/release_branches"),
        ("os_families: [debian]", "os_families: []", "/os_families"),
        ("secrets: fail", "secrets: fail\nsecrets: fail", "twice"),
        ("secrets: fail", f"secrets: fail\nwaivers: [{ONE}]", "do not stand in limits.yaml"),
        ("secrets: fail", "secrets: fail\nown_advisories: true", "do not stand in limits.yaml"),
        ("workload: fail", "workload: ignore", "/unfixed/workload"),
        ("workload: fail", "workload: fail, days: 0", "/unfixed/days"),
    ],
)
def test_limits_that_are_not_valid(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(PermanentError, match=message):
        load_limits(folder(tmp_path, limits=(old, new)))


def test_no_limits_is_no_pass(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match="cannot be read"):
        load_limits(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("    package: jinja2\n", "", "exactly one of package and where"),
        ("    package: jinja2\n", "    package: jinja2\n    where: x\n", "exactly one of package and where"),
        ("    app: shop\n", "", "/waivers/0: a waiver names exactly one of app and base"),
        ("    expires: 2026-12-31\n", "", "/waivers/0/expires"),
        ("2026-12-31", "never", "/waivers/0/expires"),
        ("    owner: security team\n", "", "/waivers/0/owner"),
        ("not reachable, no template is user input", "ok", "/waivers/0/reason"),
    ],
)
def test_waivers_that_are_not_narrow(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in WAIVER
    with pytest.raises(PermanentError, match=message):
        load_limits(folder(tmp_path, waivers=WAIVER.replace(old, new)))


def test_errors_name_the_line(tmp_path: Path) -> None:
    shutil.copy(POLICIES / "limits.yaml", tmp_path)
    (tmp_path / "waivers.yaml").write_text(WAIVER.replace("2026-12-31", "never"), encoding="utf-8")
    with pytest.raises(PermanentError) as caught:
        load_limits(tmp_path)
    assert caught.value.where == f"{tmp_path}/waivers.yaml:8"


def test_what_a_waiver_covers(tmp_path: Path) -> None:
    (waiver,) = load_limits(folder(tmp_path, waivers=WAIVER)).waivers
    finding = Finding(
        kind="vulnerability",
        id="CVE-2026-1",
        severity=Severity.CRITICAL,
        title="",
        where="requirements.txt",
        package="jinja2",
        owner="workload",
    )
    assert waiver.covers(Place("shop"), finding)
    assert not waiver.covers(Place("shop2"), finding)
    assert not waiver.covers(Place("shop"), finding.model_copy(update={"package": "flask"}))
    assert not waiver.covers(Place("shop"), finding.model_copy(update={"id": "CVE-2026-2"}))
    assert not waiver.covers(Place("shop"), finding.model_copy(update={"kind": "secret"}))
    assert not waiver.expired(dt.date(2026, 12, 31))
    assert waiver.expired(dt.date(2027, 1, 1))
    place = Waiver.model_validate(waiver.model_dump() | {"package": "", "where": "Deployment/shop", "id": "KSV-1"})
    misconfiguration = finding.model_copy(
        update={"kind": "misconfiguration", "id": "KSV-1", "where": "Deployment/shop"}
    )
    assert place.covers(Place("shop"), misconfiguration)
    assert not place.covers(Place("shop"), misconfiguration.model_copy(update={"where": "Deployment/other"}))


JINJA = Finding(
    kind="vulnerability",
    id="CVE-2026-1",
    severity=Severity.CRITICAL,
    title="",
    where="requirements.txt",
    package="jinja2",
    installed="2.10",
    purl="pkg:pypi/jinja2@2.10",
    owner="workload",
)
SSL = JINJA.model_copy(
    update={"package": "libssl3", "installed": "3.0", "purl": "pkg:deb/debian/libssl3@3.0?arch=amd64",
            "owner": "platform"}
)  # fmt: skip
SHOP = Place("shop", base="python")


def waiver(**change: object) -> Waiver:
    value = {"id": "CVE-2026-1", "app": "shop", "owner": "security team", "reason": "not reachable here",
             "expires": "2026-12-31"}  # fmt: skip
    return Waiver.model_validate({**value, **change})


@pytest.mark.parametrize(
    ("scope", "finding", "covers"),
    [
        ({"package": "jinja2"}, JINJA, True),
        ({"package": "jinja2", "versions": ["2.10"]}, JINJA, True),
        ({"package": "jinja2", "versions": ["2.9", "2.9.1"]}, JINJA, False),
        ({"package": "pkg:pypi/Jinja2"}, JINJA, True),
        ({"package": "pkg:pypi/jinja2@2.10"}, JINJA, True),
        ({"package": "pkg:pypi/jinja2@2.9"}, JINJA, False),
        ({"package": "pkg:npm/jinja2"}, JINJA, False),
        ({"package": "pkg:pypi/jinja2", "versions": ["2.10"]}, JINJA, True),
        ({"package": "pkg:pypi/jinja2"}, JINJA.model_copy(update={"purl": ""}), False),
        ({"package": "pkg:pypi/jinja2"}, JINJA.model_copy(update={"purl": "no package URL"}), False),
        ({"package": "libssl3"}, SSL, True),
        ({"app": "", "base": "python", "package": "libssl3"}, SSL, True),
        ({"app": "", "base": "python", "package": "pkg:deb/debian/libssl3"}, SSL, True),
        ({"app": "", "base": "node", "package": "libssl3"}, SSL, False),
        ({"app": "", "base": "python", "package": "jinja2"}, JINJA, False),
    ],
)
def test_the_scope_of_a_waiver(scope: dict[str, object], finding: Finding, covers: bool) -> None:  # noqa: FBT001
    assert waiver(**scope).covers(SHOP, finding) == covers


def test_a_waiver_of_a_standard_image_holds_for_the_image_itself() -> None:
    assert waiver(app="", base="python", package="libssl3").covers(Place("standard-python", base="python"), SSL)


@pytest.mark.parametrize(
    ("scope", "said"),
    [
        ({"app": "shop", "base": "python", "package": "x"}, "exactly one of app and base"),
        ({"where": "Deployment/shop", "versions": ["1"]}, "only a package has versions"),
        ({"package": "pkg:pypi/jinja2@2.10", "versions": ["2.10"]}, "stands in the package URL already"),
        ({"package": "pkg:"}, "purl"),
    ],
)
def test_a_waiver_whose_scope_is_not_clear(scope: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        waiver(**scope)


@pytest.mark.parametrize(
    ("unfixed", "change", "answer"),
    [
        ({}, {}, "fail"),
        ({"workload": "warn"}, {}, "warn"),
        ({"workload": "warn"}, {"fixed": "2.11"}, "fail"),
        ({"workload": "warn"}, {"source": "own advisories"}, "fail"),
        ({"workload": "warn"}, {"kind": "coverage"}, "fail"),
        ({"workload": "warn"}, {"owner": "platform"}, "fail"),
        ({"platform": "warn"}, {"owner": "platform"}, "warn"),
        ({"workload": "warn", "days": 30}, {}, "fail"),
        ({"workload": "warn", "days": 30}, {"published": "2026-10-27"}, "warn"),
        ({"workload": "warn", "days": 30}, {"published": "2026-10-26"}, "fail"),
    ],
)
def test_a_vulnerability_that_nobody_has_mended_yet(
    unfixed: dict[str, object], change: dict[str, object], answer: str
) -> None:
    limits = UnfixedLimits.model_validate(unfixed)
    assert limits.answer(JINJA.model_copy(update=change), dt.date(2026, 11, 26)) == answer


def test_limits_without_the_rule_fail_as_they_always_did(tmp_path: Path) -> None:
    rule = "unfixed: {platform: warn, workload: fail}\n"
    limits = load_limits(folder(tmp_path, limits=(rule, "")))
    assert (limits.unfixed.platform, limits.unfixed.workload) == ("fail", "fail")
    assert load_limits(POLICIES).unfixed.platform == "warn"


def test_limits_know_whether_there_are_own_advisories(tmp_path: Path) -> None:
    place = folder(tmp_path)
    assert not load_limits(place).own_advisories
    (place / "advisories.yaml").write_text("format: sekisho.dev/advisories/v1\nowner: security team\n")
    assert load_limits(place).own_advisories
    (place / "advisories.yaml").write_text("format: sekisho.dev/advisories/v1\n")
    with pytest.raises(PermanentError, match="/owner"):
        load_limits(place)


def test_a_broken_vex_document_stops_the_line(tmp_path: Path) -> None:
    place = folder(tmp_path)
    (place / "vex").mkdir()
    (place / "vex" / "x.json").write_text("{}")
    with pytest.raises(PermanentError, match="not listed"):
        load_limits(place)
