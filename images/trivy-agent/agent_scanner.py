# ruff: noqa: INP001 - a file inside an image, not a package
"""Runs trivy: loads the zone's advisory database, scans one image, and sums up what it found."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent_node import Running, Settings, Unreachable, get

SEVERITIES = ("CRITICAL", "HIGH", "MEDIUM", "LOW", "UNKNOWN")
ANNOTATION = "sekisho.dev/advisories"
MANIFEST_TYPES = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
SCAN_SECONDS = 300


@dataclass(frozen=True)
class Database:
    """The advisory database of the zone's registry."""

    digest: str
    kind: str
    updated_at: str = ""


def look_up_database(settings: Settings) -> Database:
    """Return what the registry offers as advisory database now. Raises Unreachable."""
    host, _, rest = settings.database.partition("/")
    repository, _, tag = rest.rpartition(":")
    if not repository:
        raise Unreachable("TRIVY_DB_REPOSITORY must be host:port/repository:tag")
    data, headers = get(f"http://{host}/v2/{repository}/manifests/{tag}", {"Accept": MANIFEST_TYPES})
    digest = headers.get("Docker-Content-Digest") or ""
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        raise Unreachable(f"{host} gives no digest for {repository}:{tag}")
    try:
        kind = (json.loads(data).get("annotations") or {}).get(ANNOTATION, "mirror")
    except (ValueError, AttributeError) as error:
        raise Unreachable(f"the manifest of {repository}:{tag} cannot be read") from error
    return Database(digest, str(kind))


def fetch_database(settings: Settings, database: Database) -> Database:
    """Make trivy load this very database; the one in use stays until the new one is there. Raises Unreachable."""
    host, _, rest = settings.database.partition("/")
    repository = rest.rpartition(":")[0]
    new = settings.cache.with_name(settings.cache.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    source = f"{host}/{repository}@{database.digest}"
    code, output, errors = run_trivy(
        settings, ["image", "--download-db-only", "--db-repository", source, "--insecure"], new
    )
    metadata = new / "db" / "metadata.json"
    if code != 0 or not metadata.is_file():
        raise Unreachable(f"trivy cannot load the advisory database: {_last_line(errors or output)}")
    updated = str(json.loads(metadata.read_text(encoding="utf-8")).get("UpdatedAt", ""))
    shutil.rmtree(settings.cache, ignore_errors=True)
    new.rename(settings.cache)
    return Database(database.digest, database.kind, updated)


def run_trivy(settings: Settings, arguments: list[str], cache: Path) -> tuple[int, str, str]:
    """Run trivy; return exit code, stdout, stderr. A run that takes too long is ended (exit code 124)."""
    command = [settings.trivy, "--cache-dir", str(cache), "--quiet", *arguments]
    command += ["--skip-version-check", "--disable-telemetry"]
    environment = {
        "PATH": os.environ.get("PATH", "/usr/local/bin:/usr/bin:/bin"),
        "HOME": str(cache.parent),
        "TMPDIR": str(cache.parent),
    }
    try:
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=SCAN_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return 124, "", f"no answer after {SCAN_SECONDS} s"
    except OSError as error:
        return 127, "", str(error)
    return done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")


def scan(settings: Settings, image: Running) -> dict[str, Any]:
    """Scan one image. Raises Unreachable with the reason."""
    arguments = ["image", "--image-src", "remote", "--insecure", "--skip-db-update", "--skip-java-db-update"]
    arguments += ["--offline-scan", "--scanners", "vuln", "--format", "json", "--list-all-pkgs"]
    arguments += ["--timeout", f"{SCAN_SECONDS - 10}s", f"{settings.registry}/{image.repository}@{image.digest}"]
    code, output, errors = run_trivy(settings, arguments, settings.cache)
    if code != 0:
        raise Unreachable(f"trivy exits with {code}: {_last_line(errors or output)}")
    try:
        return summarise(json.loads(output))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise Unreachable(f"trivy's report cannot be read: {error}") from error


def summarise(report: dict[str, Any]) -> dict[str, Any]:
    """Return findings, counts and coverage of a trivy report (JSON, SchemaVersion 2)."""
    system = (report.get("Metadata") or {}).get("OS") or {}
    findings: dict[tuple[str, str, str], dict[str, str]] = {}
    packages = 0
    for result in report.get("Results") or []:
        packages += len(result.get("Packages") or [])
        for item in result.get("Vulnerabilities") or []:
            finding = {
                "id": str(item["VulnerabilityID"]),
                "severity": str(item.get("Severity") or "UNKNOWN"),
                "package": str(item.get("PkgName", "")),
                "installed": str(item.get("InstalledVersion", "")),
                "fixed": str(item.get("FixedVersion", "")),
                "title": str(item.get("Title", ""))[:200],
            }
            findings[finding["id"], finding["package"], finding["installed"]] = finding
    ordered = sorted(findings.values(), key=lambda item: (_rank(item["severity"]), item["id"], item["package"]))
    counts = {severity: sum(item["severity"] == severity for item in ordered) for severity in SEVERITIES}
    family = str(system.get("Family") or "none")
    return {
        "os": f"{family} {system.get('Name', '')}".strip(),
        "end_of_life": bool(system.get("EOSL", False)),
        "packages": packages,
        "counts": counts,
        "findings": ordered,
        "warning": "" if family != "none" else "unknown operating system: its packages were not looked at",
    }


def _rank(severity: str) -> int:
    return SEVERITIES.index(severity) if severity in SEVERITIES else len(SEVERITIES)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][-400:] if lines else "it says nothing"
