"""An outer zone's trust over time, with its real registry, book and desk: what it goes back to, and what not."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from flows.border import Border
from flows.desk import Deployed, Desk, HeldPlan
from sekisho.errors import Refusal, TemporaryError, VerificationError
from sekisho.feed import FeedStore
from sekisho.keys import TrustedKey, TrustFile, TrustRoot
from sekisho.model import Deployment, DryRun, Offer, Plan
from sekisho.profile import Profile, WatchSpec
from sekisho.registry import Registry
from sekisho.zones import Zone, ZoneHome

from .conftest import COMMIT, Line

YEAR = 365 * 86_400


def border(line: Line, url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Border:
    monkeypatch.setenv("SEKISHO_HOME", str(folder))
    home = ZoneHome(Zone.STAGING)
    home.trust.mkdir(parents=True)
    write(home, line.trust)
    nothing = cast("Any", None)
    return Border(
        zone="staging",
        home=home,
        profile=Profile(zone="staging", description="", watch=WatchSpec(drift="report")),
        registry=Registry(url),
        source=line.registry,
        upstream=nothing,
        ops=None,
        trust=TrustFile(home.trust / "root.json"),
        signer=line.signers["staging"],
        standard=nothing,
        policies=nothing,
        vault=nothing,
        kube=nothing,
        desk=Desk(home.state / "desk"),
        feed=FeedStore(home.state / "feed.jsonl"),
        outbox=nothing,
    )


@pytest.fixture
def zone(line: Line, second_registry_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Border:
    """Staging, with an empty state of its own."""
    return border(line, second_registry_url, tmp_path, monkeypatch)


def write(home: ZoneHome, root: TrustRoot) -> None:
    path = home.trust / "new"
    path.write_text(root.model_dump_json(indent=1))
    path.replace(home.trust / "root.json")


def told(zone: Border, line: Line, role: str, **fields: Any) -> None:
    """Say something else of a role's key in the zone's trust root, as an operator does while the zone runs."""
    keys = [TrustedKey(**(key.model_dump() | fields)) if key.role == role else key for key in line.trust.keys]
    write(zone.home, TrustRoot(keys=tuple(keys)))


def deployed(zone: Border, offer: Offer) -> Plan:
    """Note a release as one that was healthy here."""
    plan = Plan(
        app=offer.app, zone="staging", release=offer.release, summary=offer.summary, commit=COMMIT, image="i",
        namespace=f"app-{offer.app}", objects=(),
    )  # fmt: skip
    dry_run = DryRun(plan=plan.identity(), changes=())
    zone.desk.put_plan(HeldPlan(plan=plan, dry_run=dry_run, offer=offer))
    done = Deployment(
        app=offer.app, zone="staging", plan=plan.identity(), release=offer.release, commit=COMMIT, namespace="n"
    )
    zone.desk.add_deployed(offer.app, Deployed(deployment=done, at=1))
    return plan


def test_a_key_that_was_revoked_while_the_zone_runs_is_heeded_at_once(zone: Border, line: Line) -> None:
    offer = line.offer("heeded")
    zone.receive(offer)
    assert zone.bundle(offer.release) is None  # it is not offered here yet
    told(zone, line, "verifier", revoked_from=0, revoked_because="stolen")
    with pytest.raises(VerificationError, match="revoked from the first day: stolen"):
        zone.receive(offer)


def test_the_way_back_skips_what_was_taken_back(zone: Border, line: Line) -> None:
    offer = line.offer("skipped")
    zone.receive(offer)
    plan, failed = deployed(zone, offer), deployed(zone, line.offer("skipped", "d" * 40))
    assert zone.before(failed) == plan

    told(zone, line, "verifier", not_after=1)  # retired long ago; what was seen here goes on counting only from then
    assert zone.before(failed) is None
    told(zone, line, "verifier")
    assert zone.before(failed) == plan


def test_a_retired_key_does_not_close_the_way_back(zone: Border, line: Line) -> None:
    offer = line.offer("way-back")
    zone.receive(offer)
    plan, failed = deployed(zone, offer), deployed(zone, line.offer("way-back", "d" * 40))
    (seen,) = set(zone.witness.times().values())
    told(zone, line, "builder", not_after=seen)
    assert zone.before(failed) == plan
    told(zone, line, "builder", revoked_from=seen + 1)
    assert zone.before(failed) == plan
    told(zone, line, "builder", revoked_from=seen)
    assert zone.before(failed) is None


def test_a_trust_root_that_is_broken_skips_nothing_and_passes_nothing(zone: Border, line: Line) -> None:
    """Neither a yes nor a no: who goes back tries again when the file is mended."""
    offer = line.offer("broken-root")
    zone.receive(offer)
    plan, failed = deployed(zone, offer), deployed(zone, line.offer("broken-root", "d" * 40))
    (zone.home.trust / "root.json").write_text("{")
    with pytest.raises(TemporaryError):
        zone.before(failed)
    with pytest.raises(TemporaryError):
        zone.receive(offer)
    write(zone.home, line.trust)
    assert zone.before(failed) == plan


def test_what_ran_before_there_was_a_book_is_noted_while_it_counts(zone: Border, line: Line) -> None:
    honest, gone = line.offer("noted"), line.offer("not-noted").model_copy(update={"commit": "d" * 40})
    zone.receive(honest)
    deployed(zone, honest)
    deployed(zone, gone)
    (zone.home.state / "witness.jsonl").unlink()
    del zone.witness

    zone.witness_deployed()
    noted = zone.witness.times()
    assert honest.summary in noted
    assert gone.summary not in noted
    zone.witness_deployed()
    assert zone.witness.times() == noted


def test_another_zones_book_is_not_this_zones(
    zone: Border, line: Line, registry_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replay between zones: that staging saw it in time says nothing to another zone."""
    offer = line.offer("own-eyes")
    zone.receive(offer)
    (seen,) = set(zone.witness.times().values())
    other = border(line, registry_url, tmp_path / "other", monkeypatch)
    told(other, line, "scanner", not_after=seen - YEAR)
    with pytest.raises(Refusal, match="scanner key"):
        other.receive(offer)
