"""What is made ready for the next sandbox: a network namespace, a container. Real containers, an engine of its own."""

from __future__ import annotations

import subprocess
import tarfile
import threading
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
from sandboxes import ATTACKS, LIMITS, Box, left

from sekisho.errors import Refusal
from sekisho.registry import Registry
from stages.build.engine import HOLDER_LABEL
from stages.build.language import Ahead
from stages.build.pack import entries_of_archive
from stages.build.sandbox import LABEL, Command, Sandbox

pytestmark = pytest.mark.e2e


def holders(engine: Path) -> list[str]:
    command = ["docker", "-H", f"unix://{engine}", "ps", "-q", "--no-trunc", "--filter", f"label={HOLDER_LABEL}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


@pytest.fixture
def ahead(box: Box):
    """A sandbox that keeps a network namespace ready, and what runs a script in it once one is."""
    sandbox = Sandbox(box.engine, Registry(box.url), box.folder, LIMITS, ahead=True)

    def run(script: str) -> str:
        command = Command(("sh", "-c", script), directory="work", inputs={"seed": box.seed})
        return sandbox.run(box.base, "standard/shell", command, box.folder / "output.tar")

    def ready() -> tuple[str, str]:
        """Wait for a holder, and return its namespace and its name."""
        sandbox.settle()
        for _ in range(200):
            found = holders(box.engine)
            if found:
                time.sleep(0.5)  # the engine knows it a little before the sandbox does
                return namespace_of(box.engine, found[0]), found[0]
            time.sleep(0.1)
        raise AssertionError("No network namespace was made ready.")

    yield SimpleNamespace(run=run, ready=ready, sandbox=sandbox)
    sandbox.close()
    assert holders(box.engine) == []
    assert left(box.engine) == ""


def namespace_of(engine: Path, container: str) -> str:
    command = ["docker", "-H", f"unix://{engine}", "inspect", "--format", "{{.State.Pid}}", container]
    process = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return str(Path(f"/proc/{process}/ns/net").readlink())


LOOK = """set -- /proc/[0-9]*; ls -l /proc/self/ns/net; ls /sys/class/net
cat /proc/sys/kernel/hostname /etc/hosts /etc/resolv.conf; echo $#"""


def test_a_namespace_that_was_made_ready_is_as_empty_as_one_of_ones_own(ahead) -> None:
    def look() -> list[str]:
        first, *rest = ahead.run(LOOK).splitlines()
        return [first.rpartition(" ")[2], *rest]

    _, *plain = look()
    first, holder = ahead.ready()
    joined, *seen = look()
    assert joined == first
    second, other = ahead.ready()
    assert look() == [second, *seen]
    # Interfaces, name, files and processes are those of a sandbox without.
    assert seen[:2] == ["lo", "sandbox"]
    assert seen == plain
    assert holder != other  # handed out once


@pytest.mark.parametrize("end", [["kill"], ["rm", "--force"]], ids=["killed", "removed"])
def test_a_holder_that_has_gone_is_not_waited_for(ahead, box: Box, end: list[str]) -> None:
    ahead.run("true")
    ahead.ready()
    subprocess.run(
        ["docker", "-H", f"unix://{box.engine}", *end, *holders(box.engine)], check=True, capture_output=True
    )
    assert "lo" in ahead.run("ls /sys/class/net").split()
    ahead.sandbox.settle()
    command = ["docker", "-H", f"unix://{box.engine}", "ps", "-aq", "--filter", f"label={HOLDER_LABEL}"]
    stopped = [*command, "--filter", "status=exited"]
    assert subprocess.run(stopped, capture_output=True, text=True, check=True).stdout == ""


def test_a_killed_builders_holder_is_swept(ahead, box: Box) -> None:
    ahead.run("true")
    ahead.ready()
    assert Sandbox(box.engine, Registry(box.url), box.folder).sweep() == 1
    assert holders(box.engine) == []


# -- containers ---------------------------------------------------------------------------------------------------

STARTED = Ahead(("sh", "-c", "cat /in/ahead/word > /tmp/started; exec sleep 600"), {"word": b"of the language"})
"""Runs before there is a step."""


class Rooms:
    """A sandbox that keeps containers ready."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self.sandbox = Sandbox(box.engine, Registry(box.url), box.folder, LIMITS, ahead=True)
        self.packages = box.folder / "packages"
        self.packages.mkdir()
        self.packages.chmod(0o755)
        (self.packages / "locked").write_text("by hash")
        self.held = 0

    def hold(self):
        self.held += 1
        return nullcontext(self.packages)

    def run(self, script: str, *, ahead: Ahead = STARTED, packages: Path | None = None, **variables: str) -> str:
        inputs = {"seed": self.box.seed, "packages": packages or self.packages}
        command = Command(("sh", "-c", script), directory="work", inputs=inputs, environment=variables, ahead=ahead,
                          lasting={"packages": self.hold})  # fmt: skip
        return self.sandbox.run(self.box.base, "standard/shell", command, self.output)

    @property
    def output(self) -> Path:
        return self.box.folder / "output.tar"

    def waiting(self) -> list[str]:
        """Have done what can wait, and return the containers that wait for a step."""
        self.sandbox.settle()
        return self.containers("--no-trunc")

    def containers(self, option: str) -> list[str]:
        own = f"label={LABEL}={self.sandbox.owner}"
        command = ["docker", "-H", f"unix://{self.box.engine}", "ps", "-q", option, "--filter", own]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


@pytest.fixture
def rooms(box: Box):
    made = Rooms(box)
    yield made
    made.sandbox.close()
    assert made.containers("--all") == []
    assert not list(box.folder.glob("ready-*"))


SEEN = """cat /tmp/started 2>/dev/null; echo; id; pwd; ls; ls /in/seed /in/packages /out; cat given.txt /in/packages/*
cat /proc/sys/kernel/hostname; ls /sys/class/net; env | grep -v -E '^(OLDPWD|_)='; ls /tmp"""


def test_a_step_in_a_container_that_was_made_ready_has_all_that_it_has_in_a_new_one(rooms: Rooms) -> None:
    new = rooms.run(SEEN, WHEN="it's now").split("\n")
    (waiting,) = rooms.waiting()
    ready = rooms.run(SEEN, WHEN="it's now").split("\n")
    # Exactly what ran before is more: its word, and its file.
    assert ready[0] == "of the language"
    assert new[0] == ""
    assert sorted(ready[1:]) == sorted([*new[1:], "started"])
    assert "WHEN=it's now" in ready
    (other,) = rooms.waiting()
    assert other != waiting  # handed out once


def test_what_a_step_makes_comes_out_of_it(rooms: Rooms) -> None:
    rooms.run("true")
    rooms.waiting()
    assert rooms.run("cat /tmp/started given.txt > made.txt; echo said") == "said\n"
    assert {entry.path for entry in entries_of_archive(rooms.output)} == {
        "work/forty",
        "work/given.txt",
        "work/made.txt",
    }
    with tarfile.open(rooms.output) as tar:
        assert tar.extractfile("./work/made.txt").read() == b"of the languagegiven"


@pytest.fixture(scope="module")
def shared_rooms(engine, base, registry_url, tmp_path_factory):
    made = Rooms(Box(engine, base, registry_url, tmp_path_factory.mktemp("rooms")))
    made.run("true")
    yield made
    made.sandbox.close()


@pytest.mark.parametrize(
    "attack",
    # All of them in the long suite; the container is made by the same lines as any other.
    [
        pytest.param(*each.values, id=each.id, marks=[pytest.mark.long] * (number % 3 > 0))
        for number, each in enumerate(ATTACKS)
    ],
)
def test_an_attack_fails_there_too(shared_rooms: Rooms, attack: str) -> None:
    assert len(shared_rooms.waiting()) == 1
    with pytest.raises(Refusal, match="failed with status"):
        shared_rooms.run(f"test -e /tmp/started || exit 0; {attack}")
    assert (shared_rooms.box.seed / "given.txt").read_text() == "given"
    assert (shared_rooms.packages / "locked").read_text() == "by hash"


@pytest.mark.parametrize(
    "attack",
    [
        pytest.param("echo x > /in/packages/locked", id="writes-a-package"),
        pytest.param("echo x > /in/run/step.sh", id="writes-its-script"),
        pytest.param("echo x > /in/ahead/word", id="writes-what-ran-before"),
        pytest.param("ln /in/seed/given.txt /out/given && echo x > /out/given", id="writes-its-input-by-a-link"),
    ],
)
def test_what_it_reads_cannot_be_written(shared_rooms: Rooms, attack: str) -> None:
    shared_rooms.waiting()
    with pytest.raises(Refusal, match="failed with status"):
        shared_rooms.run(f"test -e /tmp/started || exit 0; {attack}")
    assert (shared_rooms.box.seed / "given.txt").read_text() == "given"
    assert (shared_rooms.packages / "locked").read_text() == "by hash"


def test_nothing_of_one_step_is_there_for_the_next(rooms: Rooms) -> None:
    rooms.run("echo mine > /tmp/mine; echo mine > /out/mine; sleep 600 & true")
    rooms.waiting()
    assert rooms.run("ls /tmp /out; grep -a -c sleep /proc/[0-9]*/cmdline").count("mine") == 0


def test_two_steps_at_once_have_two_containers(rooms: Rooms) -> None:
    rooms.run("true")
    rooms.waiting()
    said: list[str] = []
    other = threading.Thread(target=lambda: said.append(rooms.run("sleep 2; cat /tmp/started || echo new")))
    other.start()
    time.sleep(0.5)
    # The output file is the first one's: it is not looked at here.
    assert rooms.run("test -e /tmp/started || echo new") == "new\n"
    other.join()
    assert said == ["of the language"]


@pytest.mark.parametrize("end", [["kill"], ["rm", "--force"]], ids=["killed", "removed"])
def test_a_container_that_has_gone_is_not_waited_for(rooms: Rooms, end: list[str]) -> None:
    rooms.run("true")
    (waiting,) = rooms.waiting()
    subprocess.run(["docker", "-H", f"unix://{rooms.box.engine}", *end, waiting], check=True, capture_output=True)
    assert rooms.run("test -e /tmp/started || echo new") == "new\n"
    assert len(rooms.waiting()) == 1


def test_other_packages_or_another_warm_up_get_a_container_of_their_own(rooms: Rooms) -> None:
    rooms.run("true")
    rooms.waiting()
    others = rooms.box.folder / "others"
    others.mkdir()
    others.chmod(0o755)
    assert rooms.run("test -e /tmp/started || echo new; ls /in/packages", packages=others) == "new\n"
    assert rooms.run("test -e /tmp/started || echo new", ahead=Ahead(STARTED.command, {"word": b"other"})) == "new\n"
    assert rooms.run("cat /tmp/started") == "of the language"


def test_a_warm_up_that_fails_or_never_ends_costs_nobody_a_build(rooms: Rooms) -> None:
    for words in ("exit 3", "while :; do :; done", "no-such-program", "kill -9 $PPID"):
        ahead = Ahead(("sh", "-c", words))
        rooms.run("true", ahead=ahead)
        rooms.waiting()
        assert rooms.run("echo well", ahead=ahead).endswith("well\n")


def test_what_waits_holds_its_packages_until_it_goes(rooms: Rooms) -> None:
    rooms.run("true")
    assert rooms.held == 0
    rooms.waiting()
    assert rooms.held == 1


def test_a_killed_builders_waiting_container_is_swept(rooms: Rooms) -> None:
    rooms.run("true")
    assert len(rooms.waiting()) == 1
    assert Sandbox(rooms.box.engine, Registry(rooms.box.url), rooms.box.folder).sweep() >= 1
    assert rooms.waiting() == []
