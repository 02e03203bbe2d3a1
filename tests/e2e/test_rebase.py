"""A standard image moves on the real build zone: every release on it is put on the new one, once, and judged again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from sekisho.canonical import Digest, digest_of
from sekisho.embedded import netns
from sekisho.evidence import find_statements
from sekisho.keys import load_trust
from sekisho.model import Image
from sekisho.oci import OCI_MANIFEST, Descriptor, Manifest, make_manifest
from sekisho.registry import Registry
from sekisho.releases.artifact import load_release, release_repository
from sekisho.standard import LOCK_FILE, load_lock
from sekisho.statements import PROVENANCE
from sekisho.zones import Port, Zone, ZoneHome
from stages.build.compose import LAYER_TYPE
from stages.build.pack import Entry, write_layer

from .line import ROOT, feed, pushed, until, verdict, workload
from .test_engine import _kill

pytestmark = pytest.mark.e2e

T = TypeVar("T")
MOVES = ("static", "python", "python-build")
"""Python's build image stands on its run image and moves with it; a static site has none."""
HOME = ZoneHome(Zone.BUILD)


def in_build(call: Callable[[Registry], T]) -> T:
    """Call something with the build zone's registry, its writable face."""
    registry = Registry(f"http://127.0.0.1:{Port.REGISTRY_WRITE}")
    return netns.call_in(netns.namespace(Zone.BUILD), lambda: call(registry))


@dataclass(frozen=True)
class Moved:
    """The standard image before and after."""

    before: str
    now: str
    layer: str
    """Digest of the layer that is new."""


Moves = Callable[[], dict[str, Moved]]


@pytest.fixture
def move(tmp_path: Path) -> Iterator[Moves]:
    """Move standard images for the time of a test, as `sekisho up` does: another lock, and the process anew."""
    path = HOME.policies / LOCK_FILE
    original = path.read_bytes()

    def moved() -> dict[str, Moved]:
        lock = load_lock(path)
        done = {name: in_build(lambda registry, name=name: _moved(registry, name, lock.images[name].digest, tmp_path))
                for name in MOVES}  # fmt: skip
        entries = {name: lock.images[name].model_copy(update={"digest": one.now}) for name, one in done.items()}
        _put_lock(path, lock.model_copy(update={"images": {**lock.images, **entries}}).to_yaml().encode())
        return done

    yield moved
    _put_lock(path, original)


def _put_lock(path: Path, data: bytes) -> None:
    path.write_bytes(data)  # in place: its owner and mode stay
    _kill(Zone.BUILD, "flows.zone")
    until(lambda: feed().standard_images(), "the build zone's process, started anew")


def _moved(registry: Registry, name: str, digest: str, folder: Path) -> Moved:
    """Push the standard image with one more layer; each time another one, so that the zones may be used again."""
    repository = f"standard/{name}"
    raw = registry.get_manifest(repository, Digest(digest))
    assert raw
    manifest = Manifest.parse(raw.data)
    config = json.loads(registry.get_blob(repository, manifest.config.digest))
    said = f"{time.time_ns()}\n".encode()
    layer = write_layer([Entry("etc/sekisho/moved", "file", size=len(said), data=said)], folder / "moved", time=0)
    registry.push_blob(repository, layer.path, layer.digest)
    config["rootfs"]["diff_ids"].append(layer.diff_id)
    config["history"].append({"created_by": "a test"})
    data = json.dumps(config).encode()
    registry.put_blob(repository, data)
    layers = (*manifest.layers, Descriptor(LAYER_TYPE, layer.digest, layer.size))
    made = make_manifest(Descriptor(manifest.config.media_type, digest_of(data), len(data)), layers,
                         annotations=manifest.annotations)  # fmt: skip
    return Moved(digest, registry.put_manifest(repository, made, OCI_MANIFEST), layer.digest)


def releases(app: str) -> list[str]:
    """Return what the feed offers of an app, oldest first."""
    return [offer.release for offer in feed().offers() if offer.app == app]


def image_of(app: str, release: str) -> Image:
    return in_build(lambda registry: load_release(registry, release_repository(app), Digest(release))[0].image)


def own(image: Image) -> list[str]:
    return [layer.digest for layer in image.layers if layer.kind != "base"]


def provenance(image: Image) -> dict[str, Any]:
    trust = load_trust(HOME.trust / "root.json")
    found = in_build(lambda registry: find_statements(registry, image.repository, Digest(image.digest), trust=trust,
                                                      role="builder", predicate_type=PROVENANCE))  # fmt: skip
    return dict(found[-1].statement.predicate)


APPS = {"rebased-one": ("static", "site"), "rebased-two": ("static", "site"), "rebased-python": ("python", "guestbook")}


@pytest.mark.long
@pytest.mark.usefixtures("zones")
def test_every_image_on_a_standard_image_that_moved_is_rebased_once(tmp_path: Path, move: Moves) -> None:
    apps = {}
    for app, (_, example) in APPS.items():
        commit, _ = pushed(app, workload(tmp_path, app, source=ROOT / "examples" / example))
        apps[app] = (commit, verdict(app, commit)["release"], len(releases(app)))
    moves = move()
    for app, (_, release, count) in apps.items():
        base = APPS[app][0]
        moved = moves[base]
        until(lambda app=app, count=count: len(releases(app)) > count, f"a rebase of {app}", seconds=600)
        before, after = image_of(app, release), image_of(app, releases(app)[-1])
        # Only what is below changed, and below is the image that is in force now.
        assert (before.base_digest, after.base_digest) == (moved.before, moved.now)
        assert own(before) == own(after)
        assert before.locked == after.locked
        layers = [[layer.digest for layer in image.layers if layer.kind == "base"] for image in (before, after)]
        assert [*layers[0], moved.layer] == layers[1]
        said = provenance(after)["buildDefinition"]["internalParameters"]
        # Where the image to build in moved as well it is built again; the layers above show that nothing else came in.
        assert said.get("rebasedFrom") == (before.digest if base == "static" else None)
    # Each went through the gate again, as the same commit, and says why.
    for app, (commit, release, _) in apps.items():
        record = verdict(app, commit)
        assert (record["verdict"]["result"], record["release"]) == ("PASSED", releases(app)[-1])
        assert record["release"] != release
        assert f"standard image {APPS[app][0]} moved" in json.dumps(record["events"])
        assert {"build", "scan", "judge", "seal"} <= {event["stage"] for event in record["events"]}
    # And once: when nothing is on its way any more, there is one release more of each, also after a restart.
    _kill(Zone.BUILD, "flows.zone")
    until(lambda: feed().standard_images(), "the build zone's process, started anew")
    until(_idle, "an idle build zone")
    assert {app: len(releases(app)) - count for app, (_, _, count) in apps.items()} == dict.fromkeys(apps, 1)


def _idle() -> bool:
    """Tell whether every app's newest release of the feed has its verdict, twice in a row."""
    for _ in range(2):
        newest = {offer.app: offer.commit for offer in feed().offers()}
        if any(feed().commit(app, commit)["state"] in {"queued", "running"} for app, commit in newest.items()):
            return False
        time.sleep(4)  # the loop looks every three seconds
    return True
