"""Queries that sqlx checks while it compiles: against a database, which a sandbox has not, or what was noted of one."""

from __future__ import annotations

import re

from sekisho.errors import Refusal
from stages.build.locks_cargo import CargoLock
from stages.build.project import Project

OFFLINE = {"SQLX_OFFLINE": "true"}
"""Tells sqlx to use what `cargo sqlx prepare` wrote, whatever an .env file says of a database."""

_CHECKED = re.compile(r"\bquery(_as|_scalar|_file|_file_as|_file_scalar)?(_unchecked)?!\s*[(\[{]")
_NOTED = ("sqlx-data.json", "query-*.json")


def check_queries(project: Project, lock: CargoLock) -> dict[str, str]:
    """Return the variables for a build with sqlx; nothing without it.

    Raises:
        Refusal: queries are checked while compiling and nothing was noted to check them against.
    """
    if not lock.has("sqlx"):
        return {}
    if lock.has("sqlx-macros") and not any(project.files(pattern) for pattern in _NOTED):
        where = next((path for path in project.files("*.rs") if _checks(project, path)), None)
        if where is not None:
            raise Refusal(
                "sqlx checks queries against a database while it compiles, and there is none where the line builds.",
                where=where,
                remedy="Run: cargo sqlx prepare   (with your database; --workspace for one), and commit what it wrote.",
            )
    return dict(OFFLINE)


def _checks(project: Project, path: str) -> bool:
    data = project.read(path)
    return data is not None and _CHECKED.search(data.decode("utf-8", "replace")) is not None
