"""What a hostile build step can do: a Docker engine of its own, real containers, each bullet of docs/builder.md."""

from __future__ import annotations

import contextlib
import functools
import http.server
import io
import json
import os
import shutil
import socket
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
from types import SimpleNamespace

import pip
import pytest

from sekisho import zones
from sekisho.builds import BuildRules
from sekisho.canonical import digest_of, digest_of_file, hex_of
from sekisho.errors import Refusal, TemporaryError
from sekisho.evidence import find_statements
from sekisho.images import open_layout
from sekisho.keys import FileSigner, TrustRoot, trusted_key
from sekisho.model import Image, StandardImage
from sekisho.oci import OCI_CONFIG, OCI_MANIFEST, Descriptor, Manifest, make_manifest
from sekisho.registry import Registry
from sekisho.statements import PROVENANCE
from stages import source
from stages.build import Builder, BuildInput, BuildStage
from stages.build.artifacts import Fetcher
from stages.build.compose import LAYER_TYPE, Base, read_base
from stages.build.engine import HOLDER_LABEL
from stages.build.indexes import Indexes
from stages.build.pack import Entry, entries_of_archive, write_layer
from stages.build.sandbox import LABEL, Command, Sandbox, SandboxLimits

pytestmark = pytest.mark.e2e

TOOLS = (
    "sh",
    "tar",
    "gzip",
    "cp",
    "mkdir",
    "cat",
    "id",
    "ls",
    "sleep",
    "head",
    "touch",
    "ln",
    "env",
    "mount",
    "grep",
    "dd",
    "test",
)


@pytest.fixture(scope="session")
def engine() -> Iterator[Path]:
    """A Docker engine of the test's own."""
    if os.geteuid() != 0 or shutil.which("dockerd") is None:
        pytest.skip("needs root and dockerd")
    home = Path(f"/tmp/sekisho-test-docker-{os.getpid()}")
    home.mkdir()
    path = home / "docker.sock"
    command = ["dockerd", "--data-root", str(home / "root"), "--exec-root", str(home / "exec"), "--pidfile",
               str(home / "pid"), "-H", f"unix://{path}", "--bridge=none", "--iptables=false",
               "--ip6tables=false"]  # fmt: skip
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        for _ in range(300):
            if path.exists():
                break
            if process.poll() is not None:
                pytest.fail((home / "log").read_text()[-2000:])
            time.sleep(0.1)
        yield path
    finally:
        process.terminate()
        process.wait(timeout=30)
        for line in Path("/proc/self/mounts").read_text().splitlines():
            place = line.split()[1]
            if place.startswith(str(home)):
                subprocess.run(["umount", "-l", place], check=False)
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def registry_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry of the test's own."""
    binary = zones.home() / "bin" / "registry"
    if not binary.exists():
        pytest.skip("no registry binary: run scripts/setup")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    home = tmp_path_factory.mktemp("registry")
    config = {"version": "0.1", "log": {"level": "error"}, "http": {"addr": f"127.0.0.1:{port}"},
              "storage": {"filesystem": {"rootdirectory": str(home / "data")}}}  # fmt: skip
    (home / "config.yml").write_text(json.dumps(config))
    environment = {"PATH": os.environ["PATH"], "OTEL_TRACES_EXPORTER": "none"}
    with (home / "log").open("wb") as log:
        process = subprocess.Popen([binary, "serve", home / "config.yml"], env=environment, stdout=log, stderr=log)
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait(timeout=10)


@pytest.fixture(scope="session")
def base(registry_url: str, tmp_path_factory: pytest.TempPathFactory) -> Base:
    """A small image of this machine's own shell and tools, in the zone's registry."""
    registry = Registry(registry_url)
    image = push_image(registry, "shell", shell_entries(), tmp_path_factory.mktemp("base"))
    raw = registry.get_manifest(image.repository, image.digest)
    assert raw
    manifest = Manifest.parse(raw.data)
    return read_base("shell", image.digest, manifest, registry.get_blob(image.repository, manifest.config.digest))


def push_image(registry: Registry, name: str, entries: dict[str, Entry], folder: Path) -> StandardImage:
    repository = f"standard/{name}"
    layer = write_layer(entries.values(), folder / "layer", time=0)
    registry.push_blob(repository, layer.path, layer.digest)
    rootfs = {"type": "layers", "diff_ids": [layer.diff_id]}
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs}).encode()
    registry.put_blob(repository, config)
    described = Descriptor(LAYER_TYPE, layer.digest, layer.size)
    manifest = make_manifest(Descriptor(OCI_CONFIG, digest_of(config), len(config)), (described,))
    digest = registry.put_manifest(repository, manifest, OCI_MANIFEST)
    return StandardImage(name=name, digest=digest, repository=repository)


def file_entry(path: Path, name: str) -> Entry:
    real = path.resolve()
    return Entry(name, "file", os.access(real, os.X_OK), real.stat().st_size, source=real)


def libraries(path: Path) -> list[str]:
    listing = subprocess.run(["ldd", str(path.resolve())], capture_output=True, text=True, check=False).stdout
    return [word for word in listing.split() if word.startswith("/") and not word.endswith(":")]


def shell_entries() -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    for tool in TOOLS:
        path = Path(shutil.which(tool) or pytest.fail(f"no {tool}"))
        entries[f"bin/{tool}"] = file_entry(path, f"bin/{tool}")
        for word in libraries(path):
            entries[word.lstrip("/")] = file_entry(Path(word), word.lstrip("/"))
    return entries


LIMITS = SandboxLimits(seconds=20, memory="256Mi", processes=32, output="8Mi", scratch="4Mi", files=200, log="1Mi")


class Box:
    def __init__(self, engine: Path, base: Base, registry_url: str, folder: Path) -> None:
        self.base, self.folder = base, folder
        self.engine, self.url = engine, registry_url
        self.seed = folder / "seed"
        self.seed.mkdir()
        self.seed.chmod(0o755)
        (self.seed / "given.txt").write_text("given")
        (self.seed / "forty").write_text("x " * 40)

    def run(self, script: str, limits: SandboxLimits = LIMITS) -> tuple[str, Path]:
        sandbox = Sandbox(self.engine, Registry(self.url), self.folder, limits)
        output = self.folder / "output.tar"
        command = Command(("sh", "-c", script), directory="work", inputs={"seed": self.seed})
        try:
            return sandbox.run(self.base, "standard/shell", command, output), output
        finally:
            sandbox.settle()


@pytest.fixture
def box(engine: Path, base: Base, registry_url: str, tmp_path: Path) -> Box:
    return Box(engine, base, registry_url, tmp_path)


def left(engine: Path, *, state: str = "--all") -> str:
    command = ["docker", "-H", f"unix://{engine}", "ps", "-q", state, "--filter", f"label={LABEL}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_what_the_step_makes_comes_out_and_nothing_stays(box: Box) -> None:
    log, output = box.run("cat given.txt > made.txt; echo said; echo also >&2")
    entries = {entry.path for entry in entries_of_archive(output)}
    assert entries == {"work/forty", "work/given.txt", "work/made.txt"}
    with tarfile.open(output) as tar:
        assert tar.extractfile("./work/made.txt").read() == b"given"
    assert log.split() == ["said", "also"]
    assert left(box.engine) == ""


@pytest.mark.parametrize(
    "attack",
    [
        pytest.param("echo x > /in/seed/given.txt", id="writes-its-input"),
        pytest.param("echo x > /bin/sh2", id="writes-the-image"),
        pytest.param("ls /var/run/docker.sock /run/docker.sock", id="finds-the-engine"),
        pytest.param("ls /sys/class/net | grep -v -x lo", id="has-a-network"),
        pytest.param("cat /proc/net/route | grep 00000000", id="has-a-route"),
        pytest.param("grep -E 'Cap(Prm|Eff|Bnd|Amb):.*[1-9a-f]' /proc/self/status", id="has-a-capability"),
        pytest.param("grep -E 'NoNewPrivs:.*0' /proc/self/status", id="may-gain-privileges"),
        pytest.param("grep -E 'Seccomp:.*0' /proc/self/status", id="has-no-seccomp-filter"),
        pytest.param("test $(id -u) = 0", id="is-root"),
        pytest.param("mount -t tmpfs x /tmp", id="mounts"),
        pytest.param("env | grep -i -E 'key|token|proxy|secret|passw'", id="sees-a-secret"),
        pytest.param("grep 0000 /proc/net/unix", id="sees-a-socket-of-the-signer"),
        pytest.param("grep -a -h -E 'dockerd|sekisho|pytest' /proc/[0-9]*/cmdline | grep -a -v grep",
                     id="sees-the-lines-process"),
        pytest.param("mount -o remount,rw /in/seed", id="makes-its-input-writable"),
        pytest.param("ln /in/seed/given.txt /out/given && echo x > /out/given", id="writes-its-input-by-a-hard-link"),
        pytest.param("ls /dev/sd* /dev/vd* /dev/nvme* /dev/mem /dev/kmsg", id="sees-a-device"),
        pytest.param("dd if=/dev/zero of=/tmp/x bs=1024 count=5000", id="fills-the-scratch"),
        pytest.param("dd if=/dev/zero of=/out/x bs=1024 count=9000", id="fills-the-output"),
        pytest.param("for i in $(cat /in/seed/forty); do sleep 9 & done", id="makes-processes"),
        pytest.param("f() { f | f & }; f; sleep 5; exit 1", id="forks-without-end"),
        pytest.param("i=0; while touch f$i; do i=$((i + 1)); done; exit 1", id="makes-files-without-end"),
        pytest.param("cat /in/pipes/output", id="reads-what-it-gave"),
        pytest.param("touch /in/pipes/x", id="writes-beside-the-pipes"),
        pytest.param("rm /in/pipes/log", id="removes-a-pipe"),
    ],
)  # fmt: skip
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


def test_a_step_that_takes_all_memory_is_killed(box: Box) -> None:
    with pytest.raises(Refusal, match="more memory than its 32 MiB"):
        box.run("dd if=/dev/zero of=/out/x bs=1048576 count=100", SandboxLimits(seconds=20, memory="32Mi"))
    assert left(box.engine) == ""


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
