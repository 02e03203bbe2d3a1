"""A file that is there whole or not at all, whatever is killed."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write_durably(path: Path, data: bytes) -> None:
    """Write a file beside its place, wait until the disk has it, and move it there.

    Args:
        path: the place; its folder is made.
        data: the whole content.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own, and hidden from whoever lists the folder: two threads may write the same file.
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)
