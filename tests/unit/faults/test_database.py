"""Faults of the advisory database: old, not there, not whole, not what it says, and replaced in the middle."""

from __future__ import annotations

import datetime as dt
import gzip
import io
import json
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fault_proxy
from fault_cases import Fault, faults
from fault_line import GateLine, database_layer, push_database

from sekisho.advisories import ANNOTATION, REPOSITORY, TAG
from sekisho.boltdb import write_database

FRESH = "Bring a fresh database into the mirror; the commit is judged again by itself."
WHOLE = "Mirror the database again."
LATE = dt.timedelta(hours=73)


def tar(**files: bytes) -> bytes:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name.replace("_", "."))
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return gzip.compress(plain.getvalue(), mtime=0)


def parts(layer: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(layer)) as archive:
        return {item.name.replace(".", "_"): archive.extractfile(item).read() for item in archive}


def with_metadata(**changes: Any) -> Callable[[bytes], bytes]:
    def changed(layer: bytes) -> bytes:
        found = parts(layer)
        said = {**json.loads(found["metadata_json"]), **changes}
        said = {key: value for key, value in said.items() if value is not None}
        return tar(trivy_db=found["trivy_db"], metadata_json=json.dumps(said).encode())

    return changed


def check_and_mend(line: GateLine, fault: Fault) -> None:
    """Push over the fault, then bring a whole database: the same commit passes without anybody's doing."""
    line.check_fault(fault, line.start().push())
    line.place.proxy.mend()
    push_database(line.direct, database_layer())
    line.check_released(line.goes_on())


@faults(
    Fault("database/stale", "it is one hour older than the limit", "FAILED", "are older than 72 hours", FRESH),
)
def test_a_stale_database_is_a_no_until_a_fresh_one_is_there(built: GateLine, fault: Fault) -> None:
    push_database(built.direct, database_layer(dt.datetime.now(dt.UTC) - LATE))
    check_and_mend(built, fault)


@faults(
    Fault("database/missing", "there is none in the mirror", "retried", "There is no advisory database.", WHOLE),
)
def test_without_a_database_nothing_is_scanned(built: GateLine, fault: Fault) -> None:
    built.place.proxy.breaks("HEAD|GET", f"/{REPOSITORY}/manifests/{TAG}", fault_proxy.status(404))
    check_and_mend(built, fault)


def without_advisories(layer: bytes) -> bytes:
    """Return a database that the scanner opens without a word: well-formed, and empty."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trivy.db"
        write_database(path, {b"data-source": {b"x": b"{}"}})
        return tar(**{**parts(layer), "trivy_db": path.read_bytes()})


BROKEN: dict[str, Callable[[bytes], bytes]] = {
    "cut-off": lambda layer: layer[: len(layer) // 2],
    "no-archive": lambda _: b"no archive at all",
    "other-files": lambda layer: tar(**parts(layer), install_sh=b"#!/bin/sh\n"),
    "half": lambda layer: tar(metadata_json=parts(layer)["metadata_json"]),
    "no-date": with_metadata(UpdatedAt=None),
    "odd-date": with_metadata(UpdatedAt="yesterday"),
    "schema": with_metadata(Version=1),
    "future": with_metadata(UpdatedAt="2999-01-02T03:04:05Z"),
    "no-content": lambda layer: tar(**{**parts(layer), "trivy_db": b""}),
    "no-advisories": without_advisories,
    "garbage": lambda layer: tar(**{**parts(layer), "trivy_db": b"CVE-2000-0001" * 4096}),
}


@faults(
    Fault("database/cut-off", "its archive is cut off", "retried", "The advisory database is damaged", WHOLE),
    Fault("database/no-archive", "it is no archive", "retried", "The advisory database is damaged", WHOLE),
    Fault("database/other-files", "its archive holds more files", "retried", "The advisory database holds", WHOLE),
    Fault("database/half", "its archive lacks a file", "retried", "The advisory database is not whole.", WHOLE),
    Fault("database/no-date", "it has no date", "retried", "The advisory database has no valid metadata.", WHOLE),
    Fault("database/odd-date", "its date is none", "retried", "The advisory database has no valid metadata.", WHOLE),
    Fault("database/schema", "it is of another schema", "retried", "has schema 1, not 2", WHOLE),
    Fault("database/future", "it is dated in the future", "retried", "is dated in the future", WHOLE),
    Fault("database/no-content", "its content is empty", "retried", "The advisory database is damaged", WHOLE),
    Fault("database/no-advisories", "no advisory is in it", "retried", "holds no advisories", WHOLE),
    Fault("database/garbage", "its content is no database", "retried", "The advisory database is damaged", WHOLE),
)
def test_a_database_that_is_not_whole_scans_nothing(built: GateLine, fault: Fault) -> None:
    layer = BROKEN[fault.id](database_layer(dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)))
    push_database(built.direct, layer)
    check_and_mend(built, fault)


@faults(
    Fault(
        "database/kind", "it says a kind that is not known", "retried", "is of an unknown kind 'mine'", WHOLE
    ),
)  # fmt: skip
def test_a_database_of_an_unknown_kind_is_not_taken_for_a_mirror(built: GateLine, fault: Fault) -> None:
    push_database(built.direct, database_layer(), annotations={ANNOTATION: "mine"})
    check_and_mend(built, fault)


@faults(
    Fault("database/other-bytes", "the registry gives other bytes for it", "retried", "gave other bytes", WHOLE),
)
def test_a_database_with_another_digest_is_not_used(built: GateLine, fault: Fault) -> None:
    push_database(built.direct, database_layer(dt.datetime.now(dt.UTC) - dt.timedelta(hours=2)))
    built.place.proxy.breaks("GET", f"/{REPOSITORY}/blobs/", fault_proxy.other_bytes)
    check_and_mend(built, fault)


@faults(
    Fault(
        "database/replaced", "another takes its place in the middle of each scan", "retried",
        "The advisory database changed during the scan.", "Nothing; mirror less often if it lasts.",
    ),
)  # fmt: skip
def test_a_database_that_is_replaced_during_the_scan_does_not_count(built: GateLine, fault: Fault) -> None:
    hours = iter(range(3, 60))

    def replace(request: fault_proxy.Request) -> fault_proxy.Reply:
        push_database(built.direct, database_layer(dt.datetime.now(dt.UTC) - dt.timedelta(hours=next(hours))))
        return request.forward()

    built.tries = 2
    built.place.proxy.breaks("PUT", r"/apps/shop/manifests/sha256-[0-9a-f]{64}$", replace)
    check_and_mend(built, fault)


@faults(
    Fault(
        "database/replaced-once", "another takes its place in the middle of one scan", "goes on", "PASSED",
        "Nothing: it is scanned again with the new one.",
    ),
)  # fmt: skip
def test_a_database_that_is_replaced_once_costs_one_more_scan(built: GateLine, fault: Fault) -> None:
    newer = database_layer(dt.datetime.now(dt.UTC) - dt.timedelta(hours=2))
    built.place.proxy.breaks(
        "PUT", r"/apps/shop/manifests/sha256-[0-9a-f]{64}$",
        lambda request: (push_database(built.direct, newer), request.forward())[1], times=1,
    )  # fmt: skip
    outcome = built.start().push()
    assert fault.says in outcome.text
    built.check_released(outcome)
