"""What the developer sees: one line a version, the program's own words, the gate's hint. Or JSON, one event a line."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Sequence
from typing import IO, Any

from sekisho.errors import SekishoError
from sekisho.model import Result
from sekisho.verdict_text import clean
from stages.dev.hint import Hint

_FILES = 3
_REASONS = 3
_LABEL = 9


class Screen:
    """Tells a person, or a program, what goes on. Safe for use by several threads.

    Args:
        out: where to.
        as_json: one JSON object a line instead of text.
    """

    def __init__(self, out: IO[str] = sys.stdout, *, as_json: bool = False) -> None:
        from rich.console import Console  # noqa: PLC0415 -- a tenth of a second that JSON does not need

        self._out = out
        self._json = as_json
        self._lock = threading.Lock()
        self._console = Console(file=out, highlight=False, soft_wrap=True)

    # -- the session ----------------------------------------------------------------------------------------------

    def opened(self, app: str, developer: str, namespace: str) -> None:
        """Tell what is run, and for whom."""
        self._event("opened", app=app, developer=developer, namespace=namespace)
        self._line(("sekisho dev", "bold"), (f"  {app}", "bold cyan"), (f"  for {developer}, Ctrl-C ends it", "dim"))

    def need(self, name: str, text: str) -> None:
        """Tell what a need of the workload is bound to."""
        self._event("need", name=name, text=text)
        self._labelled(name, "", (text, ""))

    def address(self, name: str, url: str) -> None:
        """Tell where the workload is reached."""
        self._event("address", name=name, url=url)
        self._labelled(name or "port", "", (url, "underline"))

    def note(self, text: str) -> None:
        """Tell something on the way."""
        self._event("note", text=text)
        self._labelled("", "", (clean(text), "dim"))

    def closed(self, text: str) -> None:
        """Tell how it ended."""
        self._event("closed", text=text)
        self._labelled("", "", (clean(text), "dim"))

    # -- versions -------------------------------------------------------------------------------------------------

    def building(self, number: int, why: str) -> None:
        """Tell that the first version is under way: it is the one that takes longer."""
        self._event("building", version=number, why=why)
        self._labelled(f"v{number}", "", (clean(why), "dim"))

    def running(self, number: int, seconds: float, build: float, changed: Sequence[str]) -> None:
        """Tell that a version answers, so many seconds after it was saved."""
        self._event("running", version=number, seconds=round(seconds, 3), build=round(build, 3), changed=list(changed))
        self._labelled(
            f"v{number}",
            "bold green",
            ("running ", "green"),
            (f"{seconds:4.1f} s", "bold"),
            (f"  {_files(changed)}", "dim"),
        )

    def again(self, number: int) -> None:
        """Tell that the last good version runs again."""
        self._event("again", version=number)
        self._labelled(f"v{number}", "green", ("runs again", "green"))

    def failed(self, number: int, error: SekishoError, good: int) -> None:
        """Tell why a version does not run, what to do, and what runs instead."""
        self._event(
            "failed", version=number, what=error.what, where=error.where, remedy=error.remedy, good=good or None
        )
        place = f" [{clean(error.where)}]" if error.where and error.where not in error.what else ""
        self._labelled(f"v{number}", "bold red", (clean(error.what) + place, "red"))
        if error.remedy:
            self._labelled("", "", ("remedy: ", "bold"), (clean(error.remedy), ""))
        self._labelled("", "", (f"v{good} goes on" if good else "Waiting for the next save", "dim"))

    # -- words ----------------------------------------------------------------------------------------------------

    def log(self, container: str, line: str) -> None:
        """Show one line of the program."""
        self._event("log", container=container, line=line)
        if self._json:
            return
        from rich.text import Text  # noqa: PLC0415

        with self._lock:
            text = Text(f"{container:>{_LABEL}} │ ", style="blue")
            text.append_text(Text.from_ansi(line))
            self._console.print(text)

    def hint(self, hint: Hint) -> None:
        """Show what the gate would say."""
        verdict = hint.verdict
        if verdict is None:
            self._event("gate", version=hint.version, result=None, problem=hint.problem)
            self._labelled("gate", "", (f"cannot be told: {clean(hint.problem)}", "dim"))
            return
        reasons = [reason.rule for reason in verdict.failures]
        self._event("gate", version=hint.version, result=str(verdict.result), failures=reasons)
        if verdict.result is Result.PASSED:
            self._labelled("gate", "", (f"v{hint.version} would pass, as far as can be told before a push", "dim"))
            return
        self._labelled("gate", "yellow", (f"v{hint.version} would be refused:", "yellow"))
        for reason in verdict.failures[:_REASONS]:
            self._labelled("", "", (f"{clean(reason.rule)}: {clean(reason.message)}", "yellow"))
            if reason.remedy:
                self._labelled("", "", (f"remedy: {clean(reason.remedy)}", "dim"))
        if len(reasons) > _REASONS:
            self._labelled("", "", (f"and {len(reasons) - _REASONS} more; sekisho check shows all", "dim"))

    # -- details --------------------------------------------------------------------------------------------------

    def _event(self, event: str, **fields: Any) -> None:
        if self._json:
            with self._lock:
                self._out.write(json.dumps({"event": event, **fields}, ensure_ascii=False) + "\n")
                self._out.flush()

    def _labelled(self, label: str, style: str, *parts: tuple[str, str]) -> None:
        self._line((f"{label:>{_LABEL}}", style or "bold"), ("  ", ""), *parts)

    def _line(self, *parts: tuple[str, str]) -> None:
        if self._json:
            return
        from rich.text import Text  # noqa: PLC0415

        with self._lock:
            # Assembled from parts and never parsed: what strangers wrote holds no markup.
            self._console.print(Text.assemble(*parts))


def _files(changed: Sequence[str]) -> str:
    shown = ", ".join(clean(path) for path in changed[:_FILES])
    return f"{shown} and {len(changed) - _FILES} more" if len(changed) > _FILES else shown
