"""Writing checked entries to a folder: the only place where what a sandbox made becomes files again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from sekisho.errors import PermanentError
from stages.build.pack import FIXED_TIME, Entry, opened

_CHUNK = 1 << 20


def write_tree(entries: Iterable[Entry], folder: Path) -> dict[str, str]:
    """Write entries into an empty folder, readable by everybody, and return each one's digest.

    All files and folders have one time: compilers such as cargo take what is newer for changed, and what a build finds
    must not depend on the moment at which it was kept.

    Files come first and links last, so that no file is ever written through a link. The entries' names and links were
    checked by `pack`.

    Returns:
        For each path the sha256 of a file in hexadecimal, or `link:` and where a link points to.

    Raises:
        PermanentError: a file changed while it was read.
    """
    digests: dict[str, str] = {}
    made = {""}
    for entry in sorted(entries, key=lambda entry: entry.kind == "link"):
        parent = entry.path.rpartition("/")[0]
        if parent not in made:
            (folder / parent).mkdir(parents=True, exist_ok=True)
            made.add(parent)
        target = folder / entry.path
        if entry.kind == "link":
            target.symlink_to(entry.target)
            digests[entry.path] = f"link:{entry.target}"
        else:
            digests[entry.path] = _write_file(entry, target)
    for place, _, _ in os.walk(folder):
        Path(place).chmod(0o755)  # whatever the umask: the sandbox's user reads it
        os.utime(place, (FIXED_TIME, FIXED_TIME))
    return digests


def _write_file(entry: Entry, target: Path) -> str:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    hasher = hashlib.sha256()
    left = entry.size
    with opened(entry) as source, open(os.open(target, flags, 0o600), "wb") as file:  # noqa: PTH123  (flags)
        while left:
            piece = source.read(min(left, _CHUNK))
            if not piece:
                raise PermanentError(f"{entry.path!r} changed while it was read.", remedy="Run the line again.")
            hasher.update(piece)
            file.write(piece)
            left -= len(piece)
        os.fchmod(file.fileno(), 0o755 if entry.executable else 0o644)
        file.flush()
        os.utime(file.fileno(), (FIXED_TIME, FIXED_TIME))
    return hasher.hexdigest()
