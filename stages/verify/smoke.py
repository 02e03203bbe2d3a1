"""The workload's own smoke checks: HTTP paths of its Service that must answer below 400."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import httpx

from sekisho.errors import Refusal

_BODY_LIMIT = 64 << 10
_REQUEST_SECONDS = 5.0
_PAUSE_SECONDS = 0.5
_BAD = 400


@dataclass(frozen=True)
class Answer:
    """What one path said."""

    path: str
    good: bool
    text: str


def smoke(
    bases: Sequence[str],
    paths: Sequence[str],
    *,
    seconds: float,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[Answer, ...]:
    """Ask each path until it answers well or the time is over; redirects are answers and are not followed.

    Args:
        bases: `http://host:port` of the same workload, as people reach it first. The others are asked only when the
            first stays silent for a third of the time: from some places a node's ports are not to be reached.
        paths: absolute paths.
        seconds: for all paths together; a Service's rules reach a node a moment after its pods are ready.
        sleep: for tests.
        clock: for tests.

    Raises:
        Refusal: there is nothing to ask.
    """
    if not bases:
        raise Refusal("There are smoke checks, but no Service to ask.")
    grace = clock() + seconds / 3
    end = clock() + seconds
    answers = []
    with httpx.Client(trust_env=False, follow_redirects=False, timeout=_REQUEST_SECONDS) as client:
        for path in paths:
            answer = _ask(client, bases[:1], path)
            while not answer.good and clock() < end:
                sleep(_PAUSE_SECONDS)
                answer = _ask(client, bases if clock() >= grace else bases[:1], path)
            answers.append(answer)
    return tuple(answers)


def _ask(client: httpx.Client, bases: Sequence[str], path: str) -> Answer:
    problem = ""
    for base in bases:
        end = time.monotonic() + _REQUEST_SECONDS
        try:
            with client.stream("GET", base.rstrip("/") + path) as response:
                size = 0
                for piece in response.iter_raw():
                    size += len(piece)
                    # A workload that drips or floods has answered already: its status is what counts.
                    if size > _BODY_LIMIT or time.monotonic() > end:
                        break
                good, host = response.status_code < _BAD, response.request.headers.get("host", "")
                said = f"GET {path}: {response.status_code}"
                # A program that answers to some names only is not to be reached where people ask.
                return Answer(path, good, said if good else f"{said} (asked as {host})")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            problem = type(error).__name__
    return Answer(path, good=False, text=f"GET {path}: no answer ({problem})")
