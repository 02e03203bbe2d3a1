"""What would change in an object: JSON pointers with old and new value. Pure; never shows a Secret's values."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sekisho.workloads import pointer

_SERVER_FIELDS = ("managedFields", "resourceVersion", "generation", "uid", "creationTimestamp", "selfLink")
_SECRET_FIELDS = ("data", "stringData")
_LENGTH = 120
_ABSENT = object()


@dataclass(frozen=True, order=True)
class FieldChange:
    """One field that differs."""

    path: str
    """JSON pointer into the live object; where a list's item is new, into the new one."""
    old: str
    """JSON, shortened; empty when the field is not there."""
    new: str

    def __str__(self) -> str:
        if not self.old:
            return f"{self.path}: + {self.new}"
        return f"{self.path}: {self.old} -> {self.new}" if self.new else f"{self.path}: - {self.old}"


def diff(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[FieldChange, ...]:
    """Return what differs between two states of one object, without the server's own fields and status."""
    secret = "Secret" in {old.get("kind"), new.get("kind")}
    return tuple(_compare((), _comparable(old), _comparable(new), secret=secret))


def _comparable(obj: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in obj.items() if key != "status"}
    metadata = {key: value for key, value in (obj.get("metadata") or {}).items() if key not in _SERVER_FIELDS}
    # The deployment controller writes its revision there, and no other plan or person does.
    annotations = {
        key: value
        for key, value in (metadata.get("annotations") or {}).items()
        if key != "deployment.kubernetes.io/revision"
    }
    metadata.pop("annotations", None)
    return {**kept, "metadata": {**metadata, **({"annotations": annotations} if annotations else {})}}


def _compare(path: tuple[str | int, ...], old: Any, new: Any, *, secret: bool) -> Iterator[FieldChange]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted(old.keys() | new.keys()):
            yield from _compare((*path, key), old.get(key, _ABSENT), new.get(key, _ABSENT), secret=secret)
    elif _named(old) and _named(new):
        yield from _compare_named(path, old, new, secret=secret)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (left, right) in enumerate(zip(old, new, strict=True)):
            yield from _compare((*path, index), left, right, secret=secret)
    elif old is _ABSENT or new is _ABSENT or old != new:
        hidden = secret and bool(path) and path[0] in _SECRET_FIELDS
        yield FieldChange(pointer(*path), _shown(old, hidden=hidden), _shown(new, hidden=hidden))


def _compare_named(path: tuple[str | int, ...], old: Any, new: Any, *, secret: bool) -> Iterator[FieldChange]:
    """Compare lists of things with names (containers, env, volumes, ports) by name, not by place."""
    before = {item["name"]: (index, item) for index, item in enumerate(old)}
    after = {item["name"]: (index, item) for index, item in enumerate(new)}
    for name in sorted(before.keys() | after.keys()):
        index = before[name][0] if name in before else after[name][0]
        left = before[name][1] if name in before else _ABSENT
        right = after[name][1] if name in after else _ABSENT
        yield from _compare((*path, index), left, right, secret=secret)
    if list(before) != list(after) and before.keys() == after.keys():
        yield FieldChange(pointer(*path), _shown(list(before), hidden=False), _shown(list(after), hidden=False))


def _named(value: Any) -> bool:
    if not isinstance(value, list) or not value:
        return False
    names = [item.get("name") if isinstance(item, Mapping) else None for item in value]
    return all(isinstance(name, str) for name in names) and len(set(names)) == len(names)


def _shown(value: Any, *, hidden: bool) -> str:
    if value is _ABSENT:
        return ""
    if hidden:
        return "(secret)"
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return text if len(text) <= _LENGTH else f"{text[: _LENGTH - 1]}…"
