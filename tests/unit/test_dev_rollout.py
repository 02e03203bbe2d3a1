"""Two witnesses of a version: what the cluster shows, and what the program answers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

import pytest
from test_dev_objects import IMAGE, OTHER, SCORE, composed, pod

from sekisho.errors import TemporaryError
from sekisho.kube_forward import Refused
from stages.dev.objects import Probe
from stages.dev.rollout import Follower, Outcome, Version, ask

RUNS = pod(image=OTHER, runs=OTHER, running={})
OLD = pod(image=OTHER, runs=IMAGE, running={}, ready=True)


def outcome(
    looks: Iterable[tuple[dict[str, Any], int | None, float]], *, swapped: bool, score: bytes = SCORE
) -> Outcome | None:
    """Return the outcome of looks: what the cluster shows, what the program answers, and when."""
    answers: list[int | None] = [None]
    follower = Follower(Version(2, composed(OTHER, score), swapped=swapped), lambda _pod, _probe: answers[0])
    for shown, status, now in looks:
        answers[0] = status
        found = follower.look((shown,), now)
        if found is not None:
            return found
    return None


def test_the_old_programs_answer_after_a_swap_is_not_the_new_ones() -> None:
    assert outcome([(OLD, 200, 1.0), (OLD, 200, 2.0)], swapped=True) is None


def test_the_first_answer_after_a_silence_is_the_new_ones_once_the_cluster_says_so() -> None:
    found = outcome(
        [(OLD, 200, 1.0), (OLD, None, 2.0), (OLD, 200, 3.0), (OLD, 200, 4.0), (RUNS, 200, 5.0)], swapped=True
    )
    assert found is not None
    assert (found.good, found.at, found.status) == (True, 3.0, 200)


def test_a_swap_too_quick_to_be_silent_counts_from_the_clusters_word() -> None:
    found = outcome([(OLD, 200, 1.0), (RUNS, 200, 2.0)], swapped=True)
    assert found is not None
    assert (found.good, found.at) == (True, 2.0)


def test_an_answer_that_ends_again_was_the_old_ones_last() -> None:
    found = outcome([(OLD, None, 1.0), (OLD, 503, 2.0), (RUNS, None, 3.0), (RUNS, 200, 4.0)], swapped=True)
    assert found is not None
    assert found.at == 4.0


def test_a_version_that_answers_badly_is_waited_for_and_then_told() -> None:
    assert outcome([(RUNS, 503, 1.0), (RUNS, 503, 20.0)], swapped=False) is None
    found = outcome([(RUNS, 503, 1.0), (RUNS, 503, 100.0)], swapped=False)
    assert found is not None
    assert (found.good, "answers 503 to /" in found.why) == (False, True)


def test_a_version_that_the_cluster_calls_ready_is_good_whatever_it_answers() -> None:
    ready = pod(image=OTHER, runs=OTHER, running={}, ready=True)
    found = outcome([(ready, 404, 1.0)], swapped=False)
    assert found is not None
    assert (found.good, found.status) == (True, 404)


def test_a_version_that_nobody_hears_is_told_with_what_to_do() -> None:
    found = outcome([(RUNS, None, 1.0), (RUNS, None, 100.0)], swapped=False)
    assert found is not None
    assert (found.good, "0.0.0.0 and on $PORT" in found.why) == (False, True)


def test_a_crash_is_told_at_once() -> None:
    crashed = pod(image=OTHER, runs=OTHER, terminated={"exitCode": 1})
    found = outcome([(crashed, None, 1.0)], swapped=True)
    assert found is not None
    assert (found.good, found.why) == (False, "It ended with exit code 1.")


def test_an_obstacle_may_pass() -> None:
    stuck = pod(image=OTHER, runs="", waiting={"reason": "ErrImagePull"})
    found = outcome([(stuck, None, 1.0), (RUNS, 200, 3.0)], swapped=False)
    assert found is not None
    assert found.good
    stays = outcome([(stuck, None, 1.0), (stuck, None, 9.0)], swapped=False)
    assert stays is not None
    assert not stays.good


def test_another_versions_pod_is_not_looked_at() -> None:
    assert outcome([(pod(image=IMAGE, runs=IMAGE, running={}, ready=True), 200, 1.0)], swapped=False) is None


def test_a_workload_without_ports_is_good_when_it_goes_on_running() -> None:
    score = SCORE.split(b"service:")[0].replace(b"    readinessProbe:\n      httpGet: {path: /, port: 8080}\n", b"")
    ready = pod(image=OTHER, runs=OTHER, running={}, ready=True)
    assert outcome([(ready, None, 1.0)], swapped=False, score=score) is None
    found = outcome([(ready, None, 1.0), (ready, None, 2.5)], swapped=False, score=score)
    assert found is not None
    assert found.good


# -- asking ---------------------------------------------------------------------------------------------------------


class FakeChannel:
    def __init__(self, answer: bytes | Exception) -> None:
        self.answer = answer
        self.sent = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def send(self, data: bytes) -> None:
        self.sent += data

    def receive(self, _timeout: float | None = None) -> bytes:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class FakeDialer:
    def __init__(self, answer: bytes | Exception) -> None:
        self.channel = FakeChannel(answer)

    def open(self, _namespace: str, _pod: str, _port: int) -> FakeChannel:
        return self.channel


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"HTTP/1.1 200 OK\r\n", 200),
        (b"HTTP/1.0 503 No\r\n", 503),
        (b"", None),
        (b"SSH-2.0-x\r\n", None),
        (Refused("no"), None),
        (TemporaryError("slow"), None),
    ],
)
def test_a_programs_answer(answer: bytes | Exception, status: int | None) -> None:
    dialer = FakeDialer(answer)
    assert ask(dialer, "n", "p", Probe(8080, "/healthz", (("X-A", "b"),))) == status  # type: ignore[arg-type]
    assert dialer.channel.sent.startswith(b"GET /healthz HTTP/1.1\r\nX-A: b\r\nHost: localhost:8080\r\n")


@pytest.mark.parametrize(("answer", "status"), [(TemporaryError("silence"), 0), (b"hello", 0), (Refused("no"), None)])
def test_a_connection(answer: bytes | Exception, status: int | None) -> None:
    assert ask(FakeDialer(answer), "n", "p", Probe(5432)) == status  # type: ignore[arg-type]
