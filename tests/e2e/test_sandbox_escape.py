"""What a hostile build step can do: a Docker engine of its own, real containers, each bullet of docs/builder.md."""

from __future__ import annotations

import contextlib
import functools
import http.server
import io
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import docker
import pip
import pytest
from sandboxes import (
    ATTACKS,
    FLOODS,
    LIMITS,
    Box,
    file_entry,
    left,
    libraries,
    push_image,
    shell_entries,
    unguarded,
)

from sekisho.builds import BuildRules
from sekisho.canonical import digest_of_file, hex_of
from sekisho.errors import Refusal, TemporaryError
from sekisho.evidence import find_statements
from sekisho.images import open_layout
from sekisho.keys import FileSigner, TrustRoot, trusted_key
from sekisho.model import Image, StandardImage
from sekisho.registry import Registry
from sekisho.statements import PROVENANCE
from stages import source
from stages.build import Builder, BuildInput, BuildStage
from stages.build.artifacts import Fetcher
from stages.build.indexes import Indexes
from stages.build.pack import Entry, entries_of_archive
from stages.build.sandbox import LABEL, Command, Sandbox, SandboxLimits

pytestmark = pytest.mark.e2e


def test_what_the_step_makes_comes_out_and_nothing_stays(box: Box) -> None:
    log, output = box.run("cat given.txt > made.txt; echo said; echo also >&2")
    entries = {entry.path for entry in entries_of_archive(output)}
    assert entries == {"work/forty", "work/given.txt", "work/made.txt"}
    with tarfile.open(output) as tar:
        assert tar.extractfile("./work/made.txt").read() == b"given"
    assert log.split() == ["said", "also"]
    assert left(box.engine) == ""


def test_every_attack_succeeds_where_there_is_no_sandbox(engine: Path, tmp_path: Path) -> None:
    assert unguarded(engine, tmp_path) == []


@pytest.mark.parametrize("attack", [*ATTACKS, *FLOODS])
def test_an_attack_fails(box: Box, attack: str) -> None:
    """Each command succeeds exactly if the attack does; what it leaves in the output is looked at as well."""
    with pytest.raises(Refusal, match="failed with status"):
        box.run(attack)
    assert left(box.engine) == ""
    assert (box.seed / "given.txt").read_text() == "given"


@pytest.mark.parametrize(
    ("script", "advice"),
    [
        pytest.param("dd if=/dev/zero of=/out/x bs=1024 count=9000", "holds 8 MiB and 200 files", id="fills-the-disk"),
        pytest.param("i=0; while touch f$i; do i=$((i + 1)); done; exit 1", "200 files", id="a-million-files"),
        pytest.param("for i in $(cat /in/seed/forty); do sleep 9 & done", "32 processes", id="forks-without-end"),
    ],
)
def test_a_limit_that_was_met_is_named_with_the_remedy(box: Box, script: str, advice: str) -> None:
    with pytest.raises(Refusal) as caught:
        box.run(script)
    assert advice in caught.value.remedy
    assert box.run("echo well")[0] == "well\n"  # the next build finds everything as it was


def test_a_step_that_never_ends_is_killed(box: Box) -> None:
    with pytest.raises(Refusal, match="longer than 1 seconds") as caught:
        box.run("sleep 600", SandboxLimits(seconds=1, memory="128Mi"))
    assert "shorter" in caught.value.remedy
    assert left(box.engine) == ""


@pytest.mark.parametrize("heard", [True, False], ids=["engine-hears", "engine-does-not-hear"])
@pytest.mark.parametrize("end", ["", "|| exit 2"], ids=["ends-by-it", "ends-after-it"])
def test_a_step_that_takes_all_memory_is_killed(
    box: Box, monkeypatch: pytest.MonkeyPatch, end: str, *, heard: bool
) -> None:
    if not heard:  # the kernel's event of it comes late, or is lost when the container goes
        monkeypatch.setattr(docker.APIClient, "inspect_container", lambda *_: {"State": {"OOMKilled": False}})
    with pytest.raises(Refusal, match="used more memory than its 32 MiB") as caught:
        # With a large buffer it is the largest process, and its end makes room for the shell to go on.
        box.run(f"dd if=/dev/zero of=/out/x bs=8388608 count=20 {end}", SandboxLimits(seconds=20, memory="32Mi"))
    assert "fewer workers" in caught.value.remedy
    assert left(box.engine) == ""


def test_a_step_that_kills_itself_is_not_said_to_want_memory(box: Box) -> None:
    with pytest.raises(Refusal, match="failed with status 137"):
        box.run("kill -9 $$")


def test_a_step_that_prints_without_end_is_killed_and_nobody_keeps_what_it_said(box: Box) -> None:
    with pytest.raises(Refusal, match="printed more than 1 MiB") as caught:
        box.run("echo begin; cat /dev/zero", LIMITS)
    assert "say less" in caught.value.remedy
    assert len(str(caught.value)) < 2000
    assert left(box.engine) == ""
    assert sum(path.stat().st_size for path in box.folder.rglob("*") if path.is_file()) < 1 << 20


def test_a_step_that_writes_without_end_into_the_way_out_is_killed(box: Box) -> None:
    limits = SandboxLimits(seconds=20, memory="128Mi", output="1Mi", files=100)
    with pytest.raises(Refusal, match="made more than 1 MiB"):
        box.run("cat /dev/zero > /in/pipes/output", limits)
    assert left(box.engine) == ""


def test_a_step_that_leaves_a_process_behind_leaves_nothing(box: Box) -> None:
    _, output = box.run("(trap '' HUP TERM; sleep 300; echo late > late) & echo now > now")
    assert "work/now" in {entry.path for entry in entries_of_archive(output)}
    assert left(box.engine) == ""
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            assert b"sleep\x00300" not in place.read_bytes()


def test_only_what_is_asked_for_comes_out(box: Box) -> None:
    sandbox = Sandbox(box.engine, Registry(box.url), box.folder, LIMITS)
    command = Command(("sh", "-c", "mkdir -p a/b c; echo 1 > a/b/x; echo 2 > c/y; ln -s /etc/passwd leak"),
                      directory="work", outputs=("work/a", "work/gone"))  # fmt: skip
    sandbox.run(box.base, "standard/shell", command, box.folder / "output.tar")
    assert {entry.path for entry in entries_of_archive(box.folder / "output.tar")} == {"work/a/b/x"}
    sandbox.settle()


@pytest.mark.parametrize(
    "script",
    ["ln -s /etc/passwd leak", "ln -s ../../../etc leak", "touch a; ln a b; ln -s b/../../.. c"],
)
def test_links_out_of_the_output_are_refused_when_it_is_read(box: Box, script: str) -> None:
    _, output = box.run(script)
    with pytest.raises(Refusal, match="link"):
        entries_of_archive(output)


def test_a_step_that_writes_into_the_archive_spoils_only_its_own_build(box: Box) -> None:
    _, output = box.run("echo forged > /in/pipes/output; true")
    assert output.read_bytes().startswith(b"forged\n")
    with pytest.raises(Refusal, match="tar archive"):
        entries_of_archive(output)


def test_two_steps_do_not_see_each_other(box: Box) -> None:
    box.run("echo mine > /tmp/mine; echo mine > /out/mine")
    log, _ = box.run("ls /tmp /out")
    assert "mine" not in log


def test_two_steps_at_once_do_not_see_each_other(box: Box, tmp_path: Path) -> None:
    """Files, processes and sockets of one are not there for the other, while both run."""
    (tmp_path / "other").mkdir()
    neighbour = Box(box.engine, box.base, box.url, tmp_path / "other")
    said: list[str] = []
    marks = "echo mine > /tmp/mine; echo mine > /dev/shm/mine; echo mine > /out/mine;"
    thread = threading.Thread(target=lambda: said.append(neighbour.run(f"{marks} sleep 6.25; cat /tmp/mine")[0]))
    thread.start()
    try:
        deadline = time.monotonic() + 60
        while not _runs(b"sleep\x006.25\x00"):
            assert time.monotonic() < deadline, "the first step never came up"
            time.sleep(0.05)
        looks = ("test -e /tmp/mine", "test -e /dev/shm/mine", "test -e /out/mine", "grep -q 0000 /proc/net/unix",
                 "grep -a -q '6[.]25' /proc/[0-9]*/cmdline", "echo yours > /tmp/mine")  # fmt: skip
        log, _ = box.run("; ".join(f"{{ {look}; }} && echo '{number} did'" for number, look in enumerate(looks)))
        assert _runs(b"sleep\x006.25\x00")  # so they did run at once
    finally:
        thread.join()
    assert log.split("\n") == ["5 did", ""]  # a file of its own, of the same name
    assert said == ["mine\n"]


def _runs(command: bytes) -> bool:
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if place.read_bytes() == command:
                return True
    return False


def test_leftovers_of_a_killed_builder_are_swept(box: Box) -> None:
    box.run("true")
    images = subprocess.run(["docker", "-H", f"unix://{box.engine}", "images", "-q"], capture_output=True, text=True,
                            check=True).stdout.split()  # fmt: skip
    sandbox = Sandbox(box.engine, Registry(box.url), box.folder)
    other = Sandbox(box.engine, Registry(box.url), box.folder / "other")
    for owner in (sandbox.owner, other.owner):
        subprocess.run(["docker", "-H", f"unix://{box.engine}", "create", "--network", "none", "--label",
                        f"{LABEL}={owner}", images[0], "sleep", "1"], check=True, capture_output=True)  # fmt: skip
    assert sandbox.sweep() == 1
    assert left(box.engine) != ""  # somebody else's stay
    assert other.sweep() == 1
    assert left(box.engine) == ""


# -- a network namespace that was made ready ---------------------------------------------------------------------------


def test_a_step_whose_container_is_killed_from_outside_is_tried_again(box: Box) -> None:
    def kill() -> None:
        for _ in range(100):
            time.sleep(0.2)
            subprocess.run(["docker", "-H", f"unix://{box.engine}", "kill", *left(box.engine).split()], check=False,
                           capture_output=True)  # fmt: skip
            if done.is_set():
                return

    done = threading.Event()
    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(TemporaryError, match="from outside"):
        box.run("sleep 15")
    done.set()
    killer.join()
    with pytest.raises(Refusal, match="status 137"):
        box.run("sh -c 'kill -9 $$'")


class Standards:
    """One image to run on and to build in."""

    def __init__(self, image: StandardImage) -> None:
        self.image = image

    def offered(self, language: str) -> tuple[str, ...]:
        del language
        return ("3.11",)

    def for_language(self, language: str, version: str = "") -> tuple[StandardImage, StandardImage | None]:
        del language, version
        return self.image, self.image


UNNEEDED = {"__pycache__", "test", "site-packages", "idlelib", "tkinter"}


def installer_of_packages(folder: Path) -> Path:
    """Return uv: the machine's, or that of the standard image that was built here."""
    found = shutil.which("uv")
    if found:
        return Path(found)
    layout = open_layout("python-build")
    for layer in layout.parts.layers:
        with tarfile.open(layout.root / "blobs" / "sha256" / hex_of(layer.digest)) as tar:
            for member in tar:
                if member.isfile() and member.name.endswith("/scripts/uv"):
                    tar.extract(member, folder, filter="tar")
                    return folder / member.name
    pytest.fail("the standard image python-build has no uv")


def python_image(registry: Registry, folder: Path) -> StandardImage:
    """This test's own Python and the shell's tools, as a standard image."""
    entries = shell_entries()
    binary = Path(sys.executable).resolve()
    library = Path(sysconfig.get_paths()["stdlib"])
    installed = {"stdlib": library, "pip": Path(pip.__file__).parent}
    for place in installed.values():
        for path in place.rglob("*"):
            skipped = {"__pycache__", "test", "site-packages", "idlelib", "tkinter"} & set(
                path.relative_to(place).parts
            )
            if path.is_file() and not skipped:
                name = str(path).lstrip("/") if place == library else f"{library}/{path.relative_to(place.parent)}"[1:]
                entries[name] = Entry(name, "file", False, path.stat().st_size, source=path.resolve())
    for word in [str(binary), *libraries(binary)]:
        entries[word.lstrip("/")] = file_entry(Path(word), word.lstrip("/"))
    for module in library.glob("lib-dynload/*.so"):
        for word in libraries(module):
            entries[word.lstrip("/")] = file_entry(Path(word), word.lstrip("/"))
    entries["usr/bin/python3"] = Entry("usr/bin/python3", "link", target=str(binary))
    installer = installer_of_packages(folder)
    entries["usr/bin/uv"] = file_entry(installer, "usr/bin/uv")
    entries |= {word.lstrip("/"): file_entry(Path(word), word.lstrip("/")) for word in libraries(installer)}
    return push_image(registry, "python", entries, folder)


@dataclass
class Line:
    """The build stage with a real engine, an index with one package, and a repository."""

    registry: Registry
    url: str
    engine: Path
    image: StandardImage
    indexes: Indexes
    folder: Path
    requirement: str
    signer: FileSigner
    builders: list[Builder] = field(default_factory=list)

    def commit(self, files: dict[str, str]) -> str:
        """Commit files, and return the commit."""
        work = self.folder / "work"
        for name, text in files.items():
            (work / name).write_text(text)
        git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.com", "-C", str(work)]
        for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "one"]):
            subprocess.run([*git, *words], check=True)
        return subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()

    def build(self, app: str, commit: str, cache: str, tree: str) -> Image:
        """Build a commit with a cache and a folder of these names."""
        place = self.folder / cache
        builder = Builder(self.registry, Standards(self.image), BuildRules(), cache=place, docker_socket=self.engine,
                          fetcher=Fetcher(place, self.indexes), resolver=lambda _: pytest.fail("there is a lock"),
                          cleared=lambda _: None)  # fmt: skip
        # Another builder's name: no record of an earlier build is found.
        stage = BuildStage(builder, self.signer, builder_id=f"https://sekisho.dev/builders/test-{tree}/v1")
        repository = self.folder / "work" / ".git"
        revision = source.revision(repository, app, commit, "main")
        self.builders.append(builder)
        return stage.perform(BuildInput(revision, source.checkout(repository, commit, self.folder / tree)))

    def files(self, image: Image) -> dict[str, bytes]:
        """Return what is in the workload's own layers."""
        found: dict[str, bytes] = {}
        for layer in image.layers[1:]:
            data = self.registry.get_blob(image.repository, layer.digest)
            with tarfile.open(fileobj=io.BytesIO(data)) as tar:
                found |= {member.name: tar.extractfile(member).read() for member in tar if member.isreg()}
        return found


@pytest.fixture
def line(engine: Path, registry_url: str, tmp_path: Path) -> Iterator[Line]:
    """A line whose index has one package, `thing`."""
    registry = Registry(registry_url)
    image = python_image(registry, tmp_path)
    wheel = tmp_path / "wheels" / "thing-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as packed:
        packed.writestr("thing.py", "NAME = 'thing'\n")
        packed.writestr("thing-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n")
        packed.writestr("thing-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        packed.writestr("thing-1.0.dist-info/RECORD", "thing.py,,\n")
    page = tmp_path / "simple" / "thing" / "index.html"
    page.parent.mkdir(parents=True)
    page.write_text(f'<a href="/wheels/{wheel.name}#sha256={digest_of_file(wheel)[7:]}">{wheel.name}</a>')
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    indexes = Indexes.from_environment(
        environment={"SEKISHO_INDEX_PYPI": f"http://127.0.0.1:{server.server_address[1]}/simple/"}
    )
    (tmp_path / "work").mkdir()
    requirement = f"thing==1.0 --hash={digest_of_file(wheel)}\n"
    signer = FileSigner.create(tmp_path / "builder.pem", "builder")
    found = Line(registry, registry_url, engine, image, indexes, tmp_path, requirement, signer)
    yield found
    for builder in found.builders:
        builder.sandbox.close()
    server.shutdown()
    server.server_close()


STEP = '[tool.sekisho.build]\ncommand = ["python3", "make.py"]\n'


def test_packages_and_a_build_step_give_the_same_digest_cold_and_warm(line: Line) -> None:
    commit = line.commit({
        "requirements.txt": line.requirement,
        "Procfile": "web: python3 -m app\n",
        "make.py": "import thing, pathlib\npathlib.Path('made.txt').write_text(thing.NAME)\n",
        "pyproject.toml": STEP,
    })  # fmt: skip
    made = [line.build("packed", commit, cache, f"tree{number}") for number, cache in enumerate(("one", "one", "two"))]
    assert made[0] == made[1] == made[2]
    names = set(line.files(made[0]))
    assert {"opt/deps/thing.py", "opt/deps/thing-1.0.dist-info/METADATA", "app/made.txt", "app/Procfile"} <= names
    assert made[0].locked == ("pkg:pypi/thing@1.0",)


RED_TEAM = """
import json, os, pathlib, socket, subprocess

said = {{}}


def attack(name, call):
    try:
        said[name] = f"done: {{call()!r}}"
    except BaseException as error:
        said[name] = f"failed: {{type(error).__name__}}"


def engine():
    with socket.socket(socket.AF_UNIX) as client:
        client.connect({engine!r})


def any_key():
    for top in pathlib.Path("/").iterdir():
        if top.name not in ("proc", "sys"):
            for place in top.rglob("*"):
                if place.suffix in (".pem", ".key") and b"PRIVATE" in place.read_bytes():
                    return str(place)
    raise OSError("no key")


def rewrite():
    for place in pathlib.Path("/in").rglob("*"):
        if place.is_file():
            with place.open("ab") as file:
                file.write(b"worm")
            return str(place)
    raise OSError("nothing to write")


def forge():
    for name in (".sekisho/packages", "provenance.json", "attestation.intoto.jsonl"):
        path = pathlib.Path(name)
        path.parent.mkdir(exist_ok=True)
        path.write_text("pkg:pypi/forged@6.6.6")


attack("read the key", lambda: pathlib.Path({key!r}).read_text())
attack("see any key", any_key)
attack("reach the signer", lambda: socket.create_connection(("127.0.0.1", {port}), 3))
attack("reach the engine", engine)
attack("reach the network", lambda: socket.create_connection(("1.1.1.1", 443), 3))
attack("ask for a name", lambda: socket.getaddrinfo("pypi.org", 443))
attack("read the cache", lambda: os.listdir({cache!r}))
attack("poison the cache", lambda: pathlib.Path({cache!r}, "x").write_text("x"))
attack("poison what is kept", rewrite)
attack("stop the line", lambda: os.kill({pid}, 9))
attack("leave a process", lambda: subprocess.Popen(["sleep", "3217"], start_new_session=True).pid > 0)
attack("forge the provenance", forge)
pathlib.Path("attacks.json").write_text(json.dumps(said))
"""


def test_the_red_team_gets_nothing_out_of_a_build(line: Line) -> None:
    """Each bullet of SLSA's Build L3, by a build step that knows where everything is."""
    attacker = RED_TEAM.format(
        key=str(line.folder / "builder.pem"),
        engine=str(line.engine),
        port=line.url.rpartition(":")[2],
        cache=str(line.folder / "one"),
        pid=os.getpid(),
    )
    honest = {"requirements.txt": line.requirement, "Procfile": "web: python3 -m app\n", "pyproject.toml": STEP,
              "make.py": "import thing, pathlib\npathlib.Path('made.txt').write_text(thing.NAME)\n"}  # fmt: skip
    first = line.commit(honest)
    before = line.build("red-team", first, "one", "before")
    attacked = line.build("red-team", line.commit({**honest, "make.py": attacker}), "one", "attacked")
    files = line.files(attacked)
    said = json.loads(files["app/attacks.json"])
    assert {name: word for name, word in said.items() if not word.startswith("failed")} == {
        "leave a process": "done: True",
        "forge the provenance": "done: None",
    }
    # What it left behind ended with its container, which may be removed a little later.
    assert left(line.engine, state="--filter=status=running") == ""
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            assert b"sleep\x003217" not in place.read_bytes()
    for builder in line.builders:
        builder.sandbox.settle()
    assert left(line.engine) == ""
    # What it wrote beside its work is a file of its image and nothing else: the line's word does not come from there.
    assert files["app/provenance.json"] == b"pkg:pypi/forged@6.6.6"
    trust = TrustRoot(keys=(trusted_key(line.signer),))
    (found,) = find_statements(line.registry, attacked.repository, attacked.digest, trust=trust, role="builder",
                               predicate_type=PROVENANCE)  # fmt: skip
    predicate = found.statement.predicate
    external = predicate["buildDefinition"]["externalParameters"]
    assert set(external) == {"repository", "commit", "path"}
    assert predicate["runDetails"]["builder"]["id"] == "https://sekisho.dev/builders/test-attacked/v1"
    assert "forged" not in json.dumps(predicate)
    assert attacked.locked == ("pkg:pypi/thing@1.0",)
    # The next build of the honest commit is what it was, with the cache that the attacker had, and without any.
    assert line.build("red-team", first, "one", "after") == before == line.build("red-team", first, "new", "clean")
