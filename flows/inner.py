"""The inner loop: one pushed commit becomes a verdict, and when it passes, a sealed release in the feed.

Developers read along: every stage tells the event log when it starts and how it ended. A stage's refusal does not end
the run; what can still be judged is judged, so that a push shows all its problems at once.

Only what looks at the commit itself can refuse it. From the scan on, the stages work on the line's own documents: what
does not verify there is a fault of the line, which ends the run without a verdict and is judged again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed

from flows.commits import waits_for_advisories
from flows.context import Gatekeeper, gatekeeper
from flows.glue import alive, asked_at, in_markdown, in_words, leave_artifact, step
from sekisho.errors import Refusal, SekishoError, VerificationError
from sekisho.model import (
    IMAGE_HOST,
    Image,
    JudgeInput,
    Manifests,
    Reason,
    Result,
    Revision,
    Scan,
    SealedRelease,
    Verdict,
)
from sekisho.score import read_score, reader
from sekisho.stage import Outcome, run_stage
from sekisho.verdict_text import SCREEN, clean, verdict_lines
from sekisho.zones import Network, Port, address
from stages.build import BuildInput
from stages.build.locate import locate
from stages.judge import reasons_of
from stages.render import render
from stages.scan import ScanInput
from stages.seal import SealInput
from stages.source import checkout, revision, workload

T = TypeVar("T")

_SHORT = 12
_UNBUILT = "sha256:" + "0" * 64
_REFUSES = ("source", "build", "render")
"""Stages whose input is the developer's: their NO is one about the commit."""


@dataclass
class _Told:
    """What a run told so far: the problems, and where the time went."""

    gate: Gatekeeper
    app: str
    commit: str
    problems: list[Reason] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def subject(self) -> str:
        return f"{self.app} {self.commit[:_SHORT]}"

    def event(self, stage: str, state: str, message: str = "", **more: Any) -> None:
        self.gate.events.write(self.app, self.commit, {"stage": stage, "state": state, "message": message, **more})

    async def stage(self, name: str, call: Callable[[], Outcome[T]], say: Callable[[T], str]) -> T | None:
        """Run a stage; None when it refused, and then the reason stands among the problems.

        Raises:
            SekishoError: the stage has a fault.
        """
        self.event(name, "start")
        start = time.monotonic()
        try:
            outcome = await step(name, self.subject, call)
        except Refusal as refusal:
            if name in _REFUSES and not isinstance(refusal, VerificationError):
                self.refused(name, refusal, time.monotonic() - start)
                return None
            self.failed(name, refusal, time.monotonic() - start)
            raise
        except Exception as error:
            self.failed(name, error, time.monotonic() - start)
            raise
        self.seconds[name] = outcome.seconds
        known = " (known)" if outcome.found else ""
        self.event(name, "done", say(outcome.value) + known, seconds=round(outcome.seconds, 3))
        return outcome.value

    def failed(self, stage: str, error: Exception, seconds: float) -> None:
        self.event(stage, "failed", in_words(error), seconds=round(seconds, 3))

    def refused(self, stage: str, refusal: Refusal, seconds: float) -> None:
        found = reasons_of(refusal, stage)
        self.problems += found
        self.seconds[stage] = seconds
        reasons = [reason.model_dump(mode="json") for reason in found]
        self.event(stage, "refused", refusal.what, seconds=round(seconds, 3), reasons=reasons)


def _run_name() -> str:
    parameters = flow_run.parameters
    return f"{parameters['app']} {parameters['commit'][:_SHORT]} in build"


@flow(name="inner-loop", flow_run_name=_run_name, persist_result=False, validate_parameters=True)
async def inner_loop(app: str, commit: str, branch: str = "main", pushed_by: str = "", reason: str = "") -> State[Any]:
    """Judge one pushed commit; seal it when it passes and its branch is released.

    Args:
        app: the workload repository's name.
        commit: full commit hash.
        branch: the branch that was pushed.
        pushed_by: who pushed, for people.
        reason: why the line judges it again by itself; empty for a push.
    """
    start = asked_at.get() or time.monotonic()
    gate = gatekeeper()
    told = _Told(gate, app, commit)
    gate.events.begin(app, commit)
    told.event("source", "queued", f"again, because {reason}" if reason else f"{branch} by {pushed_by or 'unknown'}")
    with alive(), gate.checkout_folder(commit) as folder:
        verdict, sealed = await _judge(told, branch, folder)
    engine = time.monotonic() - start - sum(told.seconds.values())
    told.event(
        "verdict",
        "done" if verdict.result is Result.PASSED else "refused",
        verdict=verdict.model_dump(mode="json"),
        release=sealed.digest if sealed else "",
        text=screen(verdict, sealed, branch),
        seconds=round(time.monotonic() - start, 3),
        engine_seconds=round(engine, 3),
    )
    # Nobody waits for the page in the engine, and for what the build left to be cleared away.
    gate.build.rest()
    await leave_artifact(
        f"{app}-{commit[:_SHORT]}-verdict", _markdown(verdict, told, sealed, engine), f"Verdict on {told.subject}"
    )
    said = "Sealed" if sealed else verdict.result.title()
    return Completed(name=said, message=f"{told.subject}: {verdict.result}")


async def _judge(told: _Told, branch: str, folder: Path) -> tuple[Verdict, SealedRelease | None]:
    gate, app, commit = told.gate, told.app, told.commit
    revision = await told.stage(
        "source",
        lambda: _timed(lambda: _fetch(gate, app, commit, branch, folder)),
        lambda found: f"{found.commit[:_SHORT]} by {found.author}" + ("" if found.path == "." else f", {found.path}/"),
    )
    image: Image | None = None
    manifests: Manifests | None = None
    scan: Scan | None = None
    if revision is not None:
        subject = BuildInput(revision=revision, tree=folder)
        if _renders(workload(folder, revision), app):
            image = await told.stage(
                "build",
                lambda: run_stage(gate.build, subject),
                lambda built: built_line(built, gate.build.marker(subject)),
            )
        else:
            # A build may take minutes, and this commit never passes. What refuses it at once is said all the same.
            await told.stage(
                "build", lambda: _timed(lambda: gate.build.key(subject)), lambda _: "not built: score.yaml is refused"
            )
        reference = image.reference if image else _reference(app)
        launcher = image.launcher if image else ()
        manifests = await told.stage(
            "render",
            lambda: _timed(lambda: _render(workload(folder, revision), app, reference, launcher)),
            lambda rendered: f"{len(rendered.objects)} objects, {rendered.identity()}",
        )
    if revision is not None and image is not None and manifests is not None:
        scan = await told.stage(
            "scan",
            lambda: run_stage(gate.scan, ScanInput(revision=revision, image=image, tree=folder, manifests=manifests)),
            lambda seen: (
                f"{seen.coverage.os_packages + seen.coverage.language_packages} packages, "
                f"{len(seen.findings)} findings ({seen.database.kind} advisories)"
            ),
        )
    evidence = JudgeInput(
        app=app, commit=commit, image=image, manifests=manifests, scan=scan, problems=tuple(told.problems)
    )
    judgement = await told.stage(
        "judge",
        lambda: run_stage(gate.judge, evidence),
        lambda word: f"{word.verdict.result}, {len(word.verdict.reasons)} rules",
    )
    if judgement is None:
        raise SekishoError("The judge gave no verdict.", where=told.subject)
    verdict = judgement.verdict
    if verdict.result is not Result.PASSED or not gate.limits.releases(branch):
        return verdict, None
    if revision is None:
        raise SekishoError("A verdict passed without a commit.", where=told.subject)
    seal = SealInput(revision, judgement)
    sealed = await told.stage("seal", lambda: run_stage(gate.seal, seal), lambda made: f"release {made.digest}")
    if sealed is None:
        raise SekishoError("The sealed release is missing.", where=told.subject)
    gate.feed.append(app=app, release=sealed.digest, summary=sealed.summary, commit=commit)
    return verdict, sealed


def built_line(image: Image, marker: str) -> str:
    """Return what a push says of its image: the language and the file that shows it, what it stands on, its notes."""
    return " ".join((f"{image.language} on {image.base}, {image.digest}, seen by {clean(marker)}.", *image.notes))


def _timed(call: Callable[[], T]) -> Outcome[T]:
    start = time.monotonic()
    value = call()
    return Outcome(value, found=False, seconds=time.monotonic() - start)


def _fetch(gate: Gatekeeper, app: str, commit: str, branch: str, folder: Path) -> Revision:
    repository = gate.home.git / f"{app}.git"
    found = revision(repository, app, commit, branch)
    checkout(repository, commit, folder)
    return found.model_copy(update={"path": locate(folder, app)})


def _reference(app: str) -> str:
    """Return what stands for an image that was not built."""
    return f"{IMAGE_HOST}/apps/{app}@{_UNBUILT}"


def _renders(folder: Path, app: str) -> bool:
    """Tell whether score.yaml can be rendered, whatever the image will be; a fault is for the stage itself to tell."""
    try:
        _render(folder, app, _reference(app), ())
    except SekishoError as error:
        return not isinstance(error, Refusal)
    return True


def _render(folder: Path, app: str, image: str, launcher: tuple[str, ...]) -> Manifests:
    return render(read_score(folder), app=app, image=image, launcher=launcher, read=reader(folder))


def screen(verdict: Verdict, sealed: SealedRelease | None, branch: str) -> list[str]:
    """Return what the push shows at its end, all of it on one screen."""
    after = _after(verdict, sealed, branch)
    return [*verdict_lines(verdict, limit=SCREEN - len(after), more="the page below"), *after]


def _after(verdict: Verdict, sealed: SealedRelease | None, branch: str) -> list[str]:
    page = f"http://{address(Network.BUILD)}:{Port.FEED}/commits/{verdict.app}/{verdict.commit}/verdict"
    return [f"Every rule: {page} (?format=json, sarif)", *_released(verdict, sealed, branch)]


def _released(verdict: Verdict, sealed: SealedRelease | None, branch: str) -> list[str]:
    if sealed is not None:
        return [f"Release {sealed.digest}", "The outer loop takes it from here: staging pulls it now."]
    if verdict.result is Result.PASSED:
        return [f"Not released: {branch} is not a release branch."]
    if waits_for_advisories(verdict):
        return ["Nothing was released. The commit is judged again by itself when the mirror has fresh advisories."]
    return ["Nothing was released. The commit is stored; push a new one."]


def _markdown(verdict: Verdict, told: _Told, sealed: SealedRelease | None, engine: float) -> str:
    lines = [f"# {told.subject}: {verdict.result}", ""]
    lines += [f"- {in_markdown(line)}" for line in verdict.notes]
    lines += ["", "| rule | result | message | remedy |", "|---|---|---|---|"]
    for reason in verdict.reasons:
        cells = (reason.rule, reason.result, reason.message, reason.remedy)
        lines.append("| " + " | ".join(map(in_markdown, cells)) + " |")
    lines += ["", "| stage | own seconds |", "|---|---|"]
    lines += [f"| {stage} | {seconds:.3f} |" for stage, seconds in told.seconds.items()]
    lines += [f"| engine | {engine:.3f} |", ""]
    if sealed is not None:
        lines += [f"Release `{sealed.digest}`", f"Image `{sealed.release.image.reference}`"]
    return "\n".join(lines)
