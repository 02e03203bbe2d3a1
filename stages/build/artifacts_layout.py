"""Laying fetched files out as the sandbox sees them: hard links to the store's, under the names that a plan gives."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sekisho.errors import Refusal
from stages.build.artifacts_store import Use
from stages.build.disk import full_disk_said
from stages.build.language import Artifact

_PART = re.compile(r"[\x20-\x7e]{1,255}")
_MAX_NAME = 1024


@dataclass(frozen=True)
class Fetched:
    """One fetched file; its bytes have the sha256 and hold what the lock declares."""

    artifact: Artifact
    path: Path
    sha256: str
    """Hexadecimal."""
    use: Use | None = field(default=None, repr=False, compare=False)
    """As long as this lives, eviction leaves the file alone."""


def lay_out(fetched: Sequence[Fetched], folder: Path) -> None:
    """Put files into a folder under the names that the sandbox sees: hard links, copies where there can be none.

    Raises:
        Refusal: two files want one name, or a name is not plain.
    """
    names = names_of(fetched)
    with full_disk_said():
        folder.mkdir(parents=True, exist_ok=True)
        link(names, folder)


def names_of(fetched: Iterable[Fetched]) -> dict[str, Fetched]:
    """Return the files by the path that each is laid out under."""
    names: dict[str, Fetched] = {}
    folders: set[str] = set()
    for item in fetched:
        name = item.artifact.save_as
        parts = name.split("/")
        plain = all(_PART.fullmatch(part) and "\\" not in part and part not in {".", ".."} for part in parts)
        if not plain or len(name) > _MAX_NAME:
            raise Refusal(f"The packages would be laid out under {name[:200]!r}.", where=item.artifact.where)
        if names.setdefault(name, item).sha256 != item.sha256:
            raise Refusal(
                f"Two different files of the lock file want the name {name}.",
                where=item.artifact.where,
                remedy="Make the lock file again with its own tool.",
            )
        folders |= {"/".join(parts[:count]) for count in range(1, len(parts))}
    if clash := next((name for name in names if name in folders), ""):
        raise Refusal(f"{clash} is a file and a folder of packages at once.", where=names[clash].artifact.where)
    return names


def link(names: Mapping[str, Fetched], folder: Path) -> None:
    """Link files into a folder."""
    folder.chmod(0o755)  # the sandbox runs as another user, whatever the umask is
    made = {folder}
    for name, item in names.items():
        place = folder / name
        for parent in reversed(place.relative_to(folder).parents[:-1]):
            if folder / parent not in made:
                (folder / parent).mkdir(exist_ok=True)
                (folder / parent).chmod(0o755)
                made.add(folder / parent)
        try:
            place.hardlink_to(item.path)
        except OSError as error:
            if error.errno not in {errno.EXDEV, errno.EMLINK, errno.EPERM}:
                raise
            shutil.copyfile(item.path, place)
            place.chmod(0o444)


def is_laid_out(names: Mapping[str, Fetched], folder: Path) -> bool:
    """Return whether a folder holds exactly these names, each the very file in the store."""
    found: set[str] = set()
    waiting = [("", folder)]
    try:
        while waiting:
            prefix, place = waiting.pop()
            with os.scandir(place) as entries:
                for entry in entries:
                    name = f"{prefix}{entry.name}"
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append((f"{name}/", Path(entry.path)))
                    elif (
                        name in names
                        and entry.inode() == names[name].path.lstat().st_ino
                        and entry.is_file(follow_symlinks=False)
                    ):
                        found.add(name)
                    else:
                        return False
    except OSError:
        return False
    return len(found) == len(names)
