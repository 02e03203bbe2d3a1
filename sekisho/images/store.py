"""The directory of built images: one builder at a time, whole images only."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sekisho.canonical import Digest, hex_of
from sekisho.errors import PermanentError, Refusal, TemporaryError
from sekisho.images.layer import LayerBlob
from sekisho.images.layout import images_home, lock_path
from sekisho.images.tree import Tree, tree_from_json
from sekisho.model import Document
from sekisho.standard import LockedArchive, LockEntry, StandardLock
from sekisho.zones import home

RECORD, TREE, TEMPORARY = "build.json", "tree.json", ".new-"
_STORE, _LOCK = ".store", ".lock"


class BuildRecord(Document):
    """What an image was built from, and what came out."""

    key: Digest
    digest: Digest
    packages: tuple[str, ...]
    sources: dict[str, str]
    archives: tuple[LockedArchive, ...]
    layers: tuple[LayerBlob, ...]
    built_at: str
    """RFC 3339, UTC."""

    def locked(self) -> LockEntry:
        """Return what the lock says of the image."""
        return LockEntry(
            digest=self.digest,
            packages=self.packages,
            sources=self.sources,
            archives=self.archives,
            recipe=self.key,
            size=sum(layer.size for layer in self.layers),
            built_at=self.built_at,
        )


@contextmanager
def exclusive() -> Iterator[None]:
    """Be the only builder.

    Raises:
        TemporaryError: another one is at work.
    """
    with (images_home() / _LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TemporaryError(
                "Another build of the standard images is under way.", where=str(images_home()), delay=10
            ) from error
        yield


def base_cache() -> Path:
    """Return the directory of the root file system that images start from."""
    return home() / "cache" / "debian"


def clean() -> None:
    """Remove what a killed build left."""
    for leftover in [*images_home().glob(f"{TEMPORARY}*"), *base_cache().glob(f"{TEMPORARY}*")]:
        if leftover.is_symlink() or leftover.is_file():
            leftover.unlink()
        else:
            shutil.rmtree(leftover)


def read_record(name: str) -> BuildRecord | None:
    """Return the record of a built image; None where there is none, or where it does not fit its layout."""
    root = images_home() / name
    try:
        record = BuildRecord.parse((root / RECORD).read_bytes(), where=str(root))
    except (OSError, Refusal):
        return None
    blobs = root / "blobs" / "sha256"
    names = [hex_of(record.digest), *(hex_of(layer.digest) for layer in record.layers)]
    return record if all((blobs / blob).is_file() for blob in names) else None


def read_tree_of(name: str) -> Tree:
    """Return what a built image holds.

    Raises:
        PermanentError: its record is damaged.
    """
    path = images_home() / name / TREE
    try:
        return tree_from_json(json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise PermanentError(
            f"The record of the image {name} cannot be read: {error}", where=str(path), remedy="Build with --refresh."
        ) from error


def place(name: str, layout: Path, digest: Digest) -> None:
    """Make a finished layout the image `name`, in one step."""
    kept = images_home() / _STORE / f"{name}-{hex_of(digest)[:32]}"
    kept.parent.mkdir(exist_ok=True)
    if kept.exists():
        # The same digest: only the key and the time may differ. Away first; the link still gives the old one till then.
        aside = images_home() / f"{TEMPORARY}old-{name}-{os.getpid()}"
        kept.rename(aside)
        layout.rename(kept)
        shutil.rmtree(aside)
    else:
        layout.rename(kept)
    link = images_home() / f"{TEMPORARY}link-{name}-{os.getpid()}"
    link.symlink_to(kept.relative_to(images_home()))
    link.replace(images_home() / name)


def prune() -> None:
    """Remove layouts that no image's link leads to."""
    used = {link.resolve() for link in images_home().iterdir() if link.is_symlink()}
    for layout in (images_home() / _STORE).iterdir():
        if layout.resolve() not in used:
            shutil.rmtree(layout)


def write_lock(lock: StandardLock) -> None:
    """Write the lock, whole or not at all; an unchanged one is left alone."""
    path, text = lock_path(), lock.to_yaml()
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return
    part = path.with_name(f"{TEMPORARY}{path.name}")
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
