"""The scan stage: image, source tree and manifests at once, then one signed report.

The three scans run side by side. What is wrong with manifests does not depend on which image digest they name, so that
answer is kept by the manifests without it; a change of code alone costs the image and the tree. Limits and waivers are
no business of the scanner: the judge reads the whole report.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sekisho.canonical import Digest, canonical, digest_of_json, hex_of
from sekisho.errors import Refusal, TemporaryError
from sekisho.evidence import attach_statement
from sekisho.keys import Signer
from sekisho.model import IMAGE_HOST, DigestField, Document, Finding, Image, Manifests, Revision, Scan, Tool
from sekisho.records import get_record, put_record
from sekisho.registry import Registry
from sekisho.statements import SBOM, SCAN, Statement, Subject
from sekisho.tools import trivy as find_trivy
from stages.scan import parse, trivy
from stages.scan.database import Database, current_digest, ensure_database
from stages.scan.images import scan_image
from stages.scan.sbom import make_sbom, sbom_bytes
from stages.source import workload

RECIPE = "sekisho-scan/1"
"""What is asked of the scanner and how it is read. Part of every scan's key."""

_FOLDERS = {"static": "/srv/www/"}
_TREE_FLAGS = ("--cache-backend", "memory", "--list-all-pkgs", "--offline-scan", "--skip-db-update",
               "--skip-java-db-update", "--secret-config", "secrets.yaml")  # fmt: skip
_CONFIG_FLAGS = ("--cache-backend", "memory", "--skip-check-update", "--misconfig-scanners", "kubernetes")


@dataclass(frozen=True)
class ScanInput:
    """What the scan stage takes."""

    revision: Revision
    image: Image
    tree: Path
    """A checkout of the revision's commit, whole."""
    manifests: Manifests


class ScanRecord(Document):
    """The stage's own note of what it found."""

    scan: Scan
    statement: str = DigestField
    """Digest of the referrer manifest with the scanner's report."""
    sbom_statement: str = DigestField
    """Digest of the referrer manifest with the bill of materials."""


class _Kept(Document):
    findings: tuple[Finding, ...]


class ScanStage:
    """Scans an image, its source and its manifests.

    Args:
        registry: the zone's registry, writable, with the advisory database in it.
        signer: the scanner's key.
        cache: folder for databases and the scanner's own cache; everything in it can be made again.
    """

    name = "scan"

    def __init__(self, registry: Registry, signer: Signer, cache: Path) -> None:
        self._registry = registry
        self._signer = signer
        self._cache = cache
        cache.mkdir(parents=True, exist_ok=True)

    def key(self, subject: ScanInput) -> Digest:
        """Return a digest over all that decides the report; a newer advisory database makes a new one.

        Raises:
            PermanentError: there is no database, or no pinned scanner.
        """
        return self._key(subject, current_digest(self._registry))

    def find(self, subject: ScanInput) -> Scan | None:
        """Return the report if the registry holds all of it, signed."""
        record = self.record(subject)
        return record.scan if record else None

    def record(self, subject: ScanInput) -> ScanRecord | None:
        """Return the stage's note about a subject, if all that it names is there."""
        repository = subject.image.repository
        record = get_record(self._registry, repository, _tag(self.key(subject)), ScanRecord)
        if record is None:
            return None
        whole = self._registry.has_blob(repository, Digest(record.scan.sbom)) and all(
            self._registry.get_manifest(repository, digest) is not None
            for digest in (subject.image.digest, record.statement, record.sbom_statement)
        )
        return record if whole else None

    def perform(self, subject: ScanInput) -> Scan:
        """Scan, attach the scanner's two statements, and note it; in this order.

        Raises:
            TemporaryError: the scanner was killed or cannot reach the registry, or the database changed meanwhile.
            PermanentError: the scanner failed, or said something that cannot be used; never an empty report.
        """
        database = ensure_database(self._registry, self._cache)
        binary, tool = find_trivy()
        report, tree, wrong = self._reports(subject, binary, tool, database)
        image, repository = subject.image, subject.image.repository
        sbom = make_sbom(report, image, tool)
        scan = Scan(
            image=image.digest,
            scanner=tool,
            database=database.identity,
            findings=_findings(report, tree, wrong, image),
            coverage=parse.coverage(report, image, tree)[0],
            sbom=self._registry.put_blob(repository, sbom_bytes(sbom)),
        )
        subjects = (Subject(name=f"{IMAGE_HOST}/{repository}", digest=image.digest),)
        said = [
            attach_statement(self._registry, repository, Statement(subjects=subjects, predicate_type=kind,
                                                                   predicate=predicate), self._signer)
            for kind, predicate in ((SCAN, scan.model_dump(mode="json")), (SBOM, sbom))
        ]  # fmt: skip
        if current_digest(self._registry) != database.identity.digest:
            raise TemporaryError("The advisory database changed during the scan.", where=repository, delay=0.5)
        record = ScanRecord(scan=scan, statement=said[0], sbom_statement=said[1])
        put_record(self._registry, repository, _tag(self._key(subject, Digest(database.identity.digest))), record)
        return scan

    def _key(self, subject: ScanInput, database: Digest) -> Digest:
        return digest_of_json(
            {
                "stage": self.name,
                "recipe": RECIPE,
                "image": [subject.image.repository, subject.image.identity()],
                "tree": [subject.revision.tree, subject.revision.path],
                "manifests": subject.manifests.identity(),
                "scanner": find_trivy()[1].digest,
                "database": database,
                "signer": self._signer.key_id,
            }
        )

    def _reports(
        self, subject: ScanInput, binary: Path, tool: Tool, database: Database
    ) -> tuple[parse.Report, parse.Report, tuple[Finding, ...]]:
        folder = workload(subject.tree, subject.revision)
        with ThreadPoolExecutor(3) as pool:
            image = pool.submit(scan_image, self._registry, subject.image, binary, database)
            tree = pool.submit(_scan_tree, binary, folder, database.folder, vulnerabilities=True)
            wrong = pool.submit(_scan_manifests, binary, subject.manifests, self._cache, tool)
            return image.result(), tree.result(), wrong.result()


def scan_tree(
    path: Path, *, cache: Path, database: Database | None = None, manifests: Manifests | None = None
) -> tuple[Finding, ...]:
    """Return what is wrong with a workload's folder before there is an image: for the developer's own check.

    Args:
        path: the workload's folder.
        cache: folder for the scanner's cache.
        database: the advisories to look into; without one, known vulnerabilities are not looked for.
        manifests: rendered manifests; without them, only the folder is looked at.

    Raises:
        TemporaryError: the scanner was killed.
        PermanentError: the scanner is not there, not the pinned one, or failed.
    """
    cache.mkdir(parents=True, exist_ok=True)
    binary, tool = find_trivy()
    folder = database.folder if database else cache
    with ThreadPoolExecutor(2) as pool:
        tree = pool.submit(_scan_tree, binary, path.absolute(), folder, vulnerabilities=database is not None)
        wrong = pool.submit(_scan_manifests, binary, manifests, cache, tool) if manifests else None
        report = tree.result()
        found = [*parse.secrets(report, None), *parse.vulnerabilities(report, None)]
        return parse.merged([*found, *(wrong.result() if wrong else ())])


def _scan_tree(binary: Path, folder: Path, cache: Path, *, vulnerabilities: bool) -> parse.Report:
    scanners = "vuln,secret" if vulnerabilities else "secret"
    report = trivy.scan(binary, "fs", str(folder), (*_TREE_FLAGS, "--scanners", scanners), cache=cache)
    parse.check_report(report, "fs")
    return report


def _scan_manifests(binary: Path, manifests: Manifests, cache: Path, tool: Tool) -> tuple[Finding, ...]:
    if not manifests.objects:
        return ()
    key = digest_of_json([RECIPE, tool.digest, _without_digests(manifests).decode()])
    kept = cache / "manifests" / f"{hex_of(key)}.json"
    try:
        return _Kept.parse(kept.read_bytes()).findings
    except (OSError, Refusal):
        pass
    with tempfile.TemporaryDirectory(prefix="manifests-", dir=cache) as scratch:
        objects, rules = Path(scratch, "objects"), Path(scratch, "rules")
        objects.mkdir()
        rules.mkdir()
        # The scanner knows a list of trusted registries: ours takes its place (rule KSV-0125).
        (rules / "trusted.json").write_bytes(canonical({"ksv0125": {"trusted_registries": [IMAGE_HOST]}}))
        names = _write_objects(manifests, objects)
        flags = (*_CONFIG_FLAGS, "--config-data", str(rules))
        report = trivy.scan(binary, "config", str(objects), flags, cache=cache)
    parse.check_report(report, "config")
    parse.check_targets(report, names)
    findings = parse.merged(parse.misconfigurations(report, names))
    kept.parent.mkdir(exist_ok=True)
    part = kept.with_suffix(f".{os.getpid()}.part")
    part.write_bytes(_Kept(findings=findings).canonical())
    part.replace(kept)
    return findings


def _write_objects(manifests: Manifests, folder: Path) -> dict[str, str]:
    """Write each object to a file, in the namespace that it will have, and return the object of each file."""
    names: dict[str, str] = {}
    for number, item in enumerate(manifests.objects):
        metadata = {**item.get("metadata", {}), "namespace": f"app-{manifests.app}"}
        value: dict[str, Any] = {**item, "metadata": metadata}
        name = f"{number:03d}.json"
        (folder / name).write_text(json.dumps(value, indent=1), encoding="utf-8")
        names[name] = f"{item.get('kind', '')}/{metadata.get('name', '')}"
    return names


def _without_digests(manifests: Manifests) -> bytes:
    """Return the manifests with every image of the zone's own named by repository alone."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        if isinstance(value, str) and value.startswith(f"{IMAGE_HOST}/"):
            repository, _, digest = value.partition("@sha256:")
            return f"{repository}@sha256:" if digest else value
        return value

    return canonical(plain(manifests.model_dump(mode="json")))


def _findings(report: parse.Report, tree: parse.Report, wrong: Sequence[Finding], image: Image) -> tuple[Finding, ...]:
    in_source = tuple(parse.secrets(tree, None))
    in_image = parse.without_copies(parse.secrets(report, image), in_source, _FOLDERS.get(image.language, "/app/"))
    vulnerable = tuple(parse.vulnerabilities(report, image))
    known = {(item.id, item.package.lower(), item.installed) for item in vulnerable}
    locked = (
        item
        for item in parse.vulnerabilities(tree, None)
        if (item.id, item.package.lower(), item.installed) not in known
    )
    return parse.merged(
        [
            *vulnerable,
            *locked,
            *in_source,
            *in_image,
            *parse.coverage(report, image, tree)[1],
            *wrong,
        ]
    )


def _tag(key: Digest) -> str:
    return f"scan-{hex_of(key)[:40]}"
