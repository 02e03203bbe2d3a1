"""`sekisho dev` in the real dev cluster: saves, mistakes, Ctrl-C, kill -9, two developers, a real database."""

from __future__ import annotations

import http.cookies
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sekisho.canonical import Digest
from sekisho.developers import namespace_labels, namespace_of, own_binding
from sekisho.embedded.developers import invite
from sekisho.embedded.kubeapi import KubeApi
from sekisho.embedded.services import docker_folder
from sekisho.errors import PermanentError, SekishoError
from sekisho.evidence import FoundStatement, find_statements
from sekisho.keys import TrustRoot, load_trust, trusted_key
from sekisho.kube import Kube, Ref
from sekisho.model import Image
from sekisho.registry import Registry
from sekisho.statements import PROVENANCE
from sekisho.zones import Zone, ZoneHome
from stages.build.compose import Origin
from stages.build.sandbox import LABEL
from stages.dev.image import Workbench
from stages.dev.measure import Running, get, running, save_to_running
from stages.dev.place import Place, find_place

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("zones")]

EXAMPLES = Path(__file__).parents[2] / "examples"
LONG = 300.0
TEMPLATE = "guestbook/templates/index.html"


def copy_of(example: str, place: Path) -> Path:
    folder = place / example
    shutil.copytree(EXAMPLES / example, folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def url_of(one: Running) -> str:
    return str(one.wait("address", seconds=LONG)["url"])


def namespace(name: str) -> dict[str, Any] | None:
    found: dict[str, Any] | None = KubeApi(Zone.DEV).request("GET", f"/api/v1/namespaces/{name}")
    return found


def until_gone(name: str) -> None:
    end = time.monotonic() + 120
    while namespace(name) is not None:
        assert time.monotonic() < end, f"{name} stays"
        time.sleep(0.5)


def wait_for(what: Callable[[], Any], seconds: float = 120) -> Any:
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.3)
    return found


def write_entry(url: str, message: str) -> None:
    """Fill in the guestbook's form as a browser does."""
    with urllib.request.urlopen(f"{url}/", timeout=60) as answer:  # noqa: S310
        cookie = http.cookies.SimpleCookie(answer.headers["Set-Cookie"])
    token = cookie["guestbook-form"].value
    form = urllib.parse.urlencode({"author": "Ann", "message": message, "token": token}).encode()
    request = urllib.request.Request(f"{url}/entries", form, {"Cookie": f"guestbook-form={token}"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
        assert message in answer.read().decode()


# -- one developer, one app, a whole morning ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guestbook(zones: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, Path, str]]:
    del zones
    folder = copy_of("guestbook", tmp_path_factory.mktemp("ann"))
    with running(folder, login="e2eann") as one:
        url = url_of(one)
        one.wait("running", seconds=LONG)
        yield one, folder, url
    until_gone(namespace_of("e2eann", "guestbook"))


def saved(guestbook: tuple[Running, Path, str], marker: str) -> None:
    one, folder, url = guestbook
    text = (EXAMPLES / "guestbook" / TEMPLATE).read_text().replace("</body>", f"{marker}</body>")
    save_to_running(one, folder / TEMPLATE, text, f"{url}/", marker)


def test_a_save_runs_and_the_database_is_real_and_stays(guestbook: tuple[Running, Path, str]) -> None:
    one, _, url = guestbook
    write_entry(url, "written before the save")
    place = len(one.events)
    saved(guestbook, "the-first-save")
    assert b"written before the save" in get(f"{url}/")[1]
    assert one.wait("running", after=place)["changed"] == [TEMPLATE]
    pods = KubeApi(Zone.DEV).request("GET", f"/api/v1/namespaces/{namespace_of('e2eann', 'guestbook')}/pods")["items"]
    names = {pod["metadata"]["labels"]["app.kubernetes.io/name"] for pod in pods}
    assert names == {"guestbook", "guestbook-db"}
    need = one.wait("need")
    assert (need["name"], need["text"]) == ("db", "postgres by postgres-in-cluster")


def test_a_save_changes_the_program_in_its_pod_and_makes_no_other(guestbook: tuple[Running, Path, str]) -> None:
    path = f"/api/v1/namespaces/{namespace_of('e2eann', 'guestbook')}/pods"

    def names() -> set[str]:
        return {pod["metadata"]["name"] for pod in KubeApi(Zone.DEV).request("GET", path)["items"]}

    before = names()
    saved(guestbook, "in-its-place")
    assert names() == before


def test_the_programs_words_are_shown(guestbook: tuple[Running, Path, str]) -> None:
    one, _, _ = guestbook
    lines = wait_for(lambda: [item["line"] for item in one.events if item["event"] == "log"])
    assert any("listening on port 8080" in line for line in lines)


def test_the_gates_hint_is_shown_beside_it(guestbook: tuple[Running, Path, str]) -> None:
    one, _, _ = guestbook
    assert one.wait("gate", seconds=LONG)["result"] == "PASSED"


def test_a_program_that_does_not_start_is_told_and_the_last_good_one_is_put_back(
    guestbook: tuple[Running, Path, str],
) -> None:
    one, folder, url = guestbook
    saved(guestbook, "the-good-one")
    good, place = _last(one, "running"), len(one.events)
    main = folder / "guestbook" / "__main__.py"
    text = main.read_text()
    main.write_text("this is no Python\n" + text)
    failed = one.wait("failed", seconds=LONG, after=place)
    assert (failed["what"], failed["good"]) == ("It ended with exit code 1.", good)
    wait_for(lambda: any("SyntaxError" in item.get("line", "") for item in one.events[place:]))
    one.wait("again", seconds=LONG, after=place, version=good)
    assert b"the-good-one" in get(f"{url}/")[1]
    main.write_text(text)
    saved(guestbook, "mended")


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("score.yaml", "apiVersion: score.dev/v1b1\nmetadata: [\n", "score.yaml:3"),
        pytest.param("score.yaml", None, "There is no score.yaml", marks=pytest.mark.long),
        pytest.param("requirements.txt", f"flask==0.0.0 --hash=sha256:{'0' * 64}\n", "flask", marks=pytest.mark.long),
    ],
)
def test_a_mistake_is_told_and_the_good_version_goes_on(
    guestbook: tuple[Running, Path, str], file: str, text: str | None, said: str
) -> None:
    one, folder, url = guestbook
    saved(guestbook, f"before-{file}-{len(said)}")
    good, place = _last(one, "running"), len(one.events)
    if text is None:
        (folder / file).unlink()
    else:
        (folder / file).write_text(text)
    failed = one.wait("failed", seconds=LONG, after=place)
    assert failed["good"] == good
    assert said in f"{failed['what']} {failed['where']}"
    assert b"before-" in get(f"{url}/")[1]
    assert one.process.poll() is None
    shutil.copy(EXAMPLES / "guestbook" / file, folder / file)
    saved(guestbook, f"after-{file}-{len(said)}")


def test_what_the_gate_would_refuse_runs_all_the_same(guestbook: tuple[Running, Path, str]) -> None:
    one, folder, url = guestbook
    score = (folder / "score.yaml").read_text()
    place = len(one.events)
    without = re.sub(r"    readinessProbe:\n.*\n", "", score)
    assert without != score
    (folder / "score.yaml").write_text(without)
    one.wait("running", seconds=LONG, after=place)
    gate = one.wait("gate", seconds=LONG, after=place)
    assert (gate["result"], any("readiness" in rule for rule in gate["failures"])) == ("FAILED", True)
    assert get(f"{url}/")[0] == 200
    (folder / "score.yaml").write_text(score)
    saved(guestbook, "with-its-probe-again")


@pytest.mark.long
def test_a_file_that_git_would_not_keep_changes_nothing(guestbook: tuple[Running, Path, str]) -> None:
    one, folder, _ = guestbook
    saved(guestbook, "quiet")
    number = _last(one, "running")
    (folder / "__pycache__").mkdir(exist_ok=True)
    (folder / "__pycache__" / "x.pyc").write_bytes(b"x")
    saved(guestbook, "after-quiet")
    assert _last(one, "running") == number + 1


def test_the_same_app_twice_is_refused(guestbook: tuple[Running, Path, str], tmp_path: Path) -> None:
    folder = copy_of("guestbook", tmp_path)
    command = [sys.executable, "-m", "sekisho.cli.main", "dev", str(folder), "--as", "e2eann"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert f"runs in the dev cluster already: process {guestbook[0].process.pid}" in done.stderr


def _last(one: Running, event: str) -> int:
    """Return the number of the last version of which an event was told; the telling may be a moment late."""
    time.sleep(5)
    return int([item["version"] for item in one.events if item["event"] == event][-1])


# -- the end --------------------------------------------------------------------------------------------------------


def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    with running(copy_of("site", tmp_path), login="e2ecarl") as one:
        url = url_of(one)
        one.wait("running", seconds=LONG)
        assert get(url)[0] == 200
        name = one.wait("opened")["namespace"]
        assert namespace(name) is not None
        one.process.send_signal(signal.SIGINT)
        assert one.process.wait(timeout=60) == 0
        one.wait("closed")
    until_gone(name)
    assert caretakers(name) == []


def caretakers(name: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"stages.dev.caretaker" in words and name.encode() in words:
                found.append(int(entry.name))
    return found


def sandboxes() -> set[str]:
    """Return the containers that builds left in the dev zone's engine, or still use."""
    command = ["docker", "-H", f"unix://{docker_folder(Zone.DEV)}/docker.sock", "ps", "-aq", "--no-trunc"]
    command += ["--filter", f"label={LABEL}"]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def test_a_killed_command_is_cleared_up_by_its_caretaker(tmp_path: Path) -> None:
    before = sandboxes()
    with running(copy_of("tegata", tmp_path), login="e2ecarl") as one:
        url_of(one)
        name = one.wait("opened")["namespace"]
        assert sandboxes() - before  # the compiler's, or what is kept ready for the next one
        one.process.kill()
    until_gone(name)
    wait_for(lambda: not caretakers(name))
    assert not sandboxes() - before


def test_when_all_was_killed_the_next_start_clears_up(tmp_path: Path) -> None:
    with running(copy_of("site", tmp_path), login="e2ecarl") as one:
        url_of(one)
        left = one.wait("opened")["namespace"]
        for pid in caretakers(left):
            os.kill(pid, signal.SIGKILL)
        one.process.kill()
        one.process.wait()
    assert namespace(left) is not None
    other = copy_of("site", tmp_path / "other")
    score = (other / "score.yaml").read_text()
    (other / "score.yaml").write_text(score.replace("name: site", "name: other"))
    with running(other, login="e2ecarl") as one:
        url_of(one)
        until_gone(left)
        assert any(left in item["text"] for item in one.events if item["event"] == "note")


@pytest.mark.long
def test_what_a_killed_command_left_is_taken_over_by_the_same_app(tmp_path: Path) -> None:
    folder = copy_of("site", tmp_path)
    with running(folder, login="e2ecarl") as one:
        url_of(one)
        name = one.wait("opened")["namespace"]
        for pid in caretakers(name):
            os.kill(pid, signal.SIGKILL)
        one.process.kill()
        one.process.wait()
    with running(folder, login="e2ecarl") as one:
        url = url_of(one)
        one.wait("running", seconds=LONG)
        marker = "taken-over"
        page = (folder / "public" / "index.html").read_text().replace("</body>", f"{marker}</body>")
        save_to_running(one, folder / "public" / "index.html", page, url, marker)
    until_gone(name)


# -- several developers ---------------------------------------------------------------------------------------------


def test_two_developers_do_not_meet(tmp_path: Path) -> None:
    ann, bob = copy_of("site", tmp_path / "ann"), copy_of("site", tmp_path / "bob")
    with running(ann, login="e2eann") as hers, running(bob, login="e2ebob") as his:
        her_url, his_url = url_of(hers), url_of(his)
        assert her_url != his_url
        assert hers.wait("opened")["namespace"] != his.wait("opened")["namespace"]
        hers.wait("running", seconds=LONG)
        his.wait("running", seconds=LONG)
        page = (bob / "public" / "index.html").read_text().replace("</body>", "only-bobs</body>")
        save_to_running(his, bob / "public" / "index.html", page, his_url, "only-bobs")
        assert b"only-bobs" not in get(her_url)[1]


@pytest.fixture(scope="module")
def ann_and_bob(zones: object) -> Iterator[tuple[Kube, Kube, str]]:
    """Two developers' own credentials, and a namespace of the first."""
    del zones
    ann, bob = (Kube.connect(invite(name).kubeconfig) for name in ("e2eann", "e2ebob"))
    name = namespace_of("e2eann", "rights")
    ann.apply(namespace_object("e2eann", name))
    ann.apply(own_binding("e2eann", name))
    wait_for(lambda: reads(ann, name))
    yield ann, bob, name
    ann.delete(Ref("v1", "Namespace", "", name))


def namespace_object(developer: str, name: str, **labels: str) -> dict[str, Any]:
    metadata = {"name": name, "labels": {**namespace_labels(developer), **labels}}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}


def reads(kube: Kube, name: str) -> bool:
    try:
        kube.list("v1", "Secret", name)
    except SekishoError:
        return False
    return True


CLUSTER_ADMIN = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
PRIVILEGED = {"pod-security.kubernetes.io/enforce": "privileged"}


@pytest.mark.parametrize(
    "attempt",
    [
        pytest.param(lambda bob, _: bob.list("v1", "Secret"), id="reads-all-secrets"),
        pytest.param(lambda bob, ns: bob.list("v1", "Secret", ns), id="reads-anns-secrets"),
        pytest.param(lambda bob, _: bob.list("v1", "Secret", "kube-system"), id="reads-the-systems-secrets"),
        pytest.param(lambda bob, ns: bob.delete(Ref("v1", "Namespace", "", ns)), id="removes-anns-namespace"),
        pytest.param(lambda bob, ns: bob.apply(own_binding("e2ebob", ns)), id="takes-anns-namespace"),
        pytest.param(lambda bob, _: bob.apply(own_binding("e2ebob", "kube-system")), id="takes-the-system"),
        pytest.param(
            lambda bob, _: bob.apply(namespace_object("e2ebob", "dev-e2eann-new")), id="makes-a-namespace-as-ann"
        ),
        pytest.param(
            lambda bob, _: bob.apply(namespace_object("e2ebob", "dev-e2ebob-bad", **PRIVILEGED)), id="is-privileged"
        ),
        pytest.param(
            lambda bob, ns: bob.apply({**own_binding("e2eann", ns), "roleRef": CLUSTER_ADMIN}), id="becomes-admin"
        ),
        pytest.param(lambda bob, _: bob.list("v1", "Node"), id="looks-at-nodes"),
    ],
)
def test_a_developer_has_no_right_beyond_their_own_namespaces(
    ann_and_bob: tuple[Kube, Kube, str], attempt: Callable[[Kube, str], Any]
) -> None:
    _, bob, name = ann_and_bob
    with pytest.raises(PermanentError):
        attempt(bob, name)
    assert namespace(name) is not None


def test_a_developer_binds_nobody_and_nothing_else_in_their_own_namespace(
    ann_and_bob: tuple[Kube, Kube, str],
) -> None:
    ann, _, name = ann_and_bob
    for binding in ({**own_binding("e2eann", name), "roleRef": CLUSTER_ADMIN}, own_binding("e2ebob", name)):
        binding["metadata"] = {**binding["metadata"], "name": "another"}
        with pytest.raises(PermanentError):
            ann.apply(binding)


def test_no_pod_of_a_developer_is_privileged(ann_and_bob: tuple[Kube, Kube, str]) -> None:
    ann, _, name = ann_and_bob
    pod = {"containers": [{"name": "x", "image": "x", "securityContext": {"privileged": True}}], "hostNetwork": True}
    labels = {"app": "x"}
    deployment = {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x", "namespace": name},
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}},
    }  # fmt: skip
    ann.apply(deployment)

    def refused() -> list[Any]:
        sets = ann.list("apps/v1", "ReplicaSet", name)
        return [item for one in sets for item in one.get("status", {}).get("conditions", [])
                if item["type"] == "ReplicaFailure" and "PodSecurity" in item["message"]]  # fmt: skip

    assert wait_for(refused)
    assert ann.list("v1", "Pod", name) == ()


# -- what a developer builds is believed by nobody ------------------------------------------------------------------


def test_a_clean_working_copy_is_the_gates_image_and_its_statement_counts_nowhere(tmp_path: Path) -> None:
    folder = copy_of("site", tmp_path)
    identity = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@example.com", "GIT_COMMITTER_NAME": "a",
                "GIT_COMMITTER_EMAIL": "a@example.com"}  # fmt: skip
    for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "one"]):
        subprocess.run(["git", "-C", str(folder), *words], check=True, env=os.environ | identity)
    place = find_place("e2edana", os.environ)
    bench = Workbench(place, "site", folder)
    plain = tmp_path / "checkout" / "site"
    shutil.copytree(folder, plain, ignore=shutil.ignore_patterns(".git"))
    plain.chmod(0o755)
    commit, seconds = subprocess.check_output(
        ["git", "-C", str(folder), "log", "-1", "--format=%H %ct"], text=True
    ).split()
    made = bench.build(plain)
    origin = Origin("site", "git+https://git.sekisho.internal/site.git", commit, int(seconds))
    gates = bench._builder.build(plain, "apps/site", origin)
    assert made.image.digest == gates.image.digest

    bench.vouch(made.image)
    own = TrustRoot(keys=(trusted_key(bench._signer),))
    assert len(statements(place, made.image, own)) == 1
    for zone in Zone:
        assert statements(place, made.image, load_trust(ZoneHome(zone).trust / "root.json")) == ()


def statements(place: Place, image: Image, trust: TrustRoot) -> tuple[FoundStatement, ...]:
    return find_statements(
        Registry(place.registry), image.repository, Digest(image.digest), trust=trust, role="builder",
        predicate_type=PROVENANCE,
    )  # fmt: skip
