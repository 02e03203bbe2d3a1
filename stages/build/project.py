"""A workload's files, read with care: they are a stranger's."""

from __future__ import annotations

import fnmatch
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath

from sekisho.errors import Refusal
from sekisho.model import NAME_PATTERN
from stages.build.scores import MAX_BYTES, SCORE, score_name

READ_LIMIT = 8 << 20
_NAME = re.compile(NAME_PATTERN)


@dataclass(frozen=True)
class Project:
    """The folder of one workload, and files laid over it.

    Nothing here follows a symbolic link, in the last component or before it.
    """

    root: Path
    overlay: Mapping[str, bytes] = field(default_factory=dict)
    """Files that the line resolved for this commit: they stand in for those of the folder."""

    @cached_property
    def app(self) -> str:
        """Name of the workload as its score.yaml says it; empty where it says none. It is shown, and logged."""
        said = score_name(self.read(SCORE, limit=MAX_BYTES) or b"")
        return said if _NAME.fullmatch(said) else ""

    @property
    def name(self) -> str:
        """Name of the workload, else of the folder: a checkout's is nobody's choice."""
        return self.app or self.root.name

    def has(self, path: str) -> bool:
        """Return whether there is a plain file of this name."""
        return path in self.overlay or self._plain(path, stat.S_ISREG)

    def has_folder(self, path: str) -> bool:
        """Return whether there is a folder of this name."""
        return self._plain(path, stat.S_ISDIR)

    def read(self, path: str, *, limit: int = READ_LIMIT) -> bytes | None:
        """Return a file's bytes, None where there is no such plain file.

        Raises:
            Refusal: larger than `limit` bytes.
        """
        if path in self.overlay:
            return self.overlay[path]
        if not self.has(path):
            return None
        with (self.root / path).open("rb") as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            most = f"{limit >> 20} MiB" if limit >> 20 else f"{limit >> 10} KiB"
            raise Refusal(f"{path} is larger than {most}.", where=path, remedy="Make it smaller.")
        return data

    def text(self, path: str, *, limit: int = READ_LIMIT) -> str | None:
        """Return a file's text (UTF-8, with or without a byte order mark), None where there is no such file.

        Raises:
            Refusal: not UTF-8, or larger than `limit` bytes.
        """
        data = self.read(path, limit=limit)
        if data is None:
            return None
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise Refusal(f"{path} is not UTF-8.", where=path, remedy="Save it as UTF-8.") from error

    def files(self, pattern: str = "*", *, below: str = "") -> tuple[str, ...]:
        """Return the paths of plain files whose name (last component) matches, sorted; `.git` is left out.

        Args:
            pattern: fnmatch pattern of the file name.
            below: folder to look in, with all folders below it.
        """
        start = self.root / below
        if below and not self.has_folder(below):
            return ()
        found = {path for path in self.overlay if fnmatch.fnmatchcase(PurePosixPath(path).name, pattern)
                 and (not below or path.startswith(f"{below}/"))}  # fmt: skip
        for folder, folders, names in os.walk(start, followlinks=False):
            folders[:] = [name for name in folders if name != ".git"]
            for name in names:
                path = Path(folder) / name
                if fnmatch.fnmatchcase(name, pattern) and stat.S_ISREG(path.lstat().st_mode):
                    found.add(path.relative_to(self.root).as_posix())
        return tuple(sorted(found))

    def with_files(self, files: Mapping[str, bytes]) -> Project:
        """Return the same project with files laid over it."""
        return Project(self.root, {**self.overlay, **files})

    def _plain(self, path: str, kind: object) -> bool:
        current = self.root
        parts = PurePosixPath(path).parts
        if not parts or path.startswith("/") or ".." in parts:
            return False
        try:
            for part in parts[:-1]:
                current /= part
                if not stat.S_ISDIR(current.lstat().st_mode):
                    return False
            return bool(kind((current / parts[-1]).lstat().st_mode))  # type: ignore[operator]
        except (OSError, ValueError):  # ValueError: NUL or half a surrogate pair, which no name on disk has
            return False
