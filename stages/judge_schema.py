"""The rule `schema/valid`: every object is one that the clusters accept, in each version that they may run. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sekisho.model import Reason
from sekisho.schemas import faults, knows, removed, versions

_RULE = "schema/valid"


def schema_reasons(objects: Sequence[Mapping[str, Any]]) -> list[Reason]:
    """Answer whether the objects are what Kubernetes' own schemas allow.

    A kind without a schema here is no workload's kind, or has its API removed: `workload/kinds` answers for the first.
    """
    found: list[Reason] = []
    for obj in objects:
        name = f"{obj.get('kind')}/{(obj.get('metadata') or {}).get('name')}"
        if (gone := removed(obj)) is not None:
            message = f"{name}: {obj.get('apiVersion')} was removed in Kubernetes {gone.version}."
            remedy = f"Use {gone.instead}." if gone.instead else "Nothing took its place; leave the object out."
            found.append(_no(name, message, remedy))
        said: dict[tuple[str, str], list[str]] = {}
        for version in versions():
            if knows(obj, version):
                for fault in faults(obj, version):
                    said.setdefault((fault.pointer, fault.message), []).append(version)
        for (pointer, message), where in said.items():
            text = f"{name}: {pointer or '/'}: {message} (Kubernetes {', '.join(where)})"
            remedy = "Tell the platform team: the line rendered what Kubernetes does not know."
            found.append(_no(name, text, remedy))
    message = f"All {len(objects)} objects fit Kubernetes {', '.join(versions())}."
    return found or [Reason(rule=_RULE, stage="judge", result="pass", message=message)]


def _no(where: str, message: str, remedy: str) -> Reason:
    return Reason(rule=_RULE, stage="judge", result="fail", message=message, remedy=remedy, where=where)
