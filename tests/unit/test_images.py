import json
import os
import tarfile
from pathlib import Path

import pytest
import yaml

from sekisho.canonical import digest_of, digest_of_file, hex_of
from sekisho.embedded.seeds import needed_images
from sekisho.errors import PermanentError, Refusal, TemporaryError
from sekisho.images import build_all, docker_archive, lock_path, open_layout, push_layout
from sekisho.images.build import _Builder
from sekisho.images.content import Content, Step
from sekisho.images.layer import write_layer
from sekisho.images.rootfs import dpkg_packages, make_users, place_files
from sekisho.images.sources import Sources
from sekisho.images.store import exclusive, place
from sekisho.images.tree import difference, path_filter, read_tree, tree_from_json, tree_to_json
from sekisho.registry import Registry
from sekisho.standard import FileSpec, StandardFile, UserSpec, load_standard
from sekisho.zones import Zone

EPOCH = 1_735_689_600
KEEP_ALL = path_filter(())


def fill(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


# -- trees -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("glob", "path", "dropped"),
    [
        ("usr/share/man", "usr/share/man", True),
        ("usr/share/man", "usr/share/man/man1/ls.1.gz", True),
        ("usr/share/man", "usr/share/manual", False),
        ("dev/**", "dev", False),
        ("dev/**", "dev/null", True),
        ("etc/*-", "etc/passwd-", True),
        ("etc/*-", "etc/a/b-", False),
        ("usr/lib/*/gconv", "usr/lib/x86_64-linux-gnu/gconv/UTF-16.so", True),
        ("usr/share/doc/*/[!c]*", "usr/share/doc/zlib1g/copyright", False),
        ("usr/share/doc/*/[!c]*", "usr/share/doc/zlib1g/NEWS.gz", True),
        ("a.b", "aXb", False),
        ("etc/ssl/certs/????????.0", "etc/ssl/certs/0a1b2c3d.0", True),
        ("etc/ssl/certs/????????.0", "etc/ssl/certs/0a1b2c3d.1", False),
    ],
)
def test_globs(glob, path, dropped):
    assert (path_filter([glob]).fullmatch(path) is not None) is dropped


def test_a_tree_says_kinds_modes_and_content_and_leaves_out_what_is_dropped(tmp_path):
    fill(tmp_path, {"etc/a": "A", "var/log/x": "log"})
    (tmp_path / "bin").symlink_to("usr/bin")
    (tmp_path / "etc/a").chmod(0o4755)
    os.mkfifo(tmp_path / "etc/pipe")
    tree = read_tree(tmp_path, path_filter(["var/log/**"]))
    assert sorted(tree) == ["bin", "etc", "etc/a", "var", "var/log"]
    assert (tree["bin"].kind, tree["bin"].value) == ("link", "usr/bin")
    assert (tree["etc/a"].mode, tree["etc/a"].value) == (0o755, digest_of(b"A"))


def test_a_tree_survives_json(tmp_path):
    tree = read_tree(fill(tmp_path, {"a/b": "1", "é": "2"}), KEEP_ALL)
    assert tree_from_json(json.loads(json.dumps(tree_to_json(tree)))) == tree


def test_the_difference_holds_only_what_changed(tmp_path):
    parent = read_tree(fill(tmp_path / "one", {"same": "1", "edited": "1", "gone/x": "1", "gone/y": "1"}), KEEP_ALL)
    tree = read_tree(fill(tmp_path / "two", {"same": "1", "edited": "2", "new": "3"}), KEEP_ALL)
    found = difference(parent, tree)
    assert [entry.path for entry in found.changed] == ["edited", "new"]
    assert found.removed == ("gone",)


def test_a_directory_that_became_a_file_needs_no_whiteout(tmp_path):
    parent = read_tree(fill(tmp_path / "one", {"lib/x": "1"}), KEEP_ALL)
    tree = read_tree(fill(tmp_path / "two", {"lib": "now a file"}), KEEP_ALL)
    assert difference(parent, tree).removed == ()


# -- layers ----------------------------------------------------------------------------------------------------


def layer_of(root, target, removed=()):
    target.mkdir()
    found = difference({}, read_tree(root, KEEP_ALL))
    found = type(found)(found.changed, tuple(removed))
    return write_layer(root, found, target, epoch=EPOCH, title="test")


def test_a_layer_is_the_same_whenever_the_files_are(tmp_path):
    one = fill(tmp_path / "one", {"b": "2", "a/x": "1"})
    other = fill(tmp_path / "other", {"a/x": "1", "b": "2"})
    os.utime(one / "b", (EPOCH + 500, EPOCH + 500))
    os.utime(other / "b", (EPOCH + 900, EPOCH + 900))
    assert layer_of(one, tmp_path / "blobs-1") == layer_of(other, tmp_path / "blobs-2")


def test_a_layer_is_named_by_its_digest_and_keeps_links_times_and_whiteouts(tmp_path):
    root = fill(tmp_path / "root", {"etc/old": "x", "etc/new": "y"})
    os.utime(root / "etc/old", (1000, 1000))
    os.link(root / "etc/new", root / "etc/same")
    (root / "link").symlink_to("etc/old")
    blob = layer_of(root, tmp_path / "blobs", removed=("usr/gone", "top"))
    path = tmp_path / "blobs" / hex_of(blob.digest)
    assert (digest_of_file(path), path.stat().st_size) == (blob.digest, blob.size)
    with tarfile.open(path) as tar:
        members = {member.name: member for member in tar}
    assert [*members] == ["usr/.wh.gone", ".wh.top", "etc", "etc/new", "etc/old", "etc/same", "link"]
    assert (members["etc/old"].mtime, members["etc/new"].mtime) == (1000, EPOCH)
    assert (members["etc/same"].islnk(), members["etc/same"].linkname) == (True, "etc/new")
    assert members["link"].linkname == "etc/old"
    assert {member.uname for member in members.values()} == {""}


def test_a_name_that_is_not_ascii_survives(tmp_path):
    blob = layer_of(fill(tmp_path / "root", {"NetLock_Főtanúsítvány.crt": "x"}), tmp_path / "blobs")
    with tarfile.open(tmp_path / "blobs" / hex_of(blob.digest)) as tar:
        assert tar.getnames() == ["NetLock_Főtanúsítvány.crt"]


# -- root file systems and sources -----------------------------------------------------------------------------


def test_installed_packages_are_read_and_removed_ones_are_not(tmp_path):
    status = "Package: b\nStatus: install ok installed\nVersion: 1:2-3\nDescription: x\n more: text\n\n"
    status += "Package: a\nStatus: install ok installed\nVersion: 1\n\n"
    status += "Package: c\nStatus: deinstall ok config-files\nVersion: 9\n"
    fill(tmp_path, {"var/lib/dpkg/status": status})
    assert dpkg_packages(tmp_path) == (("a=1", "b=1:2-3"), {})


def test_the_source_of_a_package_is_read_where_it_is_another(tmp_path):
    installed = "Status: install ok installed\nVersion: 2-1\n"
    status = f"Package: libssl3\n{installed}Source: openssl\n\nPackage: libc\n{installed}Source: glibc (2-0)\n\n"
    fill(tmp_path, {"var/lib/dpkg/status": status + f"Package: own\n{installed}"})
    assert dpkg_packages(tmp_path)[1] == {"libssl3": "openssl=2-1", "libc": "glibc=2-0"}


def test_users_are_added_once(tmp_path):
    fill(tmp_path, {"etc/passwd": "root:x:0:0::/root:/bin/sh\n", "etc/group": "root:x:0:\n"})
    for _ in range(2):
        make_users(tmp_path, (UserSpec(name="app", uid=10001),))
    assert (tmp_path / "etc/passwd").read_text().count("app:x:10001:10001:") == 1
    assert (tmp_path / "etc/group").read_text().count("app:x:10001:") == 1


def test_a_file_never_leaves_the_root(tmp_path):
    with pytest.raises(Refusal, match="not a path inside"):
        place_files(tmp_path, [FileSpec(source="x", target="/../etc/passwd")], lambda _: Path("/dev/null"))


@pytest.mark.parametrize("source", ["../secret", "/etc/passwd", "tool:other"])
def test_a_source_outside_the_project_is_refused(tmp_path, source):
    fill(tmp_path, {"secret": "x", "project/x": "y"})
    with pytest.raises(Refusal):
        Sources(tmp_path / "project").open(source)


def test_a_link_out_of_the_project_is_refused(tmp_path):
    fill(tmp_path, {"secret": "x", "project/x": "y"})
    (tmp_path / "project/link").symlink_to(tmp_path / "secret")
    with pytest.raises(Refusal, match="outside"):
        Sources(tmp_path / "project").identity("link")


# -- building, with images of files only: no Debian mirror needed ------------------------------------------------


SPEC = {
    "format": "sekisho.dev/standard-images/v1",
    "debian": {"suite": "bookworm", "mirrors": ["deb http://127.0.0.1:9/none bookworm main"], "epoch": EPOCH},
    "images": [
        {
            "name": name,
            "kind": "run",
            "language": "static",
            "version": "1",
            "title": "t",
            "owner": "o",
            "end_of_life": "2030-01-01",
            "recipe": {"variant": "files", "parent": parent, "files": [{"source": "images/f", "target": f"/{name}"}]},
        }
        for name, parent in (("first", "seed"), ("second", "first"))
    ],
}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project whose images stand on a seed image that is already built."""
    monkeypatch.setenv("SEKISHO_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("sekisho.images.build.check_host", lambda: None)
    project = tmp_path / "project"
    seed = {**SPEC["images"][0], "name": "seed", "recipe": {"variant": "essential"}}
    fill(project, {"images/f": "content", "policies/standard-images.yaml": ""})
    (project / "policies/standard-images.yaml").write_text(yaml.safe_dump({**SPEC, "images": [seed, *SPEC["images"]]}))

    def debian(_maker, root_spec, work, below):
        root = fill(work / "root", {"etc/os-release": "ID=test\n"})
        tree = read_tree(root, KEEP_ALL)
        return Content(tree, (Step(root, difference(below.tree, tree), root_spec.name),), ("a=1",), {"a": "b=1"})

    monkeypatch.setattr("sekisho.images.content.Maker._from_packages", debian)
    return project


def built(project, **options):
    said = []
    lock = build_all(said.append, project=project, **options)
    return lock, [line.partition(":")[0] for line in said if line.endswith("building")]


@pytest.mark.skipif(os.geteuid() != 0, reason="root file systems need owners")
class TestBuild:
    def test_a_layout_is_complete_and_every_blob_is_what_its_name_says(self, project):
        lock, _ = built(project)
        layout = open_layout("second")
        assert layout.digest == lock.images["second"].digest
        assert json.loads((layout.root / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
        blobs = list((layout.root / "blobs/sha256").iterdir())
        assert {hex_of(digest_of_file(blob)) for blob in blobs} == {blob.name for blob in blobs}
        assert len(layout.parts.layers) == 3
        assert layout.config["config"]["User"] == "10001"
        assert layout.config["config"]["Labels"]["sekisho.dev/standard-image"] == "second"

    def test_another_release_changes_its_own_images_and_no_other(self, project):
        path = project / "policies/standard-images.yaml"
        data = yaml.safe_load(path.read_text())
        newer = {**data["images"][0], "name": "newer", "recipe": {"variant": "essential", "suite": "trixie"}}
        release = {"suite": "trixie", "mirrors": ["deb http://127.0.0.1:9/none trixie main"]}
        built(project)
        path.write_text(yaml.safe_dump({**data, "releases": [release], "images": [*data["images"], newer]}))
        assert built(project)[1] == ["newer"]
        release["mirrors"] = ["deb http://127.0.0.1:9/other trixie main"]
        path.write_text(yaml.safe_dump({**data, "releases": [release], "images": [*data["images"], newer]}))
        assert built(project)[1] == ["newer"]

    def test_each_release_keeps_its_essential_packages(self, project, monkeypatch):
        """One for each, made once, and what no recipe is of any more goes."""
        made = []

        def rootfs(debian, target, **_):
            made.append(debian.suite)
            fill(target, {"etc/debian_version": debian.suite})

        monkeypatch.setattr("sekisho.images.build.make_rootfs", rootfs)
        release = {"suite": "trixie", "mirrors": ["deb http://127.0.0.1:9/none trixie main"]}
        images = [
            {**SPEC["images"][0], "name": f"seed-{suite}", "recipe": {"variant": "essential", "suite": suite}}
            for suite in ("bookworm", "trixie")
        ]
        file = StandardFile.model_validate({**SPEC, "releases": [release], "images": images})
        builder = _Builder(file, Sources(project), lambda _: None, refresh=False)
        for _ in range(2):
            for image in file.images:
                kept = builder._essential(file.debian_of(image))
                assert (kept / "etc/debian_version").read_text() == file.debian_of(image).suite
        assert made == ["bookworm", "trixie"]
        older = StandardFile.model_validate({**SPEC, "images": images[:1]})
        anew = _Builder(older, Sources(project), lambda _: None, refresh=True)
        kept = anew._essential(older.debian)
        assert list(kept.parent.iterdir()) == [kept]

    def test_parents_layers_are_shared(self, project):
        built(project)
        first, second = open_layout("first").parts.layers, open_layout("second").parts.layers
        assert second[: len(first)] == first

    def test_a_shared_layer_is_sent_once_to_a_registry(self, project, registry_url, monkeypatch):
        built(project)
        registry, sent = Registry(registry_url), []
        push = registry.push_blob

        def counted(repository, path, digest):
            sent.append(digest)
            push(repository, path, digest)

        monkeypatch.setattr(registry, "push_blob", counted)
        held = {}
        for name in ("first", "second"):
            assert push_layout(registry, name, held) == open_layout(name).digest
        layers = {layer.digest for name in ("first", "second") for layer in open_layout(name).parts.layers}
        assert len(sent) == len(set(sent)) == len(layers) + 2  # and a config each
        for layer in layers:
            assert registry.has_blob("standard/second", layer)
        sent.clear()
        for name in ("first", "second"):
            push_layout(registry, name)
        assert sent == []

    def test_only_where_things_are_built_are_the_images_to_build_in(self, project):
        spec = yaml.safe_load((project / "policies/standard-images.yaml").read_text())
        spec["images"][0]["kind"], spec["images"][2]["kind"] = "base", "build"
        (project / "policies/standard-images.yaml").write_text(yaml.safe_dump(spec))
        built(project)
        assert needed_images(Zone.BUILD) == needed_images(Zone.DEV) == ("first", "second", "seed")
        assert needed_images(Zone.STAGING) == needed_images(Zone.PRODUCTION) == ("first",)

    def test_a_second_build_does_nothing_and_gives_the_same(self, project):
        lock, names = built(project)
        assert names == ["seed", "first", "second"]
        assert built(project) == (lock, [])

    def test_a_changed_file_rebuilds_what_it_is_in(self, project):
        before, _ = built(project)
        (project / "images/f").write_text("other")
        after, names = built(project)
        assert names == ["first", "second"]
        assert before.images["first"].digest != after.images["first"].digest
        assert before.images["seed"] == after.images["seed"]

    def test_refresh_builds_again_and_gives_the_same_digests(self, project):
        before, _ = built(project)
        after, names = built(project, refresh=True)
        assert names == ["seed", "first", "second"]
        assert {k: v.digest for k, v in before.images.items()} == {k: v.digest for k, v in after.images.items()}

    def test_only_brings_the_parents(self, project):
        lock, names = built(project, only=("first",))
        assert (names, sorted(lock.images)) == (["seed", "first"], ["first", "seed"])

    def test_the_lock_says_what_an_image_was_made_from(self, project):
        lock, _ = built(project)
        entry = lock.images["second"]
        assert (entry.packages, entry.sources, entry.archives) == (("a=1",), {"a": "b=1"}, ())
        assert entry.size == sum(layer.size for layer in open_layout("second").parts.layers)
        assert entry.recipe != lock.images["first"].recipe

    def test_one_that_fails_stops_the_build_and_what_is_done_stays(self, project):
        path = project / "policies/standard-images.yaml"
        path.write_text(path.read_text().replace("target: /second", "target: /../second"))
        with pytest.raises(Refusal, match="not a path inside"):
            built(project)
        path.write_text(path.read_text().replace("/../second", "/second"))
        _, names = built(project)
        assert names == ["second"]

    def test_an_image_may_add_nothing_but_a_config(self, project):
        path = project / "policies/standard-images.yaml"
        text = yaml.safe_load(path.read_text())
        text["images"][2]["recipe"]["files"] = []
        path.write_text(yaml.safe_dump(text))
        built(project)
        assert open_layout("second").parts.layers == open_layout("first").parts.layers
        assert open_layout("second").digest != open_layout("first").digest

    def test_an_unknown_name_is_refused(self, project):
        with pytest.raises(Refusal, match="nonsense"):
            build_all(project=project, only=("nonsense",))

    def test_what_a_killed_build_left_is_removed_and_old_layouts_too(self, project):
        built(project)
        images = lock_path().parent
        fill(images / ".new-killed", {"layout/x": "half"})
        (images / ".new-link-x-1").symlink_to("nowhere")
        base = fill(images.parent / "cache/debian", {".new-1/etc/x": "half", "kept/etc/x": "whole"})
        (project / "images/f").write_text("other")
        built(project)
        assert [path.name for path in images.iterdir() if path.name.startswith(".new")] == []
        assert [path.name for path in base.iterdir()] == ["kept"]
        assert len(list((images / ".store").iterdir())) == 3

    def test_a_lost_blob_is_built_again(self, project):
        lock, _ = built(project)
        layout = open_layout("second")
        layout.blob(layout.parts.layers[-1].digest).unlink()
        again, names = built(project)
        assert names == ["second"]
        assert again.images["second"].digest == lock.images["second"].digest

    def test_two_builders_at_once_are_not(self, project):
        built(project)
        with exclusive(), pytest.raises(TemporaryError, match="under way"):
            build_all(project=project)

    def test_the_lock_and_the_recipes_together_are_the_standard_images(self, project):
        lock, _ = built(project)
        policies = project / "policies"
        (policies / lock_path().name).write_bytes(lock_path().read_bytes())
        assert load_standard(policies).get("first").digest == lock.images["first"].digest

    def test_the_archive_is_what_the_docker_engine_loads(self, project, tmp_path):
        built(project)
        tag = docker_archive("second", tmp_path / "image.tar")
        layout = open_layout("second")
        with tarfile.open(tmp_path / "image.tar") as tar:
            (entry,) = json.load(tar.extractfile("manifest.json"))
            config = tar.extractfile(entry["Config"]).read()
            layers = [digest_of(tar.extractfile(name).read()) for name in entry["Layers"]]
        assert entry["RepoTags"] == [tag]
        assert (digest_of(config), layers) == (
            layout.parts.config.digest,
            [layer.digest for layer in layout.parts.layers],
        )

    def test_a_damaged_manifest_is_noticed(self, project):
        built(project)
        layout = open_layout("first")
        layout.blob(layout.digest).write_bytes(b"{}")
        with pytest.raises(PermanentError, match="not what its digest says"):
            open_layout("first")

    def test_placing_the_same_digest_again_keeps_one(self, project, tmp_path):
        built(project)
        layout = open_layout("first")
        copy = fill(tmp_path / "home/images/.new-copy", {"build.json": "{}"})
        place("first", copy, layout.digest)
        assert (lock_path().parent / "first" / "build.json").read_text() == "{}"


def test_an_image_that_is_not_built_says_how_to_build_it(tmp_path, monkeypatch):
    monkeypatch.setenv("SEKISHO_HOME", str(tmp_path))
    with pytest.raises(PermanentError, match=r"python -m sekisho\.images build"):
        open_layout("python")
