"""The loop decides by events; nothing here is built or run."""

from __future__ import annotations

import io
import json
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from test_dev_objects import IMAGE, OTHER, composed, pod

from sekisho.canonical import digest_of
from sekisho.errors import Refusal, TemporaryError
from sekisho.model import IMAGE_HOST, Image, Reason, Result, Verdict
from stages.build.project import Project
from stages.dev.hint import Hint, _hint
from stages.dev.image import BUILDER_ID, Made, _digest_of_manifests, statement_of
from stages.dev.logs import cleaned
from stages.dev.loop import Loop, Lost, PodsChanged, Saved
from stages.dev.objects import Composition
from stages.dev.rollout import Outcome, Version
from stages.dev.screen import Screen

THIRD = f"{IMAGE_HOST}/dev/ann/site@{digest_of(b'three')}"


@dataclass
class FakeCopy:
    changed: tuple[str, ...] = ("web.py",)
    saved_at: float = 0.0
    folder: Path = Path("/copy")

    def update(self) -> tuple[str, ...]:
        return self.changed


class FakeSession:
    """Everything the loop works with, noting what it is told to do."""

    def __init__(self) -> None:
        self.out = io.StringIO()
        self.screen = Screen(self.out, as_json=True)
        self.debug = True
        self.copy = FakeCopy()
        self.next: str | Exception = IMAGE
        self.done: list[tuple[Any, ...]] = []
        self.how = "applied"
        self.shown: tuple[dict[str, Any], ...] = ()
        self.bench = self.gate = self.cluster = self.rollout = self.pods = self.logs = self

    # bench
    def build(self, _folder: Path) -> Made:
        if isinstance(self.next, Exception):
            raise self.next
        return Made(image(self.next), "Static site.", (), 0.2)

    # session
    def composed(self, made: Made) -> Composition:
        return composed(made.image.reference)

    def reach(self, _composition: Composition) -> None:
        self.done.append(("reach",))

    def hang_up(self) -> None:
        pass

    def point_to(self, pod_: str, composition: Composition) -> None:
        self.done.append(("point", pod_, composition.image))

    def vouch(self, built: Image) -> None:
        self.done.append(("vouch", built.reference))

    # gate
    def judge(self, number: int, _folder: Path) -> None:
        self.done.append(("judge", number))

    def stop(self) -> None:
        pass

    # cluster
    def put(self, composition: Composition) -> str:
        self.done.append(("put", composition.image))
        return self.how

    def swap(self, composition: Composition, pod_: str) -> bool:
        self.done.append(("swap", composition.image, pod_))
        return True

    # rollout
    def follow(self, what: Any) -> None:
        if isinstance(what, Version):
            self.done.append(("follow", what.number))

    def forget(self) -> None:
        pass

    # pods
    def all(self) -> tuple[dict[str, Any], ...]:
        return self.shown

    def said(self, event: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.out.getvalue().splitlines()]
        return [line for line in lines if line["event"] == event]

    def did(self, what: str) -> list[tuple[Any, ...]]:
        return [item for item in self.done if item[0] == what]


def image(reference: str) -> Image:
    repository, _, digest = reference.removeprefix(f"{IMAGE_HOST}/").partition("@")
    layers = [{"digest": digest, "diff_id": digest_of(b"d"), "size": 1, "kind": "application"}]
    return Image.model_validate(
        {"repository": repository, "digest": digest, "language": "static", "base": "static",
         "base_digest": digest_of(b"base"), "layers": layers}
    )  # fmt: skip


class Driver:
    """Runs a loop until it has taken all events."""

    def __init__(self) -> None:
        self.session = FakeSession()
        self.loop = Loop(self.session)  # type: ignore[arg-type]
        self.end = RuntimeError("the end")

    def run(self, *events: Any) -> FakeSession:
        for event in events:
            self.loop.put(event)
        self.loop.put(Lost(Refusal("the end")))
        with pytest.raises(Refusal, match="the end"):
            self.loop.run()
        return self.session


@pytest.fixture
def driver() -> Driver:
    return Driver()


def version(number: int, reference: str) -> Version:
    return Version(number, composed(reference))


def good(number: int, reference: str) -> Outcome:
    return Outcome(version(number, reference), good=True, pod="site-1", at=1.0)


def bad(number: int, reference: str) -> Outcome:
    return Outcome(version(number, reference), good=False, pod="site-1", why="It ended with exit code 1.")


def test_the_first_version_is_put_followed_and_pointed_to(driver: Driver) -> None:
    session = driver.run(good(1, IMAGE))
    assert [item[0] for item in session.done] == ["put", "reach", "follow", "vouch", "point", "judge"]
    assert session.said("running")[0]["version"] == 1


def test_an_outcome_that_was_overtaken_says_nothing(driver: Driver) -> None:
    session = driver.run(good(7, IMAGE))
    assert session.said("running") == []


class Changing(FakeSession):
    """Gives another image, or an error, at each build."""

    def __init__(self, *builds: str | Exception) -> None:
        super().__init__()
        self.builds = list(builds)

    def build(self, folder: Path) -> Made:
        self.next = self.builds.pop(0)
        return super().build(folder)


def changing(driver: Driver, *builds: str | Exception) -> Driver:
    driver.session = Changing(*builds)
    driver.loop = Loop(driver.session)  # type: ignore[arg-type]
    return driver


def test_a_version_that_fails_gives_way_to_the_last_good_one(driver: Driver) -> None:
    changing(driver, IMAGE, OTHER)
    session = driver.run(good(1, IMAGE), Saved(1.0), bad(2, OTHER), good(1, IMAGE))
    assert [item[1] for item in session.did("put")] == [IMAGE, OTHER, IMAGE]
    failed = session.said("failed")[0]
    assert (failed["version"], failed["what"], failed["good"]) == (2, "It ended with exit code 1.", 1)
    assert [item["version"] for item in session.said("again")] == [1]
    assert session.did("judge") == [("judge", 1), ("judge", 2)]


def test_a_first_version_that_fails_has_nothing_to_go_back_to(driver: Driver) -> None:
    session = driver.run(bad(1, IMAGE))
    assert len(session.did("put")) == 1
    assert session.said("failed")[0]["good"] is None


def test_what_cannot_be_built_leaves_the_cluster_alone(driver: Driver) -> None:
    changing(driver, IMAGE, Refusal("Procfile:1: no", where="Procfile", remedy="Mend it."), OTHER)
    session = driver.run(good(1, IMAGE), Saved(1.0), Saved(2.0), good(3, OTHER))
    assert [item[1] for item in session.did("put")] == [IMAGE, OTHER]
    assert [(item["version"], item["remedy"], item["good"]) for item in session.said("failed")] == [(2, "Mend it.", 1)]
    assert [item["version"] for item in session.said("running")] == [1, 3]


def test_the_gate_judges_what_cannot_be_built_as_well(driver: Driver) -> None:
    changing(driver, Refusal("no"))
    assert driver.run().did("judge") == [("judge", 1)]


def test_a_save_that_changes_nothing_of_the_workload_is_no_version(driver: Driver) -> None:
    driver.session.copy.changed = ()
    session = driver.run(good(1, IMAGE), Saved(1.0), Saved(2.0))
    assert len(session.did("put")) == 1


def test_a_save_that_makes_the_same_program_is_told_and_not_put_again(driver: Driver) -> None:
    session = driver.run(good(1, IMAGE), Saved(1.0))
    assert len(session.did("put")) == 1
    assert "same program" in session.said("note")[0]["text"]


def test_saving_the_good_version_again_after_a_failure_runs_it(driver: Driver) -> None:
    changing(driver, IMAGE, OTHER, OTHER)
    session = driver.run(good(1, IMAGE), Saved(1.0), Saved(2.0))
    assert [item[1] for item in session.did("put")] == [IMAGE, OTHER, OTHER]


def test_what_may_pass_is_tried_again_without_a_save(driver: Driver) -> None:
    changing(driver, TemporaryError("The registry is away.", delay=0.0), IMAGE)
    later = threading.Timer(1.5, driver.loop.put, (good(2, IMAGE),))
    end = threading.Timer(2.0, driver.loop.put, (Lost(Refusal("the end")),))
    later.start()
    end.start()
    with pytest.raises(Refusal, match="the end"):
        driver.loop.run()
    assert [item["version"] for item in driver.session.said("running")] == [2]


def test_a_fault_of_the_program_is_told_and_does_not_end_the_loop(driver: Driver) -> None:
    changing(driver, ZeroDivisionError("x"), IMAGE)
    driver.session.debug = False
    session = driver.run(Saved(1.0), good(2, IMAGE))
    assert "fault of sekisho" in session.said("failed")[0]["what"]
    assert session.said("running")[0]["version"] == 2


def test_a_pod_that_the_cluster_made_anew_is_given_the_good_version(driver: Driver) -> None:
    driver.session.shown = (pod(image=THIRD),)
    session = driver.run(good(1, IMAGE), PodsChanged(), PodsChanged())
    assert session.did("swap") == [("swap", IMAGE, "site-1")]


def test_while_a_version_starts_nothing_is_mended(driver: Driver) -> None:
    driver.session.shown = (pod(image=THIRD),)
    assert driver.run(PodsChanged()).did("swap") == []


def test_a_program_that_ends_later_is_told_once(driver: Driver) -> None:
    driver.session.shown = (pod(terminated={"exitCode": 2}),)
    session = driver.run(good(1, IMAGE), PodsChanged(), PodsChanged())
    assert [note["text"] for note in session.said("note")] == [
        "The program ended by itself. It ended with exit code 2. The cluster starts it again."
    ]


# -- what is shown --------------------------------------------------------------------------------------------------


def verdict(result: Result, *failures: str) -> Verdict:
    reasons = tuple(
        Reason(rule=rule, stage="x", result="fail", message=f"{rule} is wrong", remedy="Mend.") for rule in failures
    )
    return Verdict(app="a", commit="working copy", result=result, policy=digest_of(b"p"), reasons=reasons)


def text_of(*calls: Any) -> str:
    out = io.StringIO()
    screen = Screen(out)
    for call in calls:
        call(screen)
    return out.getvalue()


def test_the_gates_hint_in_words() -> None:
    passed = text_of(lambda screen: screen.hint(Hint(2, verdict(Result.PASSED), "", 1.0)))
    assert passed == "     gate  v2 would pass, as far as can be told before a push\n"
    failed = text_of(lambda screen: screen.hint(Hint(3, verdict(Result.FAILED, *"abcde"), "", 1.0)))
    assert "v3 would be refused:" in failed
    assert "a: a is wrong" in failed
    assert "and 2 more; sekisho check shows all" in failed


def test_a_hint_that_cannot_be_computed_says_why() -> None:
    hint = _hint(1, b"", b"Traceback\nsekisho check: There is no policies folder.\n", 1.0)
    assert (hint.verdict, hint.problem) == (None, "sekisho check: There is no policies folder.")


def test_a_version_in_words() -> None:
    shown = text_of(
        lambda screen: screen.running(4, 1.234, 0.2, ("a.py", "b.py", "c.py", "d.py")),
        lambda screen: screen.failed(5, Refusal("It is wrong.", where="a.py:3", remedy="Mend it."), 4),
        lambda screen: screen.failed(1, Refusal("It is wrong."), 0),
    )
    assert shown.splitlines() == [
        "       v4  running  1.2 s  a.py, b.py, c.py and 1 more",
        "       v5  It is wrong. [a.py:3]",
        "           remedy: Mend it.",
        "           v4 goes on",
        "       v1  It is wrong.",
        "           Waiting for the next save",
    ]


def test_what_strangers_wrote_is_no_markup_and_steers_no_terminal() -> None:
    shown = text_of(
        lambda screen: screen.log("web", "[bold]x[/bold]"),
        lambda screen: screen.failed(1, Refusal("a\x1b[2Jb [red]c"), 0),
    )
    assert "[bold]x[/bold]" in shown
    assert "[red]c" in shown
    assert "\x1b" not in shown


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (b"plain\r\n", "plain"),
        (b"\x1b[31mred\x1b[0m text", "\x1b[31mred\x1b[0m text\x1b[0m"),
        (b"\x1b[2J\x1b]0;title\x07clear\x1b[1;1H", "[2J]0;titleclear[1;1H"),
        ("a\u202eb\u200bc\x9bd".encode(), "abcd"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"x" * 10_000, "x" * 2000),
    ],
)
def test_a_line_of_a_program_keeps_its_colours_and_nothing_else(line: bytes, shown: str) -> None:
    assert cleaned(line) == shown


# -- what is built --------------------------------------------------------------------------------------------------


def test_the_developers_statement_names_their_own_builder_and_no_commit() -> None:
    statement = statement_of(image(IMAGE))
    details = json.dumps(statement.predicate)
    assert statement.predicate["runDetails"]["builder"]["id"] == BUILDER_ID
    assert "gitCommit" not in details
    assert statement.subjects[0].digest == IMAGE.rpartition("@")[2]


def test_a_lock_holds_until_what_it_was_made_of_changes(tmp_path: Path) -> None:
    (tmp_path / "requirements.in").write_text("flask\n")
    (tmp_path / "web.py").write_text("1")
    before = _digest_of_manifests(Project(tmp_path))
    (tmp_path / "web.py").write_text("2")
    assert _digest_of_manifests(Project(tmp_path)) == before
    (tmp_path / "requirements.in").write_text("flask\nredis\n")
    assert _digest_of_manifests(Project(tmp_path)) != before


def test_the_same_bytes_under_another_name_are_another_lock(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("x")
    before = _digest_of_manifests(Project(tmp_path))
    (tmp_path / "pyproject.toml").rename(tmp_path / "Cargo.toml")
    assert _digest_of_manifests(Project(tmp_path)) != before
