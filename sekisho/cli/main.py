"""`sekisho`: runs one command of the command line.

Exit codes: 0 yes, 1 a 'no' of the line or a fault, 2 wrong use. Errors say what, where and what to do on standard
error; SEKISHO_DEBUG=1 shows the traceback too.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import typer

from sekisho.cli.commands import app
from sekisho.cli.output import complain
from sekisho.errors import PermanentError, SekishoError

_INTERRUPTED = 130


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code. Prints errors; raises none."""
    if os.environ.get("SEKISHO_DEBUG") == "1":
        return _called(arguments)
    try:
        return _called(arguments)
    except SekishoError as error:
        complain("sekisho", error)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        sys.stderr.write("\nsekisho: interrupted; what was done is kept.\n")
        return _INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has enough; nothing can be said to them any more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # noqa: BLE001 -- a person must never meet a traceback
        remedy = "run it again with SEKISHO_DEBUG=1 and report what it prints"
        fault = f"this is a fault of the program: {type(error).__name__}: {error}"
        complain("sekisho", PermanentError(fault, remedy=remedy))
        return 1


def _called(arguments: Sequence[str]) -> int:
    try:
        code: Any = app(args=list(arguments), prog_name="sekisho", standalone_mode=False)
    except typer.Exit as done:
        return done.exit_code
    except Exception as error:
        show_usage: Callable[[], None] | None = getattr(error, "show", None)  # the parser's own errors
        if show_usage is None:
            raise
        show_usage()
        return int(getattr(error, "exit_code", 2))
    return code if isinstance(code, int) else 0


def main() -> None:
    """Run the command line of this process."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
