"""The judge: what passes, everything that must not, and that also a NO is stored and signed."""

import datetime as dt
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sekisho.canonical import Digest, digest_of
from sekisho.errors import PermanentError, Refusal, VerificationError
from sekisho.evidence import find_statements, load_statement
from sekisho.keys import FileSigner, TrustRoot
from sekisho.model import (
    AdvisoryDatabase,
    Coverage,
    Finding,
    Image,
    JudgeInput,
    Manifests,
    Reason,
    Result,
    Scan,
    Severity,
    Tool,
    Verdict,
)
from sekisho.registry import Registry
from sekisho.releases.judgement import load_judgement
from sekisho.score import Problems
from sekisho.stage import run_stage
from sekisho.standard import LockEntry, StandardImages
from sekisho.statements import SUMMARY, verify_statement
from sekisho.verdict_text import short, verdict_lines
from sekisho.waivers import Waiver
from stages.judge import JudgeStage, Rules, judge, load_rules, reasons_of
from stages.render import render

POLICIES = Path(__file__).parent.parent.parent / "policies"
AT = int(dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC).timestamp())
DIGEST = digest_of(b"image")
BASE = digest_of(b"base")
COMMIT = "c0ffee" + "0" * 34
SCORE = b"""\
apiVersion: score.dev/v1b1
metadata: {name: shop}
containers: {web: {image: ., readinessProbe: {httpGet: {path: /, port: 8080}}}}
service: {ports: {web: {port: 80, targetPort: 8080}}}
"""
IMAGE = Image(repository="apps/shop", digest=DIGEST, language="python", base="python", base_digest=BASE, layers=())
SCAN = Scan(
    image=DIGEST,
    scanner=Tool(name="trivy", version="0.76.0", digest=DIGEST),
    database=AdvisoryDatabase(digest=DIGEST, updated_at="2026-11-20T12:00:00Z", kind="mirror"),
    findings=(),
    coverage=Coverage(os_family="debian", os_version="12.5", os_packages=80, language_packages=5, locked=5),
    sbom=DIGEST,
)
FINDING = Finding(
    kind="vulnerability",
    id="CVE-2026-1",
    severity=Severity.CRITICAL,
    title="Sandbox escape",
    where="opt/deps/jinja2",
    package="jinja2",
    installed="2.10",
    fixed="2.11",
    owner="workload",
)


@pytest.fixture(scope="module")
def rules() -> Rules:
    found = load_rules(POLICIES)
    entry = LockEntry(digest=BASE, built_at="2026-11-01T00:00:00Z")
    return replace(found, standard=StandardImages(found.standard.specs, {"python": entry}))


def subject(**change: Any) -> JudgeInput:
    manifests = render(SCORE, app="shop", image=IMAGE.reference)
    return JudgeInput(
        **({"app": "shop", "commit": COMMIT, "image": IMAGE, "manifests": manifests, "scan": SCAN} | change)
    )


def failed(verdict: Verdict) -> list[str]:
    assert (verdict.result is Result.FAILED) == bool(verdict.failures)
    return [reason.rule for reason in verdict.failures]


def scanned(**change: Any) -> JudgeInput:
    return subject(scan=SCAN.model_copy(update=change))


def test_everything_in_order_passes(rules: Rules) -> None:
    verdict = judge(subject(), rules, AT)
    assert verdict.result is Result.PASSED
    assert {reason.result for reason in verdict.reasons} == {"pass"}
    assert verdict.policy == rules.policies.digest
    assert verdict.notes == ()
    assert [reason.rule for reason in verdict.reasons if not reason.rule.startswith("admission/")] == [
        "evidence/image", "evidence/manifests", "evidence/scan", "standard/current", "standard/end-of-life",
        "workload/kinds", "schema/valid", "workload/images", "scan/system", "scan/packages", "scan/database",
        "scan/vulnerabilities", "scan/secrets", "scan/misconfigurations", "scan/coverage",
    ]  # fmt: skip
    assert judge(subject(), rules, AT).canonical() == verdict.canonical()


def test_what_is_missing_has_not_passed(rules: Rules) -> None:
    assert failed(judge(subject(scan=None), rules, AT)) == ["evidence/scan"]
    assert failed(judge(subject(manifests=None), rules, AT)) == ["evidence/manifests"]
    assert failed(judge(subject(image=None), rules, AT)) == ["evidence/image", "evidence/scan"]
    assert failed(judge(JudgeInput(app="shop", commit=COMMIT), rules, AT)) == [
        "evidence/image", "evidence/manifests", "evidence/scan"
    ]  # fmt: skip
    empty = Manifests(app="shop", objects=())
    assert "evidence/manifests" in failed(judge(subject(manifests=empty), rules, AT))


def test_evidence_is_about_one_thing(rules: Rules) -> None:
    other = digest_of(b"other")
    assert failed(judge(scanned(image=other), rules, AT)) == ["evidence/scan"]
    assert failed(judge(subject(app="other"), rules, AT)) == ["evidence/image", "evidence/manifests"]
    foreign = render(SCORE, app="shop", image=f"registry.sekisho.internal/apps/shop@{other}")
    assert failed(judge(subject(manifests=foreign), rules, AT)) == ["workload/images"]


def test_a_refusal_of_an_earlier_stage_fails(rules: Rules) -> None:
    problem = Reason(rule="build/refused", stage="build", result="fail", message="No lock.", remedy="Lock it.")
    verdict = judge(subject(problems=(problem,)), rules, AT)
    assert failed(verdict) == ["build/refused"]
    assert verdict.reasons[0] == problem


# -- standard images ------------------------------------------------------------------------------------------------


def test_standard_images(rules: Rules) -> None:
    stale = IMAGE.model_copy(update={"base_digest": digest_of(b"older")})
    assert failed(judge(subject(image=stale), rules, AT)) == ["standard/current"]
    unknown = IMAGE.model_copy(update={"base": "nodejs"})
    assert failed(judge(subject(image=unknown), rules, AT)) == ["standard/current"]
    end = rules.standard.specs["python"].end_of_life
    noon = dt.datetime.combine(end, dt.time(12), tzinfo=dt.UTC)
    fresh = SCAN.model_copy(update={"database": SCAN.database.model_copy(update={"kind": "sample"})})

    def at(days: int) -> Verdict:
        return judge(subject(scan=fresh), rules, int((noon + dt.timedelta(days=days)).timestamp()))

    assert failed(at(1)) == ["standard/end-of-life"]
    assert at(1).failures[0].owner == "platform"
    assert [reason.rule for reason in at(0).reasons if reason.result == "warn"] == ["standard/end-of-life"]
    assert [reason.rule for reason in at(-91).reasons if reason.result == "warn"] == []
    later = rules.limits.end_of_life.model_copy(update={"after": "warn"})
    lenient = replace(rules, limits=rules.limits.model_copy(update={"end_of_life": later}))
    moving = judge(subject(scan=fresh), lenient, int((noon + dt.timedelta(days=1)).timestamp()))
    assert [reason.rule for reason in moving.reasons if reason.result == "warn"] == ["standard/end-of-life"]
    assert moving.result is Result.PASSED


def test_what_the_build_has_to_say_is_said_with_the_verdict(rules: Rules) -> None:
    image = IMAGE.model_copy(update={"notes": ("No lock file was committed.",)})
    assert "No lock file was committed." in judge(subject(image=image), rules, AT).notes


# -- objects --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "extra",
    [
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "x"}},
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kube-system"}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}, "data": {}},
        {"apiVersion": "example.com/v1", "kind": "Deployment", "metadata": {"name": "x"}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "namespace": "kube-system"}},
    ],
)
def test_a_workload_has_only_its_own_kinds(rules: Rules, extra: dict[str, Any]) -> None:
    manifests = render(SCORE, app="shop", image=IMAGE.reference)
    changed = manifests.model_copy(update={"objects": (*manifests.objects, extra)})
    assert "workload/kinds" in failed(judge(subject(manifests=changed), rules, AT))


def test_admission_policies_are_asked(rules: Rules) -> None:
    without_probe = SCORE.replace(b", readinessProbe: {httpGet: {path: /, port: 8080}}", b"")
    manifests = render(without_probe, app="shop", image=IMAGE.reference)
    verdict = judge(subject(manifests=manifests), rules, AT)
    assert failed(verdict) == ["admission/readiness-probe"]
    assert "readinessProbe" in verdict.failures[0].remedy


# -- scan -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"os_family": "none"}, "scan/system"),
        ({"os_family": ""}, "scan/system"),
        ({"os_family": "weirdos"}, "scan/system"),
        ({"os_version": ""}, "scan/system"),
        ({"os_packages": 0}, "scan/system"),
        ({"missing": ("pkg:pypi/x@1",)}, "scan/packages"),
        ({"language_packages": 4}, "scan/packages"),
    ],
)
def test_what_was_not_scanned_has_not_passed(rules: Rules, change: dict[str, Any], rule: str) -> None:
    verdict = judge(scanned(coverage=SCAN.coverage.model_copy(update=change)), rules, AT)
    assert failed(verdict) == [rule]
    assert "Not scanned" in verdict.failures[0].message


@pytest.mark.parametrize(
    ("updated_at", "fails"),
    [
        ("2026-11-18T12:00:00Z", False),
        ("2026-11-18T11:59:59Z", True),
        ("2026-11-18T14:00:00+02:00", False),
        ("2026-11-22T12:00:00Z", False),
        ("2026-11-22T12:00:01Z", True),
        ("2026-11-20", True),
        ("yesterday", True),
        ("", True),
    ],
)
def test_age_of_the_advisories(rules: Rules, updated_at: str, fails: bool) -> None:  # noqa: FBT001
    database = SCAN.database.model_copy(update={"updated_at": updated_at})
    assert failed(judge(scanned(database=database), rules, AT)) == (["scan/database"] if fails else [])


def test_sample_advisories_are_always_said(rules: Rules) -> None:
    database = SCAN.database.model_copy(update={"kind": "sample", "updated_at": "2020-01-01T00:00:00Z"})
    verdict = judge(scanned(database=database), rules, AT)
    assert verdict.result is Result.PASSED
    assert len(verdict.notes) == 1
    assert verdict.notes[0].startswith("Sample advisories: ")


def finding(**change: Any) -> Finding:
    return FINDING.model_copy(update=change)


@pytest.mark.parametrize(
    ("found", "result", "remedy"),
    [
        (finding(), "fail", "Update jinja2 to 2.11 and lock again."),
        (finding(fixed=""), "fail", "There is no fix yet: replace jinja2"),
        (finding(owner="platform"), "fail", "It sits in the standard image python: the platform team moves it to 2.11"),
        (finding(severity="HIGH"), "warn", "Update jinja2"),
        (finding(severity="MEDIUM"), "pass", ""),
        (finding(severity="UNKNOWN"), "pass", ""),
        (finding(suppressed="a report holds nothing back"), "fail", "Update jinja2 to 2.11 and lock again."),
        (finding(kind="secret", severity="LOW", package=""), "fail", "Revoke it now"),
        (finding(kind="secret", suppressed="it is only a test"), "fail", "Revoke it now"),
        (finding(kind="secret", layer="dependencies"), "warn", "It came with a package"),
        (finding(kind="misconfiguration", severity="HIGH", package=""), "fail", "Change what"),
        (finding(kind="misconfiguration", severity="MEDIUM", package=""), "warn", "Change what"),
        (finding(kind="coverage", severity="UNKNOWN", package=""), "fail", "What was not scanned"),
    ],
)
def test_findings_against_the_limits(rules: Rules, found: Finding, result: str, remedy: str) -> None:
    verdict = judge(scanned(findings=(found,)), rules, AT)
    worst = [reason for reason in verdict.reasons if reason.result != "pass"]
    assert [reason.result for reason in worst] == ([] if result == "pass" else [result])
    assert (verdict.result is Result.FAILED) == (result == "fail")
    if worst:
        assert worst[0].remedy.startswith(remedy)
        assert (worst[0].owner, worst[0].where) == (found.owner, found.where)


def test_secrets_can_be_made_a_warning(rules: Rules) -> None:
    lenient = replace(rules, limits=rules.limits.model_copy(update={"secrets": "warn"}))
    verdict = judge(scanned(findings=(finding(kind="secret"),)), lenient, AT)
    assert verdict.result is Result.PASSED
    assert [reason.result for reason in verdict.reasons if reason.rule == "scan/secrets"] == ["warn", "pass"]


def test_secrets_of_packages_have_a_limit_of_their_own_and_each_holds_for_its_own(rules: Rules) -> None:
    own, brought = finding(kind="secret"), finding(kind="secret", layer="dependencies")
    limits = {"secrets": "warn", "secrets_of_packages": "fail"}
    strict = replace(rules, limits=rules.limits.model_copy(update=limits))
    assert judge(scanned(findings=(own,)), strict, AT).result is Result.PASSED
    assert failed(judge(scanned(findings=(brought,)), strict, AT)) == ["scan/secrets"]
    assert failed(judge(scanned(findings=(own, brought)), rules, AT)) == ["scan/secrets"]


def test_waivers_hold_until_their_last_day(rules: Rules) -> None:
    waiver = Waiver(
        id="CVE-2026-1", app="shop", package="jinja2", owner="security team", reason="not reachable here",
        expires=dt.date(2026, 11, 21),
    )  # fmt: skip
    waived = replace(rules, limits=rules.limits.model_copy(update={"waivers": (waiver,)}))
    verdict = judge(scanned(findings=(FINDING,)), waived, AT)
    assert verdict.result is Result.PASSED
    (shown,) = [reason for reason in verdict.reasons if reason.result == "warn"]
    assert shown.message.endswith("Waived: not reachable here (security team, until 2026-11-21)")
    later = judge(scanned(findings=(FINDING,)), waived, AT + 86_400)
    assert failed(later) == ["scan/vulnerabilities"]
    assert "expired on 2026-11-21" in later.failures[0].message


# -- refusals as reasons ----------------------------------------------------------------------------------------------


def test_every_problem_of_a_file_becomes_a_reason() -> None:
    with pytest.raises(Problems) as caught:
        render(SCORE + b"more: 1\nresource: {}\n", app="shop", image=IMAGE.reference)
    reasons = reasons_of(caught.value, "render")
    assert [(reason.rule, reason.where, reason.message) for reason in reasons] == [
        ("render/refused", "score.yaml:5", "/more: This key is unknown here."),
        ("render/refused", "score.yaml:6", "/resource: This key is unknown here."),
    ]
    (single,) = reasons_of(Refusal("No.", where="here", remedy="Yes."), "build")
    assert (single.rule, single.message, single.where, single.remedy) == ("build/refused", "No.", "here", "Yes.")


# -- the stage --------------------------------------------------------------------------------------------------------


def stage(url: str, signer: FileSigner, rules: Rules, at: int = AT) -> JudgeStage:
    return JudgeStage(Registry(url), signer, rules, now=lambda: at)


@pytest.mark.parametrize("app", ["judge-passed", "judge-failed"])
def test_each_verdict_is_stored_and_signed(
    registry_url: str, signers: dict[str, FileSigner], trust: TrustRoot, rules: Rules, app: str
) -> None:
    image = IMAGE.model_copy(update={"repository": f"apps/{app}"})
    manifests = render(SCORE.replace(b"shop", app.encode()), app=app, image=image.reference)
    given = subject(app=app, image=image, manifests=manifests, scan=SCAN if app == "judge-passed" else None)
    first = stage(registry_url, signers["verifier"], rules)
    outcome = run_stage(first, given)
    assert not outcome.found
    assert run_stage(first, given).found
    assert outcome.value.verdict.result is (Result.PASSED if app == "judge-passed" else Result.FAILED)

    registry = Registry(registry_url)
    repository = f"verdicts/{app}"
    assert load_judgement(registry, repository, f"commit-{COMMIT}") == (
        outcome.value,
        registry.resolve(repository, f"commit-{COMMIT}"),
    )
    record = registry.resolve(repository, f"commit-{COMMIT}")
    assert record is not None
    (referrer,) = registry.referrers(repository, record)
    bundle = load_statement(registry, repository, Digest(referrer.digest))
    statement = verify_statement(
        bundle, trust=trust, role="verifier", predicate_type=SUMMARY, subject=record, allow_failed=True
    )
    assert statement.predicate["verificationResult"] == outcome.value.verdict.result
    assert statement.predicate["resourceUri"] == f"git+sekisho:{app}@{COMMIT}"
    if app == "judge-failed":
        # A NO never verifies where somebody looks for a YES.
        with pytest.raises(VerificationError):
            verify_statement(bundle, trust=trust, role="verifier", predicate_type=SUMMARY, subject=record)
        found = find_statements(registry, repository, record, trust=trust, role="verifier", predicate_type=SUMMARY)
        assert found == ()


def test_a_stored_verdict_ages(registry_url: str, signers: dict[str, FileSigner], rules: Rules) -> None:
    image = IMAGE.model_copy(update={"repository": "apps/judge-aging"})
    manifests = render(SCORE.replace(b"shop", b"judge-aging"), app="judge-aging", image=image.reference)
    given = subject(app="judge-aging", image=image, manifests=manifests)
    assert run_stage(stage(registry_url, signers["verifier"], rules), given).value.verdict.result is Result.PASSED
    later = stage(registry_url, signers["verifier"], rules, AT + 100 * 3600)
    assert later.find(given) is None
    assert run_stage(later, given).value.verdict.result is Result.FAILED


def test_the_key_is_about_evidence_and_policies(
    registry_url: str, signers: dict[str, FileSigner], rules: Rules
) -> None:
    one = stage(registry_url, signers["verifier"], rules)
    other = stage(registry_url, signers["verifier"], replace(rules, policies=replace(rules.policies, digest=DIGEST)))
    keys = {one.key(subject()), one.key(subject(scan=None)), one.key(subject(commit="d" * 40)), other.key(subject())}
    assert len(keys) == 4
    assert one.key(subject()) == one.key(subject())


def test_another_roles_key_cannot_sign_a_verdict(
    registry_url: str, signers: dict[str, FileSigner], rules: Rules
) -> None:
    given = subject(app="judge-role")
    builder = stage(registry_url, signers["builder"], rules)
    with pytest.raises(PermanentError):
        run_stage(builder, given)
    assert builder.find(given) is None


def test_no_rules_no_judge(tmp_path: Path) -> None:
    with pytest.raises(PermanentError):
        load_rules(tmp_path)


# -- text -------------------------------------------------------------------------------------------------------------


def test_text_of_a_verdict(rules: Rules) -> None:
    lines = verdict_lines(judge(scanned(findings=(FINDING, finding(id="CVE-2026-2", severity="HIGH"))), rules, AT))
    assert lines == [
        "FAILED  shop c0ffee000000  1 problem, yours to mend",
        "Yours to mend:",
        "  x scan/vulnerabilities: jinja2 2.10 has 1 CRITICAL, 1 HIGH: CVE-2026-1, CVE-2026-2.",
        "    [opt/deps/jinja2]",
        "    -> Update jinja2 to 2.11 or later and lock again.",
        f"{len(rules.policies.policies) + 14} rules passed. Policy {short(rules.policies.digest)}.",
    ]


def test_text_fits_a_screen_and_sends_no_control_characters(rules: Rules) -> None:
    nasty = "\x1b[2J\x07\u202eevil\nFAILED? no:\rPASSED"
    findings = tuple(finding(id=f"CVE-{number}", title=nasty, package=f"{nasty}{number}") for number in range(60))
    lines = verdict_lines(judge(scanned(findings=findings), rules, AT), width=80, limit=40)
    assert len(lines) <= 40
    assert all(len(line) <= 80 for line in lines)
    assert all(character.isprintable() for line in lines for character in line)
    assert any(line.startswith("  ... and ") and line.endswith("more; --all shows them.") for line in lines)
