"""What keeps a workload from being healthy, read from the status of its objects. Pure.

Terminal causes are named at once instead of waited for: an image that cannot be pulled, a crash loop, a pod that fits
on no node, a quota. Each has a grace, because a cause can pass: a cause ends the wait only when it stays that long.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sekisho.refs import Ref

_IMAGE = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"}
_CONTAINER = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
_CRASHES = 2
"""Restarts after which a crash loop is one; a workload may fall over once while its database starts."""
_MESSAGE = 300


@dataclass(frozen=True)
class Cause:
    """One thing that is wrong, with the seconds for which it may last."""

    text: str
    grace: float
    pod: str = ""
    container: str = ""
    crashed: bool = False


def readiness(live: Mapping[str, Any]) -> tuple[bool, str]:
    """Return whether an object does what it should, and one line about it for people."""
    kind, short = live.get("kind"), Ref.of(live).short
    spec, status = live.get("spec") or {}, live.get("status") or {}
    if kind == "Deployment":
        wanted = spec.get("replicas", 1)
        current = observed(live)
        counts = (status.get("updatedReplicas", 0), status.get("availableReplicas", 0), status.get("replicas", 0))
        return current and counts == (wanted, wanted, wanted), f"{short}: {min(counts[:2])} of {wanted} available"
    if kind == "StatefulSet":
        wanted = spec.get("replicas", 1)
        current = observed(live)
        rolled = status.get("updateRevision", "") == status.get("currentRevision", "") or (
            status.get("updatedReplicas", 0) == wanted
        )
        ready = status.get("readyReplicas", 0)
        return current and rolled and ready == wanted, f"{short}: {ready} of {wanted} ready"
    if kind == "Job":
        done = any(_true(item, "Complete") for item in status.get("conditions") or [])
        return done, f"{short}: {'complete' if done else 'running'}"
    if kind == "PersistentVolumeClaim":
        # A claim of a class that waits for its first consumer is bound with the pod, whose own state tells then.
        return status.get("phase") != "Lost", f"{short}: {status.get('phase', 'unknown')}"
    return True, f"{short}: there"


def observed(live: Mapping[str, Any]) -> bool:
    """Return whether the controller of a workload has seen its newest spec; until then all is about an older one."""
    if live.get("kind") not in {"Deployment", "StatefulSet"}:
        return True
    status = live.get("status") or {}
    return bool(status.get("observedGeneration", 0) >= live["metadata"].get("generation", 0))


def workload_cause(live: Mapping[str, Any]) -> Cause | None:
    """Return what an object itself says is wrong."""
    short = Ref.of(live).short
    for condition in (live.get("status") or {}).get("conditions") or []:
        message = _clean(condition.get("message", ""))
        if _true(condition, "ReplicaFailure"):
            return Cause(f"{short}: pods cannot be created: {message}", grace=3.0)
        if condition.get("type") == "Progressing" and condition.get("reason") == "ProgressDeadlineExceeded":
            return Cause(f"{short}: {message}", grace=0.0)
        if live.get("kind") == "Job" and _true(condition, "Failed"):
            return Cause(f"{short}: failed: {message}", grace=0.0)
    return None


def pod_causes(pods: Iterable[Mapping[str, Any]]) -> tuple[Cause, ...]:
    """Return what is wrong with pods."""
    return tuple(cause for pod in pods for cause in _of_pod(pod))


def newest_pods(
    live: Mapping[str, Any], replica_sets: Sequence[Mapping[str, Any]], pods: Sequence[Mapping[str, Any]]
) -> tuple[Mapping[str, Any], ...]:
    """Return the pods of a workload's newest revision; those of the one before it are on their way out.

    Args:
        live: the workload.
        replica_sets: of the namespace, for a Deployment; and its Jobs, for a CronJob.
        pods: of the namespace.
    """
    uid = live["metadata"].get("uid", "")
    kept = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
    if live.get("kind") == "Deployment":
        mark = "deployment.kubernetes.io/revision"
        revision = (live["metadata"].get("annotations") or {}).get(mark)
        sets = {
            item["metadata"].get("uid")
            for item in replica_sets
            if _owned(item, uid) and (item["metadata"].get("annotations") or {}).get(mark) == revision
        }
        return tuple(pod for pod in kept if any(_owned(pod, owner) for owner in sets))
    if live.get("kind") == "CronJob":
        # A run that began before the last change ends as it began; who makes objects cannot choose their time.
        changed = _changed(live)
        runs = {
            item["metadata"].get("uid")
            for item in replica_sets
            if _owned(item, uid) and item["metadata"].get("creationTimestamp", "") > changed
        }
        return tuple(pod for pod in kept if any(_owned(pod, owner) for owner in runs))
    own = [pod for pod in kept if _owned(pod, uid)]
    update = (live.get("status") or {}).get("updateRevision")
    if live.get("kind") == "StatefulSet" and update:
        return tuple(
            pod for pod in own if (pod["metadata"].get("labels") or {}).get("controller-revision-hash") == update
        )
    return tuple(own)


def event_causes(live: Mapping[str, Any], events: Iterable[Mapping[str, Any]]) -> tuple[Cause, ...]:
    """Return what the events of a workload say; a StatefulSet tells only there that its pods are refused."""
    uid = live["metadata"].get("uid")
    return tuple(
        Cause(f"{Ref.of(live).short}: pods cannot be created: {_clean(event.get('message', ''))}", grace=5.0)
        for event in events
        if event.get("reason") == "FailedCreate" and (event.get("involvedObject") or {}).get("uid") == uid
    )


def last_words(pods: Sequence[Mapping[str, Any]], events: Iterable[Mapping[str, Any]]) -> str:
    """Return the newest warning about any of the pods: what a probe said, for example."""
    uids = {pod["metadata"].get("uid") for pod in pods}
    warnings = [
        event
        for event in events
        if event.get("type") == "Warning" and (event.get("involvedObject") or {}).get("uid") in uids
    ]
    warnings.sort(key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""))
    return _clean(warnings[-1].get("message", "")) if warnings else ""


def _of_pod(pod: Mapping[str, Any]) -> Iterable[Cause]:
    name = pod["metadata"]["name"]
    status = pod.get("status") or {}
    for condition in status.get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            yield Cause(f"Pod/{name} fits on no node: {_clean(condition.get('message', ''))}", grace=10.0, pod=name)
    if status.get("phase") == "Failed" and status.get("reason"):
        yield Cause(
            f"Pod/{name}: {_clean(status['reason'])}: {_clean(status.get('message', ''))}", grace=10.0, pod=name
        )
    for field in ("initContainerStatuses", "containerStatuses"):
        for container in status.get(field) or []:
            waiting = (container.get("state") or {}).get("waiting") or {}
            reason, inside = waiting.get("reason", ""), container.get("name", "")
            message = _clean(waiting.get("message", ""))
            if reason in _IMAGE:
                text = f"Pod/{name}: the image of {inside} cannot be pulled: {message or reason}"
                # The runtime counts its own back-off in the message; the cause is the same one all along.
                yield Cause(text, grace=5.0, pod=name, container=inside)
            elif reason in _CONTAINER:
                text = f"Pod/{name}: {inside} cannot be started: {message or reason}"
                yield Cause(text, grace=5.0, pod=name, container=inside)
            elif reason == "CrashLoopBackOff" and container.get("restartCount", 0) >= _CRASHES:
                ended = (container.get("lastState") or {}).get("terminated") or {}
                why = f"exit code {ended.get('exitCode', '?')}"
                why += ", out of memory" if ended.get("reason") == "OOMKilled" else ""
                # What keeps a program from starting at all, for example that its file may not be executed.
                why += f", {said}" if (said := _clean(ended.get("message", ""))) else ""
                text = f"Pod/{name}: {inside} crashes again and again ({why})"
                yield Cause(text, grace=0.0, pod=name, container=inside, crashed=True)


def _owned(obj: Mapping[str, Any], uid: Any) -> bool:
    return any(owner.get("uid") == uid for owner in obj["metadata"].get("ownerReferences") or [])


def _changed(live: Mapping[str, Any]) -> str:
    """Return when the spec of an object was last written; its status is written by controllers at any time."""
    metadata = live["metadata"]
    times = [
        field.get("time", "") for field in metadata.get("managedFields") or [] if field.get("subresource") != "status"
    ]
    return str(max([metadata.get("creationTimestamp", ""), *times]))


def _true(condition: Mapping[str, Any], name: str) -> bool:
    return condition.get("type") == name and condition.get("status") == "True"


def _clean(text: Any) -> str:
    return re.sub(r"\s+", " ", "".join(c if c.isprintable() else " " for c in str(text))).strip()[:_MESSAGE]
