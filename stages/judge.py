"""The judge stage: all evidence about one commit against all rules, and one word.

`judge` is pure. The rules it goes through, each answered in the verdict:

    <stage>/refused         what an earlier stage refused, as it said it
    evidence/*              image, manifests and scan are there and about one another; what is missing has not passed
    standard/*              the image stands on a current standard image whose end of life is ahead
    workload/*              only kinds that a workload may have; only this image and current standard images
    schema/valid            every object is one that the clusters' Kubernetes versions accept
    admission/*             every ValidatingAdmissionPolicy, over every object
    scan/system, packages   the scanner understood the system and saw every locked package
    scan/database           the advisories are fresh
    scan/vulnerabilities, secrets, misconfigurations, coverage      findings against the limits, less the waivers

Also a NO is stored and signed. A fault is never a pass: what cannot be judged raises, and no verdict is written.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from sekisho.builds import BuildRules, load_builds
from sekisho.canonical import Digest, digest_of_json, hex_of
from sekisho.errors import Refusal
from sekisho.evidence import attach_statement
from sekisho.keys import Signer
from sekisho.limits import Limits, load_limits
from sekisho.model import Document, Image, Manifests, NameField, Reason, Result, Scan, Verdict
from sekisho.policy import PolicySet, load_policies
from sekisho.records import get_record, put_record
from sekisho.registry import Registry
from sekisho.score import Problems
from sekisho.score.source import place
from sekisho.standard import StandardImages, load_standard
from sekisho.statements import SUMMARY, Statement, Subject
from stages.judge_rules import evidence_reasons, scan_reasons, standard_reasons, workload_reasons

JUDGE_ID = "https://sekisho.dev/judge/v1"


class JudgeInput(Document):
    """All that is known about one commit. What a stage refused is None, and its reason stands in `problems`."""

    app: str = NameField
    commit: str
    image: Image | None = None
    manifests: Manifests | None = None
    scan: Scan | None = None
    problems: tuple[Reason, ...] = ()


@dataclass(frozen=True)
class Rules:
    """What a policies folder says."""

    policies: PolicySet
    limits: Limits
    standard: StandardImages
    builds: BuildRules = field(default_factory=BuildRules)


def load_rules(folder: Path) -> Rules:
    """Read a policies folder.

    Raises:
        PermanentError: anything in it is missing or not understood; without rules nothing passes.
    """
    return Rules(load_policies(folder), load_limits(folder), load_standard(folder), load_builds(folder))


def judge(subject: JudgeInput, rules: Rules, at: int) -> Verdict:
    """Judge one commit.

    Args:
        subject: the evidence.
        rules: the policies in force.
        at: the time, seconds since the epoch: for the age of advisories, ends of life and waivers.
    """
    today = dt.datetime.fromtimestamp(at, tz=dt.UTC).date()
    reasons = [*subject.problems, *evidence_reasons(subject.app, subject.image, subject.manifests, subject.scan)]
    notes: list[str] = []
    if subject.image is not None:
        reasons += standard_reasons(subject.image, rules.standard, today, rules.limits.end_of_life)
        notes += subject.image.notes
    if subject.manifests is not None:
        reasons += workload_reasons(subject.manifests, subject.image, rules.standard, rules.limits)
        reasons += rules.policies.check_objects(subject.manifests.objects, namespace=f"app-{subject.app}")
    if subject.scan is not None:
        found, said = scan_reasons(subject.app, subject.scan, rules.limits, at)
        reasons += found
        notes += said
    failed = any(reason.result == "fail" for reason in reasons)
    return Verdict(
        app=subject.app,
        commit=subject.commit,
        result=Result.FAILED if failed else Result.PASSED,
        policy=rules.policies.digest,
        reasons=tuple(dict.fromkeys(reasons)),
        notes=tuple(notes),
    )


def reasons_of(refusal: Refusal, stage: str) -> tuple[Reason, ...]:
    """Return a stage's refusal as reasons: one for each problem that it lists."""
    if isinstance(refusal, Problems):
        return tuple(
            Reason(
                rule=f"{stage}/refused",
                stage=stage,
                result="fail",
                message=f"{problem.pointer}: {problem.message}" if problem.pointer else problem.message,
                remedy=problem.remedy,
                where=place(refusal.file, problem),
                owner="workload",
            )
            for problem in refusal.problems
        )
    return (
        Reason(
            rule=f"{stage}/refused",
            stage=stage,
            result="fail",
            message=refusal.what,
            remedy=refusal.remedy,
            where=refusal.where,
        ),
    )


class JudgeStage:
    """Judges, keeps the verdict in `verdicts/<app>`, and signs it, whichever it is.

    Args:
        registry: the zone's own registry.
        signer: the verifier's key.
        policies: the admission policies in force.
        limits: limits and waivers in force.
        standard: the standard images.
        now: the clock, seconds since the epoch.
    """

    name = "judge"

    def __init__(
        self,
        registry: Registry,
        signer: Signer,
        *,
        policies: PolicySet,
        limits: Limits,
        standard: StandardImages,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._registry = registry
        self._signer = signer
        self._rules = Rules(policies, limits, standard)
        self._now = now

    def key(self, subject: JudgeInput) -> Digest:
        """Return a digest over the evidence and the policies."""
        return digest_of_json({"subject": subject.identity(), "policy": self._rules.policies.digest})

    def find(self, subject: JudgeInput) -> Verdict | None:
        """Return the stored verdict, if it is still what the rules say today: advisories age and waivers expire."""
        verdict = get_record(self._registry, self._repository(subject), self._tag(subject), Verdict)
        return verdict if verdict == self._judged(subject) else None

    def perform(self, subject: JudgeInput) -> Verdict:
        """Judge, store and sign."""
        verdict = self._judged(subject)
        repository = self._repository(subject)
        record = put_record(self._registry, repository, f"commit-{subject.commit}", verdict)
        attach_statement(self._registry, repository, summary_of(verdict, repository, record), self._signer)
        # Last, so that `find` sees a verdict only once it is signed.
        put_record(self._registry, repository, self._tag(subject), verdict)
        return verdict

    def _judged(self, subject: JudgeInput) -> Verdict:
        return judge(subject, self._rules, int(self._now()))

    def _repository(self, subject: JudgeInput) -> str:
        return f"verdicts/{subject.app}"

    def _tag(self, subject: JudgeInput) -> str:
        return f"judge-{hex_of(self.key(subject))[:40]}"


def summary_of(verdict: Verdict, repository: str, record: Digest) -> Statement:
    """Return the verdict as a verification summary (https://slsa.dev/spec/v1.2/verification_summary) about its record.

    It is about the record, never about the image: a NO beside an image would read as a signature to older tools.
    """
    passed = verdict.result is Result.PASSED
    return Statement(
        subjects=(Subject(name=repository, digest=record),),
        predicate_type=SUMMARY,
        predicate={
            "verifier": {"id": JUDGE_ID},
            "resourceUri": f"git+sekisho:{verdict.app}@{verdict.commit}",
            "policy": {"uri": "sekisho:policies", "digest": {"sha256": hex_of(verdict.policy)}},
            "verificationResult": str(verdict.result),
            "verifiedLevels": [] if passed else ["FAILED"],
        },
    )
