"""Whether a plan is one that can be carried out. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from sekisho.errors import PermanentError
from stages.build.language import SOURCE, Plan, Step
from stages.build.sandbox_command import AHEAD, INDEX, OVERLAY, PIPES, RUN, SEED

KINDS = ("dependencies", "application")
"""Layers of a workload, in their order."""
_NAME = re.compile(r"[a-z][a-z0-9-]{0,40}")
_RESERVED = frozenset({SEED, OVERLAY, INDEX, PIPES, AHEAD, RUN, "line", "packages", SOURCE})


def check_plan(plan: Plan) -> None:
    """Refuse a plan that contradicts itself: a mistake of the language's module.

    Raises:
        PermanentError: says what.
    """

    def wrong(what: str) -> PermanentError:
        return PermanentError(f"The plan for {plan.language} {what}.", remedy="Tell the platform team.")

    steps: dict[str, Step] = {}
    for step in plan.steps:
        if fault := _fault(step, steps):
            raise wrong(fault)
        steps[step.name] = step
    for take in plan.takes:
        if take.source not in (SOURCE, *steps) or take.kind not in KINDS:
            raise wrong(f"takes from {take.source!r}, which is not there")
    if plan.listed_by and plan.listed_by not in steps:
        raise wrong(f"has its packages listed by {plan.listed_by!r}, which is not there")


def _fault(step: Step, earlier: Mapping[str, Step]) -> str:
    """Return what is wrong with a step, after "The plan …", or an empty string."""
    if not _NAME.fullmatch(step.name) or step.name in _RESERVED or step.name in earlier:
        return f"has no step that may be called {step.name!r}"
    for name in step.uses:
        if name not in earlier or (step.keep and not earlier[name].keep):
            return f"lets {step.name} use {name}, which is not an earlier step that is kept as well"
    if step.keep and step.source == ():
        return f"keeps {step.name}, which sees all of the workload's files"
    if step.ahead is not None and (step.keep or any(earlier[name].keep for name in step.uses)):
        return f"has a container made ready for {step.name}, which is kept or uses what is"
    return ""
