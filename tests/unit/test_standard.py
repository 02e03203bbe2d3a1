import datetime as dt
from pathlib import Path

import pytest
import yaml

from sekisho.errors import Refusal
from sekisho.standard import LOCK_FILE, SPEC_FILE, LockEntry, Recipe, StandardLock, load_spec, load_standard

POLICIES = Path(__file__).parents[2] / "policies"
NAMES = (
    "debian",
    "debian-tiny",
    "debian-glibc",
    "python",
    "python-build",
    "debian-13",
    "debian-13-tiny",
    "debian-13-glibc",
    "python-3-13",
    "python-3-13-build",
    "node",
    "node-build",
    "go",
    "go-build",
    "rust",
    "rust-build",
    "java",
    "java-build",
    "java-21",
    "java-21-build",
    "static",
    "postgres",
    "guard",
    "trivy-agent",
    "pause",
)
LANGUAGES = ("go", "java", "node", "python", "rust")


def digest_number(number):
    return f"sha256:{number:064x}"


@pytest.fixture
def policies(tmp_path):
    (tmp_path / SPEC_FILE).write_bytes((POLICIES / SPEC_FILE).read_bytes())
    lock = StandardLock(
        images={
            name: LockEntry(digest=digest_number(number), packages=("libc6=2.36",), built_at="2026-01-01T00:00:00Z")
            for number, name in enumerate(NAMES)
        }
    )
    (tmp_path / LOCK_FILE).write_text(lock.to_yaml())
    return tmp_path


def change(path, edit):
    data = yaml.safe_load(path.read_text())
    edit(data)
    path.write_text(yaml.safe_dump(data))


def named(data, name):
    return next(image for image in data["images"] if image["name"] == name)


def test_the_platform_teams_file_names_the_images_that_the_line_needs():
    assert tuple(image.name for image in load_spec(POLICIES / SPEC_FILE).images) == NAMES


def test_no_standard_image_runs_as_root():
    assert [image.name for image in load_spec(POLICIES / SPEC_FILE).images if int(image.recipe.user) == 0] == []


# -- releases of Debian ---------------------------------------------------------------------------------------------


def test_an_image_is_of_the_release_of_what_it_stands_on():
    file = load_spec(POLICIES / SPEC_FILE)
    suites = {image.name: file.debian_of(image).suite for image in file.images}
    assert {name for name, suite in suites.items() if suite == "trixie"} == {
        name for name in NAMES if name.startswith(("debian-13", "python-3-13", "java-21"))
    }
    assert set(suites.values()) == {"bookworm", "trixie"}
    newer = file.debian_of(next(image for image in file.images if image.name == "java-21"))
    assert all("trixie" in mirror for mirror in newer.mirrors)
    assert (newer.drop, newer.epoch) == (file.debian.drop, file.debian.epoch)


def test_both_pythons_are_built_with_the_same_tools():
    """Written out twice, for a policy file has no aliases; one layer in a registry as long as both say the same."""
    recipes = {image.name: image.recipe for image in load_spec(POLICIES / SPEC_FILE).images}
    assert recipes["python-build"].archives == recipes["python-3-13-build"].archives


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda data: named(data, "debian-13")["recipe"].update(suite="sid"), "debian-13 is of sid"),
        (lambda data: named(data, "java")["recipe"].update(suite="trixie"), "its parent's suite"),
        (lambda data: data["releases"].append(data["releases"][0]), "trixie stands twice"),
        (lambda data: data["releases"][0].update(suite="bookworm"), "bookworm stands twice"),
    ],
)
def test_a_release_that_nobody_knows_is_refused(policies, edit, said):
    change(policies / SPEC_FILE, edit)
    with pytest.raises(Refusal, match=said):
        load_standard(policies)


def test_get_gives_name_digest_repository_and_packages(policies):
    image = load_standard(policies).get("python")
    assert (image.name, image.digest, image.repository) == (
        "python",
        digest_number(NAMES.index("python")),
        "standard/python",
    )
    assert (image.version, image.packages) == ("3.11", ("libc6=2.36",))


def test_python_has_a_build_image_and_static_needs_none(policies):
    images = load_standard(policies)
    run, build = images.for_language("python")
    assert (run.name, build.name) == ("python", "python-build")
    assert (images.for_language("static")[0].name, images.for_language("static")[1]) == ("static", None)


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_language_has_an_image_to_run_on_and_one_to_build_in_of_the_same_version(language):
    images = [image for image in load_spec(POLICIES / SPEC_FILE).images if image.language == language]
    run, build = ([image for image in images if image.kind == kind] for kind in ("run", "build"))
    assert [image.version for image in run] == [image.version for image in build] != []
    assert {image.recipe.env.get("PORT") for image in run} == {"8080"}
    assert {image.recipe.user for image in run} == {"10001"}
    assert all("socat" in image.recipe.packages for image in build)


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_workload_is_process_1_where_a_signal_without_a_handler_is_lost(language):
    by_name = {image.name: image for image in load_spec(POLICIES / SPEC_FILE).images}
    image = next(image for image in by_name.values() if (image.language, image.kind) == (language, "run"))
    assert image.recipe.entrypoint == ("/usr/bin/catatonit", "--")
    packages = set(image.recipe.packages)
    while image.recipe.parent:
        image = by_name[image.recipe.parent]
        packages |= set(image.recipe.packages)
    assert "catatonit" in packages


@pytest.mark.parametrize("name", ["node", "go", "rust"])
def test_where_no_shell_is_needed_there_is_none(name):
    by_name = {image.name: image for image in load_spec(POLICIES / SPEC_FILE).images}
    image = by_name[name]
    while image.recipe.parent:
        image = by_name[image.recipe.parent]
    assert image.recipe.variant == "distilled"


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ({"variant": "essential", "keep": ["etc/passwd"]}, "keep is for the variant distilled"),
        ({"variant": "files", "parent": "base", "run": {"command": ["x"], "keep": ["y"], "title": "z"}},
         "no root file"),
        ({"variant": "packages"}, "have a parent"),
        ({"variant": "distilled", "archives": [{"purl": "thing", "url": "https://x", "sha256": "0" * 64,
                                                "target": "/x"}]}, "purl"),
        ({"variant": "distilled", "archives": [{"purl": "pkg:npm/a@1", "url": "http://x", "sha256": "0" * 64,
                                                "target": "/x"}]}, "url"),
        ({"variant": "distilled", "archives": [{"purl": "pkg:npm/a@1", "url": "https://x", "sha256": "",
                                                "target": "/x"}]}, "sha256"),
    ],
)  # fmt: skip
def test_a_recipe_that_does_not_fit_is_refused(recipe, said):
    with pytest.raises(ValueError, match=said):
        Recipe.model_validate(recipe)


def test_a_distilled_image_stands_on_nothing_or_on_a_distilled_one(policies):
    change(policies / SPEC_FILE, lambda data: named(data, "node")["recipe"].update(parent="debian"))
    with pytest.raises(Refusal, match="node and its parent must both be distilled"):
        load_standard(policies)


def test_several_versions_of_a_language_are_offered_in_the_order_of_the_file(policies):
    def second(data):
        for name in ("python", "python-build"):
            image = next(image for image in data["images"] if image["name"] == name)
            data["images"].append({**image, "name": f"{name}-next", "version": "3.14"})

    change(policies / SPEC_FILE, second)
    change(policies / LOCK_FILE, lambda data: data["images"].update(
        {f"{name}-next": {**data["images"][name], "digest": digest_number(number)}
         for number, name in ((50, "python"), (51, "python-build"))}))  # fmt: skip
    images = load_standard(policies)
    assert images.offered("python") == ("3.11", "3.13", "3.14")
    assert [image.name for image in images.for_language("python")] == ["python", "python-build"]
    assert [image.name for image in images.for_language("python", "3.14")] == ["python-next", "python-build-next"]
    assert images.offered("cobol") == images.offered("none") == ()
    with pytest.raises(Refusal, match=r"No standard image runs python '2.7'") as caught:
        images.for_language("python", "2.7")
    assert caught.value.remedy.startswith("Versions offered: 3.11, 3.13, 3.14.")


@pytest.mark.parametrize("language", ["cobol", "none", "", "../python"])
def test_a_language_that_nobody_serves_is_refused(policies, language):
    with pytest.raises(Refusal, match="go, java, node, python, rust, static"):
        load_standard(policies).for_language(language)


def test_an_image_that_was_never_built_is_refused(policies):
    change(policies / LOCK_FILE, lambda data: data["images"].pop("python-build"))
    images = load_standard(policies)
    with pytest.raises(Refusal, match="'python-build' has no digest"):
        images.for_language("python")
    with pytest.raises(Refusal, match="'python-build' has no digest"):
        images.check(dt.date(2026, 1, 1))


def test_without_a_lock_nothing_has_a_digest(policies):
    (policies / LOCK_FILE).unlink()
    with pytest.raises(Refusal, match="has no digest"):
        load_standard(policies).get("python")


def test_end_of_life_is_the_last_good_day(policies):
    change(policies / SPEC_FILE, lambda data: named(data, "python").update(end_of_life=dt.date(2026, 5, 1)))
    images = load_standard(policies)
    images.check(dt.date(2026, 5, 1))
    with pytest.raises(Refusal, match=r"python \(2026-05-01, owner: platform team\)"):
        images.check(dt.date(2026, 5, 2))
    with pytest.raises(Refusal, match="python"):
        images.check(dt.date(2026, 5, 2), "python")
    images.check(dt.date(2026, 5, 2), "static")


def test_an_image_is_found_by_its_digest(policies):
    images = load_standard(policies)
    assert images.by_digest(digest_number(NAMES.index("static"))).name == "static"
    assert images.by_digest(digest_number(99)) is None


def test_a_lock_entry_without_a_recipe_stands_for_nothing(policies):
    change(policies / SPEC_FILE, lambda data: data["images"].pop())
    assert load_standard(policies).by_digest(digest_number(NAMES.index("pause"))) is None


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda data: named(data, "python").update(surprise=1), "surprise"),
        (lambda data: data["images"].append(named(data, "python")), "python stands twice"),
        (lambda data: data["images"].reverse(), "must stand before"),
        (lambda data: named(data, "python")["recipe"].update(user="root"), "user"),
        (lambda data: named(data, "python")["recipe"].pop("parent"), "have a parent"),
        (lambda data: named(data, "postgres")["recipe"]["files"][0].update(target="etc/passwd"), "target"),
        (lambda data: data.update(format="other"), "format"),
    ],
)
def test_a_wrong_file_is_refused_and_the_field_is_named(policies, edit, said):
    change(policies / SPEC_FILE, edit)
    with pytest.raises(Refusal, match=said):
        load_standard(policies)


@pytest.mark.parametrize("text", ["", "- a", "images: [", "\x00", "&a [*a]"])
def test_what_is_not_a_lock_is_refused(policies, text):
    (policies / LOCK_FILE).write_text(text)
    with pytest.raises(Refusal):
        load_standard(policies)


def test_a_digest_of_the_wrong_form_is_refused(policies):
    change(policies / LOCK_FILE, lambda data: data["images"]["python"].update(digest="sha256:abc"))
    with pytest.raises(Refusal, match="digest"):
        load_standard(policies)
