"""A developer's namespace: taken by one process at a time, kept by a heartbeat, given back at the end.

Rules:
    1. The namespace says whose it is (a label), and a Lease in it says which process holds it and since when.
    2. A holder that lives is left alone. One that is gone, because its heartbeat ended or its process is no more on
       this machine, has left leftovers: its namespace is taken over, or removed at the developer's next start.
    3. Nobody's namespace but the developer's own is touched; the cluster's policy says the same.
"""

from __future__ import annotations

import datetime as dt
import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sekisho.developers import OWNER, namespace_labels, own_binding
from sekisho.errors import PermanentError, Refusal, TemporaryError
from sekisho.kube import Conflict, Kube, Ref

BEAT_SECONDS = 10
"""Between two heartbeats."""
LEASE_SECONDS = 45
"""After which a holder without a heartbeat is gone."""
T = TypeVar("T")

_GONE_SECONDS = 90
_RIGHTS_SECONDS = 5
_LEASE = "sekisho-dev"
_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"


@dataclass(frozen=True)
class Holder:
    """One process of one machine."""

    host: str
    pid: int
    began: str
    """The process's start, so that a process id that was given again is not taken for it."""

    @classmethod
    def me(cls) -> Holder:
        """Return this process."""
        return cls(socket.gethostname(), os.getpid(), _began(os.getpid()))

    @classmethod
    def parse(cls, text: str) -> Holder | None:
        """Return the holder of a Lease's text, None when it is none of ours."""
        host, _, rest = text.rpartition("/")
        pid, _, began = rest.partition(".")
        return cls(host, int(pid), began) if host and pid.isdigit() else None

    def __str__(self) -> str:
        return f"{self.host}/{self.pid}.{self.began}"

    def is_gone(self) -> bool:
        """Tell whether the process surely is no more: only for processes of this machine."""
        return self.host == socket.gethostname() and _began(self.pid) != self.began


def _began(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def holds(lease: Mapping[str, Any] | None, now: dt.datetime) -> Holder | None:
    """Return who holds a namespace by its Lease, or None when nobody does any more. Pure but for a look at /proc."""
    spec = (lease or {}).get("spec") or {}
    holder = Holder.parse(str(spec.get("holderIdentity") or ""))
    if holder is None or holder.is_gone():
        return None
    try:
        renewed = dt.datetime.strptime(str(spec.get("renewTime")), _TIME).replace(tzinfo=dt.UTC)
    except ValueError:
        return None
    return holder if now - renewed < dt.timedelta(seconds=int(spec.get("leaseDurationSeconds") or 0)) else None


class Holding:
    """One namespace, held by this process.

    Args:
        kube: the dev cluster, with the developer's rights.
        developer: the developer's name in the cluster.
        namespace: the namespace.
    """

    def __init__(self, kube: Kube, developer: str, namespace: str) -> None:
        self._kube = kube
        self._developer = developer
        self.namespace = namespace
        self._me = Holder.me()
        self._ref = Ref("v1", "Namespace", "", namespace)

    def take(self, tell: Callable[[str], None]) -> None:
        """Take the namespace: make it, or take over what a process that is gone has left.

        Args:
            tell: told what is waited for, one sentence.

        Raises:
            Refusal: another process of the developer holds it.
            TemporaryError: its removal does not end, or the cluster is not reachable.
        """
        live = self._kube.get(self._ref)
        if live is not None and live["metadata"].get("deletionTimestamp"):
            tell(f"Waiting until the last {self.namespace} is gone.")
            self._wait_until_gone()
            live = None
        if live is not None and (live["metadata"].get("labels") or {}).get(OWNER) != self._developer:
            raise Refusal(
                f"The namespace {self.namespace} is there and not yours.",
                where=self.namespace,
                remedy="Rename the app in score.yaml, or ask who made the namespace.",
            )
        self._kube.apply(
            {"apiVersion": "v1", "kind": "Namespace",
             "metadata": {"name": self.namespace, "labels": namespace_labels(self._developer)}}
        )  # fmt: skip
        self._bind()
        lease = self._settled(self._lease)
        holder = holds(lease, _now())
        if holder is not None and holder != self._me:
            raise Refusal(
                f"This app runs in the dev cluster already: process {holder.pid} of {holder.host}.",
                where=self.namespace,
                remedy="Go on there, or end it with Ctrl-C; a process that died is noticed within a minute.",
            )
        self._write(lease)

    def beat(self) -> None:
        """Say that this process lives.

        Raises:
            Refusal: somebody else took the namespace.
            TemporaryError: the cluster is not reachable.
        """
        lease = self._lease()
        if lease is None or Holder.parse(str(lease["spec"].get("holderIdentity"))) != self._me:
            raise Refusal(
                "Another process took this namespace, or it was removed.",
                where=self.namespace,
                remedy="Start `sekisho dev` again.",
            )
        self._write(lease)

    @property
    def holder(self) -> str:
        """This process, as the Lease names it."""
        return str(self._me)

    def release(self) -> bool:
        """Remove the namespace with all that is in it, if this process still holds it. Does not wait for the end."""
        return remove_if_held(self._kube, self.namespace, self.holder)

    def sweep(self) -> tuple[str, ...]:
        """Remove the developer's other namespaces that nobody holds any more; returns their names."""
        removed = []
        for found in self._kube.list("v1", "Namespace", labels=f"{OWNER}={self._developer}"):
            name = found["metadata"]["name"]
            if name == self.namespace or found["metadata"].get("deletionTimestamp"):
                continue
            try:
                lease = self._kube.get(Ref("coordination.k8s.io/v1", "Lease", name, _LEASE))
                young = _now() - _time(found["metadata"]["creationTimestamp"]) < dt.timedelta(seconds=LEASE_SECONDS)
                # One that is just being taken has no Lease yet.
                if holds(lease, _now()) is None and not (lease is None and young):
                    self._kube.delete(Ref("v1", "Namespace", "", name))
                    removed.append(name)
            except PermanentError:
                continue  # made by somebody with more rights; not ours to remove
        return tuple(removed)

    def _bind(self) -> None:
        """Take hold of the namespace; who has wider rights in the cluster needs no binding, and may not make one."""
        try:
            self._kube.apply(own_binding(self._developer, self.namespace))
        except PermanentError:
            if not self._may_write():
                raise

    def _may_write(self) -> bool:
        try:
            self._kube.apply(self._document(None), dry_run=True)
        except PermanentError:
            return False
        return True

    def _lease(self) -> dict[str, Any] | None:
        return self._kube.get(Ref("coordination.k8s.io/v1", "Lease", self.namespace, _LEASE))

    def _document(self, before: Mapping[str, Any] | None) -> dict[str, Any]:
        metadata = {"name": _LEASE, "namespace": self.namespace}
        if before is not None:
            metadata["resourceVersion"] = before["metadata"]["resourceVersion"]
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": metadata,
            "spec": {
                "holderIdentity": str(self._me),
                "leaseDurationSeconds": LEASE_SECONDS,
                "renewTime": _now().strftime(_TIME),
            },
        }

    def _write(self, before: Mapping[str, Any] | None) -> None:
        """Write the Lease, if it is still what was read: of two that start at once, one wins."""
        document = self._document(before)
        try:
            self._settled(lambda: self._kube.create(document) if before is None else self._kube.replace(document))
        except Conflict as error:
            raise Refusal(
                "Another process took this namespace just now.", where=self.namespace, remedy="Go on there."
            ) from error

    def _settled(self, call: Callable[[], T]) -> T:
        """Call until the API server's authorizer knows the right that was given a moment ago."""
        end = time.monotonic() + _RIGHTS_SECONDS
        while True:
            try:
                return call()
            except PermanentError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)

    def _wait_until_gone(self) -> None:
        end = time.monotonic() + _GONE_SECONDS
        while self._kube.get(self._ref) is not None:
            if time.monotonic() > end:
                raise TemporaryError(
                    f"The namespace {self.namespace} does not go away.",
                    where=self.namespace,
                    remedy="See what holds it: kubectl get namespace -o yaml.",
                )
            time.sleep(0.25)


def remove_if_held(kube: Kube, namespace: str, holder: str) -> bool:
    """Remove a namespace with all that is in it, if it still is held by that holder; returns whether it was."""
    lease = kube.get(Ref("coordination.k8s.io/v1", "Lease", namespace, _LEASE))
    if lease is None or (lease.get("spec") or {}).get("holderIdentity") != holder:
        return False
    return kube.delete(Ref("v1", "Namespace", "", namespace))


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _time(text: str) -> dt.datetime:
    return dt.datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=dt.UTC)
