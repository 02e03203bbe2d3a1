"""The standard images' gate on the real build zone: an image with a planted advisory is refused, and nobody builds on
it; when the advisory goes, so does the refusal, and what waited is judged by itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml

from sekisho.advisories import REPOSITORY, SAMPLE_FILE, TAG, push_database
from sekisho.demo.workload import prepare, push
from sekisho.embedded import netns
from sekisho.oci import OCI_MANIFEST
from sekisho.registry import RawManifest, Registry
from sekisho.zones import Port, Zone

from .line import PATIENCE, ROOT, cli, feed, until, verdict, workload

pytestmark = pytest.mark.e2e

T = TypeVar("T")
IMAGE = "static"
PLANTED = {
    "id": "CVE-2999-0001",
    "ecosystem": "debian 12",
    # In this standard image alone, so that no other workload of the zone is held up.
    "package": "lighttpd",
    "severity": "CRITICAL",
    "title": "planted by a test",
    "fixed": ["99:1"],
}


def in_build(call: Callable[[Registry], T]) -> T:
    """Call something with the build zone's registry, its writable face."""
    registry = Registry(f"http://127.0.0.1:{Port.REGISTRY_WRITE}")
    return netns.call_in(netns.namespace(Zone.BUILD), lambda: call(registry))


@pytest.fixture
def advisories() -> Iterator[RawManifest]:
    """The zone's advisory database, which stands there again afterwards."""
    before = in_build(lambda registry: registry.get_manifest(REPOSITORY, TAG))
    assert before is not None
    yield before
    restore(before)


def restore(before: RawManifest) -> None:
    in_build(lambda registry: registry.put_manifest(REPOSITORY, before.data, OCI_MANIFEST, tag=TAG))


def plant(folder: Path) -> None:
    sample = yaml.safe_load((ROOT / "policies" / SAMPLE_FILE).read_text())
    sample["advisories"].append(PLANTED)
    path = folder / SAMPLE_FILE
    path.write_text(yaml.safe_dump(sample))
    in_build(lambda registry: push_database(registry, path))


def judged(word: str) -> dict[str, Any]:
    """Return what `sekisho images` says of the image once the gate's word is this."""

    def look() -> dict[str, Any] | None:
        done = cli("images", IMAGE, "--json", check=False)
        (found,) = json.loads(done.stdout)
        assert done.returncode == (1 if found["verdict"] == "FAILED" else 0)
        return found if found["verdict"] == word else None

    return until(look, f"the standard image {IMAGE} {word}")


@pytest.mark.long
@pytest.mark.usefixtures("zones")
def test_nobody_builds_on_an_image_that_has_not_passed(tmp_path: Path, advisories: RawManifest) -> None:
    judged("PASSED")
    plant(tmp_path)
    refused = judged("FAILED")
    (reason,) = [item for item in refused["reasons"] if item["result"] == "fail"]
    assert (reason["owner"], "CVE-2999-0001 in lighttpd" in reason["message"]) == ("platform", True)
    app = "standards-gate"
    repository, commit = prepare(app, workload(tmp_path, app, source=ROOT / "examples" / "site"))
    following = push(app, repository, branch="main")
    record = until(lambda: stumbled(app, commit), f"the fault of {app} {commit[:12]}")
    assert (record["verdict"], record["release"]) == (None, "")
    assert "build" in {event["stage"] for event in record["events"] if event["state"] == "failed"}
    # The developer is told whose it is to mend and what happens next, and does not wait for it.
    said, _ = following.communicate(timeout=PATIENCE)
    assert following.returncode == 0
    assert f"The standard image {IMAGE} has not passed its own gate" in said
    assert "not for you to mend" in said
    assert "The platform team mends the image" in said
    assert "judged by itself" in said
    restore(advisories)
    judged("PASSED")
    assert verdict(app, commit)["state"] == "passed"


def stumbled(app: str, commit: str) -> dict[str, Any] | None:
    record = feed().commit(app, commit)
    return record if record["state"] == "error" else None
