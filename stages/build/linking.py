"""The same bytes under another name, without copying them where that can be had."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def link_file(source: Path, target: Path) -> None:
    """Give a file, or a link, a second name; a copy where that cannot be had, readable by everybody."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # another file system, or a file of somebody else
        shutil.copy2(source, target, follow_symlinks=False)
        if not target.is_symlink():
            target.chmod(0o755 if os.access(target, os.X_OK) else 0o644)


def link_tree(source: Path, target: Path) -> None:
    """Make a folder with the same files as another one. Folders that are links stay links."""
    for place, folders, files in os.walk(source):
        into = target / Path(place).relative_to(source)
        into.mkdir()
        into.chmod(0o755)  # whatever the umask: the sandbox's user reads it
        for name in (*files, *(name for name in folders if Path(place, name).is_symlink())):
            link_file(Path(place, name), into / name)
