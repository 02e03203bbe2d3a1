"""The modules of a workload: its go.mod, a go.work, and the folders that stand for other modules."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sekisho.errors import Refusal
from stages.build.languages.go_mod import MOD, WORK, ModFile, Replacement, parse_mod
from stages.build.languages.go_tree import OwnModule
from stages.build.locks_go import LOCK_COMMAND, LOCK_FILE, GoSum, Module, parse_go_sum
from stages.build.project import Project

WORK_SUM = "go.work.sum"
VENDOR = "vendor"
_COMPLETE = (1, 17)
"""Since then a go.mod file names every module that the program needs (https://go.dev/ref/mod#graph-pruning)."""


@dataclass(frozen=True)
class Workspace:
    """What a workload's module files say together."""

    project: Project
    work: ModFile | None
    """go.work, where it counts."""
    files: Mapping[str, ModFile]
    """go.mod by folder; empty is the workload's own."""
    modules: tuple[OwnModule, ...]

    @property
    def vendored(self) -> bool:
        """Whether the packages of others are in the commit."""
        return self.project.has(f"{VENDOR}/modules.txt")

    @property
    def mains(self) -> tuple[ModFile, ...]:
        """The go.mod files of the modules that are built for themselves."""
        return tuple(self.files[module.folder] for module in self.modules if module.main)

    @property
    def replaces(self) -> tuple[Replacement, ...]:
        """What replaces what; a go.work comes first."""
        files = (*((self.work,) if self.work else ()), *self.mains)
        return tuple(item for file in files for item in file.replaces)

    @property
    def needs(self) -> tuple[Module, ...]:
        """The modules of others that are required, as they are replaced."""
        everything = ModFile("", replaces=self.replaces)
        own = {module.path for module in self.modules}
        found = {everything.replaced(item) for file in self.files.values() for item in file.requires
                 if item.path not in own}  # fmt: skip
        return tuple(sorted(module for module in found if module is not None))

    @property
    def required(self) -> frozenset[str]:
        """Paths of the modules of others, as they are imported."""
        own = {module.path for module in self.modules}
        return frozenset(item.path for file in self.files.values() for item in file.requires) - own

    @property
    def complete(self) -> bool:
        """Whether `needs` is all that a program needs."""
        return self.work is None and all((file.go or (1, 0)) >= _COMPLETE for file in self.mains)

    @property
    def newest(self) -> ModFile:
        """The file that asks for the newest Go."""
        files: list[ModFile] = [*((self.work,) if self.work else ()), *self.files.values()]
        return max(files, key=lambda file: file.go or (1, 0))

    @property
    def manifests(self) -> tuple[str, ...]:
        """Paths of the files that say which modules there are, sorted."""
        names = [f"{folder}/{name}" if folder else name for folder in self.files for name in (MOD, LOCK_FILE)]
        return tuple(sorted(path for path in (*names, WORK, WORK_SUM) if self.project.has(path)))

    def sums(self) -> GoSum:
        """Return what the lock files say.

        Raises:
            Refusal: a lock file is wrong; or it is missing in a workspace, where the line does not make one.
        """
        for module in self.modules:
            path = posixpath.join(module.folder, LOCK_FILE)
            if self.work and module.main and self.files[module.folder].requires and not self._locked(path):
                raise Refusal(
                    f"{posixpath.join(module.folder, MOD)} requires modules, and there is no {path}.",
                    where=path,
                    remedy=f"Run in {module.folder or 'the top folder'}: {LOCK_COMMAND}; then commit {path}.",
                )
        names = [posixpath.join(module.folder, LOCK_FILE) for module in self.modules if module.main]
        texts = [(name, self.project.text(name)) for name in (*names, *([WORK_SUM] if self.work else []))]
        return parse_go_sum(*((name, text) for name, text in texts if text is not None))

    def _locked(self, path: str) -> bool:
        own = {module.path for module in self.modules}
        file = self.files[posixpath.dirname(path)]
        return self.project.has(path) or self.project.has(WORK_SUM) or all(item.path in own for item in file.requires)


def read_workspace(project: Project) -> Workspace:
    """Return the modules of a workload.

    Raises:
        Refusal: a file cannot be read, or a folder it names is not in the workload.
    """
    own = _mod(project, "")
    work = _work(project, own)
    files: dict[str, ModFile] = {}
    modules: list[OwnModule] = []
    for folder in _used(project, work) if work else [""]:
        files[folder] = _existing(project, folder)
        modules.append(OwnModule(files[folder].path, folder, main=True))
    required = {item.path for file in files.values() for item in file.requires}
    replaces = [("", item) for item in (work.replaces if work else ())]
    replaces += [(folder, item) for folder, file in files.items() for item in file.replaces]
    known = {module.path for module in modules}
    todo = [(base, item) for base, item in replaces if item.folder]
    while ready := [pair for pair in todo if pair[1].old in required and pair[1].old not in known]:
        for base, item in ready:
            if item.old in known:
                continue
            folder = _inside(base, item.folder, item.where, f"{item.old} is replaced by {item.folder}")
            files.setdefault(folder, _replacing(project, folder, item))
            known.add(item.old)
            modules.append(OwnModule(item.old, folder, main=False))
            required |= {other.path for other in files[folder].requires}
    return Workspace(project, work, files, tuple(modules))


def _mod(project: Project, folder: str) -> ModFile | None:
    path = posixpath.join(folder, MOD)
    text = project.text(path)
    return None if text is None else parse_mod(text, where=path)


def _work(project: Project, own: ModFile | None) -> ModFile | None:
    """Return go.work, unless a go.mod beside it is none of its modules: the go command would refuse to build that."""
    text = project.text(WORK)
    if text is None:
        return None
    work = parse_mod(text, where=WORK, kind=WORK)
    if own is not None and not any(posixpath.normpath(folder) == "." for folder, _ in work.uses):
        return None
    return work


def _used(project: Project, work: ModFile) -> list[str]:
    if not work.uses:
        raise Refusal("go.work uses no module.", where=WORK, remedy="Run: go work use -r .")
    found = [_inside("", folder, where, f"The workspace uses {folder}") for folder, where in work.uses]
    for folder, (_, where) in zip(found, work.uses, strict=True):
        if not project.has(posixpath.join(folder, MOD)):
            raise Refusal(
                f"The workspace uses {folder or '.'}, and there is no {posixpath.join(folder, MOD)}.",
                where=where,
                remedy="Commit it, or remove the line.",
            )
    return list(dict.fromkeys(found))


def _existing(project: Project, folder: str) -> ModFile:
    file = _mod(project, folder)
    if file is None:
        raise Refusal(
            "There is no go.mod: nothing says which modules the program is made of.",
            where=project.name,
            remedy=f"Run: go mod init <path of the module>; then: {LOCK_COMMAND}",
        )
    return file


def _replacing(project: Project, folder: str, item: Replacement) -> ModFile:
    file = _mod(project, folder)
    if file is None:
        raise Refusal(
            f"{item.old} is replaced by {item.folder}, and there is no go.mod in that folder.",
            where=item.where,
            remedy="Commit the folder with its go.mod, or remove the replace line.",
        )
    return file


def _inside(base: str, written: str, where: str, what: str) -> str:
    """Return a folder relative to the workload.

    Raises:
        Refusal: it is outside.
    """
    folder = posixpath.normpath(posixpath.join(base, written))
    if folder == ".." or folder.startswith(("../", "/")):
        raise Refusal(
            f"{what}, which is outside of the workload's folder.",
            where=where,
            remedy="Put score.yaml into the folder that holds both (a go.work there names the modules), "
            "or require a published version.",
        )
    return "" if folder == "." else folder


def folders_of(modules: Iterable[OwnModule]) -> tuple[str, ...]:
    """Return the folders of the modules that only others need."""
    return tuple(module.folder for module in modules if not module.main)
