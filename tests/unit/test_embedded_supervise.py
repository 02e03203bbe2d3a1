"""A real supervisord, with programs of the console's network: nothing here needs a zone."""

import configparser
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sekisho.embedded import steps as steps_module
from sekisho.embedded import supervise
from sekisho.embedded.steps import Step, StepDone, run_steps
from sekisho.embedded.supervise import Check, Program, Supervisor, ensure_supervisor, render
from sekisho.errors import PermanentError, TemporaryError

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="the zones' supervisor runs as root")


@pytest.fixture
def logs(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Path]]:
    """A home of its own, short enough for unix sockets."""
    folder = Path(tempfile.mkdtemp(prefix="sk-"))
    monkeypatch.setenv("SEKISHO_HOME", str(folder))
    (folder / "run").mkdir(mode=0o700)
    try:
        yield {"console": folder / "run"}
    finally:
        supervise.shutdown()
        shutil.rmtree(folder)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def server(name: str, port: int, **more: object) -> Program:
    argv = (sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port))
    check = Check("http", port=port, path="/")
    return Program("console", name, argv, directory=Path("/usr/share/doc/base-files"), check=check, **more)


def parse(text: str) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser()
    parser.read_string(text)
    return parser


def test_nothing_of_the_callers_environment_is_configured(
    logs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "do-not-carry-me")
    text = render([server("a", 1, environment={"A": "100%"})], logs)
    assert "do-not-carry-me" not in text
    assert parse(text)["program:console.a"]["environment"].startswith('A="100%%",PATH=')


def test_a_zones_program_enters_its_network_and_leaves_root(logs: dict[str, Path]) -> None:
    text = render([Program("build", "a", ("/bin/true", "it's"), user="sekisho-build")], {"build": logs["console"]})
    command = parse(text)["program:build.a"]["command"]
    assert command == (
        "nsenter --net=/run/netns/sk-build -- setpriv --reuid=sekisho-build --regid=sekisho-build --init-groups "
        "--no-new-privs --inh-caps=-all --bounding-set=-all -- /bin/true 'it'\"'\"'s'"
    )


@pytest.mark.parametrize("argument", ["a\nuser = root", "a\0b", "x ;comment"])
def test_what_the_format_cannot_carry_is_refused(logs: dict[str, Path], argument: str) -> None:
    with pytest.raises(PermanentError):
        render([Program("console", "a", ("/bin/echo", argument))], logs)


def test_a_home_too_deep_for_sockets_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEKISHO_HOME", "/tmp/" + "x" * 100)
    with pytest.raises(PermanentError, match="too long"):
        ensure_supervisor("")


@needs_root
def test_steps_come_up_in_order_and_only_once(logs: dict[str, Path]) -> None:
    ports = free_port(), free_port()
    programs = [server("second", ports[1], after=("between",)), server("first", ports[0])]
    order: list[str] = []
    table = [*map(Step.of, programs), Step("console", "between", ("first",), action=lambda: order.append("action"))]

    def note(event: StepDone) -> None:
        order.append(event.step)

    supervisor, started = ensure_supervisor(render(programs, logs))
    assert started
    assert run_steps(table, supervisor, note, lambda _: logs["console"], seconds=20) == {}
    assert order == ["first", "action", "between", "second"]
    pids = {name: state.pid for name, state in supervisor.states().items()}
    again, started = ensure_supervisor(render(programs, logs))
    assert not started
    assert run_steps(table, again, note, lambda _: logs["console"], seconds=20) == {}
    assert {name: state.pid for name, state in again.states().items()} == pids


@needs_root
def test_a_changed_program_is_started_anew_and_others_go_on(logs: dict[str, Path]) -> None:
    steady, port = server("steady", free_port()), free_port()
    supervisor, _ = ensure_supervisor(render([steady, server("moved", free_port())], logs))
    for name in ("console.steady", "console.moved"):
        supervisor.start(name)
    before = {name: state.pid for name, state in supervisor.states().items()}
    moved = server("moved", port)
    supervisor, _ = ensure_supervisor(render([steady, moved], logs))
    assert run_steps([Step.of(moved)], supervisor, lambda _: None, lambda _: logs["console"], seconds=20) == {}
    after = {name: state.pid for name, state in supervisor.states().items()}
    assert after["console.steady"] == before["console.steady"]
    assert after["console.moved"] != before["console.moved"]


@needs_root
def test_a_program_that_dies_is_named_with_its_last_words(
    logs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps_module, "_GIVE_UP_AFTER", 1)
    dying = Program(
        "console",
        "dying",
        ("/bin/sh", "-c", "echo first; echo no database here; sleep 0.3; exit 3"),
        check=Check("tcp", port=1),
    )
    after = Step("console", "after", ("dying",), action=lambda: None)
    supervisor, _ = ensure_supervisor(render([dying], logs))
    failed = run_steps([Step.of(dying), after], supervisor, lambda _: None, lambda _: logs["console"], seconds=90)
    assert sorted(failed) == ["console.after", "console.dying"]
    assert "no database here" in str(failed["console.dying"])
    assert "console.dying failed" in str(failed["console.after"])


@needs_root
def test_temporary_faults_of_actions_are_tried_again_and_permanent_ones_are_not(logs: dict[str, Path]) -> None:
    tries = {"soft": 0, "hard": 0}

    def soft() -> None:
        tries["soft"] += 1
        if tries["soft"] < 3:
            raise TemporaryError("not yet", delay=0.01)

    def hard() -> None:
        tries["hard"] += 1
        raise PermanentError("never")

    supervisor, _ = ensure_supervisor(render([], logs))
    table = [Step("console", "soft", action=soft), Step("console", "hard", action=hard)]
    failed = run_steps(table, supervisor, lambda _: None, lambda _: logs["console"], seconds=20)
    assert (tries, list(failed)) == ({"soft": 3, "hard": 1}, ["console.hard"])


@needs_root
def test_what_does_not_come_up_in_time_is_said(logs: dict[str, Path]) -> None:
    deaf = Program("console", "deaf", ("/bin/sleep", "60"), check=Check("tcp", port=1))
    supervisor, _ = ensure_supervisor(render([deaf], logs))
    failed = run_steps([Step.of(deaf)], supervisor, lambda _: None, lambda _: logs["console"], seconds=0.3)
    assert "Not ready" in str(failed["console.deaf"])
    supervisor.stop(["console.deaf"])
    assert not supervisor.states()["console.deaf"].running


@needs_root
def test_processes_do_not_inherit_an_ignored_interrupt(logs: dict[str, Path]) -> None:
    """A shell's `command &` ignores SIGINT in its children (Prefect would then not stop)."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        supervisor, _ = ensure_supervisor(render([Program("console", "a", ("/bin/sleep", "60"))], logs))
        supervisor.start("console.a")
        end = time.monotonic() + 5
        while not (pid := supervisor.states()["console.a"].pid) and time.monotonic() < end:
            time.sleep(0.05)
        ignored = int(Path(f"/proc/{pid}/status").read_text().split("SigIgn:")[1].split()[0], 16)
    finally:
        signal.signal(signal.SIGINT, before)
    assert not ignored >> (signal.SIGINT - 1) & 1


@pytest.mark.usefixtures("logs")
def test_no_supervisor_is_said_as_such() -> None:
    assert not Supervisor.alive()
    with pytest.raises(TemporaryError, match="does not answer"):
        Supervisor().states()
