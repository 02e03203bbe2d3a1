"""`python -m stages.dev.lock FOLDER`: make the lock of a working copy that has none, in the dev zone, and write it.

The line's own way to resolve (`stages.build.resolution`), with the developer's engine and the way to the indexes that
`sekisho dev` has. Whether the gate resolves by itself is the policy's to say; here it is asked for, so that there is
something to commit.

Exit codes: 0 the lock is there, 1 refused or a fault, 2 wrong use.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from sekisho.cli.output import complain
from sekisho.errors import SekishoError, UsageError
from sekisho.lock_files import write_lock_files
from stages.build.language import Unlocked
from stages.build.planning import Draft, Standards, Unresolved, unsatisfied
from stages.build.project import Project
from stages.build.resolution import Resolved
from stages.dev.workcopy import Copy


class Resolving(Protocol):
    """What of a builder is needed; `stages.build.Builder` has it."""

    @property
    def standard(self) -> Standards:
        """The standard images."""
        ...

    @property
    def work(self) -> Path:
        """Folder for what does not last."""
        ...

    def draft(self, project: Project) -> Draft:
        """Return what a folder's language says is to be done."""
        ...

    def resolve(self, unresolved: Unresolved) -> Resolved:
        """Make the lock files of a workload that has none."""
        ...


def make_lock(folder: Path, builder: Resolving) -> Mapping[str, bytes]:
    """Return the lock files of a working copy, by path; none where it has its lock.

    Raises:
        Refusal: it cannot be built, or the package manager failed.
        TemporaryError: an index or the engine cannot be reached.
    """
    with tempfile.TemporaryDirectory(dir=builder.work, prefix="lock-") as scratch:
        copy = Copy(folder, Path(scratch) / folder.name)
        copy.update()
        project = Project(copy.folder)
        plan = builder.draft(project).plan
        if not isinstance(plan, Unlocked):
            return {}
        tools = builder.standard.for_language(plan.built_in or plan.language, plan.version)[1]
        unresolved = Unresolved(project, plan, tools)
        files = builder.resolve(unresolved).files
        if isinstance(builder.draft(project.with_files(files)).plan, Unlocked):
            raise unsatisfied(unresolved)
        return files


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="sekisho lock", description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("folder", type=Path, help="the folder with score.yaml")
    parser.add_argument("--as", dest="login", default="", help="who you are; by default your login name")
    parser.add_argument("--force", action="store_true", help="replace files that are different")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    options = parser.parse_args(arguments)
    try:
        if not options.folder.is_dir():
            raise UsageError("There is no such folder.", where=str(options.folder))
        files = _made(options.folder.resolve(), options.login)
        written = write_lock_files(options.folder, files, force=options.force)
    except SekishoError as error:
        complain("sekisho lock", error)
        return error.exit_code
    if options.json:
        sys.stdout.write(json.dumps({"files": [vars(item) for item in written]}) + "\n")
        return 0
    for item in written:
        sys.stdout.write(f"{item.path}  {item.state}\n")
    sys.stdout.write(
        f"Commit it: git add {' '.join(item.path for item in written)}\n" if written else "The lock is there already.\n"
    )
    return 0


def _made(folder: Path, login: str) -> Mapping[str, bytes]:
    from stages.dev.image import builder_of  # noqa: PLC0415 -- wrong use is told at once
    from stages.dev.place import find_place  # noqa: PLC0415

    place = find_place(login, os.environ)
    builder = builder_of(place, place.root / "cache" / "lock")
    try:
        return make_lock(folder, builder)
    finally:
        builder.sandbox.close()


if __name__ == "__main__":
    raise SystemExit(main())
