"""Faults of the scanner: killed, starved, slow, cut off, silent, lying, not the one that is pinned."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from fault_cases import Fault, faults
from fault_line import GateLine

from stages.scan import trivy

AGAIN = "Nothing: it is scanned again."
TEAM = "Find out who replaced it; run scripts/setup."
TRUST = "Look at the scanner: whatever said that is not the pinned Trivy."
ODD = "value['Results'][0]['Vulnerabilities'] = [{'PkgName': 'a', 'VulnerabilityID': 'C', 'Severity': 'FINE'}]"
CHANGE = """
import json, pathlib, sys
path = pathlib.Path(sys.argv[1])
value = json.loads(path.read_bytes())
{change}
path.write_text(json.dumps(value))
"""


def check_and_mend(line: GateLine, fault: Fault) -> None:
    line.check_fault(fault, line.start().push())
    line.scanner()
    line.check_released(line.goes_on())


def changed(line: GateLine, change: str) -> str:
    """Return a body that runs the real scanner and then changes its report."""
    script = line.folder / "change.py"
    script.write_text(CHANGE.format(change=change))
    return f'repeat "$1"\nexec {sys.executable} -S -E {script} "$out"'


@faults(
    Fault("scanner/killed", "it is killed", "retried", "The scanner was killed by signal 9.", AGAIN, "kill -9 $$"),
    Fault("scanner/terminated", "it is ended", "retried", "The scanner was killed by signal 15.", AGAIN,
          '"$real" "$@" & kill -9 $!; kill -15 $$'),
    Fault("scanner/no-report", "it ends well and writes nothing", "retried",
          "The scanner ended without a whole report.", AGAIN, "exit 0"),
    Fault("scanner/empty-report", "it ends well with an empty file", "retried",
          "The scanner ended without a whole report.", AGAIN, ': > "$out"'),
    Fault("scanner/half-report", "it prints half a JSON", "retried", "The scanner ended without a whole report.", AGAIN,
          'repeat "$1"; size=$(wc -c < "$out"); truncate -s $((size / 2)) "$out"'),
    Fault("scanner/fails", "it fails and says why", "retried", "The scanner failed: the cache is locked", AGAIN,
          "printf 'one\\n2026-01-02T03:04:05Z\\tFATAL\\tFatal error\\tthe cache is locked\\n' >&2; exit 1"),
    Fault("scanner/fails-silently", "it fails without a word", "retried", "The scanner failed: it said nothing", AGAIN,
          "exit 1"),
    Fault("scanner/crashes", "it crashes with a stack", "retried", "The scanner failed: panic: index out of range",
          AGAIN,
          "printf 'panic: index out of range\\n\\ngoroutine 1 [running]:\\nmain.main()\\n\\t/x.go:1\\n' >&2; exit 2"),
    Fault("disk/memory", "the scanner has too little memory", "retried", "The scanner ran out of memory.",
          "Give the build zone's process more memory.", 'ulimit -v 600000; exec "$real" "$@"'),
)  # fmt: skip
def test_a_scanner_that_breaks_off_has_found_nothing(built: GateLine, fault: Fault) -> None:
    built.scanner(fault.value)
    built.tries = 1
    check_and_mend(built, fault)


@faults(
    Fault("scanner/breaks-once", "it is killed once", "goes on", "PASSED", "Nothing: it is scanned again at once."),
)
def test_a_scanner_that_is_killed_once_is_tried_again_in_the_same_run(built: GateLine, fault: Fault) -> None:
    mark = built.folder / "killed"
    built.scanner(f'[ -e {mark} ] || {{ touch {mark}; kill -9 $$; }}\nrepeat "$1"', only="image")
    outcome = built.start().push()
    assert mark.exists()
    assert fault.says in outcome.text
    built.check_released(outcome)


@faults(
    Fault("scanner/slow", "it does not end in time", "retried", "The scanner did not end in time.", AGAIN),
)
def test_a_scanner_that_does_not_end_is_ended(built: GateLine, fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    built.tries = 1
    built.scanner("exec sleep 600")
    # Five seconds more than the scanner's own limit are waited for.
    monkeypatch.setitem(trivy.scan.__kwdefaults__, "seconds", -4.5)
    built.check_fault(fault, built.start().push())
    monkeypatch.undo()


@faults(
    Fault("scanner/null-image", "its report on the image says `Results: null`", "FAILED",
          "the scanner saw no package of the system", TRUST, ("image", "value['Results'] = None")),
    Fault("scanner/null-tree", "its report on the source says `Results: null`", "FAILED",
          "The scanner did not read the whole lock file.", TRUST, ("fs", "value['Results'] = None")),
    Fault("scanner/no-system", "its report on the image names no operating system", "FAILED",
          "the scanner does not know the system", TRUST, ("image", "del value['Metadata']['OS']")),
)  # fmt: skip
def test_a_report_that_found_nothing_to_look_at_is_a_no(built: GateLine, fault: Fault) -> None:
    mode, change = fault.value
    built.scanner(changed(built, change), only=mode)
    built.check_fault(fault, built.start().push())


@faults(
    Fault("scanner/null-manifests", "its report on the manifests says `Results: null`", "retried",
          "Deployment/shop was not looked at", TRUST, ("config", "value['Results'] = None")),
    Fault("scanner/other-image", "it reports on another image", "retried", "it is about another image", TRUST,
          ("image", "value['Metadata']['RepoDigests'] = ['x@sha256:' + '0' * 64]")),
    Fault("scanner/fewer-layers", "it left a layer out", "retried", "it is about other layers", TRUST,
          ("image", "value['Metadata']['DiffIDs'].pop()")),
    Fault("scanner/other-kind", "it reports on something else than an image", "retried", "it is about a 'filesystem'",
          TRUST, ("image", "value['ArtifactType'] = 'filesystem'")),
    Fault("scanner/other-schema", "its report is of another schema", "retried", "its schema is not 2", TRUST,
          ("image", "value['SchemaVersion'] = 3")),
    Fault("scanner/suppresses", "it suppressed findings on its own", "retried", "suppressed findings on its own", TRUST,
          ("image", "value['Results'][0]['ExperimentalModifiedFindings'] = [{'Status': 'not_affected'}]")),
    Fault("scanner/odd-severity", "it says a severity that is not known", "retried", "the severity 'FINE' is not known",
          TRUST,
          ("image", ODD)),
)  # fmt: skip
def test_a_report_that_cannot_be_used_is_not_used(built: GateLine, fault: Fault) -> None:
    mode, change = fault.value
    built.scanner(changed(built, change), only=mode)
    if mode == "config":
        built.forget_manifests()
    check_and_mend(built, fault)


@faults(
    Fault("scanner/not-pinned", "the binary is another than the pinned one", "retried",
          "The scanner is not the pinned one", TEAM),
)  # fmt: skip
def test_another_scanner_is_never_run(built: GateLine, fault: Fault) -> None:
    ran = built.folder / "ran"
    built.scanner(f"touch {ran}")
    built.patch.delenv("SEKISHO_TRIVY_SHA256")
    built.check_fault(fault, built.start().push())
    assert not ran.exists()
    built.scanner()
    built.check_released(built.goes_on())


@faults(
    Fault("scanner/gone", "the binary is gone", "retried", "trivy is not installed.", "Run scripts/setup."),
)
def test_without_a_scanner_nothing_passes(built: GateLine, fault: Fault) -> None:
    built.patch.setenv("SEKISHO_TRIVY", str(Path("/nonexistent/trivy")))
    built.start()
    outcome = built.push()
    built.check_fault(fault, outcome)
    built.scanner()
    built.check_released(built.goes_on())
