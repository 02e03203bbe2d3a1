"""Lock files that the line made, written into a working copy to be committed.

They come from another process or from another machine: their names are checked, nothing is written through a link, and
what stands there and is different stays unless that is asked for.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sekisho.errors import PermanentError, Refusal

_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_DEPTH = 16


@dataclass(frozen=True)
class WrittenFile:
    """What became of one lock file."""

    path: str
    state: Literal["written", "unchanged"]


def write_lock_files(folder: Path, files: Mapping[str, bytes], *, force: bool = False) -> tuple[WrittenFile, ...]:
    """Write lock files into a workload's folder: all of them, or none where one would take something away.

    Args:
        folder: the workload's folder.
        files: content by path, relative to it.
        force: replace files that are different.

    Raises:
        Refusal: a name is none of a lock file, a file is there and different, or something else stands in its place.
        PermanentError: it cannot be written.
    """
    same = {path: _stands(folder, path, data, force=force) for path, data in sorted(files.items())}
    for path, stands in same.items():
        if not stands:
            _write(folder / path, files[path])
    return tuple(WrittenFile(path, "unchanged" if stands else "written") for path, stands in same.items())


def _stands(folder: Path, path: str, data: bytes, *, force: bool) -> bool:
    """Return whether exactly this file is there.

    Raises:
        Refusal: something else is, that is not to be replaced.
    """
    parts = path.split("/")
    if len(parts) > _DEPTH or not all(map(_PART.fullmatch, parts)):
        raise Refusal(f"{path[:80]!r} is not the path of a lock file.", remedy="Tell the platform team.")
    place = folder
    for index, part in enumerate(parts):
        place /= part
        last = index == len(parts) - 1
        if place.is_symlink() or (place.exists() and not (place.is_file() if last else place.is_dir())):
            raise Refusal(
                f"Something else stands where {path} belongs.", where=str(place), remedy="Move it away, and try again."
            )
    if not place.exists():
        return False
    if place.read_bytes() == data:
        return True
    if not force:
        raise Refusal(
            f"There is another {path}; nothing was written.", where=str(folder), remedy="Give --force to replace it."
        )
    return False


def _write(place: Path, data: bytes) -> None:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        descriptor, part = tempfile.mkstemp(dir=place.parent, prefix=f".{place.name}-")
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            os.fchmod(descriptor, 0o644)
        Path(part).replace(place)
    except OSError as error:
        raise PermanentError(f"The file cannot be written: {error.strerror}.", where=str(place)) from error
