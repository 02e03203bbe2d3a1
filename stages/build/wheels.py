"""Choosing the files of a Python lock: for each package the one that fits the target best, by the index's own page.

A lock names a package by the hashes of all its files. Which of them is taken is read from the package's page (PEP 503,
PEP 691, PEP 700) by the tags of the target: a wheel, else the source package, which the sandbox builds. Nothing but
the hash is believed, and no code of a package runs here. A choice is remembered under everything that decides it
(name, version, hashes, target), so a warm cache gives the same file as a cold one.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)

from sekisho.canonical import digest_of_json, hex_of
from sekisho.errors import PermanentError, Refusal
from stages.build.indexes_http import IndexClient
from stages.build.language import Artifact
from stages.build.locks import Locked

PLATFORMS = (
    *(f"manylinux_2_{minor}_x86_64" for minor in range(36, 16, -1)),
    "manylinux2014_x86_64",
    *(f"manylinux_2_{minor}_x86_64" for minor in range(16, 11, -1)),
    "manylinux2010_x86_64",
    *(f"manylinux_2_{minor}_x86_64" for minor in range(11, 4, -1)),
    "manylinux1_x86_64",
    "linux_x86_64",
)
"""Platform tags of the standard Python images, the best first: glibc 2.36 (Debian 12) or later, x86-64."""

_ACCEPT = "application/vnd.pypi.simple.v1+json, text/html;q=0.5"
_PAGE_LIMIT = 64 << 20
_PAGES_AT_ONCE = 16
_OK = 200
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Choice:
    """The file that stands for a locked package."""

    locked: Locked
    artifact: Artifact


@dataclass(frozen=True)
class _File:
    name: str
    url: str
    sha256: str


def choose_files(
    packages: Sequence[Locked], client: IndexClient, memory: Path, *, python: str
) -> tuple[Choice, ...]:  # fmt: skip
    """Return the file for each package, from memory or by the index's pages.

    Args:
        packages: what the lock pins.
        client: reads the index.
        memory: folder of earlier choices; made if missing.
        python: version of the target's Python.

    Raises:
        Refusal: no file with a locked hash fits the target.
        TemporaryError: the index cannot be reached.
        PermanentError: the index's page cannot be read.
    """
    memory.mkdir(parents=True, exist_ok=True)
    ranks = {tag: rank for rank, tag in enumerate(_tags(python))}

    def choose(locked: Locked) -> Choice:
        place = memory / f"{_key(locked, python)}.json"
        known = _remembered(place, locked)
        if known is not None:
            return Choice(locked, known)
        artifact = _chosen(locked, client, memory, ranks, python)
        _remember(place, artifact)
        return Choice(locked, artifact)

    with ThreadPoolExecutor(_PAGES_AT_ONCE) as pool:
        return tuple(pool.map(choose, packages))


def _tags(python: str) -> Iterator[Tag]:
    major, minor = (int(part) for part in python.split(".")[:2])
    yield from cpython_tags((major, minor), platforms=PLATFORMS)
    yield from compatible_tags((major, minor), f"cp{major}{minor}", PLATFORMS)


def _key(locked: Locked, python: str) -> str:
    return hex_of(digest_of_json([locked.name, locked.version, list(locked.hashes), python, list(PLATFORMS)]))


def _remembered(place: Path, locked: Locked) -> Artifact | None:
    try:
        said = json.loads(place.read_bytes())
        name, path, sha256 = said["name"], said["path"], said["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    plain = isinstance(name, str) and isinstance(path, str) and path.startswith("files/") and _is_of(name, locked)
    return _artifact(locked, name, path, sha256) if plain and sha256 in locked.hashes else None


def _remember(place: Path, artifact: Artifact) -> None:
    sha256 = artifact.digests[0].removeprefix("sha256:")
    data = json.dumps({"name": artifact.save_as, "path": artifact.path, "sha256": sha256})
    descriptor, part = tempfile.mkstemp(dir=place.parent)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(data)
    Path(part).replace(place)


def _artifact(locked: Locked, name: str, path: str, sha256: str) -> Artifact:
    return Artifact("pypi", path, (f"sha256:{sha256}",), name, locked.purl, locked.where)


def _chosen(locked: Locked, client: IndexClient, scratch: Path, ranks: dict[Tag, int], python: str) -> Artifact:
    files = _page(locked, client, scratch)
    own = [file for file in files if _is_of(file.name, locked)]
    if not own:
        raise Refusal(
            f"The package index lists no file of {locked.name} {locked.version}: the locked version has vanished "
            "from it, or was never there.",
            where=locked.where,
            remedy="Choose a version that the index lists, and lock again.",
        )
    good = [file for file in own if file.sha256 in locked.hashes]
    if own and not good:
        raise _mismatch(locked, own)
    ranked = sorted((rank, file.name, file) for file in good if (rank := _rank(file.name, ranks)) is not None)
    if not ranked:
        raise Refusal(
            f"{locked.name}=={locked.version} has neither a wheel with a locked hash for Python {python} on Linux "
            "x86_64 nor a source package.",
            where=locked.where,
            remedy="Choose a version that has one, and lock again.",
        )
    file = ranked[0][2]
    path = client.indexes.file_path("pypi", file.url)
    if not path:
        raise PermanentError(
            f"The package index keeps {file.name} at {urlsplit(file.url).netloc}, which the line may not reach.",
            where=locked.where,
            remedy="The platform team allows further hosts with SEKISHO_EGRESS_HOSTS.",
        )
    return _artifact(locked, file.name, path, file.sha256)


def _page(locked: Locked, client: IndexClient, scratch: Path) -> list[_File]:
    path = f"simple/{locked.name}/"
    descriptor, name = tempfile.mkstemp(dir=scratch, prefix=".page-")
    os.close(descriptor)
    page = Path(name)
    try:
        answer = client.get("pypi", path, page, limit=_PAGE_LIMIT, accept=_ACCEPT, packed=True)
        if answer.status != _OK:
            raise Refusal(
                f"The package index has no {locked.name} ({answer.status}).",
                where=locked.where,
                remedy="Choose a package that the index has, and lock again.",
            )
        data = page.read_bytes()
    finally:
        page.unlink(missing_ok=True)
    url = client.indexes.locate("pypi", path)
    try:
        return list(_of_json(data, url) if data.lstrip()[:1] == b"{" else _of_html(data, url))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise PermanentError(
            f"The package index's page about {locked.name} cannot be read.",
            where=locked.where,
            remedy="Check the index that the platform team has set: it must follow PEP 503 or PEP 691.",
        ) from error


def _of_json(data: bytes, url: str) -> Iterator[_File]:
    for item in json.loads(data)["files"]:
        sha256 = item.get("hashes", {}).get("sha256", "")
        yield _File(str(item["filename"]), urljoin(url, str(item["url"])), str(sha256).lower())


def _of_html(data: bytes, url: str) -> Iterator[_File]:
    links = _Links()
    links.feed(data.decode("utf-8", "replace"))
    for link in links.found:
        target, fragment = urldefrag(urljoin(url, link))
        name = unquote(urlsplit(target).path).rpartition("/")[2]
        yield _File(name, target, fragment.removeprefix("sha256=").lower())


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, Any]]) -> None:
        target = dict(attrs).get("href")
        if tag == "a" and target:
            self.found.append(target)


def _is_of(name: str, locked: Locked) -> bool:
    """Return whether a file name is this package in this version; other files of a page are none of ours."""
    try:
        if name.endswith(".whl"):
            project, version, _, _ = parse_wheel_filename(name)
        else:
            project, version = parse_sdist_filename(name)
    except (InvalidWheelFilename, InvalidSdistFilename):
        return False
    return canonicalize_name(project) == locked.name and str(version) == locked.version


def _rank(name: str, ranks: dict[Tag, int]) -> tuple[int, int, str] | None:
    """Return how well a file fits, the lowest best; None for not at all. Source packages come after all wheels."""
    if not name.endswith(".whl"):
        return len(ranks), 0 if name.endswith(".tar.gz") else 1, ""
    _, _, build, tags = parse_wheel_filename(name)
    fitting = [ranks[tag] for tag in tags if tag in ranks]
    number, letters = build or (0, "")
    return (min(fitting), -number, letters) if fitting else None


def _mismatch(locked: Locked, files: Sequence[_File]) -> Refusal | PermanentError:
    said = [file for file in files if _SHA256.fullmatch(file.sha256)]
    if not said:
        return PermanentError(
            f"The package index does not say the sha256 of the files of {locked.name}.",
            where=locked.where,
            remedy="The platform team sets an index that does, as PEP 503 recommends.",
        )
    shown = ", ".join(f"{file.name} has sha256 {file.sha256}" for file in said[:2])
    more = " …" if len(said) > 2 else ""  # noqa: PLR2004
    return Refusal(
        f"{locked.name}=={locked.version} is not what the lock file says: on the index {shown}{more}, locked is "
        f"{', '.join(locked.hashes[:2])}{' …' if len(locked.hashes) > 2 else ''}.",  # noqa: PLR2004
        where=locked.where,
        remedy="Find out why the package changed before you lock it again: a supply chain attack looks like this.",
    )
