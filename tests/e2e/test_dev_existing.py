"""`sekisho dev` on a cluster that exists: one's own kubeconfig, Docker engine, registry and folder for state."""

from __future__ import annotations

import shutil
import signal
import subprocess
import threading
from pathlib import Path

import pytest
import yaml
from sandboxes import left

from sekisho.developers import namespace_of
from sekisho.embedded.developers import invite
from sekisho.embedded.kubeapi import KubeApi
from sekisho.programs import program
from sekisho.programs import surroundings as surroundings_of
from sekisho.zones import Port, Zone, ZoneHome, address
from stages.dev.measure import get, running, save_to_running

pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.usefixtures("zones")]

ROOT = Path(__file__).parents[2]
LOGIN, CONTEXT = "e2edora", "work"
LONG = 300.0


@pytest.fixture
def surroundings(zones: object, engine: Path, tmp_path: Path) -> dict[str, str]:
    """The variables of a developer of such a cluster. The cluster is the dev zone's; nothing else of it is used."""
    del zones
    theirs = yaml.safe_load(invite(LOGIN).kubeconfig.read_text())
    for context in theirs["contexts"]:
        context["name"] = CONTEXT
    theirs["current-context"] = "another"  # the profile's counts
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(theirs))
    profile = yaml.safe_load((ROOT / "cluster-profiles" / "dev.yaml").read_text())
    profile["cluster"] = {"provider": "kubeconfig", "kubeconfig": str(tmp_path / "kubeconfig"), "context": CONTEXT}
    (tmp_path / "dev.yaml").write_text(yaml.safe_dump(profile))
    return {
        "SEKISHO_DEV_PROFILE": str(tmp_path / "dev.yaml"),
        "SEKISHO_DEV_REGISTRY": f"http://{address(Zone.DEV)}:{Port.REGISTRY_WRITE}",
        "SEKISHO_POLICIES": str(ZoneHome(Zone.DEV).policies),
        "DOCKER_HOST": f"unix://{engine}",
        "XDG_STATE_HOME": str(tmp_path / "state"),
    }


@pytest.fixture
def guestbook(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "examples" / "guestbook", tmp_path / "guestbook")
    return tmp_path / "guestbook"


def test_a_save_runs_in_a_cluster_that_exists(
    surroundings: dict[str, str], guestbook: Path, engine: Path, tmp_path: Path
) -> None:
    name = namespace_of(LOGIN, "guestbook")
    before = set(ZoneHome(Zone.DEV).root.rglob(f"developers/{LOGIN}/*"))
    with running(guestbook, login=LOGIN, environment=surroundings) as one:
        url = str(one.wait("address", seconds=LONG)["url"])
        one.wait("running", seconds=LONG)
        page = guestbook / "guestbook" / "templates" / "index.html"
        text = page.read_text().replace("</body>", "in-their-cluster</body>")
        save_to_running(one, page, text, f"{url}/", "in-their-cluster")
        assert get(f"{url}/")[0] == 200
        pods = KubeApi(Zone.DEV).request("GET", f"/api/v1/namespaces/{name}/pods")["items"]
        assert {pod["metadata"]["labels"]["app.kubernetes.io/name"] for pod in pods} == {"guestbook", "guestbook-db"}
        images = subprocess.run(
            ["docker", "-H", f"unix://{engine}", "images", "-q"], capture_output=True, text=True, check=True
        )
        assert images.stdout  # it was their engine that built
    home = tmp_path / "state" / "sekisho" / "dev" / LOGIN
    assert (home / "builder.pem").stat().st_mode & 0o077 == 0
    assert home.stat().st_mode & 0o077 == 0
    assert left(engine) == ""
    assert set(ZoneHome(Zone.DEV).root.rglob(f"developers/{LOGIN}/*")) == before


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        pytest.param("SEKISHO_DEV_REGISTRY", "", "SEKISHO_DEV_REGISTRY=http://HOST:PORT", id="no-registry"),
        pytest.param("SEKISHO_DEV_REGISTRY", "http://127.0.0.1:9", "registry", id="a-registry-that-is-not-there"),
        pytest.param("DOCKER_HOST", "tcp://engine.example.com:2376", "runs here", id="an-engine-elsewhere"),
        pytest.param("DOCKER_HOST", "unix:///nowhere/docker.sock", "/nowhere/docker.sock", id="no-engine"),
    ],
)
def test_what_is_missing_is_said(
    surroundings: dict[str, str], guestbook: Path, variable: str, value: str, said: str
) -> None:
    process = subprocess.Popen(
        program("stages.dev", str(guestbook), "--as", LOGIN),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=surroundings_of({**surroundings, variable: value}),
    )
    late = threading.Timer(90, process.kill)
    late.start()
    try:
        told = []
        for line in process.stdout or ():
            told.append(line)
            if said in line:
                break
        assert said in "".join(told)
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate()
        late.cancel()
