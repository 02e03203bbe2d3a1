"""Carries news between the build zone's feed and ops, both ways, on connections that ops opens.

In: what the feed offers. Out: the zones' signed receipts, so that developers see how far their release has come
without reaching out. A receipt that holds a whole plan stays here: what production is made of is no news for the build
zone; the zones send the same event once more without it where developers should see it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from sekisho.clients import FeedClient
from sekisho.errors import SekishoError, TemporaryError
from sekisho.ops.store import OpsStore
from sekisho.web import MAX_WAIT

log = logging.getLogger(__name__)

READ = "feed:build"
TOLD = "progress:build"
_PAUSE = 2.0
_PAUSE_LIMIT = 30.0


class Courier:
    """Two endless errands; each goes on where it stood, whatever was killed in between.

    Args:
        store: the ops store; keeps how far each errand has come.
        feed: the build zone's feed.
    """

    def __init__(self, store: OpsStore, feed: FeedClient) -> None:
        self._store = store
        self._feed = feed

    async def run(self) -> None:
        """Run both errands until cancelled."""
        await asyncio.gather(self._forever(self.read), self._forever(self.tell))

    async def _forever(self, errand: Callable[[], Awaitable[int]]) -> None:
        pause = _PAUSE
        while True:
            try:
                await errand()
                pause = _PAUSE
            except SekishoError as error:
                log.warning("%s; again in %.0f s", error, pause)
                await asyncio.sleep(pause)
                pause = min(pause * 2, _PAUSE_LIMIT)

    async def read(self, wait: float = MAX_WAIT) -> int:
        """Read the feed once from where it was left; return how many offers came."""
        after = await asyncio.to_thread(self._store.cursor, READ)
        offers, last = await asyncio.to_thread(self._feed.page, after, wait)
        if last < after:  # the build zone was set up anew: its feed begins again
            log.warning("The build zone's feed began anew (it ends at %d, %d was read).", last, after)
            await asyncio.to_thread(self._store.set_cursor, READ, 0)
        elif offers:
            await asyncio.to_thread(self._store.record_offers, offers, READ)
        return len(offers)

    async def tell(self, wait: float = MAX_WAIT) -> int:
        """Pass on what the feed was not told yet, waiting for the first; return how many receipts were passed on."""
        after = await asyncio.to_thread(self._store.cursor, TOLD)

        async def look() -> list[tuple[int, bool, bytes]]:
            return await asyncio.to_thread(self._store.receipt_bundles, after)

        told = 0
        for sequence, private, bundle in await self._store.signal.poll(look, wait=wait):
            if not private:
                told += await self._pass_on(sequence, bundle)
            await asyncio.to_thread(self._store.set_cursor, TOLD, sequence)
        return told

    async def _pass_on(self, sequence: int, bundle: bytes) -> int:
        try:
            await asyncio.to_thread(self._feed.tell_progress, bundle)
        except TemporaryError:
            raise
        except SekishoError as error:  # it will be refused again tomorrow; the next receipt need not wait for it
            log.warning("The build zone refused receipt %d: %s", sequence, error)
            return 0
        return 1
