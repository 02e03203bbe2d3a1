"""Runs that are killed between any two writes, and runs of the same commit at once."""

from __future__ import annotations

import asyncio
import os
import signal

from fault_cases import Fault, faults
from fault_line import APP, GateLine, Place

from flows import inner
from sekisho.feed import CommitRecord
from sekisho.registry_http import Answer, Transport

NOTHING = "Nothing: the zone's process is started again and takes the commit up."
WRITES = ("PUT", "POST", "PATCH", "DELETE")
MOST = 200


def killed_after(line: GateLine, place: Place, writes: int) -> bool:
    """Judge the commit in a process of its own that is killed after so many writes; return whether it was."""
    line.gate.registry.close()
    child = os.fork()
    if child == 0:
        try:
            _judge_and_die(line, place, writes)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def _judge_and_die(line: GateLine, place: Place, writes: int) -> None:
    left = writes
    send = Transport.send

    def counted(self: Transport, method: str, path: str, **more: object) -> Answer:
        nonlocal left
        if method in WRITES and left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        answer = send(self, method, path, **more)  # type: ignore[arg-type]
        left -= method in WRITES
        return answer

    Transport.send = counted  # type: ignore[method-assign,assignment]
    append = type(line.gate.feed).append

    def appended(*args: object, **more: object) -> object:
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return append(*args, **more)  # type: ignore[arg-type]

    type(line.gate.feed).append = appended  # type: ignore[method-assign,assignment]
    line.new_loop()
    line.check_released(line.push())
    os._exit(0)


@faults(
    Fault("runs/killed", "kill -9 between any two writes of judge, seal and feed", "goes on", "PASSED", NOTHING),
)
def test_kill_after_each_write_and_the_next_run_completes_it(place: Place, scanned: GateLine, fault: Fault) -> None:
    line, killed = scanned, 0
    line.through = place.proxy.upstream
    for writes in range(MOST):
        line.start()
        if not killed_after(line, place, writes):
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
    assert killed > 20  # about so many writes are there; the last run had fewer than it might have had
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
