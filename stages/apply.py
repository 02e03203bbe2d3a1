"""apply: an open plan goes into the cluster: ordered, server-side, pruned, fenced, and safe to run again.

Rules:
    1. What is applied is the plan, byte for byte; only the data of Secrets comes from the vault, at the last moment,
       and must have the fingerprint that the plan names.
    2. A plan is applied only on what it was planned upon (`previous`); else the cluster has moved on.
    3. The inventory is taken before the first object and given back after the last one; whoever lost it stops.
    4. Only objects that the line made are deleted, and only those that the plan names.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Any

from sekisho.canonical import Digest, digest_of_json
from sekisho.diff import diff
from sekisho.errors import Refusal
from sekisho.inventory import Inventory, finish, hold, read_inventory, take
from sekisho.kube import FIELD_MANAGER, Kube, Ref
from sekisho.model import Deployment, Plan
from sekisho.vault import Vault, fingerprint
from stages.bind.contract import FINGERPRINT, NEED


def apply(plan: Plan, kube: Kube, vault: Vault, *, rollback: bool = False) -> Deployment:
    """Apply a plan whose gate is open.

    Args:
        plan: exactly what was approved.
        kube: the zone's cluster.
        vault: the credentials of the bindings.
        rollback: the plan ran before; it is applied on whatever stands there, and what later plans added is deleted.

    Raises:
        LeaseLost: somebody else applies to this namespace.
        Refusal: the cluster or the credentials are not those of the plan any more.
        TemporaryError: the cluster is not reachable; applying again goes on where this stopped.
    """
    objects = [filled(obj, plan.app, vault) for obj in plan.objects]
    for obj in objects:
        if obj["kind"] == "Namespace":
            kube.apply(obj)
    identity = plan.identity()
    found = read_inventory(kube, plan.namespace)
    if not rollback:
        _still_the_ground(plan, found)
    named = tuple(str(Ref.of(obj)) for obj in objects)
    before = found.objects if found else ()
    prune = tuple(sorted(set(before) - set(named))) if rollback else plan.prune
    wanted = Inventory(
        generation=1,
        plan=identity,
        release=plan.release,
        commit=plan.commit,
        previous=plan.previous,
        prune=plan.prune,
        applied=found.applied if found else "",
        objects=tuple(sorted({*before, *named})),
    )
    claim = take(kube, plan.namespace, wanted, expected=found.generation if found else 0)
    for obj in objects:
        if obj["kind"] != "Namespace":
            hold(kube, plan.namespace, claim.generation)
            kube.apply(obj)
    hold(kube, plan.namespace, claim.generation)
    _prune(kube, prune, plan.namespace)
    kept = tuple(sorted({*before, *named} - set(prune)))
    finish(kube, plan.namespace, claim.model_copy(update={"applied": identity, "objects": kept}))
    return deployment_of(plan, kube)


def find(plan: Plan, kube: Kube, vault: Vault) -> Deployment | None:
    """Return the deployment if this plan stands in the cluster, untouched; changes nothing."""
    if kube.get(Ref("v1", "Namespace", "", plan.namespace)) is None:
        return None
    inventory = read_inventory(kube, plan.namespace)
    if inventory is None or not inventory.plan == inventory.applied == plan.identity():
        return None
    for obj in plan.objects:
        try:
            wanted = filled(obj, plan.app, vault)
        except Refusal:
            return None
        live = kube.get(Ref.of(obj))
        if live is None or diff(live, kube.apply(wanted, dry_run=True)):
            return None
    return deployment_of(plan, kube)


class ApplyStage:
    """The stage for `sekisho.stage.run_stage`."""

    name = "apply"

    def __init__(self, kube: Kube, vault: Vault) -> None:
        self._kube = kube
        self._vault = vault

    def key(self, subject: Plan) -> Digest:
        """Return the plan's digest with the stage's name."""
        return digest_of_json({"stage": self.name, "plan": subject.identity()})

    def find(self, subject: Plan) -> Deployment | None:
        """Return the deployment if the plan stands in the cluster."""
        return find(subject, self._kube, self._vault)

    def perform(self, subject: Plan) -> Deployment:
        """Apply the plan."""
        return apply(subject, self._kube, self._vault)


def filled(obj: Mapping[str, Any], app: str, vault: Vault) -> dict[str, Any]:
    """Return an object as it is sent: a binding's Secret gets its data from the vault.

    Raises:
        Refusal: the vault has no such credentials, or others than the plan was made with.
    """
    annotations = obj["metadata"].get("annotations") or {}
    if obj["kind"] != "Secret" or FINGERPRINT not in annotations:
        return dict(obj)
    need = annotations.get(NEED, "")
    entries = vault.get(app, need)
    if entries is None or fingerprint(vault, entries) != annotations[FINGERPRINT]:
        raise Refusal(
            f"The credentials of need {need!r} are not those that the plan was made with.",
            where=Ref.of(obj).short,
            remedy="Plan again: the new plan has the new fingerprint, and its gate decides anew.",
        )
    return {**obj, "data": {key: base64.b64encode(value.encode()).decode() for key, value in entries.items()}}


def deployment_of(plan: Plan, kube: Kube) -> Deployment:
    """Return the record of a plan that stands in the cluster."""
    return Deployment(
        app=plan.app,
        zone=plan.zone,
        plan=plan.identity(),
        release=plan.release,
        commit=plan.commit,
        namespace=plan.namespace,
        url=route_url(plan, kube),
    )


def route_url(plan: Plan, kube: Kube) -> str:
    """Return `http://<node>:<nodePort>/` of the plan's route; empty without a route or a node."""
    for obj in plan.objects:
        if obj["kind"] != "Service" or obj["spec"].get("type") != "NodePort":
            continue
        live = kube.get(Ref.of(obj)) or {}
        ports = [port["nodePort"] for port in (live.get("spec") or {}).get("ports") or [] if port.get("nodePort")]
        nodes = sorted(_node_addresses(kube))
        if ports and nodes:
            host = f"[{nodes[0]}]" if ":" in nodes[0] else nodes[0]
            return f"http://{host}:{ports[0]}/"
    return ""


def _node_addresses(kube: Kube) -> Iterable[str]:
    for node in kube.list("v1", "Node"):
        for address in (node.get("status") or {}).get("addresses") or []:
            if address.get("type") == "InternalIP":
                yield str(address["address"])


def _still_the_ground(plan: Plan, found: Inventory | None) -> None:
    stands = found.applied if found else ""
    if found is not None and found.plan == plan.identity():
        return  # this plan again: it stands there, or an apply of it was cut off
    if stands != plan.previous:
        raise Refusal(
            f"The plan was made upon {plan.previous[:19] or 'nothing'}, and {stands[:19] or 'nothing'} stands there.",
            where=f"{plan.zone}/{plan.app}",
            remedy="Plan again: what was approved would undo what was applied since.",
        )


def _prune(kube: Kube, names: Iterable[str], namespace: str) -> None:
    failed: list[str] = []
    for text in names:
        ref = Ref.parse(text)
        if ref.kind == "Namespace" or ref.namespace != namespace:
            continue  # an inventory that somebody wrote to must not lead out of the app's namespace
        live = kube.get(ref)
        if live is None or not _ours(live):
            continue
        try:
            kube.delete(ref, uid=live["metadata"]["uid"])
        except Refusal as error:
            failed.append(f"{ref.short}: {error.what}")
    if failed:
        raise Refusal(f"Objects cannot be deleted: {'; '.join(failed)}", where=namespace)


def _ours(live: Mapping[str, Any]) -> bool:
    fields = live["metadata"].get("managedFields") or []
    return any(field.get("manager") == FIELD_MANAGER and field.get("operation") == "Apply" for field in fields)
