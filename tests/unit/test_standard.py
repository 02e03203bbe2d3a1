import datetime as dt
from pathlib import Path

import pytest
import yaml

from sekisho.errors import Refusal
from sekisho.standard import LOCK_FILE, SPEC_FILE, LockEntry, StandardLock, load_spec, load_standard

POLICIES = Path(__file__).parents[2] / "policies"
NAMES = ("debian", "python", "python-build", "static", "postgres", "guard", "trivy-agent", "pause")


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


def test_the_platform_teams_file_names_the_images_that_the_line_needs():
    assert tuple(image.name for image in load_spec(POLICIES / SPEC_FILE).images) == NAMES


def test_no_standard_image_runs_as_root():
    assert [image.name for image in load_spec(POLICIES / SPEC_FILE).images if int(image.recipe.user) == 0] == []


def test_get_gives_name_digest_repository_and_packages(policies):
    image = load_standard(policies).get("python")
    assert (image.name, image.digest, image.repository) == ("python", digest_number(1), "standard/python")
    assert (image.version, image.packages) == ("3.11", ("libc6=2.36",))


def test_python_has_a_build_image_and_static_needs_none(policies):
    images = load_standard(policies)
    run, build = images.for_language("python")
    assert (run.name, build.name) == ("python", "python-build")
    assert (images.for_language("static")[0].name, images.for_language("static")[1]) == ("static", None)


@pytest.mark.parametrize("language", ["cobol", "none", "", "../python"])
def test_a_language_that_nobody_serves_is_refused(policies, language):
    with pytest.raises(Refusal, match="python, static"):
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
    change(policies / SPEC_FILE, lambda data: data["images"][1].update(end_of_life=dt.date(2026, 5, 1)))
    images = load_standard(policies)
    images.check(dt.date(2026, 5, 1))
    with pytest.raises(Refusal, match=r"python \(2026-05-01, owner: platform team\)"):
        images.check(dt.date(2026, 5, 2))
    with pytest.raises(Refusal, match="python"):
        images.check(dt.date(2026, 5, 2), "python")
    images.check(dt.date(2026, 5, 2), "static")


def test_an_image_is_found_by_its_digest(policies):
    images = load_standard(policies)
    assert images.by_digest(digest_number(3)).name == "static"
    assert images.by_digest(digest_number(99)) is None


def test_a_lock_entry_without_a_recipe_stands_for_nothing(policies):
    change(policies / SPEC_FILE, lambda data: data["images"].pop())
    assert load_standard(policies).by_digest(digest_number(7)) is None


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda data: data["images"][1].update(surprise=1), "surprise"),
        (lambda data: data["images"].append(data["images"][1]), "python stands twice"),
        (lambda data: data["images"].reverse(), "must stand before"),
        (lambda data: data["images"][1]["recipe"].update(user="root"), "user"),
        (lambda data: data["images"][1]["recipe"].pop("parent"), "have a parent"),
        (lambda data: data["images"][4]["recipe"]["files"][0].update(target="etc/passwd"), "target"),
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
