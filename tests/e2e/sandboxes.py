"""A Docker engine and a registry of the tests' own, a small image, and sandboxes on them."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sekisho import zones
from sekisho.canonical import digest_of
from sekisho.model import StandardImage
from sekisho.oci import OCI_CONFIG, OCI_MANIFEST, Descriptor, Manifest, make_manifest
from sekisho.registry import Registry
from stages.build.compose import LAYER_TYPE, Base, read_base
from stages.build.pack import Entry, write_layer
from stages.build.sandbox import LABEL, Command, Sandbox, SandboxLimits

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
    "rm",
    "umount",
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


ATTACKS = [
    pytest.param("echo x > /in/seed/given.txt", id="writes-its-input"),
    # Not refused for the file system, but for its rights alone, counts as success: root would have got through.
    pytest.param("{ echo x > /bin/sh2; } 2>&1 | grep Read-only && exit 1; exit 0", id="writes-the-image"),
    pytest.param("test -e /var/run/docker.sock || test -e /run/docker.sock", id="finds-the-engine"),
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
    pytest.param("for each in /dev/sd* /dev/vd* /dev/nvme* /dev/mem /dev/kmsg; do test -e $each && exit; done; exit 1",
                 id="sees-a-device"),
    pytest.param("dd if=/dev/zero of=/tmp/x bs=1024 count=5000", id="fills-the-scratch"),
    pytest.param("dd if=/dev/zero of=/out/x bs=1024 count=9000", id="fills-the-output"),
    pytest.param("for i in $(cat /in/seed/forty); do sleep 9 & done", id="makes-processes"),
    pytest.param("cd /sys/fs/cgroup; said=$(cat cpu.max cpu/cpu.cfs_quota_us 2>/dev/null); "
                 'case "$said" in ""|max*|-1) exit 0;; *) exit 1;; esac', id="has-all-processors"),
    pytest.param("cat /in/pipes/output", id="reads-what-it-gave"),
    pytest.param("touch /in/pipes/x", id="writes-beside-the-pipes"),
    pytest.param("rm /in/pipes/log", id="removes-a-pipe"),
]  # fmt: skip
"""Scripts of a step; each succeeds exactly if the attack does: `unguarded` shows that it can."""

FLOODS = [
    pytest.param("f() { f | f & }; f; sleep 5; exit 1", id="forks-without-end"),
    pytest.param("i=0; while touch f$i; do i=$((i + 1)); done; exit 1", id="makes-files-without-end"),
]
"""Scripts that end by themselves in no case; what they must not do is harm."""

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


def unguarded(engine: Path, folder: Path) -> list[str]:
    """Run every attack where nothing of the sandbox is, as root with all that it keeps away; return those that fail.

    An attack that fails here as well would say nothing about the sandbox.
    """
    entries = shell_entries()
    files = {"in/seed/given.txt": "given", "in/seed/forty": "x " * 40, "in/pipes/output": "", "in/pipes/log": "",
             "tmp/x": "", "out/x": ""}  # fmt: skip
    # What is a mount in the sandbox is one here as well, before the attack on it.
    mounted = "mount --bind /in/seed /in/seed && mount -o remount,bind,ro /in/seed && trap 'umount /in/seed' EXIT;"
    before = {"makes-its-input-writable": mounted}
    for attack in ATTACKS:
        files[f"attacks/{attack.id}"] = f"{before.get(str(attack.id), '')} {attack.values[0]}\n"
    script = 'cd /attacks; for each in *; do (cd /out; sh "/attacks/$each" >/dev/null 2>&1) || echo "$each"; done'
    for name, text in files.items():
        entries[name] = Entry(name, "file", size=len(text.encode()), data=text.encode())
    layer = write_layer(entries.values(), folder / "unguarded", time=0)
    docker = ["docker", "-H", f"unix://{engine}"]
    subprocess.run([*docker, "import", layer.path, "unguarded"], check=True, capture_output=True)
    command = [*docker, "run", "--rm", "--cap-add=SYS_ADMIN", "--security-opt=seccomp=unconfined",
               "--network=host", "--pid=host", "--env=API_TOKEN=x", f"--volume={engine}:/var/run/docker.sock",
               "--volume=/dev:/dev", "unguarded", "sh", "-c", script]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
    finally:
        subprocess.run([*docker, "rmi", "--force", "unguarded"], check=False, capture_output=True)
    return done.stdout.split()


@pytest.fixture
def box(engine: Path, base: Base, registry_url: str, tmp_path: Path) -> Box:
    return Box(engine, base, registry_url, tmp_path)


def left(engine: Path, *, state: str = "--all") -> str:
    command = ["docker", "-H", f"unix://{engine}", "ps", "-q", state, "--filter", f"label={LABEL}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
