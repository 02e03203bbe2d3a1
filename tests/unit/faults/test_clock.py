"""Clocks that are off by a day, both ways: the judge's, the seal's, and the times of keys."""

from __future__ import annotations

import datetime as dt
import json
import time
from typing import Any

from fault_cases import Fault, faults
from fault_line import GateLine, database_layer, push_database

HOUR = 3600
CLOCK = "Set the clock right and restart the zone's process: it takes the commit up by itself."
KEYS = "Set the clock right, or the key's dates in the trust root; the commit is judged again by itself."
WORD = {"summary in verdicts"}


@faults(
    Fault("clock/judge-ahead", "the judge's clock is a day ahead", "FAILED", "are older than 72 hours", CLOCK,
          (25, dt.timedelta(hours=50))),
    Fault("clock/judge-behind", "the judge's clock is more than a day behind", "FAILED", "are from the future", CLOCK,
          (-25, dt.timedelta(0))),
)  # fmt: skip
def test_a_judge_with_a_wrong_clock_says_no(built: GateLine, fault: Fault) -> None:
    hours, age = fault.value
    push_database(built.direct, database_layer(dt.datetime.now(dt.UTC) - age))
    built.start()
    built.gate.judge._now = lambda: time.time() + hours * HOUR
    built.check_fault(fault, built.push())
    built.check_released(built.restart())


@faults(
    Fault("clock/database-ahead", "the database is dated more than a day ahead", "retried", "is dated in the future",
          "Mirror the database again, or set the clock right; the commit is judged again by itself."),
)  # fmt: skip
def test_a_database_from_tomorrow_is_not_used(built: GateLine, fault: Fault) -> None:
    push_database(built.direct, database_layer(dt.datetime.now(dt.UTC) + dt.timedelta(hours=25)))
    built.check_fault(fault, built.start().push())
    push_database(built.direct, database_layer())
    built.check_released(built.goes_on())


def dated(line: GateLine, role: str, **dates: Any) -> None:
    path = line.home.trust / "root.json"
    root = json.loads(path.read_bytes())
    for key in root["keys"]:
        if key["role"] == role:
            key.update(dates)
    # A new file in place of the old one, as the zone's administration writes it.
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(root))
    fresh.replace(path)


@faults(
    Fault("clock/builder-not-yet", "the builder's key counts from tomorrow on", "retried", "that the builder signed",
          KEYS, ("builder", {"not_before": 24 * HOUR})),
    Fault("clock/builder-over", "the builder's key counted until yesterday", "retried", "that the builder signed", KEYS,
          ("builder", {"not_after": -24 * HOUR})),
    Fault("clock/scanner-not-yet", "the scanner's key counts from tomorrow on", "retried", "that the scanner signed",
          KEYS, ("scanner", {"not_before": 24 * HOUR})),
    Fault("clock/scanner-over", "the scanner's key counted until yesterday", "retried", "that the scanner signed",
          KEYS, ("scanner", {"not_after": -24 * HOUR})),
    Fault("clock/verifier-not-yet", "the verifier's key counts from tomorrow on", "retried", "verifier key", KEYS,
          ("verifier", {"not_before": 24 * HOUR})),
    Fault("clock/verifier-over", "the verifier's key counted until yesterday", "retried", "verifier key", KEYS,
          ("verifier", {"not_after": -24 * HOUR})),
)  # fmt: skip
def test_a_key_that_does_not_count_today_seals_nothing(scanned: GateLine, fault: Fault) -> None:
    role, dates = fault.value
    now = int(time.time())
    dated(scanned, role, **{name: now + seconds for name, seconds in dates.items()})
    scanned.check_fault(fault, scanned.start().push(), leaves=WORD)
    dated(scanned, role, not_before=0, not_after=None)
    scanned.check_released(scanned.goes_on())
