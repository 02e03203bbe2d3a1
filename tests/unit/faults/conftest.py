"""The line that the faults are made in: registry, database, image and scan are made once, each test gets a copy."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fault_line import GateLine, Place, database_layer, in_memory, make_home, push_database
from fault_proxy import running_proxy

from sekisho.errors import PermanentError, VerificationError
from sekisho.tools import trivy as find_trivy
from stages.build import BuildInput
from stages.render import render
from stages.scan import ScanInput
from stages.source import checkout, revision


@pytest.fixture(scope="session")
def place(registry_in: Callable[[Path], tuple[str, subprocess.Popen[bytes]]]) -> Iterator[Place]:
    """A registry behind a proxy, with snapshots: `pushed` (nothing done yet), `scanned` (only the judge is to come)."""
    try:
        find_trivy()
    except (PermanentError, VerificationError) as error:
        pytest.skip(str(error))
    with tempfile.TemporaryDirectory(dir=in_memory()) as folder:
        url, process = registry_in(Path(folder))
        try:
            with running_proxy(url) as proxy:
                made = Place(proxy, Path(folder) / "data", Path(folder) / "snapshots")
                yield _snapshots(made, Path(folder))
        finally:
            process.terminate()
            process.wait(timeout=10)


def _snapshots(place: Place, folder: Path) -> Place:
    home = folder / "first"
    place = dataclasses.replace(place, commit=make_home(home, folder / "work"))
    with pytest.MonkeyPatch.context() as patch:
        line = GateLine(place, home, patch)
        push_database(line.direct, database_layer())
        place.keep("pushed", home)
        line.start()
        gate, tree = line.gate, folder / "tree"
        source = revision(line.home.git / "shop.git", "shop", place.commit, "main")
        checkout(line.home.git / "shop.git", place.commit, tree)
        image = gate.build.perform(BuildInput(source, tree))
        place.keep("built", home)
        manifests = render((tree / "score.yaml").read_bytes(), app="shop", image=image.reference, read=lambda _: b"")
        place.reports.mkdir()
        line.scanner('"$real" "$@" || exit $?\ncp "$out" ' + f'{place.reports}/"$1.json"')
        subject = ScanInput(source, image, tree, manifests)
        gate.scan.perform(subject)
        place.restore("built", home)
        line.scanner()
        gate.scan.perform(subject)
        place.keep("scanned", home)
        # What the scanner learnt so far is given to all: its own cache of layers, and what it says of the manifests.
        for name in ("pushed", "built"):
            cache = place.snapshots / name / "home" / "zones" / "build" / "cache" / "trivy"
            shutil.rmtree(cache, ignore_errors=True)
            cache.symlink_to(line.home.cache / "trivy")
        line.close()
    return place


def _line(place: Place, folder: Path, monkeypatch: pytest.MonkeyPatch, snapshot: str) -> Iterator[GateLine]:
    place.proxy.mend()
    place.restore(snapshot, folder / "home")
    line = GateLine(place, folder / "home", monkeypatch)
    line.scanner()
    try:
        yield line
    finally:
        place.proxy.mend()
        line.close()


@pytest.fixture
def line(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GateLine]:
    """A zone that has a commit and has done nothing yet."""
    yield from _line(place, tmp_path, monkeypatch, "pushed")


@pytest.fixture
def built(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GateLine]:
    """A zone that has built the image; the scanner is next."""
    yield from _line(place, tmp_path, monkeypatch, "built")


@pytest.fixture
def scanned(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GateLine]:
    """A zone that has built, rendered and scanned; the judge is next."""
    yield from _line(place, tmp_path, monkeypatch, "scanned")
