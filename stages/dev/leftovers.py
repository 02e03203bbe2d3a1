"""What a session that was killed has left in the Docker engine and in its work folder.

Each app of each developer has a work folder of its own, and containers carry the folder's name (`Engine.owner`): what
is cleared is one app's, and only once nobody holds its namespace, so that no session ends another's build.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Leftovers:
    """Where one app's builds leave things in passing."""

    docker: Path
    """Socket of the Docker engine that builds."""
    registry: str
    """URL of the registry beside it."""
    work: Path

    def clear(self) -> int:
        """Remove them, and return how many containers that were. Whoever calls knows that nobody builds here.

        Raises:
            TemporaryError: the engine cannot be reached.
        """
        from sekisho.registry import Registry  # noqa: PLC0415 -- the caretaker hardly ever needs any of it
        from stages.build.sandbox import Sandbox  # noqa: PLC0415

        if not self.work.is_dir():
            return 0
        left = tuple(self.work.iterdir())
        found = Sandbox(self.docker, Registry(self.registry), self.work).sweep()
        for path in left:
            shutil.rmtree(path, ignore_errors=True)
        return found


def work_folder(root: Path, app: str) -> Path:
    """Return the work folder of one app in a developer's own folder."""
    return root / "cache" / "work" / app
