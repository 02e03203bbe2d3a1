"""Telling when files of the working copy were saved.

Notices come from the kernel (inotify, FSEvents, ...) by the `watchfiles` library, which polls where there is none.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

from watchfiles import Change, DefaultFilter, watch

from stages.dev.workcopy import IGNORED

_STEP_MS = 15
_GATHER_MS = 60
"""An editor saves in several steps, and 'save all' many files: what comes within this time is one save."""
_LOOK_MS = 500


class _Filter(DefaultFilter):
    """Leaves out what nobody commits; what git ignores is told later, when the copy is brought up to date."""

    ignore_dirs = tuple(IGNORED)
    ignore_entity_patterns = (
        *DefaultFilter.ignore_entity_patterns,
        # What editors write beside a file while they save it: vim, emacs, kate.
        r"^4913$",
        r"^\.#",
        r"\.kate-swp$",
    )

    def __call__(self, change: Change, path: str) -> bool:
        return super().__call__(change, path)


def saves(folder: Path, stop: threading.Event) -> Iterator[tuple[str, ...]]:
    """Yield the paths of each save, relative to the folder; ends when `stop` is set."""
    for changes in watch(
        folder,
        watch_filter=_Filter(),
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
