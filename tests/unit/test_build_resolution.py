"""A workload without a lock file: refused, or resolved once, kept as evidence and used for that commit ever after."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from build_cases import FakeSandbox, Plain, Standards, builder_for, plan_of, standard_image

from sekisho.builds import BuildRules, SandboxLimits
from sekisho.canonical import canonical, digest_of, hex_of
from sekisho.errors import Refusal, TemporaryError
from sekisho.evidence import find_statements
from sekisho.keys import FileSigner, TrustRoot, trusted_key
from sekisho.model import Revision
from sekisho.registry import Registry
from sekisho.stage import run_stage
from sekisho.statements import PROVENANCE
from stages.build import BuildInput, BuildStage
from stages.build.__main__ import write_locks
from stages.build.failures import remedy_of
from stages.build.language import Plan, Step, Unlocked
from stages.build.planning import Unresolved
from stages.build.project import Project

NO_LOCK = Refusal("There is no lock file.", where="plain", remedy="Run: plain lock")


def plain(project: Project, decided_by: tuple[str, ...] | None = None, tool: str = "") -> Plan | Unlocked:
    lock = project.read("plain.lock")
    if lock is None:
        step = Step("resolve", ("resolve",), directory="work", source=(), files={"settings": b"s"})
        return Unlocked("plain", "1", NO_LOCK, step, ("npm",), produces=("plain.lock",), record_as="recorded.json",
                        decided_by=decided_by, tool=tool)  # fmt: skip
    return plan_of(locked=(f"pkg:npm/{lock.decode()}",))


@dataclass
class Bench:
    registry: Registry
    stage: BuildStage
    subject: BuildInput
    standards: Standards
    sandbox: FakeSandbox
    signer: FileSigner
    failure: list[Exception] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def builder(self) -> Any:
        return self.stage._builder


@pytest.fixture
def bench(registry_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Bench:
    registry = Registry(registry_url)
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "plain").write_text("x")
    standards = Standards(standard_image(registry, tmp_path), standard_image(registry, tmp_path, "tools", b"tools\n"))
    failure: list[Exception] = []
    settings: dict[str, Any] = {"lasting": False, "decided_by": None, "tool": ""}

    @contextmanager
    def resolver(_: Any) -> Iterator[Any]:
        with tempfile.TemporaryDirectory() as folder:
            yield SimpleNamespace(folder=Path(folder), recorded={"npm/left": digest_of(b"left")},
                                  lasting=settings["lasting"], failure=failure[0] if failure else None)  # fmt: skip

    builder = builder_for(
        registry,
        tmp_path,
        standards,
        resolver=resolver,
        languages=(Plain(lambda project: plain(project, settings["decided_by"], settings["tool"])),),
    )

    def resolve(command: Any) -> dict[str, bytes | str]:
        assert set(command.inputs) == {"seed", "index", "line"}
        return {"work/plain.lock": b"left@1.0", "work/plain": b"x", "work/link": "/etc/passwd"}

    sandbox = FakeSandbox({"resolve": resolve})
    builder.sandbox = builder.shop.sandbox = sandbox
    signer = FileSigner.create(tmp_path / "builder.pem", "builder")
    app = f"test-{hex_of(digest_of(request.node.name.encode()))[:40]}"
    revision = Revision(
        app=app, commit="a" * 40, tree="b" * 40, branch="main", author="Ada", committed_at=1_760_000_000
    )
    stage = BuildStage(builder, signer, builder_id="https://sekisho.dev/builders/test/v1")
    return Bench(registry, stage, BuildInput(revision, tree), standards, sandbox, signer, failure, settings)


def test_the_lock_is_made_once_kept_and_said(bench: Bench, tmp_path: Path) -> None:
    assert bench.stage.find(bench.subject) is None
    assert bench.sandbox.names == []  # looking has no effect
    image = run_stage(bench.stage, bench.subject).value
    assert bench.sandbox.ran[0].outputs == ("work/plain.lock",)
    assert image.locked == ("pkg:npm/left@1.0",)
    assert image.lock == "resolved"
    assert image.notes[0].startswith(
        "No usable lock file was committed: the line resolved the packages and kept the lock"
    )
    command = f"sekisho lock {bench.subject.revision.app}@{'a' * 12}"
    assert image.notes[1] == f"`{command}` writes that lock into a working copy, to be committed."
    trust = TrustRoot(keys=(trusted_key(bench.signer),))
    (found,) = find_statements(
        bench.registry, image.repository, image.digest, trust=trust, role="builder", predicate_type=PROVENANCE
    )
    definition = found.statement.predicate["buildDefinition"]
    assert definition["internalParameters"]["resolvedLocks"] == ["plain.lock", "recorded.json"]
    said = {item.get("name"): item for item in definition["resolvedDependencies"]}
    lock = digest_of(b"left@1.0")
    assert said["plain.lock"]["digest"] == {"sha256": lock.removeprefix("sha256:")}
    assert bench.registry.get_blob(image.repository, lock) == b"left@1.0"
    recorded = canonical({"format": "sekisho.dev/recorded/v1", "files": {"npm/left": digest_of(b"left")}})
    assert bench.registry.get_blob(image.repository, digest_of(recorded)) == recorded


def test_the_same_commit_uses_the_same_lock_ever_after(bench: Bench, tmp_path: Path) -> None:
    first = run_stage(bench.stage, bench.subject).value
    bench.sandbox.actions["resolve"] = lambda _: {"work/plain.lock": b"left@6.6.6"}
    bench.standards.run = standard_image(bench.registry, tmp_path, content=b"moved\n")  # it is made anew all the same
    second = run_stage(bench.stage, bench.subject).value
    assert second.locked == first.locked
    assert second.notes == first.notes
    assert bench.sandbox.names == ["resolve"]
    other = bench.subject.revision.model_copy(update={"commit": "c" * 40})
    third = run_stage(bench.stage, BuildInput(other, bench.subject.tree)).value
    assert third.locked == ("pkg:npm/left@6.6.6",)
    assert bench.sandbox.names == ["resolve", "resolve"]


def test_a_mended_build_image_leaves_a_commit_its_lock(bench: Bench, tmp_path: Path) -> None:
    first = run_stage(bench.stage, bench.subject).value
    bench.sandbox.actions["resolve"] = lambda _: {"work/plain.lock": b"left@6.6.6"}
    bench.standards.run = standard_image(bench.registry, tmp_path, content=b"moved\n")
    bench.standards.tools = standard_image(bench.registry, tmp_path, "tools", b"mended\n")
    second = run_stage(bench.stage, bench.subject).value
    assert second.base_digest != first.base_digest
    assert second.locked == first.locked
    assert bench.sandbox.names == ["resolve"]


@pytest.mark.parametrize("lasting", [False, True])
def test_a_record_of_files_holds_for_one_release_of_the_tool_that_asked_for_them(
    bench: Bench, tmp_path: Path, *, lasting: bool
) -> None:
    bench.settings |= {"tool": "maven", "lasting": lasting, "decided_by": ("plain",)}

    def moved(content: bytes, maven: str) -> Any:
        tools = standard_image(bench.registry, tmp_path, "tools", content)
        packages = (f"libc6={content.decode().strip()}", f"maven={maven}", "maven-repo-helper=1.0")
        bench.standards.tools = tools.model_copy(update={"packages": packages})
        return run_stage(bench.stage, bench.subject).value

    first = moved(b"one\n", "3.8.7-1")
    bench.sandbox.actions["resolve"] = lambda _: {"work/plain.lock": b"left@6.6.6"}
    assert moved(b"two\n", "3.8.7-1").locked == first.locked
    assert moved(b"three\n", "3.9.9-1").locked == ("pkg:npm/left@6.6.6",)
    assert bench.sandbox.names == ["resolve"] * 2


def test_a_later_commit_takes_the_record_while_its_manifests_are_the_same_and_nothing_in_it_changes(
    bench: Bench, tmp_path: Path
) -> None:
    bench.settings |= {"lasting": True, "decided_by": ("plain",)}
    first = run_stage(bench.stage, bench.subject).value
    bench.sandbox.actions["resolve"] = lambda _: {"work/plain.lock": b"left@6.6.6"}

    def built(commit: str, **files: str) -> Any:
        tree = tmp_path / commit
        tree.mkdir()
        for name, text in {"plain": "x", **files}.items():
            (tree / name).write_text(text)
        revision = bench.subject.revision.model_copy(update={"commit": commit * 40})
        subject = BuildInput(revision, tree)
        image = run_stage(bench.stage, subject).value
        assert bench.stage.find(subject) == image
        return image

    second = built("c", code="y")
    assert (second.locked, second.lock) == (first.locked, "resolved")
    assert second.notes[0].startswith(
        f"No usable lock file was committed: the lock that the line resolved for {'a' * 12} ("
    )
    third = built("d", plain="other manifest")
    assert third.locked == ("pkg:npm/left@6.6.6",)
    bench.settings["lasting"] = False  # a range of versions was asked for: mended ones come in with each commit
    kept = f"the line resolved the packages and kept the lock ({_shown(third)}) as evidence."
    said = [built(name, plain="range").notes[0] for name in "ef"]
    assert said == 2 * [f"No usable lock file was committed: {kept}"]
    assert bench.sandbox.names == ["resolve"] * 4


def _shown(image: Any) -> str:
    return str(image.notes[0].partition("(")[2].partition(")")[0])


def test_a_lock_is_written_where_nothing_is_and_never_through_a_link(tmp_path: Path) -> None:
    write_locks(tmp_path, {"maven.lock.json": b"{}"})
    assert (tmp_path / "maven.lock.json").read_bytes() == b"{}"
    (tmp_path / "uv.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Refusal, match=r"There is a uv\.lock"):
        write_locks(tmp_path, {"uv.lock": b"x"})
    assert not (tmp_path / "elsewhere").exists()


def test_a_policy_may_refuse(bench: Bench) -> None:
    for rules in ({"plain": "refuse"}, {"default": "refuse"}):
        bench.builder.rules = BuildRules(without_lock=rules)
        with pytest.raises(Refusal, match="no lock file") as caught:
            run_stage(bench.stage, bench.subject)
        assert caught.value.remedy == "Run: plain lock"
    bench.builder.rules = BuildRules(without_lock={"default": "refuse", "plain": "resolve"})
    assert isinstance(bench.builder.plan(Project(bench.subject.tree)), Unresolved)
    assert bench.sandbox.names == []


def test_a_lock_that_is_not_made_is_refused_with_the_command_that_makes_it(bench: Bench) -> None:
    bench.sandbox.actions["resolve"] = lambda _: {"work/other": b""}
    with pytest.raises(Refusal, match=r"made no plain\.lock") as caught:
        run_stage(bench.stage, bench.subject)
    assert caught.value.remedy == "Run: plain lock"
    bench.sandbox.actions["resolve"] = lambda _: {"work/plain.lock": "elsewhere"}
    with pytest.raises(Refusal, match="no plain file"):
        run_stage(bench.stage, bench.subject)
    assert bench.stage.find(bench.subject) is None


@pytest.mark.parametrize(
    ("words", "begin"),
    [
        ("the current Python version (3.11.2) does not satisfy Python>=3.12", "Write 3.12 or newer"),
        ("error: no such package", "Correct what it says."),
        ("Could not resolve host: example.org", "Correct what it says."),
    ],
)
def test_a_resolution_that_fails_says_what_helps(bench: Bench, words: str, begin: str) -> None:
    def fails(_: Any) -> dict[str, bytes | str]:
        raise Refusal(f"It failed: {words}", where="resolving", remedy=remedy_of(words, SandboxLimits()))

    bench.sandbox.actions["resolve"] = fails
    with pytest.raises(Refusal) as caught:
        run_stage(bench.stage, bench.subject)
    assert caught.value.remedy.startswith(begin)
    assert caught.value.remedy.endswith("Or lock the packages yourself. Run: plain lock")


def test_what_the_index_proxy_says_counts_more_than_what_the_tool_says(bench: Bench) -> None:
    def fails(_: Any) -> Any:
        raise Refusal("The step failed with status 1.")

    bench.sandbox.actions["resolve"] = fails
    with pytest.raises(Refusal, match="status 1"):
        run_stage(bench.stage, bench.subject)
    bench.failure.append(TemporaryError("The index does not answer."))
    with pytest.raises(TemporaryError, match="does not answer"):
        run_stage(bench.stage, bench.subject)


@pytest.mark.parametrize(
    "failure", [TemporaryError("The index does not answer."), Refusal("More than 50000 requests.", remedy="Lock them.")]
)
def test_a_lock_that_was_made_without_the_index_is_not_kept(bench: Bench, failure: Exception) -> None:
    """npm goes on without an optional package, Maven without a list of versions, and both say that all is well."""
    bench.settings |= {"lasting": True, "decided_by": ("plain",)}
    bench.failure.append(failure)
    with pytest.raises(type(failure), match=str(failure)[:20]):
        run_stage(bench.stage, bench.subject)
    assert bench.sandbox.names == ["resolve"]
    assert bench.registry.tags(f"apps/{bench.subject.revision.app}") == ()
    bench.failure.clear()
    assert run_stage(bench.stage, bench.subject).value.locked == ("pkg:npm/left@1.0",)
    assert bench.sandbox.names == ["resolve"] * 2


def test_evidence_of_another_commit_does_not_count(bench: Bench) -> None:
    run_stage(bench.stage, bench.subject)
    repository = f"apps/{bench.subject.revision.app}"
    (tag,) = [tag for tag in bench.registry.tags(repository) if tag.startswith("resolved-")]
    raw = bench.registry.get_manifest(repository, tag)
    value = json.loads(raw.data)
    value["layers"][1]["annotations"]["org.opencontainers.image.title"] = "other.lock"
    bench.registry.put_manifest(repository, canonical(value), raw.media_type, tag=tag)
    with pytest.raises(Refusal, match="not about what is in it"):
        bench.stage.find(bench.subject)
