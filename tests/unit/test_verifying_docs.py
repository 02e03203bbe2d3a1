"""docs/verifying.md: what it tells auditors to type works as it stands, and shows a forgery."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from sekisho.releases import export_bundle, verify_release

from .conftest import NOW, Line
from .test_why import Gate, gate, policies, rules

__all__ = ["gate", "policies", "rules"]

PAGE = Path(__file__).parent.parent.parent / "docs" / "verifying.md"

pytestmark = pytest.mark.skipif(not (shutil.which("jq") and shutil.which("openssl")), reason="needs jq and openssl")


def script() -> str:
    """Return the page's shell block."""
    (block,) = re.findall(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    return str(block)


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-c", script()], cwd=folder, check=False, capture_output=True, text=True)


@pytest.fixture
def folder(line: Line, gate: Gate, tmp_path: Path) -> Path:
    """A folder with a release's file and the trust root."""
    verified = verify_release(line.registry, gate.sealed("by-hand"), line.trust, at=NOW)
    (tmp_path / "release.json").write_bytes(export_bundle(verified).canonical())
    (tmp_path / "root.json").write_text(line.trust.model_dump_json())
    return tmp_path


def test_a_release_is_verified_with_openssl_alone(folder: Path) -> None:
    done = run(folder)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert said[:3] == ["Verified OK", "true", '"PASSED"']
    assert {"limits.yaml", "admission/sekisho-seccomp.yaml"} <= set(said)


def test_a_changed_document_shows(folder: Path) -> None:
    bundle = json.loads((folder / "release.json").read_bytes())
    summary = bundle["offer"]["summary"]
    referrer = json.loads(base64.b64decode(bundle["documents"][summary]))
    layer = referrer["layers"][0]["digest"]
    forged = base64.b64decode(bundle["documents"][layer]).replace(b"a", b"b", 1)
    bundle["documents"][layer] = base64.b64encode(forged).decode()
    (folder / "release.json").write_text(json.dumps(bundle))
    done = run(folder)
    assert (done.returncode, "Verified OK" in done.stdout) == (1, False)


def test_another_verifiers_key_shows(folder: Path, line: Line) -> None:
    root = json.loads((folder / "root.json").read_text())
    for key in root["keys"]:
        if key["role"] == "verifier":
            key["public_key"] = line.signers["stranger"].public_key
    (folder / "root.json").write_text(json.dumps(root))
    done = run(folder)
    assert (done.returncode, "Verified OK" in done.stdout) == (1, False)
