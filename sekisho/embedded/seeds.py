"""What a zone's registry is filled with: the standard images, the sample advisory database, and own advisories.

All talk to the registry's writable face, which listens inside the zone's namespace only: the thread that pushes has
entered it.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sekisho.canonical import Digest, digest_of_file
from sekisho.embedded import netns
from sekisho.embedded.content import IMAGES_LOCK
from sekisho.embedded.steps import Step
from sekisho.errors import TemporaryError
from sekisho.zones import Port, Zone, ZoneHome, home

if TYPE_CHECKING:
    from sekisho.own_advisories import OwnAdvisories

_BUILDING = (Zone.BUILD, Zone.DEV)
_TO_BUILD = ("build", "base")
"""Kinds of standard images that no workload runs on."""
_ADVISORIES = "mirror/trivy-db"
_SAMPLE = "sample-advisories.yaml"
_OWN = "advisories.yaml"
_OK = 200
_WRITABLE = f"http://127.0.0.1:{Port.REGISTRY_WRITE}"


def seed_steps(zone: Zone) -> list[Step]:
    """Return the steps that fill a zone's registry; the line starts without them, and says what it lacks."""

    def step(name: str, action: Callable[[Zone], None]) -> Step:
        return Step(str(zone), name, ("registry",), action=partial(action, zone), essential=False)

    steps = []
    if (home() / "images" / IMAGES_LOCK).is_file():
        steps.append(step("standard-images", push_images))
    if (ZoneHome(zone).policies / _SAMPLE).is_file():
        steps.append(step("advisories", push_advisories))
    if zone is Zone.BUILD and (ZoneHome(zone).policies / _OWN).is_file():
        steps.append(step("own-advisories", push_own_advisories))
    return steps


def push_images(zone: Zone) -> None:
    """Push the built standard images that a zone needs, once for each state of the lock."""
    mark = ZoneHome(zone).root / "registry" / "standard-images"
    wanted = digest_of_file(home() / "images" / IMAGES_LOCK)
    if mark.exists() and mark.read_text(encoding="ascii") == wanted:
        return
    netns.call_in(netns.namespace(zone), partial(_push_images, zone))
    mark.write_text(wanted, encoding="ascii")


def needed_images(zone: Zone) -> tuple[str, ...]:
    """Return the names of the built standard images that a zone needs, sorted.

    Where nothing is built, nothing needs a compiler: three quarters of all bytes are in the images to build in.
    """
    from sekisho.images.layout import LABEL_KIND, lock_path, open_layout  # noqa: PLC0415 -- only a first start pays
    from sekisho.standard import load_lock  # noqa: PLC0415

    names = tuple(sorted(load_lock(lock_path()).images))
    if zone in _BUILDING:
        return names
    return tuple(name for name in names if open_layout(name).parts.annotations.get(LABEL_KIND) not in _TO_BUILD)


def _push_images(zone: Zone) -> None:
    from sekisho.images import push_layout  # noqa: PLC0415
    from sekisho.registry import Registry  # noqa: PLC0415

    registry = Registry(_WRITABLE)
    held: dict[Digest, str] = {}
    for name in needed_images(zone):
        push_layout(registry, name, held)


def push_advisories(zone: Zone) -> None:
    """Push the sample advisory database where there is none or an older one, once for each state of the list."""
    sample = ZoneHome(zone).policies / _SAMPLE
    mark = ZoneHome(zone).root / "registry" / "sample-advisories"
    wanted = digest_of_file(sample)
    if mark.exists() and mark.read_text(encoding="ascii") == wanted and _tags(zone, _ADVISORIES):
        return

    def push() -> None:
        from sekisho.advisories import renew_sample  # noqa: PLC0415
        from sekisho.registry import Registry  # noqa: PLC0415

        renew_sample(Registry(_WRITABLE), sample)

    netns.call_in(netns.namespace(zone), push)
    mark.write_text(wanted, encoding="ascii")


def push_own_advisories(zone: Zone) -> None:
    """Publish the operator's own advisories, as the zone's policies have them; what stands there already stays.

    Raises:
        PermanentError: the list is not valid; says the field and the line.
    """
    publish_own(zone, ZoneHome(zone).policies / _OWN)


def publish_own(zone: Zone, path: Path) -> str:
    """Publish a list of own advisories in a zone's registry and return the database's digest.

    Raises:
        PermanentError: the list is not valid; says the field and the line.
        TemporaryError: the zone's registry does not answer.
    """
    from sekisho.own_advisories import load_file, push_own  # noqa: PLC0415
    from sekisho.registry import Registry  # noqa: PLC0415

    own = load_file(path)
    return netns.call_in(netns.namespace(zone), lambda: push_own(Registry(_WRITABLE), own))


def published_own(zone: Zone) -> OwnAdvisories | None:
    """Return the own advisories that a zone's registry holds; None where none were published."""
    from sekisho.own_advisories import published  # noqa: PLC0415
    from sekisho.registry import Registry  # noqa: PLC0415

    return netns.call_in(netns.namespace(zone), lambda: published(Registry(_WRITABLE)))


def _tags(zone: Zone, repository: str) -> list[str]:
    connection = http.client.HTTPConnection("127.0.0.1", Port.REGISTRY_WRITE, timeout=5)
    try:
        connection.sock = netns.connect(zone, "127.0.0.1", Port.REGISTRY_WRITE)
        connection.request("GET", f"/v2/{repository}/tags/list")
        answer = connection.getresponse()
        content = answer.read(1 << 20)
    except (OSError, http.client.HTTPException) as error:
        raise TemporaryError(f"The registry does not answer: {error}", where=f"{zone}: {_WRITABLE}") from error
    finally:
        connection.close()
    return list(json.loads(content).get("tags") or []) if answer.status == _OK else []
