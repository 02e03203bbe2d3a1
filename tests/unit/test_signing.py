"""A signer that is down: to be tried again, with the reason, and nothing half made."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
from signing_cases import Down, broken

from sekisho import signing
from sekisho.canonical import Digest
from sekisho.cosign_legacy import sign_image
from sekisho.errors import PermanentError, TemporaryError
from sekisho.evidence import attach_statement
from sekisho.keys import FileSigner
from sekisho.signing import sign_with
from sekisho.stage import run_stage
from sekisho.statements import PROVENANCE, SCAN, SUMMARY, Statement, Subject, sign_statement
from stages.seal import SealStage

from .conftest import NOW, Line

STATEMENTS = {"builder": PROVENANCE, "scanner": SCAN, "verifier": SUMMARY}


def limited(_: bytes) -> bytes:
    raise TemporaryError("The KMS allows no more signatures in this minute.")


def rubbish(data: bytes) -> bytes:
    return data[:70]


@pytest.fixture
def hangs() -> Iterator[Callable[[bytes], bytes]]:
    """A signer that gives no answer while the test runs."""
    over = threading.Event()

    def wait(_: bytes) -> bytes:
        over.wait(60)
        return b""

    yield wait
    over.set()


def test_a_signature_is_checked_before_it_is_used(signers: dict[str, FileSigner]) -> None:
    key_id, signature = sign_with(signers["builder"], b"data")
    assert key_id == signers["builder"].key_id
    assert signature

    other = Down(signers["builder"], signers["scanner"].sign)
    with pytest.raises(TemporaryError, match="not its key's"):
        sign_with(other, b"data")


@pytest.mark.parametrize("role", ["builder", "scanner", "verifier"])
@pytest.mark.parametrize("fault", ["broken", "limited", "rubbish", "hangs"])
def test_nothing_is_attached_by_a_signer_that_is_down(
    line: Line, hangs: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch, role: str, fault: str
) -> None:
    act = {"broken": broken, "limited": limited, "rubbish": rubbish, "hangs": hangs}[fault]
    if fault == "hangs":
        monkeypatch.setattr(signing, "SIGN_SECONDS", 0.05)
    image = line.image(f"down-{role}-{fault}")
    statement = Statement(
        subjects=(Subject(name=image.repository, digest=image.digest),),
        predicate_type=STATEMENTS[role],
        predicate={"verificationResult": "PASSED"},
    )
    with pytest.raises(TemporaryError, match=f"The {role}'s signer") as caught:
        attach_statement(line.registry, image.repository, statement, Down(line.signers[role], act))
    said = {"broken": "ConnectionRefusedError", "limited": "no more signatures", "rubbish": "not its key's"}
    assert said.get(fault, "no answer in 0.05 s") in caught.value.what
    assert "SECRET" not in str(caught.value)
    assert line.registry.referrers(image.repository, Digest(image.digest)) == ()
    assert line.registry.tags(image.repository) == ()


def test_the_legacy_signature_too(line: Line) -> None:
    image = line.image("down-legacy")
    with pytest.raises(TemporaryError, match="The verifier's signer"):
        sign_image(line.registry, image.repository, Digest(image.digest), Down(line.signers["verifier"], broken))
    assert line.registry.tags(image.repository) == ()


def test_a_role_that_may_not_say_it_is_not_even_asked(line: Line) -> None:
    asked = []
    image = line.image("down-role")
    statement = Statement(subjects=(Subject(digest=image.digest),), predicate_type=SUMMARY, predicate={})
    with pytest.raises(PermanentError, match="verifier's to sign"):
        attach_statement(line.registry, image.repository, statement, Down(line.signers["builder"], asked.append))
    assert asked == []


def test_a_seal_that_was_cut_off_by_its_signer_is_taken_up(line: Line) -> None:
    subject = line.seal_input("down-seal")
    down = SealStage(line.registry, line.trust, Down(line.signers["verifier"], broken), clock=lambda: NOW)
    with pytest.raises(TemporaryError, match="The verifier's signer failed: ConnectionRefusedError"):
        run_stage(down, subject)
    assert down.find(subject) is None
    assert not [tag for tag in line.registry.tags("releases/down-seal") if tag.startswith("sealed-")]

    sealed = run_stage(line.seal_stage(), subject).value
    (only,) = line.registry.referrers("releases/down-seal", Digest(sealed.digest))
    assert only.digest == sealed.summary


def test_a_seal_whose_signer_dies_in_the_middle_is_taken_up(line: Line) -> None:
    subject = line.seal_input("down-middle")
    left = iter(range(2))

    def twice(data: bytes) -> bytes:
        if next(left, None) is None:
            raise TimeoutError
        return line.signers["verifier"].sign(data)

    dying = SealStage(line.registry, line.trust, Down(line.signers["verifier"], twice), clock=lambda: NOW)
    with pytest.raises(TemporaryError, match="TimeoutError"):
        run_stage(dying, subject)
    assert dying.find(subject) is None

    sealed = run_stage(line.seal_stage(), subject).value
    (only,) = line.registry.referrers("releases/down-middle", Digest(sealed.digest))
    assert only.digest == sealed.summary


def test_a_bundle_is_the_same_whoever_holds_the_key(signers: dict[str, FileSigner]) -> None:
    statement = Statement(subjects=(Subject(digest="sha256:" + "0" * 64),), predicate_type=PROVENANCE, predicate={})
    away = Down(signers["builder"], signers["builder"].sign)
    assert sign_statement(statement, away) == sign_statement(statement, signers["builder"])
