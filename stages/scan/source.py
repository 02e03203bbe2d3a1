"""The scan of a workload's folder: what its lock files pin, and secrets wherever the commit has them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sekisho.model import Document, Finding
from stages.scan import parse, trivy, unseen
from stages.scan.database import Database, OwnDatabase
from stages.scan.own import own_findings

_FLAGS: Final = ("--cache-backend", "memory", "--list-all-pkgs", "--offline-scan", "--skip-db-update",
                 "--skip-java-db-update", "--secret-config", "secrets.yaml")  # fmt: skip


class SourcePart(Document):
    """What was found in a workload's folder."""

    findings: tuple[Finding, ...]
    packages: tuple[str, ...]
    """Package URLs that the scanner read out of the lock files."""

    @property
    def secrets(self) -> tuple[Finding, ...]:
        """The secrets among the findings."""
        return tuple(item for item in self.findings if item.kind == "secret")


def scan_source(
    folder: Path, binary: Path, cache: Path, database: Database | None, own: OwnDatabase | None = None
) -> SourcePart:
    """Scan a workload's folder.

    Args:
        folder: what to scan; absolute.
        binary: the pinned scanner.
        cache: folder for the scanner's cache, when there is no database.
        database: the advisories to look into; without them, known vulnerabilities are not looked for.
        own: the operator's own advisories.

    Raises:
        TemporaryError: the scanner was killed.
        PermanentError: it failed, or the folder cannot be read.
    """
    place = database.folder if database else cache
    report = _scan(binary, folder, place, "vuln,secret" if database else "secret")
    found = [*parse.secrets(report, None), *parse.vulnerabilities(report, None), *_unseen(binary, folder, place)]
    if own is not None:
        found += own_findings(_scan(binary, folder, own.folder, "vuln"), own.advisories, None)
    return SourcePart(findings=parse.merged(found), packages=tuple(sorted(parse.purls(report))))


def _unseen(binary: Path, folder: Path, cache: Path) -> Iterator[Finding]:
    with tempfile.TemporaryDirectory(prefix="unseen-", dir=cache) as scratch:
        names = unseen.lay_out(folder, Path(scratch))
        if not names:
            return
        for finding in parse.secrets(_scan(binary, Path(scratch), cache, "secret"), None):
            name, _, line = finding.where.rpartition(":")
            yield finding.model_copy(update={"where": f"{names[name]}:{line}"})


def _scan(binary: Path, folder: Path, cache: Path, scanners: str) -> parse.Report:
    report = trivy.scan(binary, "fs", str(folder), (*_FLAGS, "--scanners", scanners), cache=cache)
    parse.check_report(report, "fs")
    return report
