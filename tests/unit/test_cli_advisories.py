"""`sekisho advisories`: a denial is in force with one command, and anybody can see what is denied."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sekisho.cli.commands import app
from sekisho.embedded import content, seeds
from sekisho.errors import PermanentError, UsageError
from sekisho.own_advisories import ADVISORIES_FILE, OwnAdvisories, published
from sekisho.registry import Registry
from sekisho.zones import Zone

LIST = """\
format: sekisho.dev/advisories/v1
owner: security team
advisories:
  - {id: ACME-2026-0001, ecosystem: pip, package: jinja2, versions: ["2.10"], fixed: ["2.11"], title: not to be used}
  - {id: ACME-2026-0002, ecosystem: npm, package: left-pad, versions: all, title: not to be used}
"""


@pytest.fixture
def registry(fresh_registry_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """Put a registry of the test's in the zone's place, and a policies folder in the installation's."""
    monkeypatch.setattr(seeds, "_WRITABLE", fresh_registry_url)
    monkeypatch.setattr(seeds.netns, "namespace", lambda _: "")
    monkeypatch.setattr(content, "default_policies", lambda: tmp_path)
    return Registry(fresh_registry_url)


def run(*words: str) -> str:
    result = CliRunner().invoke(app, ["advisories", *words], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_publish_and_list(registry: Registry, tmp_path: Path) -> None:
    assert "No advisories of your own are published in build." in run("list")
    (tmp_path / ADVISORIES_FILE).write_text(LIST)
    assert "2 own advisories are in force in build" in run("publish")
    shown = run("list")
    assert "ACME-2026-0001" in shown
    assert "every version" in shown
    assert "Denied by security team." in shown
    assert OwnAdvisories.model_validate(json.loads(run("list", "--json"))) == published(registry)
    other = tmp_path / "other.yaml"
    other.write_text(LIST.partition("advisories:")[0])
    assert "0 own advisories" in run("publish", str(other))
    assert "The list of security team in build is empty: nothing is denied." in run("list")


def test_a_wrong_list_or_zone_publishes_nothing(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / ADVISORIES_FILE).write_text(LIST.replace("left-pad", "left pad"))
    with pytest.raises(PermanentError, match="'left pad' is not the name of a package of npm") as caught:
        run("publish")
    assert caught.value.where == f"{tmp_path}/{ADVISORIES_FILE}:5"
    with pytest.raises(UsageError, match="no zone 'moon'"):
        run("list", "--zone", "moon")
    assert published(registry) is None


def test_up_publishes_what_the_policies_of_the_build_zone_have(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seeds.ZoneHome, "policies", tmp_path)

    def names(zone: Zone) -> list[str]:
        return [step.name for step in seeds.seed_steps(zone)]

    assert "own-advisories" not in names(Zone.BUILD)
    (tmp_path / ADVISORIES_FILE).write_text(LIST)
    assert "own-advisories" in names(Zone.BUILD)
    assert "own-advisories" not in names(Zone.STAGING)
    seeds.push_own_advisories(Zone.BUILD)
    own = published(registry)
    assert own is not None
    assert len(own.advisories) == 2
