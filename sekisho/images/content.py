"""What an image holds: the root file systems behind its layers, made as its recipe says.

An image's own part becomes layers in one order: packages, then one layer for each archive's target, then what a
program of the recipe made. A layer of archives depends on nothing but the archives, so that the run image and the
build image of a language share it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sekisho.images.archives import by_target, for_architecture, obtain, unpack
from sekisho.images.bootstrap import compile_python, copy_rootfs, make_rootfs, run_in
from sekisho.images.distil import cut_status, distilled
from sekisho.images.elf import check_whole
from sekisho.images.keystore import rewrite_keystore
from sekisho.images.rootfs import dpkg_packages, make_directories, make_links, make_users, place_files
from sekisho.images.sources import TOOL, Sources
from sekisho.images.tree import Difference, Tree, difference, path_filter, read_tree
from sekisho.standard import ArchiveSpec, DebianSpec, Recipe, StandardFile, StandardSpec
from sekisho.tools.lock import architecture
from sekisho.zones import home


@dataclass(frozen=True)
class Step:
    """One layer to write."""

    root: Path
    difference: Difference
    title: str


@dataclass(frozen=True)
class Content:
    """What an image will hold: all of it as a tree, its own part as layers."""

    tree: Tree
    steps: tuple[Step, ...]
    packages: tuple[str, ...]
    sources: dict[str, str]
    """Debian source, `name=version`, of each package that is not built from one of its own name and version."""


@dataclass(frozen=True)
class Below:
    """What the parent image holds; nothing for an image without one."""

    tree: Tree
    packages: tuple[str, ...] = ()
    sources: dict[str, str] | None = None


def apt_cache() -> Path:
    """Return the folder of downloaded Debian packages."""
    return home() / "cache" / "apt"


@dataclass(frozen=True)
class Maker:
    """Makes the content of images.

    Args:
        file: all recipes.
        sources: finds the files that recipes name.
        essential: returns the root file system of a release's essential packages.
    """

    file: StandardFile
    sources: Sources
    essential: Callable[[DebianSpec], Path]

    def make(self, spec: StandardSpec, work: Path, below: Below) -> Content:
        """Make an image's content in the folder `work`."""
        recipe = spec.recipe
        if recipe.variant == "files":
            content = self._from_files(spec, work, below)
        else:
            content = self._from_packages(spec, work, below)
        content = self._with_archives(content, own_archives(recipe), work)
        if recipe.variant == "distilled":
            changed = {entry.path: step.root for step in content.steps for entry in step.difference.changed}
            check_whole(content.tree, changed)
        return self._with_run(content, spec, work) if recipe.run else content

    def _from_packages(self, spec: StandardSpec, work: Path, below: Below) -> Content:
        """Install the packages of the whole chain over the essential ones; the layer is the difference."""
        root = work / "root"
        debian = self.file.debian_of(spec)
        essential = self.essential(debian)
        chain = self.file.chain(spec)
        packages = [package for image in chain for package in image.recipe.packages]
        if packages:
            make_rootfs(debian, root, variant="custom", packages=packages, cache=apt_cache(), parent=essential)
        else:
            copy_rootfs(essential, root)
        for image in chain:
            self._dress(root, image.recipe)
        for image in chain[:-1]:
            self._unpack(root, own_archives(image.recipe))
        for interpreter in sorted((root / "usr" / "bin").glob("python3.[0-9]*")):
            compile_python(root, interpreter.name)
        rewrite_keystore(root, epoch=self.file.debian.epoch)
        tree = read_tree(root, self._drop(chain))
        if spec.recipe.variant == "distilled":
            cut_status(root, packages)
            tree = read_tree(root, self._drop(chain))
            tree = distilled(root, tree, packages, [glob for image in chain for glob in _kept(image.recipe)])
        title = f"Debian {debian.suite}: {', '.join(spec.recipe.packages) or 'essential packages'}"
        found, origins = dpkg_packages(root)
        return Content(tree, _steps(root, difference(below.tree, tree), title), found, origins)

    def _from_files(self, spec: StandardSpec, work: Path, below: Below) -> Content:
        """Add single files: one layer for the tools, one for the rest, because tools change less often."""
        recipe = spec.recipe
        tools = tuple(item for item in recipe.files if item.source.startswith(TOOL))
        others = tuple(item for item in recipe.files if item not in tools)
        parts = [recipe.model_copy(update={"files": others})]
        if tools:
            parts.insert(0, Recipe(variant=recipe.variant, parent=recipe.parent, files=tools))
        tree = dict(below.tree)
        steps: list[Step] = []
        for number, part in enumerate(parts):
            root = work / f"files-{number}"
            root.mkdir()
            self._dress(root, part)
            found = read_tree(root, path_filter(()))
            added = {path: entry for path, entry in found.items() if entry.kind != "directory" or path not in tree}
            title = f"files: {', '.join(item.target for item in part.files)}"
            steps += _steps(root, difference({}, added), title)
            tree.update(added)
        return Content(tree, tuple(steps), below.packages, dict(below.sources or {}))

    def _with_archives(self, content: Content, archives: Sequence[ArchiveSpec], work: Path) -> Content:
        tree, steps = dict(content.tree), list(content.steps)
        for number, group in enumerate(by_target(archives).values()):
            root = work / f"archives-{number}"
            root.mkdir()
            self._unpack(root, group)
            found = read_tree(root, path_filter(()))
            steps.append(Step(root, difference({}, found), ", ".join(item.purl for item in group)))
            tree.update(found)
        return Content(tree, tuple(steps), content.packages, content.sources)

    def _with_run(self, content: Content, spec: StandardSpec, work: Path) -> Content:
        """Run the recipe's program in the whole root, archives and all, and keep what it made."""
        run = spec.recipe.run
        assert run is not None  # noqa: S101  (the caller looked)
        root = work / "root"
        self._unpack(root, own_archives(spec.recipe))
        run_in(root, run.command, dict(run.environment))
        keep = path_filter(run.keep)
        after = {path: entry for path, entry in read_tree(root, path_filter(())).items() if keep.fullmatch(path)}
        made = difference({path: content.tree[path] for path in after if path in content.tree}, after)
        tree = {**content.tree, **after}
        return Content(tree, (*content.steps, *_steps(root, made, run.title)), content.packages, content.sources)

    def _unpack(self, root: Path, archives: Sequence[ArchiveSpec]) -> None:
        for item in archives:
            unpack(item, obtain(item), root, epoch=self.file.debian.epoch)

    def _dress(self, root: Path, recipe: Recipe) -> None:
        make_users(root, recipe.users)
        make_directories(root, recipe.directories)
        make_links(root, recipe.links)
        place_files(root, recipe.files, self.sources.open)

    def _drop(self, chain: Sequence[StandardSpec]) -> re.Pattern[str]:
        return path_filter([*self.file.debian.drop, *(glob for image in chain for glob in image.recipe.drop)])


def own_archives(recipe: Recipe) -> tuple[ArchiveSpec, ...]:
    """Return the archives of a recipe for this machine's architecture."""
    return for_architecture(recipe.archives, architecture())


def _kept(recipe: Recipe) -> list[str]:
    files, folders = (item.target for item in recipe.files), (item.target for item in recipe.directories)
    placed = [*files, *folders, *recipe.links]
    return [*recipe.keep, *(target.strip("/") for target in placed)]


def _steps(root: Path, made: Difference, title: str) -> tuple[Step, ...]:
    return (Step(root, made, title),) if made.changed or made.removed else ()
