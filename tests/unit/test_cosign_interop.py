"""Interoperation with the real cosign: what the line signs it verifies, and what it signs the line verifies.

Skipped where `cosign` is not on PATH: it is no part of the line, and building it takes a quarter of an hour
(`go install github.com/sigstore/cosign/v3/cmd/cosign@latest`).
"""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from sekisho.canonical import Digest
from sekisho.evidence import find_statements
from sekisho.stage import run_stage

COSIGN = shutil.which("cosign")
COSIGN_PREDICATE = "https://sigstore.dev/cosign/sign/v1"
OFFLINE = ("--insecure-ignore-tlog=true", "--allow-http-registry")

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(
        COSIGN is None, reason="cosign is not on PATH: go install github.com/sigstore/cosign/v3/cmd/cosign"
    ),
]


@pytest.fixture
def cosign(tmp_path):
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "COSIGN_PASSWORD": ""}
        return subprocess.run(
            [str(COSIGN), *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    return run


@pytest.fixture
def public(line, tmp_path):
    for name, signer in line.signers.items():
        (tmp_path / f"{name}.pub").write_text(signer.public_key)


@pytest.fixture
def image(line, public):
    del public
    sealed = run_stage(line.seal_stage(), line.seal_input("cosign")).value
    return f"{line.registry.url.removeprefix('http://')}/apps/cosign@{sealed.release.image.digest}"


@pytest.mark.parametrize("form", ["--new-bundle-format=true", "--new-bundle-format=false"])
def test_cosign_verifies_what_the_gate_let_through(cosign, image, form):
    good = cosign("verify", "--key", "verifier.pub", form, *OFFLINE, image)
    bad = cosign("verify", "--key", "stranger.pub", form, *OFFLINE, image)

    assert good.returncode == 0, good.stderr
    assert bad.returncode != 0


@pytest.mark.parametrize("form", ["--new-bundle-format=true", "--new-bundle-format=false"])
def test_cosign_verifies_the_provenance(cosign, image, form):
    arguments = ("verify-attestation", "--type", "slsaprovenance1", form, *OFFLINE, image)
    good, bad = cosign(*arguments, "--key", "builder.pub"), cosign(*arguments, "--key", "scanner.pub")

    assert good.returncode == 0, good.stderr
    assert bad.returncode != 0


def test_the_line_verifies_what_cosign_signs(cosign, line, public, tmp_path, tmp_path_factory):
    del public
    image = line.image("cosign-signs")
    key = next(path for path in tmp_path_factory.getbasetemp().glob("keys*/builder.pem"))
    assert cosign("import-key-pair", "--key", str(key), "--output-key-prefix", "imported").returncode == 0
    (tmp_path / "signing.json").write_text(cosign("signing-config", "create").stdout)
    reference = f"{line.registry.url.removeprefix('http://')}/{image.repository}@{image.digest}"
    signed = cosign(
        "sign", "--key", "imported.key", "--signing-config", "signing.json", "--allow-http-registry", "--yes", reference
    )
    assert signed.returncode == 0, signed.stderr

    found = find_statements(
        line.registry,
        image.repository,
        Digest(image.digest),
        trust=line.trust,
        role="builder",
        predicate_type=COSIGN_PREDICATE,
    )
    assert len(found) == 1
