"""plan: exactly what will be applied, and a server-side dry run of it. Changes nothing in the cluster.

Rules:
    1. An empty plan, or one that deletes more than the profile's budget, is refused.
    2. The admission policies are evaluated on the final objects; one NO refuses the plan.
    3. The API server itself checks every object. Where the app's namespace does not exist yet, its objects are
       checked as new ones in `default`, under another name; a dry run leaves nothing there.
    4. The same inputs give the same plan, so that an approval stays valid while nothing has changed; planning again
       what already stands there gives the plan that put it there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sekisho.diff import diff
from sekisho.errors import PermanentError, Refusal
from sekisho.inventory import Inventory
from sekisho.kube import Kube, Ref
from sekisho.model import Change, DryRun, Hardened, Plan, Reason, SealedRelease
from sekisho.profile import Profile
from sekisho.refs import apply_order
from sekisho.workloads import WORKLOADS, pod_template
from stages.bind.simple import SMOKE_PATH

Check = Callable[[Sequence[dict[str, Any]]], tuple[Reason, ...]]
"""Evaluates the admission policies in force on the final objects (`PolicySet.check_objects` for their namespace)."""

_KEPT = {"Namespace"}
"""Kinds that no plan deletes: with a namespace goes everything, also what the line did not make."""


def plan(
    hardened: Hardened,
    sealed: SealedRelease,
    kube: Kube,
    inventory: Inventory | None,
    *,
    profile: Profile,
    check: Check,
) -> tuple[Plan, DryRun]:
    """Return the plan for hardened objects, with the diff of its dry run.

    Args:
        hardened: the final objects.
        sealed: the release that they come from.
        kube: the zone's cluster; only read and asked.
        inventory: of the app's namespace, or None before the first apply.
        profile: the zone's profile.
        check: the admission policies.

    Raises:
        Refusal: by a rule above; says which objects and why.
        TemporaryError: the cluster is not reachable.
    """
    made = make_plan(hardened, sealed, inventory, budget=profile.deletion_budget)
    failed = [reason for reason in check(made.objects) if reason.result == "fail"]
    if failed:
        listed = "; ".join(f"{reason.rule}: {reason.message}" for reason in failed[:10])
        raise Refusal(
            f"The admission policies refuse the plan: {listed}",
            where=f"{made.zone}/{made.app}",
            remedy=next((reason.remedy for reason in failed if reason.remedy), ""),
        )
    return made, dry_run(made, kube, hardened)


def make_plan(hardened: Hardened, sealed: SealedRelease, inventory: Inventory | None, *, budget: int) -> Plan:
    """Return the plan; pure.

    Raises:
        Refusal: nothing to apply, or too much to delete.
    """
    where = f"{hardened.zone}/{hardened.app}"
    if hardened.release != sealed.digest:
        raise Refusal("The hardened objects are of another release.", where=where)
    if not any(obj.get("kind") in WORKLOADS for obj in hardened.objects):
        raise Refusal(
            "The plan is empty: no workload would be left.",
            where=where,
            remedy="A release without a workload is not deployed; to take an app away, delete its namespace.",
        )
    objects = apply_order(hardened.objects)
    named = {str(Ref.of(obj)) for obj in objects}
    gone = sorted(set(inventory.objects if inventory else ()) - named)
    prune = tuple(text for text in gone if Ref.parse(text).kind not in _KEPT)
    body: dict[str, Any] = {
        "app": hardened.app,
        "zone": hardened.zone,
        "release": sealed.digest,
        "summary": sealed.summary,
        "commit": sealed.release.revision.commit,
        "image": sealed.release.image.reference,
        "namespace": hardened.namespace,
        "objects": objects,
        "smoke": smoke_paths(objects),
    }
    if inventory is not None:
        # What stands there was planned before it stood there: with its own `previous` and `prune` it is the same plan.
        standing = Plan(**body, prune=inventory.prune, previous=inventory.previous)
        if standing.identity() == inventory.plan:
            return standing
    if len(prune) > budget:
        raise Refusal(
            f"The plan would delete {len(prune)} objects, and zone {hardened.zone} allows {budget} at once: "
            f"{', '.join(Ref.parse(text).short for text in prune[:10])}.",
            where=where,
            remedy="Remove them in smaller steps, or have the platform team raise deletion_budget in the profile.",
        )
    return Plan(**body, prune=prune, previous=inventory.applied if inventory else "")


def smoke_paths(objects: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the HTTP paths that must answer below 400: the route's, and those of the workload's own probes."""
    routes = [obj for obj in objects if obj["kind"] == "Service" and obj["spec"].get("type") == "NodePort"]
    paths = {obj["metadata"].get("annotations", {}).get(SMOKE_PATH) for obj in routes} - {None}
    if any(obj["kind"] == "Service" for obj in objects):
        for obj in objects:
            spec = (pod_template(obj) or {}).get("spec") or {}
            for container in spec.get("containers") or []:
                probe = ((container.get("readinessProbe") or {}).get("httpGet") or {}).get("path")
                paths |= {probe} if probe else set()
    if routes and not paths:
        paths = {"/"}
    return tuple(sorted(str(path) for path in paths))


def dry_run(made: Plan, kube: Kube, hardened: Hardened) -> DryRun:
    """Return what applying the plan would change, from the API server's own dry run.

    Raises:
        Refusal: the API server refuses objects; names all of them.
    """
    exists = kube.get(Ref("v1", "Namespace", "", made.namespace)) is not None
    changes: list[Change] = []
    refused: list[str] = []
    for obj in made.objects:
        try:
            changes.append(_change(obj, kube, exists=exists))
        except PermanentError as error:
            refused.append(f"{Ref.of(obj).short}: {error.what}")
    if refused:
        raise Refusal(
            f"The cluster refuses {len(refused)} of {len(made.objects)} objects: {'; '.join(refused)}",
            where=f"{made.zone}/{made.app}",
            remedy="Nothing was applied. Mend score.yaml, or the zone's profile and policies.",
        )
    for text in made.prune:
        ref = Ref.parse(text)
        if kube.get(ref) is not None:
            changes.append(Change(object=ref.short, action="delete"))
    return DryRun(plan=made.identity(), changes=tuple(changes), explained=hardened.explained)


def _change(obj: Mapping[str, Any], kube: Kube, *, exists: bool) -> Change:
    ref = Ref.of(obj)
    if not exists and ref.namespace:
        metadata = {key: value for key, value in obj["metadata"].items() if key not in {"name", "namespace"}}
        stranger = {**metadata, "namespace": "default", "generateName": f"{ref.name[:40]}-"}
        kube.create({**obj, "metadata": stranger}, dry_run=True)
        return Change(object=ref.short, action="create")
    live = kube.get(ref)
    merged = kube.apply(obj, dry_run=True)
    if live is None:
        return Change(object=ref.short, action="create")
    if ref.kind == "Secret":
        # The plan has no data, so that the dry run would show it as taken away; the fingerprint shows a change.
        live, merged = ({key: value for key, value in side.items() if key != "data"} for side in (live, merged))
    fields = tuple(str(change) for change in diff(live, merged))
    return Change(object=ref.short, action="update" if fields else "none", fields=fields)
