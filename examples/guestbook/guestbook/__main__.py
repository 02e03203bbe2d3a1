"""Serve the guestbook on port 8080."""

from __future__ import annotations

import logging
import os
import signal
import sys
from types import FrameType

import waitress

from guestbook.binding import load
from guestbook.store import Store
from guestbook.web import create_app

THREADS = 4


def main() -> int:
    """Serve until SIGTERM; open requests are finished."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s", stream=sys.stdout)
    store = Store(load, size=THREADS)
    port = int(os.environ.get("PORT", "8080"))
    # Every address of the pod: the Service and the probes come from outside of it.
    server = waitress.create_server(create_app(store), host="0.0.0.0", port=port, threads=THREADS, ident="")  # noqa: S104

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise SystemExit(0)  # waitress ends its loop on it, and waits for its threads

    signal.signal(signal.SIGTERM, stop)
    logging.getLogger("guestbook").info("listening on port %d", port)
    try:
        server.run()
    finally:
        store.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
