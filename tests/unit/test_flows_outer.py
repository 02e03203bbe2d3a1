"""The outer loop without a cluster or an engine: what a release's approvals are good for, and what a kill loses."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import pytest
from flows_cases import COMMIT, deployed, held, offer, release

from flows import outer
from flows.border import Border, Seen
from flows.desk import Desk, HeldPlan
from flows.outbox import Outbox
from flows.outer_zone import check_rollback
from sekisho.decisions import sign_decision
from sekisho.errors import PermanentError, TemporaryError, VerificationError
from sekisho.inventory import Inventory
from sekisho.keys import FileSigner
from sekisho.model import Decision, Deployment, Health, Offer, Plan, Receipt, SealedRelease, SignedDecision
from sekisho.profile import GateSpec, Profile, WatchSpec
from sekisho.statements import peek_statement
from sekisho.zones import Zone, ZoneHome
from stages import watch

HEALTHY, SICK = Health(healthy=True), Health(healthy=False, cause="it crashes")


class Killed(BaseException):
    """Stands for kill -9: nothing of the process's own runs after it."""


class Production(Border):
    """A zone whose cluster is played; desk, gate, signatures and receipts are real."""

    health = HEALTHY
    stands: Plan | None = None
    back = HEALTHY
    trouble: BaseException | None = None
    fits = True
    applied: list[str]
    revoked = False
    lost: frozenset[str] = frozenset()
    """Releases whose key was taken back since they ran."""

    def counts(self, plan: Plan, _: Offer) -> bool:
        return plan.release not in self.lost

    def receive(self, offer: Offer) -> SealedRelease:
        if self.revoked:
            raise VerificationError("The verifier's key counts no longer.", where=offer.release)
        return cast("SealedRelease", None)

    def apply(self, planned: Plan) -> Deployment:
        self.stands = planned
        self.applied.append(planned.release)
        return deployed(HeldPlan(plan=planned, dry_run=held("any").dry_run, offer=offer("any"))).deployment

    def verify(self, _: Plan) -> Health:
        return self.health

    def go_back(self, before: Plan, cause: str) -> Health:
        if self.trouble is not None:
            raise self.trouble
        self.stands = before
        to = before.release if self.back.healthy else ""
        return Health(healthy=False, cause=cause, rolled_back_to=to)

    def still_fits(self, _: Plan) -> bool:
        return self.fits

    def vouch(self, *_: object) -> None:
        return

    def told(self) -> list[str]:
        found = [peek_statement(path.read_bytes()) for path in sorted((self.home.state / "outbox").glob("*.json"))]
        return [Receipt.model_validate(item.predicate).event for item in found]


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "anna"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "anna", "-f", str(path)], check=True)
    return path


@pytest.fixture
def zone(tmp_path: Path, key: Path, monkeypatch: pytest.MonkeyPatch) -> Production:
    monkeypatch.setenv("SEKISHO_HOME", str(tmp_path))
    home = ZoneHome(Zone.PRODUCTION)
    home.trust.mkdir(parents=True)
    (home.trust / "allowed_signers").write_text(f"anna {key.with_suffix('.pub').read_text()}")
    made = _zone(home, FileSigner.create(tmp_path / "zone.pem", "zone"))

    async def step(name: str, subject: str, call: Any) -> Any:
        return call()

    async def leave_artifact(*page: str) -> None:
        return

    monkeypatch.setattr(outer, "border", lambda: made)
    monkeypatch.setattr(outer, "alive", nullcontext)
    monkeypatch.setattr(outer, "step", step)
    monkeypatch.setattr(outer, "leave_artifact", leave_artifact)
    return made


def _zone(home: ZoneHome, signer: FileSigner) -> Production:
    nothing = cast("Any", None)
    gate = GateSpec(mode="approval", approvals=1)
    made = Production(
        zone="production",
        home=home,
        profile=Profile(zone="production", description="", gate=gate, watch=WatchSpec(drift="report")),
        registry=nothing,
        source=nothing,
        upstream=nothing,
        ops=None,
        trust=nothing,
        signer=signer,
        standard=nothing,
        policies=nothing,
        vault=nothing,
        kube=nothing,
        desk=Desk(home.state / "desk"),
        feed=nothing,
        outbox=Outbox(home.state / "outbox", signer, "production"),
    )
    made.applied = []
    return made


def decide(key: Path, kind: str, subject: str, *, issued_at: int = 0) -> SignedDecision:
    decision = Decision(
        kind=kind,  # type: ignore[arg-type]
        zone="production",
        app="shop",
        subject=subject,
        principal="anna",
        issued_at=issued_at or int(time.time()),
        nonce=f"{time.time_ns():032x}",
    )
    return sign_decision(decision, key)


def deploy(one: HeldPlan) -> str:
    state = asyncio.run(outer.deploy.fn("shop", one.plan.identity()))
    return str(state.name)


def outcome(zone: Border, name: str) -> str:
    ended = zone.desk.outcome(release(name))
    return ended.outcome if ended else ""


def running(zone: Production, name: str) -> HeldPlan:
    one = held(name)
    zone.desk.add_deployed("shop", deployed(one))
    zone.desk.put_plan(one)
    zone.desk.let_go("shop")
    zone.stands = one.plan
    return one


def test_a_plan_waits_for_its_approval_and_is_applied_once(zone: Production, key: Path) -> None:
    one = held("one")
    zone.desk.put_plan(one)
    assert deploy(one) == "Held"
    zone.desk.put_decision(decide(key, "approve", one.plan.identity()))
    assert deploy(one) == "Healthy"
    assert deploy(one) == "Superseded"
    assert zone.applied == [release("one")]
    assert zone.told() == ["held", "opened", "applied", "healthy"]
    assert zone.desk.held("shop") is None


def test_a_key_that_was_revoked_while_the_plan_waited_stops_it(zone: Production, key: Path) -> None:
    one = held("one")
    zone.desk.put_plan(one)
    zone.desk.put_decision(decide(key, "approve", one.plan.identity()))
    zone.revoked = True
    assert deploy(one) == outer.REFUSED
    assert zone.applied == []
    assert zone.told() == ["refused"]
    assert zone.desk.held("shop") is None


def test_an_approval_is_spent_by_a_failure(zone: Production, key: Path) -> None:
    running(zone, "one")
    two = held("two", previous="one")
    zone.desk.put_plan(two)
    zone.desk.put_decision(decide(key, "approve", two.plan.identity()))
    zone.health = SICK
    assert deploy(two) == outer.UNHEALTHY
    assert zone.told()[-2:] == ["failed", "rolled-back"]
    # The cluster stands where it stood, so the same release gives the very same plan.
    zone.health = HEALTHY
    zone.desk.put_plan(two)
    assert deploy(two) == "Held"
    assert zone.applied == [release("two")]
    zone.desk.put_decision(decide(key, "approve", two.plan.identity()))
    assert deploy(two) == "Healthy"


def test_an_approval_is_spent_by_success_too(zone: Production, key: Path) -> None:
    one = held("one")
    zone.desk.put_plan(one)
    zone.desk.put_decision(decide(key, "approve", one.plan.identity()))
    assert deploy(one) == "Healthy"
    zone.desk.put_plan(one)
    assert deploy(one) == "Held"


def test_a_rejection_ends_the_wait_it_was_about_and_no_later_one(zone: Production, key: Path) -> None:
    one = held("one")
    zone.desk.put_plan(one)
    zone.desk.put_decision(decide(key, "approve", one.plan.identity()))
    zone.desk.put_decision(decide(key, "reject", one.plan.identity()))
    assert deploy(one) == "Rejected"
    assert (zone.applied, outcome(zone, "one"), zone.desk.held("shop")) == ([], "rejected", None)
    zone.desk.put_plan(one)
    assert deploy(one) == "Held"
    zone.desk.put_decision(decide(key, "approve", one.plan.identity()))
    assert deploy(one) == "Healthy"


def test_a_zone_that_is_killed_while_it_goes_back_goes_back_after_all(zone: Production, key: Path) -> None:
    one = running(zone, "one")
    two = held("two", previous="one")
    zone.desk.put_plan(two)
    zone.desk.put_decision(decide(key, "approve", two.plan.identity()))
    zone.health, zone.trouble = SICK, Killed()
    with pytest.raises(Killed):
        deploy(two)
    assert outcome(zone, "two") == ""
    # The next process: it must not try the failed plan again, whatever its approval says.
    zone.trouble, zone.health = None, HEALTHY
    assert deploy(two) == outer.UNHEALTHY
    assert zone.applied == [release("two")]
    assert zone.stands == one.plan
    assert (outcome(zone, "two"), zone.desk.held("shop")) == ("failed", None)
    assert zone.told()[-2:] == ["failed", "rolled-back"]


def test_going_back_is_tried_again_when_the_cluster_is_away(zone: Production, key: Path) -> None:
    one = running(zone, "one")
    two = held("two", previous="one")
    zone.desk.put_plan(two)
    zone.desk.put_decision(decide(key, "approve", two.plan.identity()))
    zone.health, zone.trouble = SICK, TemporaryError("The cluster is away.")
    with pytest.raises(TemporaryError):
        deploy(two)
    assert zone.desk.failed("shop") == "it crashes"
    zone.trouble = None
    assert deploy(two) == outer.UNHEALTHY
    assert zone.stands == one.plan
    assert zone.told().count("failed") == 1


def test_going_back_that_can_never_work_is_told_and_ends(zone: Production, key: Path) -> None:
    running(zone, "one")
    two = held("two", previous="one")
    zone.desk.put_plan(two)
    zone.desk.put_decision(decide(key, "approve", two.plan.identity()))
    zone.health, zone.trouble = SICK, PermanentError("The vault is damaged.")
    assert deploy(two) == outer.UNHEALTHY
    assert zone.told()[-1] == "rollback-failed"
    assert zone.desk.held("shop") is None


def test_a_newer_release_does_not_hide_that_the_zone_has_to_go_back(
    zone: Production, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = running(zone, "one")
    two = held("two", previous="one")
    zone.desk.put_plan(two)
    zone.desk.fail("shop", "it crashes")
    zone.remember(offer("three"))
    seen: list[Plan | None] = []

    async def bring(told: Any, *, rollback: bool) -> None:
        seen.append(zone.stands)

    monkeypatch.setattr(outer, "_bring", bring)
    zone.stands = two.plan
    asyncio.run(outer.promote.fn("shop", release("three")))
    assert seen == [one.plan]
    assert outcome(zone, "two") == "failed"


def test_what_was_gone_back_to_is_what_is_watched_and_gone_back_to(zone: Production) -> None:
    one, two = running(zone, "one"), running(zone, "two")
    zone.stands_again(one.plan)
    assert [item.deployment.release for item in zone.desk.deployed("shop")] == [
        one.plan.release, two.plan.release, one.plan.release,
    ]  # fmt: skip
    assert zone.before(held("three").plan) == one.plan
    zone.stands_again(one.plan)
    assert len(zone.desk.deployed("shop")) == 3


def test_nothing_is_gone_back_to_whose_key_was_taken_back(zone: Production) -> None:
    one, two = running(zone, "one"), running(zone, "two")
    zone.lost = frozenset({two.plan.release})
    assert zone.before(held("three").plan) == one.plan
    zone.lost |= {one.plan.release}
    assert zone.before(held("three").plan) is None


def test_a_release_that_was_healthy_and_falls_ill_leaves_the_one_before_it_in_the_history(
    zone: Production, key: Path
) -> None:
    one, two = running(zone, "one"), running(zone, "two")
    zone.desk.put_plan(two)
    zone.desk.put_decision(decide(key, "approve", two.plan.identity()))
    zone.health = SICK
    assert deploy(two) == outer.UNHEALTHY
    assert zone.desk.deployed("shop")[-1].deployment.plan == one.plan.identity()


def test_a_void_rollback_is_planned_again(zone: Production, key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = held("one", rollback=True)
    zone.desk.put_plan(one)
    zone.desk.put_decision(decide(key, "approve", one.plan.identity()))
    zone.fits = False
    brought: list[bool] = []

    async def bring(told: Any, *, rollback: bool) -> Any:
        brought.append(rollback)
        return outer.Completed(name="Held")

    monkeypatch.setattr(outer, "_bring", bring)
    assert deploy(one) == "Held"
    assert brought == [True]
    assert zone.applied == []


def test_a_release_that_ran_here_is_known_without_the_zone_before(zone: Production) -> None:
    one = running(zone, "one")

    class Away:
        def offers(self) -> Iterator[Offer]:
            raise TemporaryError("Staging is away.")

    zone.upstream = cast("Any", Away())
    assert zone.offer("shop", release("one")) == one.offer
    with pytest.raises(TemporaryError):
        zone.offer("shop", release("never seen"))


def test_an_offer_is_found_in_the_whole_feed_and_only_for_its_app(zone: Production) -> None:
    class Feed:
        def offers(self) -> Iterator[Offer]:
            yield from (offer("one"), offer("two", sequence=2))

    zone.upstream = cast("Any", Feed())
    assert zone.offer("shop", release("two")).sequence == 2
    zone.remember(offer("three", app="forum"))
    with pytest.raises(Exception, match="No such release"):
        zone.offer("shop", release("three"))


@pytest.mark.parametrize(
    ("plan", "applied", "previous", "fits"),
    [("", "", "", True), ("", "", "p1", False), ("p1", "p1", "p1", True), ("p2", "p2", "p1", False),
     ("mine", "p1", "p1", True), ("mine", "p0", "p1", True)],
)  # fmt: skip
def test_a_plan_fits_only_the_ground_it_was_made_on(
    plan: str, applied: str, previous: str, *, fits: bool, zone: Production, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = held("one", previous=previous).plan
    stands = mine.identity() if plan == "mine" else plan
    found = Inventory(generation=1, plan=stands, release="r", commit=COMMIT, applied=applied) if plan else None
    monkeypatch.setattr("flows.border.read_inventory", lambda *_: found)
    assert Border.still_fits(zone, mine) is fits


def test_a_wish_to_go_back_is_granted_once(zone: Production, key: Path) -> None:
    running(zone, "one")
    wish = decide(key, "rollback", release("one"))
    check_rollback(zone, wish)
    zone.desk.spend(wish.decision.subject, [wish.decision.nonce])
    # The same signature with its lines broken elsewhere, as a captured mailbox could send it: it still verifies.
    begin, *body, end = wish.signature.splitlines()
    text = "".join(body)
    again = wish.model_copy(update={"signature": "\n".join([begin, text[:30], text[30:], end, ""])})
    assert again != wish
    assert zone.check_decision(again) == "anna"
    assert zone.desk.put_decision(wish)
    assert zone.desk.put_decision(again)
    with pytest.raises(VerificationError, match="granted before"):
        check_rollback(zone, again)


def test_a_wish_to_go_back_must_be_an_approvers_for_here_and_about_what_ran(zone: Production, key: Path) -> None:
    running(zone, "one")
    with pytest.raises(VerificationError, match="never healthy here"):
        check_rollback(zone, decide(key, "rollback", release("two")))
    with pytest.raises(VerificationError, match="future"):
        check_rollback(zone, decide(key, "rollback", release("one"), issued_at=int(time.time()) + 4000))
    wish = decide(key, "rollback", release("one"))
    for change in ({"zone": "staging"}, {"app": "../../plans"}, {"reason": "another"}):
        forged = wish.model_copy(update={"decision": wish.decision.model_copy(update=change)})
        with pytest.raises(VerificationError):
            check_rollback(zone, forged)


def test_a_lasting_finding_is_told_once_and_again_when_it_comes_back(
    zone: Production, monkeypatch: pytest.MonkeyPatch
) -> None:
    running(zone, "one")
    found = [watch.Observation(kind="drift", object="v1/Service/app-shop/shop", message="1 fields differ.")]
    monkeypatch.setattr(watch, "look", lambda *_: tuple(found))
    monkeypatch.setattr(Border, "_agent_objects", lambda _: ())
    assert zone.needs_a_look()
    assert zone.news(zone.look("shop")) == [Seen("shop", found[0])]
    assert not zone.needs_a_look()
    assert zone.news(zone.look("shop")) == []
    kept, found[:] = list(found), []
    assert not zone.needs_a_look()
    found[:] = kept
    assert zone.needs_a_look()
    assert len(zone.news(zone.look("shop"))) == 1


def test_one_app_that_cannot_be_looked_at_hides_no_other(zone: Production, monkeypatch: pytest.MonkeyPatch) -> None:
    running(zone, "one")
    other = held("other", app="forum")
    zone.desk.put_plan(other)
    zone.desk.add_deployed("forum", deployed(other))

    def look(kube: Any, plan: Plan, *_: Any) -> tuple[watch.Observation, ...]:
        if plan.app == "forum":
            raise PermanentError("The inventory is damaged.")
        return (watch.Observation(kind="missing", object="v1/Service/app-shop/shop", message="It is gone."),)

    monkeypatch.setattr(watch, "look", look)
    monkeypatch.setattr(Border, "_agent_objects", lambda _: ())
    assert zone.needs_a_look()
    texts = [item.text for app in zone.running() for item in zone.look(app)]
    assert any("damaged" in text for text in texts)
    assert any("It is gone." in text for text in texts)


def test_nobody_looks_at_what_is_being_worked_on(zone: Production) -> None:
    running(zone, "one")

    async def run() -> tuple[tuple[str, ...], tuple[str, ...]]:
        async with zone.exclusive("shop"):
            inside = zone.running()
        return inside, zone.running()

    assert asyncio.run(run()) == ((), ("shop",))
