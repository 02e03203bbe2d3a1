"""Records: documents under a tag."""

from __future__ import annotations

import pytest

from sekisho.canonical import canonical, digest_of
from sekisho.errors import Refusal
from sekisho.model import Image, StandardImage, Tool
from sekisho.oci import OCI_MANIFEST
from sekisho.records import get_record, put_record
from sekisho.registry import Registry

TOOL = Tool(name="trivy", version="1", digest=digest_of(b"tool"))


@pytest.fixture
def registry(registry_url):
    return Registry(registry_url)


def test_a_record_is_found_by_its_tag(registry):
    first = put_record(registry, "r/found", "scan-1", TOOL)
    again = put_record(registry, "r/found", "scan-1", TOOL)

    assert first == again
    assert get_record(registry, "r/found", "scan-1", Tool) == TOOL
    assert get_record(registry, "r/found", "scan-2", Tool) is None


def test_the_last_record_under_a_tag_counts(registry):
    newer = TOOL.model_copy(update={"version": "2"})
    put_record(registry, "r/newer", "scan-1", TOOL)
    put_record(registry, "r/newer", "scan-1", newer)

    assert get_record(registry, "r/newer", "scan-1", Tool) == newer


def test_one_kind_of_document_is_not_read_as_another(registry):
    put_record(registry, "r/kind", "scan-1", TOOL)

    with pytest.raises(Refusal, match="not a record of a StandardImage"):
        get_record(registry, "r/kind", "scan-1", StandardImage)


def test_what_is_no_record_is_refused(registry):
    put_record(registry, "r/other", "scan-1", TOOL)
    raw = registry.get_manifest("r/other", "scan-1")
    for change in ((b"dev.sekisho.document", b"dev.sekisho.dacument"), (b"record.v1+json", b"receipt.v1+json")):
        registry.put_manifest("r/other", raw.data.replace(*change), OCI_MANIFEST, tag="scan-2")
        with pytest.raises(Refusal, match="not a record"):
            get_record(registry, "r/other", "scan-2", Tool)


def test_an_image_keeps_the_bytes_that_it_had_before_it_could_say_more():
    """Sealed releases hold images; what came later and says nothing must not change their digest."""
    digest = digest_of(b"x")
    layer = {"digest": digest, "diff_id": digest, "size": 1, "kind": "base"}
    before = {
        "repository": "apps/a", "digest": digest, "language": "python", "base": "python", "base_digest": digest,
        "layers": [layer], "locked": [],
    }  # fmt: skip
    image = Image.parse(canonical(before))
    assert image.canonical() == canonical(before)
    said = image.model_copy(update={"notes": ("resolved",), "lock": "resolved"})
    assert Image.parse(said.canonical()) == said


def test_a_signed_record_counts_in_its_place_and_under_its_key_alone(registry, signers):
    signer = signers["scanner"]
    put_record(registry, "r/signed", "one", TOOL, signer=signer)
    assert get_record(registry, "r/signed", "one", Tool, signer=signer) == TOOL
    assert get_record(registry, "r/signed", "one", Tool) == TOOL
    assert get_record(registry, "r/signed", "one", Tool, signer=signers["builder"]) is None

    raw = registry.get_manifest("r/signed", "one")
    registry.put_manifest("r/signed", raw.data, raw.media_type, tag="two")
    assert get_record(registry, "r/signed", "two", Tool, signer=signer) is None

    put_record(registry, "r/signed", "one", TOOL)
    assert get_record(registry, "r/signed", "one", Tool, signer=signer) is None
