"""The scan of one image, a workload's or a standard one: the same question, read the same way.

The scanner's cache knows each layer that was ever looked at, so that only what is new is read; it is a database that
one scanner at a time may open.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from sekisho.model import Image
from sekisho.registry import Registry
from stages.scan import parse, trivy
from stages.scan.database import Database

# The image's config is made by the line from the standard image's: of it, only secrets are looked for. The scanner's
# rules for Dockerfiles would cost 1.5 s to say that there is no HEALTHCHECK.
_FLAGS: Final = ("--image-src", "remote", "--insecure", "--scanners", "vuln,secret", "--list-all-pkgs",
                 "--image-config-scanners", "secret", "--skip-db-update", "--skip-java-db-update",
                 "--offline-scan", "--show-suppressed", "--secret-config", "secrets.yaml")  # fmt: skip
_one_at_a_time = threading.Lock()


def scan_image(registry: Registry, image: Image, binary: Path, database: Database) -> parse.Report:
    """Scan an image in the zone's registry and return the report, checked to be about all of it.

    Args:
        registry: the zone's registry.
        image: what to scan.
        binary: the pinned scanner.
        database: the advisories to look into.

    Raises:
        TemporaryError: the scanner was killed, took too long, or could not reach the registry.
        PermanentError: it failed, or its report is about something else.
    """
    reference = f"{urlsplit(registry.url).netloc}/{image.repository}@{image.digest}"
    with _one_at_a_time:
        report = trivy.scan(binary, "image", reference, _FLAGS, cache=database.folder)
    parse.check_report(report, "image")
    parse.check_image(report, image)
    return report
