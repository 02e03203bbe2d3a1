"""The standard images' gate as a flow: at the process's start, and whenever advisories, limits or images are others.

What is to be done is read from the world each time (`StandardsStage.pending`), so a killed process loses nothing and
a second run finds everything done. Pushes wait for the images that they need, so those come first.
"""

from __future__ import annotations

import asyncio
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.context import gatekeeper
from flows.glue import alive, in_markdown, leave_artifact, step
from sekisho.errors import SekishoError
from sekisho.model import Result, StandardImage
from sekisho.stage import run_stage
from stages.standards import StandardVerdict

_AT_ONCE = 2
_SHORT = 12


@flow(name="standard-images", persist_result=False)
async def standard_images() -> State[Any]:
    """Judge every standard image that has no verdict under what is in force; the others are left alone."""
    stage = gatekeeper().standards
    slots = asyncio.Semaphore(_AT_ONCE)

    async def judge(image: StandardImage) -> StandardVerdict:
        async with slots:
            outcome = await step("standards", image.name, lambda: run_stage(stage, image))
            return outcome.value

    with alive():
        images = await asyncio.to_thread(stage.pending)
        found = await asyncio.gather(*map(judge, images), return_exceptions=True)
    verdicts = [item for item in found if isinstance(item, StandardVerdict)]
    await leave_artifact("standard-images", _markdown(verdicts), "Verdicts on the standard images")
    faults = [(image, item) for image, item in zip(images, found, strict=True) if isinstance(item, BaseException)]
    if faults:
        told = "; ".join(f"{image.name}: {fault}" for image, fault in faults)
        raise SekishoError(
            f"{len(faults)} of {len(images)} standard images could not be judged: {told}",
            remedy="A fault is neither a yes nor a no: it is tried again, and nobody builds on them meanwhile.",
        ) from faults[0][1]
    failed = [verdict.name for verdict in verdicts if verdict.result is not Result.PASSED]
    word = f"refused: {', '.join(failed)}" if failed else "all passed"
    return Completed(name="Failed" if failed else "Passed", message=f"{len(verdicts)} standard images judged, {word}")


def _markdown(verdicts: list[StandardVerdict]) -> str:
    lines = ["| image | digest | verdict | known vulnerabilities | why |", "|---|---|---|---|---|"]
    for verdict in sorted(verdicts, key=lambda item: item.name):
        known = ", ".join(f"{count} {severity}" for severity, count in verdict.findings.items()) or "none"
        why = "; ".join(reason.message for reason in verdict.failures)
        digest = verdict.image.removeprefix("sha256:")[:_SHORT]
        cells = (verdict.name, digest, str(verdict.result), known, why)
        lines.append("| " + " | ".join(map(in_markdown, cells)) + " |")
    return "\n".join(lines)
