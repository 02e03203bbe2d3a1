"""Security agents beside a workload: native sidecars (init containers that keep running), Pod Security restricted.

Contract of a guard image: env GUARD_LISTEN (port), GUARD_TARGET (`127.0.0.1:port`), GUARD_MAX_BODY (bytes),
GUARD_RATE (requests a second and source); answers its own health at `/__guard/healthz` on the port it listens on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sekisho.errors import Refusal
from sekisho.model import IMAGE_HOST, StandardImage
from sekisho.profile import Agent
from sekisho.workloads import containers_of

_USER = 10002
"""Not the workload's user, so that it cannot signal or trace its guard."""
_LAST_PORT = 65535
_RESOURCES = {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"cpu": "500m", "memory": "128Mi"}}
_OPTIONS = {"port", "max_body_bytes", "requests_per_second", "resources", "env"}


def reference(image: StandardImage) -> str:
    """Return the zone-neutral reference of a standard image."""
    return f"{IMAGE_HOST}/{image.repository}@{image.digest}"


def is_front(agent: Agent) -> bool:
    """Return whether a sidecar stands in front of the workload's ports."""
    return "port" in agent.options


def listening(pod_spec: Mapping[str, Any]) -> set[int]:
    """Return the ports that the containers of a pod declare."""
    return {
        int(port["containerPort"])
        for _, _, container in containers_of(pod_spec)
        for port in container.get("ports") or []
    }


def choose_ports(agent: Agent, targets: tuple[int, ...], taken: set[int], where: str) -> dict[int, int]:
    """Return, for each port of the workload, the port where the agent listens.

    Containers of one pod share their ports, so an agent takes the first free one from its own on.

    Raises:
        Refusal: the profile's port is not a port, or none is free.
    """
    first = agent.options["port"]
    if not isinstance(first, int) or not 1024 <= first <= _LAST_PORT:  # noqa: PLR2004  below is root's
        raise Refusal(f"Agent {agent.name} has no usable port.", where=where, remedy="Set a port from 1024 to 65535.")
    chosen: dict[int, int] = {}
    used = set(taken) | set(targets)
    for target in targets:
        free = next((port for port in range(first, _LAST_PORT + 1) if port not in used), None)
        if free is None:
            raise Refusal(f"No port is free for agent {agent.name}.", where=where)
        chosen[target] = free
        used.add(free)
    return chosen


def sidecar(
    agent: Agent, image: StandardImage, *, target: int | None, listen: int | None, suffix: str
) -> dict[str, Any]:
    """Return the init container that runs an agent for as long as its pod lives.

    Args:
        agent: of the profile.
        image: its standard image.
        target: the workload's port that it stands in front of, or None.
        listen: its own port, or None.
        suffix: added to its name, when a pod has more than one.

    Raises:
        Refusal: the profile has options that nobody would honour.
    """
    options = agent.options
    if unknown := sorted(set(options) - _OPTIONS):
        raise Refusal(f"Agent {agent.name} has unknown options: {', '.join(unknown)}.", where=f"agents/{agent.name}")
    env: dict[str, str] = {str(key): str(value) for key, value in dict(options.get("env", {})).items()}
    container: dict[str, Any] = {
        "name": f"{agent.name}{suffix}",
        "image": reference(image),
        "imagePullPolicy": "IfNotPresent",
        "restartPolicy": "Always",
        "resources": options.get("resources", _RESOURCES),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    if target is not None and listen is not None:
        env |= {"GUARD_LISTEN": str(listen), "GUARD_TARGET": f"127.0.0.1:{target}"}
        if "max_body_bytes" in options:
            env["GUARD_MAX_BODY"] = str(int(options["max_body_bytes"]))
        if "requests_per_second" in options:
            env["GUARD_RATE"] = str(int(options["requests_per_second"]))
        container["ports"] = [{"containerPort": listen, "protocol": "TCP"}]
        probe = {"httpGet": {"path": "/__guard/healthz", "port": listen}, "timeoutSeconds": 3}
        container["readinessProbe"] = {**probe, "periodSeconds": 3}
        container["livenessProbe"] = {**probe, "periodSeconds": 20, "failureThreshold": 3}
    container["env"] = [{"name": key, "value": env[key]} for key in sorted(env)]
    return container
