"""Runs that are killed between any two writes, and runs of the same commit at once."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import shutil
import signal
from collections.abc import Callable
from typing import Any

from fault_cases import Fault, faults
from fault_line import APP, GateLine, Place

from flows import inner
from sekisho.errors import PermanentError
from sekisho.feed import CommitRecord, FeedStore
from sekisho.model import Offer
from sekisho.registry_http import Answer, Transport
from sekisho.stage import run_stage
from stages.seal import SealInput

NOTHING = "Nothing: the zone's process is started again and takes the commit up."
WRITES = ("PUT", "POST", "PATCH", "DELETE")
MOST = 200


def killed_after(line: GateLine, work: Callable[[], None], writes: int) -> bool:
    """Do some work in a process of its own that is killed after so many writes; return whether it was."""
    line.gate.registry.close()
    child = os.fork()
    if child == 0:
        try:
            _die_after(writes)
            work()
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def _die_after(writes: int) -> None:
    """Kill this process where it would write to the registry, or to the feed, once more."""
    left = writes
    send, append = Transport.send, FeedStore.append

    def sent(self: Transport, method: str, path: str, **more: Any) -> Answer:
        nonlocal left
        if method in WRITES and left <= 0:  # some are written at once: these count before one of them has ended
            os.kill(os.getpid(), signal.SIGKILL)
        answer = send(self, method, path, **more)
        left -= method in WRITES
        return answer

    def appended(self: FeedStore, **more: Any) -> Offer:
        if left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return append(self, **more)

    Transport.send = sent  # type: ignore[method-assign]
    FeedStore.append = appended  # type: ignore[method-assign]


@faults(
    Fault("runs/killed-seal", "kill -9 between any two writes of the seal", "goes on", "release", NOTHING),
)
def test_kill_after_each_write_of_the_seal_and_the_next_one_completes_it(
    place: Place, scanned: GateLine, fault: Fault
) -> None:
    line, killed, taken = scanned, 0, []
    line.through = place.proxy.upstream
    line.start()
    seal = line.gate.seal
    line.gate = dataclasses.replace(line.gate, seal=_Held(taken))
    line.zone.gate = line.gate
    assert line.push().state == "error"
    place.keep("judged", line.folder)
    (subject,) = taken
    for writes in range(MOST):
        place.restore_registry("judged")
        if not killed_after(line, lambda: run_stage(seal, subject) and None, writes):
            break
        killed += 1
        sealed = run_stage(seal, subject).value
        assert fault.says in sealed.repository
        offer = Offer(
            sequence=1, app=APP, release=sealed.digest, summary=sealed.summary, commit=sealed.release.revision.commit
        )
        line.check_offer(offer)
    assert killed > 10
    shutil.rmtree(place.snapshots / "judged")


class _Held:
    """A seal that takes what it is given and ends."""

    name = "seal"

    def __init__(self, taken: list[SealInput]) -> None:
        self.taken = taken

    def find(self, subject: SealInput) -> None:
        self.taken.append(subject)
        raise PermanentError("Held.")


@faults(
    Fault("runs/killed", "kill -9 in the middle of judge, seal and feed", "goes on", "PASSED", NOTHING),
)
def test_a_killed_run_leaves_nothing_that_is_offered_and_is_taken_up(
    place: Place, scanned: GateLine, fault: Fault
) -> None:
    line, killed = scanned, 0
    line.through = place.proxy.upstream

    def whole() -> None:
        line.new_loop()
        line.check_released(line.push())

    for writes in range(0, MOST, 9):
        line.start()
        if not killed_after(line, whole, writes):
            break
        killed += 1
        traces = line.traces()
        assert "feed" not in traces
        # Nothing says that a release passed before the judge's signed word stands.
        assert not traces or "summary in verdicts" in traces
        outcome = line.restart()
        assert fault.says in outcome.text
        line.check_released(outcome)
        place.restore_registry("scanned")
        line.wipe_state()
    assert killed > 2
    line.check_released(line.start().outcome())


@faults(
    Fault("runs/twice", "two runs of the same commit at once", "goes on", "PASSED",
          "Nothing: they make the same, and it is offered once."),
)  # fmt: skip
def test_two_runs_of_the_same_commit_at_once_release_it_once(scanned: GateLine, fault: Fault) -> None:
    scanned.start()
    commit = scanned.place.commit

    async def both() -> None:
        await asyncio.gather(*(inner.inner_loop.fn(APP, commit) for _ in range(2)))

    scanned.loop.run_until_complete(both())
    events = scanned.gate.events.read(APP, commit)
    assert any(event.get("verdict", {}).get("result") == fault.says for event in events)
    (offer,) = scanned.gate.feed.offers()
    scanned.check_offer(offer)


@faults(
    Fault("runs/restart", "the zone's process is killed while a commit is judged", "goes on", "PASSED", NOTHING),
)
def test_a_commit_whose_run_was_killed_is_taken_up(scanned: GateLine, fault: Fault) -> None:
    scanned.start()
    scanned.gate.commits.put(CommitRecord(app=APP, commit=scanned.place.commit, branch="main", at=1, state="running"))
    outcome = scanned.restart()
    assert fault.says in outcome.text
    scanned.check_released(outcome)
