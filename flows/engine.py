"""A zone's Prefect server: `python -m flows.engine --zone staging`."""

from __future__ import annotations

import argparse
import os
import sys

from flows.settings import server_environment
from sekisho.errors import SekishoError
from sekisho.programs import program
from sekisho.zones import ENGINE_ZONES, Port, Zone


def main() -> int:
    """Replace this process by the zone's Prefect server."""
    parser = argparse.ArgumentParser(prog="python -m flows.engine", description=__doc__)
    parser.add_argument("--zone", required=True, choices=[str(zone) for zone in ENGINE_ZONES])
    zone = Zone(parser.parse_args().zone)
    try:
        environment = os.environ | server_environment(zone)
    except SekishoError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return error.exit_code
    # Straight to the application: `prefect server start` adds the CLI's imports and a parent process.
    command = program("uvicorn", "--factory", "prefect.server.api.server:create_app")
    # All interfaces of the zone's own namespace; the firewall decides who reaches them.
    command += ["--host", "0.0.0.0", "--port", str(Port.PREFECT), "--log-level", "warning"]  # noqa: S104
    command += ["--timeout-keep-alive", "65", "--no-access-log"]
    os.execve(command[0], command, environment)  # noqa: S606
    return 0


if __name__ == "__main__":
    sys.exit(main())
