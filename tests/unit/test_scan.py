"""The scan stage with the real scanner, a real registry and a database of our own; and every way it can go wrong."""

from __future__ import annotations

import functools
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scan_cases import ADVISORIES, BASE, TOKEN, World, ids, installed, jar, put_fake
from signing_cases import Down
from signing_cases import broken as unreachable

from sekisho.advisories import REPOSITORY, TAG, push_database
from sekisho.errors import PermanentError, Refusal, SekishoError, TemporaryError, VerificationError
from sekisho.evidence import find_statements
from sekisho.keys import TrustRoot, trusted_key
from sekisho.model import AdvisoryDatabase, Image, Scan, Severity, Tool
from sekisho.oci import OCI_MANIFEST, Descriptor, make_manifest
from sekisho.stage import run_stage
from sekisho.statements import SBOM, SCAN
from sekisho.tools import trivy as find_trivy
from stages.scan import ensure_database, parse, scan_tree, trivy
from stages.scan.sbom import components_of, make_sbom, sbom_bytes


@pytest.fixture(scope="module", autouse=True)
def scanner() -> tuple[Path, Tool]:
    try:
        return find_trivy()
    except (PermanentError, VerificationError) as error:
        pytest.skip(str(error))


@pytest.fixture
def world(registry_url: str, tmp_path: Path) -> World:
    return World(registry_url, tmp_path)


def test_everything_is_looked_at_and_each_finding_has_an_owner(world: World) -> None:
    (world.tree / "tests").mkdir()
    (world.tree / "tests" / "test_x.py").write_text(f"token = '{TOKEN}'\n")
    (world.tree / "README.md").write_text(f"{TOKEN} # trivy:ignore:github-pat\n")
    (world.tree / ".trivyignore").write_text("github-pat\nCVE-2000-0001\n")
    (world.tree / "requirements.txt").write_text("holey==1.0\n")
    files = {**installed("holey", "1.0"), "app/tests/test_x.py": f"token = '{TOKEN}'\n", "app/only": f"{TOKEN}\n"}
    subject = world.subject("scan-all", BASE, files, ("pkg:pypi/holey@1.0",), deployed=True)
    outcome = run_stage(world.stage, subject)
    scan = outcome.value
    assert ids(scan.findings, "vulnerability") == {("CVE-2000-0001", "workload"), ("CVE-2000-0002", "platform")}
    assert sorted(item.where for item in scan.findings if item.kind == "secret") == [
        "/app/only:1",
        "README.md:1",
        "tests/test_x.py:1",
    ]
    assert ("KSV-0017", "workload") in ids(scan.findings, "misconfiguration")
    assert {item.where for item in scan.findings if item.kind == "misconfiguration"} == {"Deployment/scan-all"}
    assert ids(scan.findings, "coverage") == set()
    assert scan.coverage.model_dump() == {
        "os_family": "debian", "os_version": "12.1", "os_packages": 1, "language_packages": 1, "locked": 1,
        "missing": (),
    }  # fmt: skip
    assert (scan.database.kind, scan.database.updated_at) == ("sample", "2026-01-02T03:04:05Z")
    assert TOKEN not in scan.model_dump_json()
    assert "ghp_" not in scan.model_dump_json()
    assert run_stage(world.stage, subject).found
    again = world.stage.perform(subject)
    assert again == scan
    trust = TrustRoot(keys=(trusted_key(world.signer),))
    found = {
        kind: find_statements(world.registry, subject.image.repository, subject.image.digest, trust=trust,
                              role="scanner", predicate_type=kind)
        for kind in (SCAN, SBOM)
    }  # fmt: skip
    assert Scan.model_validate(found[SCAN][0].statement.predicate) == scan
    assert sbom_bytes(found[SBOM][0].statement.predicate) == world.registry.get_blob(
        subject.image.repository, scan.sbom
    )
    assert {kind: len(items) for kind, items in found.items()} == {SCAN: 1, SBOM: 1}


def test_the_runtime_is_the_platforms_and_what_is_locked_the_workloads(world: World) -> None:
    (world.tree / "requirements.txt").write_text("holey==1.0\nholey-not==1\n")
    runtime = {f"usr/lib/python3/{name}": text for name, text in installed("holey", "1.0").items()}
    scan = world.stage.perform(world.subject("scan-owners", {**BASE, **runtime}, {"app/x": "x"}))
    found = {(item.where, item.owner) for item in scan.findings if item.package == "holey"}
    assert found == {
        ("usr/lib/python3/opt/deps/holey-1.0.dist-info/METADATA", "platform"),
        ("requirements.txt", "workload"),
    }
    assert {item.purl for item in scan.findings if item.package == "holey"} == {"pkg:pypi/holey@1.0"}


def test_what_was_locked_but_not_installed_and_an_unknown_system_have_not_been_scanned(world: World) -> None:
    subject = world.subject("scan-none", {"etc/os-release": "ID=weirdos\n"}, {"app/requirements.txt": "holey==1.0\n"},
                            locked=("pkg:pypi/holey@1.0",))  # fmt: skip
    scan = world.stage.perform(subject)
    assert ids(scan.findings, "coverage") == {
        ("os-unknown", "platform"),
        ("locked-not-found", "workload"),
        ("lock-not-read", "workload"),
    }
    assert scan.coverage.missing == ("pkg:pypi/holey@1.0",)
    assert all(item.severity is Severity.CRITICAL for item in scan.findings if item.kind == "coverage")


def test_java_archives_are_seen_by_what_they_say_of_themselves(world: World) -> None:
    files = {"app/lib/thing.jar": jar("org.acme", "thing", "1.2.3"), "app/lib/mute.jar": b"PK\x05\x06" + b"\0" * 18}
    subject = world.subject("scan-java", BASE, files, ("pkg:maven/org.acme/thing@1.2.3",))
    scan = world.stage.perform(subject)
    assert (scan.coverage.locked, scan.coverage.missing) == (1, ())


def test_a_system_past_its_end_and_one_without_packages_are_told(world: World) -> None:
    old = {**BASE, "etc/os-release": 'ID=debian\nVERSION_ID="9"\n', "etc/debian_version": "9.13\n"}
    scan = world.stage.perform(world.subject("scan-old", old, {"app/x": "x"}))
    assert ids(scan.findings, "coverage") == {("os-end-of-life", "platform")}
    empty = {name: text for name, text in BASE.items() if "dpkg" not in name}
    scan = world.stage.perform(world.subject("scan-empty", empty, {"app/x": "x"}))
    assert ids(scan.findings, "coverage") == {("os-packages-none", "platform")}


def test_the_scanner_reads_our_bill_of_materials_and_finds_the_same(world: World, scanner: tuple[Path, Tool]) -> None:
    subject = world.subject("scan-sbom", BASE, installed("holey", "1.0"), locked=("pkg:pypi/holey@1.0",))
    scan = world.stage.perform(subject)
    path = world.folder / "sbom.json"
    path.write_bytes(world.registry.get_blob(subject.image.repository, scan.sbom))
    database = ensure_database(world.registry, world.cache)
    done = subprocess.run(
        [scanner[0], "sbom", "--cache-dir", database.folder, "--skip-db-update", "--offline-scan", "--format", "json",
         "--quiet", "--skip-version-check", "--disable-telemetry", path],
        check=True, capture_output=True, env={"HOME": str(world.folder), "PATH": os.defpath},
    )  # fmt: skip
    found = {item["VulnerabilityID"] for result in json.loads(done.stdout)["Results"]
             for item in result.get("Vulnerabilities", ())}  # fmt: skip
    assert found == {"CVE-2000-0001", "CVE-2000-0002"}
    document = json.loads(path.read_bytes())
    assert "serialNumber" not in document
    assert "timestamp" not in document["metadata"]


def test_a_newer_database_makes_a_new_report(world: World) -> None:
    subject = world.subject("scan-new", BASE, installed("holey", "1.0"))
    run_stage(world.stage, subject)
    newer = ADVISORIES.replace("2026-01-02", "2026-01-03").replace("holey,", "other,")
    (world.folder / "advisories.yaml").write_text(newer)
    push_database(world.registry, world.folder / "advisories.yaml")
    assert world.stage.find(subject) is None
    scan = run_stage(world.stage, subject).value
    assert ids(scan.findings, "vulnerability") == {("CVE-2000-0002", "platform")}


def test_a_missing_future_or_damaged_database_stops_the_line(world: World) -> None:
    subject = world.subject("scan-db", BASE, {"app/x": "x"})
    whole = world.registry.get_manifest(REPOSITORY, TAG)
    assert whole is not None
    future = world.folder / "future.yaml"
    future.write_text(ADVISORIES.replace("2026-01-02", "2999-01-02"))
    push_database(world.registry, future)
    with pytest.raises(Refusal, match="future"):
        world.stage.perform(subject)
    layer = Descriptor.of(b"no gzip", "application/vnd.aquasec.trivy.db.layer.v1.tar+gzip")
    world.registry.put_blob(REPOSITORY, b"no gzip")
    broken = make_manifest(Descriptor.of(b"{}", "application/vnd.aquasec.trivy.config.v1+json"), (layer,))
    world.registry.put_manifest(REPOSITORY, broken, OCI_MANIFEST, tag=TAG)
    with pytest.raises(PermanentError, match="damaged"):
        world.stage.perform(subject)
    world.registry.put_manifest(REPOSITORY, whole.data, whole.media_type, tag=TAG)
    assert world.stage.perform(subject)
    ours = world.registry.resolve
    world.registry.resolve = lambda *_: None  # type: ignore[method-assign,assignment]
    with pytest.raises(PermanentError, match="no advisory database"):
        world.stage.find(subject)
    world.registry.resolve = ours  # type: ignore[method-assign]


Fake = Callable[[str], None]


@pytest.fixture
def fake(world: World, monkeypatch: pytest.MonkeyPatch) -> Fake:
    return functools.partial(put_fake, world.folder, monkeypatch)


REPORT = 'for word; do case "$last" in --output) out="$word";; esac; last="$word"; done'


@pytest.mark.parametrize(
    ("body", "error"),
    [
        pytest.param("exit 1", PermanentError, id="fails"),
        pytest.param("exit 0", TemporaryError, id="says nothing"),
        pytest.param("kill -9 $$", TemporaryError, id="is killed"),
        pytest.param("echo 'FATAL dial tcp: connection refused' >&2; exit 1", TemporaryError, id="no registry"),
        pytest.param("echo 'write /x: no space left on device' >&2; exit 1", TemporaryError, id="no room"),
        pytest.param("echo 'fatal error: runtime: out of memory' >&2; exit 2", TemporaryError, id="no memory"),
        pytest.param(f'{REPORT}; echo \'{{"SchemaVersion": 2, "Resu\' > "$out"', TemporaryError, id="is cut off"),
        pytest.param(f'{REPORT}; echo "{{}}" > "$out"', PermanentError, id="another form"),
        pytest.param(f'{REPORT}; echo \'{{"SchemaVersion": 2, "ArtifactType": "container_image"}}\' > "$out"',
                     PermanentError, id="about nothing"),
    ],
)  # fmt: skip
def test_a_scanner_that_breaks_is_never_an_empty_report(
    world: World, fake: Fake, body: str, error: type[SekishoError]
) -> None:
    subject = world.subject("scan-broken", BASE, {"app/x": "x"})
    fake(body)
    with pytest.raises(error):
        world.stage.perform(subject)
    assert world.stage.find(subject) is None


def test_a_scanner_that_does_not_end_is_ended(world: World, fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    fake("exec sleep 60")
    monkeypatch.setattr(trivy, "_GRACE", 0.1)
    with pytest.raises(TemporaryError, match="did not end in time"):
        trivy.scan(world.folder / "fake-trivy", "fs", str(world.tree), (), cache=world.cache, seconds=0.1)


def test_an_unknown_scanner_is_not_run(world: World, fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = world.subject("scan-unknown", BASE, {"app/x": "x"})
    ran = world.folder / "ran"
    fake(f"touch {ran}")
    monkeypatch.setenv("SEKISHO_TRIVY_SHA256", "0" * 64)
    with pytest.raises(PermanentError):
        world.stage.perform(subject)
    assert not ran.exists()


def test_the_scanner_is_given_no_secret(world: World, fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_PASSWORD", "hunter2")
    monkeypatch.setenv("TRIVY_IGNOREFILE", "evil")
    seen = world.folder / "seen"
    subject = world.subject("scan-env", BASE, {"app/x": "x"})
    fake(f"[ $1 = --version ] || env >> {seen}; exit 1")
    with pytest.raises(PermanentError):
        world.stage.perform(subject)
    text = seen.read_text()
    assert "hunter2" not in text
    assert "TRIVY_" not in text


def image(**changes: Any) -> Image:
    layer = {"digest": "sha256:" + "1" * 64, "diff_id": "sha256:" + "2" * 64, "size": 1, "kind": "base"}
    value = {"repository": "apps/x", "digest": "sha256:" + "3" * 64, "language": "python", "base": "python",
             "base_digest": "sha256:" + "4" * 64, "layers": [layer]}  # fmt: skip
    return Image.model_validate({**value, **changes})


def report(**changes: Any) -> dict[str, Any]:
    metadata = {"RepoDigests": ["127.0.0.1:1/apps/x@sha256:" + "3" * 64], "DiffIDs": ["sha256:" + "2" * 64]}
    return {"SchemaVersion": 2, "ArtifactType": "container_image", "Metadata": metadata, **changes}


@pytest.mark.parametrize(
    "changes",
    [
        {"SchemaVersion": 3},
        {"ArtifactType": "filesystem"},
        {"Results": {}},
        {"Results": ["x"]},
        {"Results": [{"ExperimentalModifiedFindings": [{"Status": "not_affected"}]}]},
        {"Metadata": {}},
        {"Metadata": {"RepoDigests": ["x@sha256:" + "5" * 64], "DiffIDs": ["sha256:" + "2" * 64]}},
        {"Metadata": {"RepoDigests": ["x@sha256:" + "3" * 64], "DiffIDs": []}},
        {"Results": [{"Vulnerabilities": [{"PkgName": "x", "Severity": "HIGH"}]}]},
        {"Results": [{"Vulnerabilities": [{"PkgName": "x", "VulnerabilityID": "CVE", "Severity": "BAD"}]}]},
        {"Results": [{"Secrets": [{"RuleID": "x", "Severity": "HIGH"}]}]},
        {"Results": [{"Secrets": "x"}]},
    ],
)
def test_a_report_of_another_form_is_refused(changes: dict[str, Any]) -> None:
    def read(value: dict[str, Any]) -> None:
        parse.check_report(value, "image")
        parse.check_image(value, image())
        tuple(parse.vulnerabilities(value, image()))
        tuple(parse.secrets(value, image()))

    read(report())
    with pytest.raises(PermanentError):
        read(report(**changes))


@pytest.mark.parametrize("text", ["KSV014", "KSV-0014", "AVD-KSV-0014", "KSV-14"])
def test_one_rule_has_one_id(text: str) -> None:
    assert parse.rule_id(text) == "KSV-0014"


def test_the_same_report_in_another_order_gives_the_same_bytes() -> None:
    packages = [{"Name": name, "Version": "1", "Identifier": {"PURL": f"pkg:pypi/{name}@1", "UID": uid}}
                for name, uid in (("a", "x"), ("b", "y"))]  # fmt: skip
    tool = Tool(name="trivy", version="1", digest="sha256:" + "0" * 64)
    one = report(Results=[{"Class": "lang-pkgs", "Type": "python-pkg", "Packages": packages}])
    other = report(Results=[{"Class": "lang-pkgs", "Type": "python-pkg", "Packages": packages[::-1]}], ReportID="x")
    bills = [sbom_bytes(make_sbom(components_of(item), image(), tool)) for item in (one, other)]
    assert bills[0] == bills[1]


def test_a_folder_is_scanned_before_there_is_an_image(world: World) -> None:
    (world.tree / "requirements.txt").write_text("holey==1.0\n")
    (world.tree / "key.py").write_text(f"token = '{TOKEN}'\n")
    subject = world.subject("scan-early", BASE, {"app/x": "x"}, deployed=True)
    plain = scan_tree(world.tree, cache=world.folder / "laptop")
    assert [(item.kind, item.id, item.where) for item in plain] == [("secret", "github-pat", "key.py:1")]
    database = ensure_database(world.registry, world.cache)
    assert isinstance(database.identity, AdvisoryDatabase)
    full = scan_tree(world.tree, cache=world.folder / "laptop", database=database, manifests=subject.manifests)
    assert {"secret", "vulnerability", "misconfiguration"} == {item.kind for item in full}


def test_a_scanner_whose_signer_is_down_is_tried_again(world: World) -> None:
    subject = world.subject("scan-signer", BASE, {"app/x": "x"})
    world.stage._signer = Down(world.signer, unreachable)
    with pytest.raises(TemporaryError, match="The scanner's signer failed: ConnectionRefusedError"):
        run_stage(world.stage, subject)
    assert world.stage.find(subject) is None
    assert world.registry.referrers(subject.image.repository, subject.image.digest) == ()

    world.stage._signer = world.signer
    assert not run_stage(world.stage, subject).found
    assert run_stage(world.stage, subject).found
