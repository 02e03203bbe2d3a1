"""The build stage against a real registry. What needs a container is in tests/e2e/test_sandbox_escape.py."""

from __future__ import annotations

import errno
import io
import json
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from signing_cases import Down, broken

from sekisho.builds import BuildRules
from sekisho.canonical import digest_of
from sekisho.errors import PermanentError, Refusal, TemporaryError
from sekisho.evidence import find_statements
from sekisho.keys import FileSigner, TrustRoot, trusted_key
from sekisho.model import StandardImage
from sekisho.oci import OCI_CONFIG, OCI_MANIFEST, Descriptor, make_manifest
from sekisho.registry import Registry
from sekisho.stage import run_stage
from sekisho.statements import PROVENANCE
from stages import source
from stages.build import Builder, BuildInput, BuildStage
from stages.build.artifacts import Fetcher
from stages.build.indexes import Indexes
from stages.build.pack import Entry, write_layer
from stages.build.resolver import Resolver

DAY = 86_400
WHEN = 1_760_000_000
GIT = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1", "PATH": "/usr/bin:/bin", "HOME": "/nonexistent",
       "GIT_AUTHOR_NAME": "Ada", "GIT_AUTHOR_EMAIL": "ada@example.com", "GIT_COMMITTER_NAME": "Ada",
       "GIT_COMMITTER_EMAIL": "ada@example.com", "GIT_AUTHOR_DATE": f"{WHEN} +0000",
       "GIT_COMMITTER_DATE": f"{WHEN} +0000"}  # fmt: skip

PYTHON = {"requirements.txt": "# none\n", "Procfile": "web: python3 -m thing\n", "thing/__main__.py": "print(1)\n"}


class Standards:
    """Two standard images; none to build in."""

    def __init__(self, image: StandardImage) -> None:
        self.image = image

    def offered(self, language: str) -> tuple[str, ...]:
        del language
        return ("3.11",)

    def for_language(self, language: str, version: str = "") -> tuple[StandardImage, StandardImage | None]:
        del language, version
        return self.image, None


def standard_image(
    registry: Registry, folder: Path, name: str = "base", content: bytes = b"ID=debian\n"
) -> StandardImage:
    layer = write_layer([Entry("etc/os-release", "file", size=len(content), data=content)], folder / "base.tgz", time=0)
    repository = f"standard/{name}"
    registry.push_blob(repository, layer.path, layer.digest)
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Env": ["PATH=/usr/bin:/bin", "LANG=C.UTF-8"], "Cmd": ["serve"], "Healthcheck": {"Test": ["x"]}},
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]},
            "history": [{"created_by": "the platform team"}],
        }
    ).encode()
    registry.put_blob(repository, config)
    media = "application/vnd.oci.image.layer.v1.tar+gzip"
    manifest = make_manifest(
        Descriptor(OCI_CONFIG, digest_of(config), len(config)), (Descriptor(media, layer.digest, layer.size),)
    )
    digest = registry.put_manifest(repository, manifest, OCI_MANIFEST)
    return StandardImage(name=name, digest=digest, repository=repository)


def commit(folder: Path, files: dict[str, str]) -> tuple[Path, str]:
    """Return a bare repository and the commit in it."""
    work, bare = folder / "work", folder / "bare.git"
    for name, text in files.items():
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text(text)
    for words in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-q", "-m", "one"]):
        subprocess.run(["git", *words], cwd=work, env=GIT, check=True)
    subprocess.run(["git", "clone", "-q", "--bare", str(work), str(bare)], env=GIT, check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=work, env=GIT, check=True, capture_output=True, text=True)
    return bare, head.stdout.strip()


@pytest.fixture
def registry(registry_url: str) -> Registry:
    return Registry(registry_url)


@pytest.fixture
def signer(tmp_path: Path) -> FileSigner:
    return FileSigner.create(tmp_path / "builder.pem", "builder")


Make = Callable[..., tuple[BuildStage, BuildInput]]


def builder(registry: Registry, place: Path, standards: Standards) -> Builder:
    """Return a builder without an engine and without a way to any index."""
    indexes = Indexes.from_environment(environment={})
    return Builder(registry, standards, BuildRules(), cache=place / "cache", docker_socket=place / "none.sock",
                   fetcher=Fetcher(place / "cache", indexes),
                   resolver=lambda _: Resolver(indexes, place / "cache" / "work"), cleared=lambda _: None)  # fmt: skip


@pytest.fixture
def make(registry: Registry, signer: FileSigner, tmp_path: Path) -> Make:
    numbers = iter(range(100))

    def made(files: dict[str, str], app: str, **options: str) -> tuple[BuildStage, BuildInput]:
        place = tmp_path / f"run-{next(numbers)}"
        place.mkdir()
        bare, head = commit(place, files)
        revision = source.revision(bare, app, head, "main", path=options.get("path", "."))
        tree = source.checkout(bare, head, place / "a" / "tree")
        image = standard_image(registry, place)
        stage = BuildStage(builder(registry, place, Standards(image)), signer,
                           builder_id="https://sekisho.dev/builders/embedded-unhosted/v1")  # fmt: skip
        return stage, BuildInput(revision, tree)

    return made


def config_of(registry: Registry, repository: str, digest: str) -> dict:
    raw = registry.get_manifest(repository, digest)
    return json.loads(registry.get_blob(repository, json.loads(raw.data)["config"]["digest"]))


def names_in(registry: Registry, repository: str, digest: str) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(registry.get_blob(repository, digest))) as tar:
        return {member.name: member for member in tar}


def test_a_commit_becomes_an_image_and_is_found_again(make: Make, registry: Registry) -> None:
    stage, subject = make(PYTHON, "thing-found")
    assert stage.find(subject) is None
    first = run_stage(stage, subject)
    again = run_stage(stage, subject)
    assert (first.found, again.found) == (False, True)
    image = first.value
    assert image == again.value
    # By which file the language was seen is told of what was built, and of what was known.
    assert stage.marker(subject) == "requirements.txt"
    assert [layer.kind for layer in image.layers] == ["base", "application"]
    config = config_of(registry, image.repository, image.digest)
    run = config["config"]
    assert run["Entrypoint"] == ["python3", "-m", "thing"]
    assert "Cmd" not in run
    assert "Healthcheck" not in run
    assert run["User"] == "10001:10001"
    assert run["WorkingDir"] == "/app"
    assert "PYTHONPATH=/app:/opt/deps" in run["Env"]
    assert "LANG=C.UTF-8" in run["Env"]
    assert config["created"] == "2025-10-09T08:53:20Z"
    assert config["rootfs"]["diff_ids"] == [layer.diff_id for layer in image.layers]
    assert run["Labels"]["org.opencontainers.image.revision"] == subject.revision.commit
    members = names_in(registry, image.repository, image.layers[-1].digest)
    assert {"app", "app/Procfile", "app/thing/__main__.py"} <= set(members)
    assert {(member.uid, member.gid, member.mtime) for member in members.values()} == {(0, 0, WHEN)}


def test_the_same_commit_gives_the_same_digest_in_another_place_with_a_cold_cache(make: Make) -> None:
    one_stage, one = make(PYTHON, "thing-same")
    other_stage, other = make(PYTHON, "thing-same")
    other.tree.joinpath("thing/__main__.py").touch()  # another day
    assert one.tree != other.tree
    assert one_stage.perform(one) == other_stage.perform(other)


def test_another_file_or_base_gives_another_digest(make: Make, registry: Registry, tmp_path: Path) -> None:
    stage, subject = make(PYTHON, "thing-other")
    changed_stage, changed = make({**PYTHON, "thing/__main__.py": "print(2)\n"}, "thing-other")
    first = stage.perform(subject)
    assert changed_stage.perform(changed).digest != first.digest
    key = stage.key(subject)
    stage._builder.standard = Standards(standard_image(registry, tmp_path, content=b"ID=debian\nVERSION_ID=13\n"))
    assert stage.key(subject) != key
    assert stage.perform(subject).digest != first.digest


def test_the_builder_says_how_and_nothing_else(make: Make, registry: Registry, signer: FileSigner) -> None:
    stage, subject = make(PYTHON, "thing-said")
    image = stage.perform(subject)
    trust = TrustRoot(keys=(trusted_key(signer),))
    (found,) = find_statements(
        registry, image.repository, image.digest, trust=trust, role="builder", predicate_type=PROVENANCE
    )
    definition = found.statement.predicate["buildDefinition"]
    assert definition["externalParameters"] == {
        "repository": "git+https://git.sekisho.internal/thing-said.git",
        "commit": subject.revision.commit,
        "path": ".",
    }
    digests = [item["digest"] for item in definition["resolvedDependencies"]]
    assert digests == [{"gitCommit": subject.revision.commit}, {"sha256": image.base_digest.removeprefix("sha256:")}]
    assert found.statement.predicate["runDetails"]["builder"]["id"].endswith("/embedded-unhosted/v1")
    record = stage.record(subject)
    assert record is not None
    assert record.provenance == found.manifest


def test_an_image_without_its_statement_or_layers_is_not_found(make: Make, registry: Registry) -> None:
    stage, subject = make(PYTHON, "thing-lost")
    image = stage.perform(subject)
    assert stage.find(subject) == image
    path = f"/v2/{image.repository}/blobs/{image.layers[-1].digest}"
    answer = registry._http.send("DELETE", path, limit=1024)
    assert answer.status == 202
    assert stage.find(subject) is None
    assert run_stage(stage, subject).value == image


def test_a_static_site_is_what_is_in_its_folder(make: Make, registry: Registry) -> None:
    files = {"public/index.html": "<h1>x</h1>", "public/css/a.css": "a{}", "score.yaml": "x: y", "notes.md": "no"}
    stage, subject = make(files, "site-static")
    image = stage.perform(subject)
    assert image.language == "static"
    members = names_in(registry, image.repository, image.layers[-1].digest)
    assert set(members) == {"srv", "srv/www", "srv/www/index.html", "srv/www/css", "srv/www/css/a.css"}
    assert config_of(registry, image.repository, image.digest)["config"]["Cmd"] == ["serve"]


def test_a_workload_in_a_folder_of_its_repository(make: Make, registry: Registry) -> None:
    files = {f"services/thing/{name}": text for name, text in PYTHON.items()} | {"secret-plans.txt": "x"}
    stage, subject = make(files, "thing-folder", path="services/thing")
    image = stage.perform(subject)
    members = names_in(registry, image.repository, image.layers[-1].digest)
    assert "app/Procfile" in members
    assert not any("secret" in name or "services" in name for name in members)


def test_something_has_to_say_how_it_starts_the_language_or_score_yaml(make: Make) -> None:
    files = {"requirements.txt": "# none\n", "thing.py": "print(1)\n"}
    stage, subject = make(files, "thing-silent")
    with pytest.raises(Refusal, match="starts"):
        stage.perform(subject)
    score = "apiVersion: score.dev/v1b1\nmetadata: {name: thing}\ncontainers:\n"
    container = "  web: {image: ., command: [python3, thing.py]}\n"
    stage, subject = make({**files, "score.yaml": score + container}, "thing-silent")
    assert stage.perform(subject).layers
    stage, subject = make({**files, "score.yaml": score + container + "  job: {image: .}\n"}, "thing-silent")
    with pytest.raises(Refusal, match="starts"):
        stage.perform(subject)


def test_without_an_engine_or_a_build_image_it_says_so(make: Make, registry: Registry, tmp_path: Path) -> None:
    step = '[tool.sekisho.build]\ncommand = ["true"]\n'
    stage, subject = make({**PYTHON, "pyproject.toml": step}, "thing-step")
    with pytest.raises(PermanentError, match="no standard image to build"):
        stage.perform(subject)
    image = standard_image(registry, tmp_path)
    stage._builder.standard.for_language = lambda *_: (image, image)
    with pytest.raises(TemporaryError, match="Docker engine"):
        stage.perform(subject)


def test_files_of_a_killed_builder_go_and_those_of_the_next_stay(registry: Registry, tmp_path: Path) -> None:
    work = tmp_path / "cache" / "work"
    (work / "build-killed" / "tree").mkdir(parents=True)
    (work / "build-killed" / "tree" / "file").write_text("x")
    other = builder(registry, tmp_path, Standards(standard_image(registry, tmp_path)))
    (work / "build-begun").mkdir()
    with pytest.raises(TemporaryError, match="Docker engine"):  # its containers are not to be had, its files are
        other.sweep()
    assert [path.name for path in work.iterdir()] == ["build-begun"]


def test_a_standard_image_that_is_not_there(make: Make) -> None:
    stage, subject = make(PYTHON, "thing-nobase")
    gone = StandardImage(name="gone", digest="sha256:" + "0" * 64, repository="standard/gone")
    stage._builder.standard = Standards(gone)
    with pytest.raises(PermanentError, match="not in the zone's registry"):
        stage.perform(subject)


def test_a_full_disk_is_said_and_tried_again(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    stage, subject = make(PYTHON, "thing-full")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/cache/x")

    monkeypatch.setattr("stages.build.steps.write_layer", full)
    with pytest.raises(TemporaryError, match="disk is full"):
        stage.perform(subject)
    monkeypatch.undo()
    assert run_stage(stage, subject).value.layers


def test_a_builder_whose_signer_is_down_is_tried_again(make: Make, registry: Registry, signer: FileSigner) -> None:
    stage, subject = make(PYTHON, "thing-signer")
    stage._signer = Down(signer, broken)
    with pytest.raises(TemporaryError, match="The builder's signer failed: ConnectionRefusedError"):
        run_stage(stage, subject)
    assert stage.find(subject) is None
    # The layers may be kept for the next attempt; the record, which is what counts, and any statement are not there.
    assert [tag.split("-")[0] for tag in registry.tags("apps/thing-signer")] == ["content"]

    stage._signer = signer
    assert not run_stage(stage, subject).found
    assert run_stage(stage, subject).found
