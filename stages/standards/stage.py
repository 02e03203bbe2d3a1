"""The stage: provenance, scan and verdict of one standard image; and the answer to whoever wants to build on it."""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from packageurl import PackageURL

from sekisho.canonical import Digest, digest_of_json, hex_of
from sekisho.errors import Held, PermanentError, TemporaryError
from sekisho.evidence import attach_statement
from sekisho.keys import Signer
from sekisho.limits import Limits
from sekisho.model import IMAGE_HOST, Image, Result, Scan, StandardImage
from sekisho.records import get_record, put_record
from sekisho.registry import Registry
from sekisho.standard import LockEntry, StandardImages, StandardSpec
from sekisho.statements import PROVENANCE, SBOM, SCAN, Statement, Subject
from sekisho.tools import trivy as find_trivy
from stages.build.bases import load_base
from stages.build.compose import base_layers
from stages.judge_rules import scan_reasons, standard_reasons
from stages.scan.database import Current, check_current, current, ensure_database, ensure_own
from stages.scan.images import scan_image
from stages.scan.sbom import make_sbom, sbom_bytes
from stages.standards.documents import StandardScan, StandardState, StandardVerdict
from stages.standards.statements import provenance, summary, with_archives

RECIPE: Final = "sekisho-standards/2"
"""What is asked about a standard image and how it is read. Part of every key."""

_SEEN_BY_SCANNER = frozenset({"npm", "pypi"})
"""Kinds of archives that the scanner finds again in an image, by the metadata that they bring along."""
_MEMORY_SECONDS = 30.0
_AGAIN_SECONDS = 5.0
_SHOWN = 3
_ORDER = ("run", "build", "service", "agent", "cluster", "base")
"""What developers wait for comes first."""


@dataclass(frozen=True)
class Signers:
    """The keys by which the zone speaks about its standard images, one a role."""

    builder: Signer
    scanner: Signer
    verifier: Signer


class StandardsStage:
    """Judges standard images, and lets only those that passed be built on.

    Args:
        registry: the zone's registry, writable, with the images and the advisory database in it.
        standard: the standard images.
        limits: limits and waivers in force.
        signers: the zone's keys.
        cache: folder of the scanner, shared with the scan of workloads.
        now: the clock, seconds since the epoch.
    """

    name = "standards"

    def __init__(
        self,
        registry: Registry,
        standard: StandardImages,
        limits: Limits,
        signers: Signers,
        cache: Path,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._registry = registry
        self._standard = standard
        self._limits = limits
        self._signers = signers
        self._cache = cache
        self._now = now
        self._lock = threading.Lock()
        self._known: dict[str, tuple[float, StandardVerdict]] = {}
        self._wanted: set[str] = set()
        cache.mkdir(parents=True, exist_ok=True)

    # -- the stage's contract ---------------------------------------------------------------------------------------

    def key(self, subject: StandardImage) -> Digest:
        """Return a digest over all that decides the verdict but the clock.

        Raises:
            PermanentError: there is no advisory database, or no pinned scanner.
        """
        scan = self._scan_key(subject, current(self._registry))
        return digest_of_json(["verdict", scan, self._rules(subject), self._signers.verifier.key_id])

    def find(self, subject: StandardImage) -> StandardVerdict | None:
        """Return the verdict, if it is still what the rules say today and all that it names is there."""
        kept = get_record(self._registry, _verdicts(subject), self._tag(subject), StandardVerdict)
        scan = self._kept_scan(subject)
        if kept is None or scan is None or kept != self._judged(subject, scan):
            return None
        return kept

    def perform(self, subject: StandardImage) -> StandardVerdict:
        """Say how the image was made, scan it, judge it, sign the word and note it; in this order.

        Raises:
            TemporaryError: the scanner or the registry failed for now, or the database changed meanwhile.
            PermanentError: the image is not in the registry, or is not the one of the lock.
        """
        scan = self._kept_scan(subject) or self._scan(subject)
        verdict = self._judged(subject, scan)
        repository, tag = _verdicts(subject), self._tag(subject)
        record = put_record(self._registry, repository, f"image-{hex_of(subject.digest)}", verdict)
        attach_statement(
            self._registry, repository, summary(verdict, subject, repository, record), self._signers.verifier
        )
        if verdict.result is Result.PASSED:
            own = summary(verdict, subject, f"{IMAGE_HOST}/{subject.repository}", Digest(subject.digest))
            attach_statement(self._registry, subject.repository, own, self._signers.verifier)
        # Last, so that `find` sees a verdict only once it is signed.
        put_record(self._registry, repository, tag, verdict)
        return verdict

    # -- for whoever builds -----------------------------------------------------------------------------------------

    def cleared(self, image: StandardImage) -> None:
        """Return when an image may be built on.

        Raises:
            TemporaryError: it is being judged.
            Held: it has not passed, and whose it is to mend.
        """
        verdict = self._remembered(image)
        if verdict is None:
            self._wanted.add(image.name)
            raise TemporaryError(
                f"The standard image {image.name} is being judged itself.",
                where=f"{image.repository}@{image.digest}",
                remedy="Wait: the line asks again by itself. `sekisho images` shows how far it is.",
                delay=_AGAIN_SECONDS,
            )
        if verdict.result is not Result.PASSED:
            raise _refused(self._standard.spec(image.name), verdict)

    def passed(self, image: StandardImage) -> bool:
        """Tell whether an image may be built on."""
        verdict = self._remembered(image)
        return verdict is not None and verdict.result is Result.PASSED

    def pending(self) -> tuple[StandardImage, ...]:
        """Return the images without a verdict that holds today, those that somebody waits for first.

        Raises:
            PermanentError: there is no advisory database, or no pinned scanner.
        """
        images = [self._standard.get(name) for name in self._standard.specs if name in self._standard.locked]
        found = [image for image in images if self._remember(image, self.find(image)) is None]
        kinds = {name: _ORDER.index(spec.kind) for name, spec in self._standard.specs.items()}
        return tuple(sorted(found, key=lambda image: (image.name not in self._wanted, kinds[image.name])))

    def states(self) -> tuple[StandardState, ...]:
        """Return what is known of every standard image, in the platform team's order."""
        return tuple(self._state(spec) for spec in self._standard.specs.values())

    def _state(self, spec: StandardSpec) -> StandardState:
        entry = self._standard.locked.get(spec.name)
        verdict = self._remembered(self._standard.get(spec.name)) if entry else None
        waiting = "waiting" if entry else "not built"
        return StandardState(
            name=spec.name,
            kind=spec.kind,
            language=spec.language,
            version=spec.version,
            title=spec.title,
            owner=spec.owner,
            end_of_life=spec.end_of_life.isoformat(),
            digest=entry.digest if entry else "",
            size=entry.size if entry else 0,
            verdict=str(verdict.result) if verdict else waiting,
            findings=verdict.findings if verdict else {},
            reasons=tuple(item for item in verdict.reasons if item.result != "pass") if verdict else (),
            advisories=verdict.database.kind if verdict else "",
        )

    def _remembered(self, image: StandardImage) -> StandardVerdict | None:
        """Return the verdict, looked up at most twice a minute: every build asks for two images."""
        with self._lock:
            at, verdict = self._known.get(image.digest, (0.0, None))
        if verdict is not None and 0 <= self._now() - at < _MEMORY_SECONDS:
            return verdict
        return self._remember(image, self.find(image))

    def _remember(self, image: StandardImage, verdict: StandardVerdict | None) -> StandardVerdict | None:
        with self._lock:
            self._known.pop(image.digest, None)
            if verdict is not None:
                self._known[image.digest] = (self._now(), verdict)
        return verdict

    # -- provenance and scan ----------------------------------------------------------------------------------------

    def _scan_key(self, subject: StandardImage, used: Current) -> Digest:
        signers = (self._signers.builder.key_id, self._signers.scanner.key_id)
        recipe, scanner = self._entry(subject).recipe, find_trivy()[1].digest
        databases = [used.database, used.own or ""]
        return digest_of_json(["scan", RECIPE, subject.digest, recipe, scanner, databases, signers])

    def _kept_scan(self, subject: StandardImage) -> StandardScan | None:
        repository, key = subject.repository, self._scan_key(subject, current(self._registry))
        kept = get_record(self._registry, repository, _tag("scan", key), StandardScan)
        if kept is None:
            return None
        named = (subject.digest, kept.provenance, kept.statement, kept.sbom_statement)
        whole = self._registry.has_blob(repository, Digest(kept.scan.sbom)) and all(
            self._registry.get_manifest(repository, digest) is not None for digest in named
        )
        return kept if whole else None

    def _scan(self, subject: StandardImage) -> StandardScan:
        used = current(self._registry)
        database = ensure_database(self._registry, self._cache, used.database)
        own = ensure_own(self._registry, self._cache, used.own)
        binary, tool = find_trivy()
        entry, image = self._entry(subject), self._image(subject)
        part = scan_image(self._registry, image, binary, database, own)
        sbom = with_archives(make_sbom(part.components, image, tool), entry)
        scan = Scan(
            image=image.digest,
            scanner=tool,
            database=database.identity,
            findings=part.findings,
            coverage=part.coverage,
            sbom=self._registry.put_blob(image.repository, sbom_bytes(sbom)),
            own_advisories=used.own or "",
        )
        subjects = (Subject(name=f"{IMAGE_HOST}/{image.repository}", digest=image.digest),)
        spoken = (
            (PROVENANCE, provenance(self._standard.spec(subject.name), entry), self._signers.builder),
            (SCAN, scan.model_dump(mode="json"), self._signers.scanner),
            (SBOM, sbom, self._signers.scanner),
        )
        said = [
            attach_statement(
                self._registry,
                image.repository,
                Statement(subjects=subjects, predicate_type=kind, predicate=predicate),
                signer,
            )
            for kind, predicate, signer in spoken
        ]
        check_current(self._registry, used, image.repository)
        kept = StandardScan(scan=scan, provenance=said[0], statement=said[1], sbom_statement=said[2])
        key = self._scan_key(subject, used)
        put_record(self._registry, image.repository, _tag("scan", key), kept)
        return kept

    def _entry(self, subject: StandardImage) -> LockEntry:
        entry = self._standard.locked.get(subject.name)
        if entry is None or entry.digest != subject.digest:
            raise PermanentError(
                f"The image {subject.name} {hex_of(subject.digest)[:12]} is not the one of the lock.",
                where=self._standard.where,
                remedy="Only what the lock names may be built on: sekisho up brings both together.",
            )
        return entry

    def _image(self, subject: StandardImage) -> Image:
        """Return a standard image as the scanner sees it: all of its layers are the platform's."""
        base = load_base(self._registry, subject)
        purls = tuple(item.purl for item in self._entry(subject).archives)
        return Image(
            repository=subject.repository,
            digest=subject.digest,
            language=self._standard.spec(subject.name).language,
            base=subject.name,
            base_digest=subject.digest,
            layers=base_layers(base),
            locked=tuple(sorted({purl for purl in purls if PackageURL.from_string(purl).type in _SEEN_BY_SCANNER})),
        )

    # -- the word ---------------------------------------------------------------------------------------------------

    def _rules(self, subject: StandardImage) -> Digest:
        spec = self._standard.spec(subject.name)
        return digest_of_json([RECIPE, self._limits.identity(), spec.end_of_life.isoformat(), spec.owner, spec.version])

    def _judged(self, subject: StandardImage, kept: StandardScan) -> StandardVerdict:
        at = int(self._now())
        today = dt.datetime.fromtimestamp(at, tz=dt.UTC).date()
        # The judge's own questions, asked about an image that stands on itself.
        stands = Image(
            repository=subject.repository, digest=subject.digest, language="none", base=subject.name,
            base_digest=subject.digest, layers=(),
        )  # fmt: skip
        ends = standard_reasons(stands, self._standard, today, self._limits.end_of_life)
        reasons, notes = scan_reasons(
            waiver_name(subject.name), kept.scan, self._limits, at, base=subject.name, base_digest=subject.digest
        )
        # Whatever is in a standard image is the platform's to mend, also what it brings along from elsewhere.
        ours = [item.model_copy(update={"owner": "platform"}) if item.owner else item for item in (*ends, *reasons)]
        reasons = list(dict.fromkeys(ours))
        known = Counter(str(item.severity) for item in kept.scan.findings if item.kind == "vulnerability")
        return StandardVerdict(
            name=subject.name,
            image=subject.digest,
            result=Result.FAILED if any(item.result == "fail" for item in reasons) else Result.PASSED,
            reasons=tuple(reasons),
            notes=tuple(notes),
            rules=self._rules(subject),
            database=kept.scan.database,
            findings=dict(sorted(known.items())),
            provenance=kept.provenance,
            scan=kept.statement,
            sbom=kept.sbom_statement,
        )

    def _tag(self, subject: StandardImage) -> str:
        return _tag("judge", self.key(subject))


def waiver_name(name: str) -> str:
    """Return the name under which a waiver (waivers.yaml, `app`) is about a standard image."""
    return f"standard-{name}"


def _refused(spec: StandardSpec, verdict: StandardVerdict) -> Held:
    failures = verdict.failures
    shown = "; ".join(reason.message for reason in failures[:_SHOWN])
    more = f"; and {len(failures) - _SHOWN} more" if len(failures) > _SHOWN else ""
    return Held(
        f"The standard image {spec.name} has not passed its own gate: {shown}{more}",
        where=f"standard/{spec.name}@{verdict.image}",
        remedy=f"The {spec.owner} mends the image (`sekisho images {spec.name}` shows how far it is); nothing is to be "
        "done in the workload.",
    )


def _verdicts(subject: StandardImage) -> str:
    return f"verdicts/{waiver_name(subject.name)}"


def _tag(what: str, key: Digest) -> str:
    return f"{what}-{hex_of(key)[:40]}"
