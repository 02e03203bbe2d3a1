"""Builds the standard images: what changed is built, the rest is left.

    home()/images/<name>                      link to the image's OCI layout
    home()/images/.store/<digest>/            the layouts, with build.json: what they were built from
    home()/images/standard-images.lock.yaml   name -> digest and package versions
    home()/cache/debian/, home()/cache/apt/   what can be made again

A layout is made in a temporary directory and takes its place by one rename of a link. Who is killed leaves a
temporary directory, which the next build removes.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from sekisho.canonical import Digest, digest_of_json, hex_of
from sekisho.errors import Refusal
from sekisho.images.bootstrap import check_host, compile_python, copy_rootfs, make_rootfs
from sekisho.images.layer import COMPRESSOR, write_layer
from sekisho.images.layout import image_config, image_labels, images_home, write_layout
from sekisho.images.rootfs import archive_packages, dpkg_packages, make_directories, make_users, place_files
from sekisho.images.sources import TOOL, Sources, project_root
from sekisho.images.store import (
    RECORD,
    TEMPORARY,
    TREE,
    BuildRecord,
    base_cache,
    clean,
    exclusive,
    place,
    prune,
    read_record,
    read_tree_of,
    write_lock,
)
from sekisho.images.tree import Difference, Tree, difference, path_filter, read_tree, tree_to_json
from sekisho.standard import SPEC_FILE, LockEntry, Recipe, StandardFile, StandardLock, StandardSpec, load_spec
from sekisho.tools.lock import architecture
from sekisho.zones import home

BUILDER = "sekisho-images/1"
"""Part of every key: whoever changes what this package writes into images changes it."""

Progress = Callable[[str], None]


@dataclass(frozen=True)
class _Step:
    """One layer to write."""

    root: Path
    difference: Difference
    title: str


@dataclass(frozen=True)
class _Content:
    """What an image will hold: all of it as a tree, its own part as layers."""

    tree: Tree
    steps: tuple[_Step, ...]
    packages: tuple[str, ...]


def build_all(
    progress: Progress = lambda _: None,
    *,
    only: tuple[str, ...] = (),
    refresh: bool = False,
    policies: Path | None = None,
    project: Path | None = None,
) -> StandardLock:
    """Build the standard images that are missing or whose recipe changed; a warm call only looks.

    Args:
        progress: told one line about each thing that takes time.
        only: names to build; their parents are built as needed. All where empty.
        refresh: ask Debian for newer packages and build again; what did not change gets the same digest.
        policies: folder of standard-images.yaml; the project's where None.
        project: root of the files that recipes name; this project's where None.

    Returns:
        The lock, as it was written to `lock_path()`.

    Raises:
        Refusal: the recipes are not valid, or a name is unknown.
        TemporaryError: the Debian mirror does not answer, or another build is under way.
        PermanentError: a program is missing, or a build failed.
    """
    root = project or project_root()
    file = load_spec((policies or root / "policies") / SPEC_FILE)
    names = {spec.name for spec in file.images}
    if unknown := sorted(set(only) - names):
        raise Refusal(
            f"There is no standard image {', '.join(unknown)}.", remedy=f"Choose from: {', '.join(sorted(names))}."
        )
    images_home().mkdir(parents=True, exist_ok=True)
    with exclusive():
        clean()
        builder = _Builder(file, Sources(root), progress, refresh=refresh)
        wanted = _with_parents(file, set(only)) if only else names
        for spec in file.images:
            builder.ensure(spec, wanted=spec.name in wanted)
        lock = StandardLock(
            images={
                name: LockEntry(digest=record.digest, packages=record.packages, built_at=record.built_at)
                for name, record in builder.records.items()
            }
        )
        write_lock(lock)
        if builder.built:
            prune()
    return lock


def _with_parents(file: StandardFile, names: set[str]) -> set[str]:
    for spec in reversed(file.images):
        if spec.name in names and spec.recipe.parent:
            names.add(spec.recipe.parent)
    return names


@dataclass
class _Builder:
    """One run of the builder, under the lock."""

    file: StandardFile
    sources: Sources
    progress: Progress
    refresh: bool
    records: dict[str, BuildRecord] = field(default_factory=dict)
    built: bool = False
    fresh_base: bool = False

    def ensure(self, spec: StandardSpec, *, wanted: bool) -> None:
        """Build `spec` where it is wanted and not there. Its parent was ensured before."""
        record = read_record(spec.name)
        if not wanted:
            if record is not None:
                self.records[spec.name] = record
            return
        key = self._key(spec)
        if record is None or record.key != key or self.refresh:
            check_host()
            self.progress(f"{spec.name}: building")
            built = self._build(spec, key)
            size = sum(layer.size for layer in built.layers) / 1e6
            same = ", the same as before" if record is not None and record.digest == built.digest else ""
            self.progress(f"{spec.name}: {built.digest[:19]}, {size:.1f} MB{same}")
            self.built = True
            record = built
        self.records[spec.name] = record

    def _key(self, spec: StandardSpec) -> Digest:
        parent = self.records.get(spec.recipe.parent)
        return digest_of_json(
            {
                "builder": BUILDER,
                "compressor": COMPRESSOR,
                "architecture": architecture(),
                "spec": spec.model_dump(mode="json"),
                "debian": self.file.debian.model_dump(mode="json"),
                "files": {item.source: self.sources.identity(item.source) for item in spec.recipe.files},
                "parent": parent.digest if parent else "",
            }
        )

    def _build(self, spec: StandardSpec, key: Digest) -> BuildRecord:
        work = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=images_home()))
        work.chmod(0o755)
        layout = work / "layout"
        blobs = layout / "blobs" / "sha256"
        blobs.mkdir(parents=True)
        parent = self.records.get(spec.recipe.parent)
        below = parent.layers if parent else ()
        for layer in below:
            os.link(
                images_home() / spec.recipe.parent / "blobs" / "sha256" / hex_of(layer.digest),
                blobs / hex_of(layer.digest),
            )
        parent_tree = read_tree_of(spec.recipe.parent) if parent else {}
        by_files = spec.recipe.variant in ("files", "extract")
        content = (self._from_files if by_files else self._from_packages)(spec, work, parent_tree)
        epoch = self.file.debian.epoch
        own = [write_layer(step.root, step.difference, blobs, epoch=epoch, title=step.title) for step in content.steps]
        layers = (*below, *own)
        config = image_config(spec, layers, epoch=epoch, architecture=architecture())
        made = write_layout(layout, config, layers, image_labels(spec))
        record = BuildRecord(key=key, digest=made.digest, packages=content.packages, layers=layers, built_at=_now())
        (layout / TREE).write_text(json.dumps(tree_to_json(content.tree)), encoding="utf-8")
        (layout / RECORD).write_bytes(record.canonical())
        place(spec.name, layout, record.digest)
        shutil.rmtree(work)
        return record

    def _from_packages(self, spec: StandardSpec, work: Path, parent_tree: Tree) -> _Content:
        """Install the packages of the whole chain over the essential ones; the layer is the difference."""
        root = work / "root"
        chain = self._chain(spec)
        base = self._essential()
        packages = [package for image in chain for package in image.recipe.packages]
        if packages:
            make_rootfs(self.file.debian, root, variant="custom", packages=packages, cache=_apt_cache(), parent=base)
        else:
            copy_rootfs(base, root)
        for image in chain:
            self._dress(root, image.recipe)
        for interpreter in sorted((root / "usr" / "bin").glob("python3.[0-9]*")):
            compile_python(root, interpreter.name)
        drop = path_filter([*self.file.debian.drop, *(glob for image in chain for glob in image.recipe.drop)])
        tree = read_tree(root, drop)
        title = f"Debian {self.file.debian.suite}: {', '.join(spec.recipe.packages) or 'essential packages'}"
        return _Content(tree, (_Step(root, difference(parent_tree, tree), title),), dpkg_packages(root))

    def _from_files(self, spec: StandardSpec, work: Path, parent_tree: Tree) -> _Content:
        """Add single files: one layer for the tools, one for the rest, because tools change less often."""
        recipe = spec.recipe
        fetched = work / "packages" if recipe.variant == "extract" else None
        parent = self.records.get(recipe.parent)
        packages = parent.packages if parent else ()
        if fetched is not None:
            make_rootfs(self.file.debian, fetched, variant="extract", packages=recipe.packages, cache=_apt_cache())
            packages = archive_packages(fetched / "var" / "cache" / "apt" / "archives", recipe.packages)
        tools = tuple(item for item in recipe.files if item.source.startswith(TOOL))
        others = tuple(item for item in recipe.files if item not in tools)
        parts = [recipe.model_copy(update={"files": others})]
        if tools:
            parts.insert(0, Recipe(variant=recipe.variant, parent=recipe.parent, files=tools))
        tree, steps = dict(parent_tree), []
        for number, part in enumerate(parts):
            root = work / f"files-{number}"
            root.mkdir()
            self._dress(root, part, fetched)
            found = read_tree(root, path_filter(()))
            added = {path: entry for path, entry in found.items() if entry.kind != "directory" or path not in tree}
            title = f"files: {', '.join(item.target for item in part.files)}"
            steps.append(_Step(root, difference({}, added), title))
            tree.update(added)
        return _Content(tree, tuple(steps), packages)

    def _dress(self, root: Path, recipe: Recipe, fetched: Path | None = None) -> None:
        make_users(root, recipe.users)
        make_directories(root, recipe.directories)
        place_files(root, recipe.files, lambda source: self.sources.open(source, fetched))

    def _chain(self, spec: StandardSpec) -> list[StandardSpec]:
        by_name = {image.name: image for image in self.file.images}
        chain = [spec]
        while chain[0].recipe.parent:
            chain.insert(0, by_name[chain[0].recipe.parent])
        return chain

    def _essential(self) -> Path:
        """Return the root file system of the essential packages, with package lists; made where it is not there."""
        debian = self.file.debian
        name = hex_of(digest_of_json([BUILDER, debian.suite, list(debian.mirrors), debian.epoch]))[:32]
        kept = base_cache() / name
        if kept.is_dir() and (self.fresh_base or not self.refresh):
            return kept
        self.progress("debian: package lists and essential packages")
        kept.parent.mkdir(parents=True, exist_ok=True)
        for leftover in kept.parent.iterdir():
            shutil.rmtree(leftover)
        made = kept.parent / f"{TEMPORARY}{os.getpid()}"
        make_rootfs(debian, made, variant="essential", packages=(), cache=_apt_cache())
        made.replace(kept)
        self.fresh_base = True
        return kept


def _apt_cache() -> Path:
    return home() / "cache" / "apt"


def _now() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
