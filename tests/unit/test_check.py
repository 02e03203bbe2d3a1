"""`python -m stages.check`: the gate's word on a working copy, its exit codes, and what it does not claim."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sekisho.builds import BuildRules
from sekisho.errors import PermanentError
from sekisho.model import Finding, Result, Severity
from sekisho.standard import LockEntry, StandardImages
from stages import check as module
from stages.check import Scanner, check, main
from stages.judge import Rules, load_rules

ROOT = Path(__file__).parent.parent.parent
AT = 1_795_000_000
SCORE = """\
apiVersion: score.dev/v1b1
metadata: {name: shop}
containers:
  web:
    image: .
    readinessProbe: {httpGet: {path: /, port: 8080}}
"""


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
    assert failed(tree, rules) == [("render/refused", "score.yaml")]


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
    assert (said.result, said.message) == (
        "warn",
        "There is no lock file: the gate resolves the packages once, and keeps the lock for that commit.",
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
