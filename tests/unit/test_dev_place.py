"""Where a developer's dev cluster is; the embedded zone's part for developers; the caretaker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sekisho.embedded import services
from sekisho.embedded.developers import DeveloperHome, invite, login
from sekisho.embedded.processes import cgroups_of
from sekisho.errors import PermanentError, UsageError
from sekisho.zones import CLUSTER_ZONES, SANDBOX_ZONES, Zone
from stages.dev import __main__ as command
from stages.dev.caretaker import Caretaker
from stages.dev.place import find_place

KUBECONFIG = {
    "apiVersion": "v1", "kind": "Config", "current-context": "c",
    "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}], "users": [{"name": "u", "user": {}}],
    "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
}  # fmt: skip


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "kubeconfig").write_text(json.dumps(KUBECONFIG))
    profile = tmp_path / "dev.yaml"
    spec = f"{{provider: kubeconfig, kubeconfig: {tmp_path / 'kubeconfig'}, context: c}}"
    profile.write_text(f"zone: dev\ndescription: d\ncluster: {spec}\n")
    return {"SEKISHO_DEV_PROFILE": str(profile), "SEKISHO_DEV_REGISTRY": "http://127.0.0.1:5000",
            "XDG_STATE_HOME": str(tmp_path / "state")}  # fmt: skip


def test_a_cluster_that_exists_is_used_with_the_developers_own_engine(
    environment: dict[str, str], tmp_path: Path
) -> None:
    place = find_place("ann", environment)
    assert (place.developer, place.context, place.registry) == ("ann", "c", "http://127.0.0.1:5000")
    assert place.docker == Path("/var/run/docker.sock")
    assert place.root == tmp_path / "state" / "sekisho" / "dev" / "ann"
    assert place.root.stat().st_mode & 0o777 == 0o700


def test_the_engine_is_docker_hosts(environment: dict[str, str]) -> None:
    place = find_place("ann", {**environment, "DOCKER_HOST": "unix:///home/ann/.docker.sock"})
    assert place.docker == Path("/home/ann/.docker.sock")


def test_an_engine_elsewhere_cannot_read_the_working_copy(environment: dict[str, str]) -> None:
    with pytest.raises(PermanentError, match="not on this machine"):
        find_place("ann", {**environment, "DOCKER_HOST": "tcp://build:2375"})


@pytest.mark.parametrize("registry", ["", "localhost:5000"])
def test_without_a_registry_it_says_how_to_name_one(environment: dict[str, str], registry: str) -> None:
    with pytest.raises(UsageError) as error:
        find_place("ann", {**environment, "SEKISHO_DEV_REGISTRY": registry})
    assert "SEKISHO_DEV_REGISTRY=" in error.value.remedy


def test_a_profile_without_a_cluster_is_wrong_use(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "dev.yaml").write_text("zone: dev\ndescription: d\n")
    with pytest.raises(UsageError, match="names no cluster"):
        find_place("ann", environment)


def test_the_embedded_zone_that_was_never_up_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEKISHO_HOME", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(PermanentError, match="never up"):
        invite("ann")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(PermanentError, match="root's") as error:
        invite("ann")
    assert "sudo sekisho dev" in error.value.remedy


def test_behind_sudo_a_developer_is_still_themself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "ann")
    assert login() == "ann"


def test_developers_things_are_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEKISHO_HOME", str(tmp_path))
    ann, bob = DeveloperHome("ann"), DeveloperHome("bob")
    assert ann.root != bob.root
    assert ann.kubeconfig.is_relative_to(ann.root)


# -- the embedded zone ----------------------------------------------------------------------------------------------


def test_the_writable_registry_listens_to_others_in_the_dev_zone_alone() -> None:
    reached = {zone: services._writable_from(zone) for zone in CLUSTER_ZONES}
    assert {zone for zone, address in reached.items() if address != "127.0.0.1"} == {Zone.DEV}


def test_each_sandbox_has_an_engine_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEKISHO_HOME", str(tmp_path))
    assert SANDBOX_ZONES == (Zone.DEV, Zone.BUILD)
    folders = {services.docker_folder(zone) for zone in SANDBOX_ZONES}
    assert len(folders) == 2
    for zone in SANDBOX_ZONES:
        assert services.docker_cgroup(zone) in cgroups_of(zone)
    assert not any("docker" in path for path in cgroups_of(Zone.STAGING))


# -- the caretaker --------------------------------------------------------------------------------------------------


def test_a_caretaker_that_is_dismissed_does_nothing(tmp_path: Path) -> None:
    caretaker = Caretaker(tmp_path / "no-such-kubeconfig", "", "dev-ann-x", "h/1.2")
    caretaker.dismiss()
    assert caretaker._process.returncode == 0


def test_a_caretaker_whose_command_was_killed_goes_to_work(tmp_path: Path) -> None:
    """Without a kubeconfig its work fails; that it began at all is what shows."""
    script = (
        "import os, sys; from pathlib import Path; from stages.dev.caretaker import Caretaker\n"
        f"c = Caretaker(Path({str(tmp_path / 'none')!r}), '', 'dev-ann-x', 'h/1.2')\n"
        "print(c._process.pid, flush=True); os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    pid = int(done.stdout)
    for _ in range(600):
        if not Path(f"/proc/{pid}").exists():
            return
        subprocess.run(["sleep", "0.1"], check=True)
    pytest.fail("the caretaker still waits")


# -- the command ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["/no/such/folder"], ["--port", "70000"]])
def test_wrong_use_is_told_at_once(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(arguments) == 2
    assert capsys.readouterr().err.startswith("sekisho dev: ")


def test_a_folder_without_score_yaml_is_refused_with_what_to_do(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    assert command.main([str(tmp_path), "--as", "ann"]) == 1
    assert "There is no score.yaml." in capsys.readouterr().err


def test_the_command_line_becomes_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sekisho.cli.main import run

    became: list[list[str]] = []
    monkeypatch.setattr(os, "execve", lambda _, argv, __: became.append(argv))
    for more in ([], ["--json"], ["--optimised", "--json"]):
        arguments = [str(tmp_path), "--port", "9000", "--as", "ann", *more]
        run(["dev", *arguments])
        assert became.pop() == [sys.executable, "-P", "-m", "stages.dev", *arguments]
    assert run(["dev", str(tmp_path / "nothing")]) == 2


def test_what_a_strangers_score_yaml_says_steers_no_terminal(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(command, "run", lambda *_, **__: fail("a\x1b[2J\x9bb"))

    def fail(text: str) -> None:
        raise UsageError(text, where="\x1b]0;x\x07", remedy="\u202ex")

    assert command.main([str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(err)
    assert [line.split(":")[0].strip() for line in err.splitlines()] == ["sekisho dev", "where", "remedy"]
