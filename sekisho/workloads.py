"""Where the pods are in an object: templates, selectors, ports. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob")
"""Kinds with a pod template."""

_TEMPLATE = ("spec", "template")
_CRON_TEMPLATE = ("spec", "jobTemplate", "spec", "template")


def template_path(kind: str) -> tuple[str, ...]:
    """Return the keys that lead to a kind's pod template; empty for kinds without one."""
    if kind not in WORKLOADS:
        return ()
    return _CRON_TEMPLATE if kind == "CronJob" else _TEMPLATE


def pod_template(obj: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return an object's pod template (the very mapping, not a copy), or None."""
    value: Any = obj
    path = template_path(str(obj.get("kind", "")))
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if path and isinstance(value, dict) else None


def template_labels(obj: Mapping[str, Any]) -> dict[str, str]:
    """Return the labels that the pods of a workload get."""
    template = pod_template(obj) or {}
    labels = (template.get("metadata") or {}).get("labels") or {}
    return dict(labels)


def selects(selector: Mapping[str, str] | None, labels: Mapping[str, str]) -> bool:
    """Return whether an equality selector selects these labels; an empty one selects nothing."""
    return bool(selector) and all(labels.get(key) == value for key, value in (selector or {}).items())


def containers_of(pod_spec: Mapping[str, Any]) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Yield (field, index, container) of each container of a pod, in the order of their start."""
    for field in ("initContainers", "containers", "ephemeralContainers"):
        for index, container in enumerate(pod_spec.get(field) or []):
            yield field, index, container


def container_ports(pod_spec: Mapping[str, Any]) -> dict[str, int]:
    """Return the named ports of a pod."""
    return {
        port["name"]: int(port["containerPort"])
        for _, _, container in containers_of(pod_spec)
        for port in container.get("ports") or []
        if port.get("name")
    }


def target_port(port: Mapping[str, Any], pod_spec: Mapping[str, Any]) -> int | None:
    """Return the number of the pod's port that a Service's port leads to, or None when its name is nowhere."""
    target = port.get("targetPort", port.get("port"))
    if isinstance(target, int):
        return target
    if isinstance(target, str) and target.isdecimal():
        return int(target)
    return container_ports(pod_spec).get(str(target))


def pointer(*parts: str | int) -> str:
    """Return a JSON pointer (RFC 6901)."""
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in parts)
