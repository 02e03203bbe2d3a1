"""YAML from strangers: a narrow reader that remembers where everything stands.

It reads what JSON can say, in YAML's notation, after the core schema of YAML 1.2 (chapter 10.3): `yes` is a word
and `0600` is the number 600. Refused, because a reviewer cannot see through them: anchors and aliases (and with them
entity bombs), tags, duplicate keys, keys that are not strings, and text that is too big, too deep or not UTF-8.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from sekisho.errors import Refusal

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_NODES = 20_000
MAX_POINTER = 2_000
"""Characters of the keys above a value; each value's are kept, so long keys would take memory by the square."""
MAX_INTEGER = 2**53 - 1
"""Canonical JSON (RFC 8785) keeps integers up to here exactly."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE = frozenset({"true", "True", "TRUE"})
_FALSE = frozenset({"false", "False", "FALSE"})
_NUMERIC = frozenset("0123456789+-.")
"""What a number begins with."""
_INTEGER = re.compile(r"[-+]?[0-9]{1,20}|0o[0-7]{1,20}|0x[0-9a-fA-F]{1,16}")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]{1,40}|[0-9]{1,40}(?:\.[0-9]{0,40})?)(?:[eE][-+]?[0-9]{1,3})?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x85\ud800-\udfff\u2028\u2029]")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a file."""

    message: str
    pointer: str = ""
    """JSON pointer (RFC 6901) of the value."""
    line: int = 0
    """Counted from 1; 0 where no line can be named."""
    remedy: str = ""


class Problems(Refusal):
    """A file is refused; `problems` says everything that is wrong with it, in the order of the file."""

    def __init__(self, file: str, problems: list[Problem]) -> None:
        self.file = file
        self.problems = tuple(sorted(problems, key=lambda p: (p.line, p.pointer, p.message)))
        first = self.problems[0]
        more = f" (and {len(self.problems) - 1} more)" if len(self.problems) > 1 else ""
        what = f"{first.pointer}: {first.message}" if first.pointer else first.message
        super().__init__(what + more, where=place(file, first), remedy=first.remedy)


def place(file: str, problem: Problem) -> str:
    """Return `file:line`, or the file alone where no line is known."""
    return f"{file}:{problem.line}" if problem.line else file


@dataclass(frozen=True)
class Source:
    """A document as plain values, with the line of each."""

    file: str
    value: Any
    lines: Mapping[str, int] = field(repr=False)

    def line(self, pointer: str) -> int:
        """Return the line of a value, or of the nearest value around it."""
        while pointer and pointer not in self.lines:
            pointer = pointer.rpartition("/")[0]
        return self.lines.get(pointer, 0)

    def problem(self, pointer: str, message: str, remedy: str = "") -> Problem:
        """Return a problem of the value at `pointer`."""
        return Problem(message, pointer, self.line(pointer), remedy)


def step(pointer: str, key: str | int) -> str:
    """Return the pointer of a child (RFC 6901 escapes)."""
    return f"{pointer}/{str(key).replace('~', '~0').replace('/', '~1')}"


def read_document(data: bytes, file: str) -> Source:
    """Read exactly one YAML document.

    Raises:
        Problems: the bytes are not one plain document; names the line.
    """
    documents = read_documents(data, file)
    if len(documents) != 1:
        message = "There is no document here." if not documents else "There is more than one YAML document here."
        raise Problems(file, [Problem(message, remedy="Keep one document in the file.")])
    return documents[0]


def read_documents(data: bytes, file: str) -> list[Source]:
    """Read all YAML documents of a file.

    Raises:
        Problems: the bytes are not plain YAML; names the line.
    """
    if len(data) > MAX_BYTES:
        raise Problems(file, [Problem(f"The file is bigger than {MAX_BYTES} bytes.")])
    try:
        text = data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise Problems(file, [Problem("The file is not UTF-8.", line=line)]) from error
    try:
        return _Reader(text, file).documents()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 0
        raise Problems(file, [Problem(f"This is not YAML: {error.problem or error.context}.", line=line)]) from error
    except yaml.YAMLError as error:
        raise Problems(file, [Problem("This is not YAML: it holds a character that YAML forbids.")]) from error


class _Reader:
    """Turns the parser's events into values; the events come one by one, so that a limit stops the work at once."""

    def __init__(self, text: str, file: str) -> None:
        self.file = file
        self.events: Iterator[Any] = iter(yaml.parse(text, Loader=_LOADER))
        self.nodes = 0
        self.lines: dict[str, int] = {}

    def documents(self) -> list[Source]:
        found = []
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                self.lines = {}
                first = next(self.events)
                self.lines[""] = first.start_mark.line + 1
                found.append(Source(self.file, self._value(first, "", 1), self.lines))
        return found

    def _refuse(self, event: Any, message: str, pointer: str, remedy: str = "") -> Problems:
        return Problems(self.file, [Problem(message, pointer, event.start_mark.line + 1, remedy)])

    def _value(self, event: Any, pointer: str, depth: int) -> Any:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise self._refuse(event, f"The file has more than {MAX_NODES} values.", pointer)
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise self._refuse(event, "Anchors and aliases (& and *) are refused.", pointer, "Write the value out.")
        if depth > MAX_DEPTH:
            raise self._refuse(event, f"The file is nested deeper than {MAX_DEPTH} levels.", pointer[:200])
        if event.tag is not None:
            raise self._refuse(event, f"The tag {event.tag[:80]!r} is refused.", pointer, "Leave the tag out.")
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event, pointer)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(pointer, depth)
        return self._mapping(pointer, depth)

    def _sequence(self, pointer: str, depth: int) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            child = step(pointer, len(items))
            self.lines[child] = event.start_mark.line + 1
            items.append(self._value(event, child, depth + 1))
        return items

    def _mapping(self, pointer: str, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key = self._value(event, pointer, depth + 1)
            if not isinstance(key, str):
                raise self._refuse(event, "A key is not a string.", pointer, "Put the key in quotes.")
            child = step(pointer, key)
            if len(child) > MAX_POINTER:
                raise self._refuse(event, f"The keys here are longer than {MAX_POINTER} characters.", pointer[:200])
            if key in found:
                raise self._refuse(event, "The key stands here twice.", child, "Keep one of the two.")
            self.lines[child] = event.start_mark.line + 1
            found[key] = self._value(next(self.events), child, depth + 1)
        return found

    def _scalar(self, event: Any, pointer: str) -> Any:
        text: str = event.value
        if event.implicit[0]:
            value = self._plain(event, text, pointer)
            if not isinstance(value, str):
                return value
        if _CONTROL.search(text):
            raise self._refuse(
                event, "The text holds a control character.", pointer, "Use binaryContent for such data."
            )
        return text

    def _plain(self, event: Any, text: str, pointer: str) -> Any:
        if text in _NULL:
            return None
        if text in _TRUE or text in _FALSE:
            return text in _TRUE
        if text[0] not in _NUMERIC:
            return text
        if _NOT_FINITE.fullmatch(text):
            raise self._refuse(event, f"{text} is not a number that JSON knows.", pointer, "Put it in quotes.")
        if _INTEGER.fullmatch(text):
            base = 8 if text.startswith("0o") else 16 if text.startswith("0x") else 10
            number = int(text, base)
            if abs(number) > MAX_INTEGER:
                raise self._refuse(event, f"{text} is too big for a number.", pointer, "Put it in quotes.")
            return number
        if _FLOAT.fullmatch(text):
            real = float(text)
            # Beyond this every float is a whole number, which canonical JSON writes out and then cannot read again.
            if not math.isfinite(real) or abs(real) > MAX_INTEGER:
                raise self._refuse(event, f"{text} is too big for a number.", pointer, "Put it in quotes.")
            return real
        return text
