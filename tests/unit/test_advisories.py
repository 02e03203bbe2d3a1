import datetime as dt
import gzip
import io
import json
import struct
import tarfile
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from sekisho.advisories import (
    REPOSITORY,
    SAMPLE_FILE,
    TAG,
    build_layer,
    database_buckets,
    database_kind,
    database_metadata,
    load_sample,
    push_layer,
    renew_sample,
)
from sekisho.boltdb import PAGE_SIZE, fnv1a_64, write_database
from sekisho.errors import PermanentError, Refusal
from sekisho.oci import Descriptor, make_manifest
from sekisho.registry import Registry

SAMPLE = Path(__file__).parents[2] / "policies" / SAMPLE_FILE


class BoltReader:
    """Reads a BoltDB file after the description in bbolt's sources; shares nothing with the writer."""

    def __init__(self, data):
        self.data = data
        magic, version, size, _, root, _, _, high, _ = struct.unpack_from("<IIIIQQQQQ", data, 16)
        (checksum,) = struct.unpack_from("<Q", data, 16 + 56)
        assert (magic, version, size) == (0xED0CDAED, 2, PAGE_SIZE)
        assert checksum == fnv1a_64(data[16 : 16 + 56])
        assert len(data) == high * PAGE_SIZE
        self.root = self.tree(root)

    def tree(self, page):
        return self.page(self.data, page * PAGE_SIZE)

    def page(self, data, at):
        _, flags, count, _ = struct.unpack_from("<QHHI", data, at)
        found = []
        for number in range(count):
            element = at + 16 + number * 16
            if flags == 2:
                kind, position, key_size, value_size = struct.unpack_from("<IIII", data, element)
                key_at = element + position
                key = data[key_at : key_at + key_size]
                value = data[key_at + key_size : key_at + key_size + value_size]
                found.append((key, self.bucket(value) if kind == 1 else value))
            else:
                assert flags == 1
                position, key_size, child = struct.unpack_from("<IIQ", data, element)
                inner = self.tree(child)
                assert inner[0][0] == data[element + position : element + position + key_size]
                found.extend(inner)
        return found

    def bucket(self, value):
        root, _ = struct.unpack_from("<QQ", value)
        return self.tree(root) if root else self.page(value, 16)


def as_lists(buckets):
    return [(key, as_lists(value) if isinstance(value, dict) else value) for key, value in sorted(buckets.items())]


def written(tmp_path, buckets):
    path = tmp_path / "file.db"
    write_database(path, buckets)
    return path.read_bytes()


keys = st.binary(min_size=1, max_size=40)
small = st.dictionaries(keys, st.binary(max_size=600), max_size=30)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(keys, st.dictionaries(keys, st.one_of(st.binary(max_size=300), small), max_size=12), max_size=6))
def test_what_is_written_is_what_is_read(tmp_path_factory, buckets):
    data = written(tmp_path_factory.mktemp("db"), buckets)
    assert BoltReader(data).root == as_lists(buckets)


def test_trees_of_several_levels_and_values_longer_than_a_page(tmp_path):
    many = {f"package-{number:05}-{'x' * 60}".encode(): b"v" * 90 for number in range(9000)}
    buckets = {b"many": many, b"long": {b"a": b"A" * 50_000, b"b": b"B" * 5000}, b"none": {}}
    assert BoltReader(written(tmp_path, buckets)).root == as_lists(buckets)


def test_the_same_buckets_give_the_same_bytes(tmp_path):
    one, other = {b"a": {b"1": b"x", b"2": b"y"}}, {b"a": {b"2": b"y", b"1": b"x"}}
    assert written(tmp_path, one) == written(tmp_path, other)


@pytest.mark.parametrize("key", [b"", b"k" * 40_000])
def test_a_key_that_the_format_does_not_allow_is_refused(tmp_path, key):
    with pytest.raises(PermanentError, match="key"):
        write_database(tmp_path / "file.db", {b"a": {key: b"x"}})


def test_fnv1a_has_the_published_values():
    assert (fnv1a_64(b""), fnv1a_64(b"a")) == (0xCBF29CE484222325, 0xAF63DC4C8601EC8C)


def test_the_sample_has_a_critical_advisory_for_the_example_of_a_refused_push():
    sample = load_sample(SAMPLE)
    (found,) = [item for item in sample.advisories if item.id == "CVE-2024-49768"]
    assert (found.package, found.severity, found.fixed) == ("waitress", "CRITICAL", ("3.0.1",))
    assert len(sample.advisories) >= 20
    assert {item.ecosystem for item in sample.advisories} == {"pip", "npm", "debian 12", "debian 13"}


def test_no_advisory_stands_twice():
    keys = [(item.ecosystem, item.id, item.package) for item in load_sample(SAMPLE).advisories]
    assert len(keys) == len(set(keys))


def test_the_buckets_are_those_of_trivys_schema():
    buckets = database_buckets(load_sample(SAMPLE))
    advisory = json.loads(buckets[b"pip::GitHub Security Advisory Pip"][b"waitress"][b"CVE-2024-49768"])
    assert advisory == {"PatchedVersions": ["3.0.1"], "VulnerableVersions": [">=2.0.0, <3.0.1"]}
    assert json.loads(buckets[b"debian 12"][b"expat"][b"CVE-2024-45491"]) == {"FixedVersion": "2.5.0-1+deb12u1"}
    assert json.loads(buckets[b"debian 13"][b"expat"][b"CVE-2024-45491"]) == {"FixedVersion": "2.6.3-1"}
    detail = json.loads(buckets[b"vulnerability"][b"CVE-2024-49768"])
    assert (detail["Severity"], detail["VendorSeverity"]) == ("CRITICAL", {"ghsa": 4, "nvd": 4})
    assert set(buckets[b"data-source"]) == set(buckets) - {b"data-source", b"vulnerability"}


def test_the_layer_is_the_same_every_time_and_holds_both_files():
    sample = load_sample(SAMPLE)
    layer = build_layer(sample)
    assert layer == build_layer(sample)
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(layer))) as tar:
        assert tar.getnames() == ["trivy.db", "metadata.json"]
        assert json.load(tar.extractfile("metadata.json"))["Version"] == 2


def test_the_database_is_as_old_as_its_list():
    sample = load_sample(SAMPLE).model_copy(update={"updated_at": dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)})
    metadata = json.loads(database_metadata(sample))
    assert (metadata["UpdatedAt"], metadata["NextUpdate"]) == ("2026-03-01T12:00:00Z", "2026-03-02T12:00:00Z")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("id", "GHSA-1", "id"),
        ("ecosystem", "cargo", "ecosystem"),
        ("severity", "SEVERE", "severity"),
        ("fixed", [], "fixed"),
        ("package", "Flask", "package"),
    ],
)
def test_a_wrong_advisory_is_refused_and_the_field_is_named(tmp_path, key, value, said):
    data = yaml.safe_load(SAMPLE.read_text())
    data["advisories"][0][key] = value
    path = tmp_path / SAMPLE_FILE
    path.write_text(yaml.safe_dump(data))
    with pytest.raises(Refusal, match=f"/advisories/0/{said}"):
        load_sample(path)


def manifest_of(annotations, media_type="application/vnd.aquasec.trivy.db.layer.v1.tar+gzip"):
    config, layer = Descriptor.of(b"{}", "application/json"), Descriptor.of(b"x", media_type)
    return make_manifest(config, (layer,), annotations=annotations)


def test_a_database_without_our_annotation_is_a_mirror():
    assert database_kind(manifest_of({})) == "mirror"
    assert database_kind(manifest_of({"sekisho.dev/advisories": "sample"})) == "sample"


def test_an_unknown_kind_and_a_foreign_artifact_are_refused():
    with pytest.raises(Refusal, match="unknown kind"):
        database_kind(manifest_of({"sekisho.dev/advisories": "complete"}))
    with pytest.raises(Refusal, match="not an advisory database"):
        database_kind(manifest_of({}, media_type="text/plain"))


# -- what a zone's registry holds -----------------------------------------------------------------------------------


def sample_of(folder, updated):
    path = folder / f"{updated}.yaml"
    path.write_text(
        SAMPLE.read_text().replace(f"updated_at: {load_sample(SAMPLE).updated_at:%Y-%m-%d}", f"updated_at: {updated}")
    )
    assert f"{load_sample(path).updated_at:%Y-%m-%d}" == updated
    return path


def test_an_older_sample_gives_way_and_a_newer_one_stays(fresh_registry_url, tmp_path):
    registry = Registry(fresh_registry_url)
    older, newer = sample_of(tmp_path, "2026-01-01"), sample_of(tmp_path, "2026-02-01")
    first = renew_sample(registry, older)
    assert first == registry.resolve(REPOSITORY, TAG)
    assert renew_sample(registry, older) is None
    second = renew_sample(registry, newer)
    assert second == registry.resolve(REPOSITORY, TAG) != first
    assert renew_sample(registry, older) is None
    assert registry.resolve(REPOSITORY, TAG) == second


def test_a_mirrored_database_stays(fresh_registry_url):
    registry = Registry(fresh_registry_url)
    mirrored = push_layer(registry, build_layer(load_sample(SAMPLE)), {}, repository=REPOSITORY, tag=TAG)
    assert renew_sample(registry, SAMPLE) is None
    assert registry.resolve(REPOSITORY, TAG) == mirrored
