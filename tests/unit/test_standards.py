"""The standard images' gate: the real scanner, a real registry, advisories of our own; and what builders are told."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from sekisho.advisories import push_database
from sekisho.builds import BuildRules
from sekisho.canonical import Digest, digest_of
from sekisho.cli import main as cli
from sekisho.errors import Held, PermanentError, TemporaryError, VerificationError
from sekisho.evidence import find_statements
from sekisho.feed import FeedStore, create_feed_app
from sekisho.keys import FileSigner, Role, TrustRoot, trusted_key
from sekisho.limits import load_limits
from sekisho.model import Result, StandardImage
from sekisho.oci import OCI_CONFIG, OCI_MANIFEST, Descriptor, make_manifest
from sekisho.own_advisories import OwnAdvisories, push_own
from sekisho.registry import Registry
from sekisho.stage import run_stage
from sekisho.standard import LockedArchive, LockEntry, StandardFile, StandardImages
from sekisho.statements import PROVENANCE, SBOM, SCAN, SUMMARY, verify_statement
from sekisho.tools import trivy as find_trivy
from sekisho.waivers import Waiver
from stages.build import Builder
from stages.build.compose import LAYER_TYPE
from stages.build.pack import Entry, write_layer
from stages.standards import Signers, StandardsStage

from .serving import serve

POLICIES = Path(__file__).parents[2] / "policies"
NOW = int(dt.datetime(2026, 11, 21, tzinfo=dt.UTC).timestamp())
CLEAN = "- {id: CVE-2000-0009, ecosystem: pip, package: absent, severity: CRITICAL, title: x, fixed: ['2']}"
BAD = "- {id: CVE-2000-0001, ecosystem: 'debian 12', package: libold, severity: CRITICAL, title: planted, fixed: [2-1]}"
STATUS = """Package: libold1
Status: install ok installed
Source: libold
Version: 1.0-1
Architecture: amd64
Maintainer: nobody <nobody@example.com>

"""
FILES = {
    "etc/os-release": 'ID=debian\nVERSION_ID="12"\n',
    "etc/debian_version": "12.1\n",
    "var/lib/dpkg/status": STATUS,
    "usr/local/lib/node_modules/tool/package.json": json.dumps({"name": "tool", "version": "1.2.3"}),
}
ARCHIVE = LockedArchive(
    purl="pkg:npm/tool@1.2.3", url="https://registry.npmjs.org/tool/-/tool-1.2.3.tgz", sha256="a" * 64
)
GO = LockedArchive(purl="pkg:golang/golang.org/toolchain@v1", url="https://proxy.golang.org/x.zip", sha256="b" * 64)


@pytest.fixture(scope="module", autouse=True)
def scanner() -> None:
    try:
        find_trivy()
    except (PermanentError, VerificationError) as error:
        pytest.skip(str(error))


class World:
    """One standard image in a zone's registry, and the stage that judges it."""

    def __init__(self, url: str, folder: Path) -> None:
        self.registry, self.folder, self.time = Registry(url), folder, float(NOW)
        roles: tuple[Role, ...] = ("builder", "scanner", "verifier")
        self.keys = {role: FileSigner.create(folder / f"{role}.pem", role) for role in roles}
        self.trust = TrustRoot(keys=tuple(trusted_key(key) for key in self.keys.values()))
        self.limits = load_limits(POLICIES)
        self.advise(CLEAN)

    def advise(self, *advisories: str) -> None:
        path = self.folder / "advisories.yaml"
        head = "format: sekisho.dev/sample-advisories/v1\nupdated_at: 2026-11-20T00:00:00Z\nadvisories:\n"
        path.write_text(head + "".join(f"  {line}\n" for line in advisories))
        push_database(self.registry, path)

    def image(self, files: dict[str, str], **lock: Any) -> tuple[StandardImage, StandardImages]:
        repository = "standard/tool"
        entries = [Entry(name, "file", size=len(text.encode()), data=text.encode()) for name, text in files.items()]
        packed = write_layer(entries, self.folder / "layer", time=0)
        self.registry.push_blob(repository, packed.path, packed.digest)
        rootfs = {"type": "layers", "diff_ids": [packed.diff_id]}
        config = json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs}).encode()
        self.registry.put_blob(repository, config)
        layers = (Descriptor(LAYER_TYPE, packed.digest, packed.size),)
        manifest = make_manifest(Descriptor(OCI_CONFIG, digest_of(config), len(config)), layers)
        digest = self.registry.put_manifest(repository, manifest, OCI_MANIFEST)
        spec = {"name": "tool", "kind": "run", "language": "node", "version": "1", "title": "A tool",
                "owner": "platform team", "end_of_life": "2027-06-30", "recipe": {"variant": "essential"}}  # fmt: skip
        file = StandardFile.model_validate({
            "format": "sekisho.dev/standard-images/v1", "images": [spec],
            "debian": {"suite": "bookworm", "mirrors": ["deb http://deb.debian.org/debian bookworm main"], "epoch": 1},
        })  # fmt: skip
        entry = LockEntry.model_validate({
            "digest": digest, "packages": ("libold1=1.0-1",), "sources": {"libold1": "libold=1.0-1"},
            "archives": (ARCHIVE, GO), "recipe": digest_of(b"recipe"), "size": packed.size,
            "built_at": "2026-11-20T00:00:00Z", **lock,
        })  # fmt: skip
        images = StandardImages({item.name: item for item in file.images}, {"tool": entry}, where="policies")
        return images.get("tool"), images

    def stage(self, images: StandardImages) -> StandardsStage:
        signers = Signers(self.keys["builder"], self.keys["scanner"], self.keys["verifier"])
        return StandardsStage(self.registry, images, self.limits, signers, self.folder / "cache", now=lambda: self.time)


@pytest.fixture
def world(registry_url: str, tmp_path: Path) -> World:
    return World(registry_url, tmp_path)


def test_a_good_image_passes_once_and_is_found_again(world: World) -> None:
    image, images = world.image(FILES)
    stage = world.stage(images)
    outcome = run_stage(stage, image)
    assert (outcome.value.result, outcome.found, outcome.value.findings) == (Result.PASSED, False, {})
    again = run_stage(world.stage(images), image)
    assert (again.value, again.found) == (outcome.value, True)
    assert {reason.rule: reason.result for reason in outcome.value.reasons}["scan/packages"] == "pass"
    stage.cleared(image)


def test_each_role_says_its_own_and_cosign_style_verification_holds(world: World) -> None:
    image, images = world.image(FILES)
    run_stage(world.stage(images), image)

    def said(role: Role, kind: str) -> dict[str, Any]:
        found = find_statements(
            world.registry, image.repository, Digest(image.digest), trust=world.trust, role=role, predicate_type=kind
        )
        (statement,) = found
        return statement.statement.predicate

    made = said("builder", PROVENANCE)["buildDefinition"]
    assert made["externalParameters"] == {"image": "tool", "version": "1", "recipe": {"digest": digest_of(b"recipe")}}
    assert made["resolvedDependencies"] == [
        {"name": "libold1", "uri": "pkg:deb/debian/libold1@1.0-1?upstream=libold%401.0-1"},
        {"uri": ARCHIVE.purl, "downloadLocation": ARCHIVE.url, "digest": {"sha256": "a" * 64}},
        {"uri": GO.purl, "downloadLocation": GO.url, "digest": {"sha256": "b" * 64}},
    ]
    assert said("scanner", SCAN)["coverage"]["locked"] == 1
    bill = {component.get("purl", "").partition("?")[0] for component in said("scanner", SBOM)["components"]}
    assert {"pkg:deb/debian/libold1@1.0-1", ARCHIVE.purl, GO.purl} <= bill
    assert said("verifier", SUMMARY)["verificationResult"] == "PASSED"


def test_a_planted_advisory_refuses_the_image_and_a_fresh_database_clears_it(world: World) -> None:
    image, images = world.image(FILES)
    stage = world.stage(images)
    run_stage(stage, image)
    world.advise(BAD)
    world.time += 60  # what is remembered for builders is half a minute old at most
    with pytest.raises(TemporaryError, match="is being judged itself"):
        stage.cleared(image)
    assert [waiting.name for waiting in stage.pending()] == ["tool"]
    verdict = run_stage(stage, image).value
    assert (verdict.result, verdict.findings) == (Result.FAILED, {"CRITICAL": 1})
    with pytest.raises(Held, match=r"has not passed its own gate: CRITICAL CVE-2000-0001 in libold1") as caught:
        stage.cleared(image)
    assert "platform team" in caught.value.remedy
    assert not stage.passed(image)
    world.advise(CLEAN)
    world.time += 60
    run_stage(stage, image)
    stage.cleared(image)


def test_what_the_operator_denies_refuses_a_standard_image_too(fresh_registry_url: str, tmp_path: Path) -> None:
    world = World(fresh_registry_url, tmp_path)
    image, images = world.image(FILES)
    stage = world.stage(images)
    assert run_stage(stage, image).value.result is Result.PASSED
    one = {"id": "ACME-2026-0001", "ecosystem": "debian", "package": "libold", "versions": "all",
           "title": "denied by the operator"}  # fmt: skip
    own = {"format": "sekisho.dev/advisories/v1", "owner": "security team", "advisories": [one]}
    push_own(world.registry, OwnAdvisories.model_validate(own))
    assert [waiting.name for waiting in stage.pending()] == ["tool"]
    verdict = run_stage(stage, image).value
    assert [(reason.rule, reason.owner) for reason in verdict.failures] == [("scan/vulnerabilities", "platform")]
    assert (
        "ACME-2026-0001 in libold1 1.0-1: denied by the operator (from own advisories)" in verdict.failures[0].message
    )
    push_own(world.registry, OwnAdvisories.model_validate({**own, "advisories": []}))
    assert run_stage(stage, image).value.result is Result.PASSED


def test_a_no_is_signed_but_never_beside_the_image(world: World) -> None:
    world.advise(BAD)
    image, images = world.image(FILES)
    run_stage(world.stage(images), image)
    beside = find_statements(world.registry, image.repository, Digest(image.digest), trust=world.trust,
                             role="verifier", predicate_type=SUMMARY)  # fmt: skip
    assert beside == ()
    record = world.registry.resolve("verdicts/standard-tool", f"image-{image.digest.removeprefix('sha256:')}")
    assert record is not None
    (referrer,) = world.registry.referrers("verdicts/standard-tool", record)
    raw = world.registry.get_manifest("verdicts/standard-tool", referrer.digest)
    assert raw is not None
    layer = json.loads(raw.data)["layers"][0]["digest"]
    bundle = world.registry.get_blob("verdicts/standard-tool", Digest(layer))
    said = verify_statement(bundle, trust=world.trust, role="verifier", predicate_type=SUMMARY, subject=record,
                            allow_failed=True)  # fmt: skip
    assert said.predicate["verificationResult"] == "FAILED"


@pytest.mark.parametrize(
    ("files", "rule"),
    [
        ({**FILES, "etc/os-release": "", "etc/debian_version": ""}, "scan/system"),
        ({name: text for name, text in FILES.items() if "dpkg" not in name}, "scan/system"),
        ({name: text for name, text in FILES.items() if "node_modules" not in name}, "scan/packages"),
        ({**FILES, "root/key": f"token = ghp_{'abcdefghijklmnopqrstuvwxyz0123456789'}\n"}, "scan/secrets"),
    ],
)
def test_what_the_scanner_did_not_see_or_should_not_see_has_not_passed(
    world: World, files: dict[str, str], rule: str
) -> None:
    image, images = world.image(files)
    verdict = run_stage(world.stage(images), image).value
    assert verdict.result is Result.FAILED
    assert rule in {reason.rule for reason in verdict.failures}
    assert {reason.owner for reason in verdict.failures} == {"platform"}


def test_an_image_past_its_end_of_life_loses_its_yes_without_any_scan(world: World) -> None:
    image, images = world.image(FILES)
    stage = world.stage(images)
    before = run_stage(stage, image).value
    world.time = dt.datetime(2027, 7, 1, tzinfo=dt.UTC).timestamp()
    assert stage.find(image) is None
    after = run_stage(stage, image).value
    assert [reason.rule for reason in after.failures] == ["standard/end-of-life"]
    assert after.scan == before.scan


def test_a_waiver_for_the_image_holds_until_its_day(world: World) -> None:
    world.advise(BAD)
    image, images = world.image(FILES)
    waiver = Waiver(id="CVE-2000-0001", app="standard-tool", package="libold1", owner="security team",
                    reason="not reachable from outside", expires=dt.date(2026, 12, 1))  # fmt: skip
    world.limits = world.limits.model_copy(update={"waivers": (waiver,)})
    stage = world.stage(images)
    assert run_stage(stage, image).value.result is Result.PASSED
    world.time = dt.datetime(2026, 12, 2, tzinfo=dt.UTC).timestamp()
    assert run_stage(stage, image).value.result is Result.FAILED


def test_only_what_the_lock_names_is_judged(world: World) -> None:
    image, images = world.image(FILES)
    other = image.model_copy(update={"digest": digest_of(b"other")})
    with pytest.raises(PermanentError, match="not the one of the lock"):
        world.stage(images).cleared(other)


def test_an_image_that_is_not_in_the_registry_is_a_fault_and_no_verdict(world: World) -> None:
    _, images = world.image(FILES, digest=digest_of(b"absent"))
    stage = world.stage(images)
    image = images.get("tool")
    with pytest.raises(PermanentError, match="not in the zone's registry"):
        run_stage(stage, image)
    assert stage.pending() == (image,)


def test_without_advisories_nothing_is_cleared(registry_url: str, world: World) -> None:
    image, images = world.image(FILES)
    run_stage(world.stage(images), image)
    stage = world.stage(images)
    digest = world.registry.resolve("mirror/trivy-db", "2")
    assert httpx.delete(f"{registry_url}/v2/mirror/trivy-db/manifests/{digest}").status_code == httpx.codes.ACCEPTED
    with pytest.raises(PermanentError, match="no advisory database"):
        stage.cleared(image)


# -- builders and people -----------------------------------------------------------------------------------------


def test_a_builder_asks_before_it_reads_an_image_and_each_time(world: World, tmp_path: Path) -> None:
    image, images = world.image(FILES)
    stage = world.stage(images)
    builder = Builder(world.registry, images, BuildRules(), cache=tmp_path / "build", docker_socket=tmp_path / "none",
                      fetcher=None, resolver=None, cleared=stage.cleared)  # type: ignore[arg-type] # fmt: skip
    with pytest.raises(TemporaryError, match="is being judged itself"):
        builder.base(image)
    run_stage(stage, image)
    assert builder.base(image).digest == image.digest
    world.advise(BAD)
    world.time += 60
    run_stage(stage, image)
    with pytest.raises(Held, match="has not passed its own gate"):
        builder.base(image)


def test_the_command_line_shows_owner_verdict_and_why(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    image, images = world.image(FILES)
    never = images.specs["tool"].model_copy(update={"name": "never"})
    images = replace(images, specs={**images.specs, "never": never})
    stage = world.stage(images)
    feed = create_feed_app(FeedStore(tmp_path / "feed"), lambda _: None, standard=stage.states)
    with serve(feed) as url:
        monkeypatch.setenv("SEKISHO_BUILD", url)

        def run(*words: str) -> tuple[int, str]:
            code = cli.run(["images", *words])
            return code, capsys.readouterr().out

        code, out = run()
        lines = {line.split()[0]: line for line in out.splitlines() if line}
        assert (code, "waiting" in lines["tool"], "not built" in lines["never"]) == (0, True, True)
        world.advise(BAD)
        run_stage(stage, image)
        code, out = run()
        assert code == 1
        assert "x tool: CRITICAL CVE-2000-0001 in libold1 1.0-1: planted" in out
        assert "1 CRITICAL" in out
        code, out = run("tool", "--json")
        (shown,) = json.loads(out)
        assert (code, shown["verdict"], shown["digest"], shown["advisories"]) == (1, "FAILED", image.digest, "sample")
        assert run("nonsense")[0] == 1
