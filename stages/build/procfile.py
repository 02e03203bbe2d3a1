"""The `web` line of a Procfile, read in one way for all languages."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sekisho.errors import Refusal
from stages.build.project import Project

PROCFILE = "Procfile"
MAX_LINE = 8192
"""Characters of a command that is written for a shell; shells' own readers, and ours, are slow for long ones."""
_LIMIT = 1 << 20
_WEB = re.compile(r"web[ \t]*:(.*)")


@dataclass(frozen=True)
class WebLine:
    """One `web` line."""

    command: str
    """May be empty."""
    line: int

    @property
    def where(self) -> str:
        """Its place, for messages."""
        return f"{PROCFILE}:{self.line}"


def web_lines(project: Project) -> tuple[WebLine, ...]:
    """Return the `web` lines of a workload's Procfile, none where it has no such file.

    What is not UTF-8 is shown as that, so that another line's umlaut in Latin-1 stops nobody.

    Raises:
        Refusal: the file, or a command in it, is too long.
    """
    text = (project.read(PROCFILE, limit=_LIMIT) or b"").decode("utf-8", "replace").removeprefix("\ufeff")
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        match = _WEB.match(line)
        if match is None:
            continue
        web = WebLine(match[1].strip(), number)
        if len(web.command) > MAX_LINE:
            raise Refusal(
                f"The command is longer than {MAX_LINE} characters.",
                where=web.where,
                remedy="Put it into a program of the workload, and start that.",
            )
        found.append(web)
    return tuple(found)
