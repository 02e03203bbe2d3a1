"""A verdict as text on one screen, as JSON and as SARIF: golden files, the SARIF schema, and strangers' words."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sekisho.canonical import digest_of
from sekisho.model import Finding, Reason, Result, Severity, Verdict
from sekisho.policy import load_policies
from sekisho.sarif import to_sarif
from sekisho.verdict_forms import FORMS, written
from sekisho.verdict_groups import items, mends_all
from sekisho.verdict_rules import RULES, RuleText, with_policies
from sekisho.verdict_text import verdict_lines
from stages.judge import Rules, judge, load_rules
from tests.unit.test_judge import AT, scanned

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
COMMIT = "c0ffee" + "0" * 34
POLICY = digest_of(b"policy")


@pytest.fixture(scope="module")
def schema() -> Any:
    """SARIF's own schema, out of Microsoft's SDK for it (MIT, data/sarif/LICENSE), as it stands there."""
    return jsonschema_rs.validator_for(json.loads((HERE / "data/sarif/sarif-2.1.0.json").read_text(encoding="utf-8")))


def verdict(*reasons: Reason, notes: tuple[str, ...] = ()) -> Verdict:
    failed = any(reason.result == "fail" for reason in reasons)
    result = Result.FAILED if failed else Result.PASSED
    return Verdict(app="shop", commit=COMMIT, result=result, policy=POLICY, reasons=reasons, notes=notes)


def told(rule: str, result: str, message: str, **more: Any) -> Reason:
    return Reason.model_validate({"rule": rule, "stage": "judge", "result": result, "message": message, **more})


def advisory(number: int, *, package: str = "jinja2", owner: str = "workload", **more: Any) -> Reason:
    finding = Finding.model_validate(
        {
            "kind": "vulnerability",
            "id": f"CVE-2026-{number:04d}",
            "severity": "CRITICAL",
            "title": "Sandbox escape",
            "where": f"opt/deps/{package}",
            "package": package,
            "installed": "2.10",
            "fixed": "2.11",
            "owner": owner,
        }
        | more
    )
    result = "fail" if finding.severity is Severity.CRITICAL and not finding.suppressed else "warn"
    message = f"{finding.severity} {finding.id} in {package} {finding.installed}: {finding.title}"
    remedy = f"Update {package} to {finding.fixed} and lock again."
    return told(
        "scan/vulnerabilities", result, message, remedy=remedy, where=finding.where, owner=owner, finding=finding
    )


def many() -> Verdict:
    """A verdict with something of everything."""
    versions = ("2.11", "2.11.3, 3.0.1", "2.10.2")
    worse = [
        advisory(number, fixed=versions[number % 3], severity="CRITICAL" if number < 3 else "HIGH")
        for number in range(1000)
    ]
    base = {"owner": "platform", "where": "var/lib/dpkg/status.d/openssl", "installed": "3.0.15-1~deb12u1"}
    return verdict(
        told("build/language", "pass", "Python, because there is requirements.txt.", stage="build"),
        told("build/note", "warn", "The line chose the command itself.", stage="build"),
        told(
            "render/refused", "fail", "/containers/web/imagge: This key is unknown here.", stage="render",
            where="score.yaml:7", remedy="Did you mean 'image'?", owner="workload",
        ),
        told("evidence/image", "pass", "apps/shop c0ffee000000."),
        told("evidence/manifests", "fail", "Nothing was rendered.", remedy="Mend what render says above."),
        *worse,
        advisory(7001, package="openssl", fixed="3.0.15-1~deb12u2", **base),
        advisory(7002, package="openssl", fixed="3.0.15-1~deb12u10", severity="HIGH", **base),
        advisory(7003, package="zlib1g", fixed="", owner="platform", installed="1:1.2.13"),
        advisory(8001, package="lodash", suppressed="not reachable (security team, until 2026-12-31)"),
        told(
            "scan/secrets", "fail", "HIGH aws-key: An AWS key", where="web/settings.py:12", owner="workload",
            remedy="Revoke it now, for it is known; then remove it and read it from /bindings or a variable.",
            finding=Finding(
                kind="secret", id="aws-key", severity=Severity.HIGH, title="An AWS key", where="web/settings.py:12",
                owner="workload",
            ),
        ),
        told("admission/readiness-probe", "fail", "Deployment/shop: Container web has no readinessProbe.",
             where="Deployment/shop", remedy="Add a readinessProbe."),
        notes=("Sample advisories: a small database for demo and tests.",),
    )  # fmt: skip


def golden(name: str, found: bytes) -> None:
    """Compare with a golden file. To accept a wanted change, run this file with SEKISHO_GOLDEN=write."""
    path = HERE / "golden" / name
    if os.environ.get("SEKISHO_GOLDEN") == "write":
        path.write_bytes(found)
    assert found.decode() == path.read_text(encoding="utf-8")


def small() -> Verdict:
    """The same without most of the thousand."""
    whole = many()
    kept = [reason for reason in whole.reasons if "CVE-2026-0" not in reason.message or "-000" in reason.message]
    return whole.model_copy(update={"reasons": tuple(kept)})


# -- text ------------------------------------------------------------------------------------------------------------


def test_the_screen_of_a_push() -> None:
    golden("verdict.txt", "\n".join([*verdict_lines(many()), ""]).encode())


def test_every_rule_as_text() -> None:
    golden("verdict.all.txt", written(small(), "text"))


def test_whose_it_is_comes_apart() -> None:
    lines = verdict_lines(many())
    mine, theirs = lines.index("Yours to mend:"), lines.index("The platform team's to mend, nothing for you to do:")
    assert mine < theirs
    assert all("openssl" not in line and "zlib1g" not in line for line in lines[mine:theirs])
    assert all("jinja2" not in line and "lodash" not in line for line in lines[theirs:])
    assert lines[0] == "FAILED  shop c0ffee000000  6 problems: 4 yours, 2 the platform team's"
    only = verdict_lines(verdict(advisory(1, owner="platform")))
    assert only[0] == "FAILED  shop c0ffee000000  1 problem, the platform team's: nothing for you to do"
    assert "Yours to mend:" not in only


def test_a_thousand_advisories_of_one_package_are_one_update() -> None:
    (item, *_) = [item for item in items(many()) if "jinja2" in item.message]
    assert item.reasons == 1000
    assert item.message == (
        "jinja2 2.10 has 3 CRITICAL, 997 HIGH: CVE-2026-0000, CVE-2026-0001, CVE-2026-0002, CVE-2026-0003, "
        "CVE-2026-0004 and 995 more."
    )
    assert item.remedy == "Update jinja2 to 2.11.3 or later and lock again."


def test_a_waiver_and_a_missing_fix_are_not_hidden_in_a_group() -> None:
    found = items(
        verdict(
            advisory(1),
            advisory(2, fixed=""),
            advisory(3, suppressed="not reachable (me, until 2026-12-31)"),
            advisory(4, suppressed="not reachable (me, until 2026-12-31)"),
        )
    )
    assert [(item.result, item.reasons) for item in found] == [("fail", 2), ("warn", 2)]
    assert found[0].remedy == (
        "Update jinja2 to 2.11 or later and lock again. There is no fix of CVE-2026-0002 yet: replace jinja2, or ask "
        "the security team for a waiver with an end."
    )
    assert found[1].message.endswith("CVE-2026-0003, CVE-2026-0004. Waived: not reachable (me, until 2026-12-31)")
    assert found[1].remedy == ""


def test_one_kind_of_finding_in_many_places_is_one_item() -> None:
    (one, *_) = [reason for reason in many().reasons if reason.rule == "scan/secrets"]
    assert one.finding is not None
    places = [
        one.model_copy(update={"where": place, "finding": one.finding.model_copy(update={"where": place})})
        for place in ("a.py:1", "b.py:2", "c.py:3")
    ]
    (item,) = items(verdict(*places))
    assert (item.reasons, item.where) == (3, "a.py:1, b.py:2 and 1 more")


def test_consequences_are_one_line_after_their_cause() -> None:
    refused = told("build/refused", "fail", "No lock.")
    follow = [told(f"evidence/{name}", "fail", "Missing.") for name in ("image", "manifests", "scan")]
    lines = verdict_lines(verdict(refused, *follow))
    assert lines[0].endswith("1 problem, yours to mend")
    assert "  = not judged because of that: evidence/image, evidence/manifests, evidence/scan" in lines
    # Alone they are the problem itself.
    assert "  x evidence/scan: Missing." in verdict_lines(verdict(follow[2]))


@pytest.mark.parametrize("limit", [20, 40])
def test_a_screen_is_a_screen(limit: int) -> None:
    packages = [advisory(number, package=f"package{number}") for number in range(200)]
    theirs = [advisory(number, package=f"base{number}", owner="platform") for number in range(200)]
    lines = verdict_lines(verdict(*packages, *theirs, notes=("note " * 50,) * 30), limit=limit)
    assert len(lines) <= limit
    assert [line.endswith("more; --all shows them.") for line in lines].count(True) == 2
    # Also of what does not fit, the first of both is there.
    assert any("package0 " in line for line in lines)
    whole = verdict_lines(verdict(*packages, *theirs), limit=None)
    assert sum("-> Update package" in line for line in whole) == 200


NASTY = "\x1b[2J\x07\u202eevil\nFAILED? no:\rPASSED\u2028\ud83d\ude00"


@pytest.mark.parametrize("form", FORMS)
def test_strangers_do_not_steer_the_terminal(form: Any) -> None:
    nasty = NASTY.encode("utf-16", "surrogatepass").decode("utf-16")
    found = written(
        verdict(advisory(1, package=nasty, title=nasty), told("x/y", "fail", nasty, where=nasty), notes=(nasty,)), form
    ).decode()
    assert all(character == "\n" or (character.isprintable() and character != "\u202e") for character in found)


# -- versions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("installed", "fixed", "expected"),
    [
        ("2.10", ["2.11"], "2.11"),
        ("2.10", ["2.11", "2.11.3", "3.1.3"], "3.1.3"),
        ("4.17.1", ["4.17.9", "4.17.21"], "4.17.21"),
        # One advisory with a fix in each line that is still mended.
        ("2.12.1", ["2.12.5, 3.0.1"], "2.12.5"),
        ("3.0.0", ["2.12.5, 3.0.1"], "3.0.1"),
        ("2.12.1", ["2.12.5, 3.0.1", "3.0.0"], "3.0.1"),
        ("1.1.0", ["1.1.5, 1.2.3, 1.3.1", "1.2.0"], "1.2.3"),
        ("1.0", ["2.0rc1", "2.0"], "2.0"),
        ("2.36-9+deb12u4", ["2.36-9+deb12u7", "2.36-9+deb12u10"], "2.36-9+deb12u10"),
        ("v1.2.0", ["v1.9.0", "v1.10.0"], "v1.10.0"),
        ("1:1.0-1", ["1:1.0-2", "1:1.1~rc1-1"], "1:1.1~rc1-1"),
        ("5.3.18.RELEASE", ["5.3.20", "5.2.24.RELEASE, 5.3.27"], "5.3.27"),
        ("1.0", [], ""),
        ("1.0", [","], ""),
        ("9.9", ["2.0"], "2.0"),
    ],
)
def test_the_version_that_mends_all(installed: str, fixed: list[str], expected: str) -> None:
    assert mends_all(installed, fixed) == expected


@given(st.text(max_size=20), st.lists(st.text(max_size=20), max_size=5))
def test_any_version_is_survived(installed: str, fixed: list[str]) -> None:
    offered = {part.strip() for text in fixed for part in text.split(",")}
    assert mends_all(installed, fixed) in offered | {""}


# -- SARIF -----------------------------------------------------------------------------------------------------------


def run_of(found: Verdict, rules: Mapping[str, RuleText] = RULES) -> dict[str, Any]:
    run: dict[str, Any] = json.loads(to_sarif(found, rules))["runs"][0]
    return run


def test_sarif_golden() -> None:
    golden("verdict.sarif.json", to_sarif(small()))


def test_sarif_is_valid(schema: Any) -> None:
    for found in (many(), small(), verdict(), verdict(told("a/b", "pass", ""), notes=("", "x"))):
        log = json.loads(to_sarif(found))
        assert list(schema.iter_errors(log)) == []
    broken = json.loads(to_sarif(small()))
    broken["runs"][0]["results"][0]["level"] = "fatal"
    assert list(schema.iter_errors(broken))


def test_every_rule_is_a_result_with_its_level() -> None:
    run = run_of(many())
    found = many()
    assert len(run["results"]) == len(found.reasons)
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert sorted(set(rules)) == rules
    for reason, result in zip(found.reasons, run["results"], strict=True):
        assert rules[result["ruleIndex"]] == result["ruleId"] == reason.rule
        levels = {"pass": {"none"}, "fail": {"error"}, "warn": {"warning", "note"}}
        assert result["level"] in levels[reason.result]
        assert result["kind"] == ("pass" if reason.result == "pass" else "fail")
        assert ("What to do: " in result["message"]["text"]) == bool(reason.remedy)
        suppressed = reason.finding is not None and bool(reason.finding.suppressed)
        assert bool(result.get("suppressions")) == suppressed


def test_where_a_result_is() -> None:
    def place(where: str) -> tuple[str, int, list[str]]:
        (location,) = run_of(verdict(told("a/b", "fail", "x", where=where)))["results"][0]["locations"]
        physical = location["physicalLocation"]
        logical = [item["fullyQualifiedName"] for item in location.get("logicalLocations", [])]
        return physical["artifactLocation"]["uri"], physical["region"]["startLine"], logical

    assert place("score.yaml:7") == ("score.yaml", 7, [])
    assert place("src/a b%/\u00e4.py:12") == ("src/a%20b%25/%C3%A4.py", 12, [])
    assert place("requirements.txt") == ("requirements.txt", 1, [])
    assert place("Procfile") == ("Procfile", 1, [])
    assert place("Deployment/shop") == ("score.yaml", 1, ["Deployment/shop"])
    assert place("pkg:pypi/flask@3.0.0") == ("score.yaml", 1, ["pkg:pypi/flask@3.0.0"])
    assert place("shop") == ("score.yaml", 1, ["shop"])
    assert place("package.json (`scripts.start`)") == ("score.yaml", 1, ["package.json (`scripts.start`)"])
    assert place("") == ("score.yaml", 1, [])
    for outside in ("/etc/passwd", "../secret.txt", "a/../../b.txt", "file:///etc/passwd", "a//b.txt", "./a.txt"):
        assert place(outside)[:2] == ("score.yaml", 1)


def test_fingerprints_stay_and_differ() -> None:
    def prints(found: Verdict) -> list[str]:
        return [result["partialFingerprints"]["sekisho/v1"] for result in run_of(found)["results"]]

    found = many()
    assert prints(found) == prints(found.model_copy(update={"commit": "d" * 40}))
    assert len(set(prints(found))) == len(found.reasons)
    one, moved = advisory(1), advisory(1, installed="2.10.1", title="Other words")
    assert prints(verdict(one)) == prints(verdict(moved))
    (secret,) = [reason for reason in found.reasons if reason.rule == "scan/secrets"]
    assert secret.finding is not None
    lower = secret.finding.model_copy(update={"where": "web/settings.py:40"})
    assert prints(verdict(secret)) == prints(verdict(secret.model_copy(update={"finding": lower})))


def test_the_rules_explain_themselves() -> None:
    policies = load_policies(ROOT / "policies")
    texts = with_policies(policies)
    assert {policy.rule for policy in policies.policies} <= set(texts)
    for text in texts.values():
        assert text.title
        assert not text.title.endswith(".")
        assert text.why
        assert text.remedy
    rule = run_of(verdict(told("admission/readiness-probe", "pass", "x")), texts)["tool"]["driver"]["rules"][0]
    policy = next(policy for policy in policies.policies if policy.rule == "admission/readiness-probe")
    assert rule["fullDescription"]["text"] == policy.why
    assert rule["help"]["text"] == policy.remedy


def test_every_rule_that_the_judge_asks_has_a_text() -> None:
    rules: Rules = load_rules(ROOT / "policies")
    asked = {reason.rule for reason in judge(scanned(), rules, AT).reasons}
    assert asked <= set(with_policies(rules.policies))
    assert {rule for rule in asked if not rule.startswith("admission/")} <= set(RULES)


# -- the document ----------------------------------------------------------------------------------------------------


def test_a_verdict_of_before_keeps_its_bytes() -> None:
    before = told("scan/secrets", "fail", "x", where="a.py:1")
    assert "finding" not in before.model_dump(mode="json")
    after = advisory(1)
    assert Reason.parse(json.dumps(after.model_dump(mode="json"))) == after
