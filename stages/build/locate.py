"""Where in a repository an app's workload is: where the score.yaml with its name stands.

A repository of one workload has its score.yaml at the top. A monorepo has one in each workload's folder, and every
app is pushed the whole repository: its folder is the one whose score.yaml has the app's name.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from sekisho.errors import Refusal
from stages.build.scores import MAX_BYTES, SCORE, score_name

TOP = "."
_DEPTH = 4
_MAX_SCORES = 500
_MAX_ALL = 8 << 20
"""Bytes of all score.yaml files together."""
_SHOWN = 5
_SKIPPED = frozenset({".git", "node_modules", "vendor"})


def locate(tree: Path, app: str) -> str:
    """Return the folder of an app's workload in a checkout, relative to its top; the top where nothing says more.

    Raises:
        Refusal: two folders hold a score.yaml with the app's name; others hold one, and none has that name; or there
            are too many.
    """
    if os.path.lexists(tree / SCORE):
        return TOP
    names = dict(_scores(tree))
    found = sorted(folder for folder, name in names.items() if name == app)
    if len(found) > 1:
        raise Refusal(
            f"More than one folder has a score.yaml named {app!r}: {', '.join(found[:_SHOWN])}.",
            where=SCORE,
            remedy="Give each workload a name of its own.",
        )
    if names and not found:
        shown = ", ".join(f"{folder}/{SCORE} ({name or 'no name'})" for folder, name in sorted(names.items())[:_SHOWN])
        raise Refusal(
            f"No score.yaml of this repository is named {app!r}; there is {shown}.",
            where=SCORE,
            remedy=f"Write metadata.name: {app} into the workload's own, or push to the app that it names.",
        )
    return found[0] if found else TOP


def _scores(tree: Path) -> Iterator[tuple[str, str]]:
    count = size = 0
    for folder, folders, files in os.walk(tree, followlinks=False):
        place = Path(folder).relative_to(tree)
        folders[:] = [] if len(place.parts) >= _DEPTH else sorted(set(folders) - _SKIPPED)
        path = Path(folder) / SCORE
        if SCORE in files and not path.is_symlink():
            data = _read(path)
            count, size = count + 1, size + len(data)
            if count > _MAX_SCORES or size > _MAX_ALL:
                raise Refusal(
                    f"There are more than {_MAX_SCORES} score.yaml files, or more than {_MAX_ALL >> 20} MiB of them.",
                    where=place.as_posix(),
                    remedy="Put the workload's score.yaml at the top, or keep others out of the repository.",
                )
            yield place.as_posix(), score_name(data)


def _read(path: Path) -> bytes:
    """Return a file's bytes; of one that is too large only so many that it is refused for that."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError:
        return b""
