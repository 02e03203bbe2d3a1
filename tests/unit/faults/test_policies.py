"""Faults of the policies folder: the zone does not start, says why, and the commit waits in the queue."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from fault_cases import Fault, faults
from fault_line import APP, GateLine

from flows.build_zone import Push
from sekisho.errors import SekishoError
from sekisho.standard import SPEC_FILE

MEND = "Mend the file that is named and start the zone's process (supervisord tries again by itself)."
RULE = "sekisho-seccomp.yaml"
Change = Callable[[Path], None]


def write(name: str, text: str) -> Change:
    return lambda folder: (folder / name).write_text(text) and None


def replaced(name: str, old: str, new: str) -> Change:
    def change(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    return change


def removed(*names: str) -> Change:
    def change(folder: Path) -> None:
        for name in names:
            for path in folder.glob(name):
                path.unlink()

    return change


def raw(name: str, data: bytes) -> Change:
    return lambda folder: (folder / name).write_bytes(data) and None


ADMISSION = f"admission/{RULE}"


@faults(
    Fault("policies/not-yaml", "a policy file does not parse", "not started", RULE, MEND, write(ADMISSION, "a: [")),
    Fault("policies/not-text", "a policy file is no text", "not started", RULE, MEND, raw(ADMISSION, b"\xff\xfe\x00")),
    Fault("policies/empty-file", "a policy file is empty", "not started", "The policy file is empty.", MEND,
          write(ADMISSION, "")),
    Fault("policies/other-file", "another file lies among the policies", "not started", "This is not a policy file",
          MEND, write("admission/README.txt", "x")),
    Fault("policies/empty-folder", "the folder of admission policies is empty", "not started",
          "There is no admission policy here.", MEND, removed("admission/*")),
    Fault("policies/no-folder", "there are no policies at all", "not started", "There is no admission policy here.",
          MEND, removed("admission/*", "*.yaml")),
    Fault("policies/expression", "a policy's expression does not compile", "not started", RULE, MEND,
          replaced(ADMISSION, "expression:", "expression: has( #")),
    Fault("policies/not-boolean", "a policy's expression gives no yes or no", "not started", RULE, MEND,
          replaced(ADMISSION, "expression:", "expression: '1' #")),
    Fault("policies/audits", "a policy's binding does not deny", "not started", "does not deny", MEND,
          replaced(ADMISSION, "Deny", "Audit")),
    Fault("policies/unbound", "a policy has no binding", "not started", "Policy and binding do not pair", MEND,
          replaced(ADMISSION, "policyName: sekisho-seccomp", "policyName: sekisho-other")),
    Fault("policies/ignores", "a policy lets pass what it fails on", "not started", "failurePolicy", MEND,
          replaced(ADMISSION, "failurePolicy: Fail", "failurePolicy: Ignore")),
    Fault("policies/waivers", "waivers.yaml is broken", "not started", "waivers.yaml", MEND,
          write("waivers.yaml", "format: sekisho.dev/waivers/v1\nwaivers: [{id: CVE-2000-0001}]\n")),
    Fault("policies/waivers-not-yaml", "waivers.yaml does not parse", "not started", "waivers.yaml", MEND,
          write("waivers.yaml", "waivers: {{")),
    Fault("policies/no-limits", "limits.yaml is missing", "not started", "limits.yaml", MEND, removed("limits.yaml")),
    Fault("policies/limits", "limits.yaml lacks a limit", "not started", "/vulnerabilities", MEND,
          replaced("limits.yaml", "vulnerabilities:", "# ")),
    Fault("policies/no-standard-images", "standard-images.yaml is missing", "not started", SPEC_FILE, MEND,
          removed(SPEC_FILE)),
    Fault("policies/standard-images", "standard-images.yaml is broken", "not started", SPEC_FILE, MEND,
          write(SPEC_FILE, "images: 1\n")),
    Fault("policies/builds", "builds.yaml is broken", "not started", "builds.yaml", MEND,
          write("builds.yaml", "format: other\n")),
)  # fmt: skip
def test_without_whole_policies_the_zone_does_not_start(scanned: GateLine, fault: Fault, tmp_path: Path) -> None:
    line, policies = scanned, scanned.home.policies
    line.reads_policies = True
    kept = {path: path.read_bytes() for path in policies.rglob("*") if path.is_file()}
    push = Push(app=APP, commit=line.place.commit, branch="main")
    (line.home.git / "queue" / "entry.json").write_text(json.dumps(push.model_dump()))
    fault.value(policies)
    with pytest.raises(SekishoError) as caught:
        line.start()
    assert fault.says in str(caught.value)
    assert line.traces() == set()
    for path in policies.rglob("*"):
        if path.is_file() and path not in kept:
            path.unlink()
    for path, data in kept.items():
        path.write_bytes(data)
    line.check_released(line.start().takes_the_queue())


@faults(
    Fault("policies/trust", "the trust root is broken", "not started", "root.json", "Mend the trust root: sekisho up.",
          "trust/root.json"),
    Fault("policies/key", "a role's key is no key", "not started", "verifier.pem", "Bring the key back from its copy.",
          "keys/verifier.pem"),
)  # fmt: skip
def test_without_keys_and_trust_the_zone_does_not_start(scanned: GateLine, fault: Fault) -> None:
    path = scanned.home.root / fault.value
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(SekishoError) as caught:
        scanned.start()
    assert fault.says in str(caught.value)
    path.write_bytes(data)
    scanned.check_released(scanned.start().push())
