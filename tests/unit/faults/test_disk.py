"""A full disk, wherever the line writes: a file system of a few pages stands in the place of the folder."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fault_cases import Fault, faults
from fault_line import GateLine

from sekisho.feed import FeedStore

ROOM = "Free room on the disk; the commit is judged again by itself."
FULL = "No space left on device"
RELEASED = {"release", "signature", "summary in apps", "summary in releases", "summary in verdicts"}
Mount = Callable[[Path, int], Path]


@pytest.fixture
def small() -> Iterator[Mount]:
    """Mount a file system of so many pages over a folder."""
    if os.geteuid() != 0:
        pytest.skip("a small file system can be mounted by root alone")
    mounted: list[Path] = []

    def mount(folder: Path, pages: int) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        size = f"size={pages * 4096}"
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", size, "none", str(folder)], check=False)
        if done.returncode:
            pytest.skip("this machine lets nothing be mounted")
        mounted.append(folder)
        return folder

    yield mount
    for folder in reversed(mounted):
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Fill a file system to its last byte; return the file to remove."""
    path = folder / "filler"
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(b"\0" * 4096):
                pass
        except OSError:
            return path
    raise AssertionError


@faults(
    Fault("disk/checkout", "there is no room for the checkout", "retried", "The build zone's disk is full", ROOM),
)
def test_a_commit_that_cannot_be_written_out_is_no_empty_commit(built: GateLine, fault: Fault, small: Mount) -> None:
    folder = small(built.home.cache / "checkouts", 2)
    built.start()
    if not folder.is_dir():
        folder.mkdir()
    filler = fill(folder)
    built.check_fault(fault, built.push())
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=1m", str(folder)], check=True)
    built.check_released(built.goes_on())


@faults(
    Fault("disk/database", "there is no room for the advisory database", "retried", FULL, ROOM),
)
def test_half_a_database_is_none(built: GateLine, fault: Fault, small: Mount) -> None:
    built.home.cache.joinpath("trivy").unlink()
    folder = small(built.home.cache / "trivy" / "advisories", 4)
    built.tries = 1
    built.check_fault(fault, built.start().push())
    subprocess.run(["mount", "-o", "remount,size=8m", str(folder)], check=True)
    built.check_released(built.goes_on())


@faults(
    Fault("disk/scanner", "there is no room for what the scanner keeps", "retried", "no space left on device", ROOM),
)
def test_a_scanner_without_room_has_seen_nothing(built: GateLine, fault: Fault, small: Mount) -> None:
    shared = built.home.cache.joinpath("trivy").resolve()
    built.home.cache.joinpath("trivy").unlink()
    shutil.copytree(shared / "manifests", built.home.cache / "trivy" / "manifests")
    small(built.home.cache / "trivy" / "layers", 1)
    fill(built.home.cache / "trivy" / "layers")
    built.scanner('exec "$real" "$@"', only="image")
    built.tries = 1
    built.check_fault(fault, built.start().push())
    built.scanner()
    built.check_released(built.goes_on())


@faults(
    Fault("disk/feed", "there is no room for the offer in the feed", "retried", FULL, ROOM),
)
def test_a_release_that_cannot_be_offered_is_offered_later(scanned: GateLine, fault: Fault, small: Mount) -> None:
    folder = small(scanned.folder / "state", 4)
    scanned.start(feed=FeedStore(folder / "feed.jsonl"))
    filler = fill(folder)
    scanned.check_fault(fault, scanned.push(), leaves=RELEASED)
    assert not scanned.gate.feed.offers()
    filler.unlink()
    scanned.check_released(scanned.goes_on())
