"""Where in a repository an app's workload is."""

from __future__ import annotations

from pathlib import Path

import pytest

from sekisho.errors import Refusal
from stages.build.locate import locate


def tree(folder: Path, **names: str) -> Path:
    for path, name in names.items():
        place = folder / path.replace("__", "/")
        place.mkdir(parents=True, exist_ok=True)
        (place / "score.yaml").write_text(f"metadata: {{name: {name}}}\n" if name else "x: [")
    return folder


def test_a_repository_of_one_workload_is_its_top(tmp_path: Path) -> None:
    assert locate(tmp_path, "shop") == "."
    (tmp_path / "score.yaml").write_text("metadata: {name: other}\n")
    tree(tmp_path, services__shop="shop")
    assert locate(tmp_path, "shop") == "."


def test_in_a_monorepo_it_is_where_its_score_yaml_is(tmp_path: Path) -> None:
    tree(tmp_path, services__shop="shop", services__till="till", web="web", a__b__c__d__e="deep", broken="")
    assert [locate(tmp_path, name) for name in ("shop", "till", "web")] == ["services/shop", "services/till", "web"]


def test_none_or_two_are_refused_with_what_is_there(tmp_path: Path) -> None:
    tree(tmp_path, one="shop", two="shop", three="till", broken="")
    with pytest.raises(Refusal, match=r"More than one folder has a score\.yaml named 'shop': one, two"):
        locate(tmp_path, "shop")
    with pytest.raises(Refusal, match=r"there is broken/score.yaml \(no name\), one/score.yaml \(shop\)") as caught:
        locate(tmp_path, "web")
    assert "metadata.name: web" in caught.value.remedy


def test_links_are_not_followed(tmp_path: Path) -> None:
    outside = tree(tmp_path / "outside", shop="shop")
    inside = tmp_path / "inside"
    (inside / "real").mkdir(parents=True)
    (inside / "linked").symlink_to(outside / "shop")
    (inside / "real" / "score.yaml").symlink_to(outside / "shop" / "score.yaml")
    assert locate(inside, "shop") == "."
