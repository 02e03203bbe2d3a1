"""The advisory databases: what is old, empty, broken, of another form or changed meanwhile stops the line by name."""

from __future__ import annotations

import errno
import gzip
import io
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from scan_cases import ADVISORIES, BASE, METADATA, World, count_runs, find_scanner, ids, installed, jar

from sekisho.advisories import CONFIG_TYPE, LAYER_TYPE, REPOSITORY, TAG, build_layer, load_sample
from sekisho.boltdb import root_keys, write_database
from sekisho.errors import PermanentError, Refusal, TemporaryError
from sekisho.oci import OCI_MANIFEST, Descriptor, make_manifest
from stages.scan import database as databases
from stages.scan import ensure_database
from stages.scan.stage import ScanStage

KNOWN = {b"vulnerability": {b"CVE-1": b"{}"}, b"data-source": {}, b"debian 12": {}, b"pip::x": {}, b"maven::x": {}}


@pytest.fixture(scope="module", autouse=True)
def scanner() -> Path:
    return find_scanner()


@pytest.fixture
def world(fresh_registry_url: str, tmp_path: Path) -> World:
    return World(fresh_registry_url, tmp_path)


def packed(content: Mapping[str, bytes]) -> bytes:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return gzip.compress(plain.getvalue())


def offer(world: World, layer: bytes, annotations: Mapping[str, str] | None = None) -> None:
    world.registry.put_blob(REPOSITORY, b"{}")
    world.registry.put_blob(REPOSITORY, layer)
    manifest = make_manifest(Descriptor.of(b"{}", CONFIG_TYPE), (Descriptor.of(layer, LAYER_TYPE),),
                             annotations=annotations or {})  # fmt: skip
    world.registry.put_manifest(REPOSITORY, manifest, OCI_MANIFEST, tag=TAG)


def bolt(folder: Path, buckets: Mapping[bytes, Any]) -> bytes:
    write_database(folder / "bolt", buckets)
    return (folder / "bolt").read_bytes()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        pytest.param(lambda _: b"", "not a whole BoltDB", id="empty file"),
        pytest.param(lambda _: b"\0" * 65_536, "no valid meta page", id="zeros"),
        pytest.param(lambda whole: whole[: len(whole) - 4096], "cut off", id="cut off"),
        pytest.param(lambda _: b"SQLite format 3\0" * 4096, "no valid meta page", id="another database"),
        pytest.param(lambda whole: whole[:16] + b"\xff" * 56 + whole[72:4112] + b"\xff" * 56 + whole[4168:],
                     "no valid meta page", id="overwritten"),
    ],
)  # fmt: skip
def test_a_database_that_is_not_one_is_not_scanned_with(
    world: World, spoil: Callable[[bytes], bytes], said: str
) -> None:
    subject = world.subject("base-spoilt", BASE, installed("holey", "1.0"))
    offer(world, packed({"trivy.db": spoil(bolt(world.folder, KNOWN)), "metadata.json": METADATA}))
    with pytest.raises(PermanentError, match=said):
        world.stage.perform(subject)
    assert world.stage.find(subject) is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"metadata.json": METADATA}, "not whole"),
        ({"trivy.db": b"x"}, "not whole"),
        ({"trivy.db": b"x", "metadata.json": METADATA, "../x": b""}, "holds '../x'"),
    ],
)
def test_an_artifact_of_another_form(world: World, content: dict[str, bytes], said: str) -> None:
    offer(world, packed(content))
    with pytest.raises(PermanentError, match=said):
        ensure_database(world.registry, world.cache)


@pytest.mark.parametrize(
    ("metadata", "error", "said"),
    [
        (b"{", PermanentError, "no valid metadata"),
        (b'{"Version": 2}', PermanentError, "no valid metadata"),
        (METADATA.replace(b": 2,", b": 1,"), PermanentError, "schema 1, not 2"),
        (METADATA.replace(b"2026-01-02", b"2999-01-02"), Refusal, "future"),
    ],
)
def test_a_database_with_other_metadata(world: World, metadata: bytes, error: type[Exception], said: str) -> None:
    offer(world, packed({"trivy.db": bolt(world.folder, KNOWN), "metadata.json": metadata}))
    with pytest.raises(error, match=said):
        ensure_database(world.registry, world.cache)


@pytest.mark.parametrize("buckets", [{}, {b"vulnerability": {}, b"data-source": {}}, {b"pip::x": {}}])
def test_a_database_without_advisories_is_none(world: World, buckets: dict[bytes, Any]) -> None:
    world.mirror(buckets)
    with pytest.raises(PermanentError, match="holds no advisories"):
        ensure_database(world.registry, world.cache)


def test_a_kept_database_that_was_cut_off_is_fetched_again(world: World) -> None:
    kept = ensure_database(world.registry, world.cache).folder / "db" / "trivy.db"
    whole = kept.read_bytes()
    kept.write_bytes(whole[:5000])
    again = ensure_database(world.registry, world.cache)
    assert (again.folder / "db" / "trivy.db").read_bytes() == whole


def test_a_full_disk_is_a_fault_that_passes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(databases.shutil, "copyfileobj", full)
    with pytest.raises(TemporaryError, match="no room"):
        ensure_database(world.registry, world.cache)


def test_a_mirror_is_not_taken_for_a_sample_nor_the_other_way_round(world: World) -> None:
    assert ensure_database(world.registry, world.cache).identity.kind == "sample"
    world.mirror(KNOWN)
    assert ensure_database(world.registry, world.cache).identity.kind == "mirror"
    layer = build_layer(load_sample(world.folder / "advisories.yaml"))
    offer(world, layer, {"sekisho.dev/advisories": "own"})
    with pytest.raises(PermanentError, match="own advisories only"):
        ensure_database(world.registry, world.cache)
    offer(world, layer, {"sekisho.dev/advisories": "fresh"})
    with pytest.raises(Refusal, match="unknown kind"):
        ensure_database(world.registry, world.cache)


def test_what_a_mirror_knows_nothing_of_has_not_been_scanned(world: World) -> None:
    files = {**installed("holey", "1.0"), "app/lib/a.jar": jar("org.acme", "thing", "1.2.3")}
    subject = world.subject("base-narrow", BASE, files)
    world.mirror({b"vulnerability": {b"CVE-1": b"{}"}, b"debian 11": {}, b"pip::x": {}})
    assert ids(world.stage.perform(subject).findings, "coverage") == {
        ("os-not-in-database", "platform"),
        ("packages-not-in-database", "platform"),
    }
    world.mirror(KNOWN)
    assert ids(world.stage.perform(subject).findings, "coverage") == set()


def test_a_database_that_changes_during_the_scan(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = world.subject("base-changes", BASE, installed("holey", "1.0"))
    ours = databases.ensure_java_names

    def changing(folder: Path) -> None:
        ours(folder)
        world.advise(ADVISORIES.replace("CRITICAL", "HIGH"), "newer.yaml")

    monkeypatch.setattr(databases, "ensure_java_names", changing)
    with pytest.raises(TemporaryError, match="changed during the scan"):
        world.stage.perform(subject)
    monkeypatch.undo()
    assert world.stage.find(subject) is None
    assert {item.severity for item in world.stage.perform(subject).findings if item.kind == "vulnerability"} == {"HIGH"}


def test_the_names_at_the_top_of_a_file_of_several_levels(tmp_path: Path) -> None:
    buckets = {f"ecosystem {number:04}::{'x' * 100}".encode(): {b"a": b"b" * 2000} for number in range(500)}
    write_database(tmp_path / "file.db", buckets)
    assert root_keys(tmp_path / "file.db") == set(buckets)


# -- what is kept ---------------------------------------------------------------------------------------------------


def test_only_what_changed_is_scanned(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = count_runs(world.folder, monkeypatch)
    files = installed("holey", "1.0")

    def scan(**change: Any) -> None:
        stage = ScanStage(world.registry, world.signer, cache=world.folder / change.pop("cache", "cache"))
        subject = world.subject("base-kept", BASE, change.pop("files", files), **change)
        assert stage.find(subject) is None
        scan = stage.perform(subject)
        assert scan.image == subject.image.digest
        assert ("CVE-2000-0001", "workload") in ids(scan.findings, "vulnerability")
        assert stage.find(subject) == scan

    scan()
    assert taken() == ["fs", "image"]
    # A commit that changes a README: another tree, an image of the same content under another digest.
    scan(commit="3", tree="4")
    assert taken() == ["fs"]
    # A standard image moved: the same tree in another image.
    scan(commit="3", tree="4", files={**files, "app/new": "x"})
    assert taken() == ["image"]
    # Another machine of the zone, with nothing in its cache, judges the first commit under another branch's manifests.
    scan(deployed=True, cache="other")
    assert taken() == ["config"]
    # Settings are part of what is scanned.
    scan(settings={"Env": ["A=b"]})
    assert taken() == ["image"]
    world.advise(ADVISORIES.replace("2026-01-02", "2026-01-03"))
    scan()
    assert taken() == ["fs", "image"]


def test_the_same_image_has_the_same_bill_wherever_it_is_scanned(world: World) -> None:
    subject = world.subject("base-bill", BASE, {**installed("holey", "1.0"), **installed("other", "2")})
    stages = [ScanStage(world.registry, world.signer, cache=world.folder / name) for name in ("one", "two")]
    first = stages[0].perform(subject)
    world.advise(ADVISORIES.replace("2026-01-02", "2026-01-03"))
    second = stages[1].perform(subject)
    assert first.database.digest != second.database.digest
    assert first.sbom == second.sbom
