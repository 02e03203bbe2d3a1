"""Following a version from the moment the cluster was told of it until it answers, or fails.

Two witnesses: the pods as the cluster shows them, which say what runs, up to a second late, and the program itself,
asked over its own port, which says when. A version has answered when both say so; the time is the program's.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from sekisho.errors import SekishoError, TemporaryError
from sekisho.kube import Kube
from sekisho.kube_forward import Channel, Dialer, Refused
from sekisho.kube_streams import watch
from stages.dev.objects import Composition, Probe
from stages.dev.pods import Fate, carries, fate

_ASK_SECONDS = 0.12
"""Between two looks at a version that starts."""
_ANSWER_SECONDS = 2.0
_LISTEN_SECONDS = 0.2
_PATIENCE_SECONDS = 90.0
"""After which a version that runs and does not answer well has failed; a large Java program takes its time."""
_STUCK_SECONDS = 6.0
"""How long an obstacle may last; the cluster tries again by itself."""
_SETTLE_SECONDS = 1.0
_PAUSE = 1.0

Tell = Callable[["Outcome"], None]


@dataclass(frozen=True)
class Version:
    """One state of the working copy, on its way into the cluster."""

    number: int
    made: Composition
    swapped: bool = False
    """Whether a running pod was given its image in place."""


@dataclass(frozen=True)
class Outcome:
    """What became of a version."""

    version: Version
    good: bool
    pod: str = ""
    why: str = ""
    at: float = 0.0
    """When it answered first (time.monotonic)."""
    status: int = 0
    """HTTP status of its answer; 0 where a connection is enough."""


class Pods:
    """The app's pods, kept up to date by a watch.

    Args:
        kube: the dev cluster.
        namespace: the developer's namespace.
        app: the workload.
        changed: told after each change, in a thread of the watch.
    """

    def __init__(self, kube: Kube, namespace: str, app: str, changed: Callable[[], None]) -> None:
        self._kube = kube
        self._path = f"/api/v1/namespaces/{quote(namespace, safe='')}/pods"
        self._labels = f"app.kubernetes.io/name={app}"
        self._changed = changed
        self._pods: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()
        threading.Thread(target=self._watch, name="pods", daemon=True).start()

    def all(self) -> tuple[dict[str, Any], ...]:
        """Return the pods that are not on their way out, the newest last."""
        with self._lock:
            pods = [pod for pod in self._pods.values() if not pod["metadata"].get("deletionTimestamp")]
        return tuple(sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp"))))

    def _watch(self) -> None:
        while True:
            try:
                for kind, pod in watch(self._kube, self._path, {"labelSelector": self._labels}):
                    self._take(kind, pod)
            except SekishoError:
                time.sleep(_PAUSE)
            # The next watch begins with all that is there; what went in between is told by nobody.
            with self._lock:
                self._pods.clear()

    def _take(self, kind: str, pod: dict[str, Any]) -> None:
        uid = str(pod["metadata"]["uid"])
        with self._lock:
            if kind == "DELETED":
                self._pods.pop(uid, None)
            else:
                self._pods[uid] = pod
        self._changed()


class Rollout:
    """Follows one version at a time; a newer one ends the following of the one before.

    Args:
        dialer: opens connections to pods.
        pods: the app's pods.
        namespace: the developer's namespace.
        tell: told the outcome of each version that was not overtaken.
    """

    def __init__(self, dialer: Dialer, pods: Pods, namespace: str, tell: Tell) -> None:
        self._dialer = dialer
        self._pods = pods
        self._namespace = namespace
        self._tell = tell
        self._current: Version | None = None

    def follow(self, version: Version) -> None:
        """Begin to follow a version that the cluster was told of just now."""
        self._current = version
        threading.Thread(target=self._run, args=(version,), name=f"version-{version.number}", daemon=True).start()

    def forget(self) -> None:
        """Follow nothing any more."""
        self._current = None

    def _run(self, version: Version) -> None:
        def status(pod: str, probe: Probe) -> int | None:
            return ask(self._dialer, self._namespace, pod, probe)

        follower = Follower(version, status)
        while self._current is version:
            outcome = follower.look(self._pods.all(), time.monotonic())
            if outcome is not None:
                if self._current is version:
                    self._tell(outcome)
                return
            time.sleep(_ASK_SECONDS)


class Follower:
    """Puts together what both witnesses say of one version.

    Args:
        version: the version.
        status: asks a pod; returns its HTTP status, 0 for a mere connection, None for silence.
    """

    def __init__(self, version: Version, status: Callable[[str, Probe], int | None]) -> None:
        self._version = version
        self._ask = status
        self._was_silent = not version.swapped
        """After a swap the old program answers on, until it is silent for a moment."""
        self._answered = 0.0
        self._status: int | None = None
        self._confirmed_at = 0.0
        self._stuck_at = 0.0

    def look(self, pods: tuple[dict[str, Any], ...], now: float) -> Outcome | None:
        """Look once; returns the outcome as soon as there is one."""
        image = self._version.made.image
        ours = [pod for pod in pods if carries(pod, image)]
        if not ours:
            return None
        found = fate(ours[-1], image)
        if found.state == "crashed":
            return self._bad(found, found.why)
        if found.state == "stuck":
            self._stuck_at = self._stuck_at or now
            return self._bad(found, found.why) if now - self._stuck_at > _STUCK_SECONDS else None
        self._stuck_at = 0.0
        confirmed = found.state in {"started", "ready"}
        self._confirmed_at = (self._confirmed_at or now) if confirmed else 0.0
        probe = self._version.made.probe
        if probe is None:
            settled = confirmed and (found.state == "ready" and now - self._confirmed_at > _SETTLE_SECONDS)
            return self._good(found, now) if settled else None
        self._listen(found, probe, now, confirmed=confirmed)
        if confirmed and self._status is not None and (self._status < HTTPStatus.BAD_REQUEST or found.state == "ready"):
            return self._good(found, self._answered)
        if confirmed and now - self._confirmed_at > _PATIENCE_SECONDS:
            return self._bad(found, self._impatience(probe))
        return None

    def _listen(self, found: Fate, probe: Probe, now: float, *, confirmed: bool) -> None:
        if self._status is not None and self._status < HTTPStatus.BAD_REQUEST:
            return  # it has answered well; only the cluster's word is waited for
        status = self._ask(found.pod, probe)
        if status is None:
            self._was_silent, self._answered, self._status = True, 0.0, None
        elif self._was_silent or confirmed:
            good = status < HTTPStatus.BAD_REQUEST
            self._answered = now if good or not self._answered else self._answered
            self._status = status

    def _impatience(self, probe: Probe) -> str:
        if self._status is not None:
            return f"It answers {self._status} to {probe.path}, its own readiness probe."
        return (
            f"It runs for {_PATIENCE_SECONDS:.0f} s, and nobody answers on port {probe.port}: "
            "it has to listen on 0.0.0.0 and on $PORT."
        )

    def _good(self, found: Fate, at: float) -> Outcome:
        return Outcome(self._version, good=True, pod=found.pod, at=at, status=self._status or 0)

    def _bad(self, found: Fate, why: str) -> Outcome:
        return Outcome(self._version, good=False, pod=found.pod, why=why)


def ask(dialer: Dialer, namespace: str, pod: str, probe: Probe) -> int | None:
    """Return the HTTP status of a pod's answer, 0 where a connection is enough, None when nobody answers."""
    try:
        with dialer.open(namespace, pod, probe.port) as channel:
            return _status_of(channel, probe) if probe.path else _listens(channel)
    except SekishoError:
        return None


def _status_of(channel: Channel, probe: Probe) -> int | None:
    lines = [f"GET {probe.path} HTTP/1.1", *(f"{name}: {value}" for name, value in probe.headers)]
    if not any(name.lower() == "host" for name, _ in probe.headers):
        lines.append(f"Host: localhost:{probe.port}")
    request = "\r\n".join([*lines, "User-Agent: sekisho-dev", "Connection: close", "", ""])
    channel.send(request.encode("latin-1", "replace"))
    words = channel.receive(_ANSWER_SECONDS).split(maxsplit=2)
    return int(words[1]) if len(words) > 1 and words[1].isdigit() else None


def _listens(channel: Channel) -> int | None:
    """Tell whether a connection stands: who is refused is told so at once, who is taken hears nothing."""
    try:
        channel.receive(_LISTEN_SECONDS)
    except Refused:
        return None
    except TemporaryError:
        return 0
    return 0
