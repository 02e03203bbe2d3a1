"""Faults of the zone's own registry, at every point at which the line needs it."""

from __future__ import annotations

import threading

import fault_proxy
import pytest
from fault_cases import Fault, faults
from fault_line import GateLine
from fault_proxy import Answer

AGAIN = "Mend the registry; the commit is judged again by itself."
STORE = "Mend the registry's storage; the commit is judged again by itself."
HEX = "[0-9a-f]{64}"
WORD = {"summary in verdicts"}
"""The judge's signed word: it stands before anything is sealed, and releases nothing."""
STATEMENTS = rf"/apps/shop/(manifests/sha256-{HEX}$|referrers/)"
OWN_TAGS = rf"/apps/shop/manifests/sha256-{HEX}\.r-"

POINTS = {
    "database": ("GET", "/mirror/trivy-db/manifests/sha256:", "built"),
    "evidence": ("POST", "/apps/shop/blobs/uploads/", "built"),
    "statement": ("PUT", rf"/apps/shop/manifests/sha256:{HEX}$", "built"),
    "scan-record": ("PUT", "/apps/shop/manifests/scan-", "built"),
    "build-record": ("GET", "/apps/shop/manifests/build-", "built"),
    "verdict": ("PUT", "/verdicts/shop/manifests/", "scanned"),
    "references": ("GET", STATEMENTS, "scanned"),
    "release": ("PUT", "/releases/shop/manifests/release-", "scanned"),
    "release-blob": ("POST", "/releases/shop/blobs/uploads/", "scanned"),
    "release-record": ("PUT", "/releases/shop/manifests/sealed-", "scanned"),
}


def line_of(point: str, request: pytest.FixtureRequest) -> GateLine:
    found: GateLine = request.getfixturevalue(POINTS[point][2])
    return found


def breaks(line: GateLine, point: str, answer: Answer) -> None:
    method, path, _ = POINTS[point]
    line.place.proxy.breaks(method, path, answer)


def check_and_mend(line: GateLine, fault: Fault, *, leaves: set[str] | None = None) -> None:
    line.check_fault(fault, line.start().push(), leaves=leaves)
    assert any(rule.hit for rule in line.place.proxy.rules)
    line.place.proxy.mend()
    line.check_released(line.goes_on())


def leaves(point: str) -> set[str]:
    """Return what may say PASSED when the line stops at a point: the judge's word; at the end, the release as well."""
    if POINTS[point][2] == "built" or point == "verdict":
        return set()
    if point == "release-record":
        return {*WORD, "release", "signature", "summary in apps", "summary in releases"}
    return WORD


FIVE = "The registry answers 500"
AWAY = "The registry cannot be reached or broke off"


@faults(
    Fault("registry/500-database", "it answers 500 to the database's manifest", "retried", FIVE, AGAIN, "database"),
    Fault("registry/500-evidence", "it answers 500 to the scan's upload", "retried", FIVE, AGAIN, "evidence"),
    Fault("registry/500-statement", "it answers 500 to a statement's manifest", "retried", FIVE, AGAIN, "statement"),
    Fault("registry/500-scan-record", "it answers 500 to the scan's record", "retried", FIVE, AGAIN, "scan-record"),
    Fault("registry/500-build-record", "it answers 500 to a look at a record", "retried", FIVE, AGAIN, "build-record"),
    Fault("registry/500-verdict", "it answers 500 to the verdict", "retried", FIVE, AGAIN, "verdict"),
    Fault("registry/500-references", "it answers 500 to a look at the evidence", "retried", FIVE, AGAIN, "references"),
    Fault("registry/500-release-blob", "it answers 500 to the release's upload", "retried", FIVE, AGAIN,
          "release-blob"),
    Fault("registry/500-release", "it answers 500 to the release", "retried", FIVE, AGAIN, "release"),
    Fault("registry/500-release-record", "it answers 500 to the release's record", "retried", FIVE, AGAIN,
          "release-record"),
)  # fmt: skip
def test_a_registry_that_answers_500_is_no_pass(fault: Fault, request: pytest.FixtureRequest) -> None:
    line = line_of(fault.value, request)
    breaks(line, fault.value, fault_proxy.status(500))
    check_and_mend(line, fault, leaves=leaves(fault.value))


@faults(
    Fault("registry/lost-verdict", "it keeps the verdict and answers 500", "retried", FIVE, AGAIN, "verdict"),
    Fault("registry/lost-release", "it keeps the release and answers 500", "retried", FIVE, AGAIN, "release"),
)  # fmt: skip
def test_what_the_registry_kept_and_denied_is_taken_up_and_not_doubled(
    fault: Fault, request: pytest.FixtureRequest
) -> None:
    line = line_of(fault.value, request)
    breaks(line, fault.value, fault_proxy.lost)
    check_and_mend(line, fault, leaves={*WORD, "release"} | leaves(fault.value))


@faults(
    Fault("registry/gone-database", "it is away when the database is looked for", "retried", AWAY, AGAIN, "database"),
    Fault("registry/gone-evidence", "it is away when the scan is kept", "retried", AWAY, AGAIN, "evidence"),
    Fault("registry/gone-verdict", "it is away when the verdict is kept", "retried", AWAY, AGAIN, "verdict"),
    Fault("registry/gone-references", "it is away when the evidence is looked at", "retried", AWAY, AGAIN,
          "references"),
    Fault("registry/gone-release", "it is away when the release is kept", "retried", AWAY, AGAIN, "release"),
)  # fmt: skip
def test_a_registry_that_is_away_is_no_pass(fault: Fault, request: pytest.FixtureRequest) -> None:
    line = line_of(fault.value, request)
    line.tries = 2
    breaks(line, fault.value, fault_proxy.gone)
    check_and_mend(line, fault, leaves=leaves(fault.value))


@faults(
    Fault("registry/slow-verdict", "it does not answer when the verdict is kept", "retried", AWAY, AGAIN, "verdict"),
    Fault("registry/slow-references", "it does not answer when the evidence is looked at", "retried", AWAY, AGAIN,
          "references"),
    Fault("registry/slow-release", "it does not answer when the release is kept", "retried", AWAY, AGAIN, "release"),
)  # fmt: skip
def test_a_registry_that_does_not_answer_is_given_up(fault: Fault, request: pytest.FixtureRequest) -> None:
    line = line_of(fault.value, request)
    line.tries, line.timeout = 1, 0.15
    ended = threading.Event()
    breaks(line, fault.value, fault_proxy.slow(ended))
    line.check_fault(fault, line.start().push(), leaves=leaves(fault.value))
    ended.set()
    line.place.proxy.mend()
    line.timeout = 20.0
    line.check_released(line.restart())


@faults(
    Fault("registry/cut-database", "it goes away in the middle of the database", "retried", AWAY, AGAIN,
          ("built", "GET", "/mirror/trivy-db/manifests/sha256:")),
    Fault("registry/cut-record", "it goes away in the middle of a record", "retried", AWAY, AGAIN,
          ("scanned", "GET", "/apps/shop/manifests/scan-")),
    Fault("registry/cut-evidence", "it goes away in the middle of the list of evidence", "retried", AWAY, AGAIN,
          ("scanned", "GET", STATEMENTS)),
)  # fmt: skip
def test_half_an_answer_is_no_answer(fault: Fault, request: pytest.FixtureRequest) -> None:
    snapshot, method, path = fault.value
    line: GateLine = request.getfixturevalue(snapshot)
    line.tries = 2
    line.place.proxy.breaks(method, path, fault_proxy.cut)
    check_and_mend(line, fault, leaves=WORD if "evidence" in fault.name else set())


@faults(
    Fault("registry/bytes-database", "it gives another manifest for the database's digest", "retried",
          "The registry gave a manifest with digest", STORE, ("built", "/mirror/trivy-db/manifests/sha256:")),
    Fault("registry/bytes-record", "it gives other bytes for a record", "retried",
          "This is not valid JSON", STORE, ("scanned", "/apps/shop/manifests/scan-")),
    Fault("registry/bytes-image", "it gives another manifest for the image's digest", "retried",
          "The registry gave a manifest with digest", STORE, ("scanned", f"/apps/shop/manifests/sha256:{HEX}")),
    Fault("registry/bytes-release", "it gives other bytes for what the release is made of", "retried",
          "gave other bytes", STORE, ("scanned", f"/releases/shop/blobs/sha256:{HEX}")),
)  # fmt: skip
def test_other_bytes_are_the_registrys_fault_and_no_verdict(fault: Fault, request: pytest.FixtureRequest) -> None:
    snapshot, path = fault.value
    line: GateLine = request.getfixturevalue(snapshot)
    line.place.proxy.breaks("GET", path, fault_proxy.other_bytes)
    late = {*WORD, "release", "summary in releases"} if "release" in fault.name else set()
    check_and_mend(line, fault, leaves=late)


@faults(
    Fault("registry/pull-500", "it answers 500 to the scanner", "retried", "The scanner failed", AGAIN,
          fault_proxy.status(500)),
    Fault("registry/pull-gone", "it goes away from the scanner", "retried", "The scanner failed", AGAIN,
          fault_proxy.gone),
    Fault("registry/pull-cut", "it goes away in the middle of what the scanner pulls", "retried", "The scanner failed",
          AGAIN, fault_proxy.cut),
    Fault("registry/pull-bytes", "it gives the scanner other bytes", "retried", "The scanner failed", STORE,
          fault_proxy.other_bytes),
    Fault("registry/pull-404", "it does not know the image that the scanner asks for", "retried", "The scanner failed",
          STORE, fault_proxy.status(404)),
)  # fmt: skip
def test_what_the_scanner_could_not_pull_was_not_scanned(built: GateLine, fault: Fault) -> None:
    built.tries = 1
    built.scanner('exec "$real" "$@"', only="image")
    built.place.proxy.breaks("GET|HEAD", "/apps/shop/manifests/sha256:", fault.value, agent="rivy")
    built.check_fault(fault, built.start().push())
    assert any(rule.hit for rule in built.place.proxy.rules)
    built.place.proxy.mend()
    built.scanner()
    built.check_released(built.goes_on())


@faults(
    Fault("registry/forgets", "it forgets what refers to the image", "retried", "The image has no", STORE),
)
def test_evidence_that_the_registry_forgot_is_not_made_up(scanned: GateLine, fault: Fault) -> None:
    for place in (STATEMENTS, OWN_TAGS):
        scanned.place.proxy.breaks("GET", place, fault_proxy.status(404))
    check_and_mend(scanned, fault, leaves=WORD)


@faults(
    Fault("registry/lost-record", "it keeps the release's record and answers 500", "goes on", "PASSED",
          "Nothing: the record is found when it is tried again."),
)  # fmt: skip
def test_a_record_that_was_kept_and_denied_is_found(scanned: GateLine, fault: Fault) -> None:
    scanned.place.proxy.breaks("PUT", "/releases/shop/manifests/sealed-", fault_proxy.lost)
    outcome = scanned.start().push()
    assert fault.says in outcome.text
    scanned.check_released(outcome)


@faults(
    Fault("registry/recovers", "one request in a run fails", "goes on", "PASSED", "Nothing: it is asked again."),
)
def test_one_failed_request_costs_nothing(scanned: GateLine, fault: Fault) -> None:
    for method in ("GET", "HEAD", "PUT", "POST"):
        scanned.place.proxy.breaks(method, "/v2/", fault_proxy.status(503), nth=3, times=1)
    outcome = scanned.start().push()
    assert fault.says in outcome.text
    assert all(rule.hit == 1 for rule in scanned.place.proxy.rules)
    scanned.check_released(outcome)
