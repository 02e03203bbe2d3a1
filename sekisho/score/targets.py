"""Where files and volumes may be laid into a container: plain places, apart from each other and from the platform's."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from sekisho.score.source import Problem, Source

if TYPE_CHECKING:
    from sekisho.score.workload import File, Mount

_RESERVED = ("/proc", "/sys", "/dev", "/bindings", "/run/secrets", "/var/run/secrets")
_SCRATCH = "/tmp"  # noqa: S108 - the container's


def target_problems(source: Source, files: Sequence[File], mounts: Sequence[Mount]) -> Iterator[Problem]:
    """Yield what is wrong with the targets of a container.

    Kubernetes takes any of them, and the container then does not start: a place inside a file, or inside a volume that
    cannot be written, cannot be made.
    """
    entries: tuple[File | Mount, ...] = (*files, *mounts)
    plain = {file.target for file in files}
    closed = {mount.target for mount in mounts if mount.read_only}
    seen: set[str] = set()
    for entry in entries:
        target = entry.target
        above = _above(target)
        if (
            not target.startswith("/")
            or target == "/"
            or posixpath.normpath(target) != target
            or ":" in target
            or not target.isprintable()
        ):
            yield source.problem(
                entry.pointer, "The target is not a plain absolute path.", "Write it as /app/settings."
            )
        elif any(place in {target, *above} for place in _RESERVED) or (target == _SCRATCH and target in plain):
            yield source.problem(entry.pointer, "This place belongs to the platform.", "Choose another target.")
        elif within := sorted(plain & above):
            message = f"This place is inside of {within[0]!r}, which is a file."
            yield source.problem(entry.pointer, message, "Choose another target for one of the two.")
        elif within := sorted(closed & above):
            message = f"This place is inside of {within[0]!r}, which is read-only."
            yield source.problem(entry.pointer, message, "Choose another target, or leave readOnly out.")
        if target in seen:
            yield source.problem(entry.pointer, "Two entries have this target.", "Keep one of the two.")
        seen.add(target)


def _above(target: str) -> set[str]:
    """Return the folders that a place is in."""
    parts = target.split("/")
    return {"/".join(parts[:count]) for count in range(2, len(parts))}
