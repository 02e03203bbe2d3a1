"""A zone's long-lived process: `python -m flows.zone --zone production`.

Flows run in here, as async flows of one event loop: half a second of engine instead of the five that a process per
run costs. The zone's Prefect server orders, retries, logs and shows them.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys

from flows.settings import client_environment
from sekisho.errors import SekishoError
from sekisho.zones import ENGINE_ZONES, Zone


def main() -> int:
    """Run the zone until it is told to stop."""
    parser = argparse.ArgumentParser(prog="python -m flows.zone", description=__doc__)
    parser.add_argument("--zone", required=True, choices=[str(zone) for zone in ENGINE_ZONES])
    zone = Zone(parser.parse_args().zone)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        # Prefect reads its settings at the first import, so they must stand before it.
        os.environ.update(client_environment(zone))
        from flows.process import run_zone  # noqa: PLC0415

        asyncio.run(run_zone(zone))
    except SekishoError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return error.exit_code
    except KeyboardInterrupt:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
