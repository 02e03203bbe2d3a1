"""What a step may read, laid out as folders that the sandbox mounts read-only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from stages.build.language import Artifact, Wheels
from stages.build.linking import link_file
from stages.build.materials import Fetcher, Material, materials_of, materials_of_wheels
from stages.build.pack import Entry, entries_of_tree, merged
from stages.build.project import Project
from stages.build.unpack import write_tree


@dataclass(frozen=True)
class Packages:
    """Fetched packages."""

    folder: Path
    materials: tuple[Material, ...]
    hold: Callable[[], AbstractContextManager[Path]] | None = None
    """Keeps the folder for longer than the build; None where it is the build's own."""


def overlay_entries(project: Project) -> tuple[Entry, ...]:
    """Return the files that the line laid over a workload's."""
    return tuple(Entry(path, "file", size=len(data), data=data) for path, data in sorted(project.overlay.items()))


def subset(project: Project, paths: Sequence[str]) -> tuple[Entry, ...]:
    """Return some of a workload's files and folders; what is not there is left out.

    Raises:
        Refusal: a name or link among them that the rules refuse.
    """
    found: dict[str, Entry] = {}
    for path in paths:
        if project.has_folder(path):
            inside = entries_of_tree(project.root / path)
            found |= {f"{path}/{entry.path}": replace(entry, path=f"{path}/{entry.path}") for entry in inside}
        elif path in project.overlay:
            found[path] = Entry(path, "file", size=len(project.overlay[path]), data=project.overlay[path])
        elif project.has(path):
            status = (project.root / path).lstat()
            executable = bool(status.st_mode & 0o111)
            found[path] = Entry(path, "file", executable, status.st_size, source=project.root / path)
    found |= {entry.path: entry for entry in overlay_entries(project)
              if any(entry.path.startswith(f"{path}/") for path in paths)}  # fmt: skip
    return tuple(sorted(merged([found.values()], where=project.name), key=lambda entry: entry.path))


def seed_folder(project: Project, source: Sequence[str] | None, place: Path) -> dict[str, Path]:
    """Return the inputs that hold a step's share of the workload's files.

    All of them are mounted as they stand, without a copy; a share is written out, because what is not mounted cannot
    be read.
    """
    if source is None:
        return {}
    if source:
        seed = place / "seed"
        seed.mkdir()
        write_tree(subset(project, source), seed)
        return {"seed": seed}
    entries_of_tree(project.root)  # the rules hold for what goes in, too
    if not project.overlay:
        return {"seed": project.root}
    overlay = place / "overlay"
    overlay.mkdir()
    write_tree(merged([overlay_entries(project)], where=project.name), overlay)
    return {"seed": project.root, "overlay": overlay}


def packages_folder(
    fetcher: Fetcher, artifacts: tuple[Artifact, ...] | Wheels, place: Path, held: ExitStack
) -> Packages:
    """Return a folder of fetched packages, and what they are.

    Args:
        fetcher: where they come from.
        artifacts: which.
        place: a folder of the build's own, for what has to be laid out.
        held: keeps the files in the fetcher's store until it is closed.

    Raises:
        Refusal: a package is not there, or is not what the lock says.
        TemporaryError: an index cannot be reached.
    """
    if not isinstance(artifacts, Wheels):
        hold = partial(fetcher.laid_out, fetcher.files(artifacts))
        return Packages(held.enter_context(hold()), materials_of(artifacts) or (), hold)
    wheels = fetcher.wheels(artifacts.packages, python=artifacts.python)
    folder = place / "packages"
    folder.mkdir()
    folder.chmod(0o755)  # whatever the umask: the sandbox's user reads it
    lines = []
    for wheel in wheels:
        link_file(wheel.path, folder / wheel.name)
        lines.append(f"{replace(wheel.locked, hashes=(wheel.sha256,)).requirement()}\n")
    (folder / "requirements.txt").write_text("".join(lines), encoding="utf-8")
    (folder / "requirements.txt").chmod(0o644)
    return Packages(folder, materials_of_wheels(wheels))
