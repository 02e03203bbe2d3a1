"""Archives of package indexes in images: fetched by hash, checked by all that is said of them, unpacked by our rules.

A pinned archive is still somebody's file: only regular files are taken out of it, each below its target, with the
modes 0644 and 0755 and no owner but root.

Formats: npm tarballs; wheels (PEP 427); a Go module's zip and its `h1:` sum (golang.org/x/mod/sumdb/dirhash).
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from sekisho.canonical import digest_of_file, hex_of
from sekisho.errors import PermanentError, VerificationError
from sekisho.images.rootfs import make_links
from sekisho.images.tree import path_filter
from sekisho.standard import ArchiveSpec
from sekisho.tools.upstream import download
from sekisho.zones import home

_CHUNK = 1 << 20
_SIZE_LIMIT = 1 << 30
_ODD = re.compile(r"[\x00-\x1f\x7f\\]")
_EXECUTE = 0o111
_REMEDY = "Do not use it. Look at the pin in policies/standard-images.yaml and at whoever answers for the index."

Member = tuple[str, bool, IO[bytes]]
"""Path, whether it is executable, content."""


def for_architecture(archives: Iterable[ArchiveSpec], architecture: str) -> tuple[ArchiveSpec, ...]:
    """Return the archives that an image of this architecture takes.

    Raises:
        PermanentError: a package is pinned for other architectures only.
    """
    archives = tuple(archives)
    chosen = tuple(item for item in archives if item.architecture in ("", architecture))
    covered = {(item.target, item.take) for item in chosen}
    for item in archives:
        if (item.target, item.take) not in covered:
            raise PermanentError(
                f"{item.purl} is pinned for {item.architecture}, not for {architecture}.",
                where="policies/standard-images.yaml",
                remedy="Pin the archive of this architecture beside it.",
            )
    return chosen


def by_target(archives: Iterable[ArchiveSpec]) -> dict[str, tuple[ArchiveSpec, ...]]:
    """Return archives grouped into layers, in the order in which the targets are first named."""
    groups: dict[str, tuple[ArchiveSpec, ...]] = {}
    for item in archives:
        groups[item.target] = (*groups.get(item.target, ()), item)
    return groups


def obtain(archive: ArchiveSpec) -> Path:
    """Return an archive as a file, from the cache or from its index, checked now.

    Raises:
        VerificationError: what the index gave is not what is pinned.
        TemporaryError: the index does not answer.
    """
    kept = home() / "cache" / "archives" / archive.sha256
    if kept.is_file():
        if hex_of(digest_of_file(kept)) == archive.sha256:
            return kept
        kept.unlink()  # damaged on disk; fetched anew
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent, prefix=".new-") as scratch:
        part = Path(scratch) / "archive"
        download(archive.url, part, archive.sha256)
        for said in archive.also:
            if said != (found := _integrity(part, said)):
                raise VerificationError(
                    f"{archive.purl} has {found}, but {said} is pinned.", where=archive.url, remedy=_REMEDY
                )
        part.replace(kept)
    return kept


def unpack(archive: ArchiveSpec, source: Path, root: Path, *, epoch: int) -> None:
    """Unpack an archive into a root file system, with its links; every file gets the same time.

    Raises:
        PermanentError: it cannot be read, holds what no archive may hold, or nothing of what the recipe takes.
    """
    take, leave = path_filter(archive.take or ("**",)), path_filter(archive.leave)
    executable = path_filter(archive.executable)
    target = archive.target.strip("/")
    taken, size = 0, 0
    try:
        for name, runs, content in _members(source, archive):
            path = "/".join(name.split("/")[archive.strip :])
            if not path or not take.fullmatch(path) or leave.fullmatch(path):
                continue
            mode = 0o755 if runs or executable.fullmatch(path) else 0o644
            place, length = _write(root, f"{target}/{path}", content, mode)
            os.utime(place, (epoch, epoch))
            size += length
            taken += 1
            if size > _SIZE_LIMIT:
                raise PermanentError(f"{archive.purl} holds more than {_SIZE_LIMIT >> 20} MiB.", where=archive.url)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, NotImplementedError) as error:
        raise PermanentError(
            f"{archive.purl} cannot be unpacked: {error}", where=archive.url, remedy=_REMEDY
        ) from error
    if not taken:
        raise PermanentError(f"{archive.purl} holds nothing of what the recipe takes.", where=archive.url)
    make_links(root, archive.links)


def module_sum(zipped: Path) -> str:
    """Return the `h1:` sum of a Go module's zip: a digest over the sorted digests of its files."""
    lines = []
    with zipfile.ZipFile(zipped) as archive:
        for name in sorted(archive.namelist()):
            with archive.open(name) as content:
                lines.append(f"{hashlib.sha256(content.read()).hexdigest()}  {name}\n")
    summed = hashlib.sha256("".join(lines).encode()).digest()
    return f"h1:{base64.b64encode(summed).decode()}"


def _integrity(path: Path, said: str) -> str:
    if said.startswith("h1:"):
        return module_sum(path)
    with path.open("rb") as file:
        return f"sha512-{base64.b64encode(hashlib.file_digest(file, 'sha512').digest()).decode()}"


def _members(source: Path, archive: ArchiveSpec) -> Iterator[Member]:
    zipped = archive.url.endswith((".zip", ".whl"))
    for name, runs, content in _of_zip(source) if zipped else _of_tar(source, archive):
        parts = name.split("/")
        if _ODD.search(name) or name.startswith("/") or ".." in parts or "" in parts or "." in parts:
            raise PermanentError(f"{archive.purl} holds the name {name[:80]!r}.", where=archive.url, remedy=_REMEDY)
        yield name, runs, content


def _of_zip(source: Path) -> Iterator[Member]:
    with zipfile.ZipFile(source) as opened:
        for item in opened.infolist():
            if not item.is_dir():
                with opened.open(item) as content:
                    yield item.filename, bool(item.external_attr >> 16 & _EXECUTE), content


def _of_tar(source: Path, archive: ArchiveSpec) -> Iterator[Member]:
    with tarfile.open(source, "r:gz") as opened:
        for item in opened:
            if item.isdir():
                continue
            content: Any = opened.extractfile(item) if item.isreg() else None
            if content is None:
                raise PermanentError(
                    f"{archive.purl} holds {item.name[:80]!r}, which is no regular file.", where=archive.url
                )
            yield item.name.removeprefix("./"), bool(item.mode & _EXECUTE), content


def _write(root: Path, path: str, content: IO[bytes], mode: int) -> tuple[Path, int]:
    place = _parents(root, path)
    with place.open("wb") as out:
        shutil.copyfileobj(content, out, _CHUNK)
        size = out.tell()
    place.chmod(mode)
    return place, size


def _parents(root: Path, path: str) -> Path:
    place = root / path
    made = [above for above in place.parents if above.is_relative_to(root) and not above.exists()]
    for above in reversed(made):
        above.mkdir()
        above.chmod(0o755)  # whatever the umask is
    return place
