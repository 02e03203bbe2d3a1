"""A full disk, said plainly."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from sekisho.errors import TemporaryError


@contextmanager
def full_disk_said() -> Iterator[None]:
    """Say it in plain words when the disk is full; it is tried again later."""
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        raise TemporaryError(
            "The build zone's disk is full.",
            where=str(error.filename or ""),
            remedy="Free some space, make `cache` in builds.yaml smaller, or move SEKISHO_HOME to a larger disk.",
            delay=60.0,
        ) from error
