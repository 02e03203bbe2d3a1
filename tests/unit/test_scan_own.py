"""An operator's own advisories: written here, published in a real registry, and found by the pinned scanner."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from scan_cases import BASE, World, count_runs, find_scanner, ids, installed, jar

from sekisho.advisories import push_database
from sekisho.errors import PermanentError, Refusal
from sekisho.own_advisories import REPOSITORY as OWN
from sekisho.own_advisories import (
    OwnAdvisories,
    OwnAdvisory,
    identify,
    load_own,
    own_buckets,
    published,
    push_own,
    readable,
)
from stages.scan.stage import ScanStage

LIST = """\
format: sekisho.dev/advisories/v1
owner: security team
advisories:
  - id: ACME-2026-0001
    ecosystem: pip
    package: Jinja2
    versions: ["2.10"]
    fixed: ["2.10.1"]
    title: not to be used until somebody has looked
"""
ONE = {"id": "ACME-2026-0001", "ecosystem": "pip", "package": "holey", "versions": ["1.0"],
       "title": "denied by the operator"}  # fmt: skip
DEBIAN_BINARY = (
    "ACME-2026-0002 denies libold1, but that is built from libold: the advisory must name the source package."
)
CARGO = 'version = 3\n\n[[package]]\nname = "ser"\nversion = "1.0.0"\nsource = "registry+https://x"\nchecksum = "00"\n'


@pytest.fixture
def world(fresh_registry_url: str, tmp_path: Path) -> World:
    find_scanner()
    return World(fresh_registry_url, tmp_path)


# -- the list ---------------------------------------------------------------------------------------------------------


def test_a_list_of_a_policies_folder(tmp_path: Path) -> None:
    assert load_own(tmp_path) is None
    (tmp_path / "advisories.yaml").write_text(LIST)
    own = load_own(tmp_path)
    assert own is not None
    (advisory,) = own.advisories
    assert (advisory.name, advisory.exact, advisory.severity) == ("jinja2", ("2.10",), "CRITICAL")


@pytest.mark.parametrize(
    ("old", "new", "said", "line"),
    [
        ("ACME-2026-0001", "acme-1", "/advisories/0/id", 4),
        ("pip", "gems", "/advisories/0/ecosystem", 5),
        ("owner: security team\n", "", "/owner", 1),
        ('versions: ["2.10"]', "versions: [2.10]", "/advisories/0/versions", 7),
        ('    versions: ["2.10"]\n', "", "exactly one of versions and ranges", 4),
        ('versions: ["2.10"]', "versions: []", "exactly one of versions and ranges", 4),
        ('versions: ["2.10"]', 'ranges: ["2.x"]', "the range '2.x' cannot be read", 4),
        ('versions: ["2.10"]', 'ranges: [">=2, <"]', "cannot be read", 4),
        ('versions: ["2.10"]', 'versions: ["two"]', "the version 'two' cannot be compared", 4),
        ('versions: ["2.10"]', "versions: all", "where all versions are denied", 4),
        ("Jinja2", "jin ja2", "is not the name of a package", 4),
        ("until somebody has looked", "x\n    secret: y", "/advisories/0/secret", 10),
    ],
)
def test_a_list_that_is_not_understood_stops_the_line(tmp_path: Path, old: str, new: str, said: str, line: int) -> None:
    assert old in LIST
    (tmp_path / "advisories.yaml").write_text(LIST.replace(old, new))
    with pytest.raises(PermanentError) as caught:
        load_own(tmp_path)
    assert said in str(caught.value)
    assert caught.value.where == f"{tmp_path}/advisories.yaml:{line}"


@pytest.mark.parametrize(
    "change",
    [
        {"ecosystem": "npm", "versions": ["1.2"]},
        {"ecosystem": "go", "package": "github.com/a b", "versions": ["v1.2.3"]},
        {"ecosystem": "maven", "package": "thing"},
        {"ecosystem": "debian", "versions": None, "ranges": [">=1"]},
        {"ecosystem": "debian", "versions": None, "ranges": ["<1", "<2"]},
        {"ecosystem": "debian", "versions": None, "ranges": ["<1, >2"]},
        {"id": "ACME-2026-1"},
    ],
)
def test_an_advisory_that_the_scanner_would_pass_over_is_refused(change: dict[str, Any]) -> None:
    OwnAdvisory.model_validate(ONE)
    with pytest.raises(ValueError, match="validation error"):
        OwnAdvisory.model_validate({**ONE, **change})


def test_an_id_stands_once() -> None:
    with pytest.raises(ValueError, match="ACME-2026-0001 stands there twice"):
        OwnAdvisories.model_validate(
            {"format": "sekisho.dev/advisories/v1", "owner": "me too", "advisories": [ONE, ONE]}
        )


def test_a_debian_package_is_denied_in_every_release() -> None:
    one = {**ONE, "ecosystem": "debian", "package": "xz-utils", "versions": None, "ranges": ["<5.6.1+really5.4.5-1"]}
    own = OwnAdvisories.model_validate({"format": "sekisho.dev/advisories/v1", "owner": "me too", "advisories": [one]})
    buckets = own_buckets(own)
    for release in ("debian 12", "debian 13"):
        entry: Any = buckets[release.encode()]
        assert json.loads(entry[b"xz-utils"][b"ACME-2026-0001"]) == {"FixedVersion": "5.6.1+really5.4.5-1"}


@pytest.mark.parametrize(
    ("purl", "identity"),
    [
        ("pkg:pypi/Flask_Login@1.0", ("pip", "flask-login", "1.0")),
        ("pkg:npm/%40scope/name@1.0.0", ("npm", "@scope/name", "1.0.0")),
        ("pkg:golang/github.com/a/b@v1.0.0", ("go", "github.com/a/b", "v1.0.0")),
        ("pkg:maven/org.acme/thing@1", ("maven", "org.acme:thing", "1")),
        ("pkg:deb/debian/libold1@1.0-1?arch=amd64&distro=debian-12", ("debian", "libold1", "1.0-1")),
        ("pkg:gem/rails@1", None),
        ("no package URL", None),
    ],
)
def test_what_a_package_url_names(purl: str, identity: tuple[str, str, str] | None) -> None:
    assert identify(purl) == identity


def test_versions_that_can_be_compared() -> None:
    assert [readable("pip", text) for text in ("1.0", "2!1.0rc1", "1.0+local", "latest")] == [True, True, True, False]
    assert [readable("go", text) for text in ("v1.2.3-0.20200101000000-abcdefabcdef", "(devel)")] == [True, False]


# -- in the zone ------------------------------------------------------------------------------------------------------


def everywhere(world: World) -> dict[str, Any]:
    """Lay out one package of each kind; returns what an image has."""
    (world.tree / "Cargo.lock").write_text(CARGO)
    (world.tree / "go.mod").write_text("module x\n\ngo 1.22\n\nrequire github.com/acme/Thing v1.2.3\n")
    package = json.dumps({"name": "@scope/pkg", "version": "1.0.0-beta.1"})
    return {
        **installed("holey", "1.0"),
        "app/node_modules/@scope/pkg/package.json": package,
        "app/lib/thing.jar": jar("org.acme", "thing", "1.2.3"),
    }


ECOSYSTEMS: list[tuple[str, str, str, str]] = [
    ("pip", "Holey", "1.0", "2.0"),
    ("npm", "@scope/pkg", "1.0.0-beta.1", "1.0.0"),
    ("go", "github.com/acme/Thing", "v1.2.3", "v1.2.4"),
    ("maven", "org.acme:thing", "1.2.3", "1.2.4"),
    ("cargo", "ser", "1.0.0", "1.0.1"),
    ("debian", "libold", "1.0-1", "1.0-2"),
]


def test_each_kind_of_package_can_be_denied(world: World) -> None:
    files = everywhere(world)
    denied: list[dict[str, Any]] = []
    for number, (ecosystem, package, version, other) in enumerate(ECOSYSTEMS):
        name = {"ecosystem": ecosystem, "package": package}
        bound = f"<{other}" if ecosystem == "debian" else f">=0.1, <{other}"
        denied += [
            {**name, "id": f"EXACT-2026-{number:04}", "versions": [version], "fixed": [other]},
            {**name, "id": f"OTHER-2026-{number:04}", "versions": [other]},
            {**name, "id": f"EACH-2026-{number:04}", "versions": "all"},
            {**name, "id": f"RANGE-2026-{number:04}", "ranges": [bound]},
        ]
    digest = world.deny(*denied)
    scan = world.stage.perform(world.subject("own-kinds", BASE, files))
    found = [item for item in scan.findings if item.source]
    assert sorted(item.id for item in found) == sorted(
        f"{form}-2026-{number:04}" for form in ("EXACT", "EACH", "RANGE") for number in range(len(ECOSYSTEMS))
    )
    assert {(item.source, str(item.severity), item.title) for item in found} == {
        ("own advisories", "CRITICAL", "denied by the operator")
    }
    assert {item.id[-1]: item.fixed for item in found if item.id.startswith("EXACT")} == {
        str(number): other for number, (*_, other) in enumerate(ECOSYSTEMS)
    }
    assert {item.owner for item in found if item.package == "libold1"} == {"platform"}
    assert {item.owner for item in found if item.package != "libold1"} == {"workload"}
    assert scan.own_advisories == digest
    assert ("CVE-2000-0001", "workload") in ids(scan.findings, "vulnerability")


def test_what_cannot_be_compared_is_said(world: World) -> None:
    files = installed("holey", "1.0-whatever-x")
    deb = {"ecosystem": "debian", "versions": "all"}
    world.deny({**ONE}, {**deb, "id": "ACME-2026-0002", "package": "libold1"})
    scan = world.stage.perform(world.subject("own-blind", BASE, files))
    gaps = {(item.owner, item.title) for item in scan.findings if item.kind == "coverage"}
    assert gaps == {
        ("workload", "ACME-2026-0001 denies holey, but the version '1.0-whatever-x' cannot be compared."),
        ("platform", DEBIAN_BINARY),
    }  # fmt: skip


def test_a_denial_is_in_force_with_the_next_scan_and_can_be_taken_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = count_runs(world.folder, monkeypatch)
    subject = world.subject("own-now", BASE, installed("holey", "1.0"))
    assert "ACME-2026-0001" not in {item.id for item in world.stage.perform(subject).findings}
    assert taken() == ["fs", "image"]
    world.deny(ONE)
    assert world.stage.find(subject) is None
    assert "ACME-2026-0001" in {item.id for item in world.stage.perform(subject).findings}
    assert taken() == ["fs", "fs", "image", "image"]
    world.deny()
    scan = world.stage.perform(subject)
    assert [item for item in scan.findings if item.source] == []
    assert scan.own_advisories


def test_the_same_list_is_the_same_database_and_can_be_read_back(world: World) -> None:
    one = world.deny(ONE)
    assert world.deny({**ONE, "versions": ["2.0"]}) != one
    assert world.deny(ONE) == one
    own = published(world.registry)
    assert own is not None
    assert [advisory.id for advisory in own.advisories] == ["ACME-2026-0001"]
    assert push_own(world.registry, own) == one


def test_something_else_in_their_place_stops_the_line(world: World) -> None:
    assert published(world.registry) is None
    push_database(world.registry, world.folder / "advisories.yaml", repository=OWN)
    subject = world.subject("own-else", BASE, {"app/x": "x"})
    with pytest.raises((PermanentError, Refusal), match="not own advisories"):
        world.stage.perform(subject)


def test_a_report_without_own_advisories_has_the_bytes_it_always_had(world: World) -> None:
    subject = world.subject("own-none", BASE, installed("holey", "1.0"))
    stage = ScanStage(world.registry, world.signer, cache=world.cache)
    assert "own_advisories" not in stage.perform(subject).model_dump(mode="json")
