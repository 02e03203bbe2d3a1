"""Where the database is: Service Binding files (https://servicebinding.io/spec/core/1.0.0/)."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

LIMIT = 4096


@dataclass(frozen=True)
class Database:
    """The address of a database and what it takes to enter."""

    host: str
    port: int
    name: str
    user: str
    password: str = field(repr=False)


def load(root: Path | None = None, name: str = "db") -> Database:
    """Read the binding. It is read for each new connection, so that a rotated password needs no restart.

    Raises:
        LookupError: an entry is missing.
    """
    folder = (root or Path(os.environ.get("SERVICE_BINDING_ROOT", "/bindings"))) / name

    def entry(key: str, default: str | None = None) -> str:
        try:
            return (folder / key).read_text(encoding="utf-8")[:LIMIT].strip()
        except OSError:
            if default is None:
                raise LookupError(f"The binding {name} has no {key}.") from None
            return default

    return Database(
        host=entry("host"),
        port=int(entry("port", "5432")),
        name=entry("database"),
        user=entry("username"),
        password=entry("password"),
    )
