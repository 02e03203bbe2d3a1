"""The loop: each save is built, rendered, bound, put into the dev cluster and followed until it answers.

One thread decides, by events from a queue: files were saved, a version's outcome, pods changed, the gate's hint. A
version that fails changes nothing for good: the last good one goes on, or is put back.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from sekisho.errors import PermanentError, Refusal, SekishoError, TemporaryError
from stages.dev.hint import Hint
from stages.dev.image import Made
from stages.dev.objects import Composition
from stages.dev.pods import carries, fate
from stages.dev.rollout import Outcome, Version
from stages.dev.session import Session

_MEND_SECONDS = 2.0
"""Between two attempts to give a pod the version that it should have."""
_RETRY_SECONDS, _LONGEST_RETRY_SECONDS = 1.0, 30.0
"""Before what may pass by itself is tried again, at first and after many times."""


@dataclass(frozen=True)
class Saved:
    """Files were saved."""

    at: float
    """When that was noticed (time.monotonic)."""


@dataclass(frozen=True)
class PodsChanged:
    """The cluster shows the pods otherwise than before."""


@dataclass(frozen=True)
class Lost:
    """The namespace is no longer this process's."""

    error: SekishoError


Event = Saved | PodsChanged | Lost | Outcome | Hint


@dataclass(frozen=True)
class _Saving:
    """What is to be told of a version when it answers."""

    at: float
    changed: tuple[str, ...]
    build: float


class Loop:
    """The deciding thread of one session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._events: queue.Queue[Event] = queue.Queue()
        self._number = 0
        self._savings: dict[int, _Saving] = {}
        self._wanted: Version | None = None
        self._good: Version | None = None
        self._mended = 0.0
        self._told: set[str] = set()
        self._retry_at = 0.0
        self._patience = _RETRY_SECONDS
        self._put: tuple[str, str] | None = None
        """What the cluster was told last, frame and image; None where it may have heard half of it."""
        self._waiting: tuple[str, ...] | None = ()
        """Files of the copy that no version was made of yet; None where nothing waits."""

    @property
    def put(self) -> Callable[[Event], None]:
        """Takes events, from any thread."""
        return self._events.put

    def run(self) -> None:
        """Go on until the session is lost or interrupted.

        Raises:
            SekishoError: the namespace was lost.
        """
        self._saved(Saved(time.monotonic()))
        while True:
            event = self._next()
            if isinstance(event, Saved):
                self._saved(event)
            elif isinstance(event, Outcome):
                self._ended(event)
            elif isinstance(event, PodsChanged):
                self._guarded(self._tend)
            elif isinstance(event, Hint):
                self._session.screen.hint(event)
            elif isinstance(event, Lost):
                raise event.error
            if self._retry_at and time.monotonic() >= self._retry_at:
                self._saved(Saved(time.monotonic()))

    def _next(self) -> Event | None:
        """Return the next event; saves that came together are one, the last decides."""
        patience = max(0.0, self._retry_at - time.monotonic()) if self._retry_at else None
        try:
            event = self._events.get(timeout=patience)
        except queue.Empty:
            return None
        return event

    # -- a save ---------------------------------------------------------------------------------------------------

    def _saved(self, saved: Saved) -> None:
        session = self._session
        self._retry_at = 0.0
        number = self._number + 1
        changed: tuple[str, ...] = ()
        try:
            changed = session.copy.update()
            if not changed and self._waiting is None:
                return  # what was saved is nothing of the workload's
            if changed:
                self._patience = _RETRY_SECONDS
            changed = tuple(sorted({*changed, *(self._waiting or ())}))
            session.gate.stop()
            self._number, self._waiting = number, None
            made = session.bench.build(session.copy.folder)
            version = self._version(number, made)
            if version is None:
                session.screen.note(f"v{number} is the same program as before.")
                session.gate.judge(number, session.copy.folder)
                return
            self._savings = {number: _Saving(min(saved.at, session.copy.saved_at), changed, made.seconds)}
            self._run(version)
            session.vouch(made.image)
        except TemporaryError as error:
            self._number, self._waiting = number, changed
            self._retry_at = time.monotonic() + max(error.delay, self._patience)
            self._patience = min(self._patience * 2, _LONGEST_RETRY_SECONDS)
            self._failed(number, error)
        except SekishoError as error:
            self._number = number
            self._failed(number, error)
            session.gate.judge(number, session.copy.folder)
        except Exception as error:
            if session.debug:
                raise
            self._failed(number, _fault(error))

    def _version(self, number: int, made: Made) -> Version | None:
        """Return the version that a build makes; None when it is what runs already."""
        composition = self._session.composed(made)
        if number == 1:
            self._session.screen.building(number, " ".join((made.why, *made.notes)))
        if self._put == _told(composition) and self._wanted is self._good:
            return None
        return Version(number, composition)

    def _run(self, version: Version) -> None:
        """Put a version into the cluster and begin to follow it."""
        session = self._session
        session.rollout.forget()
        session.hang_up()
        self._put = None
        how = session.cluster.put(version.made)
        session.reach(version.made)
        self._put = _told(version.made)
        version = replace(version, swapped=how == "swapped")
        self._wanted = version
        session.rollout.follow(version)

    # -- its outcome ----------------------------------------------------------------------------------------------

    def _ended(self, outcome: Outcome) -> None:
        if self._wanted is None or outcome.version.number != self._wanted.number:
            return  # overtaken
        number = outcome.version.number
        if outcome.good:
            self._session.point_to(outcome.pod, outcome.version.made)
            self._good = self._wanted
            saving = self._savings.pop(number, None)
            if saving is None:
                self._session.screen.again(number)
                return
            self._session.screen.running(number, outcome.at - saving.at, saving.build, saving.changed)
            if number == self._number:
                self._session.gate.judge(number, self._session.copy.folder)
            return
        error = Refusal(outcome.why, where=outcome.pod, remedy="Its own words are above; save again.")
        if self._good is not None and number == self._good.number:
            # It ran once and was put back: again would be the same again. The cluster starts it anew by itself.
            self._good = None
            self._failed(number, error)
            return
        self._failed(number, error)
        self._session.gate.judge(number, self._session.copy.folder)
        self._guarded(self._back)

    def _back(self) -> None:
        """Have the last good version run again."""
        if self._good is not None:
            self._run(self._good)

    def _failed(self, number: int, error: SekishoError) -> None:
        self._savings.pop(number, None)
        good = self._good
        self._session.screen.failed(number, error, good.number if good else 0)

    # -- in between -----------------------------------------------------------------------------------------------

    def _tend(self) -> None:
        """Follow the words of new containers, and see to it that the good version goes on running."""
        session = self._session
        pods = session.pods.all()
        session.logs.follow(pods)
        good = self._good
        if good is None or self._wanted is not good or not pods:
            return
        ours = [pod for pod in pods if carries(pod, good.made.image)]
        if not ours:
            # The cluster made the pod anew, with the image that the Deployment began with.
            if time.monotonic() - self._mended > _MEND_SECONDS:
                self._mended = time.monotonic()
                session.cluster.swap(good.made, pods[-1]["metadata"]["name"])
            return
        found = fate(ours[-1], good.made.image)
        if found.state == "crashed":
            self._tell_crash(ours[-1], found.why)
        session.point_to(found.pod, good.made)

    def _tell_crash(self, pod: dict[str, Any], why: str) -> None:
        """Tell once that a program which ran has ended; the cluster starts it again."""
        runs = {str(item.get("restartCount")) for item in (pod["status"].get("containerStatuses") or [])}
        key = f"{pod['metadata']['uid']} {sorted(runs)}"
        if key not in self._told:
            self._told.add(key)
            self._session.screen.note(f"The program ended by itself. {why} The cluster starts it again.")

    def _guarded(self, call: Callable[[], None]) -> None:
        """Do something that a later event makes good if it fails now."""
        try:
            call()
        except SekishoError as error:
            self._session.screen.note(str(error))


def _told(composition: Composition) -> tuple[str, str]:
    """Return what tells one program from another."""
    return composition.frame, composition.image


def _fault(error: Exception) -> PermanentError:
    return PermanentError(
        f"This is a fault of sekisho: {type(error).__name__}: {error}",
        remedy="Save again; SEKISHO_DEBUG=1 shows where it happened.",
    )
