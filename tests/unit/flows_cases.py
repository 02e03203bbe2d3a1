"""What the tests of the flows share: documents of one app."""

from __future__ import annotations

from typing import Any

from flows.desk import Deployed, HeldPlan
from sekisho.canonical import digest_of
from sekisho.model import Decision, Deployment, DryRun, Offer, Plan, SignedDecision

COMMIT = "c0ffee" + "0" * 34
NOW = 1_800_000_000


def release(name: str) -> str:
    return digest_of(f"release {name}".encode())


def plan(name: str, *, app: str = "shop", previous: str = "", zone: str = "production") -> Plan:
    return Plan(
        app=app,
        zone=zone,
        release=release(name),
        summary=release(f"{name} summary"),
        commit=COMMIT,
        image="i",
        namespace=f"app-{app}",
        objects=(),
        previous=previous,
    )


def offer(name: str, *, app: str = "shop", sequence: int = 1) -> Offer:
    return Offer(
        sequence=sequence, app=app, release=release(name), summary=release(f"{name} summary"), commit=COMMIT
    )  # fmt: skip


def held(name: str, *, app: str = "shop", previous: str = "", rollback: bool = False) -> HeldPlan:
    made = plan(name, app=app, previous=previous)
    dry_run = DryRun(plan=made.identity(), changes=())
    return HeldPlan(plan=made, dry_run=dry_run, offer=offer(name, app=app), rollback=rollback)


def deployed(one: HeldPlan) -> Deployed:
    made = one.plan
    deployment = Deployment(
        app=made.app, zone=made.zone, plan=made.identity(), release=made.release, commit=COMMIT, namespace="n"
    )
    return Deployed(deployment=deployment, at=NOW)


def decision(kind: str, subject: str, nonce: int, **changes: Any) -> SignedDecision:
    fields: dict[str, Any] = {"zone": "production", "app": "shop", "principal": "anna", "issued_at": NOW, **changes}
    made = Decision(kind=kind, subject=subject, nonce=f"{nonce:032x}", **fields)  # type: ignore[arg-type]
    return SignedDecision(decision=made, signature="signed")
