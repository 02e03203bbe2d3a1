"""watch: is what runs still what was approved? Drift, missing agents, strangers; healed or reported.

Rules:
    1. A field that the line set and somebody changed is drift; a field that somebody added is drift too, because an
       added container goes around every agent. Who did it stands in the object's managedFields.
    2. What the cluster's own controllers write is expected and never drift.
    3. A running pod has exactly the containers of its workload's template: an agent missing in it is found, however
       the pod came to be.
    4. Healing applies the same plan again. Whoever changes the same object back more than a few times an hour is
       reported and not fought.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from sekisho.diff import diff
from sekisho.errors import Refusal
from sekisho.inventory import read_inventory
from sekisho.kube import FIELD_MANAGER, Conflict, Kube, Ref
from sekisho.model import Document, Plan
from sekisho.owners import shown, strangers, without
from sekisho.vault import Vault
from sekisho.workloads import WORKLOADS, containers_of, pod_template
from stages.apply import filled
from stages.verify.causes import newest_pods

__all__ = ["Healed", "History", "Observation", "heal", "look"]

FIGHT_LIMIT = 3
"""Heals of one object within FIGHT_SECONDS; the next one would be a fight."""
FIGHT_SECONDS = 3600
_FIELDS = 20

History = Mapping[str, tuple[int, ...]]
"""By object: when it was healed, seconds since the epoch. The caller keeps it."""


class Observation(Document):
    """One thing that is not as it was approved."""

    kind: Literal["drift", "missing", "stranger", "pod", "agent", "superseded"]
    """drift: a field of the line's has another value. missing: an object is gone. stranger: somebody added fields.
    pod: a running pod has other containers than its template. agent: a node agent is not there or not ready.
    superseded: another plan stands there than the one looked for."""
    object: str
    """`apiVersion/Kind/namespace/name`."""
    message: str
    fields: tuple[str, ...] = ()
    by: str = ""
    """The field manager who did it, where the cluster knows."""
    action: Literal["", "healed", "contested", "failed"] = ""
    """What heal did about it."""


class Healed(Document):
    """What heal did."""

    observations: tuple[Observation, ...]
    """Those given, with their action."""
    history: dict[str, tuple[int, ...]]
    """To be given to the next heal."""


def look(kube: Kube, plan: Plan, vault: Vault, agents: Sequence[Mapping[str, Any]] = ()) -> tuple[Observation, ...]:
    """Return everything that differs from the plan and from the zone's node agents; changes nothing.

    Args:
        kube: the zone's cluster.
        plan: what was applied last.
        vault: the credentials of the bindings.
        agents: the objects of `stages.agents.agent_objects`.

    Raises:
        TemporaryError: the cluster is not reachable.
    """
    found: list[Observation] = []
    inventory = read_inventory(kube, plan.namespace)
    if inventory is not None and inventory.plan != plan.identity():
        text = f"plan {inventory.plan[:19]} stands there, not {plan.identity()[:19]}"
        return (Observation(kind="superseded", object=f"v1/Namespace//{plan.namespace}", message=text),)
    alive: list[dict[str, Any]] = []
    for obj in plan.objects:
        live = kube.get(Ref.of(obj))
        if live is None:
            found.append(_observe(obj, "missing", "It is gone."))
            continue
        alive.append(live)
        try:
            wanted = filled(obj, plan.app, vault)
            found += _drift(kube, wanted, live)
        except Refusal as error:
            found.append(_observe(obj, "drift", f"It cannot be compared: {error.what}"))
            continue
        found += _added(wanted, live)
    found += _pods(kube, plan, alive)
    found += _agents(kube, agents)
    return tuple(found)


def heal(
    kube: Kube, plan: Plan, vault: Vault, observations: Sequence[Observation], history: History, *, now: int
) -> Healed:
    """Put back what `look` found, as far as applying the plan again does; for zones whose profile says so.

    Args:
        kube: the zone's cluster.
        plan: what was applied last.
        vault: the credentials of the bindings.
        observations: of `look`.
        history: of the last heal; empty at first.
        now: seconds since the epoch.

    Raises:
        TemporaryError: the cluster is not reachable.
    """
    kept = {name: tuple(at for at in times if at > now - FIGHT_SECONDS) for name, times in history.items()}
    planned = {str(Ref.of(obj)): obj for obj in plan.objects}
    done: dict[str, Literal["healed", "contested", "failed"]] = {}
    for name in dict.fromkeys(item.object for item in observations if item.kind not in {"agent", "superseded"}):
        ref = Ref.parse(name)
        # A bare pod comes back from its controller under another name; the fight is with whoever makes them.
        fight = f"{ref.api_version}/Pod/{ref.namespace}/" if ref.kind == "Pod" else name
        if len(kept.get(fight, ())) >= FIGHT_LIMIT:
            done[name] = "contested"
            continue
        done[name] = _put_back(kube, planned.get(name), ref, plan, vault)
        if done[name] == "healed":
            kept[fight] = (*kept.get(fight, ()), now)
    return Healed(
        observations=tuple(item.model_copy(update={"action": done.get(item.object, "")}) for item in observations),
        history={name: times for name, times in kept.items() if times},
    )


def _put_back(
    kube: Kube, obj: Mapping[str, Any] | None, ref: Ref, plan: Plan, vault: Vault
) -> Literal["healed", "failed"]:
    try:
        if obj is None:
            live = kube.get(ref)
            if ref.kind == "Pod" and live is not None and live["metadata"].get("ownerReferences"):
                kube.delete(ref, uid=live["metadata"]["uid"])
                return "healed"
            return "failed"  # nothing makes it anew, so nothing of it is deleted
        applied = kube.apply(filled(obj, plan.app, vault))
        others = strangers(applied, filled(obj, plan.app, vault))
        if others:
            paths = tuple(path for _, held in others for path in held)
            kube.replace(without(applied, paths))
            kube.apply(filled(obj, plan.app, vault))
    except (Refusal, Conflict):
        return "failed"
    return "healed"


def _drift(kube: Kube, wanted: Mapping[str, Any], live: Mapping[str, Any]) -> list[Observation]:
    changes = diff(live, kube.apply(wanted, dry_run=True))
    if not changes:
        return []
    fields = tuple(str(change) for change in changes)
    return [_observe(live, "drift", f"{len(fields)} fields differ.", fields=fields[:_FIELDS], by=_last_writer(live))]


def _added(wanted: Mapping[str, Any], live: Mapping[str, Any]) -> list[Observation]:
    return [
        _observe(
            live,
            "stranger",
            f"{manager or 'somebody'} added {len(paths)} fields.",
            fields=tuple(shown(path) for path in paths[:_FIELDS]),
            by=manager,
        )
        for manager, paths in strangers(live, wanted)
        if not _harmless(live, paths)
    ]


def _harmless(live: Mapping[str, Any], paths: Sequence[Any]) -> bool:
    """Return whether only a restart was asked for, or the namespace's own finalizers and labels are meant."""
    restart = "kubectl.kubernetes.io/restartedAt"
    return all(("f", restart) in path for path in paths) or (
        live["kind"] == "ServiceAccount" and all(path[0][1] != "automountServiceAccountToken" for path in paths)
    )


def _pods(kube: Kube, plan: Plan, alive: Sequence[Mapping[str, Any]]) -> list[Observation]:
    pods = kube.list("v1", "Pod", plan.namespace)
    sets = (*kube.list("apps/v1", "ReplicaSet", plan.namespace), *_runs(kube, plan, alive))
    templates = {Ref.of(obj): pod_template(obj) or {} for obj in plan.objects if obj["kind"] in WORKLOADS}
    accounted: set[str] = set()
    found: list[Observation] = []
    for live in alive:
        template = templates.get(Ref.of(live))
        if template is None:
            continue
        for pod in newest_pods(live, sets, pods):
            accounted.add(pod["metadata"]["name"])
            found += _containers(pod, template)
    owners = {item["metadata"]["uid"] for item in sets} | {item["metadata"]["uid"] for item in alive}
    for pod in pods:
        metadata = pod["metadata"]
        if metadata["name"] in accounted or metadata.get("deletionTimestamp"):
            continue
        if (pod.get("status") or {}).get("phase") in {"Succeeded", "Failed"}:
            continue
        if not any(owner.get("uid") in owners for owner in metadata.get("ownerReferences") or []):
            found.append(_observe(pod, "pod", "No workload of the plan made this pod.", by=_last_writer(pod)))
    return found


def _runs(kube: Kube, plan: Plan, alive: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    """Return the Jobs that the plan's CronJobs made."""
    makers = {item["metadata"]["uid"] for item in alive if item.get("kind") == "CronJob"}
    if not makers:
        return ()
    jobs = kube.list("batch/v1", "Job", plan.namespace)
    return tuple(
        job for job in jobs if any(owner.get("uid") in makers for owner in job["metadata"].get("ownerReferences") or [])
    )


def _containers(pod: Mapping[str, Any], template: Mapping[str, Any]) -> list[Observation]:
    has = {(field, item["name"]): item.get("image") for field, _, item in containers_of(pod["spec"])}
    wants = {(field, item["name"]): item.get("image") for field, _, item in containers_of(template.get("spec") or {})}
    missing = [name for (field, name) in wants if (field, name) not in has]
    extra = [name for (field, name) in has if (field, name) not in wants]
    other = [name for (field, name), image in wants.items() if has.get((field, name), image) != image]
    parts = [
        f"{word} {', '.join(sorted(names))}"
        for word, names in (("without", missing), ("with a foreign", extra), ("with another image of", other))
        if names
    ]
    return [_observe(pod, "pod", f"It runs {' and '.join(parts)}.", by=_last_writer(pod))] if parts else []


def _agents(kube: Kube, agents: Sequence[Mapping[str, Any]]) -> list[Observation]:
    found: list[Observation] = []
    for obj in agents:
        if obj["kind"] != "DaemonSet":
            continue
        live = kube.get(Ref.of(obj))
        if live is None:
            found.append(_observe(obj, "agent", "The node agent is not there."))
            continue
        status = live.get("status") or {}
        wanted, ready = status.get("desiredNumberScheduled", 0), status.get("numberReady", 0)
        if ready < wanted or not wanted:
            found.append(_observe(obj, "agent", f"The node agent is ready on {ready} of {wanted} nodes."))
        changes = diff(live, kube.apply(obj, dry_run=True))
        if changes:
            fields = tuple(str(change) for change in changes[:_FIELDS])
            text = f"{len(changes)} fields of the node agent differ."
            found.append(_observe(obj, "agent", text, fields=fields, by=_last_writer(live)))
    return found


def _observe(
    obj: Mapping[str, Any],
    kind: Literal["drift", "missing", "stranger", "pod", "agent"],
    message: str,
    *,
    fields: tuple[str, ...] = (),
    by: str = "",
) -> Observation:
    return Observation(kind=kind, object=str(Ref.of(obj)), message=message[:500], fields=fields, by=by)


def _last_writer(live: Mapping[str, Any]) -> str:
    entries = [
        entry
        for entry in live["metadata"].get("managedFields") or []
        if entry.get("manager") != FIELD_MANAGER and not entry.get("subresource")
    ]
    entries.sort(key=lambda entry: str(entry.get("time", "")))
    return str(entries[-1].get("manager", ""))[:128] if entries else ""
