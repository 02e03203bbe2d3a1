"""Judged again: every verdict, the NO too, comes out the same from what is stored, and a lie shows."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from signing_cases import Down, broken

from sekisho.canonical import digest_of
from sekisho.cli import main as cli
from sekisho.errors import PermanentError, Refusal, TemporaryError, VerificationError
from sekisho.evidence import attach_statement, find_statements
from sekisho.feed import FeedStore, create_feed_app
from sekisho.keys import TrustedKey, TrustRoot
from sekisho.model import Finding, Image, JudgeInput, Judgement, Manifests, Offer, Result, Severity
from sekisho.records import put_record
from sekisho.registry import Registry
from sekisho.releases import export_bundle, verify_bundle, verify_release
from sekisho.releases.judgement import (
    VerdictBundle,
    commit_tag,
    export_verdict,
    load_judgement,
    put_judgement,
    verdict_repository,
    verdict_statement,
)
from sekisho.stage import run_stage
from sekisho.standard import LockEntry, StandardLock
from sekisho.statements import PROVENANCE, SBOM, SCAN, SUMMARY
from stages import why
from stages.judge import JudgeStage, Rules, judge, judgement_of, load_rules
from stages.receive import ReceiveStage
from stages.render import render
from stages.seal import SealInput, SealStage
from stages.why import open_file, replay

from .conftest import COMMIT, NOW, Line, scan_of
from .serving import serve

POLICIES = Path(__file__).parent.parent.parent / "policies"
SCORE = """\
apiVersion: score.dev/v1b1
metadata: {name: APP}
containers: {web: {image: ., readinessProbe: {httpGet: {path: /, port: 8080}}}}
service: {ports: {web: {port: 80, targetPort: 8080}}}
"""


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policies folder with the digest of the standard image that the line's images stand on."""
    folder = tmp_path_factory.mktemp("policies") / "policies"
    shutil.copytree(POLICIES, folder)
    entry = LockEntry(digest=digest_of(b"base"), built_at="2026-09-01T00:00:00Z")
    lock = StandardLock(format="sekisho.dev/standard-images-lock/v1", images={"python": entry})
    (folder / "standard-images.lock.yaml").write_text(lock.to_yaml())
    return folder


@pytest.fixture(scope="module")
def rules(policies: Path) -> Rules:
    return load_rules(policies)


@dataclass
class Gate:
    """A judge and a sealer with the real policies."""

    line: Line
    rules: Rules
    now: int = NOW

    def judge(self) -> JudgeStage:
        return JudgeStage(self.line.registry, self.line.signers["verifier"], self.rules, now=lambda: self.now)

    def subject(self, app: str, **change: Any) -> JudgeInput:
        image = self.line.image(app)
        for predicate_type in (PROVENANCE, SCAN, SBOM):
            self.line.attest(image, predicate_type)
        manifests = render(SCORE.replace("APP", app).encode(), app=app, image=image.reference)
        known = {"image": image, "manifests": manifests, "scan": scan_of(image)} | change
        return JudgeInput(app=app, commit=COMMIT, **known)

    def judged(self, app: str, **change: Any) -> Judgement:
        return run_stage(self.judge(), self.subject(app, **change)).value

    def verdict(self, app: str) -> VerdictBundle:
        found = export_verdict(self.line.registry, app, COMMIT, self.line.trust)
        assert found is not None
        return found

    def sealed(self, app: str) -> Offer:
        stage = SealStage(self.line.registry, self.line.trust, self.line.signers["verifier"], clock=lambda: self.now)
        made = run_stage(stage, SealInput(self.line.revision(app), self.judged(app))).value
        return Offer(sequence=1, app=app, release=made.digest, summary=made.summary, commit=COMMIT)


@pytest.fixture
def gate(line: Line, rules: Rules) -> Gate:
    return Gate(line, rules)


def opened(gate: Gate, data: bytes, **more: Any) -> why.Judged:
    return open_file(data, gate.line.trust, at=NOW, **more)


# -- the same again ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("app", "change", "result"),
    [
        ("why-passed", {}, Result.PASSED),
        ("why-unscanned", {"scan": None}, Result.FAILED),
        ("why-nothing", {"image": None, "manifests": None, "scan": None}, Result.FAILED),
    ],
)
def test_a_verdict_comes_out_the_same(gate: Gate, app: str, change: dict[str, Any], result: Result) -> None:
    judgement = gate.judged(app, **change)
    judged = opened(gate, gate.verdict(app).canonical(), expected=f"{app}@{COMMIT}")
    again = replay(judged.judgement, judged.policies)

    assert judgement.verdict.result is result
    assert judged.judgement == judgement
    assert again.same
    assert again.verdict is not None
    assert again.verdict.canonical() == judgement.verdict.canonical()


def test_the_time_of_then_counts_not_that_of_today(gate: Gate) -> None:
    """A month later the same policies say FAILED of the same evidence; the judgement of then stays PASSED."""
    old = {"updated_at": "2026-09-20T00:00:00Z", "kind": "mirror"}
    given = gate.subject("why-aging")
    assert given.scan is not None
    database = given.scan.database.model_copy(update=old)
    given = given.model_copy(update={"scan": given.scan.model_copy(update={"database": database})})
    judgement = run_stage(gate.judge(), given).value
    judged = opened(gate, gate.verdict("why-aging").canonical())

    gate.now = NOW + 90 * 86_400
    assert judgement.verdict.result is Result.PASSED
    assert gate.judge().find(given) is None
    assert replay(judged.judgement, judged.policies).same
    later = run_stage(gate.judge(), given).value
    assert (later.at, later.verdict.result) == (gate.now, Result.FAILED)


def test_a_commit_that_is_judged_again_leaves_one_record(gate: Gate) -> None:
    given = gate.subject("why-again")
    repository = verdict_repository("why-again")
    first = run_stage(gate.judge(), given)
    tags = gate.line.registry.tags(repository)
    gate.now += 3600
    second = run_stage(gate.judge(), given)

    assert (first.found, second.found) == (False, True)
    assert second.value.at == NOW
    assert gate.line.registry.tags(repository) == tags
    record = gate.line.registry.resolve(repository, commit_tag(COMMIT))
    assert record is not None
    assert len(gate.line.registry.referrers(repository, record)) == 1


def test_a_judge_whose_signer_is_down_says_nothing(gate: Gate) -> None:
    given = gate.subject("why-down")
    down = JudgeStage(gate.line.registry, Down(gate.line.signers["verifier"], broken), gate.rules, now=lambda: NOW)
    with pytest.raises(TemporaryError, match="The verifier's signer failed: ConnectionRefusedError"):
        run_stage(down, given)
    assert down.find(given) is None
    assert gate.line.registry.tags(verdict_repository("why-down")) == ()
    assert export_verdict(gate.line.registry, "why-down", COMMIT, gate.line.trust) is None

    assert run_stage(gate.judge(), given).value.verdict.result is Result.PASSED


def test_a_lost_archive_is_made_again(gate: Gate) -> None:
    given = gate.subject("why-lost")
    judgement = run_stage(gate.judge(), given).value
    stage = gate.judge()
    stage._registry = _Without(gate.line.registry.url, judgement.policies.digest)
    assert stage.find(given) is None


class _Without(Registry):
    """A registry that lost a blob."""

    def __init__(self, url: str, lost: str) -> None:
        super().__init__(url)
        self._lost = lost

    def has_blob(self, repository: str, digest: Any) -> bool:
        return digest != self._lost and super().has_blob(repository, digest)


def test_a_releases_judgement_crosses_the_border(
    gate: Gate, second_registry_url: str, tmp_path: Path, policies: Path
) -> None:
    offer = gate.sealed("why-release")
    target = Registry(second_registry_url)
    receive = ReceiveStage(
        gate.line.registry, target, gate.line.trust, ("verifier",), workdir=tmp_path / "work", clock=lambda: NOW
    )
    run_stage(receive, offer)

    verified = verify_release(target, offer, gate.line.trust, at=NOW)
    data = export_bundle(verified).canonical()
    judged = opened(gate, data, expected=offer.release)
    assert verified.judgement == judged.judgement
    assert replay(judged.judgement, judged.policies).same
    why.unpack_policies(judged.policies, tmp_path / "then")
    assert load_rules(tmp_path / "then").policies.digest == load_rules(policies).policies.digest


def test_the_command_of_the_stages(gate: Gate, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    offer = gate.sealed("why-command")
    data = export_bundle(verify_release(gate.line.registry, offer, gate.line.trust, at=NOW)).canonical()
    file, root = tmp_path / "release.json", tmp_path / "root.json"
    file.write_bytes(data)
    root.write_text(gate.line.trust.model_dump_json())
    arguments = [str(file), "--trust", str(root), "--at", str(NOW)]

    assert why.main([*arguments, "--about", offer.release, "--policies", str(tmp_path / "then")]) == 0
    text = capsys.readouterr().out
    assert text.startswith("PASSED  why-command c0ffee000000")
    assert "Replayed: the same, byte for byte" in text
    assert (tmp_path / "then" / "limits.yaml").read_bytes() == (POLICIES / "limits.yaml").read_bytes()

    command = [sys.executable, "-m", "stages.why", *arguments, "--json"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    said = json.loads(done.stdout)
    assert (done.returncode, said["same"], said["differences"]) == (0, True, [])
    assert said["verdict"] == said["replayed"]
    assert said["at"] == NOW

    assert why.main([*arguments, "--about", digest_of(b"another")]) == 1
    assert "something else than was asked for" in capsys.readouterr().err
    assert why.main([str(tmp_path / "none"), "--trust", str(root)]) == 2


def test_the_command_line_asks_the_build_zone_about_a_commit(
    gate: Gate, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate.judged("why-asked", scan=None)

    def judgement(app: str, commit: str) -> bytes | None:
        found = export_verdict(gate.line.registry, app, commit, gate.line.trust)
        return found.canonical() if found else None

    (tmp_path / "root.json").write_text(gate.line.trust.model_dump_json())
    with serve(create_feed_app(FeedStore(tmp_path / "feed"), lambda _: None, judgement=judgement)) as url:
        monkeypatch.setenv("SEKISHO_BUILD", url)
        more = ("--trust", str(tmp_path / "root.json"), "--at", str(NOW))
        code = cli.run(["why", f"why-asked@{COMMIT}", *more, "--save", str(tmp_path / "verdict.json")])
        out = capfd.readouterr().out
        assert cli.run(["why", "why-asked@" + "d" * 40, *more]) == 1
    assert (code, "FAILED  why-asked" in out, "Replayed: the same" in out) == (0, True, True)
    assert cli.run(["why", str(tmp_path / "verdict.json"), *more]) == 0
    assert cli.run(["why", "no@commit", *more]) == 2


def _writable(text: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in text)


words = st.text(min_size=1, max_size=10).filter(_writable)
numbers = st.integers(-10, 10) | st.floats(-10, 10)
findings = st.builds(
    Finding,
    kind=st.sampled_from(["vulnerability", "secret", "misconfiguration", "coverage"]),
    id=words,
    severity=st.sampled_from(Severity),
    title=words,
    where=words,
    owner=st.sampled_from(["platform", "workload"]),
)


def test_any_evidence_is_judged_the_same_after_it_was_stored(rules: Rules) -> None:
    image = Image(
        repository="apps/any",
        digest=digest_of(b"image"),
        language="python",
        base="python",
        base_digest=digest_of(b"base"),
        layers=(),
    )
    rendered = render(SCORE.replace("APP", "any").encode(), app="any", image=image.reference).objects

    # The rules are not an argument: hypothesis would print all of them.
    @settings(max_examples=30, deadline=None)
    @given(
        found=st.lists(findings, max_size=4),
        replicas=numbers,
        more=st.dictionaries(words, numbers | st.none() | st.booleans() | words, max_size=3),
        at=st.integers(0, 4_000_000_000),
    )
    def same(found: list[Finding], replicas: float, more: dict[str, Any], at: int) -> None:
        objects = json.loads(json.dumps(rendered))
        for item in objects:
            item.setdefault("spec", {})["replicas"] = replicas
            item["metadata"]["annotations"] = more
        evidence = JudgeInput(
            app="any",
            commit=COMMIT,
            image=image,
            manifests=Manifests(app="any", objects=tuple(objects)),
            scan=scan_of(image).model_copy(update={"findings": tuple(found)}),
        )
        judgement = judgement_of(evidence, rules, at)
        stored = Judgement.parse(judgement.canonical())
        assert stored.canonical() == judgement.canonical()
        assert judge(stored.subject, rules, stored.at).canonical() == stored.verdict.canonical()

    same()


def test_rules_that_come_from_no_folder_judge_nothing(gate: Gate) -> None:
    with pytest.raises(PermanentError, match="come from no folder"):
        judgement_of(JudgeInput(app="any", commit=COMMIT), replace(gate.rules, archive=b""), NOW)


def test_a_bare_verdict_of_before_is_no_judgement(gate: Gate) -> None:
    verdict = judgement_of(JudgeInput(app="why-bare", commit=COMMIT), gate.rules, NOW).verdict
    put_record(gate.line.registry, verdict_repository("why-bare"), commit_tag(COMMIT), verdict)
    assert export_verdict(gate.line.registry, "why-bare", COMMIT, gate.line.trust) is None


# -- what does not come out the same ---------------------------------------------------------------------------


def lie(gate: Gate, app: str, **change: Any) -> bytes:
    """Return the file of a judgement that the verifier signed and that is not what the judge says."""
    true = gate.judged(app, scan=None)
    false = true.model_copy(update=change)
    registry, repository = gate.line.registry, verdict_repository(app)
    digest = put_judgement(registry, repository, false, gate.rules.archive)
    attach_statement(registry, repository, verdict_statement(false, digest), gate.line.signers["verifier"])
    raw = registry.get_manifest(repository, digest)
    assert raw is not None
    registry.put_manifest(repository, raw.data, raw.media_type, tag=commit_tag(COMMIT))
    return gate.verdict(app).canonical()


def test_a_verdict_that_the_judge_did_not_give_shows(
    gate: Gate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    verdict = gate.judged("why-true", scan=None).verdict
    bent = verdict.model_copy(update={"app": "why-lie", "result": Result.PASSED, "reasons": verdict.reasons[:2]})
    data = lie(gate, "why-lie", verdict=bent)
    judged = opened(gate, data)
    again = replay(judged.judgement, judged.policies)

    assert not again.same
    assert again.differences[0] == "The verdict was PASSED, judged again it is FAILED."
    assert any(item.startswith("Only now: fail evidence/scan") for item in again.differences)

    (tmp_path / "root.json").write_text(gate.line.trust.model_dump_json())
    (tmp_path / "lie.json").write_bytes(data)
    code = why.main([str(tmp_path / "lie.json"), "--trust", str(tmp_path / "root.json"), "--at", str(NOW)])
    assert code == 1
    assert "Replayed: NOT the same." in capsys.readouterr().out


def test_another_version_is_named_where_the_verdict_differs(gate: Gate) -> None:
    judged = opened(gate, lie(gate, "why-version", versions={"sekisho": "0.0.1"}))
    assert replay(judged.judgement, judged.policies).same  # another version that says the same is no difference

    verdict = judged.judgement.verdict.model_copy(update={"notes": ("Something.",)})
    again = replay(judged.judgement.model_copy(update={"verdict": verdict}), judged.policies)
    assert again.differences[0] == "The notes differ."
    assert any(item.startswith("Judged with sekisho 0.0.1, judged again with") for item in again.differences)


def test_policies_that_are_not_those_of_the_verdict_show(gate: Gate) -> None:
    verdict = gate.judged("why-policy", scan=None).verdict.model_copy(update={"policy": digest_of(b"lax")})
    judgement = gate.judged("why-policy", scan=None).model_copy(update={"verdict": verdict})
    again = replay(judgement, gate.rules.archive)
    assert again.verdict is None
    assert "the verdict names" in again.differences[0]

    broken = replay(judgement, b"no archive")
    assert (broken.verdict, "cannot be judged again" in broken.differences[0]) == (None, True)


# -- what is not believed ----------------------------------------------------------------------------------------


def test_a_verdicts_file_is_verified(gate: Gate) -> None:
    gate.judged("why-verified", scan=None)
    gate.judged("why-other", scan=None)
    mine, other = gate.verdict("why-verified"), gate.verdict("why-other")
    no_verifier = TrustRoot(keys=tuple(key for key in gate.line.trust.keys if key.role != "verifier"))
    both = mine.documents | other.documents

    with pytest.raises(VerificationError, match="no key for the role verifier"):
        open_file(mine.canonical(), no_verifier, at=NOW)
    for change in (
        {"app": "why-other"},
        {"commit": "d" * 40},
        {"judgement": other.judgement, "documents": both},
        {"summary": other.summary, "documents": both},
        {"documents": {}},
        {"documents": mine.documents | {mine.judgement: base64.b64encode(b"{}").decode()}},
    ):
        with pytest.raises(Refusal):
            opened(gate, mine.model_copy(update=change).canonical())
    for digest in mine.documents:
        documents = {name: text for name, text in mine.documents.items() if name != digest}
        with pytest.raises(Refusal):
            opened(gate, mine.model_copy(update={"documents": documents}).canonical())


def test_a_failed_verdict_verifies_for_nobody_who_asks_for_a_yes(gate: Gate) -> None:
    gate.judged("why-no", scan=None)
    repository = verdict_repository("why-no")
    found = load_judgement(gate.line.registry, repository, commit_tag(COMMIT))
    assert found is not None
    for allow, count in ((True, 1), (False, 0)):
        said = find_statements(
            gate.line.registry, repository, found[1], trust=gate.line.trust, role="verifier",
            predicate_type=SUMMARY, at=NOW, allow_failed=allow,
        )  # fmt: skip
        assert len(said) == count


def test_the_summary_is_complete(gate: Gate) -> None:
    """Every field of https://slsa.dev/spec/v1.2/verification_summary, for the NO as for the YES."""
    for app, change, levels in (
        ("why-vsa-yes", {}, ["SLSA_BUILD_LEVEL_UNEVALUATED"]),
        ("why-vsa-no", {"scan": None}, ["FAILED"]),
    ):
        judgement = gate.judged(app, **change)
        bundle = gate.verdict(app)
        predicate = verdict_statement(judgement, bundle.judgement).predicate
        assert set(predicate) == {
            "verifier", "timeVerified", "resourceUri", "policy", "inputAttestations", "verificationResult",
            "verifiedLevels", "slsaVersion",
        }  # fmt: skip
        assert predicate["verifier"]["version"]["sekisho"]
        assert predicate["timeVerified"] == "2026-09-21T14:13:20Z"
        assert predicate["verifiedLevels"] == levels
        assert [item["digest"]["sha256"] for item in predicate["inputAttestations"]] == [bundle.judgement[7:]]


def test_a_release_of_before_verifies_and_says_that_it_cannot_be_judged_again(gate: Gate, forged_before: Offer) -> None:
    verified = verify_release(gate.line.registry, forged_before, gate.line.trust, at=NOW)
    data = export_bundle(verified).canonical()
    assert verified.judgement is None
    assert verify_bundle(data, gate.line.trust, at=NOW).ok
    with pytest.raises(VerificationError, match="before judgements were kept"):
        opened(gate, data)


@pytest.fixture
def forged_before(line: Line) -> Offer:
    """A release as it was sealed before judgements were kept."""
    from .test_releases import Forger

    return Forger(line, "why-before").offer()


def test_a_retired_verifier_is_asked_about_its_own_time(gate: Gate) -> None:
    gate.judged("why-retired", scan=None)
    data = gate.verdict("why-retired").canonical()
    retired = TrustRoot(
        keys=tuple(
            TrustedKey(**(key.model_dump() | {"not_after": NOW + 10})) if key.role == "verifier" else key
            for key in gate.line.trust.keys
        )
    )
    assert open_file(data, retired, at=NOW + 10).judgement.at == NOW
    with pytest.raises(VerificationError, match="retired on"):
        open_file(data, retired, at=NOW + 11)


def test_what_was_rendered_otherwise_is_another_judgement(gate: Gate) -> None:
    given = gate.subject("why-key")
    assert given.manifests is not None
    other = Manifests(app="why-key", objects=given.manifests.objects[:1])
    assert gate.judge().key(given) != gate.judge().key(given.model_copy(update={"manifests": other}))
