"""Names of objects in a cluster, and the order in which they are applied."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sekisho.errors import Refusal


@dataclass(frozen=True, order=True)
class Ref:
    """The name of one object in a cluster; `namespace` is empty for cluster-wide kinds."""

    api_version: str
    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.api_version}/{self.kind}/{self.namespace}/{self.name}"

    @property
    def short(self) -> str:
        """`Kind/name`, for people."""
        return f"{self.kind}/{self.name}"

    @classmethod
    def of(cls, obj: Mapping[str, Any]) -> Ref:
        """Return the name of `obj`.

        Raises:
            Refusal: apiVersion, kind or metadata.name is missing.
        """
        metadata = obj.get("metadata")
        metadata = metadata if isinstance(metadata, Mapping) else {}
        parts = (obj.get("apiVersion"), obj.get("kind"), metadata.get("namespace", ""), metadata.get("name"))
        if not all(isinstance(part, str) for part in parts) or not (parts[0] and parts[1] and parts[3]):
            raise Refusal(f"An object without apiVersion, kind or name: {str(parts)[:200]}.")
        return cls(str(parts[0]), str(parts[1]), str(parts[2]), str(parts[3]))

    @classmethod
    def parse(cls, text: str) -> Ref:
        """Return the Ref written as `apiVersion/Kind/namespace/name`.

        Raises:
            Refusal: not of that form.
        """
        parts = text.rsplit("/", 3)
        if len(parts) != 4 or not (parts[0] and parts[1] and parts[3]):  # noqa: PLR2004
            raise Refusal(f"{text[:200]!r} does not name an object.")
        return cls(*parts)


_ORDER = (
    "Namespace",
    "ResourceQuota",
    "LimitRange",
    "NetworkPolicy",
    "ServiceAccount",
    "ClusterRole",
    "ClusterRoleBinding",
    "Role",
    "RoleBinding",
    "Secret",
    "ConfigMap",
    "PersistentVolumeClaim",
    "Service",
    "StatefulSet",
    "Deployment",
    "DaemonSet",
    "Job",
    "CronJob",
)
"""Network rules stand before the first pod starts, and what a pod mounts is there before the pod."""


def apply_order(objects: Iterable[Mapping[str, Any]]) -> tuple[dict[str, Any], ...]:
    """Return the objects in order of apply; equal sets give equal orders.

    Raises:
        Refusal: two objects of one name, or one without a name.
    """
    named: dict[Ref, dict[str, Any]] = {}
    for obj in objects:
        ref = Ref.of(obj)
        if ref in named:
            raise Refusal("Two objects have the same name.", where=str(ref), remedy="Rename one of them.")
        named[ref] = dict(obj)
    return tuple(named[ref] for ref in sorted(named, key=_rank))


def _rank(ref: Ref) -> tuple[int, Ref]:
    return (_ORDER.index(ref.kind) if ref.kind in _ORDER else len(_ORDER), ref)
