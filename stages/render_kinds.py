"""Which controller runs a workload: Deployment, StatefulSet, Job or CronJob, and how many of it.

Score has no field for this; its Kubernetes implementation reads the annotation `k8s.score.dev/kind`, and so does the
line. What that implementation leaves to patches is said with annotations of the line's own, `workload.sekisho.dev/*`.
They become fields of the controller and are no annotations of the pods. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sekisho.score import Problem, Workload
from sekisho.score.source import step
from stages.render_schedule import schedule_fault

KIND = "k8s.score.dev/kind"
PREFIX = "workload.sekisho.dev/"
KINDS = ("Deployment", "StatefulSet", "Job", "CronJob")

_SERVES = ("Deployment", "StatefulSet")
_RUNS = ("Job", "CronJob")
_SETTINGS: Mapping[str, tuple[str, ...]] = {
    "replicas": _SERVES,
    "retries": _RUNS,
    "timeout-seconds": _RUNS,
    "schedule": ("CronJob",),
    "time-zone": ("CronJob",),
    "concurrency": ("CronJob",),
}
"""Annotations, and the kinds that they are for."""
_RANGES = {"replicas": (1, 20), "retries": (0, 20), "timeout-seconds": (1, 86_400)}
_CONCURRENCY = ("Forbid", "Allow", "Replace")
_TIME_ZONE = re.compile(r"[A-Za-z]+([/_+-][A-Za-z0-9]+)*")
_MAX_TIME_ZONE = 64


@dataclass(frozen=True)
class Shape:
    """How a workload runs."""

    kind: str = "Deployment"
    replicas: int = 1
    retries: int = 3
    timeout: int = 0
    """Seconds for one run; 0 is without a limit."""
    schedule: str = ""
    time_zone: str = "Etc/UTC"
    concurrency: str = "Forbid"

    @property
    def ends(self) -> bool:
        """A run comes to its end, instead of serving until it is replaced."""
        return self.kind in _RUNS

    @property
    def side_by_side(self) -> bool:
        """Whether two pods of one version may run at the same time."""
        return self.replicas > 1 or (self.kind == "CronJob" and self.concurrency == "Allow")


def is_setting(key: str) -> bool:
    """Return whether an annotation is one of those that this module reads."""
    return key == KIND or (key.startswith(PREFIX) and key.removeprefix(PREFIX) in _SETTINGS)


def shape_of(workload: Workload, problems: list[Problem]) -> Shape:
    """Return the shape that a workload's annotations ask for.

    Args:
        workload: the whole workload.
        problems: grows by what cannot be.
    """

    def problem(key: str, message: str, remedy: str) -> None:
        problems.append(workload.problem(step("/metadata/annotations", key), message, remedy))

    kind = workload.annotations.get(KIND, "Deployment")
    if kind not in KINDS:
        problem(KIND, f"The kind {kind[:60]!r} is not supported.", f"Use one of {', '.join(KINDS)}.")
        kind = "Deployment"
    found: dict[str, Any] = {}
    for name, kinds in _SETTINGS.items():
        key = PREFIX + name
        if (text := workload.annotations.get(key)) is None:
            continue
        if kind not in kinds:
            remedy = f"Leave it out, or write {KIND}: {kinds[0]}."
            problem(key, f"This is for {' and '.join(kinds)}, and the workload is a {kind}.", remedy)
        elif (fault := _fault(name, text)) is not None:
            problem(key, f"{text[:60]!r} is not allowed here.", fault)
        else:
            found[name] = int(text) if name in _RANGES else text
    if kind == "CronJob" and PREFIX + "schedule" not in workload.annotations:
        problem(KIND, "A CronJob has no schedule.", f'Add the annotation {PREFIX}schedule: "15 3 * * *".')
    shape = Shape(
        kind=kind,
        replicas=found.get("replicas", 1),
        retries=found.get("retries", 3),
        timeout=found.get("timeout-seconds", 0),
        schedule=found.get("schedule", ""),
        time_zone=found.get("time-zone", "Etc/UTC"),
        concurrency=found.get("concurrency", "Forbid"),
    )
    if shape.ends:
        _nobody_reaches(workload, shape, problems)
    return shape


def controller(shape: Shape, name: str, metadata: Mapping[str, Any], template: dict[str, Any]) -> dict[str, Any]:
    """Return the controller of a workload.

    Args:
        shape: how it runs.
        name: the app's name.
        metadata: of the controller.
        template: of its pods; becomes part of the result.
    """
    spec: dict[str, Any]
    if shape.ends:
        # Never: a failed pod stays, with its log, and the Job makes another one.
        template["spec"]["restartPolicy"] = "Never"
        spec = {"backoffLimit": shape.retries, "template": template}
        if shape.timeout:
            spec["activeDeadlineSeconds"] = shape.timeout
        if shape.kind == "CronJob":
            spec = {
                "schedule": shape.schedule,
                "timeZone": shape.time_zone,
                "concurrencyPolicy": shape.concurrency,
                "jobTemplate": {"metadata": {"labels": dict(metadata["labels"])}, "spec": spec},
            }
        return {"apiVersion": "batch/v1", "kind": shape.kind, "metadata": dict(metadata), "spec": spec}
    spec = {
        "replicas": shape.replicas,
        "selector": {"matchLabels": {"app.kubernetes.io/name": name}},
        "template": template,
    }
    if shape.kind == "StatefulSet":
        spec["serviceName"] = name
    elif any("persistentVolumeClaim" in volume for volume in template["spec"]["volumes"]):
        # Two pods cannot hold one ReadWriteOnce claim: the old one goes first.
        spec["strategy"] = {"type": "Recreate"}
    return {"apiVersion": "apps/v1", "kind": shape.kind, "metadata": dict(metadata), "spec": spec}


def _fault(name: str, text: str) -> str | None:
    """Return what a setting should look like, or None when it looks so."""
    if name in _RANGES:
        low, high = _RANGES[name]
        fits = re.fullmatch(r"[0-9]{1,6}", text) is not None and low <= int(text) <= high
        return None if fits else f'Write a whole number from {low} to {high}, in quotes: "{max(low, 2)}".'
    if name == "schedule":
        return schedule_fault(text)
    if name == "concurrency":
        return None if text in _CONCURRENCY else f"Write one of {', '.join(_CONCURRENCY)}."
    fits = len(text) <= _MAX_TIME_ZONE and _TIME_ZONE.fullmatch(text) is not None and text.lower() != "local"
    return None if fits else "Write a name of the tz database, such as Europe/Berlin or Etc/UTC."


def _nobody_reaches(workload: Workload, shape: Shape, problems: list[Problem]) -> None:
    if workload.ports:
        message = f"A {shape.kind} comes to its end, and a service would lead to nothing."
        problems.append(workload.problem("/service", message, "Leave the service out."))
    for resource in workload.resources.values():
        if resource.type == "route":
            message = f"A {shape.kind} cannot be reached, so that a route leads to nothing."
            problems.append(workload.problem(resource.pointer, message, "Leave the route out."))
