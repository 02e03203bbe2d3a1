"""Faults of what signs: a key behind a service that is away, hangs, or answers with rubbish."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from fault_cases import Fault, faults
from fault_line import GateLine

from sekisho import signing

MEND = "Bring the signer back; the commit is judged again by itself."
WORD = {"summary in verdicts"}
RELEASED = {*WORD, "release"}


class Broken:
    """A signer that breaks from its Nth signature on."""

    def __init__(self, signer: Any, how: str, *, after: int = 0) -> None:
        self.signer, self.how, self.left = signer, how, after
        self.role, self.key_id, self.public_key = signer.role, signer.key_id, signer.public_key
        self.ended = threading.Event()

    def sign(self, data: bytes) -> bytes:
        self.left -= 1
        if self.left >= 0:
            return bytes(self.signer.sign(data))
        if self.how == "down":
            raise ConnectionRefusedError(111, "Connection refused")
        if self.how == "hangs":
            self.ended.wait(60)
        return b"rubbish"


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(signing, "SIGN_SECONDS", 0.3)
    return


def put(line: GateLine, stage: str, how: str, *, after: int = 0) -> Broken:
    """Break the signer of a stage; `stage` may also be `seal`, which has the verifier's as the judge has."""
    part = getattr(line.gate, stage)
    name = "signer" if stage == "build" else "_signer"
    broken = Broken(getattr(part, name), how, after=after)
    setattr(part, name, broken)
    return broken


@faults(
    Fault("signer/builder-down", "the builder's signer is down", "retried", "The builder's signer failed", MEND,
          ("build", "down", set())),
    Fault("signer/scanner-down", "the scanner's signer is down", "retried", "The scanner's signer failed", MEND,
          ("scan", "down", set())),
    Fault("signer/judge-down", "the verifier's signer is down when the judge signs", "retried",
          "The verifier's signer failed", MEND, ("judge", "down", set())),
    Fault("signer/seal-down", "the verifier's signer is down when the release is sealed", "retried",
          "The verifier's signer failed", MEND, ("seal", "down", RELEASED)),
    Fault("signer/scanner-hangs", "the scanner's signer does not answer", "retried",
          "The scanner's signer gave no answer in", MEND, ("scan", "hangs", set())),
    Fault("signer/judge-hangs", "the verifier's signer does not answer the judge", "retried",
          "The verifier's signer gave no answer in", MEND, ("judge", "hangs", set())),
    Fault("signer/seal-hangs", "the verifier's signer does not answer the seal", "retried",
          "The verifier's signer gave no answer in", MEND, ("seal", "hangs", RELEASED)),
    Fault("signer/builder-rubbish", "the builder's signer signs rubbish", "retried",
          "The builder's signer gave a signature that is not its key's", MEND, ("build", "rubbish", set())),
    Fault("signer/scanner-rubbish", "the scanner's signer signs rubbish", "retried",
          "The scanner's signer gave a signature that is not its key's", MEND, ("scan", "rubbish", set())),
    Fault("signer/judge-rubbish", "the verifier's signer signs rubbish for the judge", "retried",
          "The verifier's signer gave a signature that is not its key's", MEND, ("judge", "rubbish", set())),
    Fault("signer/seal-rubbish", "the verifier's signer signs rubbish for the seal", "retried",
          "The verifier's signer gave a signature that is not its key's", MEND, ("seal", "rubbish", RELEASED)),
)  # fmt: skip
def test_without_a_signature_nothing_is_said(line: GateLine, fault: Fault) -> None:
    stage, how, leaves = fault.value
    line.tries = 1
    line.start()
    broken = put(line, stage, how)
    line.check_fault(fault, line.push(), leaves=leaves)
    broken.ended.set()
    broken.left = 1 << 30
    line.check_released(line.goes_on())


@faults(
    Fault("signer/half-way", "the verifier's signer goes down between two signatures of a release", "retried",
          "The verifier's signer failed", MEND),
)  # fmt: skip
def test_a_signer_that_goes_down_half_way_leaves_nothing_that_is_offered(scanned: GateLine, fault: Fault) -> None:
    scanned.tries = 1
    scanned.start()
    broken = put(scanned, "seal", "down")
    for attempt in range(3):
        broken.left = 1
        outcome = scanned.goes_on() if attempt else scanned.push()
        scanned.check_fault(fault, outcome, leaves={*RELEASED, "summary in releases", "summary in apps", "signature"})
    broken.left = 1 << 30
    scanned.check_released(scanned.goes_on())
