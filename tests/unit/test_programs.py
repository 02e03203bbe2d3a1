"""Our own programs run our own code, whatever lies in the folder that they are called from."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sekisho
from sekisho import programs
from sekisho.programs import program, surroundings

ROOT = Path(sekisho.__file__).resolve().parents[1]
CALLED = "import sys; from sekisho.cli.main import run; sys.exit(run(sys.argv[1:]))"
"""As the installed command begins: the folder of a script, and not the current one, is searched."""


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A cloned repository with files that have the names of modules."""
    folder = tmp_path / "clone"
    folder.mkdir()
    for name in ("queue", "yaml", "subprocess", "argparse", "sekisho", "stages", "sitecustomize"):
        (folder / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write({name!r})\n")
    return folder


def called(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-c", CALLED, *arguments]
    environment = {**surroundings(), "SEKISHO_HOME": str(folder.parent / "home"), "HOME": str(folder.parent)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_the_check_of_a_clone_runs_nothing_of_it(hostile: Path) -> None:
    done = called(hostile, "check", ".", "--json")
    assert json.loads(done.stdout)["result"] == "FAILED"
    assert not (hostile.parent / "ran").exists()


def test_the_dev_command_in_a_clone_runs_nothing_of_it(hostile: Path) -> None:
    done = called(hostile, "dev", ".", "--port", "70000")
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, "sekisho dev: There is no such port.")
    assert not (hostile.parent / "ran").exists()


def test_the_replay_of_a_judgement_in_a_clone_runs_nothing_of_it(hostile: Path) -> None:
    (hostile / "judged.json").write_text("{}")
    (hostile / "trust.json").write_text("{}")
    done = called(hostile, "why", "judged.json", "--trust", "trust.json")
    assert done.stderr.startswith("sekisho why: ")
    assert not (hostile.parent / "ran").exists()


def test_a_program_is_of_the_same_code_as_its_caller(tmp_path: Path) -> None:
    show = "import sekisho, stages, flows; print(sekisho.__file__, stages.__file__, flows.__file__)"
    command = [sys.executable, "-P", "-c", show]
    done = subprocess.run(command, cwd=tmp_path, env=surroundings(), capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(ROOT / name / "__init__.py") for name in ("sekisho", "stages", "flows")]


def test_what_the_caller_has_set_stays() -> None:
    there = surroundings({"PYTHONPATH": "/opt/own", "LANG": "C"})
    assert (there["LANG"], there["PYTHONPATH"].endswith("/opt/own")) == ("C", True)
    assert "" not in surroundings({"PYTHONPATH": ""})["PYTHONPATH"].split(os.pathsep)  # it would be the current folder


def test_an_installed_package_is_found_without_being_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """In front, a folder of packages would hide modules of Python itself."""
    monkeypatch.setattr(programs, "_ROOT", Path(json.__file__).parents[1] / "site-packages")
    monkeypatch.setattr(programs, "_installed", lambda: frozenset({str(programs._ROOT)}))
    assert surroundings({"LANG": "C"}) == {"LANG": "C"}


def test_no_program_is_started_from_the_current_folder() -> None:
    """Every start goes through the one helper; what runs inside of the sandbox is not ours."""
    begun = re.compile(r"""(sys\.executable|executable\)),\s*"-m\"""")
    places = [path for name in ("sekisho", "stages", "flows") for path in (ROOT / name).rglob("*.py")]
    found = {path.name for path in places if begun.search(path.read_text(encoding="utf-8"))}
    # A zone's processes begin in a folder of their own, and their supervisor in /.
    assert found == {"python_install.py", "services.py", "supervise.py"}
    assert program("a.b", "c") == [sys.executable, "-P", "-m", "a.b", "c"]
