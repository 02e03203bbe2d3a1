"""The standard images' flow without an engine: what waits is judged, a fault stops nobody else, a NO is no fault."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from flows import build_zone, standards
from flows.build_zone import BuildZone
from sekisho.canonical import digest_of
from sekisho.errors import PermanentError, SekishoError
from sekisho.model import AdvisoryDatabase, Reason, Result, StandardImage
from stages.standards import StandardVerdict


def image(name: str) -> StandardImage:
    return StandardImage(name=name, digest=digest_of(name.encode()), repository=f"standard/{name}")


class Stage:
    """A stage that is played: names that fail, and names that are a fault."""

    name = "standards"

    def __init__(self, *names: str) -> None:
        self.waiting = [image(name) for name in names]
        self.failing: set[str] = set()
        self.faulty: set[str] = set()
        self.verdicts: dict[str, StandardVerdict] = {}

    def pending(self) -> tuple[StandardImage, ...]:
        return tuple(item for item in self.waiting if item.name not in self.verdicts)

    def find(self, subject: StandardImage) -> StandardVerdict | None:
        return self.verdicts.get(subject.name)

    def perform(self, subject: StandardImage) -> StandardVerdict:
        if subject.name in self.faulty:
            raise PermanentError("The scanner failed.", where=subject.name)
        bad = subject.name in self.failing
        reason = Reason(rule="scan/vulnerabilities", stage="scan", result="fail", message="<b>CVE</b> | x")
        verdict = StandardVerdict(
            name=subject.name, image=subject.digest, result=Result.FAILED if bad else Result.PASSED,
            reasons=(reason,) if bad else (), rules=digest_of(b"r"), provenance=digest_of(b"p"),
            database=AdvisoryDatabase(digest=digest_of(b"d"), updated_at="2026-11-21T00:00:00Z", kind="sample"),
            scan=digest_of(b"s"), sbom=digest_of(b"b"), findings={"CRITICAL": 1} if bad else {},
        )  # fmt: skip
        self.verdicts[subject.name] = verdict
        return verdict


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Callable[[Stage], tuple[Any, list[str]]]:
    """Run the flow over a played stage; return its state and the pages that it left."""
    pages: list[str] = []

    async def step(_name: str, _subject: str, call: Callable[[], Any]) -> Any:
        return call()

    async def leave(_key: str, markdown: str, _description: str) -> None:
        pages.append(markdown)

    @contextmanager
    def alive() -> Iterator[None]:
        yield

    monkeypatch.setattr(standards, "step", step)
    monkeypatch.setattr(standards, "leave_artifact", leave)
    monkeypatch.setattr(standards, "alive", alive)

    def run(stage: Stage) -> tuple[Any, list[str]]:
        monkeypatch.setattr(standards, "gatekeeper", lambda: SimpleNamespace(standards=stage))
        return asyncio.run(standards.standard_images.fn()), pages

    return run


def test_all_that_waits_is_judged(played: Any) -> None:
    stage = Stage("python", "node", "go")
    state, _ = played(stage)
    assert (state.name, state.message) == ("Passed", "3 standard images judged, all passed")
    assert sorted(stage.verdicts) == ["go", "node", "python"]


def test_a_no_is_an_answer_and_no_fault(played: Any) -> None:
    stage = Stage("python", "node")
    stage.failing = {"node"}
    state, (page,) = played(stage)
    assert (state.name, state.message) == ("Failed", "2 standard images judged, refused: node")
    assert "<b>" not in page  # what a finding says is a stranger's text
    assert page.count("\n") == 3


def test_a_fault_stops_nobody_else_and_is_told(played: Any) -> None:
    stage = Stage("python", "node", "go")
    stage.faulty = {"node"}
    with pytest.raises(SekishoError, match="1 of 3 standard images could not be judged: node: The scanner failed"):
        played(stage)
    assert sorted(stage.verdicts) == ["go", "python"]
    assert [item.name for item in stage.pending()] == ["node"]


def test_the_zone_starts_the_flow_only_when_something_waits(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    stage, runs = Stage("python"), []

    async def flow() -> None:
        runs.append(1)
        stage.perform(stage.waiting[0])

    gate = SimpleNamespace(standards=stage, home=SimpleNamespace(state=tmp_path))
    monkeypatch.setattr(build_zone, "gatekeeper", lambda: gate)
    monkeypatch.setattr(build_zone, "standard_images", flow)

    async def turns() -> None:
        zone = BuildZone()
        for _ in range(3):
            await zone._standards()

    asyncio.run(turns())
    assert runs == [1]
