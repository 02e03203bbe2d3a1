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
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from sekisho.canonical import Digest, digest_of_json, hex_of
from sekisho.errors import Refusal
from sekisho.images.bootstrap import check_host, make_rootfs
from sekisho.images.content import Below, Maker, apt_cache, own_archives
from sekisho.images.layer import COMPRESSOR, write_layer
from sekisho.images.layout import image_config, image_labels, images_home, write_layout
from sekisho.images.sources import Sources, project_root
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
from sekisho.images.tree import tree_to_json
from sekisho.standard import SPEC_FILE, DebianSpec, LockedArchive, StandardFile, StandardLock, StandardSpec, load_spec
from sekisho.tools.lock import architecture

BUILDER = "sekisho-images/2"
"""Part of every key: whoever changes what this package writes into images changes it."""

Progress = Callable[[str], None]


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
        builder.ensure_all(_with_parents(file, set(only)) if only else names)
        lock = StandardLock(images={name: record.locked() for name, record in builder.records.items()})
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
    fresh: set[Path] = field(default_factory=set)
    """Root file systems that this run made."""
    base_lock: threading.Lock = field(default_factory=threading.Lock)

    def ensure_all(self, wanted: set[str]) -> None:
        """Ensure all images, parents before children, as many at once as there are processors.

        Raises:
            SekishoError: the first failure; what was under way is finished, the rest is not begun.
        """
        waiting = {spec.name: spec for spec in self.file.images}
        running: dict[Future[None], str] = {}
        with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="image") as pool:
            try:
                while waiting or running:
                    unfinished = {*waiting, *running.values()}
                    for spec in [item for item in waiting.values() if item.recipe.parent not in unfinished]:
                        running[pool.submit(self.ensure, spec, wanted=spec.name in wanted)] = spec.name
                        del waiting[spec.name]
                    done, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        name = running.pop(future)
                        if future.exception():
                            self.progress(f"{name}: failed; {len(running)} under way are finished first")
                        future.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        # The order of the lock does not tell who was ready first.
        self.records = {spec.name: self.records[spec.name] for spec in self.file.images if spec.name in self.records}

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
                # Without defaults: a new kind of field does not make every image anew.
                "spec": spec.model_dump(mode="json", exclude_defaults=True),
                "debian": self.file.debian_of(spec).model_dump(mode="json", exclude_defaults=True),
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
        under = Below(read_tree_of(spec.recipe.parent), parent.packages, parent.sources) if parent else Below({})
        maker = Maker(self.file, self.sources, self._essential)
        content = maker.make(spec, work, under)
        epoch = self.file.debian.epoch
        own = [write_layer(step.root, step.difference, blobs, epoch=epoch, title=step.title) for step in content.steps]
        layers = (*below, *own)
        config = image_config(spec, layers, epoch=epoch, architecture=architecture())
        made = write_layout(layout, config, layers, image_labels(spec))
        archives = [item for image in self.file.chain(spec) for item in own_archives(image.recipe)]
        record = BuildRecord(
            key=key,
            digest=made.digest,
            packages=content.packages,
            sources=content.sources,
            archives=tuple(LockedArchive(purl=item.purl, url=item.url, sha256=item.sha256) for item in archives),
            layers=layers,
            built_at=_now(),
        )
        (layout / TREE).write_text(json.dumps(tree_to_json(content.tree)), encoding="utf-8")
        (layout / RECORD).write_bytes(record.canonical())
        place(spec.name, layout, record.digest)
        shutil.rmtree(work)
        return record

    def _essential(self, debian: DebianSpec) -> Path:
        """Return the root file system of the essential packages, with package lists; made where it is not there."""
        with self.base_lock:
            kept = _place_of(debian)
            if kept.is_dir() and (kept in self.fresh or not self.refresh):
                return kept
            self.progress(f"debian {debian.suite}: package lists and essential packages")
            kept.parent.mkdir(parents=True, exist_ok=True)
            used = {_place_of(self.file.debian_of(spec)) for spec in self.file.images} - {kept}
            for leftover in set(kept.parent.iterdir()) - used:
                shutil.rmtree(leftover)
            made = kept.parent / f"{TEMPORARY}{os.getpid()}"
            make_rootfs(debian, made, variant="essential", packages=(), cache=apt_cache())
            made.replace(kept)
            self.fresh.add(kept)
            return kept


def _place_of(debian: DebianSpec) -> Path:
    """Return where a release's root file system of the essential packages is kept."""
    return base_cache() / hex_of(digest_of_json([BUILDER, debian.suite, list(debian.mirrors), debian.epoch]))[:32]


def _now() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
