"""The security agent, against an API server and a registry that answer as the real ones do."""

import importlib
import json
import sys
import threading
import time
import urllib.error
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from urllib.request import urlopen

import pytest

PROJECT = Path(__file__).parents[2]


sys.path.insert(0, str(PROJECT / "images" / "trivy-agent"))
agent = importlib.import_module("agent")
node = importlib.import_module("agent_node")
scanner = importlib.import_module("agent_scanner")
DIGEST = "sha256:" + "a" * 64


def pod(name, *containers, kind="containerStatuses"):
    statuses = [{"imageID": identity, "image": image} for identity, image in containers]
    return {"metadata": {"namespace": "app-x", "name": name}, "status": {kind: statuses}}


@pytest.mark.parametrize(
    ("identity", "image", "expected"),
    [
        (f"registry.sekisho.internal/apps/x@{DIGEST}", "", ("apps/x", DIGEST, "")),
        ("sha256:" + "b" * 64, f"registry.sekisho.internal/apps/x@{DIGEST}", ("apps/x", DIGEST, "")),
        (f"docker-pullable://registry.sekisho.internal/apps/x@{DIGEST}", "", ("apps/x", DIGEST, "")),
        (
            f"docker.io/library/x@{DIGEST}",
            "x:latest",
            ("", "", "it comes from docker.io, not from the zone's registry"),
        ),
        ("sha256:" + "b" * 64, "sha256:1", ("", "", "the container runtime names no digest of a registry")),
        ("", "registry.sekisho.internal/apps/x:1", ("", "", "it was not pulled yet")),
        (
            f"registry.sekisho.internal/--help@{DIGEST} -o x",
            "",
            ("", "", "the container runtime names no digest of a registry"),
        ),
    ],
)
def test_the_agent_finds_an_image_in_the_zones_registry_or_says_why_not(identity, image, expected):
    assert node.locate(identity, image) == expected


def test_the_agent_takes_each_image_once_with_all_its_pods():
    reference = f"registry.sekisho.internal/apps/x@{DIGEST}"
    pods = [
        pod("b", (reference, "x")),
        pod("a", (reference, reference)),
        pod("c", (reference, "x"), kind="initContainerStatuses"),
    ]
    (image,) = node.running_images(pods)
    assert (image.reference, image.pods) == (reference, ("app-x/a", "app-x/b", "app-x/c"))


def test_the_agent_counts_findings_once_and_most_severe_first():
    item = {"VulnerabilityID": "CVE-1", "Severity": "LOW", "PkgName": "p", "InstalledVersion": "1"}
    worse = {**item, "VulnerabilityID": "CVE-2", "Severity": "CRITICAL"}
    summary = scanner.summarise(
        {
            "Metadata": {"OS": {"Family": "debian", "Name": "12.5"}},
            "Results": [{"Vulnerabilities": [item, item]}, {"Vulnerabilities": [worse]}],
        }
    )
    assert [finding["id"] for finding in summary["findings"]] == ["CVE-2", "CVE-1"]
    assert (summary["counts"]["CRITICAL"], summary["counts"]["LOW"], summary["os"], summary["warning"]) == (
        1,
        1,
        "debian 12.5",
        "",
    )


def test_the_agent_does_not_take_an_unknown_system_for_a_clean_one():
    assert "unknown operating system" in scanner.summarise({"Metadata": {}, "Results": None})["warning"]


def test_the_agent_says_what_is_missing_in_its_environment():
    with pytest.raises(ValueError, match="REGISTRY"):
        node.Settings.from_environment({"NODE_NAME": "n", "ZONE": "z"})


TRIVY = """#!/usr/bin/env python3
import json, pathlib, sys
cache = pathlib.Path(sys.argv[sys.argv.index("--cache-dir") + 1])
if "--download-db-only" in sys.argv:
    (cache / "db").mkdir(parents=True)
    (cache / "db/metadata.json").write_text('{"UpdatedAt": "2026-01-01T00:00:00Z"}')
elif "broken" in sys.argv[-3]:
    sys.exit("scan failed")
else:
    item = {"VulnerabilityID": "CVE-1", "Severity": "HIGH", "PkgName": "p", "InstalledVersion": "1"}
    print(json.dumps({"Metadata": {"OS": {"Family": "debian"}}, "Results": [{"Vulnerabilities": [item]}]}))
"""


class World(ThreadingHTTPServer):
    """The API server and the registry, as far as the agent asks them."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answers)
        self.pods, self.up, self.asked = [], True, []
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def address(self):
        return f"127.0.0.1:{self.server_port}"


class Answers(BaseHTTPRequestHandler):
    def do_GET(self):
        url = urlsplit(self.path)
        self.server.asked.append((url.path, self.headers.get("Authorization")))
        if not self.server.up:
            self.send_error(503)
            return
        if url.path == "/api/v1/pods":
            query = parse_qs(url.query)
            assert query["fieldSelector"] == ["spec.nodeName=node-1"]
            start = int(query.get("continue", ["0"])[0])
            more = {"continue": str(start + 1)} if start + 1 < len(self.server.pods) else {}
            body = {"items": self.server.pods[start : start + 1], "metadata": more}
        else:
            body = {"annotations": {"sekisho.dev/advisories": "sample"}}
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Docker-Content-Digest", DIGEST)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def world():
    server = World()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def watcher(world, tmp_path):
    (tmp_path / "account").mkdir()
    (tmp_path / "account/token").write_text("secret-token")
    (tmp_path / "trivy").write_text(TRIVY)
    (tmp_path / "trivy").chmod(0o755)
    return agent.Agent(
        node.Settings(
            node="node-1",
            zone="staging",
            registry=world.address,
            database=f"{world.address}/mirror/trivy-db:2",
            interval=60,
            port=0,
            api=f"http://{world.address}",
            account=tmp_path / "account",
            cache=tmp_path / "cache",
            trivy=str(tmp_path / "trivy"),
        )
    )


def running(name, repository="apps/x"):
    return pod(name, (f"registry.sekisho.internal/{repository}@{DIGEST}", ""))


def test_a_pass_lists_all_pods_scans_each_image_and_tells_each_finding_once(watcher, world, capsys):
    world.pods = [running("a"), running("b"), pod("c", ("docker.io/x@" + DIGEST, ""))]
    assert watcher.make_pass()
    assert watcher.make_pass()
    report = watcher.state.report
    (image,) = report["images"]
    assert (image["pods"], image["counts"]["HIGH"], report["counts"]["HIGH"]) == (["app-x/a", "app-x/b"], 1, 1)
    assert [item["pods"] for item in report["unscanned"]] == [["app-x/c"]]
    assert (report["database"]["kind"], report["database"]["digest"]) == ("sample", DIGEST)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["id"] for line in lines if line["event"] == "finding"] == ["CVE-1"]
    assert "secret-token" not in json.dumps([report, lines])
    assert ("/api/v1/pods", "Bearer secret-token") in world.asked


def test_the_agent_is_not_healthy_before_its_first_complete_pass(watcher, world):
    now = time.monotonic()
    assert watcher.state.healthy(now, 60) == (False, "no complete pass yet")
    world.up = False
    assert not watcher.make_pass()
    assert not watcher.state.healthy(time.monotonic(), 60)[0]
    assert len(watcher.state.report["problems"]) == 2


def test_an_outage_is_reported_and_what_was_known_stays(watcher, world):
    world.pods = [running("a")]
    assert watcher.make_pass()
    complete = watcher.state.last_complete
    world.up = False
    assert not watcher.make_pass()
    assert watcher.state.report["complete"] is False
    assert len(watcher.state.report["images"]) == 1
    assert watcher.state.last_complete == complete
    assert watcher.state.healthy(complete + 179, 60)[0]
    assert not watcher.state.healthy(complete + 181, 60)[0]


def test_an_image_that_cannot_be_scanned_is_named_and_tried_again(watcher, world):
    world.pods = [running("a", "apps/broken")]
    assert watcher.make_pass()
    (item,) = watcher.state.report["unscanned"]
    assert "scan failed" in item["why"]
    assert watcher.scanned == {}


def test_the_agent_answers_over_http(watcher, world):
    server = agent.make_server(watcher, "127.0.0.1")
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    base = f"http://127.0.0.1:{server.server_port}"
    with pytest.raises(urllib.error.HTTPError, match="503"):
        urlopen(f"{base}/healthz")  # noqa: S310
    world.pods = [running("a")]
    watcher.make_pass()
    assert urlopen(f"{base}/healthz").read() == b"ok"  # noqa: S310
    assert json.load(urlopen(f"{base}/report"))["zone"] == "staging"  # noqa: S310
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urlopen(f"{base}/../etc/passwd")  # noqa: S310
    server.shutdown()
    server.server_close()
