"""`python -m sekisho.tools`: bring the tools, or list them."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from typing import Any, get_args

from sekisho.errors import SekishoError
from sekisho.tools.ensure import ToolStatus, ensure, report
from sekisho.tools.lock import Group


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code: 0 all is there, 1 something is missing or failed, 2 used wrongly."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "ensure":
            started = time.monotonic()

            def tell(line: str) -> None:
                sys.stderr.write(f"[{time.monotonic() - started:6.1f} s] {line}\n")
                sys.stderr.flush()

            statuses = ensure(tell, names=options.names, group=options.group, thorough=options.verify)
        else:
            statuses = report(group=options.group)
    except SekishoError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; what is finished stays, the rest is made at the next run\n")
        return 130
    if options.names and not options.json:
        statuses = tuple(status for status in statuses if status.name in options.names)
    if options.json:
        sys.stdout.write(json.dumps([status.model_dump() for status in statuses], indent=2) + "\n")
    else:
        sys.stdout.write("".join(_line(status) for status in statuses))
    return 1 if any(status.problem for status in statuses) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sekisho.tools", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    group: dict[str, Any] = {
        "choices": get_args(Group),
        "default": "line",
        "help": "what the zones need, or what only the tests need",
    }
    bring = commands.add_parser("ensure", help="fetch or build what is missing")
    bring.add_argument("names", nargs="*", metavar="NAME", help="only these fetched or built tools")
    bring.add_argument("--group", **group)
    bring.add_argument("--verify", action="store_true", help="compute every digest again")
    bring.add_argument("--json", action="store_true", help="print the statuses as JSON")
    show = commands.add_parser("list", help="say where each tool is, in which version; changes nothing")
    show.add_argument("--group", **group)
    show.add_argument("--json", action="store_true", help="print the statuses as JSON")
    show.set_defaults(names=[])
    return parser


def _line(status: ToolStatus) -> str:
    state = status.problem or status.path
    return (
        f"{'!!' if status.problem else 'ok'} {status.name:<24} {status.version:<9} {status.seconds:6.1f} s  {state}\n"
    )


if __name__ == "__main__":
    sys.exit(main())
