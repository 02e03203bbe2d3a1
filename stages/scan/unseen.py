"""What the scanner passes over when it looks for secrets in a folder, by name alone: laid before it under other names.

A commit is known to whoever may read it, whatever its files are called. The scanner leaves out `node_modules`, lock
files, endings of pictures and archives (also a text of that name, as SVG is one), and folders at the top that are the
kernel's on a machine; and it takes UTF-16 for binary. Source: github.com/aquasecurity/trivy,
pkg/fanal/analyzer/secret/secret.go and pkg/fanal/walker; the unit tests ask the pinned scanner about each.
"""

from __future__ import annotations

import codecs
import os
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from sekisho.errors import PermanentError

_MODULES = "node_modules"
_NEVER_COMMITTED = frozenset({".git", ".venv", _MODULES, "venv"})
_TOP = frozenset({"proc", "sys", "dev"})
_NAMES = frozenset({"go.mod", "go.sum", "package-lock.json", "Pipfile.lock", "pnpm-lock.yaml", "yarn.lock"})
_ENDINGS = frozenset({
    ".bin", ".deb", ".doc", ".gif", ".gz", ".jpg", ".pdf", ".png", ".rpm", ".svg", ".tar", ".zip",
})  # fmt: skip
_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_TEXT_LIMIT = 64 << 20


def lay_out(folder: Path, scratch: Path, *, committed: bool = True) -> dict[str, str]:
    """Put the files that the scanner would pass over into an empty folder, under names that it reads.

    Args:
        folder: the source tree.
        scratch: an empty folder of the scan's own.
        committed: whether all of the tree is in a commit; a working copy has folders that nobody commits.

    Returns:
        Name in `scratch` to path in the tree; empty when there is nothing to look at again.

    Raises:
        PermanentError: a file cannot be read; what was not looked at has not passed.
    """
    names: dict[str, str] = {}
    try:
        for path in _files(folder, frozenset() if committed else _NEVER_COMMITTED):
            relative = path.relative_to(folder).as_posix()
            wide = _is_wide(path)
            if wide or passed_over(PurePosixPath(relative)):
                name = f"{len(names):06d}.txt"
                _put(path, scratch / name, wide=wide)
                names[name] = relative
    except OSError as error:
        raise PermanentError(f"The source tree cannot be read: {error}", where=str(folder)) from error
    return names


def passed_over(path: PurePosixPath) -> bool:
    """Tell whether the scanner passes over a file of this name when it looks for secrets."""
    folders = path.parts[:-1]
    return (
        _MODULES in folders or (bool(folders) and folders[0] in _TOP) or path.name in _NAMES or path.suffix in _ENDINGS
    )


def _files(folder: Path, without: frozenset[str]) -> Iterator[Path]:
    def stop(error: OSError) -> None:
        raise error

    for parent, folders, names in os.walk(folder, onerror=stop):
        folders[:] = sorted(set(folders) - without)
        for name in sorted(names):
            path = Path(parent, name)
            if path.is_file() and not path.is_symlink():
                yield path


def _is_wide(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) in _MARKS


def _put(path: Path, target: Path, *, wide: bool) -> None:
    if wide and path.stat().st_size <= _TEXT_LIMIT:
        target.write_text(path.read_bytes().decode("utf-16", "replace"), encoding="utf-8")
        return
    try:
        os.link(path, target, follow_symlinks=False)
    except OSError:  # another file system
        shutil.copyfile(path, target)
