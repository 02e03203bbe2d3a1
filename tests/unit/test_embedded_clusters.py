"""Cluster providers: which one a profile gets, and a real HTTP server as the cluster that exists."""

import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from sekisho.clusters import provider_for
from sekisho.clusters.readiness import check_kubeconfig
from sekisho.errors import PermanentError, Refusal, SekishoError, TemporaryError
from sekisho.profile import ClusterSpec, Profile


class Api(BaseHTTPRequestHandler):
    answer = 200
    seen: ClassVar[list[tuple[str, str]]] = []

    def do_GET(self) -> None:
        self.seen.append((self.path, self.headers.get("Authorization", "")))
        self.send_response(self.answer)
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def server() -> Iterator[str]:
    Api.answer = 200
    Api.seen.clear()
    http = HTTPServer(("127.0.0.1", 0), Api)
    thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{http.server_port}"
    http.shutdown()
    http.server_close()


def kubeconfig(path: Path, server: str) -> Path:
    path.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": {"server": server}}],
                "users": [{"name": "u", "user": {"token": "tok"}}],
                "contexts": [{"name": "prod", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "prod",
            }
        )
    )
    return path


def existing(path: Path, context: str = "") -> Profile:
    spec = ClusterSpec(provider="kubeconfig", kubeconfig=str(path), context=context)
    return Profile(zone="production", description="", cluster=spec)


def test_a_cluster_that_exists_is_ready_when_its_server_says_so(tmp_path: Path, server: str) -> None:
    provider = provider_for(existing(kubeconfig(tmp_path / "config", server), "prod"))
    provider.up()
    status = provider.status()
    assert (status.state, status.server) == ("ready", server)
    assert Api.seen[0] == ("/readyz", "Bearer tok")
    assert provider.kubeconfig() == tmp_path / "config"


def test_a_cluster_that_is_not_ready_is_a_temporary_fault(tmp_path: Path, server: str) -> None:
    Api.answer = 500
    provider = provider_for(existing(kubeconfig(tmp_path / "config", server)))
    with pytest.raises(TemporaryError, match="500"):
        provider.up()
    assert provider.status().state == "not-ready"


def test_a_cluster_that_does_not_answer_is_not_ready(tmp_path: Path) -> None:
    provider = provider_for(existing(kubeconfig(tmp_path / "config", "http://127.0.0.1:1")))
    assert provider.status().state == "not-ready"


def test_an_unknown_context_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"staging.*prod"):
        check_kubeconfig(kubeconfig(tmp_path / "config", "http://127.0.0.1:1"), "staging")


@pytest.mark.parametrize(
    "text", ["", "[]", "kind: Pod", "kind: Config\ncontexts: 3", "{", "kind: Config\ncontexts: [1]"]
)
def test_what_is_no_kubeconfig_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(Refusal):
        check_kubeconfig(path, "")
    assert provider_for(existing(path)).status().state == "absent"


def test_a_missing_kubeconfig_is_said(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match="cannot be read"):
        check_kubeconfig(tmp_path / "none", "")


def test_a_zone_without_cluster_has_no_provider() -> None:
    with pytest.raises(PermanentError, match="no cluster"):
        provider_for(Profile(zone="ops", description=""))


def test_an_unknown_zone_has_no_embedded_cluster() -> None:
    with pytest.raises(PermanentError, match="no embedded cluster"):
        provider_for(Profile(zone="edge-1", description="", cluster=ClusterSpec(provider="local")))


def test_kind_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of kind on the path: `up` is a clear no, `status` is absent and not an exception."""
    monkeypatch.setenv("SEKISHO_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    provider = provider_for(Profile(zone="dev", description="", cluster=ClusterSpec(provider="kind")))
    with pytest.raises(PermanentError, match="kind is not installed"):
        provider.up()
    assert provider.status().state == "absent"


def test_kind_starts_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not shutil.which("kind"):
        pytest.skip("kind is not installed here; it also needs an engine that starts privileged containers")
    monkeypatch.setenv("SEKISHO_HOME", str(tmp_path))
    provider = provider_for(Profile(zone="unit-test", description="", cluster=ClusterSpec(provider="kind")))
    try:
        provider.up()
    except SekishoError as error:
        pytest.skip(f"no engine here can start a kind node: {error.what}")
    try:
        assert provider.status().state == "ready"
    finally:
        provider.down()
    assert provider.status().state == "absent"
