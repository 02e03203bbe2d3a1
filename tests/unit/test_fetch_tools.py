"""The ecosystems' own tools resolve through the proxy, and what they lock is fetched by hash from the indexes."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from sekisho.package_indexes import DEFAULTS, default_index
from stages.build.artifacts import Fetcher
from stages.build.indexes import Indexes
from stages.build.language import Artifact
from stages.build.resolver import Resolver

_SECONDS = 240


@contextmanager
def forwarder(resolver: Resolver) -> Iterator[int]:
    """What socat does in the sandbox: a port of the loopback address that leads to the resolver's socket."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    path = f"/proc/self/fd/{os.open(resolver.folder, os.O_PATH)}/index.sock"

    def pump(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def accept() -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.socket(socket.AF_UNIX)
                far.connect(path)
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=pump, args=ends, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    with closing(listener):
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)


def needs(tool: str, url: str) -> str:
    """Return a tool's path; skip where it or the index is not to be had."""
    found = shutil.which(tool) or shutil.which(tool, path=str(Path(sys.executable).parent))
    if found is None:
        pytest.skip(f"{tool} is not installed")
    host = urlsplit(url).hostname or ""
    try:
        socket.create_connection((host, 443), timeout=5).close()
    except OSError as error:
        pytest.skip(f"{host} cannot be reached from here: {error}")
    return found


@pytest.fixture(scope="module")
def indexes() -> Indexes:
    return Indexes.from_environment()


@contextmanager
def resolving(indexes: Indexes, folder: Path) -> Iterator[tuple[Resolver, int]]:
    with Resolver(indexes, folder, cache=folder / "cache") as resolver, forwarder(resolver) as port:
        resolver._seen_as = f"http://127.0.0.1:{port}"  # the sandbox's port is its own; here it is whichever is free
        yield resolver, port


def run(command: list[str], folder: Path, environment: Mapping[str, str]) -> None:
    kept = {name: value for name, value in os.environ.items() if name in {"PATH", "LD_LIBRARY_PATH", "JAVA_HOME"}}
    # No way but the proxy: what is asked for elsewhere ends at a closed port.
    closed = dict.fromkeys(("HTTPS_PROXY", "https_proxy"), "http://127.0.0.1:1") | {"no_proxy": "127.0.0.1"}
    done = subprocess.run(
        command,
        cwd=folder,
        env={**kept, **closed, "HOME": str(folder), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def fetch_both_ways(indexes: Indexes, folder: Path, wanted: list[Artifact]) -> None:
    """What was resolved is there by hash: from the store without a download, and from the index into an empty one."""
    offline = Indexes(roots=indexes.roots, proxies={"https": "http://127.0.0.1:1"}, bypass=False)
    warm = Fetcher(folder / "cache", offline).files(wanted)
    cold = Fetcher(folder / "empty", indexes).files(wanted)
    assert [item.sha256 for item in warm] == [item.sha256 for item in cold]
    with Fetcher(folder / "empty", indexes).laid_out(cold) as laid:
        assert {str(path.relative_to(laid)) for path in laid.rglob("*") if path.is_file()} == {
            item.save_as for item in wanted
        }


def test_npm(indexes: Indexes, tmp_path: Path) -> None:
    npm = needs("npm", DEFAULTS["npm"])
    (tmp_path / "package.json").write_text(
        json.dumps({"name": "a", "version": "1.0.0", "dependencies": {"debug": "4.3.4", "@sindresorhus/is": "4.6.0"}})
    )
    with resolving(indexes, tmp_path) as (resolver, port):
        run([npm, "install", "--package-lock-only", "--ignore-scripts", "--no-audit", "--no-fund"], tmp_path,
            {"npm_config_registry": f"http://127.0.0.1:{port}/npm/", "npm_config_cache": str(tmp_path / "npm"),
             "npm_config_update_notifier": "false"})  # fmt: skip
        first = json.loads((tmp_path / "package-lock.json").read_text())["packages"]
        run([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], tmp_path,
            {"npm_config_registry": f"http://127.0.0.1:{port}/npm/", "npm_config_cache": str(tmp_path / "npm2"),
             "npm_config_update_notifier": "false"})  # fmt: skip
        assert resolver.failure is None
        assert "npm/@sindresorhus/is/-/is-4.6.0.tgz" in resolver.recorded
    wanted = []
    for place, entry in first.items():
        if place:
            name = place.removeprefix("node_modules/")
            assert entry["resolved"].startswith(f"http://127.0.0.1:{port}/npm/{name}/-/")
            path = f"{name}/-/{name.rpartition('/')[2]}-{entry['version']}.tgz"
            digest = "sha512:" + base64.b64decode(entry["integrity"].removeprefix("sha512-")).hex()
            wanted.append(Artifact("npm", path, (digest,), path.replace("/", "_")))
    assert len(wanted) == 3
    fetch_both_ways(indexes, tmp_path, wanted)


def test_go(indexes: Indexes, tmp_path: Path) -> None:
    go = needs("go", DEFAULTS["go"])
    (tmp_path / "go.mod").write_text("module example.com/x\n\ngo 1.21\n")
    (tmp_path / "main.go").write_text(
        'package main\nimport (_ "rsc.io/quote"; _ "github.com/BurntSushi/toml")\nfunc main() {}\n'
    )
    environment = {"GOMODCACHE": str(tmp_path / "mod"), "GOFLAGS": "-mod=mod -modcacherw", "GOTOOLCHAIN": "local",
                   "GOCACHE": str(tmp_path / "gocache")}  # fmt: skip
    with resolving(indexes, tmp_path) as (resolver, port):
        environment["GOPROXY"] = f"http://127.0.0.1:{port}/go"
        # The checksum database stays on, and is reached through the proxy as well.
        run([go, "get", "rsc.io/quote@v1.5.2", "github.com/BurntSushi/toml@v1.4.0"], tmp_path, environment)
        run([go, "mod", "download", "all"], tmp_path, environment)
        assert any(name.startswith("go/sumdb/sum.golang.org/lookup/rsc.io/quote@") for name in resolver.recorded)
        assert resolver.failure is None
    wanted = []
    for line in (tmp_path / "go.sum").read_text().splitlines():
        name, version, digest = line.split()
        version, _, kind = version.partition("/")
        escaped = "".join(f"!{sign.lower()}" if sign.isupper() else sign for sign in name)
        ending = "mod" if kind else "zip"
        path = f"{escaped}/@v/{version}.{ending}"
        digest = digest.replace("h1:", "h1mod:") if kind else digest
        wanted.append(Artifact("go", path, (digest,), path))
    assert "rsc.io/quote/@v/v1.5.2.zip" in {item.path for item in wanted}
    fetch_both_ways(indexes, tmp_path, wanted)


def test_cargo(indexes: Indexes, tmp_path: Path) -> None:
    cargo = needs("cargo", DEFAULTS["crates"])
    (tmp_path / "src").mkdir()
    (tmp_path / "src/main.rs").write_text("fn main() {}\n")
    (tmp_path / "Cargo.toml").write_text(
        '[package]\nname = "a"\nversion = "0.1.0"\nedition = "2021"\n[dependencies]\nitoa = "=1.0.11"\n'
        'libz-sys = { version = "=1.1.16", default-features = false }\ntoml_datetime = "=1.0.0+spec-1.1.0"\n'
    )
    home = tmp_path / "cargo"
    home.mkdir()
    with resolving(indexes, tmp_path) as (resolver, port):
        (home / "config.toml").write_text(
            '[source.crates-io]\nreplace-with = "line"\n'
            f'[source.line]\nregistry = "sparse+http://127.0.0.1:{port}/crates/index/"\n'
        )
        # A rustup that manages cargo looks for its own settings where it was installed.
        rustup = os.environ.get("RUSTUP_HOME") or str(Path.home() / ".rustup")
        run([cargo, "fetch"], tmp_path, {"CARGO_HOME": str(home), "RUSTUP_HOME": rustup})
        assert resolver.failure is None
    packages = tomllib.loads((tmp_path / "Cargo.lock").read_text())["package"]
    wanted = [
        Artifact("crates", f"crates/{item['name']}/{item['name']}-{item['version']}.crate",
                 (f"sha256:{item['checksum']}",), f"{item['name']}-{item['version']}.crate")
        for item in packages if "checksum" in item
    ]  # fmt: skip
    assert any("+" in item.path for item in wanted)
    assert all(f"crates/{item.path}" in resolver.recorded for item in wanted if "vcpkg" not in item.path)
    fetch_both_ways(indexes, tmp_path, wanted)


def test_maven(indexes: Indexes, tmp_path: Path) -> None:
    mvn = needs("mvn", DEFAULTS["maven"])
    (tmp_path / "pom.xml").write_text(
        '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
        "<groupId>e</groupId><artifactId>x</artifactId><version>1</version><packaging>pom</packaging>"
        "<dependencyManagement><dependencies><dependency><groupId>com.fasterxml.jackson</groupId>"
        "<artifactId>jackson-bom</artifactId><version>2.15.2</version><type>pom</type><scope>import</scope>"
        "</dependency></dependencies></dependencyManagement></project>"
    )
    with resolving(indexes, tmp_path) as (resolver, port):
        (tmp_path / "settings.xml").write_text(
            "<settings><mirrors><mirror><id>line</id><mirrorOf>*</mirrorOf>"
            f"<url>http://127.0.0.1:{port}/maven/</url></mirror></mirrors></settings>"
        )
        run([mvn, "-q", "-B", "-s", "settings.xml", f"-Dmaven.repo.local={tmp_path / 'm2'}", "validate"], tmp_path, {})
        assert resolver.failure is None
        recorded = dict(resolver.recorded)
    assert "maven/com/fasterxml/jackson/jackson-bom/2.15.2/jackson-bom-2.15.2.pom" in recorded
    assert "maven/com/fasterxml/oss-parent/50/oss-parent-50.pom" in recorded
    wanted = [Artifact("maven", name.removeprefix("maven/"), (digest,), name) for name, digest in recorded.items()]
    fetch_both_ways(indexes, tmp_path, wanted)


@pytest.mark.parametrize("tool", ["pip", "uv"])
def test_python(indexes: Indexes, tmp_path: Path, tool: str) -> None:
    needs(tool, f"https://{default_index()[0]}")
    with resolving(indexes, tmp_path) as (resolver, port):
        url = f"http://127.0.0.1:{port}/pypi/simple/"
        if tool == "pip":
            command = [sys.executable, "-m", "pip", "download", "--no-cache-dir", "--index-url", url, "--dest",
                       str(tmp_path / "wheels"), "--only-binary=:all:", "jinja2==3.1.4"]  # fmt: skip
            run(command, tmp_path, {"PIP_CONFIG_FILE": "/dev/null", "PIP_DISABLE_PIP_VERSION_CHECK": "1"})
        else:
            (tmp_path / "in.txt").write_text("jinja2==3.1.4\n")
            run([needs("uv", f"https://{default_index()[0]}"), "pip", "compile", "--no-cache", "--no-config",
                 "--generate-hashes", "--index-url", url, "in.txt", "-o", "out.txt"], tmp_path, {})  # fmt: skip
            locked = (tmp_path / "out.txt").read_text()
            assert "jinja2==3.1.4" in locked
            assert "--hash=sha256:" in locked
        assert resolver.failure is None
        assert {"pypi/simple/jinja2/", "pypi/simple/markupsafe/"} <= set(resolver.recorded)
