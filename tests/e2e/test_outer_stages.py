"""The outer loop's stages against the real staging cluster: bind, harden, plan, apply, verify, watch, roll back."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from sekisho.embedded import netns
from sekisho.embedded.zones import UpReport
from sekisho.inventory import read_inventory
from sekisho.kube import Kube, Ref
from sekisho.model import DryRun, Image, Plan, Release, Revision, SealedRelease
from sekisho.policy import load_policies
from sekisho.profile import load_profile
from sekisho.stage import run_stage
from sekisho.standard import load_standard
from sekisho.vault import FileVault
from sekisho.zones import Zone, ZoneHome
from stages.apply import ApplyStage, apply, find
from stages.bind import Services, bind
from stages.harden import harden
from stages.plan import plan
from stages.render import render
from stages.verify import rollback, verify
from stages.watch import heal, look

pytestmark = pytest.mark.e2e

T = TypeVar("T")
D = "sha256:" + "d" * 64
HOME = ZoneHome(Zone.STAGING)

WEB = """
import http.server, os, pathlib, socket, sys
binding = pathlib.Path("/bindings/db")
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        try:
            where = ((binding / "host").read_text(), int((binding / "port").read_text()))
            socket.create_connection(where, 2).close()
            code = 200
        except OSError as error:
            print(error, flush=True)
            code = 503
        self.send_response(code)
        self.end_headers()
        self.wfile.write(f"{os.environ['SEKISHO_ZONE']} {os.environ['SEKISHO_RELEASE']}".encode())
http.server.ThreadingHTTPServer(("0.0.0.0", 8080), Handler).serve_forever()
"""
CRASH = 'import pathlib, sys; print("no such table", pathlib.Path("/bindings/db/password").read_text()); sys.exit(3)'


def score(app: str, program: str, image: str = ".") -> bytes:
    lines = "\n".join(f"          {line}" for line in program.strip().splitlines())
    return f"""
apiVersion: score.dev/v1b1
metadata:
  name: {app}
containers:
  web:
    image: {image}
    command: [python3, -c]
    args:
      - |
{lines}
    readinessProbe:
      httpGet: {{path: /healthz, port: 8080}}
    resources:
      requests: {{memory: 32Mi, cpu: 10m}}
      limits: {{memory: 96Mi, cpu: 500m}}
service:
  ports:
    http: {{port: 80, targetPort: 8080}}
resources:
  db: {{type: postgres}}
  web: {{type: route}}
""".encode()


class Line:
    """An app of this test in the staging zone; every call runs in the zone's network."""

    def __init__(self, folder: Path) -> None:
        self.app = f"t{secrets.token_hex(4)}"
        self.kube = Kube.connect(HOME.kubeconfig)
        self.vault = FileVault(folder / "vault")
        self.profile = load_profile(HOME.profile)
        self.standard = load_standard(HOME.policies)
        self.policies = load_policies(HOME.policies)

    def inside(self, call: Callable[[], T]) -> T:
        return netns.call_in(netns.namespace(Zone.STAGING), call)

    def plan(self, number: int, program: str, image: str = ".") -> tuple[Plan, DryRun]:
        python = self.standard.get("python")
        digest = "sha256:" + f"{number:x}" * 64
        built = Image(
            repository=python.repository, digest=python.digest, language="python", base="python",
            base_digest=python.digest, layers=(),
        )  # fmt: skip
        revision = Revision(
            app=self.app, commit=f"{number:x}" * 40, tree="0" * 40, branch="main", author="t", committed_at=0
        )
        release = Release(app=self.app, revision=revision, image=built, manifests=D, policy=D, evidence=())
        sealed = SealedRelease(repository=f"releases/{self.app}", digest=digest, summary=D, release=release)
        manifests = render(score(self.app, program, image), app=self.app, image=built.reference)
        bound = bind(manifests, sealed, self.profile, self.vault, Services(self.standard, HOME.secrets))
        hardened = harden(bound, self.profile, self.standard, sealed)
        found = read_inventory(self.kube, hardened.namespace)
        return plan(hardened, sealed, self.kube, found, profile=self.profile, check=self.policies.check_objects)


@pytest.fixture
def line(zones: UpReport, tmp_path: Path) -> Iterator[Line]:
    del zones  # only: they are up
    line = Line(tmp_path)
    yield line
    line.inside(lambda: line.kube.delete(Ref("v1", "Namespace", "", f"app-{line.app}")))


def until(look: Callable[[], Any], seconds: float = 150) -> Any:
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end
        time.sleep(0.5)
    return found


def test_a_release_runs_is_watched_and_a_bad_one_is_rolled_back(line: Line) -> None:
    def story() -> None:
        good, dry = line.plan(1, WEB)
        assert {change.action for change in dry.changes} == {"create"}
        deployed = run_stage(ApplyStage(line.kube, line.vault), good).value
        health = verify(good, line.kube, seconds=120, vault=line.vault)
        assert health.healthy, health
        assert health.checks[-1] == "GET /healthz: 200"

        # The way in leads through the guard to the workload, which knows where it is and reaches its database.
        answer = httpx.get(deployed.url, trust_env=False)
        assert (answer.status_code, answer.text) == (200, f"staging {good.release}")
        assert httpx.get(f"{deployed.url}__guard/healthz", trust_env=False).status_code == 200
        oversized = httpx.post(deployed.url, content=b"x" * (2 << 20), trust_env=False)
        assert oversized.status_code == 413

        assert look(line.kube, good, line.vault) == ()
        same, dry = line.plan(1, WEB)
        assert same == good
        assert {change.action for change in dry.changes} == {"none"}

        # Somebody scales the workload to nothing and takes the fence away.
        web = Ref("apps/v1", "Deployment", good.namespace, line.app)
        line.kube.request(
            "PATCH", line.kube.path(web), {"fieldManager": "somebody"}, {"spec": {"replicas": 0}},
            content_type="application/merge-patch+json",
        )  # fmt: skip
        line.kube.delete(Ref("networking.k8s.io/v1", "NetworkPolicy", good.namespace, "default-deny"))
        seen = look(line.kube, good, line.vault)
        assert {(item.kind, Ref.parse(item.object).kind) for item in seen} == {
            ("drift", "Deployment"),
            ("missing", "NetworkPolicy"),
        }
        healed = heal(line.kube, good, line.vault, seen, {}, now=int(time.time()))
        assert {item.action for item in healed.observations} == {"healed"}
        assert verify(good, line.kube, seconds=60, vault=line.vault).healthy
        until(lambda: not look(line.kube, good, line.vault))

        # A release that crashes is named with its last words, without the password, and the earlier one comes back.
        bad, dry = line.plan(2, CRASH)
        assert {change.object for change in dry.changes if change.action != "none"} == {f"Deployment/{line.app}"}
        apply(bad, line.kube, line.vault)
        failed = verify(bad, line.kube, seconds=120, vault=line.vault)
        assert failed.healthy is False
        assert "crashes again and again (exit code 3)" in failed.cause
        assert "no such table (secret)" in failed.cause
        back = rollback(good, line.kube, seconds=120, vault=line.vault, cause=failed.cause)
        assert (back.rolled_back_to, back.healthy) == (good.release, False), back.cause
        assert httpx.get(deployed.url, trust_env=False).text == f"staging {good.release}"
        assert find(good, line.kube, line.vault) == deployed

    line.inside(story)


def test_an_image_that_is_not_there_is_named_before_the_time_is_over(line: Line) -> None:
    def story() -> None:
        missing, _ = line.plan(1, WEB, image=f"registry.sekisho.internal/standard/none@{D}")
        apply(missing, line.kube, line.vault)
        health = verify(missing, line.kube, seconds=300, vault=line.vault)
        assert health.healthy is False
        assert "the image of web cannot be pulled" in health.cause
        assert "not healthy after" not in health.cause

    line.inside(story)


@pytest.mark.long
def test_pods_that_fit_on_no_node_and_quotas_are_named(line: Line) -> None:
    def story() -> None:
        made, _ = line.plan(1, WEB)
        objects = []
        for obj in made.objects:
            if obj["kind"] == "Deployment":
                # As much as the policies let anybody ask for, many times: no node has that, however large it is.
                container = obj["spec"]["template"]["spec"]["containers"][0]
                container["resources"] = {"limits": {"memory": "8Gi"}, "requests": {"cpu": "4", "memory": "8Gi"}}
                obj["spec"]["replicas"] = 100
            objects.append(obj)
        huge = made.model_copy(update={"objects": tuple(objects)})
        apply(huge, line.kube, line.vault)
        health = verify(huge, line.kube, seconds=120, vault=line.vault)
        assert "fits on no node" in health.cause
        quota = {
            "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "tight", "namespace": made.namespace},
            "spec": {"hard": {"limits.memory": "1Mi"}},
        }  # fmt: skip
        line.kube.apply(quota)
        again, _ = line.plan(2, WEB)
        apply(again, line.kube, line.vault)
        health = verify(again, line.kube, seconds=120, vault=line.vault)
        assert "exceeded quota" in health.cause

    line.inside(story)
