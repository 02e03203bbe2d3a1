"""Misconfigurations of rendered objects: the pinned scanner's own rules, and no word in an object turns one off."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from scan_cases import find_scanner

from sekisho.errors import PermanentError
from sekisho.model import Manifests
from sekisho.tools import trivy as find_trivy
from stages.scan import parse
from stages.scan.manifests import scan_manifests

WORDS = ("#trivy:ignore:*", "# trivy:ignore:KSV-0017", "trivy:ignore:AVD-KSV-0017", "tfsec:ignore:*",
         "#trivy:ignore:KSV-0017\n# trivy:ignore:*\n")  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def scanner() -> Path:
    return find_scanner()


def deployment(*, privileged: bool, **annotations: str) -> dict[str, Any]:
    container = {"name": "c", "image": "registry.sekisho.internal/apps/x@sha256:" + "1" * 64,
                 "securityContext": {"privileged": privileged}}  # fmt: skip
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "x", "annotations": annotations},
        "spec": {
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [container]}},
        },
    }


def found(cache: Path, value: dict[str, Any]) -> set[str]:
    cache.mkdir(exist_ok=True)
    binary, tool = find_trivy()
    return {item.id for item in scan_manifests(binary, Manifests(app="x", objects=(value,)), cache, tool)}


def test_no_word_in_an_object_turns_a_rule_off(tmp_path: Path) -> None:
    plain = found(tmp_path / "cache", deployment(privileged=True))
    assert "KSV-0017" in plain
    words = {f"note-{number}": word for number, word in enumerate(WORDS)}
    words |= dict.fromkeys(WORDS, "x")
    assert found(tmp_path / "cache", deployment(privileged=True, **words)) == plain
    assert "KSV-0017" not in found(tmp_path / "cache", deployment(privileged=False))


def test_the_rules_are_those_built_into_the_scanner(tmp_path: Path, scanner: Path) -> None:
    cache = tmp_path / "cache"
    assert "KSV-0017" in found(cache, deployment(privileged=True))
    # The scanner keeps rules that it fetched in `policy`; there are none, and none are fetched.
    assert {path.name for path in cache.iterdir()} == {"manifests"}
    done = subprocess.run([scanner, "version", "--format", "json", "--cache-dir", cache], check=True,
                          capture_output=True)  # fmt: skip
    assert "CheckBundle" not in json.loads(done.stdout)


def test_an_object_that_was_not_looked_at_is_a_fault() -> None:
    report = {"SchemaVersion": 2, "ArtifactType": "filesystem", "Results": [{"Target": "000.json"}]}
    parse.check_targets(report, {"000.json": "Deployment/x"})
    with pytest.raises(PermanentError, match="StatefulSet/y was not looked at"):
        parse.check_targets(report, {"000.json": "Deployment/x", "001.json": "StatefulSet/y"})
