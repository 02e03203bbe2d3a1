"""Run the git receiver of the build zone: `python -m sekisho.receiver`."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

import uvicorn

from sekisho.errors import SekishoError
from sekisho.receiver.app import Receiver
from sekisho.receiver.backend import Limits, memory_for
from sekisho.receiver.repositories import Repositories
from sekisho.receiver.tokens import load_tokens
from sekisho.zones import Port, Zone, ZoneHome, address


def main() -> int:
    """Serve until terminated; 1 when it cannot begin."""
    zone = ZoneHome(Zone.BUILD)
    parser = argparse.ArgumentParser(prog="python -m sekisho.receiver", description=__doc__)
    parser.add_argument("--host", default=address(Zone.BUILD))
    parser.add_argument("--port", type=int, default=Port.GIT)
    parser.add_argument("--git-root", type=Path, default=zone.git)
    parser.add_argument("--tokens", type=Path, default=zone.root / "tokens.json")
    parser.add_argument("--zone-api", default=f"127.0.0.1:{Port.ZONE_API}", help="host:port of the zone's process")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    repositories = Repositories(options.git_root)
    try:
        repositories.prepare()
        load_tokens(options.tokens)
    except SekishoError as error:
        print(f"sekisho: {error}", file=sys.stderr)  # noqa: T201
        return 1
    limits = Limits(memory=memory_for(Limits.pushes))
    receiver = Receiver(repositories, lambda: load_tokens(options.tokens), zone_api=options.zone_api, limits=limits)
    uvicorn.run(
        receiver,
        host=options.host,
        port=options.port,
        log_config=None,
        server_header=False,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=5,
        limit_concurrency=256,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
