"""Fetching packages and the sandbox's edges. Containers are started in tests/e2e/test_sandbox_escape.py."""

from __future__ import annotations

import base64
import hashlib
import http.server
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sekisho.errors import PermanentError, Refusal, TemporaryError
from sekisho.registry import Registry
from stages.build.fetch import _failure, fetch
from stages.build.locks import Locked, parse_requirements
from stages.build.sandbox import Sandbox


def wheel(folder: Path, name: str, version: str = "1.0", tag: str = "py3-none-any", body: str = "x = 1\n") -> Path:
    """Write a whole, installable wheel."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-{tag}.whl"
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": body,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    record = "".join(
        f"{key},sha256={base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b'=').decode()},"
        f"{len(text)}\n"
        for key, text in files.items()
    )
    with zipfile.ZipFile(path, "w") as packed:
        for key, text in {**files, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            packed.writestr(zipfile.ZipInfo(key), text)
    return path


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def locked(name: str, *hashes: str, version: str = "1.0") -> Locked:
    (found,) = parse_requirements(
        f"{name}=={version} {' '.join(f'--hash=sha256:{item}' for item in hashes)}\n".encode()
    )
    return found


class Index:
    """A package index on the loopback address: /simple/NAME/ lists the files of a folder, and counts who asks."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked = folder, list[str]()
        index = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                index.asked.append(self.path)
                name = self.path.strip("/").split("/")[-1]
                file = index.folder / name
                if self.path.startswith("/simple/"):
                    found = [item for item in index.folder.iterdir() if item.name.startswith(f"{name}-")]
                    links = (f'<a href="/files/{item.name}#sha256={sha(item)}">{item.name}</a>' for item in found)
                    body = "".join(links).encode()
                    kind = "text/html"
                else:
                    body, kind = file.read_bytes(), "application/octet-stream"
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://user:hunter2@127.0.0.1:{self.server.server_address[1]}/simple"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    made = Index(tmp_path / "index")
    threading.Thread(target=made.server.serve_forever, daemon=True).start()
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", made.url)
    monkeypatch.setenv("PIP_RETRIES", "0")
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_a_wheel_is_fetched_once_and_checked_at_every_use(index: Index, tmp_path: Path) -> None:
    built = wheel(index.folder, "thing")
    lock, cache = locked("thing", sha(built)), tmp_path / "cache"
    (first,) = fetch([lock], cache)
    assert first.sha256 == sha(built)
    assert first.path.read_bytes() == built.read_bytes()
    count = len(index.asked)
    assert fetch([lock], cache) == (first,)
    assert len(index.asked) == count
    first.path.write_bytes(b"poison")
    (again,) = fetch([lock], cache)
    assert again.path.read_bytes() == built.read_bytes()
    assert len(index.asked) > count


def test_the_cache_never_decides_which_of_two_wheels_is_taken(index: Index, tmp_path: Path) -> None:
    """Another app's lock, with fewer hashes, brought the general wheel into the cache first."""
    general = wheel(index.folder, "thing")
    native = wheel(index.folder, "thing", tag="cp311-cp311-manylinux_2_28_x86_64", body="x = 2\n")
    only, both = locked("thing", sha(general)), locked("thing", sha(general), sha(native))
    (cold,) = fetch([both], tmp_path / "cold")
    (other,) = fetch([only], tmp_path / "warm")
    (warm,) = fetch([both], tmp_path / "warm")
    assert other.sha256 == sha(general)
    assert cold.sha256 == warm.sha256 == sha(native)


def test_bytes_that_are_not_the_locked_ones_are_refused_with_both_hashes(index: Index, tmp_path: Path) -> None:
    built = wheel(index.folder, "thing")
    with pytest.raises(Refusal) as caught:
        fetch([locked("thing", "0" * 64)], tmp_path / "cache")
    assert "thing==1.0" in caught.value.what
    assert sha(built) in caught.value.what
    assert "0" * 64 in caught.value.what
    assert caught.value.where == "requirements.txt:1"
    assert "hunter2" not in str(caught.value)
    assert not list((tmp_path / "cache").glob("wheels/*"))


def test_a_package_without_a_wheel_for_the_target_is_refused(index: Index, tmp_path: Path) -> None:
    built = wheel(index.folder, "thing", tag="cp312-cp312-win_amd64")
    with pytest.raises(Refusal, match="no wheel"):
        fetch([locked("thing", sha(built))], tmp_path / "cache")


@pytest.mark.usefixtures("index")
def test_an_index_that_is_not_there_is_temporary_and_its_password_is_not_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://user:hunter2@127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(TemporaryError) as caught:
        fetch([locked("thing", "0" * 64)], tmp_path / "cache")
    assert "hunter2" not in str(caught.value)


def test_what_pip_says_is_cleaned() -> None:
    error = _failure("ERROR: bad thing at https://user:hunter2@example.com/simple", [locked("thing", "0" * 64)])
    assert isinstance(error, PermanentError)
    assert "hunter2" not in str(error)
    assert "example.com" in str(error)


def test_an_engine_that_is_not_there_is_temporary(tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path / "none.sock", Registry("http://127.0.0.1:9"), tmp_path)
    with pytest.raises(TemporaryError, match="Docker engine"):
        sandbox.sweep()
