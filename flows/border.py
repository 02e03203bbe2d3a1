"""An outer zone, put together: where it pulls from, what it trusts, its cluster, its vault, its desk.

The methods are the stages of the outer loop with this zone's parts filled in; the flows call them in order.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flows.desk import Desk, HeldPlan
from flows.outbox import Outbox
from sekisho.canonical import Digest
from sekisho.clients import FeedClient, OpsClient
from sekisho.decisions import verify_decision
from sekisho.errors import PermanentError, Refusal, SekishoError
from sekisho.evidence import attach_statement
from sekisho.feed import FeedStore
from sekisho.inventory import read_inventory
from sekisho.keys import FileSigner, Trust, TrustFile
from sekisho.kube import Kube
from sekisho.model import (
    Bound,
    Deployment,
    DryRun,
    GateState,
    Hardened,
    Health,
    Manifests,
    Offer,
    Plan,
    Reason,
    Receipt,
    SealedRelease,
    SignedDecision,
)
from sekisho.policy import PolicySet, load_policies
from sekisho.profile import Profile, load_profile
from sekisho.receipts import receipt_statement
from sekisho.registry import Registry
from sekisho.releases import Requirement, VerifiedRelease, export_bundle, load_release, verify_release
from sekisho.stage import run_stage
from sekisho.standard import StandardImages, load_standard
from sekisho.vault import FileVault
from sekisho.witness import WITNESS_FILE, WitnessBook
from sekisho.zones import Port, Zone, ZoneHome, address
from stages import agents, apply, gate, plan, verify, watch
from stages.bind import Services, bind
from stages.harden import harden
from stages.receive import ReceiveStage

_LOG = logging.getLogger(__name__)
HEALTHY = "healthy"


@dataclass(frozen=True)
class Seen:
    """One finding of the watch."""

    app: str
    what: watch.Observation

    @property
    def text(self) -> str:
        """The finding in one line."""
        done = f" ({self.what.action})" if self.what.action else ""
        return f"{self.what.object}: {self.what.message}{done}"

    @property
    def before(self) -> Seen:
        """The finding as it was before anything was done about it."""
        return Seen(self.app, self.what.model_copy(update={"action": ""}))


@dataclass
class Border:
    """One outer zone's parts."""

    zone: str
    home: ZoneHome
    profile: Profile
    registry: Registry
    source: Registry
    upstream: FeedClient
    ops: OpsClient | None
    trust: Trust
    signer: FileSigner
    standard: StandardImages
    policies: PolicySet
    vault: FileVault
    kube: Kube
    desk: Desk
    feed: FeedStore
    outbox: Outbox
    _locks: dict[str, asyncio.Lock] = field(default_factory=dict)
    _nudged: bool = False
    _healed: watch.History = field(default_factory=dict)
    _told: dict[Seen, str] = field(default_factory=dict)
    """What the watch told and still sees, and what was done about it."""
    _offers: dict[str, Offer] = field(default_factory=dict)

    @property
    def required(self) -> tuple[Requirement, ...]:
        """Whose word a release needs here."""
        return self.profile.source.require if self.profile.source else ("verifier",)

    @functools.cached_property
    def witness(self) -> WitnessBook:
        """What this zone verified, and when it did so first."""
        return WitnessBook(self.home.state / WITNESS_FILE)

    @asynccontextmanager
    async def exclusive(self, app: str) -> AsyncIterator[None]:
        """Let one run at a time work on an app in this process; the cluster's inventory guards against others."""
        async with self._locks.setdefault(app, asyncio.Lock()):
            yield

    def nudge(self) -> None:
        """Have the feed looked at again at once."""
        self._nudged = True

    def nudged(self) -> bool:
        """Return whether somebody nudged, once."""
        was, self._nudged = self._nudged, False
        return was

    # -- receive -------------------------------------------------------------------------------------------

    def remember(self, offer: Offer) -> None:
        """Keep an offer of the upstream feed."""
        self._offers[offer.release] = offer

    def offer(self, app: str, release: str) -> Offer:
        """Return the offer of a release: of the upstream feed, or of what was deployed here before.

        Raises:
            Refusal: nobody offers it.
            TemporaryError: it is unknown here, and the zone before cannot be asked.
        """
        offer = self._offers.get(release)
        if offer is not None and offer.app == app:
            return offer
        # What was deployed here is known here: going back needs no other zone.
        for item in reversed(self.desk.deployed(app)):
            held = self.desk.plan(item.deployment.plan) if item.deployment.release == release else None
            if held is not None:
                return held.offer
        for offer in self.upstream.offers():
            if (offer.app, offer.release) == (app, release):
                return offer
        raise Refusal("No such release is offered to this zone.", where=f"{app} {release}")

    def receive(self, offer: Offer) -> SealedRelease:
        """Bring an offered release in, verified."""
        stage = ReceiveStage(
            self.source,
            self.registry,
            self.trust,
            self.required,
            workdir=self.home.cache / "receive",
            witness=self.witness,
        )
        return run_stage(stage, offer).value

    # -- bind, harden, plan --------------------------------------------------------------------------------

    def bind(self, sealed: SealedRelease) -> Bound:
        """Bind the release's needs to this zone's services."""
        _, data = load_release(self.registry, sealed.repository, Digest(sealed.digest))
        manifests = Manifests.parse(data, where=sealed.digest)
        services = Services(standard=self.standard, secrets=self.home.secrets)
        return bind(manifests, sealed, self.profile, self.vault, services)

    def harden(self, bound: Bound, sealed: SealedRelease) -> Hardened:
        """Add agents, network rules and Pod Security."""
        return harden(bound, self.profile, self.standard, sealed)

    def plan(self, hardened: Hardened, sealed: SealedRelease) -> tuple[Plan, DryRun]:
        """Say exactly what would be applied."""
        found = read_inventory(self.kube, hardened.namespace)

        def check(objects: Sequence[dict[str, Any]]) -> tuple[Reason, ...]:
            return self.policies.check_objects(objects, namespace=hardened.namespace)

        return plan.plan(hardened, sealed, self.kube, found, profile=self.profile, check=check)

    # -- gate ----------------------------------------------------------------------------------------------

    def gate(self, planned: Plan) -> GateState:
        """Say whether the gate is open for a plan."""
        if self.profile.gate is None:
            raise PermanentError(f"Zone {self.zone} has no gate in its profile.", where=str(self.home.profile))
        return gate.evaluate(
            planned,
            self.profile.gate,
            self.desk.decisions_about(planned),
            self.approvers,
            verify=verify_decision,
            now=int(time.time()),
            spent=self.desk.spent(planned.identity()),
        )

    def spend(self, planned: Plan) -> None:
        """Let the decisions so far about a plan have done their work: the same plan again needs new ones."""
        subject = planned.identity()
        kept = [signed.decision for signed in self.desk.decisions(planned.app)]
        about = [item for item in kept if (item.zone, item.subject) == (self.zone, subject) and item.kind != "rollback"]
        self.desk.spend(subject, [item.nonce for item in about])

    @property
    def approvers(self) -> Any:
        """The file of those who may approve."""
        name = self.profile.gate.approvers if self.profile.gate else "allowed_signers"
        return self.home.trust / name

    def check_decision(self, signed: SignedDecision) -> str:
        """Return who signed a decision, if an approver of this zone did."""
        return verify_decision(signed, self.approvers)

    def rejection(self, planned: Plan) -> str:
        """Return why a person rejected a plan, or ''."""
        digest = planned.identity()
        spent, about = self.desk.spent(digest), ("reject", digest, self.zone)
        for signed in self.desk.decisions(planned.app):
            decision = signed.decision
            if decision.nonce in spent or (decision.kind, decision.subject, decision.zone) != about:
                continue
            try:
                who = self.check_decision(signed)
            except SekishoError:
                continue  # not an approver's word; the gate's state says so
            return f"Rejected by {who}: {decision.reason}"
        return ""

    def still_fits(self, planned: Plan) -> bool:
        """Return whether the cluster is where the plan found it, or already where the plan leads."""
        found = read_inventory(self.kube, planned.namespace)
        if found is not None and found.plan == planned.identity():
            return True
        return (found.applied if found else "") == planned.previous

    # -- apply, verify -------------------------------------------------------------------------------------

    def apply(self, planned: Plan) -> Deployment:
        """Apply a plan."""
        return run_stage(apply.ApplyStage(self.kube, self.vault), planned).value

    def verify(self, planned: Plan) -> Health:
        """Wait until what was applied is healthy and answers."""
        return verify.verify(planned, self.kube, seconds=self.profile.ready_seconds, vault=self.vault)

    def go_back(self, before: Plan, cause: str) -> Health:
        """Apply a plan that was healthy before, and verify it."""
        return verify.rollback(before, self.kube, seconds=self.profile.ready_seconds, vault=self.vault, cause=cause)

    def before(self, planned: Plan) -> Plan | None:
        """Return the plan that was healthy before this one, or None."""
        for item in reversed(self.desk.deployed(planned.app)):
            held = self.desk.plan(item.deployment.plan)
            if held is None or item.deployment.plan == planned.identity():
                continue
            if self.counts(held.plan, held.offer):
                return held.plan
        return None

    def stands_again(self, before: Plan) -> None:
        """Note that the zone went back to a plan: it is watched, and gone back to, from now on."""
        digest = before.identity()
        for item in reversed(self.desk.deployed(before.app)):
            if item.deployment.plan == digest:
                self.desk.add_deployed(before.app, item.model_copy(update={"at": int(time.time())}))
                return

    def vouch(self, offer: Offer, deployment: Deployment) -> None:
        """Sign that the release is healthy here and offer it to the zone behind this one; once a release."""
        if self.feed.offer(offer.release) is not None:
            return
        receipt = Receipt(
            zone=self.zone, app=offer.app, release=offer.release, commit=offer.commit, event=HEALTHY,
            message=deployment.url, at=int(time.time()), body={"plan": deployment.plan},
        )  # fmt: skip
        digest = attach_statement(self.registry, f"releases/{offer.app}", receipt_statement(receipt), self.signer)
        self.feed.append(
            app=offer.app, release=offer.release, summary=offer.summary, commit=offer.commit, receipt=digest
        )

    def bundle(self, release: Digest) -> bytes | None:
        """Return a release's documents for offline verification, or None if it is not offered here."""
        offer = self.feed.offer(release)
        if offer is None:
            return None
        return export_bundle(self._verified(offer, ("verifier",))).canonical()

    def _verified(self, offer: Offer, require: tuple[Requirement, ...]) -> VerifiedRelease:
        """Verify a release that was received here, under the keys that count today for what was seen when it was.

        Raises:
            Refusal: it does not verify any longer.
            TemporaryError: the zone's own registry or trust root cannot be read.
        """
        trust, witnessed = self.trust.current(), self.witness.times()
        return verify_release(self.registry, offer, trust, require, witnessed=witnessed)

    def counts(self, plan: Plan, offer: Offer) -> bool:
        """Return whether a release may still be gone back to: a key that was revoked takes its releases with it."""
        try:
            self._verified(offer, self.required)
        except Refusal as refusal:
            _LOG.warning("%s is not gone back to: %s", plan.release, refusal)
            return False
        return True

    def witness_deployed(self) -> None:
        """Note what was deployed here before the zone kept a book of what it saw."""
        plans = (self.desk.plan(item.deployment.plan) for app in self.desk.apps() for item in self.desk.deployed(app))
        offers = [held.offer for held in plans if held is not None]
        self.witness.catch_up(offers, lambda offer: self._verified(offer, self.required).statements, int(time.time()))

    # -- watch ---------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Put the zone's policies and agents into its cluster; safe to repeat."""
        agents.ensure_policies(self.kube, self.home.policies)
        agents.ensure_agents(self.kube, self._agent_objects())

    def running(self) -> tuple[str, ...]:
        """Return the apps that were deployed here and that nobody works on just now."""
        return tuple(app for app in self.desk.apps() if app not in self._locks or not self._locks[app].locked())

    def needs_a_look(self) -> bool:
        """Return whether something is not as planned that was not told before, or that is to be healed."""
        seen = frozenset(item for app in self.running() for item in self._seen(app))
        # What was put right and goes wrong again is told again.
        self._told = {item: action for item, action in self._told.items() if item in seen}
        return bool(seen) if self.profile.watch.drift == "heal" else bool(seen - self._told.keys())

    def look(self, app: str) -> list[Seen]:
        """Return what is not as planned in an app, put back where the profile says so; under `exclusive`."""
        held = self._newest(app)
        seen = self._seen(app)
        if held is None or not seen or self.profile.watch.drift != "heal":
            return seen
        found = [item.what for item in seen]
        healed = watch.heal(self.kube, held.plan, self.vault, found, self._healed, now=int(time.time()))
        self._healed = healed.history
        return [Seen(app=app, what=item) for item in healed.observations]

    def news(self, seen: Sequence[Seen]) -> list[Seen]:
        """Return what was not told before, and everything that was healed: a lasting finding is told once."""
        fresh = [
            item for item in seen if item.what.action == "healed" or self._told.get(item.before) != item.what.action
        ]
        self._told |= {item.before: item.what.action for item in seen}
        return fresh

    def _newest(self, app: str) -> HeldPlan | None:
        deployed = self.desk.deployed(app)
        return self.desk.plan(deployed[-1].deployment.plan) if deployed else None

    def _seen(self, app: str) -> list[Seen]:
        held = self._newest(app)
        if held is None:
            return []
        try:
            found = watch.look(self.kube, held.plan, self.vault, self._agent_objects())
        except PermanentError as error:
            # One app that cannot be looked at, for example for its damaged inventory, must not hide the others.
            place = f"v1/Namespace//{held.plan.namespace}"
            found = (watch.Observation(kind="drift", object=place, message=f"It cannot be looked at: {error}"[:500]),)
        # While a newer plan is being applied, another one stands there on purpose.
        return [Seen(app=app, what=item) for item in found if item.kind != "superseded"]

    def _agent_objects(self) -> tuple[dict[str, Any], ...]:
        return agents.agent_objects(self.profile, self.standard, self.zone)


def _cluster(profile: Profile, home: ZoneHome) -> Kube:
    """Connect to the zone's cluster: the embedded one, or the one that exists and that the profile names."""
    spec = profile.cluster
    if spec is not None and spec.provider == "kubeconfig":
        return Kube.connect(Path(spec.kubeconfig), spec.context)
    return Kube.connect(home.kubeconfig)


@functools.cache
def border() -> Border:
    """Return the parts of the zone that SEKISHO_ZONE names.

    Raises:
        PermanentError: a key, the trust root, the profile or the policies are missing: the zone does not start.
        Refusal: the profile does not validate.
    """
    zone = Zone(os.environ["SEKISHO_ZONE"])
    home = ZoneHome(zone)
    profile = load_profile(home.profile)
    if profile.source is None:
        raise PermanentError(f"Zone {zone} has no source in its profile: it has nowhere to pull from.")
    signer = FileSigner.load(home.keys / "zone.pem", "zone")
    return Border(
        zone=zone,
        home=home,
        profile=profile,
        registry=Registry(f"http://127.0.0.1:{Port.REGISTRY_WRITE}"),
        source=Registry(profile.source.registry),
        upstream=FeedClient(profile.source.feed),
        ops=OpsClient(f"http://{address(Zone.OPS)}:{Port.OPS}"),
        trust=TrustFile(home.trust / "root.json"),
        signer=signer,
        standard=load_standard(home.policies),
        policies=load_policies(home.policies),
        vault=FileVault(home.vault),
        kube=_cluster(profile, home),
        desk=Desk(home.state / "desk"),
        feed=FeedStore(home.state / "feed.jsonl"),
        outbox=Outbox(home.state / "outbox", signer, zone),
    )
