"""Receipts on their way to ops: in order, none lost, none that blocks the others."""

from __future__ import annotations

from pathlib import Path

import pytest
from flows_cases import release

from flows.outbox import Outbox
from sekisho.errors import Refusal, TemporaryError
from sekisho.keys import FileSigner, TrustRoot, trusted_key
from sekisho.receipts import verify_receipt


class Ops:
    """Takes receipts, or does not."""

    def __init__(self, *, away_at: str = "", refused: str = "") -> None:
        self.got: list[bytes] = []
        self.away_at = away_at.encode()
        self.refused = refused.encode()

    def post_receipt(self, bundle: bytes) -> None:
        from sekisho.statements import peek_statement

        event = str(peek_statement(bundle).predicate["event"]).encode()
        if self.away_at == event:
            raise TemporaryError("Ops is away.")
        if self.refused == event:
            raise Refusal("Ops does not take this.")
        self.got.append(bundle)


@pytest.fixture
def signer(tmp_path: Path) -> FileSigner:
    return FileSigner.create(tmp_path / "zone.pem", "zone")


@pytest.fixture
def outbox(tmp_path: Path, signer: FileSigner) -> Outbox:
    return Outbox(tmp_path / "outbox", signer, "staging")


def events(bundles: list[bytes], signer: FileSigner) -> list[str]:
    trust = TrustRoot(keys=(trusted_key(signer, zone="staging"),))
    return [verify_receipt(bundle, trust).event for bundle in bundles]


def test_receipts_go_out_signed_and_in_order(outbox: Outbox, signer: FileSigner, tmp_path: Path) -> None:
    told = ["received", "planned", "healthy"]
    for event in told:
        outbox.put("shop", event, release=release("one"), message="words", seconds=1.5)
    ops = Ops()
    assert outbox.flush(ops) == 3
    assert events(ops.got, signer) == told
    assert outbox.flush(ops) == 0
    assert not list((tmp_path / "outbox").iterdir())


def test_nothing_is_lost_or_overtaken_while_ops_is_away(outbox: Outbox, signer: FileSigner, tmp_path: Path) -> None:
    for event in ("one", "two", "three"):
        outbox.put("shop", event)
    ops = Ops(away_at="two")
    with pytest.raises(TemporaryError):
        outbox.flush(ops)
    assert events(ops.got, signer) == ["one"]
    later = Outbox(tmp_path / "outbox", signer, "staging")
    ops.away_at = b""
    assert later.flush(ops) == 2
    assert events(ops.got, signer) == ["one", "two", "three"]


def test_a_receipt_that_ops_refuses_is_kept_aside(outbox: Outbox, signer: FileSigner, tmp_path: Path) -> None:
    for event in ("one", "two", "three"):
        outbox.put("shop", event)
    ops = Ops(refused="two")
    assert outbox.flush(ops) == 2
    assert events(ops.got, signer) == ["one", "three"]
    kept = list((tmp_path / "outbox").glob("*.refused"))
    assert events([path.read_bytes() for path in kept], signer) == ["two"]
    assert outbox.flush(ops) == 0


def test_a_receipt_that_was_cut_off_is_not_sent(outbox: Outbox, tmp_path: Path) -> None:
    (tmp_path / "outbox" / ".00-ab.json.part").write_bytes(b"{")
    assert outbox.flush(Ops()) == 0
