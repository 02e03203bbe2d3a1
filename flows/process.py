"""What every zone's process does: answer, register its flows, bury dead runs, and loop."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Protocol

import uvicorn
from fastapi import FastAPI
from prefect import Flow

from flows.glue import bury_the_dead, forever, register, serve_scheduled, wait_for_engine
from sekisho.zones import Port, Zone

_LOG = logging.getLogger(__name__)
_BURY_SECONDS = 60.0
_CONNECTIONS = 256


class ZoneProcess(Protocol):
    """One zone's routes and loops."""

    def api(self) -> FastAPI:
        """Return the zone's own API."""
        ...

    def feed(self) -> FastAPI:
        """Return what other zones may read."""
        ...

    def loops(self) -> list[Any]:
        """Return coroutines that never end."""
        ...

    def resume(self) -> None:
        """Take up what an earlier process left unfinished; the engine answers by now."""
        ...


async def run_zone(zone: Zone) -> None:
    """Run a zone's process until it is told to stop."""
    process, flows = _parts(zone)
    # All interfaces of the zone's own namespace; the firewall lets nobody but the listed zones reach the feed.
    servers = [_serve(process.api(), Port.ZONE_API), _serve(process.feed(), Port.FEED)]
    answering = [asyncio.create_task(server) for server in servers]
    await wait_for_engine()
    buried = await bury_the_dead()
    if buried:
        _LOG.warning("%d runs of an earlier process are set to Crashed.", buried)
    deployments = await register(flows, zone)
    process.resume()
    loops = [*process.loops(), serve_scheduled(deployments), forever("bury", _bury, pause=_BURY_SECONDS)]
    working = [asyncio.create_task(loop) for loop in loops]
    _LOG.info("Zone %s is up.", zone)
    # A server that ends was told to stop; then everything ends with it.
    await asyncio.wait(answering, return_when=asyncio.FIRST_COMPLETED)
    for task in (*working, *answering):
        task.cancel()
    await asyncio.gather(*working, *answering, return_exceptions=True)


async def _bury() -> None:
    await bury_the_dead()


def _parts(zone: Zone) -> tuple[ZoneProcess, dict[str, Flow[Any, Any]]]:
    if zone is Zone.BUILD:
        from flows.build_zone import BuildZone  # noqa: PLC0415  a zone loads its own stages only
        from flows.inner import inner_loop  # noqa: PLC0415
        from flows.standards import standard_images  # noqa: PLC0415

        return BuildZone(), {"inner-loop": inner_loop, "standard-images": standard_images}
    from flows.outer import deploy, promote, watch  # noqa: PLC0415
    from flows.outer_zone import OuterZone  # noqa: PLC0415

    return OuterZone(zone), {"promote": promote, "deploy": deploy, "watch": watch}


async def _serve(app: FastAPI, port: int) -> None:
    config = uvicorn.Config(
        app,
        host="0.0.0.0",  # noqa: S104  the firewall of the namespace decides who reaches it
        port=port,
        log_level="warning",
        access_log=False,
        timeout_keep_alive=65,
        # Each long poll holds a connection, and every connection a file: strangers must not use them up.
        limit_concurrency=_CONNECTIONS,
        # Outer zones hold long polls open; they ask again.
        timeout_graceful_shutdown=1,
    )
    await uvicorn.Server(config).serve()
