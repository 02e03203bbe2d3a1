"""Rotation and revocation, as a zone sees them: what it saw in time goes on counting, whatever a thief writes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sekisho.canonical import digest_of
from sekisho.errors import PermanentError, TemporaryError, VerificationError
from sekisho.keys import FileSigner, TrustedKey, TrustFile, TrustRoot, load_trust, trusted_key
from sekisho.model import Offer
from sekisho.registry import Registry
from sekisho.releases import export_bundle, verify_bundle, verify_release
from sekisho.stage import run_stage
from sekisho.witness import Seen, WitnessBook
from stages.receive import ReceiveStage
from stages.seal import SealStage

from .conftest import COMMIT, NOW, Line

DAY = 86_400


def told(trust: TrustRoot, role: str, zone: str = "", **fields: Any) -> TrustRoot:
    """Return a trust root in which something else is said of a role's key."""
    return TrustRoot(
        keys=tuple(
            TrustedKey(**(key.model_dump() | fields)) if (key.role, key.zone) == (role, zone) else key
            for key in trust.keys
        )
    )


class Zone:
    """A zone that pulls: its registry, its book, its clock, and a trust root that people change."""

    def __init__(self, line: Line, registry: Registry, folder: Path, *require: Any) -> None:
        self.line, self.registry, self.folder = line, registry, folder
        self.require = require or ("verifier",)
        self.trust = line.trust
        self.now = NOW

    @property
    def book(self) -> WitnessBook:
        return WitnessBook(self.folder / "witness.jsonl")

    def current(self) -> TrustRoot:
        return self.trust

    def receive(self, offer: Offer) -> bool:
        """Receive a release; tell whether it was here already."""
        stage = ReceiveStage(
            self.line.registry, self.registry, self, self.require, workdir=self.folder / "work", witness=self.book,
            clock=lambda: self.now,
        )  # fmt: skip
        return run_stage(stage, offer).found


@pytest.fixture
def zone(line: Line, second_registry_url: str, tmp_path: Path) -> Zone:
    return Zone(line, Registry(second_registry_url), tmp_path)


@pytest.mark.parametrize("role", ["builder", "scanner", "verifier"])
def test_what_was_seen_before_a_key_retired_goes_on_counting(zone: Zone, line: Line, role: str) -> None:
    early, late = line.offer(f"retired-{role}"), line.offer(f"retired-late-{role}")
    zone.receive(early)
    zone.trust = told(line.trust, role, not_after=NOW + DAY)
    zone.now = NOW + 30 * DAY

    assert zone.receive(early)
    with pytest.raises(VerificationError, match=f"{role} key .* retired on"):
        zone.receive(late)


@pytest.mark.parametrize("role", ["builder", "scanner", "verifier"])
def test_a_key_revoked_from_a_time_counts_for_what_was_seen_before_it(zone: Zone, line: Line, role: str) -> None:
    before, after = line.offer(f"revoked-{role}"), line.offer(f"revoked-late-{role}")
    zone.receive(before)
    zone.now = NOW + 2 * DAY
    zone.receive(after)
    zone.trust = told(line.trust, role, revoked_from=NOW + DAY, revoked_because="stolen")
    zone.now = NOW + 3 * DAY

    assert zone.receive(before)
    with pytest.raises(VerificationError, match=r"is revoked from .*: stolen"):
        zone.receive(after)


def test_a_key_revoked_from_the_first_day_counts_for_nothing(zone: Zone, line: Line) -> None:
    offer = line.offer("revoked-always")
    zone.receive(offer)
    zone.trust = told(line.trust, "verifier", revoked_from=0)
    with pytest.raises(VerificationError, match="revoked from the first day"):
        zone.receive(offer)


def test_a_thief_cannot_write_an_earlier_time(zone: Zone, line: Line) -> None:
    """Everything a thief with all three keys of the build zone makes says a time before the revocation."""
    zone.trust = line.trust
    for role in ("builder", "scanner", "verifier"):
        zone.trust = told(zone.trust, role, revoked_from=NOW)
    zone.now = NOW + DAY
    backdated = SealStage(line.registry, line.trust, line.signers["verifier"], clock=lambda: NOW - 100 * DAY)
    sealed = run_stage(backdated, line.seal_input("backdated")).value
    offer = Offer(sequence=1, app="backdated", release=sealed.digest, summary=sealed.summary, commit=COMMIT)

    with pytest.raises(VerificationError, match="is revoked"):
        zone.receive(offer)
    assert zone.registry.tags("releases/backdated") == ()
    assert sealed.summary not in zone.book.times()


def test_the_new_key_signs_while_the_old_one_still_counts(zone: Zone, line: Line, tmp_path: Path) -> None:
    new = FileSigner.create(tmp_path / "verifier.pem", "verifier")
    both = TrustRoot(keys=(*told(line.trust, "verifier", not_after=NOW + DAY).keys, trusted_key(new)))
    zone.trust = both
    old = line.offer("overlap-old")
    stage = SealStage(line.registry, both, new, clock=lambda: NOW)
    sealed = run_stage(stage, line.seal_input("overlap-new")).value
    zone.receive(old)
    zone.receive(Offer(sequence=1, app="overlap-new", release=sealed.digest, summary=sealed.summary, commit=COMMIT))

    zone.now = NOW + 2 * DAY
    assert zone.receive(old)


def test_stagings_word_is_witnessed_as_well(line: Line, second_registry_url: str, tmp_path: Path) -> None:
    production = Zone(line, Registry(second_registry_url), tmp_path, "verifier", "staging")
    offer = line.receipt(line.offer("witness-staging"))
    production.receive(offer)
    production.trust = told(line.trust, "zone", "staging", not_after=NOW + DAY)
    production.now = NOW + 2 * DAY

    assert production.receive(offer)
    with pytest.raises(VerificationError, match="Rule staging"):
        production.receive(line.receipt(line.offer("witness-staging-late")))


def test_a_lost_book_makes_everything_new_and_nothing_pass(zone: Zone, line: Line) -> None:
    offer = line.offer("lost-book")
    zone.receive(offer)
    zone.book._journal.path.unlink()
    assert zone.receive(offer)  # the keys count today, so what they signed does
    zone.trust = told(line.trust, "verifier", not_after=NOW - 1)
    with pytest.raises(VerificationError):
        zone.receive(offer)


def test_the_build_zone_notes_what_it_seals(line: Line, tmp_path: Path) -> None:
    book = WitnessBook(tmp_path / "witness.jsonl")
    stage = SealStage(line.registry, line.trust, line.signers["verifier"], witness=book, clock=lambda: NOW)
    sealed = run_stage(stage, line.seal_input("witness-seal")).value
    assert book.times() == dict.fromkeys((sealed.summary, *(item.manifest for item in sealed.release.evidence)), NOW)
    retired = told(line.trust, "verifier", not_after=NOW)
    offer = Offer(sequence=1, app="witness-seal", release=sealed.digest, summary=sealed.summary, commit=COMMIT)
    verified = verify_release(line.registry, offer, retired, at=NOW + DAY, witnessed=book.times())
    data = export_bundle(verified).canonical()
    assert verify_bundle(data, retired, at=NOW + DAY, witnessed=book.times()).ok
    assert not verify_bundle(data, retired, at=NOW + DAY).ok


# -- the book ----------------------------------------------------------------------------------------------------


def test_the_first_time_stays(tmp_path: Path) -> None:
    one, two = digest_of(b"one"), digest_of(b"two")
    book, other = WitnessBook(tmp_path / "book"), WitnessBook(tmp_path / "book")
    book.note((one,), 10)
    other.note((one, two), 20)
    book.note((one, two), 5)
    assert book.times() == other.times() == {one: 10, two: 20}
    assert WitnessBook(tmp_path / "book").times() == {one: 10, two: 20}
    assert len((tmp_path / "book").read_bytes().splitlines()) == 2


def test_a_damaged_book_says_so(tmp_path: Path) -> None:
    path = tmp_path / "book"
    path.write_bytes(Seen(statement=digest_of(b"one"), at=1).canonical() + b"\n{}\n")
    with pytest.raises(PermanentError, match="damaged") as caught:
        WitnessBook(path).times()
    assert caught.value.where == f"{path}, line 2"


# -- keys and trust roots ----------------------------------------------------------------------------------------


@pytest.fixture
def key(tmp_path: Path) -> TrustedKey:
    return trusted_key(FileSigner.create(tmp_path / "k.pem", "builder"))


@given(
    at=st.integers(0, 100),
    not_before=st.integers(0, 100),
    not_after=st.none() | st.integers(0, 100),
    revoked=st.none() | st.integers(0, 100),
)
def test_a_key_counts_in_its_time_and_before_its_revocation(
    signers: dict[str, FileSigner], at: int, not_before: int, not_after: int | None, revoked: int | None
) -> None:
    key = trusted_key(signers["builder"], not_before=not_before, not_after=not_after)
    key = TrustedKey(**(key.model_dump() | {"revoked_from": revoked}))
    expected = at >= not_before and (not_after is None or at <= not_after) and (revoked is None or at < revoked)
    assert key.valid_at(at) == expected == (not key.problem_at(at))


def test_a_root_of_before_keeps_its_identity(key: TrustedKey) -> None:
    assert set(key.model_dump(mode="json")) == {"role", "zone", "key_id", "public_key", "not_before", "not_after"}
    revoked = TrustedKey(**(key.model_dump() | {"revoked_from": 0, "revoked_because": "lost"}))
    assert TrustedKey.parse(revoked.canonical()) == revoked


def test_a_changed_root_is_read_at_the_next_use(key: TrustedKey, tmp_path: Path) -> None:
    path = tmp_path / "root.json"
    path.write_text(TrustRoot(keys=(key,)).model_dump_json())
    source = TrustFile(path)
    assert source.current() == load_trust(path)
    assert source.current() is source.current()

    revoked = TrustRoot(keys=(TrustedKey(**(key.model_dump() | {"revoked_from": 0})),))
    (tmp_path / "new").write_text(revoked.model_dump_json())
    os.replace(tmp_path / "new", path)  # noqa: PTH105 - as a shell's mv does
    assert source.current() == revoked


@pytest.mark.parametrize("content", [b"", b"{}", b'{"keys":[]}', b"\xff", None])
def test_a_root_that_cannot_be_read_stops_what_asks_for_it_until_it_is_mended(
    key: TrustedKey, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "root.json"
    root = TrustRoot(keys=(key,))
    path.write_text(root.model_dump_json())
    source = TrustFile(path)
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(TemporaryError):
        source.current()
    path.write_text(root.model_dump_json(indent=1))
    assert source.current() == root
