"""Reading what lock files in TOML and JSON have in common: tables by strangers, with the line of each package.

Neither format says where in a file a value stands. A message needs it, so the lines are counted beside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from packaging.utils import canonicalize_name

from sekisho.errors import Refusal
from stages.build import strict_toml
from stages.build.locks import Locked, Target, locked_package
from stages.build.strict_json import read_value

MAX_BYTES = 8 << 20
MAX_TABLES = 10_000
"""Packages in one file, of all targets and groups together."""
MAX_EDGES = 200_000
"""What packages ask for, each for itself and for each extra: steps while a lock is walked."""


@dataclass(frozen=True)
class Table:
    """One package's table in a lock file."""

    value: Mapping[str, Any]
    file: str
    line: int
    relock: str
    """The command that makes the file anew."""

    @property
    def where(self) -> str:
        """Place in the file."""
        return f"{self.file}:{self.line}"

    @property
    def name(self) -> str:
        """Normalised name (PEP 503)."""
        return canonicalize_name(self.text("name"))

    def text(self, key: str, default: str | None = None) -> str:
        """Return a value that is a text.

        Raises:
            Refusal: it is missing and there is no default, or it is no text.
        """
        value = self.value.get(key, default)
        if not isinstance(value, str):
            raise self.refusal(f"A package has no {key}.")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a value that is a list of texts; empty where it is missing."""
        value = self.value.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.refusal(f"{key} is not a list of texts.")
        return tuple(value)

    def tables(self, key: str) -> tuple[Mapping[str, Any], ...]:
        """Return a value that is a list of tables; empty where it is missing."""
        value = self.value.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise self.refusal(f"{key} is not a list of tables.")
        return tuple(value)

    def table(self, key: str) -> Mapping[str, Any]:
        """Return a value that is a table; empty where it is missing."""
        value = self.value.get(key, {})
        if not isinstance(value, dict):
            raise self.refusal(f"{key} is not a table.")
        return value

    def refusal(self, what: str, remedy: str = "") -> Refusal:
        """Return a refusal at this package."""
        return Refusal(what, where=self.where, remedy=remedy or f"Run: {self.relock}")

    def holds(self, marker: Any, target: Target, *, extras: Sequence[str] = ()) -> bool:
        """Return whether a marker holds; none holds always."""
        if marker is None or marker == "":
            return True
        if not isinstance(marker, str):
            raise self.refusal("A marker is not a text.")
        return target.holds(marker, where=self.where, extras=extras)

    def locked(self, hashes: Sequence[Any]) -> Locked:
        """Return the package with these hashes, each checked."""
        if not all(isinstance(item, str) for item in hashes):
            raise self.refusal(f"A hash of {self.text('name')[:80]} is not a text.")
        return locked_package(
            self.text("name"), self.text("version"), tuple(hashes), file=self.file, line=self.line
        )  # fmt: skip

    def from_elsewhere(self, kind: str) -> Refusal:
        """Return the refusal for a package that is not from a package index."""
        return self.refusal(
            f"{self.text('name')[:80]} comes from {kind}, not from the package index.",
            "Publish it to the package index and pin a version, or keep its source in this folder.",
        )


def read_toml(text: str, *, file: str, relock: str) -> dict[str, Any]:
    """Return a file's tables.

    Raises:
        Refusal: it is no TOML.
    """
    return strict_toml.read_toml(text, file=file, remedy=f"Run: {relock}")


def read_json(text: str, *, file: str, relock: str) -> dict[str, Any]:
    """Return a file's object.

    Raises:
        Refusal: it is no JSON object.
    """
    value = read_value(text, where=file, remedy=f"Run: {relock}")
    if not isinstance(value, dict):
        raise Refusal(f"{file} is not a JSON object.", where=file, remedy=f"Run: {relock}")
    return value


@dataclass
class Steps:
    """Counts the steps of a walk through a lock file: what packages ask for can be crossed with extras without end."""

    file: str
    relock: str
    count: int = 0

    def take(self, more: int = 1) -> None:
        """Count steps.

        Raises:
            Refusal: there were too many.
        """
        self.count += more
        if self.count > MAX_EDGES:
            raise Refusal(
                f"The packages of {self.file} ask for each other more than {MAX_EDGES:,} times.",
                where=self.file,
                remedy=f"Lock fewer packages, with fewer extras: {self.relock}",
            )


def package_tables(
    document: Mapping[str, Any], text: str, *, key: str, file: str, relock: str
) -> tuple[Table, ...]:  # fmt: skip
    """Return the array of tables that a TOML lock file has its packages in.

    Raises:
        Refusal: it is not an array of tables, or too long.
    """
    found = document.get(key, [])
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise Refusal(f"{file} has no list of packages.", where=file, remedy=f"Run: {relock}")
    if len(found) > MAX_TABLES:
        raise Refusal(f"{file} has more than {MAX_TABLES} packages.", where=file, remedy="Lock fewer packages.")
    lines = [number for number, line in enumerate(text.split("\n"), 1) if line.strip() == f"[[{key}]]"]
    if len(lines) != len(found):  # written in another way than the tool does
        lines = [1] * len(found)
    return tuple(Table(value, file, line, relock) for value, line in zip(found, lines, strict=True))
