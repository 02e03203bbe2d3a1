"""The advisory database: taken from the zone's own registry, by digest, never from the internet by the scanner.

The scanner would go on with a database that is old, and with none that it can refresh. So the line fetches the database
itself, checks its digest, and gives each its own folder: a scan uses exactly the database that its report names.
Format: github.com/aquasecurity/trivy-db, an OCI artifact with one tar.gz of `trivy.db` and `metadata.json`.
"""

from __future__ import annotations

import json
import shutil
import tarfile
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sekisho.advisories import REPOSITORY, SCHEMA_VERSION, TAG, database_kind
from sekisho.canonical import Digest, hex_of
from sekisho.errors import PermanentError, Refusal
from sekisho.model import AdvisoryDatabase
from sekisho.oci import Manifest
from sekisho.registry import Registry
from stages.scan.java_names import ensure_java_names

_FILES = ("metadata.json", "trivy.db")
_LIMIT = 8 << 30
_KEPT_SECONDS = 86_400
_SKEW = timedelta(days=1)
_ADVISORY = b"CVE-"
_REMEDY = "Mirror a trivy-db into the zone's registry as mirror/trivy-db:2; sekisho up pushes the sample."


@dataclass(frozen=True)
class Database:
    """A database on disk, ready for the scanner."""

    folder: Path
    """The scanner's cache folder, with this database in it."""
    identity: AdvisoryDatabase


def current_digest(registry: Registry) -> Digest:
    """Return the digest of the database that the zone's mirror offers now.

    Raises:
        PermanentError: there is none; without it nothing can be scanned, and what was not scanned has not passed.
    """
    digest = registry.resolve(REPOSITORY, TAG)
    if digest is None:
        raise PermanentError("There is no advisory database.", where=f"{REPOSITORY}:{TAG}", remedy=_REMEDY)
    return digest


def ensure_database(registry: Registry, cache: Path, digest: Digest | None = None) -> Database:
    """Return a database of the mirror, fetched if it is not in the cache.

    Args:
        registry: the zone's registry.
        cache: folder for databases and the scanner's layer cache.
        digest: which; the one that the mirror offers now when None.

    Raises:
        PermanentError: there is none, or it is not a whole trivy-db of the right schema.
    """
    wanted = digest or current_digest(registry)
    raw = registry.get_manifest(REPOSITORY, wanted)
    if raw is None:
        raise PermanentError("The advisory database is not there.", where=f"{REPOSITORY}@{wanted}", remedy=_REMEDY)
    manifest = Manifest.parse(raw.data, where=REPOSITORY)
    kind = database_kind(raw.data)
    folder = cache / "advisories" / hex_of(wanted)
    if not all((folder / "db" / name).is_file() for name in _FILES):
        _fetch(registry, manifest, folder, cache)
        _prune(folder)
    ensure_java_names(folder)
    updated = _updated(folder / "db" / "metadata.json")
    return Database(folder, AdvisoryDatabase(digest=wanted, updated_at=updated, kind=kind))


def _fetch(registry: Registry, manifest: Manifest, folder: Path, cache: Path) -> None:
    layer = manifest.layers[0]
    layers = cache / "layers"
    layers.mkdir(parents=True, exist_ok=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetch-") as scratch:
        packed = Path(scratch) / "db.tar.gz"
        registry.pull_blob(REPOSITORY, layer.digest, packed, size=layer.size)
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
    advisories = 0
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
                    while piece := content.read(1 << 20):
                        file.write(piece)
                        advisories += piece.count(_ADVISORY)
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise PermanentError(f"The advisory database is damaged: {error}", where=REPOSITORY, remedy=_REMEDY) from error
    if found != set(_FILES):
        raise PermanentError("The advisory database is not whole.", where=REPOSITORY, remedy=_REMEDY)
    if not advisories:
        # The scanner opens an empty one without a word, and finds nothing.
        raise PermanentError("The advisory database holds no advisory.", where=REPOSITORY, remedy=_REMEDY)


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
