"""Carrying out a plan: what runs, what is kept, what decides, and what goes into which layer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from build_cases import FolderFetcher, Shop, names_of, plan_of

from sekisho.errors import PermanentError, Refusal
from sekisho.model import StandardImage
from stages.build.language import PACKAGES_FILE, SOURCE, Ahead, Artifact, Plan, Step, Take, Wheels
from stages.build.locks import Locked
from stages.build.pack import FIXED_TIME
from stages.build.sandbox import Command

INSTALL = Step("dependencies", ("install",), directory="deps", source=("lock",), keep=True)
BUILD = Step("build", ("build",), directory="work", source=(), uses=("dependencies",))
DEPENDENCIES = Take("dependencies", "dependencies", below="deps", into="opt/deps")
APPLICATION = Take("application", "build", below="work/dist", into="app")
WHOLE = plan_of(DEPENDENCIES, APPLICATION, steps=(INSTALL, BUILD))


def install(command: Command) -> dict[str, bytes | str]:
    seed = command.inputs["seed"]
    assert sorted(path.name for path in seed.iterdir()) == ["lock"]
    return {"deps/lib.txt": b"lib " + (seed / "lock").read_bytes(), "deps/bin": "lib.txt"}


def build(command: Command) -> dict[str, bytes | str]:
    library = (command.inputs["dependencies"] / "deps" / "lib.txt").read_bytes()
    made = (command.inputs["seed"] / "main.txt").read_bytes() + b" with " + library
    return {"work/dist/out.txt": made, "work/main.txt": b"x", "work/deps": "/in/dependencies"}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    folder.mkdir()
    (folder / "lock").write_text("1")
    (folder / "main.txt").write_text("main")
    return folder


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path, {"install": install, "build": build})


def test_a_plan_becomes_two_layers(shop: Shop, tree: Path) -> None:
    made = shop.make(tree, WHOLE)
    (dependencies, first), (application, second) = made.layers
    assert (dependencies.kind, application.kind) == ("dependencies", "application")
    assert names_of(first) == {"opt/deps/lib.txt": b"lib 1"}
    assert names_of(second) == {"app/out.txt": b"main with lib 1"}
    assert shop.sandbox.names == ["install", "build"]
    assert made.used_tools
    assert made.logs == {"dependencies": "log of install", "build": "log of build"}


def test_only_what_takes_need_is_brought_out_of_a_step_that_nobody_uses(shop: Shop, tree: Path) -> None:
    shop.make(tree, WHOLE)
    first, second = shop.sandbox.ran
    assert first.outputs == ()
    assert second.outputs == ("work/dist",)
    assert first.environment["SOURCE_DATE_EPOCH"] == str(FIXED_TIME)
    assert second.environment["SOURCE_DATE_EPOCH"] == "7"


def test_the_next_commit_runs_only_the_build_step(shop: Shop, tree: Path) -> None:
    first = shop.make(tree, WHOLE)
    (tree / "main.txt").write_text("other")
    second = shop.make(tree, WHOLE, time=8)
    assert shop.sandbox.names == ["install", "build", "build"]
    assert first.layers[0][0] == second.layers[0][0]
    assert first.layers[1][0] != second.layers[1][0]


def test_a_layer_of_packages_that_the_build_itself_chose_is_packed_once_for_its_content(tmp_path: Path) -> None:
    def choose(command: Command) -> dict[str, bytes | str]:
        lines = (command.inputs["seed"] / "main.txt").read_text().split()
        return {"libs/one.jar": lines[0].encode(), "libs/two.jar": lines[1], "made.txt": " ".join(lines).encode()}

    step = Step("build", ("choose",), directory="work", source=())
    plan = plan_of(
        Take("dependencies", "build", below="libs", into="lib"),
        Take("application", "build", below="made.txt", into="app"),
        steps=(step,),
    )
    shop = Shop(tmp_path, {"choose": choose})
    tree = tmp_path / "tree"
    tree.mkdir()
    made = []
    for text in ("jar one.jar x", "jar one.jar y", "rat one.jar x", "jar one.jar x"):
        (tree / "main.txt").write_text(text)
        made.append(shop.make(tree, plan))
    first, same, other, again = (item.layers[0][0] for item in made)
    assert first == same == again != other
    assert [("pack dependencies" in item.seconds) for item in made] == [True, False, True, False]
    assert names_of(made[1].layers[0][1])["lib/one.jar"] == b"jar"
    # A poisoned entry is found by its digest, and made anew.
    for blob in (tmp_path / "kept").rglob("layer.tar.gz"):
        blob.chmod(0o644)
        blob.write_bytes(b"poison")
    assert shop.make(tree, plan).layers[0][0] == first


def test_without_a_build_step_nothing_runs_and_no_kept_file_is_read(shop: Shop, tree: Path) -> None:
    plan = plan_of(DEPENDENCIES, Take("application", SOURCE, into="app"), steps=(INSTALL,))
    first = shop.make(tree, plan)
    second = shop.make(tree, plan)
    assert shop.sandbox.names == ["install"]
    assert [layer for layer, _ in first.layers] == [layer for layer, _ in second.layers]
    assert "check dependencies" not in second.seconds


@pytest.mark.parametrize(
    "change",
    [
        {"command": ("install", "--more")},
        {"environment": {"A": "b"}},
        {"files": {"settings": b"x"}},
        {"source": ("lock", "main.txt")},
        {"packages": True},
    ],
)
def test_whatever_decides_an_output_decides_whether_it_is_made_again(
    tmp_path: Path, tree: Path, change: dict[str, Any]
) -> None:
    def any_install(command: Command) -> dict[str, bytes | str]:
        return {"deps/lib.txt": b"lib"}

    shop = Shop(tmp_path, {"install": any_install}, fetcher=FolderFetcher(tree))
    plan = plan_of(DEPENDENCIES, steps=(INSTALL,))
    shop.make(tree, plan)
    shop.make(tree, replace(plan, steps=(replace(INSTALL, **change),)))
    assert len(shop.sandbox.ran) == 2
    shop.make(tree, plan)
    assert len(shop.sandbox.ran) == 2


def test_another_lock_or_build_image_makes_it_again(shop: Shop, tree: Path) -> None:
    plan = plan_of(DEPENDENCIES, steps=(INSTALL,))
    shop.make(tree, plan)
    shop.make(tree, plan, tools=StandardImage(name="x", digest="sha256:" + "c" * 64, repository="standard/x"))
    assert len(shop.sandbox.ran) == 2
    (tree / "lock").write_text("2")
    shop.make(tree, plan)
    assert len(shop.sandbox.ran) == 3
    (tree / "lock").chmod(0o755)
    shop.make(tree, plan)
    assert len(shop.sandbox.ran) == 4


def test_a_poisoned_output_is_found_and_made_again(shop: Shop, tree: Path) -> None:
    first = shop.make(tree, WHOLE)
    (kept,) = (shop.folder / "kept").glob("*/content/deps/lib.txt")
    kept.write_bytes(b"lib 6")  # same size
    (layer,) = (shop.folder / "kept").glob("*/content/layer.tar.gz")
    layer.write_bytes(b"poison")
    second = shop.make(tree, WHOLE)
    assert [item for item, _ in first.layers] == [item for item, _ in second.layers]
    assert shop.sandbox.names == ["install", "build", "install", "build"]


def test_cold_and_warm_and_elsewhere_are_the_same(tmp_path: Path, tree: Path) -> None:
    shops = [Shop(tmp_path / name, {"install": install, "build": build}) for name in ("one", "two")]
    made = [shop.make(tree, WHOLE).layers for shop in (*shops, shops[0])]
    assert len({tuple(layer for layer, _ in layers) for layers in made}) == 1


def test_links_out_of_an_output_are_refused_unless_nobody_takes_them(shop: Shop, tree: Path) -> None:
    with pytest.raises(Refusal, match="'work/deps' has an absolute target"):
        shop.make(tree, plan_of(replace(APPLICATION, below="work"), steps=(INSTALL, BUILD)))
    made = shop.make(tree, plan_of(replace(APPLICATION, below="work", exclude=("deps",)), steps=(INSTALL, BUILD)))
    assert set(names_of(made.layers[0][1])) == {"app/dist/out.txt", "app/main.txt"}


def test_later_takes_of_a_layer_win_and_the_overlay_counts(shop: Shop, tree: Path) -> None:
    (tree / "out.txt").write_text("of the source")
    takes = (Take("application", SOURCE, into="app", exclude=("lock",)), APPLICATION)
    made = shop.make(tree, plan_of(*takes, steps=(INSTALL, BUILD)))
    assert names_of(made.layers[0][1]) == {"app/main.txt": b"main", "app/out.txt": b"main with lib 1"}


def test_a_step_can_say_which_packages_are_in_the_image(shop: Shop, tree: Path) -> None:
    shop.sandbox.actions["build"] = lambda _: {
        "work/dist/out": b"", PACKAGES_FILE: b"pkg:golang/b@v1\n\npkg:golang/a@v1\n"
    }  # fmt: skip
    made = shop.make(tree, replace(WHOLE, listed_by="build"))
    assert made.locked == ("pkg:golang/a@v1", "pkg:golang/b@v1")
    assert shop.sandbox.ran[-1].outputs == (PACKAGES_FILE, "work/dist")
    shop.sandbox.actions["build"] = lambda _: {"work/dist/out": b""}
    with pytest.raises(PermanentError, match="did not say which packages"):
        shop.make(tree, replace(WHOLE, listed_by="build"))


def test_what_a_step_hands_on_without_being_kept_is_files_too(shop: Shop, tree: Path) -> None:
    shop.sandbox.actions["pack"] = lambda command: {
        "all": (command.inputs["build"] / "work" / "dist" / "out.txt").read_bytes()
    }
    shop.sandbox.actions["build"] = lambda _: {"work/dist/out.txt": b"made"}
    steps = (INSTALL, BUILD, Step("pack", ("pack",), uses=("build",)))
    made = shop.make(tree, plan_of(Take("application", "pack", into="app"), steps=steps))
    assert names_of(made.layers[0][1]) == {"app/all": b"made"}


def test_artifacts_are_named_in_full_without_being_fetched_again(tmp_path: Path, tree: Path) -> None:
    fetcher = FolderFetcher(tree)
    artifacts = (
        Artifact("npm", "left/-/left-1.0.tgz", ("sha512:" + "ab" * 64,), "left.tgz", purl="pkg:npm/left@1.0"),
        Artifact("go", "x/@v/v1.zip", ("h1:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",), "x.zip"),
    )
    shop = Shop(tmp_path, {"install": lambda _: {"deps/x": b""}}, fetcher=fetcher)
    plan = plan_of(DEPENDENCIES, steps=(replace(INSTALL, packages=True),), artifacts=artifacts)
    for _ in range(2):
        made = shop.make(tree, plan)
        assert [(item.name, item.uri, item.digest) for item in made.materials] == [
            ("left/-/left-1.0.tgz", "pkg:npm/left@1.0", {"sha512": "ab" * 64}),
            ("x/@v/v1.zip", "go:x/@v/v1.zip",
             {"dirHash": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}),
        ]  # fmt: skip
    assert len(fetcher.asked) == 1


def test_a_step_that_may_be_made_ready_says_which_packages_its_container_can_have_before(
    tmp_path: Path, tree: Path
) -> None:
    shop = Shop(tmp_path, {"build": lambda _: {"work/dist/x": b""}}, fetcher=FolderFetcher(tree))
    artifact = Artifact("npm", "left/-/left-1.0.tgz", ("sha512:" + "ab" * 64,), "left.tgz")
    build = replace(BUILD, uses=(), packages=True, ahead=Ahead(("warm",)))
    shop.make(tree, plan_of(APPLICATION, steps=(build,), artifacts=(artifact,)))
    shop.make(tree, plan_of(APPLICATION, steps=(replace(build, packages=False),)))
    one, other = shop.sandbox.ran
    assert one.ahead == other.ahead == Ahead(("warm",))
    with one.lasting["packages"]() as folder:
        assert folder == one.inputs["packages"] == tree
    assert other.lasting == {}


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        (plan_of(steps=(Step("seed", ("x",)),)), "called 'seed'"),
        (plan_of(steps=(Step("a", ("x",)), Step("a", ("x",)))), "called 'a'"),
        (plan_of(steps=(Step("../a", ("x",)),)), "called"),
        (plan_of(steps=(Step("a", ("x",), uses=("b",)), Step("b", ("x",)))), "not an earlier step"),
        (plan_of(steps=(Step("a", ("x",)), Step("b", ("x",), uses=("a",), keep=True))), "kept as well"),
        (plan_of(steps=(Step("a", ("x",), source=(), keep=True),)), "sees all"),
        (plan_of(steps=(Step("a", ("x",), keep=True, ahead=Ahead()),)), "made ready for a"),
        (plan_of(steps=(INSTALL, Step("a", ("x",), uses=("dependencies",), ahead=Ahead()))), "made ready for a"),
        (plan_of(Take("application", "gone")), "takes from 'gone'"),
        (plan_of(listed_by="gone"), "listed by 'gone'"),
    ],
)
def test_a_plan_that_contradicts_itself_is_the_platforms_mistake(shop: Shop, tree: Path, plan: Plan, says: str) -> None:
    with pytest.raises(PermanentError, match=says) as caught:
        shop.make(tree, plan)
    assert not isinstance(caught.value, Refusal)
    assert shop.sandbox.ran == []


def test_steps_need_an_image(shop: Shop, tree: Path) -> None:
    with pytest.raises(PermanentError, match="no standard image to build"):
        shop.make(tree, WHOLE, tools=None)
    assert shop.make(tree, plan_of(), tools=None).layers


def test_which_wheels_are_in_a_layer_is_known_without_asking_again(tmp_path: Path, tree: Path) -> None:
    locked = Locked("thing", "1.0", ("a" * 64, "b" * 64), 1)
    wheel = tree / "thing-1.0-py3-none-any.whl"
    wheel.write_bytes(b"wheel")
    asked: list[object] = []

    class Wheelwright:
        def wheels(self, packages: Any, *, python: str) -> Any:
            asked.append((packages, python))
            return (SimpleNamespace(locked=locked, path=wheel, name=wheel.name, sha256="b" * 64),)

    def installs(command: Command) -> dict[str, bytes | str]:
        packages = command.inputs["packages"]
        assert sorted(path.name for path in packages.iterdir()) == ["requirements.txt", wheel.name]
        return {"deps/requirements": (packages / "requirements.txt").read_bytes()}

    shop = Shop(tmp_path, {"install": installs}, fetcher=Wheelwright())
    plan = plan_of(DEPENDENCIES, steps=(replace(INSTALL, packages=True),), artifacts=Wheels((locked,), "3.13"))
    first, second = shop.make(tree, plan), shop.make(tree, plan)
    assert names_of(first.layers[0][1]) == {"opt/deps/requirements": f"thing==1.0 --hash=sha256:{'b' * 64}\n".encode()}
    assert first.materials == second.materials
    assert [(item.name, item.uri, item.digest) for item in second.materials] == [
        (wheel.name, "pkg:pypi/thing@1.0", {"sha256": "b" * 64})
    ]
    assert asked == [((locked,), "3.13")]
    assert second.seconds.keys() == set()  # nothing was run, read, or packed
    (layer,) = (tmp_path / "kept").glob("*/content/layer.tar.gz")
    layer.write_bytes(b"poison")
    assert shop.make(tree, plan).materials == first.materials
    assert shop.sandbox.names == ["install"]
    assert len(asked) == 1
