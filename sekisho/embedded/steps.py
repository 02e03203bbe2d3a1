"""Bringing things up in order: a graph of steps, each started as soon as what it waits for is done.

A step is an action of ours (make databases, apply objects) or a program of the supervisor together with its health
check. Nothing sleeps for a fixed time: whoever is ready first goes on first.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from sekisho.embedded import netns
from sekisho.embedded.supervise import Check, ProcessState, Program, Supervisor
from sekisho.errors import PermanentError, SekishoError, TemporaryError

_TICK = 0.1
_PAUSE = 0.01
"""Between two looks at finished checks, so that a quick failure is no busy loop."""
_STATES_SECONDS = 0.5
"""How often the supervisor is asked for all states; its answer is XML and costs some milliseconds."""
_GIVE_UP_AFTER = 4
"""Times a program may die before the wait for it ends."""
_OK = 200


@dataclass(frozen=True)
class Step:
    """One thing to bring up; exactly one of `action` and `program` is set."""

    zone: str
    name: str
    after: tuple[str, ...] = ()
    action: Callable[[], None] | None = None
    program: Program | None = None
    essential: bool = True

    @property
    def full_name(self) -> str:
        """Name across zones."""
        return f"{self.zone}.{self.name}"

    @classmethod
    def of(cls, program: Program) -> Step:
        """Return the step that starts a program."""
        return cls(program.zone, program.name, program.after, program=program, essential=program.essential)


@dataclass(frozen=True)
class StepDone:
    """What is told to whoever watches `up`."""

    zone: str
    step: str
    state: Literal["done", "failed", "waiting"]
    seconds: float
    """Since `up` began."""
    message: str = ""


Progress = Callable[[StepDone], None]


@dataclass
class _Runner:
    supervisor: Supervisor
    progress: Progress
    logs: Callable[[str], Path]
    began: float
    pending: dict[str, Step]
    done: set[str] = field(default_factory=set)
    failed: dict[str, SekishoError] = field(default_factory=dict)
    started: set[str] = field(default_factory=set)
    running: dict[str, Future[bool]] = field(default_factory=dict)
    not_before: dict[str, float] = field(default_factory=dict)
    pids: dict[str, set[int]] = field(default_factory=dict)
    last: dict[str, SekishoError] = field(default_factory=dict)

    def finish(self, step: Step) -> None:
        self.pending.pop(step.full_name)
        self.done.add(step.full_name)
        self.progress(StepDone(step.zone, step.name, "done", time.monotonic() - self.began))

    def fail(self, step: Step, error: SekishoError) -> None:
        self.pending.pop(step.full_name, None)
        self.failed[step.full_name] = error
        self.progress(StepDone(step.zone, step.name, "failed", time.monotonic() - self.began, str(error)))

    def turn(self, pool: ThreadPoolExecutor, states: dict[str, ProcessState]) -> None:
        """Look at every pending step once."""
        for step in list(self.pending.values()):
            needs = [name if "." in name else f"{step.zone}.{name}" for name in step.after]
            broken = next((name for name in needs if name in self.failed), None)
            if broken:
                self.fail(step, PermanentError(f"Not started, because {broken} failed.", where=step.full_name))
            elif all(name in self.done or name not in self.pending for name in needs):
                if step.program is not None:
                    self._program(step, step.program, states.get(step.program.full_name))
                self._collect(step, pool)

    def _program(self, step: Step, program: Program, state: ProcessState | None) -> None:
        if state is None:
            self.fail(step, PermanentError("The supervisor does not know this program.", where=step.full_name))
            return
        if step.full_name not in self.started and not state.running:
            self.supervisor.start(program.full_name)
        self.started.add(step.full_name)
        if state.pid:
            self.pids.setdefault(step.full_name, set()).add(state.pid)
        deaths = len(self.pids.get(step.full_name, ())) - (1 if state.running else 0)
        if deaths >= _GIVE_UP_AFTER or state.state == "FATAL":
            self.fail(step, _died(program, state, self.logs(program.zone) / f"{program.name}.log"))

    def _collect(self, step: Step, pool: ThreadPoolExecutor) -> None:
        name = step.full_name
        if name not in self.pending:
            return
        future = self.running.get(name)
        if future is None:
            if time.monotonic() >= self.not_before.get(name, 0):
                self.running[name] = pool.submit(_attempt, step)
            return
        if not future.done():
            return
        del self.running[name]
        try:
            ready = future.result()
        except TemporaryError as error:
            self.last[name] = error
            self.not_before[name] = time.monotonic() + min(error.delay, 2.0)
        except SekishoError as error:
            self.fail(step, error)
        except Exception as error:  # noqa: BLE001 -- a fault in one zone's step must not hide the other zones' state
            self.fail(step, PermanentError(f"{type(error).__name__}: {error}", where=name))
        else:
            if ready:
                self.finish(step)
            else:
                self.not_before[name] = time.monotonic() + _TICK


def run_steps(
    steps: Iterable[Step],
    supervisor: Supervisor,
    progress: Progress,
    logs: Callable[[str], Path],
    *,
    seconds: float = 180.0,
    extra_seconds: float = 45.0,
    began: float | None = None,
) -> dict[str, SekishoError]:
    """Bring all steps up.

    Args:
        steps: in any order.
        supervisor: starts the programs.
        progress: told about each step.
        logs: the log folder of a zone.
        seconds: how long essential steps may take in all.
        extra_seconds: how long the others may take after the last essential one.
        began: time.monotonic() of the beginning that is told.

    Returns:
        what failed, by full name, without the consequences' consequences left out.
    """
    start = time.monotonic() if began is None else began
    table = {step.full_name: step for step in steps}
    runner = _Runner(supervisor, progress, logs, start, dict(table))
    end = time.monotonic() + seconds
    extra_end: float | None = None
    with ThreadPoolExecutor(max_workers=12, thread_name_prefix="sekisho-up") as pool:
        states, seen = supervisor.states(), time.monotonic()
        while runner.pending:
            now = time.monotonic()
            if now - seen > _STATES_SECONDS:
                states, seen = supervisor.states(), now
            left = len(runner.pending)
            runner.turn(pool, states)
            if not any(step.essential for step in runner.pending.values()):
                extra_end = extra_end or now + extra_seconds
                if now > extra_end:
                    break
            if now > end:
                break
            if len(runner.pending) == left:
                wait(runner.running.values(), timeout=_TICK, return_when=FIRST_COMPLETED)
                time.sleep(_PAUSE)
    for step in list(runner.pending.values()):
        message = f"Not ready after {time.monotonic() - start:.0f} s."
        before = runner.last.get(step.full_name)
        runner.fail(
            step,
            TemporaryError(
                f"{message} {before.what if before else ''}".strip(),
                where=step.full_name,
                remedy=f"See {logs(step.zone) / f'{step.name}.log'}; then `sekisho up` goes on from here.",
            ),
        )
    return runner.failed


def _attempt(step: Step) -> bool:
    if step.action is not None:
        step.action()
        return True
    program = step.program
    return program is None or program.check is None or passes(program, program.check)


def passes(program: Program, check: Check, *, timeout: float = 2.0) -> bool:
    """Tell whether a program's health check passes now."""
    try:
        if check.kind == "socket":
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.settimeout(timeout)
                probe.connect(check.path)
            return True
        with netns.connect(program.network, check.host, check.port, timeout=timeout) as sock:
            if check.kind == "tcp":
                return True
            return _http_ok(sock, check, timeout)
    except (OSError, http.client.HTTPException, SekishoError):
        return False


def _http_ok(sock: socket.socket, check: Check, timeout: float) -> bool:
    connection = http.client.HTTPConnection(check.host, check.port, timeout=timeout)
    if check.kind == "https":
        # Health only: nothing is sent but the path, nothing of the answer is used but its status.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        sock = context.wrap_socket(sock)
    connection.sock = sock
    try:
        connection.request("GET", check.path, headers={"Host": f"{check.host}:{check.port}"})
        return connection.getresponse().status == _OK
    finally:
        connection.close()


def _died(program: Program, state: ProcessState, log: Path) -> SekishoError:
    return PermanentError(
        f"It does not stay up ({state.description}). Its last words: {tail(log)}",
        where=program.full_name,
        remedy=f"See {log}, mend the cause, and run `sekisho up` again.",
    )


def tail(path: Path, limit: int = 400) -> str:
    """Return the last line of a log file."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - limit))
            return file.read().decode(errors="replace").strip().rpartition("\n")[2]
    except OSError:
        return ""
