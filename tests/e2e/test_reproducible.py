"""The same files on the same standard images give the same digest, for each language, whatever is around them.

Real builds in the build zone's engine. The second one has a cache of its own (cold), another folder, files that are of
another day and another owner, another umask, home, time zone and language, and the line's own clock a year ahead. The
third finds everything of the first (warm). A sandbox's clock is the machine's: between the builds it has gone on.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sekisho.errors import Refusal
from stages.build.__main__ import Bench
from stages.build.sandbox_rooms import Rooms

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("zones")]
ROOT = Path(__file__).parents[2]
YEAR = 365 * 86_400
EXAMPLES = {"python": "guestbook", "python-3-13": "guestbook", "node": "palette", "go": "tegata", "static": "site"}
# Rust's and Java's examples take minutes to compile without a cache; these have one dependency, and all the steps.
CARGO = {
    "Cargo.toml": '[package]\nname = "hello"\nversion = "0.1.0"\nedition = "2021"\n\n[dependencies]\nitoa = "1"\n',
    "src/main.rs": 'fn main() { println!("{}", itoa::Buffer::new().format(env!("CARGO_PKG_VERSION").len())); }\n',
}
MAVEN = {
    "pom.xml": """<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
  <groupId>org.example</groupId><artifactId>hello</artifactId><version>1.0</version>
  <properties><maven.compiler.source>17</maven.compiler.source><maven.compiler.target>17</maven.compiler.target>
    <project.build.sourceEncoding>UTF-8</project.build.sourceEncoding></properties>
  <build><plugins><plugin><artifactId>maven-jar-plugin</artifactId><configuration><archive><manifest>
    <mainClass>org.example.Hello</mainClass></manifest></archive></configuration></plugin></plugins></build>
</project>
""",
    "src/main/java/org/example/Hello.java": "package org.example;\n\npublic class Hello {\n"
    '  public static void main(String[] words) { System.out.println("hello"); }\n}\n',
}
NEWER = {"pom.xml": MAVEN["pom.xml"].replace(">17<", ">21<")}
WRITTEN: Mapping[str, Mapping[str, str]] = {
    "rust": CARGO, "java": MAVEN, "java-21": MAVEN | NEWER, "python-3-13": {".python-version": "3.13\n"},
}  # fmt: skip


def workload(image: str, folder: Path) -> Path:
    """Write a workload that runs on an image into a folder."""
    if image in EXAMPLES:
        ignored = shutil.ignore_patterns("__pycache__", "node_modules", "target")
        shutil.copytree(ROOT / "examples" / EXAMPLES[image], folder, ignore=ignored)
    for name, text in WRITTEN.get(image, {}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


LONG = {"node", "java", "java-21", "rust", "python-3-13"}
"""Those whose builds take long and show what others show as well."""


@pytest.mark.parametrize(
    "image", [pytest.param(name, marks=[pytest.mark.long] * (name in LONG)) for name in sorted({*EXAMPLES, *WRITTEN})]
)
def test_the_same_files_give_the_same_image(image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Bench(cache=tmp_path / "cache", policies=ROOT / "policies")
    name = f"same-{image}"
    first, _ = one.build(workload(image, tmp_path / "here"), name=name)
    assert first.image.base == image

    elsewhere = workload(image, tmp_path / "some" / "where" / "else")
    for path in elsewhere.rglob("*"):
        os.utime(path, (1, 1))
        os.chown(path, 12345, 12345)
    now = time.time
    umask = os.umask(0o077)
    try:
        with monkeypatch.context() as other:
            other.setattr(time, "time", lambda: now() + YEAR)
            for variable, value in {"HOME": "/nonexistent", "USER": "nobody", "TZ": "Pacific/Kiritimati",
                                    "LANG": "tr_TR.UTF-8", "LC_ALL": "C", "PYTHONHASHSEED": "7"}.items():  # fmt: skip
                other.setenv(variable, value)
            cold, _ = Bench(cache=tmp_path / "other-cache", policies=ROOT / "policies").build(
                elsewhere, name=name, resolved=first.resolved
            )
    finally:
        os.umask(umask)
    warm, _ = one.build(elsewhere, name=name, resolved=first.resolved)
    assert first.image.digest == cold.image.digest == warm.image.digest
    # What is cold ran its steps, what is warm took what was kept: else this test shows nothing.
    assert cold.made.logs.keys() == first.made.logs.keys()
    assert len(warm.made.logs) <= len(cold.made.logs)


@pytest.mark.long
def test_a_maven_that_was_made_ready_makes_the_same_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[bool] = []
    take = Rooms.take

    def seen(*arguments: Any) -> Any:
        room = take(*arguments)
        taken.append(room is not None)
        return room

    monkeypatch.setattr(Rooms, "take", seen)
    folder = Path(shutil.copytree(ROOT / "examples" / "chaya", tmp_path / "chaya"))
    bench = Bench(cache=tmp_path / "cache", policies=ROOT / "policies")
    new, _ = bench.build(folder)
    at_once, _ = bench.build(folder)  # while it still warms up
    time.sleep(10)
    warm, _ = bench.build(folder)
    assert new.image.digest == at_once.image.digest == warm.image.digest
    assert taken == [False, False, True, True, True, True]
    # Another commit in the same container finds nothing of this one, and what is wrong with it is said as ever.
    source = next((folder / "src" / "main" / "java").rglob("Chaya.java"))
    source.write_text(f"{source.read_text()}\noops\n")
    with pytest.raises(Refusal, match=r"build \(Maven\) failed with status 1"):
        bench.build(folder)
    assert taken[6:] == [True]
