"""The build zone's loops without an engine: no push is lost, none keeps the others waiting, the newest comes last."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows import build_zone
from flows.build_zone import BuildZone, Push, in_order
from flows.commits import CommitBook
from flows.events import EventLog
from flows.inner import screen
from sekisho.canonical import Digest, digest_of
from sekisho.errors import Held
from sekisho.feed import CommitRecord, FeedStore
from sekisho.model import Image, Reason, Release, Result, Revision, Verdict

POLICY = digest_of(b"policy")


def commit(number: int) -> str:
    return f"{number:040x}"


async def until(look: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not look():  # noqa: ASYNC110  what is waited for is in files
            await asyncio.sleep(0)


class Line:
    """A build zone whose stages are played."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        events = EventLog(folder / "events")
        self.commits = CommitBook(folder / "commits", events)
        self.events = events
        self.queue = folder / "queue"
        self.queue.mkdir()
        self.home = SimpleNamespace(state=folder / "state")
        self.feed = FeedStore(folder / "feed.jsonl")
        self.registry = None
        self.bases: dict[str, str] = {}
        self.stands: dict[str, Release] = {}
        self.reasons: list[str] = []
        self.limits = SimpleNamespace(releases=lambda branch: branch == "main")
        self.judged: list[tuple[str, str, str]] = []
        self.faults: set[str] = set()
        self.held: set[str] = set()
        self.mute: set[str] = set()
        self.results: dict[str, Result] = {}
        self.gates: dict[str, asyncio.Event] = {}
        monkeypatch.setattr(build_zone, "gatekeeper", lambda: self)
        monkeypatch.setattr(build_zone, "inner_loop", self.inner_loop)
        monkeypatch.setattr(build_zone, "load_release", lambda _, __, digest: (self.stands[digest], b""))
        monkeypatch.setattr(build_zone, "_AGAIN_SECONDS", 0.01)
        monkeypatch.setattr(build_zone, "_QUEUE_POLL", 0.0)
        self.zone = BuildZone()

    def stale(self, record: CommitRecord) -> bool:
        return record.verdict is None or record.verdict.policy != POLICY

    def in_force(self, name: str) -> Digest | None:
        return Digest(self.bases[name]) if name in self.bases else None

    def released(self, app: str, number: int) -> None:
        """Put a release into the feed that stands on the base in force."""
        digest = digest_of(f"{app} {number} {self.bases['python']}".encode())
        revision = Revision(
            app=app, commit=commit(number), tree=commit(0), branch="main", author="anna", committed_at=1
        )  # fmt: skip
        image = Image(
            repository=f"apps/{app}", digest=digest, language="python", base="python",
            base_digest=self.bases["python"], layers=(),
        )  # fmt: skip
        self.stands[digest] = Release(
            app=app, revision=revision, image=image, manifests=digest, policy=POLICY, evidence=()
        )  # fmt: skip
        self.feed.append(app=app, release=digest, summary=digest, commit=commit(number))

    async def inner_loop(self, app: str, commit: str, branch: str, _: str, reason: str = "") -> None:
        self.judged.append((app, commit, branch))
        self.reasons.append(reason)
        if commit in self.gates:
            await self.gates[commit].wait()
        if commit in self.faults:
            raise RuntimeError("a stage stumbles")
        if commit in self.held:
            raise Held("The standard image python has not passed.", remedy="The platform team mends the image.")
        if commit in self.mute:
            return
        verdict = Verdict(
            app=app, commit=commit, result=self.results.get(commit, Result.PASSED), policy=POLICY, reasons=()
        )
        released = branch == "main" and verdict.result is Result.PASSED
        release = digest_of(commit.encode()) if released else ""
        self.events.write(app, commit, {"verdict": verdict.model_dump(mode="json"), "release": release})

    def push(self, number: int, *, app: str = "shop", branch: str = "main") -> Push:
        return Push(app=app, commit=commit(number), branch=branch)

    def queued(self, push: Push, *, at: int) -> Path:
        path = self.queue / f"{push.app}-{push.commit}.json"
        path.write_text(json.dumps(push.model_dump()))
        os.utime(path, (at, at))
        return path

    def state(self, number: int, *, app: str = "shop") -> str:
        record = self.commits.commit(app, commit(number))
        return record.state if record else ""

    async def settled(self) -> None:
        await until(lambda: not self.zone._running)


@pytest.fixture
def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Line:
    return Line(tmp_path, monkeypatch)


def test_the_queue_is_taken_in_the_order_of_the_pushes(line: Line) -> None:
    # Their names, which begin with the commit's hash, sort the other way round.
    for number, at in ((9, 10), (5, 20), (1, 30)):
        line.queued(line.push(number), at=at)
    (line.queue / "later.intent").touch()
    assert [path.name[5:-5] for path in in_order(line.queue)] == [commit(9), commit(5), commit(1)]

    async def run() -> None:
        await line.zone._turn()
        await line.settled()

    asyncio.run(run())
    assert [judged[1] for judged in line.judged] == [commit(9), commit(5), commit(1)]
    assert not list(line.queue.glob("*.json"))


def test_a_commit_that_is_judged_for_a_topic_is_judged_for_the_release_branch_too(line: Line) -> None:
    async def run() -> None:
        line.gates[commit(1)] = asyncio.Event()
        assert line.zone.take(line.push(1, branch="topic"))
        await asyncio.sleep(0)
        entry = line.queued(line.push(1), at=10)
        await line.zone._turn()
        assert entry.exists()
        line.gates[commit(1)].set()
        await line.settled()
        await line.zone._turn()
        await line.settled()
        assert not entry.exists()

    asyncio.run(run())
    assert [judged[2] for judged in line.judged] == ["topic", "main"]
    record = line.commits.commit("shop", commit(1))
    assert record is not None
    assert (record.state, record.branch) == ("passed", "main")
    assert record.release


def test_the_same_push_twice_is_judged_once(line: Line) -> None:
    async def run() -> None:
        assert line.zone.take(line.push(1))
        assert line.zone.take(line.push(1))
        assert line.zone.take(line.push(1, branch="topic"))
        await line.settled()
        assert line.zone.take(line.push(1))
        await line.settled()

    asyncio.run(run())
    assert len(line.judged) == 1


def test_a_commit_that_the_line_stumbles_over_keeps_nobody_waiting(line: Line) -> None:
    line.faults |= {commit(1), commit(2), commit(3)}

    async def run() -> None:
        for number, app in ((1, "a"), (2, "b"), (3, "c")):
            line.zone.take(line.push(number, app=app))
        line.zone.take(line.push(7, app="d"))
        await until(lambda: line.state(7, app="d") == "passed")
        assert line.state(1, app="a") in {"error", "running"}
        line.faults.clear()
        await line.settled()

    asyncio.run(run())
    assert [line.state(number, app=app) for number, app in ((1, "a"), (2, "b"), (3, "c"))] == ["passed"] * 3


def test_what_others_have_to_mend_is_told_so_nobody_waits_for_it_and_it_is_judged_by_itself(line: Line) -> None:
    line.held.add(commit(1))

    async def run() -> None:
        line.zone.take(line.push(1))
        # The stream that the push shows ends by itself, long before its time is up.
        told = [event async for event in line.events.follow("shop", commit(1), seconds=60.0) if event]
        assert (told[-1]["state"], told[-1]["last"]) == ("held", True)
        said = " ".join(told[-1]["text"])
        for words in ("not for you to mend", "has not passed", "The platform team mends", "judged by itself"):
            assert words in said
        assert "fault" not in said
        line.held.clear()
        await line.settled()

    asyncio.run(run())
    assert line.state(1) == "passed"


def test_a_fix_overtakes_the_commit_that_the_line_stumbles_over(line: Line) -> None:
    line.faults.add(commit(1))

    async def run() -> None:
        line.zone.take(line.push(1))
        line.zone.take(line.push(2))
        await line.settled()

    asyncio.run(run())
    assert line.state(2) == "passed"
    # Released after the fix, it would be the feed's newest.
    assert line.judged.index(("shop", commit(1), "main")) < line.judged.index(("shop", commit(2), "main"))
    assert line.judged.count(("shop", commit(1), "main")) == 1
    assert line.state(1) == "error"


def test_a_line_that_says_nothing_has_a_fault_and_no_verdict(line: Line) -> None:
    line.mute.add(commit(1))

    async def run() -> None:
        line.zone.take(line.push(1))
        await until(lambda: line.state(1) == "error" and line.events.read("shop", commit(1)))
        told = line.events.read("shop", commit(1))[-1]
        assert "ended without a verdict" in told["message"]
        assert "verdict" not in told
        line.mute.clear()
        await line.settled()

    asyncio.run(run())
    assert line.state(1) == "passed"


def test_a_push_that_cannot_be_noted_is_tried_again(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    put, failures = line.commits.put, iter([False, True, True, True])

    def sometimes(record: CommitRecord) -> None:
        if next(failures, False):
            raise OSError("No space left on device")
        put(record)

    monkeypatch.setattr(line.commits, "put", sometimes)

    async def run() -> None:
        line.zone.take(line.push(1))
        await line.settled()

    asyncio.run(run())
    assert line.state(1) == "passed"


def test_a_restart_takes_up_what_has_no_verdict(line: Line) -> None:
    line.commits.put(CommitRecord(app="shop", commit=commit(1), branch="main", at=10, state="running"))
    line.queue.joinpath("bad.json").write_text("{}")

    async def run() -> None:
        line.zone.resume()
        await line.zone._turn()
        await line.settled()

    asyncio.run(run())
    assert line.state(1) == "passed"
    assert (line.queue / "bad.refused").exists()


def interrupted(number: int, times: int, **more: Any) -> CommitRecord:
    return CommitRecord(
        app=f"app{number}", commit=commit(number), branch="main", at=number, state="running", interrupted=times, **more
    )


def test_what_ended_the_process_twice_is_judged_alone(line: Line) -> None:
    for number, times in ((1, 1), (2, 1), (3, 0)):
        line.commits.put(interrupted(number, times))
        line.gates[commit(number)] = asyncio.Event()

    async def run() -> None:
        line.zone.resume()
        await until(lambda: len(line.judged) == 2)
        line.gates[commit(3)].set()
        await asyncio.sleep(0.05)
        assert [app for app, *_ in line.judged] == ["app3", "app1"]
        assert line.state(2, app="app2") == "queued"  # so another end of the process is not laid at its door
        line.gates[commit(1)].set()
        await until(lambda: len(line.judged) == 3)
        line.gates[commit(2)].set()
        await line.settled()

    asyncio.run(run())
    records = [line.commits.commit(f"app{number}", commit(number)) for number in (1, 2, 3)]
    assert [(record.state, record.interrupted) for record in records if record] == [("passed", 0)] * 3


def test_what_ends_the_process_again_and_again_is_set_aside_until_it_is_pushed_anew(line: Line) -> None:
    line.bases["python"] = OLD
    line.released("app1", 1)
    line.bases["python"] = NEW
    line.commits.put(interrupted(1, 4, rebase=f"python@{NEW}"))

    async def run() -> None:
        for _ in range(2):
            line.zone.resume()
            await turns(line, times=2)
        assert not line.judged
        (event,) = line.events.read("app1", commit(1))
        assert event["last"]
        assert "5 times" in event["text"][0]
        assert "push to another branch" in event["text"][1]
        line.zone.take(line.push(1, app="app1", branch="again"))
        await line.settled()

    asyncio.run(run())
    assert line.state(1, app="app1") == "passed"


def test_a_process_that_is_told_to_stop_blames_nobody(line: Line) -> None:
    line.gates[commit(1)] = asyncio.Event()

    async def run() -> None:
        line.zone.take(line.push(1))
        await until(lambda: line.judged)
        for job in line.zone._running.values():
            job.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    asyncio.run(run())
    assert line.state(1) == "queued"


class Mirror:
    """A registry that says which advisories it offers."""

    def __init__(self, name: str) -> None:
        self.digest = digest_of(name.encode())

    def resolve(self, _repository: str, _tag: str) -> Digest | None:
        return self.digest


def test_what_failed_for_old_advisories_alone_is_judged_again_when_there_are_others(line: Line) -> None:
    mirror = Mirror("old")
    line.registry = mirror  # type: ignore[assignment]
    failures = {1: ("scan/database",), 2: ("scan/database", "scan/secrets"), 3: ("scan/vulnerabilities",)}
    for number, rules in failures.items():
        reasons = tuple(Reason(rule=rule, stage="judge", result="fail", message="x") for rule in rules)
        verdict = Verdict(app="x", commit=commit(number), result=Result.FAILED, policy=POLICY, reasons=reasons)
        line.commits.put(
            CommitRecord(
                app=f"app{number}", commit=commit(number), branch="main", at=1, state="failed", verdict=verdict
            )
        )

    async def turns(times: int) -> None:
        for _ in range(times):
            await line.zone._advisories()
            await line.settled()

    asyncio.run(turns(3))  # the first look: the mirror may have changed while the zone was down
    assert [app for app, *_ in line.judged] == ["app1"]
    assert line.reasons == ["the mirror has other advisories"]
    mirror.digest = digest_of(b"fresh")
    asyncio.run(turns(2))
    assert len(line.judged) == 1  # it passed


def test_an_error_that_says_nothing_is_told_by_its_kind(line: Line) -> None:
    line.zone._fault(line.push(1), KeyError("digest"))
    assert "KeyError: 'digest'" in line.events.read("shop", commit(1))[-1]["message"]
    line.zone._fault(line.push(1), RuntimeError())
    assert line.events.read("shop", commit(1))[-1]["message"] == "RuntimeError without a word."


def test_a_stranger_cannot_name_a_folder(line: Line) -> None:
    for wrong in ({"app": "../x"}, {"commit": "HEAD"}, {"branch": "x" * 300}):
        body: dict[str, Any] = {"app": "shop", "commit": commit(1), "branch": "main", **wrong}
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Push(**body)


# -- rebase ----------------------------------------------------------------------------------------------------

OLD, NEW, NEWER = (digest_of(name) for name in (b"old", b"new", b"newer"))


async def turns(line: Line, *, times: int) -> None:
    for _ in range(times):
        await line.zone._rebase()
        await line.settled()


def test_a_moved_base_takes_each_app_up_once_and_no_more(line: Line) -> None:
    line.bases["python"] = OLD
    apps = [f"app{number}" for number in range(5)]
    for app in apps:
        line.released(app, 1)

    async def run() -> None:
        await turns(line, times=2)
        assert not line.judged
        line.bases["python"] = NEW
        await turns(line, times=6)

    asyncio.run(run())
    assert sorted(app for app, *_ in line.judged) == apps
    assert all("moved from" in reason for reason in line.reasons)


def test_a_base_that_moves_again_takes_the_apps_up_again(line: Line) -> None:
    line.bases["python"] = OLD
    line.released("shop", 1)

    async def run() -> None:
        for base in (NEW, NEWER, NEWER):
            line.bases["python"] = base
            await turns(line, times=2)

    asyncio.run(run())
    assert len(line.judged) == 2


@pytest.mark.parametrize("result", [Result.PASSED, Result.FAILED])
def test_a_process_that_is_killed_in_the_middle_of_a_rebase_takes_it_up_again_and_then_rests(
    line: Line, result: Result
) -> None:
    line.bases["python"] = OLD
    line.released("shop", 1)
    line.bases["python"] = NEW
    line.gates[commit(1)] = asyncio.Event()

    async def killed() -> None:
        await line.zone._rebase()
        await until(lambda: line.judged)

    asyncio.run(killed())
    line.gates.clear()
    line.zone = BuildZone()

    line.results[commit(1)] = result

    async def after() -> None:
        line.zone.resume()
        await line.settled()
        await turns(line, times=3)

    asyncio.run(after())
    assert len(line.judged) == 2  # the one that was killed, and one with a verdict
    assert line.state(1) == result.lower()


def test_a_push_on_its_way_is_not_overtaken_by_a_rebase(line: Line) -> None:
    line.bases["python"] = OLD
    line.released("shop", 1)
    line.bases["python"] = NEW
    line.gates[commit(2)] = asyncio.Event()

    async def run() -> None:
        line.zone.take(line.push(2))
        await until(lambda: line.judged)
        await line.zone._rebase()
        line.gates[commit(2)].set()
        await line.settled()
        line.released("shop", 2)
        await turns(line, times=2)

    asyncio.run(run())
    assert [judged[1] for judged in line.judged] == [commit(2)]


def test_a_base_that_may_not_be_built_on_moves_nothing(line: Line) -> None:
    line.bases["python"] = OLD
    line.released("shop", 1)
    del line.bases["python"]
    asyncio.run(turns(line, times=2))
    assert not line.judged


def test_a_rebase_that_stumbles_is_tried_again_and_keeps_no_other_waiting(line: Line) -> None:
    line.bases["python"] = OLD
    line.released("shop", 1)
    line.bases["python"] = NEW
    line.faults.add(commit(1))

    async def run() -> None:
        await line.zone._rebase()
        await until(lambda: len(line.judged) > 2)
        line.released("other", 3)
        line.bases["python"] = NEWER
        await line.zone._rebase()
        await until(lambda: ("other", commit(3), "main") in line.judged)
        line.bases["python"] = NEW
        line.faults.clear()
        await turns(line, times=2)
        count = len(line.judged)
        await turns(line, times=2)
        assert len(line.judged) == count

    asyncio.run(run())
    assert line.state(1) == "passed"


def test_what_a_push_shows_fits_a_screen_and_leads_to_all_of_it() -> None:
    reasons = tuple(
        Reason(rule="scan/secrets", stage="scan", result="fail", message=f"A key in {number}.py", remedy="Revoke it.")
        for number in range(100)
    )
    verdict = Verdict(app="shop", commit=commit(1), result=Result.FAILED, policy=digest_of(b"policy"), reasons=reasons)
    lines = screen(verdict, None, "main")
    assert len(lines) == 40
    assert lines[0].startswith("FAILED  shop ")
    assert any(line.endswith("more; the page below shows them.") for line in lines)
    assert lines[-2:] == [
        f"Every rule: http://10.77.20.10:8082/commits/shop/{commit(1)}/verdict (?format=json, sarif)",
        "Nothing was released. The commit is stored; push a new one.",
    ]
    passed = screen(verdict.model_copy(update={"result": Result.PASSED, "reasons": ()}), None, "topic")
    assert passed[-1] == "Not released: topic is not a release branch."
