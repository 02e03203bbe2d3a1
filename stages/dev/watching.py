"""Telling when files of the working copy were saved.

Notices come from the kernel (inotify, FSEvents, ...) by the `watchfiles` library, which polls where there is none.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from watchfiles import Change, DefaultFilter, watch

from stages.working_copy import IGNORED, tracked

_STEP_MS = 15
_GATHER_MS = 60
"""An editor saves in several steps, and 'save all' many files: what comes within this time is one save."""
_LOOK_MS = 500


class _Filter(DefaultFilter):
    """Leaves out what nobody commits; what git ignores is told later, when the copy is brought up to date.

    Args:
        folder: the working copy. What stands above it says nothing about its files.
        tracked: files that git knows, relative to it: those are watched whatever their names are.
    """

    ignore_dirs = tuple(IGNORED)
    ignore_entity_patterns = (
        *DefaultFilter.ignore_entity_patterns,
        # What editors write beside a file while they save it: vim, emacs, kate.
        r"^4913$",
        r"^\.#",
        r"\.kate-swp$",
    )

    def __init__(self, folder: Path = Path("/"), tracked: Iterable[str] = ()) -> None:
        super().__init__()
        self._folder = folder
        self._kept = frozenset(name for name in tracked if not super(_Filter, self).__call__(Change.modified, name))

    def __call__(self, change: Change, path: str) -> bool:
        name = _relative(path, self._folder)
        return name in self._kept or super().__call__(change, name)


def saves(folder: Path, stop: threading.Event) -> Iterator[tuple[str, ...]]:
    """Yield the paths of each save, relative to the folder; ends when `stop` is set."""
    for changes in watch(
        folder,
        watch_filter=_Filter(folder, tracked(folder)),
        debounce=_GATHER_MS,
        step=_STEP_MS,
        rust_timeout=_LOOK_MS,
        yield_on_timeout=False,
        stop_event=stop,
        raise_interrupt=False,
        ignore_permission_denied=True,
    ):
        yield tuple(sorted({_relative(path, folder) for _, path in changes}))


def _relative(path: str, folder: Path) -> str:
    try:
        return Path(path).relative_to(folder).as_posix()
    except ValueError:
        return path
