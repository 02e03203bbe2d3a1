"""The scan of one image, a workload's or a standard one: the same question, read the same way.

The scanner's cache knows each layer that was ever looked at, so that only what is new is read; it is a database that
one scanner at a time may open. What was found is kept in the registry under all that decides it: files, settings,
owners, scanner and advisories. Two commits with the same image differ in its labels and in nothing that a scanner
reads, so the second is not scanned again, on this machine or another.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from sekisho.canonical import Digest, digest_of_json, hex_of
from sekisho.errors import PermanentError
from sekisho.keys import Signer
from sekisho.model import Coverage, Document, Finding, Image, Tool
from sekisho.oci import Manifest, read_json
from sekisho.records import get_record, put_record
from sekisho.registry import Registry
from stages.scan import parse, trivy
from stages.scan.database import Current, Database, OwnDatabase
from stages.scan.own import own_findings
from stages.scan.sbom import components_of

RECIPE: Final = "sekisho-scan-image/2"
"""What is asked of the scanner about an image and how it is read. Part of every key."""

# The image's config is made by the line from the standard image's: of it, only secrets are looked for. The scanner's
# rules for Dockerfiles would cost 1.5 s to say that there is no HEALTHCHECK.
_FLAGS: Final = ("--image-src", "remote", "--insecure", "--scanners", "vuln,secret", "--list-all-pkgs",
                 "--image-config-scanners", "secret", "--skip-db-update", "--skip-java-db-update",
                 "--offline-scan", "--show-suppressed", "--secret-config", "secrets.yaml")  # fmt: skip
_CONFIG_LIMIT: Final = 1 << 20
_OF_THE_COMMIT: Final = ("org.opencontainers.image.created", "org.opencontainers.image.revision")
"""Labels that name the commit: the line's own words, different for each and without anything to find."""
_one_at_a_time = threading.Lock()


class ImagePart(Document):
    """What was found in an image."""

    findings: tuple[Finding, ...]
    coverage: Coverage
    components: tuple[dict[str, Any], ...]
    """What is in it, as the bill of materials names it."""


def part_key(registry: Registry, image: Image, scanner: Tool, used: Current) -> Digest:
    """Return a digest over all that decides what is found in an image.

    Raises:
        PermanentError: the image is not in the registry.
    """
    raw = registry.get_manifest(image.repository, image.digest)
    if raw is None:
        where = f"{image.repository}@{image.digest}"
        raise PermanentError("The image is not in the zone's registry.", where=where, remedy="Run the line again.")
    manifest = Manifest.parse(raw.data, where=image.repository)
    config = registry.get_blob(image.repository, Digest(manifest.config.digest), limit=_CONFIG_LIMIT)
    return digest_of_json(
        {
            "recipe": RECIPE,
            "image": [image.repository, image.base, image.digest == image.base_digest],
            "layers": [layer.model_dump(mode="json") for layer in image.layers],
            "config": _lasting(read_json(config, where=image.repository)),
            "locked": list(image.locked),
            "scanner": scanner.digest,
            "databases": [used.database, used.own or ""],
        }
    )


def kept_part(registry: Registry, image: Image, key: Digest, signer: Signer) -> ImagePart | None:
    """Return what was found in an image before, if the registry holds it and the scanner signed it."""
    return get_record(registry, image.repository, _tag(key), ImagePart, signer=signer)


def keep_part(registry: Registry, image: Image, key: Digest, part: ImagePart, signer: Signer) -> None:
    """Keep what was found in an image."""
    put_record(registry, image.repository, _tag(key), part, signer=signer)


def scan_image(
    registry: Registry, image: Image, binary: Path, database: Database, own: OwnDatabase | None = None
) -> ImagePart:
    """Scan an image in the zone's registry.

    Args:
        registry: the zone's registry.
        image: what to scan.
        binary: the pinned scanner.
        database: the advisories to look into.
        own: the operator's own advisories.

    Raises:
        TemporaryError: the scanner was killed, took too long, or could not reach the registry.
        PermanentError: it failed, or its report is about something else.
    """
    report = _report(registry, image, binary, database.folder)
    known = database.buckets if database.identity.kind == "mirror" else None
    coverage, gaps = parse.coverage(report, image, known)
    found = [*parse.vulnerabilities(report, image), *parse.secrets(report, image), *gaps]
    if own is not None:
        found += own_findings(_report(registry, image, binary, own.folder), own.advisories, image)
    return ImagePart(findings=parse.merged(found), coverage=coverage, components=components_of(report))


def _report(registry: Registry, image: Image, binary: Path, folder: Path) -> parse.Report:
    reference = f"{urlsplit(registry.url).netloc}/{image.repository}@{image.digest}"
    with _one_at_a_time:
        # The same flags for both databases: then the layers are read once.
        report = trivy.scan(binary, "image", reference, _FLAGS, cache=folder)
    parse.check_report(report, "image")
    parse.check_image(report, image)
    return report


def _lasting(config: dict[str, Any]) -> dict[str, Any]:
    """Return an image's settings without what is another for each commit."""
    run = dict(config.get("config") or {})
    run["Labels"] = {key: value for key, value in (run.get("Labels") or {}).items() if key not in _OF_THE_COMMIT}
    history = [{**line, "created": ""} for line in config.get("history") or ()]
    return {**config, "created": "", "config": run, "history": history}


def _tag(key: Digest) -> str:
    return f"scan-image-{hex_of(key)[:40]}"
