"""Evidence that was swapped, changed or lost in the registry by somebody who can write there and has no key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fault_cases import Fault, faults
from fault_line import APP, GateLine, provenance

from sekisho.canonical import Digest, digest_of
from sekisho.evidence import PREDICATE_ANNOTATION, attach_bundle
from sekisho.keys import FileSigner
from sekisho.model import Image, Result, Scan, SealedRelease
from sekisho.oci import OCI_INDEX, OCI_MANIFEST, fallback_tag, make_index
from sekisho.records import get_record, put_record
from sekisho.registry_referrers import own_tag
from sekisho.releases.judgement import judgement_manifest, load_judgement
from sekisho.statements import PROVENANCE, SBOM, SCAN, sign_statement
from stages.build.stage import BuildRecord
from stages.scan import ScanRecord
from stages.scan.images import ImagePart
from stages.scan.source import SourcePart

IMAGES = f"apps/{APP}"
WORD = {"summary in verdicts"}
SEARCH = "Find out who writes to the zone's registry. Nothing is to be mended: what does not verify is made again."
BACK = "Bring the registry's content back; the commit is judged again by itself."
HOLE = """value['Results'][0]['Vulnerabilities'] = [{
    'VulnerabilityID': 'CVE-2000-0001', 'PkgName': 'holey', 'InstalledVersion': '2.0', 'Severity': 'CRITICAL'}]"""


def tags(line: GateLine, repository: str, prefix: str) -> list[str]:
    return [tag for tag in line.direct.tags(repository) if tag.startswith(prefix)]


def tag(line: GateLine, repository: str, prefix: str) -> str:
    (found,) = (item for item in tags(line, repository, prefix) if item[len(prefix) :].isalnum())
    return found


def image_of(line: GateLine) -> Image:
    record = get_record(line.direct, IMAGES, tag(line, IMAGES, "build-"), BuildRecord)
    assert record is not None
    return record.image


def forget(line: GateLine, image: Image, predicate: str) -> Callable[[], None]:
    """Take the statements of a kind off all that lists what refers to an image; return what brings them back."""
    subject = Digest(image.digest)
    place = fallback_tag(subject)
    kept, other = line.direct.get_manifest(IMAGES, place), line.direct.get_manifest(IMAGES, subject)
    assert kept is not None
    assert other is not None
    listed = line.direct.referrers(IMAGES, subject)
    rest = tuple(item for item in listed if item.annotations[PREDICATE_ANNOTATION] != predicate)
    gone = {item.digest: line.direct.get_manifest(IMAGES, item.digest) for item in listed if item not in rest}
    assert gone
    line.direct.put_manifest(IMAGES, make_index(rest), OCI_INDEX, tag=place)
    for digest in gone:
        line.direct.put_manifest(IMAGES, other.data, other.media_type, tag=own_tag(subject, digest))

    def bring_back() -> None:
        line.direct.put_manifest(IMAGES, kept.data, OCI_INDEX, tag=place)
        for digest, raw in gone.items():
            assert raw is not None
            line.direct.put_manifest(IMAGES, raw.data, raw.media_type, tag=own_tag(subject, digest))

    return bring_back


def vulnerable(line: GateLine) -> None:
    """Let the scanner find something that fails the gate."""
    script = line.folder / "hole.py"
    script.write_text(
        "import json, pathlib, sys\npath = pathlib.Path(sys.argv[1])\nvalue = json.loads(path.read_bytes())\n"
        f"{HOLE}\npath.write_text(json.dumps(value))\n"
    )
    line.scanner(f'repeat "$1"\nexec python3 -S -E {script} "$out"', only="image")


def clean_scan(line: GateLine) -> None:
    name = tag(line, IMAGES, "scan-")
    record = get_record(line.direct, IMAGES, name, ScanRecord)
    assert record is not None
    assert record.scan.findings
    scan = record.scan.model_copy(update={"findings": ()})
    put_record(line.direct, IMAGES, name, record.model_copy(update={"scan": scan}))


def clean_source(line: GateLine) -> None:
    name = tag(line, IMAGES, "scan-source-")
    put_record(line.direct, IMAGES, name, SourcePart(findings=(), packages=("pkg:pypi/holey@2.0",)))
    clean_scan(line)


@faults(
    Fault("evidence/scan-record", "findings are taken out of the record of the scan", "FAILED", "CVE-2000-0001", SEARCH,
          clean_scan),
    Fault("evidence/scan-source", "the records of scan and source are replaced by clean ones", "FAILED",
          "CVE-2000-0001", SEARCH, clean_source),
)  # fmt: skip
def test_a_no_stays_a_no_whatever_somebody_writes_into_the_records(built: GateLine, fault: Fault) -> None:
    vulnerable(built)
    first = built.start().push()
    built.check_fault(fault, first)
    fault.value(built)
    again = built.start().push()
    assert "(known)" in again.text  # the image is; the scan is made again
    built.check_fault(fault, again)


@faults(
    Fault("evidence/scan-part", "findings are taken out of what is kept of the image's scan", "FAILED",
          "CVE-2000-0001", SEARCH),
)  # fmt: skip
def test_what_is_kept_of_an_earlier_scan_is_believed_only_when_the_scanner_signed_it(
    built: GateLine, fault: Fault
) -> None:
    vulnerable(built)
    built.check_fault(fault, built.start().push())
    name = tag(built, IMAGES, "scan-image-")
    part = get_record(built.direct, IMAGES, name, ImagePart)
    assert part is not None
    put_record(built.direct, IMAGES, name, part.model_copy(update={"findings": ()}))
    # Without the record of the whole scan, the parts are looked for.
    record = built.direct.get_manifest(IMAGES, tag(built, IMAGES, "scan-"))
    assert record is not None
    built.direct._http.send("DELETE", f"/v2/{IMAGES}/manifests/{record.digest}", limit=1 << 20)
    built.check_fault(fault, built.start().push())


@faults(
    Fault("evidence/verdict", "a FAILED verdict is replaced by a PASSED one of another state", "FAILED",
          "CVE-2000-0001", SEARCH),
)  # fmt: skip
def test_a_verdict_is_judged_again_and_never_read(built: GateLine, fault: Fault) -> None:
    vulnerable(built)
    built.check_fault(fault, built.start().push())
    verdicts = f"verdicts/{APP}"
    name = tag(built, verdicts, "judged-")
    kept = load_judgement(built.direct, verdicts, name)
    assert kept is not None
    verdict = kept[0].verdict.model_copy(update={"result": Result.PASSED, "reasons": ()})
    passed = kept[0].model_copy(update={"verdict": verdict})
    built.direct.put_blob(verdicts, passed.canonical())
    built.direct.put_manifest(verdicts, judgement_manifest(passed), OCI_MANIFEST, tag=name)
    built.check_fault(fault, built.start().push())


@faults(
    Fault("evidence/other-image", "the scan's record is that of another image", "goes on", "PASSED", SEARCH),
)
def test_the_scan_of_another_image_is_not_taken_for_this_one(scanned: GateLine, fault: Fault) -> None:
    name = tag(scanned, IMAGES, "scan-")
    record = get_record(scanned.direct, IMAGES, name, ScanRecord)
    assert record is not None
    other = Scan.model_validate({**record.scan.model_dump(), "image": digest_of(b"another")})
    put_record(scanned.direct, IMAGES, name, record.model_copy(update={"scan": other}))
    outcome = scanned.start().push()
    assert fault.says in outcome.text
    scanned.check_released(outcome)


@faults(
    Fault("evidence/deleted-blob", "the bill of materials that the scan's record names is deleted", "goes on", "PASSED",
          "Nothing: it is scanned again."),
)  # fmt: skip
def test_a_record_of_something_that_is_gone_does_not_count(scanned: GateLine, fault: Fault) -> None:
    record = get_record(scanned.direct, IMAGES, tag(scanned, IMAGES, "scan-"), ScanRecord)
    assert record is not None
    scanned.direct._http.send("DELETE", f"/v2/{IMAGES}/blobs/{record.scan.sbom}", limit=1 << 20)
    assert not scanned.direct.has_blob(IMAGES, Digest(record.scan.sbom))
    outcome = scanned.start().push()
    assert fault.says in outcome.text
    scanned.check_released(outcome)


@faults(
    Fault("evidence/no-provenance", "the list of evidence lacks the provenance", "retried", "The image has no", BACK,
          PROVENANCE),
    Fault("evidence/no-scan", "the list of evidence lacks the scan", "retried", "The image has no", BACK, SCAN),
    Fault("evidence/no-sbom", "the list of evidence lacks the bill of materials", "retried", "The image has no", BACK,
          SBOM),
)  # fmt: skip
def test_a_release_lacks_no_evidence(scanned: GateLine, fault: Fault) -> None:
    back = forget(scanned, image_of(scanned), fault.value)
    scanned.check_fault(fault, scanned.start().push(), leaves=WORD)
    back()
    scanned.check_released(scanned.goes_on())


def other_commit(line: GateLine, image: Image) -> Any:
    signer = FileSigner.load(line.home.keys / "builder.pem", "builder")
    return sign_statement(provenance(image, "f" * 40), signer)


def other_key(line: GateLine, image: Image) -> Any:
    stranger = FileSigner.create(line.folder / "stranger.pem", "builder")
    return sign_statement(provenance(image, line.place.commit), stranger)


def other_role(line: GateLine, image: Image) -> Any:
    scanner = FileSigner.load(line.home.keys / "scanner.pem", "scanner")
    return sign_statement(provenance(image, line.place.commit), scanner)


@faults(
    Fault("evidence/other-commit", "the provenance is that of another commit", "retried", "of this commit", BACK,
          other_commit),
    Fault("evidence/other-key", "a stranger's key signed the provenance", "retried", "that the builder signed", BACK,
          other_key),
    Fault("evidence/other-role", "the scanner's key signed the provenance", "retried", "that the builder signed", BACK,
          other_role),
)  # fmt: skip
def test_a_provenance_counts_for_its_commit_and_by_the_builders_key(scanned: GateLine, fault: Fault) -> None:
    scanned.start()
    image = image_of(scanned)
    back = forget(scanned, image, PROVENANCE)
    attach_bundle(scanned.direct, IMAGES, Digest(image.digest), fault.value(scanned, image))
    scanned.check_fault(fault, scanned.push(), leaves=WORD)
    back()
    scanned.check_released(scanned.goes_on())


@faults(
    Fault("evidence/other-release", "the release's record names another release and its summary", "goes on", "PASSED",
          SEARCH),
)  # fmt: skip
def test_another_release_is_not_offered_in_the_place_of_this_one(scanned: GateLine, fault: Fault) -> None:
    scanned.check_released(scanned.start().push())
    (offer,) = scanned.gate.feed.offers()
    place = f"releases/{APP}"
    name = tag(scanned, place, "sealed-")
    sealed = get_record(scanned.direct, place, name, SealedRelease)
    assert sealed is not None
    # The state is as after a kill before the offer; only the record is somebody else's.
    (scanned.home.state / "feed.jsonl").unlink()
    other = sealed.release.model_copy(update={"policy": digest_of(b"another policy")})
    put_record(scanned.direct, place, name, sealed.model_copy(update={"release": other, "digest": sealed.summary}))
    scanned.forget_verdict()
    outcome = scanned.start().push()
    assert fault.says in outcome.text
    scanned.check_released(outcome)
    assert scanned.gate.feed.offers() == (offer,)
    assert outcome.verdict is not None
    assert outcome.verdict.result is Result.PASSED
