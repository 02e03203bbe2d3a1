"""The scan of a workload's folder: what its lock files pin, and secrets wherever the commit has them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

from sekisho.canonical import digest_of_file, digest_of_json
from sekisho.model import Document, Finding, Tool
from stages.scan import parse, trivy, unseen
from stages.scan.database import Database, OwnDatabase
from stages.scan.kept import kept_findings
from stages.scan.own import own_findings

_RECIPE: Final = "sekisho-scan-unseen/1"
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
    folder: Path,
    scanner: tuple[Path, Tool],
    cache: Path,
    database: Database | None,
    own: OwnDatabase | None = None,
    *,
    committed: bool = True,
) -> SourcePart:
    """Scan a workload's folder.

    Args:
        folder: what to scan; absolute.
        scanner: the pinned scanner and its identity.
        cache: folder for the scanner's cache, and for what is kept.
        database: the advisories to look into; without them, known vulnerabilities are not looked for.
        own: the operator's own advisories.
        committed: whether all of the folder is in a commit; a working copy holds more.

    Raises:
        TemporaryError: the scanner was killed.
        PermanentError: it failed, or the folder cannot be read.
    """
    binary, tool = scanner
    report = _scan(binary, folder, database.folder if database else cache, "vuln,secret" if database else "secret")
    found = [*parse.secrets(report, None), *parse.vulnerabilities(report, None)]
    found += _unseen(binary, tool, folder, cache, committed=committed)
    if own is not None:
        found += own_findings(_scan(binary, folder, own.folder, "vuln"), own.advisories, None)
    return SourcePart(findings=parse.merged(found), packages=tuple(sorted(parse.purls(report))))


def _unseen(binary: Path, tool: Tool, folder: Path, cache: Path, *, committed: bool) -> tuple[Finding, ...]:
    """Return the secrets in files that the scanner passes over; they change seldom, so the answer is kept."""
    with tempfile.TemporaryDirectory(prefix="unseen-", dir=cache) as scratch:
        names = unseen.lay_out(folder, Path(scratch), committed=committed)
        if not names:
            return ()
        content = {path: digest_of_file(Path(scratch, name)) for name, path in names.items()}
        key = digest_of_json([_RECIPE, tool.digest, content])

        def find() -> tuple[Finding, ...]:
            found = []
            for finding in parse.secrets(_scan(binary, Path(scratch), cache, "secret"), None):
                name, _, line = finding.where.rpartition(":")
                found.append(finding.model_copy(update={"where": f"{names[name]}:{line}"}))
            return parse.merged(found)

        return kept_findings(cache / "unseen", key, find)


def _scan(binary: Path, folder: Path, cache: Path, scanners: str) -> parse.Report:
    report = trivy.scan(binary, "fs", str(folder), (*_FLAGS, "--scanners", scanners), cache=cache)
    parse.check_report(report, "fs")
    return report
