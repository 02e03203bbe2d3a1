"""What the flows share of Prefect: steps as tasks, artifacts, registration, and the care for runs left behind.

A Prefect state says what the server last heard. It is neither a lock nor a fact about the world, so nothing in here
decides whether an effect happens: the stages look for themselves.
"""

from __future__ import annotations

import asyncio
import html
import logging
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

import anyio
from prefect import Flow, get_client, task
from prefect.artifacts import acreate_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import FlowRun, State, StateType, TaskRun
from prefect.flow_engine import run_flow_async
from prefect.runtime import flow_run
from prefect.states import Crashed

from sekisho.errors import SekishoError, TemporaryError
from sekisho.verdict_text import clean

_LOG = logging.getLogger(__name__)
_RETRIES = 3
_ENGINE_POLL = 0.25
_SCHEDULED_POLL = 2.0
_YOUNG_SECONDS = 15.0
_LEFT_BEHIND = (StateType.RUNNING, StateType.PENDING, StateType.CANCELLING)

_MARKUP = re.compile(r"[\\`*_\[\]()#|!~]")

asked_at: ContextVar[float] = ContextVar("asked_at", default=0.0)
"""When the running flow was asked for (`time.monotonic()`): what Prefect takes to begin a run is the engine's part as
well. 0 where nobody noted it, for example for a run from the dashboard."""

_alive: set[str] = set()
_taken: set[str] = set()

T = TypeVar("T")
P = ParamSpec("P")


async def _is_temporary(_task: Any, _run: TaskRun, state: State[Any]) -> bool:
    try:
        await state.aresult()
    except TemporaryError as error:
        await asyncio.sleep(error.delay)
        return True
    except Exception:  # noqa: BLE001  every other error is final, whatever it is
        return False
    return False


@task(
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=_RETRIES,
    retry_condition_fn=_is_temporary,
)
async def _step(call: Callable[[], Any]) -> Any:
    return await asyncio.to_thread(call)


async def step(name: str, subject: str, call: Callable[[], T]) -> T:
    """Run a stage's call in a thread, as a task of the running flow.

    Args:
        name: the stage.
        subject: what it works on, for people (`guestbook 3f2a91c0`).
        call: the work; a TemporaryError of it is tried again after its delay.
    """
    run = _step.with_options(name=name, task_run_name=f"{name} {subject}")
    result: T = await run(call)
    return result


async def leave_artifact(key: str, markdown: str, description: str) -> None:
    """Leave a run's result where people look for it. Not evidence: artifacts can be edited, and nothing needs them."""
    name = re.sub(r"[^a-z0-9]+", "-", key.lower()).strip("-")
    try:
        await acreate_markdown_artifact(key=name, markdown=markdown, description=description)
    except Exception as error:  # noqa: BLE001  a verdict or a deployment must not fail because its page cannot be kept
        _LOG.warning("The page %s cannot be kept: %s", name, error)


def in_markdown(text: str) -> str:
    """Return a stranger's text as one line that markdown shows letter for letter: no HTML, link, image or column."""
    return _MARKUP.sub(r"\\\g<0>", html.escape(clean(text), quote=False))


def in_words(error: Exception) -> str:
    """Return an error in words; what was not raised for people is told with its kind, which may be all that it says."""
    if isinstance(error, SekishoError):
        return str(error)
    return f"{type(error).__name__}: {error}" if str(error) else f"{type(error).__name__} without a word."


async def wait_for_engine() -> None:
    """Wait until the zone's Prefect server answers."""
    while True:
        async with get_client() as client:
            if await client.api_healthcheck() is None:
                return
        await asyncio.sleep(_ENGINE_POLL)


@contextmanager
def alive() -> Iterator[None]:
    """Count the running flow as this process's own, so that nobody buries it."""
    name = str(flow_run.id)
    _alive.add(name)
    try:
        yield
    finally:
        _alive.discard(name)


async def bury_the_dead() -> int:
    """Set runs that say Running but are not in this process to Crashed; return how many.

    A killed process cannot report its own end, nor can one whose engine was away; and no run may say Running for ever.
    """
    buried = 0
    async with get_client() as client:
        state = FlowRunFilterState(type=FlowRunFilterStateType(any_=list(_LEFT_BEHIND)))
        for run in await client.read_flow_runs(flow_run_filter=FlowRunFilter(state=state), limit=200):
            if str(run.id) in _alive or str(run.id) in _taken or _is_young(run):
                continue
            message = "This run's process ended before it could say so; the line goes on in a new run."
            await client.set_flow_run_state(run.id, Crashed(message=message), force=True)
            buried += 1
    return buried


def _is_young(run: FlowRun) -> bool:
    if run.state is None or run.state.timestamp is None:
        return False
    return (datetime.now(UTC) - run.state.timestamp).total_seconds() < _YOUNG_SECONDS


async def register(flows: Mapping[str, Flow[Any, Any]], zone: str) -> dict[UUID, Flow[Any, Any]]:
    """Register one deployment a flow, so that a run can be started from the dashboard."""
    deployments: dict[UUID, Flow[Any, Any]] = {}
    for name, flow in flows.items():
        deployment = await flow.ato_deployment(
            name=zone, tags=[f"zone:{zone}"], description=f"{name} in {zone}. Runs in the zone's own process."
        )
        deployments[await deployment.aapply()] = flow
    return deployments


async def serve_scheduled(deployments: Mapping[UUID, Flow[Any, Any]]) -> None:
    """Run, in this process, what people start from the dashboard. Never returns."""
    running: set[asyncio.Task[Any]] = set()
    while True:
        try:
            async with get_client() as client:
                due = await client.get_scheduled_flow_runs_for_deployments(list(deployments), limit=10)
            for run in due:
                flow = deployments.get(run.deployment_id) if run.deployment_id else None
                if flow is None or str(run.id) in _taken:
                    continue
                _taken.add(str(run.id))
                job = asyncio.create_task(_run_scheduled(flow, run))
                running.add(job)
                job.add_done_callback(running.discard)
        except Exception:  # noqa: BLE001  the engine may be away for a while
            _LOG.exception("The engine does not tell what is scheduled; asked again.")
        await asyncio.sleep(_SCHEDULED_POLL)


async def _run_scheduled(flow: Flow[Any, Any], run: Any) -> None:
    try:
        await run_flow_async(flow, flow_run=run, parameters=run.parameters, return_type="state")
    except Exception:  # noqa: BLE001  the flow has told it
        _LOG.exception("A run started from the dashboard ended in an error.")
    finally:
        _taken.discard(str(run.id))


async def forever(name: str, turn: Callable[[], Awaitable[None]], *, pause: float, after_error: float = 2.0) -> None:
    """Call `turn` again and again; an error is logged and tried again, it never ends the zone's process.

    Args:
        name: what it is, for the log.
        turn: one turn.
        pause: seconds after a turn that went well.
        after_error: seconds after one that did not; a long pause is for what was done, not for what is still to do.
    """
    while True:
        seconds = pause
        try:
            await turn()
        except asyncio.CancelledError:
            raise
        except TemporaryError as error:
            _LOG.info("%s: %s", name, error)
            seconds = after_error
        except Exception:  # noqa: BLE001  a loop that ends is a zone that stands still
            _LOG.exception("%s failed; it is tried again.", name)
            seconds = after_error
        await anyio.sleep(seconds)
