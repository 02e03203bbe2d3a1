"""The advisory database that zones scan with: a small sample made here, or a mirror of trivy's own.

Trivy pulls a database as an OCI artifact with one layer, a gzipped tar of `trivy.db` (BoltDB) and `metadata.json`.
Source: github.com/aquasecurity/trivy-db, schema version 2 (pkg/db, pkg/types), and trivy's pkg/db and pkg/oci. Where
no public registry is reachable, the sample of policies/sample-advisories.yaml stands in: real advisories, but few. It
is marked with the annotation `sekisho.dev/advisories=sample`, and whoever reports a scan must say so.
"""

from __future__ import annotations

import datetime as dt
import gzip
import io
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError

from sekisho.boltdb import Bucket, write_database
from sekisho.canonical import Digest, canonical
from sekisho.errors import Refusal
from sekisho.model import Document, Severity
from sekisho.oci import OCI_MANIFEST, Descriptor, Manifest, make_manifest
from sekisho.registry import Registry

SAMPLE_FILE = "sample-advisories.yaml"
REPOSITORY, TAG = "mirror/trivy-db", "2"
"""Trivy's tag is its schema version."""
ANNOTATION = "sekisho.dev/advisories"
ANNOTATION_UPDATED = "sekisho.dev/advisories-updated-at"
LAYER_TYPE = "application/vnd.aquasec.trivy.db.layer.v1.tar+gzip"
CONFIG_TYPE = "application/vnd.aquasec.trivy.config.v1+json"
SCHEMA_VERSION = 2

_SEVERITIES = {severity: number for number, severity in enumerate(Severity)}
_DEBIAN = {
    "ID": "debian",
    "Name": "Debian Security Tracker",
    "URL": "https://salsa.debian.org/security-tracker-team/security-tracker",
}
_SOURCES: dict[str, tuple[str, dict[str, str]]] = {
    "pip": (
        "pip::GitHub Security Advisory Pip",
        {
            "ID": "ghsa",
            "Name": "GitHub Security Advisory Pip",
            "URL": "https://github.com/advisories?query=type%3Areviewed+ecosystem%3Apip",
        },
    ),
    "npm": (
        "npm::GitHub Security Advisory Npm",
        {
            "ID": "ghsa",
            "Name": "GitHub Security Advisory Npm",
            "URL": "https://github.com/advisories?query=type%3Areviewed+ecosystem%3Anpm",
        },
    ),
    "debian 12": ("debian 12", _DEBIAN),
    "debian 13": ("debian 13", _DEBIAN),
}


class Advisory(Document):
    """One vulnerability in one package."""

    id: str = Field(pattern=r"^CVE-\d{4}-\d{4,}$")
    ecosystem: Literal["pip", "npm", "debian 12", "debian 13"]
    package: str = Field(pattern=r"^[a-z0-9@][a-z0-9@/+._-]*$")
    """Normalised name; for Debian the source package."""
    severity: Severity
    title: str
    vulnerable: tuple[str, ...] = ()
    """Version ranges, for example `>=2.0.0, <3.0.1`; pip and npm."""
    fixed: tuple[str, ...] = Field(min_length=1)
    """Versions that mend it; for Debian exactly one."""


class SampleAdvisories(Document):
    """The content of sample-advisories.yaml."""

    format: Literal["sekisho.dev/sample-advisories/v1"]
    updated_at: dt.datetime
    """When somebody last looked through the list."""
    advisories: tuple[Advisory, ...] = Field(min_length=1)


def load_sample(path: Path) -> SampleAdvisories:
    """Read sample-advisories.yaml.

    Raises:
        Refusal: not readable, not YAML or not valid; says the field.
    """
    try:
        return SampleAdvisories.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise Refusal(f"The sample advisories cannot be read: {str(error)[:300]}", where=str(path)) from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = "/".join(str(part) for part in first["loc"])
        raise Refusal(f"The sample advisories do not validate: /{field}: {first['msg']}", where=str(path)) from error


def database_buckets(sample: SampleAdvisories) -> dict[bytes, Bucket]:
    """Return the sample in trivy-db's schema."""
    buckets: dict[str, dict[str, dict[str, Any]]] = {}
    details: dict[str, Any] = {}
    for advisory in sample.advisories:
        bucket, source = _SOURCES[advisory.ecosystem]
        packages = buckets.setdefault(bucket, {})
        packages.setdefault(advisory.package, {})[advisory.id] = _advisory_value(advisory)
        details[advisory.id] = {
            "Title": advisory.title,
            "Severity": advisory.severity.value,
            "VendorSeverity": {"nvd": _SEVERITIES[advisory.severity], source["ID"]: _SEVERITIES[advisory.severity]},
            "References": [f"https://nvd.nist.gov/vuln/detail/{advisory.id}"],
        }
    return {
        b"data-source": {bucket.encode(): canonical(source) for bucket, source in _SOURCES.values()},
        b"vulnerability": {key.encode(): canonical(value) for key, value in details.items()},
        **{
            bucket.encode(): {
                package.encode(): {key.encode(): canonical(value) for key, value in found.items()}
                for package, found in packages.items()
            }
            for bucket, packages in buckets.items()
        },
    }


def _advisory_value(advisory: Advisory) -> dict[str, Any]:
    if advisory.ecosystem.startswith("debian "):
        return {"FixedVersion": advisory.fixed[0]}
    ranges = advisory.vulnerable or tuple(f"<{version}" for version in advisory.fixed[:1])
    return {"PatchedVersions": list(advisory.fixed), "VulnerableVersions": list(ranges)}


def database_metadata(sample: SampleAdvisories) -> bytes:
    """Return metadata.json: the age is that of the list, so that reports cannot make it look fresher than it is."""
    return metadata_of(sample.updated_at.astimezone(dt.UTC))


def metadata_of(updated: dt.datetime) -> bytes:
    """Return metadata.json of a database of this date."""
    return canonical(
        {
            "Version": SCHEMA_VERSION,
            "UpdatedAt": _rfc3339(updated),
            "NextUpdate": _rfc3339(updated + dt.timedelta(days=1)),
            "DownloadedAt": "0001-01-01T00:00:00Z",
        }
    )


def build_layer(sample: SampleAdvisories) -> bytes:
    """Return the database as trivy's layer. The same list gives the same bytes."""
    return pack_layer(database_buckets(sample), database_metadata(sample))


def pack_layer(buckets: Mapping[bytes, Bucket], metadata: bytes) -> bytes:
    """Return a database as trivy's layer, a gzipped tar of `trivy.db` and `metadata.json`: the same each time."""
    with tempfile.TemporaryDirectory() as directory:
        database = Path(directory) / "trivy.db"
        write_database(database, buckets)
        content = {"trivy.db": database.read_bytes(), "metadata.json": metadata}
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return gzip.compress(plain.getvalue(), compresslevel=6, mtime=0)


def push_database(registry: Registry, path: Path, *, repository: str = REPOSITORY, tag: str = TAG) -> Digest:
    """Push the sample database to a registry, as trivy's `--db-repository` expects it.

    Args:
        registry: the zone's registry, its writable face.
        path: sample-advisories.yaml.
        repository: where to; the default is `mirror/trivy-db`.
        tag: trivy's schema version.

    Returns:
        Digest of the artifact's manifest: the database's identity in evidence.

    Raises:
        Refusal: the list is not valid, or the registry refuses it.
        TemporaryError: the registry does not answer.
    """
    sample = load_sample(path)
    about = {ANNOTATION: "sample", ANNOTATION_UPDATED: _rfc3339(sample.updated_at)}
    return push_layer(registry, build_layer(sample), about, repository=repository, tag=tag)


def renew_sample(registry: Registry, path: Path) -> Digest | None:
    """Push the sample where there is no database, or an older sample. One that somebody mirrored is better and stays.

    Returns:
        Digest of the artifact's manifest; None where another stays.

    Raises:
        Refusal: the list is not valid, or what stands there is no database.
        TemporaryError: the registry does not answer.
    """
    there = registry.get_manifest(REPOSITORY, TAG)
    if there is not None:
        updated = Manifest.parse(there.data).annotations.get(ANNOTATION_UPDATED, "")
        if database_kind(there.data) != "sample" or updated >= _rfc3339(load_sample(path).updated_at):
            return None
    return push_database(registry, path)


def push_layer(
    registry: Registry, layer: bytes, about: Mapping[str, str], *, repository: str, tag: str, config: bytes = b"{}"
) -> Digest:
    """Push a database that `pack_layer` made, unless it stands there.

    Args:
        registry: the zone's registry, its writable face.
        layer: the database.
        about: annotations of the artifact.
        repository: where to.
        tag: trivy's schema version.
        config: the artifact's config, which trivy does not read.
    """
    title = {"org.opencontainers.image.title": "db.tar.gz"}
    manifest = make_manifest(
        Descriptor.of(config, CONFIG_TYPE),
        (Descriptor(LAYER_TYPE, Descriptor.of(layer, LAYER_TYPE).digest, len(layer), annotations=title),),
        annotations=about,
    )
    digest = Descriptor.of(manifest, OCI_MANIFEST).digest
    if registry.resolve(repository, tag) == digest:
        return digest
    registry.put_blob(repository, config)
    registry.put_blob(repository, layer)
    return registry.put_manifest(repository, manifest, OCI_MANIFEST, tag=tag)


def database_kind(manifest: bytes) -> Literal["mirror", "sample", "own"]:
    """Return what a database's manifest says it is; without our annotation it is a mirror of trivy's.

    Raises:
        Refusal: the manifest is not one of an advisory database, or its annotation is unknown.
    """
    parts = Manifest.parse(manifest)
    if [layer.media_type for layer in parts.layers] != [LAYER_TYPE]:
        raise Refusal("This is not an advisory database.", remedy="Push it again, or mirror trivy-db as it is.")
    match parts.annotations.get(ANNOTATION, "mirror"):
        case "sample":
            return "sample"
        case "mirror":
            return "mirror"
        case "own":
            return "own"
        case kind:
            raise Refusal(
                f"The advisory database is of an unknown kind {kind!r:.40}.", remedy="It may be sample, mirror or own."
            )


def _rfc3339(moment: dt.datetime) -> str:
    return moment.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
