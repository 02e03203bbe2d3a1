"""`python -m stages.dev PATH`: run the working copy in the dev cluster until Ctrl-C; see docs/dev.md.

Exit codes: 0 ended by Ctrl-C, 1 refused or a fault, 2 wrong use.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from sekisho.cli.output import complain
from sekisho.errors import PermanentError, SekishoError, UsageError
from stages.dev.screen import Screen


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="sekisho dev", description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("path", type=Path, nargs="?", default=Path(), help="the folder with score.yaml")
    parser.add_argument("--as", dest="login", default="", help="who you are; by default your login name")
    parser.add_argument("--port", type=int, default=0, help="the port of this machine")
    parser.add_argument("--optimised", action="store_true", help="compile each save as for a release")
    parser.add_argument("--json", action="store_true", help="one JSON event a line")
    measured = parser.add_argument_group("measuring", "seconds from a save to the first answer of the new version")
    measured.add_argument("--measure", type=int, default=0, metavar="ROUNDS", help="measure so many saves, and end")
    measured.add_argument("--edit", default="", metavar="FILE", help="the file to save, relative to PATH")
    measured.add_argument("--before", default="", metavar="TEXT", help="a text in it, before which a mark is written")
    measured.add_argument("--get", default="/", metavar="URLPATH", help="the path whose answer shows the mark")
    options = parser.parse_args(arguments)
    try:
        if not options.path.is_dir():
            raise UsageError("There is no such folder.", where=str(options.path))
        if not 0 <= options.port <= 65_535:  # noqa: PLR2004
            raise UsageError("There is no such port.", where=str(options.port))
        if options.measure:
            _measure(options)
            return 0
        screen = Screen(as_json=options.json)
        run(options.path.resolve(), options.login, port=options.port, screen=screen, optimised=options.optimised)
    except SekishoError as error:
        if os.environ.get("SEKISHO_DEBUG") == "1":
            raise
        complain("sekisho dev", error)
        return error.exit_code
    except KeyboardInterrupt:
        return 130  # twice: what is left is cleared up by the caretaker
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def _measure(options: argparse.Namespace) -> None:
    from stages.dev.measure import measure  # noqa: PLC0415 -- its subprocess is this very command

    folder = options.path.resolve()
    login = options.login or "measure"
    found = measure(
        folder, edit=options.edit, before=options.before, path=options.get, rounds=options.measure, login=login
    )
    said = {"seconds": [round(one, 3) for one in found], "median": round(statistics.median(found), 3)}
    sys.stdout.write(json.dumps({**said, "worst": round(max(found), 3)}) + "\n")


def run(folder: Path, login: str, *, port: int, screen: Screen, optimised: bool = False) -> None:
    """Run a working copy until the command is interrupted, and clear up.

    Raises:
        SekishoError: it cannot be run at all; what is wrong with a version is told and does not end it.
    """
    from stages.dev.loop import Loop, Lost, PodsChanged, Saved  # noqa: PLC0415 -- wrong use is told at once
    from stages.dev.place import find_place  # noqa: PLC0415
    from stages.dev.session import Session, debugging  # noqa: PLC0415
    from stages.dev.watching import saves  # noqa: PLC0415

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    # Started by a script with `&`, it would inherit an ignored SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    place = find_place(login, os.environ)
    session = Session(folder, place, screen, port=port, debug=debugging(), optimised=optimised)
    loop = Loop(session)
    stop = threading.Event()

    def watch() -> None:
        try:
            for _ in saves(folder, stop):
                loop.put(Saved(time.monotonic()))
        except (OSError, RuntimeError) as error:
            remedy = "Raise fs.inotify.max_user_watches where it is a limit, or leave large folders out of this one."
            loop.put(Lost(PermanentError(f"The folder cannot be watched: {error}", where=str(folder), remedy=remedy)))

    try:
        session.open(
            lost=lambda error: loop.put(Lost(error)),
            changed=lambda: loop.put(PodsChanged()),
            outcome=loop.put,
            hint=loop.put,
        )
        threading.Thread(target=watch, name="watch", daemon=True).start()
        loop.run()
    except KeyboardInterrupt:
        pass
    finally:
        stop.set()
        session.close()


if __name__ == "__main__":
    raise SystemExit(main())
