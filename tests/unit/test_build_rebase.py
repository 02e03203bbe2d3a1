"""A standard image moved: the workload's layers are put on the new one, and nothing else changes, provably."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from build_cases import FakeSandbox, Plain, Standards, builder_for, plan_of, standard_image

from sekisho.errors import PermanentError
from sekisho.evidence import find_statements
from sekisho.keys import FileSigner, TrustRoot, trusted_key
from sekisho.model import Image, Revision, StandardImage
from sekisho.oci import Manifest
from sekisho.registry import Registry
from sekisho.stage import run_stage
from sekisho.statements import PROVENANCE
from stages.build import BuildInput, BuildStage
from stages.build.compose import Base, Composed, Origin, image_config, image_manifest, only_base_changed, read_base
from stages.build.language import Step, Take

INSTALL = Step("dependencies", ("install",), directory="deps", keep=True)
PLAN = plan_of(
    Take("dependencies", "dependencies", below="deps", into="opt/deps"),
    Take("application", "source", into="app"),
    steps=(INSTALL,),
)


@dataclass
class Bench:
    """A stage whose standard images can be moved."""

    registry: Registry
    stage: BuildStage
    subject: BuildInput
    standards: Standards
    sandbox: FakeSandbox
    signer: FileSigner

    def build(self) -> Image:
        return run_stage(self.stage, self.subject).value

    def said(self, image: Image) -> dict[str, Any]:
        trust = TrustRoot(keys=(trusted_key(self.signer),))
        found = find_statements(
            self.registry, image.repository, image.digest, trust=trust, role="builder", predicate_type=PROVENANCE
        )
        return found[-1].statement.predicate["buildDefinition"]

    def config(self, image: Image) -> dict[str, Any]:
        raw = self.registry.get_manifest(image.repository, image.digest)
        return json.loads(self.registry.get_blob(image.repository, Manifest.parse(raw.data).config.digest))


@pytest.fixture
def bench(registry_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Bench:
    registry = Registry(registry_url)
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "plain").write_text("x")
    run = standard_image(registry, tmp_path)
    tools = standard_image(registry, tmp_path, "base-build", b"ID=tools\n")
    standards = Standards(run, tools)
    builder = builder_for(registry, tmp_path, standards, languages=(Plain(PLAN),))
    sandbox = FakeSandbox({"install": lambda _: {"deps/a": b"a"}})
    builder.sandbox = builder.shop.sandbox = sandbox
    signer = FileSigner.create(tmp_path / "builder.pem", "builder")
    app = request.node.name.replace("_", "-")[:40].strip("-")
    revision = Revision(
        app=app, commit="a" * 40, tree="b" * 40, branch="main", author="Ada", committed_at=1_760_000_000
    )
    stage = BuildStage(builder, signer, builder_id="https://sekisho.dev/builders/test/v1")
    return Bench(registry, stage, BuildInput(revision, tree), standards, sandbox, signer)


def test_when_only_the_run_image_moves_nothing_is_built_again(bench: Bench, tmp_path: Path) -> None:
    first = bench.build()
    bench.subject.tree.joinpath("plain").chmod(0o644)
    moved = standard_image(bench.registry, tmp_path, content=b"ID=debian\nfixed\n", Env=["PATH=/bin", "TZ=UTC"])
    bench.standards.run = moved
    bench.stage._builder.shop.fetcher = None
    second = bench.build()
    assert bench.sandbox.names == ["install"]
    assert second.base_digest == moved.digest != first.base_digest
    own = [[layer for layer in image.layers if layer.kind != "base"] for image in (first, second)]
    assert own[0] == own[1]
    assert (second.locked, second.language, second.notes) == (first.locked, first.language, first.notes)
    assert "TZ=UTC" in bench.config(second)["config"]["Env"]
    assert "LANG=C.UTF-8" not in bench.config(second)["config"]["Env"]
    definition = bench.said(second)
    assert definition["internalParameters"]["rebasedFrom"] == first.digest
    assert "rebasedFrom" not in bench.said(first)["internalParameters"]
    names = [item.get("name") for item in definition["resolvedDependencies"]]
    assert names == [None, "base", "base-build"]
    assert definition["resolvedDependencies"][1]["digest"]["sha256"] == moved.digest.removeprefix("sha256:")


def test_a_rebased_image_is_the_one_that_a_full_build_gives(bench: Bench, tmp_path: Path) -> None:
    bench.build()
    bench.standards.run = standard_image(bench.registry, tmp_path, content=b"ID=debian\nfixed\n")
    rebased = bench.build()
    revision = bench.subject.revision.model_copy(update={"app": bench.subject.revision.app[:30] + "-x"})
    again = replace(bench.subject, revision=revision)
    full = run_stage(bench.stage, again).value
    assert [layer.digest for layer in full.layers] == [layer.digest for layer in rebased.layers]
    texts = [json.dumps(bench.config(image)).replace(revision.app, bench.subject.revision.app)
             for image in (full, rebased)]  # fmt: skip
    assert texts[0] == texts[1]


def test_when_the_build_image_moves_it_is_built_again(bench: Bench, tmp_path: Path) -> None:
    bench.build()
    bench.standards.tools = standard_image(bench.registry, tmp_path, "base-build", b"ID=tools\nnew\n")
    second = bench.build()
    assert bench.sandbox.names == ["install", "install"]
    assert "rebasedFrom" not in bench.said(second)["internalParameters"]


def test_without_the_image_that_it_was_it_is_built_again(bench: Bench, tmp_path: Path) -> None:
    first = bench.build()
    bench.registry._http.send("DELETE", f"/v2/{first.repository}/manifests/{first.digest}", limit=1024)
    bench.standards.run = standard_image(bench.registry, tmp_path, content=b"ID=debian\nfixed\n")
    second = bench.build()
    assert "rebasedFrom" not in bench.said(second)["internalParameters"]
    assert second.base_digest == bench.standards.run.digest


def test_without_a_layer_it_is_built_again(bench: Bench, tmp_path: Path) -> None:
    first = bench.build()
    bench.registry._http.send("DELETE", f"/v2/{first.repository}/blobs/{first.layers[-1].digest}", limit=1024)
    bench.standards.run = standard_image(bench.registry, tmp_path, content=b"ID=debian\nfixed\n")
    assert "rebasedFrom" not in bench.said(bench.build())["internalParameters"]


def test_a_launcher_comes_and_goes_with_the_standard_image(bench: Bench, tmp_path: Path) -> None:
    """An image that was built before there was a launcher gets it by a rebase; another launcher replaces it."""
    first = bench.build()
    assert (first.launcher, bench.config(first)["config"]["Entrypoint"]) == ((), ["run"])
    for words in (["/init", "--"], ["/other", "-x", "--"], ["/server"]):
        bench.standards.run = standard_image(bench.registry, tmp_path, content=str(words).encode(), Entrypoint=words)
        image = bench.build()
        assert "rebasedFrom" in bench.said(image)["internalParameters"]
        launcher = words if words[-1] == "--" else []
        assert image.launcher == tuple(launcher)
        assert bench.config(image)["config"]["Entrypoint"] == [*launcher, "run"]
    assert bench.sandbox.names == ["install"]


# -- the proof -----------------------------------------------------------------------------------------------------


@pytest.fixture
def bases(registry_url: str, tmp_path: Path) -> tuple[Base, Base]:
    registry = Registry(registry_url)
    images = (
        standard_image(registry, tmp_path, "proof", Env=["A=1", "B=1"]),
        standard_image(registry, tmp_path, "proof", b"new\n", Env=["A=2", "B=1"], Labels={"x": "y"}, StopSignal="INT"),
    )
    return tuple(read(registry, image) for image in images)


def read(registry: Registry, image: StandardImage) -> Base:
    manifest = Manifest.parse(registry.get_manifest(image.repository, image.digest).data)
    return read_base(image.name, image.digest, manifest, registry.get_blob(image.repository, manifest.config.digest))


def composed(base: Base, image: Image, **runtime: Any) -> Composed:
    start = replace(PLAN.runtime, **runtime)
    origin = Origin("x", "git+https://x", "c" * 40, 5)
    config = image_config(base, image.layers, start, origin)
    manifest = image_manifest(base, image.layers, config, origin)
    return Composed(base, Manifest.parse(manifest), json.loads(config))


def some_image(line: Any, app: str) -> Image:
    image = line.image(app)
    return image.model_copy(update={"layers": tuple(layer for layer in image.layers if layer.kind != "base")})


def test_the_proof_accepts_another_base_and_only_that(bases: tuple[Base, Base], line: Any) -> None:
    old, new = bases
    image, other = some_image(line, "proof-one"), some_image(line, "proof-other")
    before = composed(old, image)
    only_base_changed(before, composed(new, image))
    for wrong, says in (
        (composed(new, other), "the workload's layers"),
        (composed(new, image, environment={"MODE": "y"}), "environment: MODE"),
        (composed(new, image, environment={"MODE": "x", "A": "3"}), "environment: A"),
        (composed(new, image, command=("other",)), "config: Entrypoint"),
        (composed(new, image, directory="/"), "config: WorkingDir"),
    ):
        with pytest.raises(PermanentError, match=says):
            only_base_changed(before, wrong)


def test_the_proof_wants_the_launcher_in_front_and_the_command_behind_it(registry_url: str, tmp_path: Path,
                                                                         line: Any) -> None:  # fmt: skip
    registry = Registry(registry_url)
    old, new = (
        read(registry, standard_image(registry, tmp_path, "launched", words[0].encode(), Entrypoint=words))
        for words in (["/one", "--"], ["/two", "--"])
    )
    image = some_image(line, "proof-launched")
    before, after = composed(old, image), composed(new, image)
    only_base_changed(before, after)
    for words in (["run"], ["/one", "--", "run"], ["/two", "--", "other"], ["/two", "--"]):
        wrong = replace(after, config={**after.config, "config": {**after.config["config"], "Entrypoint": words}})
        with pytest.raises(PermanentError, match="config: Entrypoint"):
            only_base_changed(before, wrong)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda image: replace(image, config={**image.config, "architecture": "arm64"}), "config: architecture"),
        (lambda image: replace(image, config={**image.config, "config": {**image.config["config"], "User": "0"}}),
         "config: User"),
        (lambda image: replace(image, config={**image.config, "rootfs": {"diff_ids": ["sha256:x"]}}), "files below"),
        (lambda image: replace(image, manifest=replace(image.manifest, layers=image.manifest.layers[1:])),
         "layers below"),
        (lambda image: replace(image, manifest=replace(image.manifest, layers=image.manifest.layers[:-1])),
         "workload's layers"),
        (lambda image: replace(image, manifest=replace(image.manifest, annotations={})), "standard image's name"),
    ],
)  # fmt: skip
def test_the_proof_sees_what_was_done_to_an_image(bases: tuple[Base, Base], line: Any, change: Any, says: str) -> None:
    old, new = bases
    image = some_image(line, "proof-changed")
    before, after = composed(old, image), composed(new, image)
    with pytest.raises(PermanentError, match=says):
        only_base_changed(before, change(after))
    with pytest.raises(PermanentError):
        only_base_changed(change(before), after)
