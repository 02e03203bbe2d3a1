"""`python -m stages.check`: the gate's word on a working copy, its exit codes, and what it does not claim."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from sekisho.builds import BuildRules
from sekisho.errors import PermanentError, Refusal
from sekisho.keys import FileSigner
from sekisho.model import IMAGE_HOST, Finding, Image, Manifests, Reason, Result, Revision, Severity, Verdict
from sekisho.registry import Registry
from sekisho.score import reader
from sekisho.stage import run_stage
from sekisho.standard import LockEntry, StandardImages
from stages import check as module
from stages.build import BuildInput, BuildStage
from stages.check import Scanner, check, local_scanner, main
from stages.judge import JudgeInput, Rules, judge, load_rules, reasons_of
from stages.render import render

from .build_cases import builder_for, standard_image
from .test_judge import AT, SCAN

ROOT = Path(__file__).parent.parent.parent
SCORE = """\
apiVersion: score.dev/v1b1
metadata: {name: shop}
containers:
  web:
    image: .
    readinessProbe: {httpGet: {path: /, port: 8080}}
"""


FINDINGS = (
    Finding(
        kind="secret", id="aws-key", severity=Severity.HIGH, title="A key", where="shop/settings.py:3", owner="workload"
    ),
    Finding(
        kind="vulnerability", id="CVE-2026-1", severity=Severity.CRITICAL, title="Sandbox escape", package="jinja2",
        where="requirements.txt", installed="2.10", fixed="2.11", owner="workload",
    ),
    Finding(
        kind="misconfiguration", id="KSV-0014", severity=Severity.LOW, title="Low", where="Deployment/shop",
        owner="workload",
    ),
)  # fmt: skip


@pytest.fixture(scope="module")
def rules() -> Rules:
    return load_rules(ROOT / "policies")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "score.yaml").write_text(SCORE, encoding="utf-8")
    (tmp_path / "requirements.txt").write_text("", encoding="utf-8")
    (tmp_path / "Procfile").write_text("web: python -m shop\n", encoding="utf-8")
    return tmp_path


def failed(tree: Path, rules: Rules) -> list[tuple[str, str]]:
    return [(reason.rule, reason.where) for reason in check(tree, rules, at=AT).failures]


def test_a_good_working_copy(tree: Path, rules: Rules) -> None:
    verdict = check(tree, rules, at=AT)
    assert verdict.result is Result.PASSED
    assert (verdict.app, verdict.commit) == ("shop", "working copy")
    said = {reason.rule for reason in verdict.reasons}
    assert {"render/score", "build/language", "build/lock", "build/start", "workload/kinds"} <= said
    assert {rule for rule in said if rule.startswith("admission/")} == {
        f"admission/{policy.name.removeprefix('sekisho-')}" for policy in rules.policies.policies
    }
    assert verdict.notes[0] == "The gate alone builds and scans the image; what it finds there is not known yet."
    assert any(note.startswith("Not looked for here: ") for note in verdict.notes)


def test_what_the_gate_would_refuse(tree: Path, rules: Rules) -> None:
    score = tree / "score.yaml"
    score.write_text(SCORE.replace("image: .", "image: nginx:1"), encoding="utf-8")
    assert failed(tree, rules) == [("render/refused", "score.yaml:5")]
    score.write_text(SCORE.replace("    readinessProbe: {httpGet: {path: /, port: 8080}}\n", ""), encoding="utf-8")
    assert failed(tree, rules) == [("admission/readiness-probe", "Deployment/shop")]
    score.unlink()
    assert failed(tree, rules) == [("render/refused", "score.yaml")]
    score.symlink_to("/etc/passwd")
    assert failed(tree, rules) == [("source/refused", "working copy"), ("render/refused", "score.yaml")]


def test_files_beside_the_score_file_are_read(tree: Path, rules: Rules) -> None:
    score = SCORE + "    files: {/app/menu: {source: conf/menu}}\n"
    (tree / "score.yaml").write_text(score, encoding="utf-8")
    assert failed(tree, rules) == [("render/refused", "score.yaml:7")]
    (tree / "conf").mkdir()
    (tree / "conf/menu").write_text("sencha", encoding="utf-8")
    assert failed(tree, rules) == []


def test_what_the_build_would_refuse(tree: Path, rules: Rules) -> None:
    (tree / "Procfile").unlink()
    (tree / "score.yaml").write_text(SCORE + "x: 1\n", encoding="utf-8")
    # All at once: a developer mends everything in one go.
    assert [rule for rule, _ in failed(tree, rules)] == ["render/refused", "build/refused"]


def test_without_a_lock_the_policy_decides(tree: Path, rules: Rules) -> None:
    (tree / "requirements.txt").write_text("flask==3.0.0\n", encoding="utf-8")
    (said,) = [reason for reason in check(tree, rules, at=AT).reasons if reason.rule == "build/lock"]
    assert said.result == "warn"
    assert said.message == (
        "requirements.txt does not say which packages exactly belong in the image: there is no lock file with hashes. "
        "The gate resolves the packages once, and keeps the lock for that commit."
    )
    assert said.remedy
    strict = replace(rules, builds=BuildRules(without_lock={"python": "refuse"}))
    assert [rule for rule, _ in failed(tree, strict)] == ["build/refused"]


def test_standard_images_are_judged_where_they_are_known(tree: Path, rules: Rules) -> None:
    entry = LockEntry(digest=f"sha256:{'b' * 64}", built_at="2026-11-01T00:00:00Z")
    known = replace(rules, standard=StandardImages(rules.standard.specs, {"static": entry}))
    unknown = replace(rules, standard=StandardImages(rules.standard.specs, {}))
    assert [rule for rule, _ in failed(tree, known)] == ["build/refused"]
    assert "These policies hold no digests of standard images; the gate's do." in check(tree, unknown, at=AT).notes


def test_the_scanner_counts_and_its_failure_is_said(tree: Path, rules: Rules) -> None:
    finding = Finding(kind="secret", id="aws-key", severity=Severity.HIGH, title="key", where="a.py", owner="workload")
    verdict = check(tree, rules, at=AT, scanner=Scanner(lambda _tree, _manifests: (finding,), "Only half."))
    assert [reason.rule for reason in verdict.failures] == ["scan/secrets"]
    assert verdict.notes[-1] == "Only half."

    def broken(_tree: Path, _manifests: object) -> tuple[Finding, ...]:
        raise PermanentError("No advisories.")

    verdict = check(tree, rules, at=AT, scanner=Scanner(broken))
    assert verdict.result is Result.PASSED
    assert "The scanner did not work: No advisories." in verdict.notes


def test_exit_codes(tree: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "local_scanner", lambda: None)
    policies = ["--policies", str(ROOT / "policies")]
    assert main([str(tree), *policies]) == 0
    assert capsys.readouterr().out.startswith("PASSED  shop working copy\n")
    (tree / "score.yaml").write_text("a: 1", encoding="utf-8")
    assert main([str(tree), "--json", *policies]) == 1
    assert json.loads(capsys.readouterr().out)["result"] == "FAILED"
    assert main([str(tree), "--format", "sarif", *policies]) == 1
    assert json.loads(capsys.readouterr().out)["runs"][0]["invocations"][0]["exitCodeDescription"] == "FAILED"
    assert main([str(tree), "--all", *policies]) == 1
    assert "Passed:\n" in capsys.readouterr().out
    assert main([str(tree / "none"), *policies]) == 2
    assert main([str(tree), "--policies", str(tree)]) == 2
    assert main([str(tree), "--policies", str(tree / "none")]) == 2
    assert "no policies folder" in capsys.readouterr().err


def test_as_a_command_without_heavy_imports(tree: Path) -> None:
    program = (
        "import sys, runpy\nsys.argv = ['check', sys.argv[1]]\n"
        "try:\n    runpy.run_module('stages.check', run_name='__main__')\n"
        "except SystemExit as end:\n    code = end.code\n"
        "heavy = {'prefect', 'kubernetes', 'fastapi', 'sqlalchemy'} & set(sys.modules)\n"
        "print(code, sorted(heavy))"
    )
    environment = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], "SEKISHO_POLICIES": str(ROOT / "policies")}
    done = subprocess.run(
        [sys.executable, "-c", program, str(tree)], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "0 []"


def test_a_real_scanner_finds_a_secret(
    tree: Path, rules: Rules, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    scanner = module.local_scanner()
    if scanner is None:
        pytest.skip("the pinned scanner is not installed here")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TRIVY_CACHE_DIR", str(tmp_path / "none"))
    found = module.local_scanner()
    assert found is not None
    # Put together here, so that this file itself holds no key.
    (tree / "settings.py").write_text('KEY = "' + "AKIA" + 'IOSFODNN7EXAMPL2"\n', encoding="utf-8")
    verdict = check(tree, rules, at=AT, scanner=found)
    assert [(reason.rule, reason.where.split(":")[0]) for reason in verdict.failures] == [
        ("scan/secrets", "settings.py")
    ]
    assert "no advisories on this machine" in verdict.notes[-1]
    # Without advisories nothing was found, which is no pass; secrets and manifests were looked at.
    answered = {reason.rule for reason in verdict.reasons if reason.stage == "scan"}
    assert answered == {"scan/secrets", "scan/misconfigurations"}


def test_without_manifests_nothing_is_said_of_them(tree: Path, rules: Rules) -> None:
    (tree / "score.yaml").write_text(SCORE + "x: 1\n", encoding="utf-8")
    verdict = check(tree, rules, at=AT, scanner=Scanner(lambda _tree, _manifests: ()))
    answered = {reason.rule for reason in verdict.reasons if reason.stage == "scan"}
    assert answered == {"scan/secrets", "scan/vulnerabilities"}


# -- the same verdict as the gate's ------------------------------------------------------------------------------------


GATE_ALONE = ("evidence/", "standard/", "scan/system", "scan/packages", "scan/database", "scan/coverage")
"""Rules about the built image and about the gate's own advisories."""
CHECK_ALONE = ("render/score", "build/language", "build/lock", "build/start", "build/note")
"""What the gate says while it builds and renders, and not in its verdict."""

NO_PROBE = SCORE.replace("    readinessProbe: {httpGet: {path: /, port: 8080}}\n", "")
CASES: dict[str, dict[str, str | None]] = {
    "good": {},
    "no probe": {"score.yaml": NO_PROBE},
    "foreign image": {"score.yaml": SCORE.replace("image: .", "image: nginx:1")},
    "misspelt": {"score.yaml": SCORE + "    imagge: x\nservices: {}\n"},
    "no start": {"Procfile": None},
    "everything at once": {"Procfile": None, "score.yaml": SCORE + "x: 1\n"},
    "no score file": {"score.yaml": None},
    "other things": {"score.yaml": SCORE + "resources: {db: {type: postgres}, way: {type: route}}\n"},
    "a job": {
        "score.yaml": SCORE.replace("{name: shop}", "{name: shop, annotations: {k8s.score.dev/kind: Job}}"),
    },
    "an old standard image": {
        "score.yaml": SCORE
        + f"  side: {{image: 'registry.sekisho.internal/standard/guard@sha256:{'e' * 64}', "
        + "readinessProbe: {httpGet: {path: /, port: 81}}}\n",
    },
}  # fmt: skip


def rendered(tree: Path, image: Image | None) -> Manifests:
    score = tree / "score.yaml"
    if not score.is_file():
        remedy = "Add one that says what your workload is and needs; docs/getting-started.md has one to copy."
        raise Refusal("There is no score.yaml.", where="score.yaml", remedy=remedy)
    reference = image.reference if image else f"{IMAGE_HOST}/apps/shop@sha256:{'0' * 64}"
    return render(score.read_bytes(), app="shop", image=reference, read=reader(tree))


@dataclass
class Gate:
    """The gate's stages over a folder: the real builder, renderer and judge, as flows/inner.py calls them."""

    stage: BuildStage
    rules: Rules

    def judge(self, tree: Path, findings: tuple[Finding, ...]) -> Verdict:
        problems: list[Reason] = []
        image: Image | None = None
        manifests: Manifests | None = None
        revision = Revision(app="shop", commit="c" * 40, tree="d" * 40, branch="main", author="Ada", committed_at=7)
        try:
            image = run_stage(self.stage, BuildInput(revision, tree)).value
        except Refusal as refusal:
            problems.extend(reasons_of(refusal, "build"))
        try:
            manifests = rendered(tree, image)
        except Refusal as refusal:
            problems.extend(reasons_of(refusal, "render"))
        scan = None
        if image and manifests:
            scan = SCAN.model_copy(update={"image": image.digest, "findings": findings})
        given = JudgeInput(
            app="shop", commit=revision.commit, image=image, manifests=manifests, scan=scan, problems=tuple(problems)
        )
        return judge(given, self.rules, AT)


@pytest.fixture(scope="module")
def gate(
    registry_url: str, rules: Rules, signers: dict[str, FileSigner], tmp_path_factory: pytest.TempPathFactory
) -> Gate:
    place, registry = tmp_path_factory.mktemp("gate"), Registry(registry_url)
    base = standard_image(registry, place, "python")
    entry = LockEntry(digest=base.digest, built_at="2026-11-01T00:00:00Z")
    known = replace(rules, standard=StandardImages(rules.standard.specs, {"python": entry, "python-build": entry}))
    stage = BuildStage(builder_for(registry, place, known.standard), signers["builder"], builder_id="https://x/v1")
    return Gate(stage, known)


def answers(verdict: Verdict, alone: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Return what both have to say; the digest of an image that one of them did not build stands for any."""
    return sorted(
        (reason.rule, reason.result, reason.message, reason.remedy, reason.where, reason.owner)
        for reason in verdict.reasons
        if not reason.rule.startswith(alone)
    )


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("found", ["nothing", "something"])
def test_it_is_the_gates_verdict_rule_by_rule(tree: Path, gate: Gate, case: str, found: str) -> None:
    for name, text in CASES[case].items():
        (tree / name).unlink() if text is None else (tree / name).write_text(text, encoding="utf-8")
    findings = () if found == "nothing" else FINDINGS
    theirs = gate.judge(tree, findings)
    mine = check(tree, gate.rules, at=AT, scanner=Scanner(lambda _tree, _manifests: findings))
    refused = any(reason.rule.endswith("/refused") for reason in theirs.reasons)
    if refused:
        # The gate scans what it built; the working copy is looked into all the same, so that nothing waits.
        alone = ("scan/",)
        images = "workload/images" if any("build/" in reason.rule for reason in theirs.failures) else "-"
        assert answers(mine, (*CHECK_ALONE, *alone, images)) == answers(theirs, (*GATE_ALONE, *alone, images))
    else:
        assert answers(mine, CHECK_ALONE) == answers(theirs, GATE_ALONE)
    assert mine.result is theirs.result
    assert mine.policy == theirs.policy


@pytest.mark.parametrize("example", sorted(path.name for path in (ROOT / "examples").iterdir()))
def test_the_examples_pass(example: str, rules: Rules) -> None:
    assert check(ROOT / "examples" / example, rules, at=AT).failures == ()


def test_what_killed_scans_left_goes_after_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check that is overtaken in `sekisho dev` is killed with its scanner; others may be scanning just now."""
    cache = tmp_path / ".cache" / "sekisho" / "check"
    for name in ("scan-old", "scan-now", "fanal"):
        (cache / name / "inner").mkdir(parents=True)
        (cache / name / "inner" / "secrets.yaml").write_text("x")
    for name in ("scan-old", "fanal"):
        os.utime(cache / name, (1, 1))
    (cache / "scan-link").symlink_to(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(module, "find_trivy", lambda: tmp_path / "trivy")
    local_scanner()
    assert sorted(path.name for path in cache.iterdir()) == ["fanal", "scan-link", "scan-now"]
