"""What an outer zone has in hand: plans that wait, decisions, outcomes, and what was deployed.

Files of canonical JSON, written to the disk before anything is done with them, so that a process that is killed goes
on where it stood. The truth about what runs is the inventory in the cluster; this is the zone's memory beside it.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import Field

from flows.files import write_durably
from sekisho.canonical import Digest, digest_of_json, hex_of
from sekisho.model import DIGEST_PATTERN, Deployment, Document, DryRun, Offer, Plan, SignedDecision

Outcome = Literal["healthy", "failed", "refused", "rejected", "superseded"]
D = TypeVar("D", bound=Document)


class HeldPlan(Document):
    """A plan with what people see beside it."""

    plan: Plan
    dry_run: DryRun
    offer: Offer
    rollback: bool = False
    """Made on a person's request to go back; the newest offer does not replace it."""


class Ended(Document):
    """How a release ended in this zone."""

    app: str
    release: str
    outcome: Outcome
    why: str = ""


class Deployed(Document):
    """One deployment that was found healthy."""

    deployment: Deployment
    at: int


class Deployments(Document):
    """An app's healthy deployments, oldest first."""

    app: str
    items: tuple[Deployed, ...] = ()


class _Hold(Document):
    plan: str
    failed: str = ""
    """Why the plan failed; it is held on until the zone has gone back."""


class _Spent(Document):
    subject: str = Field(pattern=DIGEST_PATTERN)
    nonce: str = Field(pattern=r"^[0-9a-f]{32}$")


class Desk:
    """The zone's memory, under one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    # -- plans ---------------------------------------------------------------------------------------------

    def put_plan(self, held: HeldPlan) -> Digest:
        """Keep a plan and make it the one that waits for its app; return its digest."""
        digest = held.plan.identity()
        self._write(self._folder / "plans" / f"{hex_of(digest)}.json", held)
        self._write(self._folder / "held" / f"{held.plan.app}.json", _Hold(plan=digest))
        return digest

    def plan(self, digest: str) -> HeldPlan | None:
        """Return a kept plan, or None."""
        return self._read(self._folder / "plans" / f"{hex_of(digest)}.json", HeldPlan)

    def held(self, app: str) -> HeldPlan | None:
        """Return the plan that waits for an app, or None."""
        hold = self._hold(app)
        return self.plan(hold.plan) if hold else None

    def all_held(self) -> tuple[HeldPlan, ...]:
        """Return every plan that waits."""
        names = sorted(path.stem for path in (self._folder / "held").glob("*.json"))
        return tuple(held for name in names if (held := self.held(name)) is not None)

    def fail(self, app: str, cause: str) -> None:
        """Say that the plan that is held failed: whatever is killed now, the zone goes back before anything else."""
        hold = self._hold(app)
        if hold is not None:
            self._write(self._folder / "held" / f"{app}.json", hold.model_copy(update={"failed": cause or "failed"}))

    def failed(self, app: str) -> str:
        """Return why the held plan failed, or '' where none is held or it has not failed."""
        hold = self._hold(app)
        return hold.failed if hold else ""

    def let_go(self, app: str) -> None:
        """Nothing waits for the app any more."""
        (self._folder / "held" / f"{app}.json").unlink(missing_ok=True)

    # -- decisions -----------------------------------------------------------------------------------------

    def put_decision(self, signed: SignedDecision) -> bool:
        """Keep a decision as it came; False when it was there. Whether it counts is the gate's business.

        A rollback is work to do: it is pending until `settle`, whatever is killed in between.
        """
        path = self._decision("decisions", signed)
        if path.exists():
            return False
        if signed.decision.kind == "rollback":
            self._write(self._decision("pending", signed), signed)
        self._write(path, signed)
        return True

    def pending(self) -> tuple[SignedDecision, ...]:
        """Return the rollbacks that nobody has dealt with yet, the oldest decision first."""
        found = (self._read(path, SignedDecision) for path in (self._folder / "pending").glob("*.json"))
        kept = [signed for signed in found if signed is not None]
        return tuple(sorted(kept, key=lambda signed: (signed.decision.issued_at, signed.decision.nonce)))

    def settle(self, signed: SignedDecision) -> None:
        """A rollback is dealt with."""
        self._decision("pending", signed).unlink(missing_ok=True)

    def spend(self, subject: str, nonces: Collection[str]) -> None:
        """Note decisions about a plan or release that did their work: they count no more, however they are signed."""
        for nonce in nonces:
            spent = _Spent(subject=subject, nonce=nonce)
            self._write(self._folder / "spent" / hex_of(subject) / f"{nonce}.json", spent)

    def spent(self, subject: str) -> frozenset[str]:
        """Return the nonces of decisions about a plan or release that did their work."""
        return frozenset(path.stem for path in (self._folder / "spent" / hex_of(subject)).glob("*.json"))

    def decisions(self, app: str) -> tuple[SignedDecision, ...]:
        """Return the kept decisions about an app."""
        paths = sorted((self._folder / "decisions").glob("*.json"))
        found = (self._read(path, SignedDecision) for path in paths)
        return tuple(signed for signed in found if signed is not None and signed.decision.app == app)

    def decisions_about(self, plan: Plan) -> tuple[SignedDecision, ...]:
        """Return the decisions that a plan's gate should weigh: those about it, and those that came since it waits.

        A decision about another plan that came since is told to people as one that does not count; older ones were.
        """
        digest = plan.identity()
        path = self._folder / "plans" / f"{hex_of(digest)}.json"
        since = path.stat().st_mtime if path.exists() else 0.0
        return tuple(
            signed
            for signed in self.decisions(plan.app)
            if signed.decision.subject == digest or signed.decision.issued_at >= since
        )

    # -- outcomes ------------------------------------------------------------------------------------------

    def end(self, ended: Ended) -> None:
        """Say how a release ended here."""
        self._write(self._folder / "outcomes" / f"{hex_of(ended.release)}.json", ended)

    def outcome(self, release: str) -> Ended | None:
        """Return how a release ended here, or None while it has not."""
        return self._read(self._folder / "outcomes" / f"{hex_of(release)}.json", Ended)

    def add_deployed(self, app: str, deployed: Deployed) -> None:
        """Append a healthy deployment to the app's history; the same plan twice in a row is one."""
        items = self.deployed(app)
        if items and items[-1].deployment.plan == deployed.deployment.plan:
            return
        self._write(self._folder / "deployed" / f"{app}.json", Deployments(app=app, items=(*items, deployed)))

    def deployed(self, app: str) -> tuple[Deployed, ...]:
        """Return the app's healthy deployments, oldest first."""
        history = self._read(self._folder / "deployed" / f"{app}.json", Deployments)
        return history.items if history else ()

    def apps(self) -> tuple[str, ...]:
        """Return the apps that were ever deployed here."""
        return tuple(sorted(path.stem for path in (self._folder / "deployed").glob("*.json")))

    # -- files ---------------------------------------------------------------------------------------------

    def _hold(self, app: str) -> _Hold | None:
        return self._read(self._folder / "held" / f"{app}.json", _Hold)

    def _decision(self, folder: str, signed: SignedDecision) -> Path:
        return self._folder / folder / f"{hex_of(digest_of_json(signed.model_dump(mode='json')))}.json"

    def _write(self, path: Path, document: Document) -> None:
        write_durably(path, document.canonical())

    def _read(self, path: Path, kind: type[D]) -> D | None:
        if not path.is_file():
            return None
        return kind.parse(path.read_bytes(), where=str(path))
