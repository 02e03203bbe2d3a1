"""The scan stage: image, source tree and manifests at once, then one signed report.

The three scans run side by side, and what was found is kept by all that decides it, each for itself: the image by its
content, the tree by its git hash, the manifests without the digest of the image that they name. A change of one costs
that one. Limits, waivers and VEX are no business of the scanner: the judge reads the whole report.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sekisho.canonical import Digest, digest_of_json, hex_of
from sekisho.evidence import attach_statement
from sekisho.keys import Signer
from sekisho.model import IMAGE_HOST, DigestField, Document, Finding, Image, Manifests, Revision, Scan, Tool
from sekisho.records import get_record, put_record
from sekisho.registry import Registry
from sekisho.statements import SBOM, SCAN, Statement, Subject
from sekisho.together import together
from sekisho.tools import trivy as find_trivy
from stages.scan import parse
from stages.scan.database import Current, Database, OwnDatabase, check_current, current, ensure_database, ensure_own
from stages.scan.images import ImagePart, keep_part, kept_part, part_key, scan_image
from stages.scan.manifests import scan_manifests
from stages.scan.sbom import make_sbom, sbom_bytes
from stages.scan.source import SourcePart, scan_source
from stages.source import workload

RECIPE = "sekisho-scan/2"
"""What is asked of the scanner and how it is read. Part of every scan's key."""

_FOLDERS = {"static": "/srv/www/"}


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


@dataclass(frozen=True)
class _Means:
    """What one scan works with."""

    binary: Path
    tool: Tool
    used: Current
    database: Database
    own: OwnDatabase | None


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
        """Return a digest over all that decides the report; newer advisories make a new one.

        Raises:
            PermanentError: there is no database, or no pinned scanner.
        """
        return self._key(subject, current(self._registry))

    def find(self, subject: ScanInput) -> Scan | None:
        """Return the report if the registry holds all of it, signed."""
        record = self.record(subject)
        return record.scan if record else None

    def record(self, subject: ScanInput) -> ScanRecord | None:
        """Return the stage's note about a subject, if all that it names is there."""
        repository = subject.image.repository
        record = get_record(
            self._registry, repository, _tag("scan", self.key(subject)), ScanRecord, signer=self._signer
        )
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
        means = self._means()
        part, source, wrong = self._look(subject, means)
        image, repository = subject.image, subject.image.repository
        sbom = make_sbom(part.components, image, means.tool)
        scan = Scan(
            image=image.digest,
            scanner=means.tool,
            database=means.database.identity,
            findings=_findings(part, source, wrong, image),
            coverage=part.coverage,
            sbom=self._registry.put_blob(repository, sbom_bytes(sbom)),
            own_advisories=means.used.own or "",
        )
        subjects = (Subject(name=f"{IMAGE_HOST}/{repository}", digest=image.digest),)
        statements = (
            Statement(subjects=subjects, predicate_type=kind, predicate=predicate)
            for kind, predicate in ((SCAN, scan.model_dump(mode="json")), (SBOM, sbom))
        )
        said = together(
            *(partial(attach_statement, self._registry, repository, item, self._signer) for item in statements)
        )
        check_current(self._registry, means.used, repository)
        record = ScanRecord(scan=scan, statement=said[0], sbom_statement=said[1])
        put_record(
            self._registry, repository, _tag("scan", self._key(subject, means.used)), record, signer=self._signer
        )
        return scan

    def _means(self) -> _Means:
        used = current(self._registry)
        database = ensure_database(self._registry, self._cache, used.database)
        own = ensure_own(self._registry, self._cache, used.own)
        binary, tool = find_trivy()
        return _Means(binary, tool, used, database, own)

    def _key(self, subject: ScanInput, used: Current) -> Digest:
        return digest_of_json(
            {
                "stage": self.name,
                "recipe": RECIPE,
                "image": [subject.image.repository, subject.image.identity()],
                "tree": [subject.revision.tree, subject.revision.path],
                "manifests": subject.manifests.identity(),
                "scanner": find_trivy()[1].digest,
                "database": used.database,
                "own": used.own or "",
                "signer": self._signer.key_id,
            }
        )

    def _look(self, subject: ScanInput, means: _Means) -> tuple[ImagePart, SourcePart, tuple[Finding, ...]]:
        with ThreadPoolExecutor(3) as pool:
            image = pool.submit(self._image, subject.image, means)
            tree = pool.submit(self._source, subject, means)
            wrong = pool.submit(scan_manifests, means.binary, subject.manifests, self._cache, means.tool)
            return image.result(), tree.result(), wrong.result()

    def _image(self, image: Image, means: _Means) -> ImagePart:
        key = part_key(self._registry, image, means.tool, means.used)
        kept = kept_part(self._registry, image, key, self._signer)
        if kept is not None:
            return kept
        part = scan_image(self._registry, image, means.binary, means.database, means.own)
        if not any(item.kind == "coverage" for item in part.findings):
            # What was not looked at is looked at again: a scanner that saw nothing once must not have the last word.
            keep_part(self._registry, image, key, part, self._signer)
        return part

    def _source(self, subject: ScanInput, means: _Means) -> SourcePart:
        revision, repository = subject.revision, subject.image.repository
        folder = workload(subject.tree, revision)
        used = [means.used.database, means.used.own or ""]
        key = digest_of_json(["source", RECIPE, revision.tree, revision.path, means.tool.digest, used])
        kept = get_record(self._registry, repository, _tag("scan-source", key), SourcePart, signer=self._signer)
        if kept is not None:
            return kept
        part = scan_source(folder, (means.binary, means.tool), self._cache, means.database, means.own)
        if not any(parse.lock_gaps(subject.image, part.packages)):
            put_record(self._registry, repository, _tag("scan-source", key), part, signer=self._signer)
        return part


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
    with ThreadPoolExecutor(2) as pool:
        tree = pool.submit(scan_source, path.absolute(), (binary, tool), cache, database, committed=False)
        wrong = pool.submit(scan_manifests, binary, manifests, cache, tool) if manifests else None
        return parse.merged([*tree.result().findings, *(wrong.result() if wrong else ())])


def _findings(part: ImagePart, source: SourcePart, wrong: Sequence[Finding], image: Image) -> tuple[Finding, ...]:
    in_image = [item for item in part.findings if item.kind == "secret"]
    rest = [item for item in part.findings if item.kind != "secret"]
    # What the standard image has and the lock file pins as well is two things, each with its owner.
    known = {_about(item) for item in rest if item.kind == "vulnerability" and item.owner == "workload"}
    locked = [item for item in source.findings if item.kind != "vulnerability" or _about(item) not in known]
    return parse.merged(
        [
            *rest,
            *locked,
            *parse.without_copies(in_image, source.secrets, _FOLDERS.get(image.language, "/app/")),
            *parse.lock_gaps(image, source.packages),
            *wrong,
        ]
    )


def _about(finding: Finding) -> tuple[str, str, str]:
    return finding.id, finding.package.lower(), finding.installed


def _tag(what: str, key: Digest) -> str:
    return f"{what}-{hex_of(key)[:40]}"
