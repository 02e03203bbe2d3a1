"""The inventory: a ConfigMap in the app's namespace that says which plan stands there, and which objects it made.

It is also the fence: each apply takes a generation higher by one, with a compare-and-swap on resourceVersion, and
whoever finds a higher generation than its own has lost. The limit of that: Kubernetes does not fence other objects by
itself, so a late writer can still finish the one request that it had already sent.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sekisho.errors import LeaseLost, PermanentError
from sekisho.kube import Conflict, Kube, Ref
from sekisho.model import Document

NAME = "sekisho-inventory"
_KEY = "inventory.json"


class Inventory(Document):
    """What the line has put into one namespace."""

    format: Literal["sekisho.dev/inventory/v1"] = "sekisho.dev/inventory/v1"
    generation: int = Field(ge=1)
    plan: str
    """The plan that is applied, or being applied."""
    release: str
    commit: str
    previous: str = ""
    """That plan's `previous`."""
    prune: tuple[str, ...] = ()
    """That plan's `prune`."""
    applied: str = ""
    """The last plan that was applied to its end; `plan` itself when nothing is under way."""
    objects: tuple[str, ...] = ()
    """`apiVersion/Kind/namespace/name` of everything that the line made here and has not deleted."""


def read_inventory(kube: Kube, namespace: str) -> Inventory | None:
    """Return a namespace's inventory, or None.

    Raises:
        PermanentError: it is damaged; nothing is guessed from a damaged one.
    """
    return _read(kube, namespace)[0]


def take(kube: Kube, namespace: str, wanted: Inventory, *, expected: int) -> Inventory:
    """Write the inventory with the next generation, if it still has the expected one.

    Args:
        kube: the cluster.
        namespace: the app's.
        wanted: what to write; its generation is replaced.
        expected: the generation that was read; 0 when there was no inventory.

    Raises:
        LeaseLost: somebody else wrote it.
    """
    current, version = _read(kube, namespace)
    found = current.generation if current else 0
    if found != expected:
        raise _lost(namespace, expected, found)
    return _write(kube, namespace, wanted.model_copy(update={"generation": expected + 1}), version)


def hold(kube: Kube, namespace: str, generation: int) -> None:
    """Check that a generation is still the newest.

    Raises:
        LeaseLost: it is not.
    """
    current, _ = _read(kube, namespace)
    found = current.generation if current else 0
    if found != generation:
        raise _lost(namespace, generation, found)


def finish(kube: Kube, namespace: str, wanted: Inventory) -> Inventory:
    """Write the inventory at the end of an apply, within its own generation.

    Raises:
        LeaseLost: somebody else wrote it.
    """
    current, version = _read(kube, namespace)
    found = current.generation if current else 0
    if found != wanted.generation:
        raise _lost(namespace, wanted.generation, found)
    return _write(kube, namespace, wanted, version)


def _read(kube: Kube, namespace: str) -> tuple[Inventory | None, str]:
    ref = Ref("v1", "ConfigMap", namespace, NAME)
    obj = kube.get(ref)
    if obj is None:
        return None, ""
    data = (obj.get("data") or {}).get(_KEY)
    if not isinstance(data, str):
        raise PermanentError(
            "The inventory is damaged: it holds no inventory.",
            where=str(ref),
            remedy="Look who changed it; delete it to have the next plan start anew. Nothing is pruned then.",
        )
    return Inventory.parse(data, where=str(ref)), obj["metadata"]["resourceVersion"]


def _write(kube: Kube, namespace: str, inventory: Inventory, version: str) -> Inventory:
    obj = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": NAME,
            "namespace": namespace,
            "labels": {"app.kubernetes.io/managed-by": "sekisho"},
        },
        "data": {_KEY: inventory.canonical().decode()},
    }
    try:
        if version:
            obj["metadata"] = {**obj["metadata"], "resourceVersion": version}  # type: ignore[dict-item]
            kube.replace(obj)
        else:
            kube.create(obj)
    except Conflict as error:
        raise _lost(namespace, inventory.generation, None) from error
    return inventory


def _lost(namespace: str, mine: int, found: int | None) -> LeaseLost:
    other = "another one" if found is None else f"generation {found}"
    return LeaseLost(
        f"Somebody else is applying here: this one has generation {mine}, the cluster has {other}.",
        where=f"{namespace}/{NAME}",
        remedy="Nothing to do if the other one finishes; else look for two processes of the zone.",
    )
