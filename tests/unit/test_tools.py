"""The tools: what counts as there, what is chosen, what is refused. The only server here is on the loopback address."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.server
import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sekisho.errors import PermanentError, TemporaryError, UsageError, VerificationError
from sekisho.tools import ToolStatus, ensure, gobuild, locate, lock, manifest, tool, toolchain, trivy, upstream
from sekisho.tools.__main__ import main
from sekisho.tools.ensure import report

ROOT = Path(__file__).parents[2]
LOCK = lock.load_lock()
KUBERNETES = LOCK.sources[0]
KUBELET = next(pin for pin in KUBERNETES.tools if pin.name == "kubelet")
OFFICIAL = b"#!/bin/sh\necho Kubernetes v1.36.3\n# official\n"
COREDNS = b"#!/bin/sh\necho CoreDNS-1.15.0\n"


class Upstream:
    """A download site that can be told to misbehave."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.cut: set[str] = set()
        self.redirects: dict[str, str] = {}
        self.asked: list[str] = []
        self.silent = False
        self.dribble = False
        self.release = threading.Event()
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.answer(body=False)

            def do_GET(self) -> None:
                self.answer(body=True)

            def answer(self, *, body: bool) -> None:
                site.asked.append(f"{self.command} {self.path}")
                if site.silent:
                    site.release.wait(30)
                    return
                if site.dribble:
                    with contextlib.suppress(OSError):
                        self.wfile.write(b"HTTP/1.1 200 ")
                        while not site.release.wait(0.05):
                            self.wfile.write(b"O")
                    return
                if self.path in site.redirects:
                    self.send_response(302)
                    self.send_header("Location", site.redirects[self.path])
                    self.end_headers()
                    return
                data = site.files.get(self.path)
                self.send_response(404 if data is None else 200)
                self.send_header("Content-Length", str(len(data or b"")))
                self.end_headers()
                if body and data:
                    self.wfile.write(data[: len(data) // 2] if self.path in site.cut else data)

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def offer(self, path: str, data: bytes, *, checksum: str = "") -> None:
        self.files[path] = data
        self.files[f"{path}.sha256"] = f"{checksum or hashlib.sha256(data).hexdigest()}  name\n".encode()

    def close(self) -> None:
        self.release.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def site() -> Iterator[Upstream]:
    upstream_site = Upstream()
    yield upstream_site
    upstream_site.close()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, site: Upstream) -> Path:
    """A home of its own, every official address led to the site, and a `go` that writes what it is told to."""
    for source in LOCK.sources:
        if source.mirror:
            monkeypatch.setenv(source.mirror, site.url)
    monkeypatch.setenv(LOCK.go.mirror, site.url)
    monkeypatch.setenv("SEKISHO_HOME", str(tmp_path / "home"))
    for name in ("http_proxy", "https_proxy", "all_proxy", "SEKISHO_TOOLS_SOURCE", locate.SCANNER_PATH):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    fake_go(tmp_path / "go" / "go", 'printf "#!/bin/sh\\necho Kubernetes v1.36.3\\n" > "$out"')
    monkeypatch.setenv("PATH", f"{tmp_path / 'go'}:{os.environ['PATH']}")
    return tmp_path


def fake_go(path: Path, build: str) -> None:
    """Write a `go` that is newer than any of the machine's and records its environment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"""#!/bin/sh
case $1 in
  version) echo "go version go1.99.1 linux/amd64" ;;
  env) echo '{{"GOPROXY": "https://goproxy.example", "GOSUMDB": "off", "GOCACHE": "/nowhere"}}' ;;
  build)
    env > {path.parent}/env
    echo "$@" > {path.parent}/arguments
    echo $$ > {path.parent}/pid
    while [ "$1" != -o ]; do shift; done
    out=$2
    {build}
    ;;
esac
"""
    )
    path.chmod(0o755)


def by_name(statuses: tuple[ToolStatus, ...], name: str) -> ToolStatus:
    return next(status for status in statuses if status.name == name)


def kubelet_path(name: str = "kubelet") -> str:
    return f"/v1.36.3/bin/linux/{lock.architecture()}/{name}"


def bring(*names: str, thorough: bool = False) -> tuple[ToolStatus, list[str]]:
    said: list[str] = []
    statuses = ensure(said.append, names=names, thorough=thorough)
    return by_name(statuses, names[0]), said


# -- versions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("Kubernetes v1.36.3\n", "1.36.3"),
        ("CoreDNS-1.15.0\nlinux/amd64, go1.26.8, \n", "1.15.0"),
        ("registry github.com/distribution/distribution/v3 v3.1.2+unknown", "3.1.2"),
        ("ip utility, iproute2-6.1.0, libbpf 1.1.2", "6.1.0"),
        ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", "15.18"),
        ("containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1", "1.6.20"),
        ("tini version 0.1.7_catatonit", "0.1.7"),
        ("Version: 0.76.0\n", "0.76.0"),
        ("no version at all, 3 words", ""),
        ("10.0.0.1.5", ""),
    ],
)
def test_a_version_is_found_in_what_a_tool_says(text: str, version: str) -> None:
    assert lock.parse_version(text) == version


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("go version go1.26.8 linux/amd64", (1, 26, 8)),
        ("go version go1.19 linux/amd64", (1, 19, 0)),
        ("go version devel go1.27-3f2a Tue linux/amd64", (1, 27, 0)),
        ("command not found", None),
    ],
)
def test_the_version_of_go(text: str, version: lock.GoVersion | None) -> None:
    assert lock.parse_go_version(text) == version


def test_the_pinned_go_builds_every_pinned_module() -> None:
    need = lock.required_go(tuple(lock.module_directory(source) for source in LOCK.sources))
    assert need > (1, 20, 0)
    assert lock.parse_go_version(f"go{LOCK.go.version}") >= need


def test_the_modules_pin_the_version_that_the_lock_names() -> None:
    for source in LOCK.sources:
        directory = lock.module_directory(source)
        required = rf"^(require|\t){{1}} ?{source.module} v{source.version}$"
        assert re.search(required, (directory / "go.mod").read_text(), re.MULTILINE)
        assert f"{source.module} v{source.version} h1:" in (directory / "go.sum").read_text()
        own = f"sekisho.local/{source.name}"
        for pin in source.tools:
            if pin.package == own:
                assert "package main" in (directory / "main.go").read_text()
            else:
                assert f'"{pin.package}"' in (directory / "tools.go").read_text()


# -- what is there ---------------------------------------------------------------------------------------------


def made(directory: Path, data: bytes = OFFICIAL, **fields: str) -> manifest.Entry:
    directory.mkdir(parents=True, exist_ok=True)
    part = manifest.part_path(directory, "kubelet")
    part.write_bytes(data)
    known = {"name": "kubelet", "version": "1.36.3", "how": "test", "recipe": ""}
    return manifest.record(directory, part, **{**known, **fields})


def test_a_recorded_file_counts(tmp_path: Path) -> None:
    entry = made(tmp_path)
    assert manifest.load_manifest(tmp_path).get("kubelet") == entry
    assert manifest.why_not(tmp_path / "kubelet", entry, version="1.36.3", recipe="r") == ""
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["kubelet", "manifest.json"]


def test_what_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "kubelet"

    def why(entry: manifest.Entry | None, version: str = "1.36.3", *, thorough: bool = False) -> str:
        return manifest.why_not(path, entry, version=version, recipe="r", thorough=thorough)

    assert why(None) == "missing"
    built = made(tmp_path, recipe="r")
    assert why(built) == ""
    assert why(None) == "not made by these pins"
    assert why(built, "1.36.4") == "version 1.36.3 is recorded, 1.36.4 is pinned"
    assert why(built.model_copy(update={"recipe": "other"})) == "the pins of its build have changed"
    path.chmod(0o644)
    assert why(built) == "not executable"
    path.chmod(0o755)
    assert why(built) == ""  # touched, but the digest is right
    with path.open("r+b") as stream:
        stream.write(b"?")
    assert why(built) == "corrupted"
    path.unlink()
    assert why(built) == "missing"


def test_thorough_reads_a_file_that_looks_untouched(tmp_path: Path) -> None:
    entry = made(tmp_path)
    path = tmp_path / "kubelet"
    path.write_bytes(b"rotten")
    rotten = entry.model_copy(update={"seen": manifest.fingerprint(path)})
    path.chmod(0o755)
    rotten = rotten.model_copy(update={"seen": manifest.fingerprint(path)})
    assert manifest.why_not(path, rotten, version="1.36.3", recipe="") == ""
    assert manifest.why_not(path, rotten, version="1.36.3", recipe="", thorough=True) == "corrupted"


@pytest.mark.parametrize("data", [b"", b"{", b'{"entries": [{"name": 1}]}', b"\xff\xfe", b"[" * 100_000])
def test_a_broken_manifest_means_that_nothing_counts(tmp_path: Path, data: bytes) -> None:
    (tmp_path / manifest.MANIFEST).write_bytes(data)
    assert manifest.load_manifest(tmp_path) == manifest.Manifest()


# -- the choice ------------------------------------------------------------------------------------------------


def test_downloads_that_answer_are_taken(machine: Path, site: Upstream) -> None:
    site.offer(kubelet_path(), OFFICIAL)
    status, said = bring("kubelet")
    path = machine / "home" / "bin" / "kubelet"
    assert (status.problem, status.path) == ("", str(path))
    assert path.read_bytes() == OFFICIAL
    assert status.how == f"downloaded from {site.url}{kubelet_path()}, checksum published beside it"
    assert any("reachable" in line for line in said)
    assert tool("kubelet") == path
    assert not (machine / "go" / "pid").exists()


@pytest.mark.usefixtures("machine")
def test_a_second_run_asks_nobody(site: Upstream) -> None:
    site.offer(kubelet_path(), OFFICIAL)
    bring("kubelet")
    asked = list(site.asked)
    _, said = bring("kubelet")
    assert site.asked == asked
    assert said == []


def test_a_corrupted_tool_is_made_again(machine: Path, site: Upstream) -> None:
    site.offer(kubelet_path(), OFFICIAL)
    bring("kubelet")
    path = machine / "home" / "bin" / "kubelet"
    path.write_bytes(b"garbage")
    assert by_name(report(versions=False), "kubelet").problem == "corrupted; run scripts/setup"
    status, said = bring("kubelet")
    assert "kubelet: corrupted" in said
    assert status.problem == ""
    assert path.read_bytes() == OFFICIAL


def test_a_wrong_checksum_ends_the_run(machine: Path, site: Upstream) -> None:
    site.offer(kubelet_path(), OFFICIAL, checksum="0" * 64)
    with pytest.raises(VerificationError, match="0000 is due"):
        bring("kubelet")
    assert list((machine / "home" / "bin").iterdir()) == []
    assert not (machine / "go" / "pid").exists()


@pytest.mark.usefixtures("machine")
def test_a_truncated_download_is_tried_again_and_then_built(site: Upstream) -> None:
    site.offer(kubelet_path(), OFFICIAL)
    site.cut.add(kubelet_path())
    status, said = bring("kubelet")
    assert site.asked.count(f"GET {kubelet_path()}") == 3
    assert "built from the Go module k8s.io/kubernetes@v1.36.3 with go1.99.1" in status.how
    assert any(f"broke off: {len(OFFICIAL) // 2} of {len(OFFICIAL)} bytes came" in line for line in said)


@pytest.mark.usefixtures("machine")
def test_nothing_reachable_means_building() -> None:
    status, said = bring("kubelet")
    assert status.problem == ""
    assert status.how.startswith("built from the Go module")
    assert any("not reachable: building from the Go module sources, about 2 minutes" in line for line in said)


@pytest.mark.usefixtures("machine")
def test_the_download_can_be_forced(site: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEKISHO_TOOLS_SOURCE", "download")
    with pytest.raises(TemporaryError, match="not reachable"):
        bring("kubelet")
    site.offer(kubelet_path(), OFFICIAL)
    site.cut.add(kubelet_path())
    with pytest.raises(TemporaryError, match="broke off"):
        bring("kubelet")


def test_the_build_can_be_forced(machine: Path, site: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    site.offer(kubelet_path(), OFFICIAL)
    monkeypatch.setenv("SEKISHO_TOOLS_SOURCE", "build")
    status, _ = bring("kubelet")
    assert status.how.startswith("built")
    assert site.asked == []
    monkeypatch.setenv("SEKISHO_TOOLS_SOURCE", "guess")
    (machine / "home" / "bin" / "kubelet").unlink()
    with pytest.raises(UsageError):
        bring("kubelet")


def test_an_archive_gives_its_one_binary(machine: Path, site: Upstream) -> None:
    site.offer(f"/v1.15.0/coredns_1.15.0_linux_{lock.architecture()}.tgz", archive({"coredns": COREDNS, "../x": b"x"}))
    status, _ = bring("coredns")
    assert status.problem == ""
    assert (machine / "home" / "bin" / "coredns").read_bytes() == COREDNS
    assert {path.name for path in (machine / "home" / "bin").iterdir()} <= {"coredns", "manifest.json"}


@pytest.fixture
def cosign_site(site: Upstream) -> str:
    """A site with cosign as its project publishes it: bare, and one file with the checksums of all downloads."""
    name = f"cosign-linux-{lock.architecture()}"
    data = b"#!/bin/sh\necho GitVersion: v3.1.3\n"
    site.files[f"/v3.1.3/{name}"] = data
    digest = hashlib.sha256(data).hexdigest()
    site.files["/v3.1.3/cosign_checksums.txt"] = (
        f"{'0' * 64}  {name}.sig\n{digest}  {name}\n{'1' * 64}  cosign-windows-{name}\n".encode()
    )
    return digest


@pytest.mark.usefixtures("cosign_site")
def test_the_checksum_is_found_by_name_in_a_file_of_many(machine: Path, site: Upstream) -> None:
    status, _ = bring("cosign")
    assert status.problem == ""
    assert "downloaded from" in status.how
    fake_go(machine / "go" / "go", 'printf "#!/bin/sh\\necho GitVersion: v3.1.3\\n" > "$out"')
    site.files["/v3.1.3/cosign_checksums.txt"] = f"{'0' * 64}  cosign-other\n".encode()
    (machine / "home" / "bin" / "cosign").unlink()
    status, said = bring("cosign")
    assert any("holds no sha256 digest of cosign-linux" in line for line in said)


@pytest.mark.usefixtures("machine")
def test_the_tests_tools_are_a_group_of_their_own() -> None:
    named = {group: {pin.name for source, pin in LOCK.managed() if source.group == group} for group in ("line", "test")}
    assert named["test"] == {"cosign", "crane", "referrers-registry"}
    assert "kubelet" in named["line"]
    assert {status.name for status in report(versions=False, group="test")} == named["test"]
    assert not {status.name for status in report(versions=False)} & named["test"]

    with pytest.raises(PermanentError, match="ensure --group test"):
        tool("cosign")


def test_what_is_published_nowhere_is_built(machine: Path, site: Upstream) -> None:
    fake_go(machine / "go" / "go", 'printf "#!/bin/sh\\necho 0.22.1\\n" > "$out"')
    status, said = bring("crane")
    assert status.how.startswith("built from the Go module github.com/google/go-containerregistry@v0.22.1")
    assert any("crane: none is published" in line for line in said)
    assert not [line for line in site.asked if "crane" in line or "go-containerregistry" in line]


def test_another_version_than_the_pinned_is_refused(machine: Path, site: Upstream) -> None:
    site.offer(kubelet_path(), OFFICIAL.replace(b"v1.36.3", b"v1.35.0"))
    with pytest.raises(PermanentError, match=r"reports version 1\.35\.0, but 1\.36\.3 is pinned"):
        bring("kubelet")
    assert not (machine / "home" / "bin" / "kubelet").exists()


def test_a_pinned_digest_needs_no_published_one(site: Upstream, tmp_path: Path) -> None:
    site.files["/file"] = OFFICIAL
    upstream.download(f"{site.url}/file", tmp_path / "file", hashlib.sha256(OFFICIAL).hexdigest())
    assert (tmp_path / "file").read_bytes() == OFFICIAL
    assert site.asked == ["GET /file"]


@pytest.mark.usefixtures("machine")
def test_an_unknown_name_is_a_wrong_use() -> None:
    with pytest.raises(UsageError, match="kublet"):
        bring("kublet")
    assert main(["ensure", "kublet"]) == 2


def test_a_home_that_cannot_be_written(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (machine / "file").write_text("")
    monkeypatch.setenv("SEKISHO_HOME", str(machine / "file"))
    with pytest.raises(PermanentError, match="cannot be"):
        bring("kubelet")


# -- reachability and downloads --------------------------------------------------------------------------------


@pytest.mark.parametrize("manner", ["silent", "dribble"])
def test_a_slow_server_does_not_hold_up_the_choice(site: Upstream, manner: str) -> None:
    setattr(site, manner, True)
    found: dict[str, upstream.Reach] = {}
    urls = {"a": f"{site.url}/a", "b": f"{site.url}/b"}
    choice = threading.Thread(target=lambda: found.update(upstream.probe(urls, limit=0.3)), daemon=True)
    choice.start()
    choice.join(10)
    assert not site.release.is_set()  # the server is still at it
    assert {name: reach.ok for name, reach in found.items()} == {"a": False, "b": False}
    assert all("no answer" in reach.why or "timed out" in reach.why for reach in found.values())


def test_the_probe_says_why(site: Upstream) -> None:
    site.files["/here"] = b"x"
    site.redirects["/moved"] = "/here"
    site.redirects["/weak"] = "http://example.invalid/here"
    names = ("here", "gone", "moved", "weak")
    found = upstream.probe({name: f"{site.url}/{name}" for name in names} | {"plain": "http://example.invalid/"})
    assert {name: reach.ok for name, reach in found.items()} == {
        "here": True, "gone": False, "moved": True, "weak": False, "plain": False,
    }  # fmt: skip
    assert "404" in found["gone"].why
    assert found["weak"].why == found["plain"].why == "A download must come over https."


def test_only_files_over_https_are_opened(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    with pytest.raises(PermanentError, match="https"):
        upstream.download(f"file://{tmp_path}/secret", tmp_path / "out", "0" * 64)


@pytest.mark.parametrize(
    ("text", "good"),
    [(b"ab" * 32, True), (b"AB" * 32 + b"  kubelet\n", True), (b"<html>portal</html>", False), (b"ab" * 33, False)],
)
def test_checksum_files(site: Upstream, text: bytes, *, good: bool) -> None:
    site.files["/x.sha256"] = text
    if good:
        assert upstream.published_checksum(f"{site.url}/x.sha256") == "ab" * 32
    else:
        with pytest.raises(TemporaryError, match="no sha256"):
            upstream.published_checksum(f"{site.url}/x.sha256")


def test_a_download_without_end_is_stopped(site: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "DOWNLOAD_LIMIT", 1 << 20)
    site.files["/big"] = bytes(2 << 20)
    with pytest.raises(PermanentError, match="larger than 1 MiB"):
        upstream.download(f"{site.url}/big", tmp_path / "big", "0" * 64)


def archive(files: dict[str, bytes], *, link: str = "") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        if link:
            info = tarfile.TarInfo("registry")
            info.type, info.linkname = tarfile.SYMTYPE, link
            tar.addfile(info)
    return out.getvalue()


@pytest.mark.parametrize(
    "data",
    [archive({"other": b"x"}), archive({}, link="/etc/passwd"), b"no archive", archive({"registry": b"y" * 9999})[:60]],
    ids=["absent", "link", "garbage", "cut"],
)
def test_archives_that_hold_no_such_file(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.tgz").write_bytes(data)
    with pytest.raises(PermanentError):
        upstream.unpack_member(tmp_path / "a.tgz", "registry", tmp_path / "registry")


# -- building --------------------------------------------------------------------------------------------------


def test_a_build_runs_in_a_clean_environment(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hostile = {
        "GOFLAGS": "-mod=mod", "GONOSUMDB": "*", "GONOSUMCHECK": "1", "GOINSECURE": "*", "GOPRIVATE": "*",
        "GOSUMDB": "off", "GOTOOLCHAIN": "auto", "AWS_SECRET_ACCESS_KEY": "hush",
    }  # fmt: skip
    for name, value in hostile.items():
        monkeypatch.setenv(name, value)
    bring("kubelet")
    seen = dict(line.split("=", 1) for line in (machine / "go" / "env").read_text().splitlines() if "=" in line)
    assert not {"GONOSUMDB", "GONOSUMCHECK", "GOINSECURE", "GOPRIVATE", "AWS_SECRET_ACCESS_KEY"} & set(seen)
    expected = {
        "GOSUMDB": "sum.golang.org", "GOTOOLCHAIN": "local", "GOFLAGS": "", "GOENV": "off", "CGO_ENABLED": "0",
        "GOPROXY": "https://goproxy.example",
    }  # fmt: skip
    assert {name: seen.get(name, "") for name in expected} == expected
    arguments = (machine / "go" / "arguments").read_text()
    assert "-mod=readonly -trimpath" in arguments
    assert "version.gitVersion=v1.36.3" in arguments


def test_a_failed_build_says_where_and_leaves_nothing(machine: Path) -> None:
    fake_go(machine / "go" / "go", 'echo half > "$out"; echo "dial tcp: no route" >&2; exit 1')
    with pytest.raises(PermanentError, match="go build of kubelet fails: dial tcp: no route") as caught:
        bring("kubelet")
    assert Path(caught.value.where).read_text() == "dial tcp: no route\n"
    assert list((machine / "home" / "bin").iterdir()) == []


def test_the_recipe_changes_with_the_pins(tmp_path: Path) -> None:
    directory = lock.module_directory(KUBERNETES)
    for path in directory.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    first = gobuild.recipe(KUBERNETES, KUBELET, tmp_path)
    assert first == gobuild.recipe(KUBERNETES, KUBELET, directory)
    with (tmp_path / "go.sum").open("a") as stream:
        stream.write("\n")
    assert gobuild.recipe(KUBERNETES, KUBELET, tmp_path) != first
    assert gobuild.recipe(KUBERNETES, KUBERNETES.tools[0], directory) != first


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(500):
        if condition():
            return
        time.sleep(0.02)
    pytest.fail("it did not happen in ten seconds")


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def test_killed_in_the_middle_nothing_is_half_done(machine: Path) -> None:
    fake_go(machine / "go" / "go", 'echo half > "$out"; touch "${0%go}started"; exec sleep 60')
    run = subprocess.Popen(
        [sys.executable, "-m", "sekisho.tools", "ensure", "kubelet"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for((machine / "go" / "started").exists)
    builder = int((machine / "go" / "pid").read_text())
    run.send_signal(signal.SIGKILL)
    run.wait()
    wait_for(lambda: not alive(builder))
    directory = machine / "home" / "bin"
    assert [path.name for path in directory.iterdir()] == [f".kubelet.{run.pid}.part"]
    with pytest.raises(PermanentError, match="not installed"):
        tool("kubelet")

    fake_go(machine / "go" / "go", 'printf "#!/bin/sh\\necho v1.36.3\\n" > "$out"')
    status, _ = bring("kubelet")
    assert status.problem == ""
    assert not list(directory.glob(".*"))


def test_two_runs_take_turns(machine: Path, site: Upstream) -> None:
    site.offer(kubelet_path(), OFFICIAL)
    (machine / "home").mkdir()
    said: list[str] = []
    waiting = threading.Event()

    def tell(line: str) -> None:
        said.append(line)
        if "waiting" in line:
            waiting.set()

    with (machine / "home" / "tools.lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        other = threading.Thread(target=ensure, args=(tell,), kwargs={"names": ["kubelet"]})
        other.start()
        assert waiting.wait(10)
        assert site.asked == []
    other.join(10)
    assert by_name(report(versions=False), "kubelet").problem == ""


# -- the toolchain ---------------------------------------------------------------------------------------------


def old_go(path: Path, total: str) -> None:
    """Write a Go 1.19 that fetches a toolchain module without file modes, as the real one does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"""#!/bin/sh
case $1 in
  version) echo "go version go1.19.8 linux/amd64" ;;
  env) echo '{{}}' ;;
  mod)
    [ "$GOSUMDB" = sum.golang.org ] || {{ echo '{{"Error": "unverified"}}'; exit 1; }}
    mkdir -p $GOMODCACHE/t/bin $GOMODCACHE/t/pkg/tool/linux_amd64
    printf '#!/bin/sh\\necho go version go{LOCK.go.version} linux/amd64\\n' > $GOMODCACHE/t/bin/go
    echo x > $GOMODCACHE/t/pkg/tool/linux_amd64/compile
    echo "{{\\"Sum\\": \\"{total}\\", \\"Dir\\": \\"$GOMODCACHE/t\\"}}"
    ;;
esac
"""
    )
    path.chmod(0o755)


@pytest.fixture
def only_old_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(toolchain, "_PLACES", ())
    monkeypatch.setenv("PATH", f"{tmp_path / 'old'}:/usr/bin:/bin")
    monkeypatch.setenv("GOSUMDB", "off")
    return tmp_path


def obtain(home: Path, need: lock.GoVersion = (1, 26, 0)) -> gobuild.Go:
    return toolchain.obtain(LOCK.go, need, home, lock.architecture(), lambda _: None, archive=False)


def test_an_old_go_fetches_the_pinned_one(only_old_go: Path) -> None:
    old_go(only_old_go / "old" / "go", LOCK.go.sums[lock.architecture()])
    home = only_old_go / "home"
    go = obtain(home)
    assert (str(go), go.binary) == (f"go{LOCK.go.version}", home / "go" / "bin" / "go")
    assert os.access(home / "go" / "pkg" / "tool" / "linux_amd64" / "compile", os.X_OK)
    assert list((home / "build").iterdir()) == []
    (only_old_go / "old" / "go").unlink()
    assert obtain(home) == go


def test_an_old_go_is_enough_for_old_modules(only_old_go: Path) -> None:
    old_go(only_old_go / "old" / "go", "")
    assert str(obtain(only_old_go / "home", need=(1, 19, 0))) == "go1.19.8"


def test_another_sum_than_the_pinned_is_refused(only_old_go: Path) -> None:
    old_go(only_old_go / "old" / "go", "h1:somebody-elses")
    with pytest.raises(PermanentError, match=r"h1:somebody-elses, but .* is pinned"):
        obtain(only_old_go / "home")
    assert not (only_old_go / "home" / "go").exists()


# -- finding ---------------------------------------------------------------------------------------------------


def script(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.usefixtures("machine")
def test_a_missing_tool_says_how_to_get_it() -> None:
    with pytest.raises(PermanentError, match="kube-proxy is not installed") as caught:
        tool("kube-proxy")
    assert caught.value.remedy == "Run scripts/setup."
    with pytest.raises(PermanentError, match="no tool named"):
        tool("../../bin/sh")


def test_system_tools_are_found_and_missed(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(machine / "own" / "etcd", "#!/bin/sh\necho etcd Version: 9.8.7\n")
    monkeypatch.setattr(locate, "_ADMIN_PLACES", ())
    monkeypatch.setattr(locate, "_POSTGRES", str(machine / "postgresql"))
    for version in ("9", "15", "16", "old"):
        script(machine / "postgresql" / version / "bin" / "postgres", f"#!/bin/sh\necho {version}.1\n")
    monkeypatch.setenv("PATH", str(machine / "own"))
    statuses = report()
    etcd, git = by_name(statuses, "etcd"), by_name(statuses, "git")
    assert (etcd.path, etcd.version, etcd.problem) == (str(machine / "own" / "etcd"), "9.8.7", "")
    assert git.problem == "missing; apt-get install git"
    assert tool("postgres") == machine / "postgresql" / "16" / "bin" / "postgres"
    with pytest.raises(PermanentError, match="git is not installed"):
        tool("git")


def test_an_unknown_scanner_is_never_given(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = script(machine / "own" / "trivy", "#!/bin/sh\ntouch ran\necho Version: 6.6.6\n")
    monkeypatch.setenv(locate.SCANNER_PATH, str(machine / "own" / "trivy"))
    monkeypatch.chdir(machine)
    with pytest.raises(VerificationError, match="not the pinned one") as caught:
        trivy()
    assert digest in caught.value.where
    assert by_name(report(versions=False), "trivy").problem
    assert not (machine / "ran").exists()

    monkeypatch.setenv(locate.SCANNER_SHA256, digest)
    path, identity = trivy()
    assert (path, identity.version, identity.digest) == (machine / "own" / "trivy", "6.6.6", f"sha256:{digest}")
    script(path, "#!/bin/sh\necho changed\n")
    with pytest.raises(VerificationError):
        trivy()

    monkeypatch.setenv(locate.SCANNER_SHA256, "abc")
    with pytest.raises(PermanentError, match="64 lower-case"):
        trivy()
    monkeypatch.delenv(locate.SCANNER_SHA256)
    monkeypatch.setenv(locate.SCANNER_PATH, str(machine / "nowhere"))
    with pytest.raises(PermanentError, match="not installed"):
        trivy()


def test_a_foreign_scanner_on_the_path_gives_way_to_the_wheel(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(machine / "own" / "trivy", "#!/bin/sh\n")
    monkeypatch.setenv("PATH", f"{machine / 'own'}:{os.environ['PATH']}")
    path, identity = trivy()
    assert path != machine / "own" / "trivy"
    assert identity.digest == f"sha256:{LOCK.scanner.sha256[lock.architecture()]}"
    assert identity.version == LOCK.scanner.version


def test_the_list_as_json(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--json"]) == 1
    listed = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert listed["kubelet"]["problem"] == "missing; run scripts/setup"
    assert set(listed) >= {"coredns", "registry", "trivy", "etcd", "nft"}
    assert not (machine / "home").exists()


# -- the lock of the Python packages ---------------------------------------------------------------------------


def test_requirements_lock_covers_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    text = (ROOT / "requirements.lock").read_text()
    locked = set(re.findall(r"^([a-z0-9-]+)==", text, re.MULTILINE))
    asked = [*project["dependencies"], *project["optional-dependencies"]["dev"], "setuptools"]
    names = {re.split(r"[\[=<>~! ]", name)[0].lower() for name in asked}
    assert names - locked == set(), "write it anew: scripts/lock"
    assert len(re.findall(r"--hash=sha256:", text)) >= len(locked)
    assert "://" not in text
