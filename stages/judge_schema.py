"""The rule `schema/valid`: every object is one that the clusters accept, in each version that they may run. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from sekisho.model import Reason
from sekisho.schemas import faults, knows, release, removed, versions

_RULE = "schema/valid"


def schema_reasons(objects: Sequence[Mapping[str, Any]], targets: Sequence[str] = ()) -> list[Reason]:
    """Answer whether the objects are what Kubernetes' own schemas allow, in every version that a zone may run.

    A kind without a schema here is no workload's kind, or has its API removed: `workload/kinds` answers for the first.

    Args:
        objects: the rendered objects.
        targets: the versions (`1.36`), of those in `sekisho.schemas.versions()`; empty for all of them.
    """
    found: list[Reason] = []
    asked = tuple(targets) or versions()
    for obj in objects:
        name = f"{obj.get('kind')}/{(obj.get('metadata') or {}).get('name')}"
        gone = removed(obj)
        if gone is not None and any(release(version) >= release(gone.version) for version in asked):
            message = f"{name}: {obj.get('apiVersion')} was removed in Kubernetes {gone.version}."
            remedy = f"Use {gone.instead}." if gone.instead else "Nothing took its place; leave the object out."
            found.append(_no(name, message, remedy))
        said: dict[tuple[str, str], list[str]] = {}
        for version in asked:
            if knows(obj, version):
                for fault in faults(obj, version):
                    said.setdefault((fault.pointer, fault.message), []).append(version)
        for (pointer, message), where in said.items():
            text = f"{name}: {pointer or '/'}: {message} (Kubernetes {', '.join(where)})"
            remedy = "The line rendered what Kubernetes does not know: the platform team mends that."
            found.append(_no(name, text, remedy, owner="platform"))
    message = f"All {len(objects)} objects fit Kubernetes {', '.join(asked)}."
    return found or [Reason(rule=_RULE, stage="judge", result="pass", message=message)]


def _no(where: str, message: str, remedy: str, owner: Literal["", "platform"] = "") -> Reason:
    return Reason(rule=_RULE, stage="judge", result="fail", message=message, remedy=remedy, where=where, owner=owner)
