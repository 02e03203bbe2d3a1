"""Health and order: probes, and what `before` makes of a container.

`before: {other: {ready: complete}}` makes an init container; `started` and `healthy` make a native sidecar (an init
container with restartPolicy Always, Kubernetes 1.29 and later), for which `healthy` adds a startup probe.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sekisho.score.source import Problem
from sekisho.score.workload import Container, Workload

_READINESS = {"periodSeconds": 5, "timeoutSeconds": 2, "failureThreshold": 3}
_LIVENESS = {"periodSeconds": 10, "timeoutSeconds": 2, "failureThreshold": 3}
# Two minutes to start, before liveness or the containers that wait lose patience.
_STARTUP = {"periodSeconds": 2, "timeoutSeconds": 2, "failureThreshold": 60}


def probes(workload: Workload, container: Container, problems: list[Problem]) -> dict[str, Any]:
    """Return restartPolicy and probes of a container.

    Args:
        workload: the whole workload.
        container: the container.
        problems: grows by what cannot be rendered.
    """
    ready = set(container.before.values())
    if "complete" in ready:
        if "healthy" in ready:
            message = "A container that runs to its end cannot also be waited for as healthy."
            problems.append(
                workload.problem(f"{container.pointer}/before", message, "Use complete for all, or healthy.")
            )
        if container.liveness or container.readiness:
            message = "A container that runs to its end has no probes."
            problems.append(workload.problem(container.pointer, message, "Remove the probes."))
        return {}
    found: dict[str, Any] = {"restartPolicy": "Always"} if ready else {}
    liveness, readiness = (
        _handler(workload, container, "liveness", problems),
        _handler(workload, container, "readiness", problems),
    )
    startup = (readiness or liveness) if "healthy" in ready else None if ready else liveness
    if "healthy" in ready and startup is None:
        message = "Another container waits until this one is healthy, and it has no probe."
        problems.append(workload.problem(f"{container.pointer}/before", message, "Add a readinessProbe."))
    for name, handler, timing in (
        ("livenessProbe", liveness, _LIVENESS),
        ("readinessProbe", readiness, _READINESS),
        ("startupProbe", startup, _STARTUP),
    ):
        if handler:
            found[name] = {**handler, **timing}
    return found


def _handler(workload: Workload, container: Container, which: str, problems: list[Problem]) -> dict[str, Any] | None:
    probe: Mapping[str, Any] | None = getattr(container, which)
    if probe is None:
        return None
    pointer = f"{container.pointer}/{which}Probe"
    if "exec" in probe:
        # Score: exec is preferred where both are given and supported.
        if not probe["exec"]["command"]:
            problems.append(workload.problem(f"{pointer}/exec/command", "The command is empty.", "Name a program."))
        return {"exec": {"command": list(probe["exec"]["command"])}}
    get = probe["httpGet"]
    path = get["path"] if get["path"].startswith("/") else f"/{get['path']}"
    headers = _headers(workload, get, f"{pointer}/httpGet", problems)
    found: dict[str, Any] = {"path": path, "port": get["port"], "scheme": get.get("scheme", "HTTP")}
    if headers:
        found["httpHeaders"] = headers
    return {"httpGet": found}


def _headers(workload: Workload, get: Mapping[str, Any], pointer: str, problems: list[Problem]) -> list[dict[str, str]]:
    headers = [{"name": header["name"], "value": header["value"]} for header in get.get("httpHeaders", [])]
    unsent = "It holds a line break or a tab, and no probe could be sent."
    for index, header in enumerate(headers):
        here = f"{pointer}/httpHeaders/{index}"
        if "_" in header["name"]:
            message = "Score allows '_' in a header's name, Kubernetes does not."
            problems.append(workload.problem(f"{here}/name", message, "Use '-'."))
        if not header["value"].isprintable():
            problems.append(workload.problem(f"{here}/value", unsent, "Keep it on one line."))
    if "host" not in get:
        return headers
    # As a header only: Kubernetes' own field would let a workload point the node's kubelet anywhere.
    if any(header["name"].lower() == "host" for header in headers):
        message = "The host stands here twice, as host and as a header."
        problems.append(workload.problem(pointer, message, "Keep one of the two."))
    if not get["host"].isprintable():
        problems.append(workload.problem(f"{pointer}/host", unsent, "Keep it on one line."))
    return [*headers, {"name": "Host", "value": get["host"]}]
