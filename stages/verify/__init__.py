"""verify: is what was applied healthy? Named causes at once, then the workload's own smoke checks.

Rules:
    1. Every object of the plan is there, every workload has all its pods of the newest revision available.
    2. A terminal cause ends the wait after its own short grace; time over is a cause too, with the last words known.
    3. Then each smoke path answers below 400 through the way in, agents included.
    4. What goes into the report is cleaned of the app's credentials.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sekisho.errors import TemporaryError
from sekisho.kube import Kube, Ref
from sekisho.model import Health, Plan
from sekisho.vault import Vault
from sekisho.workloads import WORKLOADS
from stages.apply import apply, route_url
from stages.bind.contract import NEED
from stages.verify.causes import (
    Cause,
    event_causes,
    last_words,
    newest_pods,
    observed,
    pod_causes,
    readiness,
    workload_cause,
)
from stages.verify.smoke import smoke

__all__ = ["rollback", "verify"]

_PAUSES = (0.3, 0.5, 0.7, 1.0)
_SMOKE_SECONDS = 15.0
_LOG_LINES = 6
_LOG_LENGTH = 200
_SHORT_VALUE = 6
"""Credentials' values shorter than this (a port) are not looked for in logs."""


def verify(
    plan: Plan,
    kube: Kube,
    *,
    seconds: float,
    vault: Vault,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Health:
    """Wait until a plan's objects are healthy, or a cause is certain.

    Args:
        plan: what was applied.
        kube: the zone's cluster.
        seconds: the profile's `ready_seconds`.
        vault: for the values that must not be in a report.
        sleep: for tests.
        clock: for tests.
    """
    watcher = _Watcher(plan, kube, vault, clock)
    end = clock() + seconds
    pauses = iter(_PAUSES)
    while True:
        try:
            done, cause = watcher.look()
        except TemporaryError as error:
            done, cause = False, ""
            watcher.checks = (f"the cluster did not answer: {error.what}",)
        if cause:
            return Health(healthy=False, cause=cause, checks=watcher.checks)
        if done:
            break
        if clock() >= end:
            cause = watcher.timed_out(seconds)
            return Health(healthy=False, cause=cause, checks=watcher.checks)
        sleep(next(pauses, _PAUSES[-1]))
    if not plan.smoke:
        return Health(healthy=True, checks=watcher.checks)
    answers = smoke(bases(plan, kube), plan.smoke, seconds=_SMOKE_SECONDS, sleep=sleep, clock=clock)
    checks = (*watcher.checks, *(answer.text for answer in answers))
    bad = [answer.text for answer in answers if not answer.good]
    return Health(healthy=not bad, cause=f"smoke check failed: {'; '.join(bad)}" if bad else "", checks=checks)


def rollback(previous: Plan, kube: Kube, *, seconds: float, vault: Vault, cause: str) -> Health:
    """Go back to a plan that ran before, and verify it. Works from the zone's own stores alone.

    Args:
        previous: the stored plan to go back to.
        kube: the zone's cluster.
        seconds: how long it may take to become healthy.
        vault: the credentials of the bindings.
        cause: why the newer plan failed.

    Raises:
        Refusal: the credentials are not those of that plan any more; its release must be planned anew.
        LeaseLost, TemporaryError: as apply.
    """
    apply(previous, kube, vault, rollback=True)
    health = verify(previous, kube, seconds=seconds, vault=vault)
    back = previous.release if health.healthy else ""
    also = "" if health.healthy else f"; and the earlier release is not healthy either: {health.cause}"
    return Health(healthy=False, cause=f"{cause}{also}", checks=health.checks, rolled_back_to=back)


def bases(plan: Plan, kube: Kube) -> tuple[str, ...]:
    """Return where the workload's Service answers: the node port first, as people reach it, then the cluster's."""
    found = [route_url(plan, kube).rstrip("/")]
    for obj in plan.objects:
        if obj["kind"] == "Service" and obj["metadata"]["name"] == plan.app:
            spec = (kube.get(Ref.of(obj)) or {}).get("spec") or {}
            address = spec.get("clusterIP", "")
            if address and address != "None":
                host = f"[{address}]" if ":" in address else address
                found += [f"http://{host}:{port['port']}" for port in spec.get("ports") or []]
    return tuple(base for base in found if base)


class _Watcher:
    """Looks at a plan's objects again and again, and remembers since when each cause lasts."""

    def __init__(self, plan: Plan, kube: Kube, vault: Vault, clock: Callable[[], float]) -> None:
        self._plan = plan
        self._kube = kube
        self._hidden = hidden_values(plan, vault)
        self._clock = clock
        self._since: dict[tuple[str, str, float], float] = {}
        self._pods: list[Mapping[str, Any]] = []
        self._waiting: list[str] = []
        self.checks: tuple[str, ...] = ()

    def look(self) -> tuple[bool, str]:
        """Return whether all is healthy, and the cause when one is certain."""
        causes: list[Cause] = []
        lines: list[str] = []
        self._waiting, self._pods = [], []
        namespace = self._plan.namespace
        pods = self._kube.list("v1", "Pod", namespace)
        sets = self._kube.list("apps/v1", "ReplicaSet", namespace)
        for obj in self._plan.objects:
            live = self._kube.get(Ref.of(obj))
            if live is None:
                self._waiting.append(f"{Ref.of(obj).short}: missing")
                causes.append(Cause(f"{Ref.of(obj).short} is missing", grace=3.0))
                continue
            ready, line = readiness(live)
            if obj["kind"] in WORKLOADS or not ready:
                lines.append(line)
            if ready:
                continue
            self._waiting.append(line)
            if not observed(live):
                # What it says, and which pods it calls its newest, is about what was there before: after a rollback,
                # the pods that crashed.
                continue
            newest = newest_pods(live, sets, pods)
            self._pods += newest
            causes += [*pod_causes(newest)]
            own = workload_cause(live)
            causes += [own] if own else []
            if live["kind"] == "StatefulSet" and not newest:
                causes += event_causes(live, self._events())
        self.checks = tuple(lines)
        return not self._waiting, self._certain(causes)

    def timed_out(self, seconds: float) -> str:
        """Return the cause when the time is over, with the last words of the pods."""
        words = last_words(self._pods, self._events())
        text = f"not healthy after {seconds:.0f} s: {'; '.join(self._waiting) or '; '.join(self.checks)}"
        return redact(f"{text}. Last event: {words}" if words else text, self._hidden)

    def _certain(self, causes: Sequence[Cause]) -> str:
        now = self._clock()
        # Keyed without the message: a runtime's back-off message changes while the cause stays.
        keys = {(cause.pod or cause.text, cause.container, cause.grace): cause for cause in causes}
        self._since = {key: self._since.get(key, now) for key in keys}
        for key, cause in keys.items():
            if now - self._since[key] >= cause.grace:
                return redact(cause.text + self._log(cause), self._hidden)
        return ""

    def _log(self, cause: Cause) -> str:
        if not cause.crashed:
            return ""
        text = self._kube.logs(self._plan.namespace, cause.pod, cause.container, previous=True, lines=_LOG_LINES)
        lines = [redact(line, self._hidden)[:_LOG_LENGTH] for line in text.splitlines() if line.strip()]
        clean = ["".join(letter for letter in line if letter.isprintable()) for line in lines[-_LOG_LINES:]]
        return f". Last lines: {' | '.join(clean)}" if clean else ". It wrote nothing."

    def _events(self) -> tuple[dict[str, Any], ...]:
        return self._kube.list("v1", "Event", self._plan.namespace)


def hidden_values(plan: Plan, vault: Vault) -> tuple[str, ...]:
    """Return the values of the plan's credentials that no report may show."""
    values: set[str] = set()
    for obj in plan.objects:
        need = (obj["metadata"].get("annotations") or {}).get(NEED)
        if obj["kind"] == "Secret" and need:
            entries = vault.get(plan.app, need) or {}
            values |= {entries[key] for key in ("password", "uri") if len(entries.get(key, "")) >= _SHORT_VALUE}
    return tuple(sorted(values, key=len, reverse=True))


def redact(text: str, hidden: Sequence[str]) -> str:
    """Return the text without the given values."""
    for value in hidden:
        text = text.replace(value, "(secret)")
    return text
