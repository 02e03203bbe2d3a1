"""Files beside score.yaml (`source:`), read with suspicion: inside the folder, no links, no devices, bounded."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from sekisho.errors import Refusal

SCORE = "score.yaml"
_SCORE_LIMIT = 1 << 20

MAX_FILE = 1 << 20
"""A ConfigMap holds no more (Kubernetes, MaxSecretSize)."""

Read = Callable[[str], bytes]
"""Returns the content of a file by its path beside score.yaml; raises FileError."""


class FileError(ValueError):
    """A file cannot be read; the message says why, for the developer."""


def read_score(folder: Path) -> bytes:
    """Return the bytes of a folder's score.yaml, cut one byte after the most that is read of it.

    Raises:
        Refusal: there is none; a link is none.
    """
    path = folder / SCORE
    if path.is_symlink() or not path.is_file():
        raise Refusal(
            f"There is no {SCORE}.",
            where=SCORE,
            remedy="Add one that says what your workload is and needs; docs/getting-started.md has one to copy.",
        )
    with path.open("rb") as file:
        return file.read(_SCORE_LIMIT + 1)


def reader(folder: Path) -> Read:
    """Return a function that reads regular files inside `folder`."""

    def read(path: str) -> bytes:
        parts = path.removeprefix("./").split("/")
        if path.startswith("/") or any(part in {"", ".", ".."} for part in parts):
            raise FileError(f"The source {path[:80]!r} is not a plain path below the folder of score.yaml.")
        try:
            return _read(folder, parts)
        except FileNotFoundError as error:
            raise FileError(f"There is no file {path[:80]!r} beside score.yaml.") from error
        except OSError as error:
            # ELOOP and ENOTDIR among them: O_NOFOLLOW met a link.
            raise FileError(f"{path[:80]!r} is not a regular file that can be read ({error.strerror}).") from error

    return read


def _read(folder: Path, parts: list[str]) -> bytes:
    """Read step by step from one open folder to the next, so that no link can be put in the way in between."""
    here = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts[:-1]:
            there = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            os.close(here)
            here = there
        # Not blocking: a pipe in the tree must not stop the line.
        file = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=here)
    finally:
        os.close(here)
    with os.fdopen(file, "rb") as opened:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise FileError(f"{parts[-1][:80]!r} is not a regular file.")
        data = opened.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        raise FileError(
            f"{parts[-1][:80]!r} is bigger than {MAX_FILE} bytes, which is more than a mounted file may be."
        )
    return data
