"""The advisory databases: taken from the zone's own registry, by digest, never from the internet by the scanner.

The scanner would go on with a database that is old, with an empty one, and with none that it can refresh. So the line
fetches the database itself, checks its digest and that there are advisories in it, and gives each its own folder: a
scan uses exactly the database that its report names. Beside the world's there may be one of the operator's own.
Format: github.com/aquasecurity/trivy-db, an OCI artifact with one tar.gz of `trivy.db` and `metadata.json`.
"""

from __future__ import annotations

import errno
import json
import shutil
import tarfile
import tempfile
import time
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from sekisho.advisories import REPOSITORY, SCHEMA_VERSION, TAG, database_kind
from sekisho.boltdb import root_keys
from sekisho.canonical import Digest, hex_of
from sekisho.errors import PermanentError, Refusal, TemporaryError
from sekisho.model import AdvisoryDatabase
from sekisho.oci import Manifest
from sekisho.own_advisories import REPOSITORY as OWN_REPOSITORY
from sekisho.own_advisories import OwnAdvisories, published
from sekisho.registry import Registry
from stages.scan.java_names import ensure_java_names

_FILES = ("metadata.json", "trivy.db")
_LIMIT = 8 << 30
_KEPT_SECONDS = 86_400
_SKEW = timedelta(days=1)
_REMEDY = "Mirror a trivy-db into the zone's registry as mirror/trivy-db:2; sekisho up pushes the sample."
_OWN_REMEDY = "Publish them again: sekisho advisories publish."


@dataclass(frozen=True)
class Database:
    """A database on disk, ready for the scanner."""

    folder: Path
    """The scanner's cache folder, with this database in it."""
    identity: AdvisoryDatabase
    buckets: frozenset[str] = frozenset()
    """What it knows: systems (`debian 12`) and kinds of packages (`pip::...`)."""


@dataclass(frozen=True)
class OwnDatabase:
    """The operator's own advisories, ready for the scanner."""

    folder: Path
    digest: Digest
    advisories: OwnAdvisories


@dataclass(frozen=True)
class Current:
    """What the zone's registry offers now."""

    database: Digest
    own: Digest | None = None


def current_digest(registry: Registry) -> Digest:
    """Return the digest of the database that the zone's mirror offers now.

    Raises:
        PermanentError: there is none; without it nothing can be scanned, and what was not scanned has not passed.
    """
    digest = registry.resolve(REPOSITORY, TAG)
    if digest is None:
        raise PermanentError("There is no advisory database.", where=f"{REPOSITORY}:{TAG}", remedy=_REMEDY)
    return digest


def current(registry: Registry) -> Current:
    """Return what is in force now: the mirror's database, and the operator's own where one was published.

    Raises:
        PermanentError: the mirror has no database.
    """
    return Current(current_digest(registry), registry.resolve(OWN_REPOSITORY, TAG))


def check_current(registry: Registry, used: Current, where: str) -> None:
    """Check that a scan used what is in force.

    Raises:
        TemporaryError: a database was published during the scan.
    """
    if current(registry) != used:
        raise TemporaryError("The advisory database changed during the scan.", where=where, delay=0.5)


def ensure_database(registry: Registry, cache: Path, digest: Digest | None = None) -> Database:
    """Return a database of the mirror, fetched if it is not in the cache.

    Args:
        registry: the zone's registry.
        cache: folder for databases and the scanner's layer cache.
        digest: which; the one that the mirror offers now when None.

    Raises:
        PermanentError: there is none, or it is not a whole trivy-db of the right schema with advisories in it.
    """
    wanted = digest or current_digest(registry)
    manifest, kind = _manifest(registry, REPOSITORY, wanted)
    if kind == "own":
        raise PermanentError("The mirror holds own advisories only.", where=REPOSITORY, remedy=_REMEDY)
    folder = _ensure(registry, REPOSITORY, manifest, cache, cache / "advisories" / hex_of(wanted))
    buckets = frozenset(key.decode("utf-8", "replace") for key in root_keys(folder / "db" / "trivy.db"))
    if not any("::" in name or " " in name for name in buckets) or "vulnerability" not in buckets:
        # The scanner makes an empty database out of an empty file, and finds nothing in it.
        raise PermanentError("The advisory database holds no advisories.", where=REPOSITORY, remedy=_REMEDY)
    updated = _updated(folder / "db" / "metadata.json")
    return Database(folder, AdvisoryDatabase(digest=wanted, updated_at=updated, kind=kind), buckets)


def ensure_own(registry: Registry, cache: Path, digest: Digest | None) -> OwnDatabase | None:
    """Return the operator's own advisories, fetched if they are not in the cache; None where there are none.

    Args:
        registry: the zone's registry.
        cache: folder for databases and the scanner's layer cache.
        digest: which.

    Raises:
        PermanentError: they are not what they say.
    """
    if digest is None:
        return None
    manifest, kind = _manifest(registry, OWN_REPOSITORY, digest)
    advisories = published(registry, digest)
    if kind != "own" or advisories is None:
        raise PermanentError("These are not own advisories.", where=OWN_REPOSITORY, remedy=_OWN_REMEDY)
    folder = _ensure(registry, OWN_REPOSITORY, manifest, cache, cache / "own-advisories" / hex_of(digest))
    root_keys(folder / "db" / "trivy.db")
    return OwnDatabase(folder, digest, advisories)


def _manifest(
    registry: Registry, repository: str, digest: Digest
) -> tuple[Manifest, Literal["mirror", "sample", "own"]]:
    raw = registry.get_manifest(repository, digest)
    if raw is None:
        raise PermanentError("The advisory database is not there.", where=f"{repository}@{digest}", remedy=_REMEDY)
    return Manifest.parse(raw.data, where=repository), database_kind(raw.data)


def _ensure(registry: Registry, repository: str, manifest: Manifest, cache: Path, folder: Path) -> Path:
    if not _is_whole(folder):
        _fetch(registry, repository, manifest, folder, cache)
        _prune(folder)
    ensure_java_names(folder)
    return folder


def _is_whole(folder: Path) -> bool:
    """Tell whether a kept database can still be read: a machine may have died while it was written."""
    try:
        root_keys(folder / "db" / "trivy.db")
    except PermanentError:
        return False
    return (folder / "db" / "metadata.json").is_file()


def _fetch(registry: Registry, repository: str, manifest: Manifest, folder: Path, cache: Path) -> None:
    layer = manifest.layers[0]
    layers = cache / "layers"
    layers.mkdir(parents=True, exist_ok=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetch-") as scratch:
        packed = Path(scratch) / "db.tar.gz"
        registry.pull_blob(repository, layer.digest, packed, size=layer.size)
        ready = Path(scratch) / "ready"
        (ready / "db").mkdir(parents=True)
        _unpack(packed, ready / "db")
        _updated(ready / "db" / "metadata.json")
        # What the scanner learnt about layers does not depend on the advisories: one cache for all databases.
        (ready / "fanal").symlink_to(layers.absolute(), target_is_directory=True)
        shutil.rmtree(folder, ignore_errors=True)
        ready.rename(folder)


def _unpack(packed: Path, target: Path) -> None:
    found: set[str] = set()
    try:
        with tarfile.open(packed, "r:gz") as tar:
            for member in tar:
                name = member.name.removeprefix("./")
                if member.isdir():
                    continue
                if name not in _FILES or name in found or not member.isreg() or member.size > _LIMIT:
                    raise PermanentError(f"The advisory database holds {name[:60]!r}.", where=REPOSITORY)
                found.add(name)
                content = tar.extractfile(member)
                assert content is not None  # noqa: S101  (a regular file)
                with (target / name).open("wb") as file:
                    shutil.copyfileobj(content, file, 1 << 20)
    except (tarfile.TarError, OSError, EOFError, ValueError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise TemporaryError(f"There is no room for the advisory database: {error}", where=REPOSITORY) from error
        raise PermanentError(f"The advisory database is damaged: {error}", where=REPOSITORY, remedy=_REMEDY) from error
    if found != set(_FILES):
        raise PermanentError("The advisory database is not whole.", where=REPOSITORY, remedy=_REMEDY)
    try:
        root_keys(target / "trivy.db")
    except PermanentError as error:
        said = f"The advisory database is damaged: {error.what}"
        raise PermanentError(said, where=REPOSITORY, remedy=_REMEDY) from error


def _updated(path: Path) -> str:
    """Return the date of a database (RFC 3339, UTC) after checking its schema."""
    try:
        said = json.loads(path.read_bytes())
        version, text = said["Version"], said["UpdatedAt"]
        time_ = datetime.fromisoformat(text[:19]).replace(tzinfo=UTC)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PermanentError(
            "The advisory database has no valid metadata.", where=REPOSITORY, remedy=_REMEDY
        ) from error
    if version != SCHEMA_VERSION:
        raise PermanentError(
            f"The advisory database has schema {version!r:.20}, not {SCHEMA_VERSION}.", where=REPOSITORY
        )
    if time_ > datetime.now(UTC) + _SKEW:
        raise Refusal("The advisory database is dated in the future.", where=REPOSITORY, remedy=_REMEDY)
    return time_.strftime("%Y-%m-%dT%H:%M:%SZ")


def _prune(kept: Path) -> None:
    """Remove databases that no scan can be using any more."""
    for other in kept.parent.iterdir():
        if other != kept and time.time() - other.stat().st_mtime > _KEPT_SECONDS:
            shutil.rmtree(other, ignore_errors=True)
