"""Which pod runs which version, and how it fares, read from the pods as the cluster shows them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from stages.verify.causes import pod_causes

State = Literal["starting", "started", "ready", "crashed", "stuck"]


@dataclass(frozen=True)
class Fate:
    """How one version fares in one pod."""

    pod: str
    state: State
    why: str = ""
    """Of a crash or an obstacle, one sentence."""


@dataclass(frozen=True)
class Log:
    """One run of one container, whose words can be followed."""

    pod: str
    container: str
    run: str
    """The runtime's id of the container: another one after each start."""
    ended: bool


def carries(pod: Mapping[str, Any], image: str) -> bool:
    """Tell whether a pod is meant to run an image, and is not on its way out."""
    containers = pod["spec"].get("containers") or []
    return not pod["metadata"].get("deletionTimestamp") and any(item["image"] == image for item in containers)


def fate(pod: Mapping[str, Any], image: str) -> Fate:
    """Return how an image fares in a pod that is meant to run it.

    What a container's status says counts only when it is about this image: after a swap, the status is that of the
    image before for a moment.
    """
    name = str(pod["metadata"]["name"])
    digest = image.rpartition("@")[2]
    wanted = {item["name"] for item in pod["spec"]["containers"] if item["image"] == image}
    statuses = [item for item in (pod.get("status") or {}).get("containerStatuses") or [] if item["name"] in wanted]
    ours = [item for item in statuses if digest in str(item.get("imageID", ""))]
    for status in ours:
        state = status.get("state") or {}
        if ended := state.get("terminated"):
            return Fate(name, "crashed", _ending(ended))
        if (state.get("waiting") or {}).get("reason") == "CrashLoopBackOff":
            return Fate(name, "crashed", _ending((status.get("lastState") or {}).get("terminated") or {}))
    for cause in pod_causes([pod]):
        if not cause.crashed:
            return Fate(name, "stuck", cause.text)
    running = [item for item in ours if "running" in (item.get("state") or {})]
    if len(running) < len(wanted):
        return Fate(name, "starting")
    return Fate(name, "ready" if all(item.get("ready") for item in running) else "started")


def logs(pods: Iterable[Mapping[str, Any]]) -> tuple[Log, ...]:
    """Return every run of every container that has words to follow."""
    found = []
    for pod in pods:
        status = pod.get("status") or {}
        for item in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
            state = item.get("state") or {}
            last = (item.get("lastState") or {}).get("terminated") or {}
            run = (state.get("terminated") or {}).get("containerID") or item.get("containerID", "")
            if "running" in state and item.get("containerID"):
                found.append(Log(pod["metadata"]["name"], item["name"], item["containerID"], ended=False))
            elif run and (state.get("terminated") or run == last.get("containerID")):
                found.append(Log(pod["metadata"]["name"], item["name"], run, ended=True))
    return tuple(found)


def _ending(ended: Mapping[str, Any]) -> str:
    """Return one sentence about how a container ended."""
    code = ended.get("exitCode", "?")
    if ended.get("reason") == "OOMKilled":
        return "It used more memory than score.yaml allows (resources.limits.memory), and was killed."
    said = " ".join(str(ended.get("message") or "").split())[:300]
    return f"It ended with exit code {code}{f': {said}' if said else ''}."
