"""The lock of a workload that committed none: handed out, checked, written, and made where the policy resolves none."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from build_cases import Make

from sekisho.builds import BuildRules
from sekisho.canonical import canonical, digest_of
from sekisho.cli import lock as command
from sekisho.cli import main as cli
from sekisho.clients import FeedClient
from sekisho.errors import PermanentError, Refusal, VerificationError
from sekisho.feed import FeedStore, create_feed_app
from sekisho.keys import TrustRoot, trusted_key
from sekisho.lock_files import write_lock_files
from sekisho.model import Archive, Image, JudgeInput, Judgement, Result, Verdict
from sekisho.oci import OCI_MANIFEST
from sekisho.registry import Registry
from sekisho.releases import locks as module
from sekisho.releases.judgement import commit_tag, put_judgement, verdict_repository
from sekisho.releases.locks import LockBundle, export_lock, open_lock
from sekisho.stage import run_stage
from sekisho.standard import StandardImages, load_spec
from stages.build.planning import draft, placed
from stages.build.project import Project
from stages.dev import lock as making

from .serving import serve
from .test_build_resolution import NO_LOCK, Bench, bench

__all__ = ["bench"]

POLICIES = b"an archive"
ROOT = Path(__file__).parent.parent.parent
LOCKS = {
    "plain.lock": b"left@1.0",
    "recorded.json": canonical({"format": "sekisho.dev/recorded/v1", "files": {"npm/left": digest_of(b"left")}}),
}


def judged(registry: Registry, app: str, commit: str, image: Image | None) -> None:
    """Keep the newest judgement of a commit, as the judge does."""
    judgement = Judgement(
        subject=JudgeInput(app=app, commit=commit, image=image),
        at=1_790_000_000,
        policies=Archive(digest=digest_of(POLICIES), size=len(POLICIES)),
        verdict=Verdict(app=app, commit=commit, result=Result.FAILED, policy=digest_of(b"policy"), reasons=()),
    )
    repository = verdict_repository(app)
    raw = registry.get_manifest(repository, put_judgement(registry, repository, judgement, POLICIES))
    assert raw is not None
    registry.put_manifest(repository, raw.data, OCI_MANIFEST, tag=commit_tag(commit))


@pytest.fixture
def trust(bench: Bench) -> TrustRoot:
    return TrustRoot(keys=(trusted_key(bench.signer),))


@pytest.fixture
def built(bench: Bench, trust: TrustRoot) -> LockBundle:
    """The lock of a commit for which the line resolved one."""
    revision = bench.subject.revision
    judged(bench.registry, revision.app, revision.commit, run_stage(bench.stage, bench.subject).value)
    found = export_lock(bench.registry, revision.app, revision.commit, trust)
    assert found is not None
    return found


def test_what_the_line_resolved_is_handed_out_by_the_builders_word(built: LockBundle, trust: TrustRoot) -> None:
    found = open_lock(built.canonical(), built.app, built.commit, trust)
    assert (found.folder, found.files) == (".", LOCKS)


def test_a_commit_with_a_lock_of_its_own_has_none_and_one_that_was_not_built_neither(
    bench: Bench, trust: TrustRoot
) -> None:
    app, commit = bench.subject.revision.app, bench.subject.revision.commit
    assert export_lock(bench.registry, app, commit, trust) is None
    judged(bench.registry, app, commit, None)
    assert export_lock(bench.registry, app, commit, trust) is None
    (bench.subject.tree / "plain.lock").write_bytes(b"own@1.0")
    judged(bench.registry, app, commit, run_stage(bench.stage, bench.subject).value)
    assert export_lock(bench.registry, app, commit, trust) is None


def test_a_lock_that_is_too_large_is_not_handed_out(
    built: LockBundle, bench: Bench, trust: TrustRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOCKS_LIMIT", 12)
    with pytest.raises(Refusal, match="cannot be handed out") as caught:
        export_lock(bench.registry, built.app, built.commit, trust)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"files": {"plain.lock": base64.b64encode(b"evil@6.6.6").decode()}}, "not the one that the provenance"),
        ({"files": {}}, "not the one that the provenance"),
        ({"files": {"plain.lock": "%"}}, "not base64"),
        ({"provenance": base64.b64encode(b"{}").decode()}, ""),
        ({"commit": "f" * 40}, "another commit's"),
        ({"app": "other"}, "another commit's"),
    ],
)
def test_a_lie_about_a_lock_shows_also_without_a_trust_root(
    built: LockBundle, trust: TrustRoot, change: dict[str, Any], said: str
) -> None:
    lie = built.model_copy(update=change).canonical()
    for known in (trust, None):
        with pytest.raises(PermanentError) as caught:
            open_lock(lie, built.app, built.commit, known)
        assert said in caught.value.what
    # Not even of a commit that it claims itself to be about.
    if "files" not in change and "provenance" not in change:
        with pytest.raises(VerificationError):
            open_lock(lie, change.get("app", built.app), change.get("commit", built.commit), trust)


def test_another_builders_word_does_not_count(built: LockBundle, signers: Mapping[str, Any]) -> None:
    others = TrustRoot(keys=(trusted_key(signers["builder"]),))
    with pytest.raises(VerificationError):
        open_lock(built.canonical(), built.app, built.commit, others)


# -- the command -----------------------------------------------------------------------------------------------------


Ask = Callable[..., int]


@pytest.fixture
def ask(built: LockBundle, bench: Bench, trust: TrustRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run `sekisho lock` beside a build zone that serves the lock; yields a function."""

    def served(app: str, commit: str) -> bytes | None:
        found = export_lock(bench.registry, app, commit, trust)
        return found.canonical() if found else None

    (tmp_path / "root.json").write_text(trust.model_dump_json())
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "score.yaml").touch()
    monkeypatch.setenv("SEKISHO_HOME", str(tmp_path / "home"))
    with serve(create_feed_app(FeedStore(tmp_path / "feed"), lambda _: None, lock=served)) as url:
        monkeypatch.setenv("SEKISHO_BUILD", url)

        def run(*words: str, commit: str = built.commit) -> int:
            return cli.run(["lock", f"{built.app}@{commit}", "--into", str(tmp_path / "shop"), *words])

        yield run


def test_the_command_writes_what_was_resolved(ask: Ask, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trusted = ("--trust", str(tmp_path / "root.json"))
    assert ask(*trusted) == 0
    said = capsys.readouterr()
    assert {path.name: path.read_bytes() for path in (tmp_path / "shop").iterdir()} == {"score.yaml": b"", **LOCKS}
    assert "Commit it: git add plain.lock recorded.json" in said.out
    assert said.err == ""
    assert ask(*trusted, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["verified"], [item["state"] for item in found["files"]]) == (True, ["unchanged", "unchanged"])
    assert {item["path"]: item["digest"] for item in found["files"]} == {
        path: digest_of(data) for path, data in LOCKS.items()
    }


def test_the_command_says_when_no_signature_was_checked(ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask() == 0
    assert "whose signature was not checked" in capsys.readouterr().err


def test_the_command_takes_nothing_away(ask: Ask, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "shop" / "recorded.json"
    mine.write_text("mine")
    assert ask() == 1
    assert "There is another recorded.json; nothing was written." in capsys.readouterr().err
    assert mine.read_text() == "mine"
    assert not (tmp_path / "shop" / "plain.lock").exists()
    assert ask("--force") == 0
    assert mine.read_bytes() == LOCKS["recorded.json"]


def test_the_command_needs_a_commit_that_has_one_and_a_workload(
    ask: Ask, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(commit="d" * 40) == 1
    assert "resolved no lock for that commit" in capsys.readouterr().err
    assert ask(commit="xyz") == 2
    (tmp_path / "shop" / "score.yaml").unlink()
    assert ask() == 1
    assert "has it at the top" in capsys.readouterr().err
    assert cli.run(["lock", str(tmp_path / "none")]) == 2
    assert ask("--trust", str(tmp_path / "none.json")) == 1


def test_the_feeds_client_reads_it(ask: Ask, built: LockBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    del ask
    import os

    with FeedClient(os.environ["SEKISHO_BUILD"]) as client:
        assert client.lock(built.app, built.commit) == built.canonical()
        with pytest.raises(Refusal, match="no lock"):
            client.lock(built.app, "e" * 40)


def test_a_folder_is_for_the_dev_zone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def run(words: list[str], **_: object) -> Any:
        asked.append(words[1:])
        return subprocess.CompletedProcess(words, 0)

    monkeypatch.setattr(command.subprocess, "run", run)
    monkeypatch.delenv("SEKISHO_DEVELOPER", raising=False)
    assert cli.run(["lock", str(tmp_path), "--force", "--json"]) == 0
    assert asked == [["-P", "-m", "stages.dev.lock", str(tmp_path.resolve()), "--as", "", "--force", "--json"]]


# -- writing -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["", "/etc/x", "../x", "a/../x", ".git/config", "a//b", ".env", "a\nb", "a b", "-x", "x" * 101, "a/" * 16 + "b"],
)  # fmt: skip
def test_only_names_of_lock_files_are_written(tmp_path: Path, path: str) -> None:
    with pytest.raises(Refusal, match="not the path of a lock file"):
        write_lock_files(tmp_path, {"good.lock": b"x", path: b"x"})
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "a.lock").symlink_to(outside / "a.lock")
    (folder / "sub").symlink_to(outside)
    for path in ("a.lock", "sub/b.lock"):
        with pytest.raises(Refusal, match="Something else stands"):
            write_lock_files(folder, {path: b"x"}, force=True)
    (folder / "c.lock").mkdir()
    with pytest.raises(Refusal, match="Something else stands"):
        write_lock_files(folder, {"c.lock": b"x"}, force=True)
    assert list(outside.iterdir()) == []


def test_a_lock_in_a_folder_of_the_workload(tmp_path: Path) -> None:
    (written,) = write_lock_files(tmp_path, {"ui/package-lock.json": b"{}"})
    assert written.state == "written"
    assert (tmp_path / "ui/package-lock.json").read_bytes() == b"{}"
    assert (tmp_path / "ui/package-lock.json").stat().st_mode & 0o777 == 0o644


# -- where the policy resolves none ------------------------------------------------------------------------------------


def test_a_lock_is_made_whatever_the_policy_says(bench: Bench) -> None:
    bench.builder.rules = BuildRules(without_lock={"default": "refuse"})
    with pytest.raises(Refusal, match=NO_LOCK.what):
        run_stage(bench.stage, bench.subject)
    assert making.make_lock(bench.subject.tree, bench.builder) == LOCKS
    (bench.subject.tree / "plain.lock").write_bytes(b"own@1.0")
    assert making.make_lock(bench.subject.tree, bench.builder) == {}
    assert [path.name for path in bench.builder.work.iterdir() if path.name.startswith("lock-")] == []


def test_the_process_that_makes_it_writes_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = bench.subject.tree
    monkeypatch.setattr(making, "_made", lambda folder, _login: making.make_lock(folder, bench.builder))
    assert making.main([str(tree)]) == 0
    assert (tree / "plain.lock").read_bytes() == LOCKS["plain.lock"]
    assert "Commit it: git add plain.lock recorded.json" in capsys.readouterr().out
    assert making.main([str(tree)]) == 0
    assert capsys.readouterr().out == "The lock is there already.\n"
    assert making.main([str(tree / "none")]) == 2


UNLOCKED: Mapping[str, tuple[Mapping[str, str], str]] = {
    "python": ({"requirements.txt": "flask\n"}, "uv pip compile"),
    "python, a project": (
        {"pyproject.toml": '[project]\nname = "a"\nversion = "1"\ndependencies = ["flask"]\n'}, "uv pip compile",
    ),
    "python, a Pipfile": ({"Pipfile": '[packages]\nflask = "*"\n'}, "pipenv lock"),
    "node": (
        {"package.json": '{"name": "a", "scripts": {"start": "node a"}, "dependencies": {"b": "1.0.0"}}'},
        "npm install --package-lock-only",
    ),
    "go": ({"go.mod": "module a.org/b\n\ngo 1.27\n\nrequire x.org/y v1.0.0\n",
            "main.go": 'package main\n\nimport _ "x.org/y"\n\nfunc main() {}\n'}, "go mod tidy"),
    "rust": (
        {"Cargo.toml": '[package]\nname = "a"\nversion = "1.0.0"\n[dependencies]\nb = "1"\n', "src/main.rs": ""},
        "cargo generate-lockfile",
    ),
    "java": (
        {"pom.xml": "<project><modelVersion>4.0.0</modelVersion><groupId>a</groupId><artifactId>a</artifactId>"
                    "<version>1</version></project>"},
        "sekisho lock .",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", UNLOCKED)
def test_a_policy_that_refuses_names_the_one_command_that_makes_the_lock(make: Make, case: str) -> None:
    files, wanted = UNLOCKED[case]
    spec = load_spec(ROOT / "policies" / "standard-images.yaml")
    standard = StandardImages({image.name: image for image in spec.images}, {})
    project: Project = make(files)
    with pytest.raises(Refusal) as caught:
        placed(project, draft(project, standard), standard, BuildRules(without_lock={"default": "refuse"}))
    assert wanted in caught.value.remedy
