"""From a folder to a plan: which language, which version, which standard images, and what the policy says."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from sekisho.builds import BuildRules
from sekisho.canonical import Digest, digest_of, digest_of_json
from sekisho.errors import PermanentError, Refusal
from sekisho.model import StandardImage
from stages.build.detect import Detection, detect
from stages.build.language import Language, Plan, Unlocked
from stages.build.languages import LANGUAGES
from stages.build.materials import declared
from stages.build.project import Project

_LOG = logging.getLogger(__name__)
_UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, RecursionError)
"""What code raises that meets a form it does not know; LookupError is that of a key or an index."""


class Standards(Protocol):
    """The platform team's standard images; `sekisho.standard.StandardImages` is one."""

    def offered(self, language: str) -> tuple[str, ...]:
        """Return the versions of a language, the preferred one first."""
        ...

    def for_language(self, language: str, version: str = "") -> tuple[StandardImage, StandardImage | None]:
        """Return the image to run on and the image to build in, if there is one."""
        ...


@dataclass(frozen=True)
class Planned:
    """A plan with the standard images it is carried out on."""

    project: Project
    plan: Plan
    run: StandardImage
    tools: StandardImage | None
    notes: tuple[str, ...] = ()
    """What people should know, one sentence each."""


@dataclass(frozen=True)
class Unresolved:
    """A workload without a lock file, which the policy lets the line resolve."""

    project: Project
    unlocked: Unlocked
    tools: StandardImage | None


@dataclass(frozen=True)
class Draft:
    """What a language says of a workload, before anybody asks for standard images."""

    detection: Detection
    plan: Plan | Unlocked


def draft(project: Project, standard: Standards, languages: Sequence[Language] = LANGUAGES) -> Draft:
    """Return what a workload's language says is to be done.

    Raises:
        Refusal: the language cannot be told or is not offered; something is missing, or has a form that nobody foresaw.
    """
    with _readable(project, "this folder"):
        found = detect(project, languages)
    offered = standard.offered(found.language.name)
    if not offered:
        standard.for_language(found.language.name)  # says so, and what is offered
    with _readable(project, found.language.title):
        return Draft(found, found.language.plan(project, offered))


@contextmanager
def _readable(project: Project, whose: str) -> Iterator[None]:
    """Turn an error of pure code into a refusal: a stranger's file is at fault, and stays so however often it is read.

    The readers refuse by themselves what they know to be wrong. This is for what none of them foresaw, which would
    count as a fault of the line, be tried again for ever, and never be a NO with a remedy. Errors of the disk and of
    the memory are the line's own, and pass.
    """
    try:
        yield
    except _UNREADABLE as error:
        if isinstance(error, OSError):  # io.UnsupportedOperation is both
            raise
        # Half a surrogate pair in what a file says must not keep the traceback out of the log.
        trace = "".join(traceback.format_exception(error)).encode("utf-8", "backslashreplace").decode()
        _LOG.error("The files of %s cannot be read (%s).\n%s", project.name, whose, trace)
        raise Refusal(
            f"The files of {whose} have a form that cannot be read ({type(error).__name__}).",
            where=project.name,
            remedy="Make the lock file and the manifests anew with their own tools; "
            "if it stays, send the commit to the platform team.",
        ) from error


def placed(project: Project, found: Draft, standard: Standards, rules: BuildRules) -> Planned | Unresolved:
    """Return a draft with the standard images it is carried out on.

    Raises:
        Refusal: there is no lock file, and the policy wants one; a standard image has no digest.
    """
    plan = found.plan
    if isinstance(plan, Unlocked):
        if not rules.resolves(plan.language):
            raise plan.refusal
        return Unresolved(project, plan, standard.for_language(plan.built_in or plan.language, plan.version)[1])
    if plan.built_in and plan.built_in != plan.language:
        run, _ = standard.for_language(plan.language)
        _, tools = standard.for_language(plan.built_in, plan.version)
    else:
        run, tools = standard.for_language(plan.language, plan.version)
    return Planned(project, plan, run, tools, (*found.detection.notes, *plan.notes))


def unsatisfied(unresolved: Unresolved) -> PermanentError:
    """Return the error for a language that does not take the lock that its own step made."""
    return PermanentError(
        f"The plan for {unresolved.unlocked.language} wants another lock file than the one that was resolved.",
        where=unresolved.project.name,
        remedy="Tell the platform team.",
    )


def digest_of_plan(plan: Plan) -> Digest:
    """Return a digest over all of a plan that decides the image; sentences for people do not."""
    return digest_of_json(
        {
            "language": [plan.language, plan.version, plan.built_in],
            "runtime": [list(plan.runtime.command), plan.runtime.directory, dict(plan.runtime.environment)],
            "artifacts": declared(plan.artifacts),
            "locked": list(plan.locked),
            "listed": plan.listed_by,
            "takes": [[take.kind, take.source, take.below, take.into, list(take.exclude)] for take in plan.takes],
            "steps": [
                {
                    "name": step.name,
                    "command": list(step.command),
                    "directory": step.directory,
                    "source": None if step.source is None else list(step.source),
                    "packages": step.packages,
                    "uses": list(step.uses),
                    "files": {name: digest_of(data) for name, data in step.files.items()},
                    "environment": dict(step.environment),
                    "keep": step.keep,
                }
                for step in plan.steps
            ],
        }
    )
