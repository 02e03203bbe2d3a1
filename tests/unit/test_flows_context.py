"""How the build zone's parts are put together: what the policies say of the builder is what it says of itself."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from flows import context
from sekisho.keys import FileSigner, TrustRoot, trusted_key
from sekisho.zones import Zone, ZoneHome

POLICIES = Path(__file__).parents[2] / "policies"
ROLES = ("builder", "scanner", "verifier")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ZoneHome:
    """A build zone's folder with keys, trust and the project's policies."""
    monkeypatch.setenv("SEKISHO_HOME", str(tmp_path))
    home = ZoneHome(Zone.BUILD)
    for folder in (home.keys, home.trust, home.state, home.cache):
        folder.mkdir(parents=True)
    signers = [FileSigner.create(home.keys / f"{role}.pem", role) for role in ROLES]
    (home.trust / "root.json").write_bytes(TrustRoot(keys=tuple(trusted_key(signer) for signer in signers)).canonical())
    shutil.copytree(POLICIES, home.policies)
    return home


@pytest.mark.parametrize(
    ("text", "builder", "levels"),
    [
        ("", "https://sekisho.dev/builders/embedded-unhosted/v1", ("SLSA_BUILD_LEVEL_1",)),
        ('builder: {id: "https://build.example/v1", level: 2}\n', "https://build.example/v1", ("SLSA_BUILD_LEVEL_2",)),
    ],
)
def test_who_builds_stands_in_the_policies(home: ZoneHome, text: str, builder: str, levels: tuple[str, ...]) -> None:
    (home.policies / "builds.yaml").write_text(f"format: sekisho.dev/builds/v1\n{text}")
    gate = context.gatekeeper.__wrapped__()
    assert gate.build._builder_id == builder
    assert gate.seal._levels == levels
