"""Who holds which fields of an object, from its managedFields. Pure.

Source: https://kubernetes.io/docs/reference/using-api/server-side-apply/ and FieldsV1 of structured-merge-diff: `f:`
is a field, `k:` an item of a list by its keys, `v:` an item by value, `.` the thing itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from sekisho.kube import FIELD_MANAGER

Step = tuple[str, Any]
"""(`f`, name), (`k`, keys) or (`v`, value)."""
Path = tuple[Step, ...]

_CONTROLLERS = ("kube-controller-manager", "kubelet", "kube-scheduler", "kube-apiserver")
"""The cluster's own writers; what they hold is expected."""
_OURS = ("metadata", "spec", "data", "binaryData", "stringData", "type", "rules", "automountServiceAccountToken")


def strangers(live: Mapping[str, Any], wanted: Mapping[str, Any]) -> tuple[tuple[str, tuple[Path, ...]], ...]:
    """Return (manager, paths) of everyone who added fields to an object that the line made.

    Args:
        live: the object as it is.
        wanted: the object as the line applies it: fields of it are the line's, whoever wrote them last.

    Fields below `status` and those of the cluster's own controllers are left out.
    """
    entries = live["metadata"].get("managedFields") or []
    found = []
    for entry in entries:
        manager = str(entry.get("manager", ""))
        if manager == FIELD_MANAGER or manager in _CONTROLLERS or entry.get("subresource"):
            continue
        paths = tuple(
            path
            for path in _leaves(entry.get("fieldsV1") or {})
            if path[0][0] == "f" and path[0][1] in _OURS and not _within(wanted, path)
        )
        if paths:
            found.append((manager, paths))
    return tuple(found)


def without(live: Mapping[str, Any], paths: tuple[Path, ...]) -> dict[str, Any]:
    """Return the object without these fields: what remains is the line's and the cluster's."""
    result: dict[str, Any] = json.loads(json.dumps(live))
    # Whole things before what is in them; items of a list by their keys, so that the order does not matter.
    for path in sorted(paths, key=len):
        _remove(result, path)
    return result


def shown(path: Path) -> str:
    """Return a path for people: `/spec/template/spec/containers[name=x]/image`."""
    text = ""
    for kind, value in path:
        if kind == "f":
            text += f"/{value}"
        elif kind == "k":
            text += "[" + ",".join(f"{key}={item}" for key, item in sorted(value)) + "]"
        else:
            text += f"[{value}]"
    return text


def _leaves(fields: Mapping[str, Any], path: Path = ()) -> Iterator[Path]:
    """Yield the paths held: of an item that somebody made (`.`), the item alone and not each of its fields."""
    if "." in fields and path and path[-1][0] == "k":
        yield path
        return
    inner = {key: value for key, value in fields.items() if key != "."}
    if not inner and path:
        yield path
        return
    for key, value in inner.items():
        yield from _leaves(value or {}, (*path, _step(key)))


def _step(key: str) -> Step:
    kind, _, rest = key.partition(":")
    if kind == "k":
        return "k", tuple(sorted(json.loads(rest).items()))
    return (kind, json.loads(rest)) if kind == "v" else ("f", rest)


def _remove(obj: Any, path: Path) -> None:
    *way, (kind, value) = path
    for step in way:
        obj = _follow(obj, step)
        if obj is None:
            return
    if kind == "f" and isinstance(obj, dict):
        obj.pop(value, None)
    elif kind == "k" and isinstance(obj, list):
        obj[:] = [item for item in obj if not _has(item, value)]
    elif kind == "v" and isinstance(obj, list):
        obj[:] = [item for item in obj if item != value]


def _within(obj: Any, path: Path) -> bool:
    *way, (kind, value) = path
    for step in way:
        obj = _follow(obj, step)
    if kind == "v":
        return isinstance(obj, list) and value in obj
    return _follow(obj, (kind, value)) is not None


def _follow(obj: Any, step: Step) -> Any:
    kind, value = step
    if kind == "f":
        return obj.get(value) if isinstance(obj, dict) else None
    if kind == "k" and isinstance(obj, list):
        return next((item for item in obj if _has(item, value)), None)
    return None


def _has(item: Any, keys: tuple[tuple[str, Any], ...]) -> bool:
    return isinstance(item, dict) and all(item.get(key) == value for key, value in keys)
