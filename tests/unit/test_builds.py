"""builds.yaml: what a build may use."""

from __future__ import annotations

from pathlib import Path

import pytest

from sekisho.builds import BuildRules, load_builds
from sekisho.errors import PermanentError

POLICIES = Path(__file__).parents[2] / "policies"


def written(folder: Path, text: str) -> Path:
    (folder / "builds.yaml").write_text(f"format: sekisho.dev/builds/v1\n{text}")
    return folder


def test_the_projects_own_file_says_the_defaults() -> None:
    assert load_builds(POLICIES) == BuildRules(without_lock={"default": "resolve"})


def test_without_a_file_everything_is_as_by_default(tmp_path: Path) -> None:
    assert load_builds(tmp_path) == BuildRules()
    assert BuildRules().resolves("python")


def test_what_is_written_counts(tmp_path: Path) -> None:
    rules = load_builds(written(tmp_path, "sandbox: {memory: 512Mi, cpus: 0.5}\ncache: {size: 1Ti}\n"
                                          "without_lock: {default: refuse, go: resolve}\n"))  # fmt: skip
    assert (rules.sandbox.memory, rules.sandbox.cpus, rules.cache.size) == (512 << 20, 0.5, 1 << 40)
    assert (rules.sandbox.seconds, rules.sandbox.files) == (900, 200_000)
    assert [rules.resolves(language) for language in ("go", "python")] == [True, False]


def test_a_hosted_builder_has_a_name_of_its_own_and_claims_level_2(tmp_path: Path) -> None:
    builder = load_builds(written(tmp_path, 'builder: {id: "https://build.example/v1", level: 2}\n')).builder
    assert (builder.id, builder.level) == ("https://build.example/v1", 2)
    assert (BuildRules().builder.level, BuildRules().builder.id.endswith("/embedded-unhosted/v1")) == (1, True)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("builder: {level: 2}\n", "unhosted claims level 1"),
        ('builder: {id: "https://build.example/v1", level: 3}\n', "/builder/level"),
        ("builder: {id: laptop}\n", "/builder/id"),
        ("sandbox: {memory: 512}\n", "/sandbox/memory: .*512Mi"),
        ("sandbox: {memory: 0Mi}\n", "/sandbox/memory"),
        ("sandbox: {memory: 5MB}\n", "/sandbox/memory"),
        ("sandbox: {seconds: 0}\n", "/sandbox/seconds"),
        ("sandbox: {cpus: 0}\n", "/sandbox/cpus"),
        ("sandbox: {network: true}\n", "/sandbox/network"),
        ("without_lock: {go: maybe}\n", "/without_lock/go"),
        ("without_lock: {../x: refuse}\n", "/without_lock"),
    ],
)
def test_what_is_not_understood_stops_the_line_with_its_place(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(PermanentError, match=says) as caught:
        load_builds(written(tmp_path, text))
    assert "builds.yaml:" in caught.value.where
