"""A commit whose score.yaml is refused is not built: nobody waits for minutes to be told of a typing error."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path

import pytest
from fault_line import APP, GIT, GateLine

from sekisho.canonical import Digest
from sekisho.errors import Refusal
from sekisho.model import Image
from stages.build import BuildInput


class NeverBuilds:
    """A build stage that would say what is wrong at once, and must not be asked for more."""

    name = "build"

    def __init__(self, wrong: str = "") -> None:
        self.wrong = wrong

    def rest(self) -> None:
        """Nothing is ever left."""

    def key(self, subject: BuildInput) -> Digest:
        del subject
        if self.wrong:
            raise Refusal(self.wrong, where="Procfile", remedy="Add one.")
        return Digest("sha256:" + "1" * 64)

    def find(self, subject: BuildInput) -> Image | None:
        del subject
        raise AssertionError("The build was begun.")

    perform = find


def push_changed(line: GateLine, folder: Path, name: str, old: str, new: str) -> None:
    """Give the zone another commit, in which a file is changed."""
    bare = line.home.git / f"{APP}.git"
    subprocess.run(["git", "clone", "-q", "--no-hardlinks", str(bare), str(folder)], env=GIT, check=True)
    path = folder / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    for words in (["commit", "-qam", "two"], ["push", "-q", "origin", "main"]):
        subprocess.run(["git", *words], cwd=folder, env=GIT, check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, env=GIT, check=True, capture_output=True, text=True)
    line.place = dataclasses.replace(line.place, commit=head.stdout.strip())


@pytest.mark.parametrize("wrong", ["", "Nothing says how it starts."])
def test_what_is_refused_at_once_is_said_without_a_build(line: GateLine, tmp_path: Path, wrong: str) -> None:
    push_changed(line, tmp_path / "work", "score.yaml", "image:", "imagge:")
    line.start()
    line.gate = dataclasses.replace(line.gate, build=NeverBuilds(wrong))
    outcome = line.push()
    assert outcome.state == "failed"
    assert outcome.verdict is not None
    failed = [item.rule for item in outcome.verdict.reasons if item.result == "fail"]
    assert failed[: 1 + bool(wrong)] == [*["build/refused"] * bool(wrong), "render/refused"]
    assert "imagge" in outcome.text
    assert ("not built: score.yaml is refused" in outcome.text) is not bool(wrong)
    assert line.traces() == set()
