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

Also a NO is stored and signed, with all that decided it: evidence, time and policies (`sekisho.releases.judgement`), so
that `judge` can be run again by anyone (`stages.why`). A fault is never a pass: what cannot be judged raises, and no
verdict is written.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from sekisho.builds import BuildRules, load_builds
from sekisho.canonical import Digest, digest_of, digest_of_json, hex_of
from sekisho.errors import PermanentError, Refusal, TemporaryError, plain
from sekisho.evidence import attach_statement
from sekisho.keys import Signer
from sekisho.limits import Limits, load_limits
from sekisho.model import Archive, JudgeInput, Judgement, Reason, Result, Verdict
from sekisho.oci import OCI_MANIFEST
from sekisho.policy import PolicySet, load_policies
from sekisho.policy_archive import pack_policies
from sekisho.registry import Registry
from sekisho.releases.judgement import (
    commit_tag,
    judge_versions,
    judgement_manifest,
    load_judgement,
    put_judgement,
    verdict_repository,
    verdict_statement,
)
from sekisho.score import Problems
from sekisho.score.source import place
from sekisho.standard import StandardImages, load_standard
from stages.judge_rules import evidence_reasons, scan_reasons, standard_reasons, workload_reasons

_LONGEST = 4_000
"""Characters of one text of a refusal in a verdict."""


@dataclass(frozen=True)
class Rules:
    """What a policies folder says."""

    policies: PolicySet
    limits: Limits
    standard: StandardImages
    builds: BuildRules = field(default_factory=BuildRules)
    archive: bytes = field(default=b"", repr=False)
    """The folder itself, packed: it is kept with every verdict."""


def load_rules(folder: Path) -> Rules:
    """Read a policies folder.

    Raises:
        PermanentError: anything in it is missing or not understood; without rules nothing passes.
        TemporaryError: somebody wrote to it meanwhile.
    """
    archive = pack_policies(folder)
    rules = Rules(load_policies(folder), load_limits(folder), load_standard(folder), load_builds(folder), archive)
    if pack_policies(folder) != archive:
        raise TemporaryError("The policies changed while they were read.", where=str(folder))
    return rules


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
        base, digest = (subject.image.base, subject.image.base_digest) if subject.image else ("", "")
        found, said = scan_reasons(subject.app, subject.scan, rules.limits, at, base=base, base_digest=digest)
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


def judgement_of(subject: JudgeInput, rules: Rules, at: int) -> Judgement:
    """Judge one commit, and return the verdict with all that decided it.

    Args:
        subject: the evidence.
        rules: the policies in force, as `load_rules` read them.
        at: the time, seconds since the epoch.

    Raises:
        PermanentError: the policies are not those of a folder.
    """
    if not rules.archive:
        raise PermanentError("These rules come from no folder: a verdict by them could not be given again.")
    stored = _as_stored(subject)
    return Judgement(
        subject=stored,
        at=at,
        policies=Archive(digest=digest_of(rules.archive), size=len(rules.archive)),
        verdict=judge(stored, rules, at),
        versions=judge_versions(),
    )


def _as_stored(subject: JudgeInput) -> JudgeInput:
    """Return the evidence as it is read back: what is judged is what is kept, down to a 1.0 that JSON writes as 1."""
    return JudgeInput.parse(subject.canonical())


def reasons_of(refusal: Refusal, stage: str) -> tuple[Reason, ...]:
    """Return a stage's refusal as reasons: one for each problem that it lists."""
    if isinstance(refusal, Problems):
        return tuple(
            Reason(
                rule=f"{stage}/refused",
                stage=stage,
                result="fail",
                message=_shown(f"{problem.pointer}: {problem.message}" if problem.pointer else problem.message),
                remedy=_shown(problem.remedy),
                where=_shown(place(refusal.file, problem)),
                owner="workload",
            )
            for problem in refusal.problems
        )
    return (
        Reason(
            rule=f"{stage}/refused",
            stage=stage,
            result="fail",
            message=_shown(refusal.what),
            remedy=_shown(refusal.remedy),
            where=_shown(refusal.where),
        ),
    )


def _shown(text: str) -> str:
    """Return a text as a verdict can hold it: Unicode, and no megabytes of what a stranger called something."""
    return plain(text) if len(text) <= _LONGEST else f"{plain(text[:_LONGEST])} …"


class JudgeStage:
    """Judges, keeps the judgement whole in `verdicts/<app>`, and signs its verdict, whichever it is.

    Args:
        registry: the zone's own registry.
        signer: the verifier's key.
        rules: the policies in force, as `load_rules` read them.
        now: the clock, seconds since the epoch.
    """

    name = "judge"

    def __init__(
        self, registry: Registry, signer: Signer, rules: Rules, *, now: Callable[[], float] = time.time
    ) -> None:
        self._registry = registry
        self._signer = signer
        self._rules = rules
        self._now = now

    def key(self, subject: JudgeInput) -> Digest:
        """Return a digest over the evidence and the policies, and whose word stands behind the verdict."""
        return digest_of_json(
            {"subject": subject.identity(), "policy": self._rules.policies.digest, "verifier": self._signer.key_id}
        )

    def find(self, subject: JudgeInput) -> Judgement | None:
        """Return the stored judgement, if its verdict is still what the rules say today.

        Advisories age and waivers expire. While the verdict stays, the judgement stays, with the time of its own: a
        commit that is judged again and again leaves one record.
        """
        repository = verdict_repository(subject.app)
        found = load_judgement(self._registry, repository, self._tag(subject))
        if found is None or found[0].verdict != judge(_as_stored(subject), self._rules, int(self._now())):
            return None
        return found[0] if self._registry.has_blob(repository, Digest(found[0].policies.digest)) else None

    def perform(self, subject: JudgeInput) -> Judgement:
        """Judge, store and sign.

        Raises:
            PermanentError: the signer is not the verifier, or the policies are not those of a folder.
            TemporaryError: the signer or the registry cannot be reached.
        """
        archive, at = self._rules.archive, int(self._now())
        judgement = judgement_of(subject, self._rules, at)
        repository = verdict_repository(subject.app)
        digest = put_judgement(self._registry, repository, judgement, archive)
        attach_statement(self._registry, repository, verdict_statement(judgement, digest), self._signer)
        # Last, so that `find` sees a judgement only once it is signed.
        manifest = judgement_manifest(judgement)
        for tag in (commit_tag(subject.commit), self._tag(subject)):
            self._registry.put_manifest(repository, manifest, OCI_MANIFEST, tag=tag)
        return judgement

    def _tag(self, subject: JudgeInput) -> str:
        return f"judged-{hex_of(self.key(subject))[:40]}"
