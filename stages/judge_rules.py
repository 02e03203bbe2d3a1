"""The judge's own rules, beside the admission policies. Pure: documents in, reasons out."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from typing import Literal

from sekisho.canonical import hex_of
from sekisho.kinds import resource_of
from sekisho.limits import EndOfLifeLimits, Limits, SeverityLimits, at_least
from sekisho.model import IMAGE_HOST, Finding, Image, Manifests, Reason, Scan, Severity
from sekisho.standard import StandardImages
from sekisho.vex import weigh
from sekisho.waivers import Place
from sekisho.workloads import containers_of, pod_template
from stages.judge_schema import schema_reasons

Answer = Literal["pass", "fail", "warn"]
Owner = Literal["", "platform", "workload"]

_KINDS = {
    "vulnerability": "vulnerabilities",
    "secret": "secrets",
    "misconfiguration": "misconfigurations",
    "coverage": "coverage",
}
_CLOCK_SKEW = dt.timedelta(hours=24)
_MISSING_SHOWN = 5


def reason(
    rule: str,
    result: Answer,
    message: str,
    remedy: str = "",
    *,
    where: str = "",
    owner: Owner = "",
    stage: str = "judge",
    finding: Finding | None = None,
) -> Reason:
    """Return one rule's answer."""
    return Reason(
        rule=rule,
        stage=stage,
        result=result,
        message=message,
        remedy=remedy,
        where=where,
        owner=owner,
        finding=finding,
    )


def evidence_reasons(app: str, image: Image | None, manifests: Manifests | None, scan: Scan | None) -> list[Reason]:
    """Answer whether there is evidence of each kind, and whether all of it is about one thing."""
    found: list[Reason] = []
    if image is None:
        found.append(reason("evidence/image", "fail", "No image was built.", "Mend what the build says above."))
    elif image.repository != f"apps/{app}":
        found.append(reason("evidence/image", "fail", f"The image is of {image.repository}, not of apps/{app}."))
    else:
        found.append(reason("evidence/image", "pass", f"{image.repository} {hex_of(image.digest)[:12]}."))
    if manifests is None:
        found.append(reason("evidence/manifests", "fail", "Nothing was rendered.", "Mend what render says above."))
    elif manifests.app != app or not manifests.objects:
        found.append(reason("evidence/manifests", "fail", f"The manifests are not those of {app}."))
    else:
        found.append(reason("evidence/manifests", "pass", f"{len(manifests.objects)} objects."))
    if scan is None:
        remedy = "Mend what the earlier stages say; what was not scanned has not passed."
        found.append(reason("evidence/scan", "fail", "Not scanned.", remedy))
    elif image is None or scan.image != image.digest:
        message = f"Not scanned: the scan is about another image, {hex_of(scan.image)[:12]}."
        found.append(reason("evidence/scan", "fail", message, "Run the line again."))
    else:
        found.append(reason("evidence/scan", "pass", f"Scanned by {scan.scanner.name} {scan.scanner.version}."))
    return found


# -- standard images ------------------------------------------------------------------------------------------------


def standard_reasons(image: Image, standard: StandardImages, today: dt.date, limits: EndOfLifeLimits) -> list[Reason]:
    """Answer whether the image stands on a standard image that is known, current and still mended."""
    spec, locked = standard.specs.get(image.base), standard.locked.get(image.base)
    if spec is None or locked is None:
        message = f"The image stands on {image.base!r}, which is not a standard image with a digest."
        return [reason("standard/current", "fail", message, "Push again; the line chooses the base.", owner="platform")]
    found = []
    if locked.digest != image.base_digest:
        stands, current = hex_of(image.base_digest)[:12], hex_of(locked.digest)[:12]
        message = f"The image stands on {image.base} {stands}, current is {current}."
        found.append(reason("standard/current", "fail", message, "Build again: it takes the current one."))
    else:
        found.append(reason("standard/current", "pass", f"Stands on {image.base} {hex_of(locked.digest)[:12]}."))
    left = (spec.end_of_life - today).days
    ends = f"{image.base} {spec.version} is mended until {spec.end_of_life.isoformat()}"
    remedy = f"The {spec.owner} moves it to a release that is still mended."
    if left < 0:
        message = f"{ends}; nobody mends it any more."
        found.append(reason("standard/end-of-life", limits.after, message, remedy, owner="platform"))
    elif left <= limits.warn_days:
        found.append(reason("standard/end-of-life", "warn", f"{ends}.", remedy, owner="platform"))
    else:
        found.append(reason("standard/end-of-life", "pass", f"{ends}."))
    return found


# -- objects ----------------------------------------------------------------------------------------------------------


def workload_reasons(
    manifests: Manifests, image: Image | None, standard: StandardImages | None, limits: Limits
) -> list[Reason]:
    """Answer whether the objects are a workload's, and run only what was judged.

    Args:
        manifests: the rendered objects.
        image: the built image; None when it was not built, then only standard images are looked at.
        standard: the standard images; None to leave images out.
        limits: say which kinds a workload may have, and which versions of Kubernetes the zones may run.
    """
    kinds = limits.kinds
    found: list[Reason] = []
    for obj in manifests.objects:
        resource = resource_of(obj)
        name = f"{obj.get('kind')}/{(obj.get('metadata') or {}).get('name')}"
        if resource is None or resource.kind not in kinds or not resource.namespaced:
            message = f"{name} is not the workload's to have."
            found.append(reason("workload/kinds", "fail", message, f"A workload has {', '.join(kinds)}.", where=name))
        if (obj.get("metadata") or {}).get("namespace"):
            message = f"{name} names a namespace; the zones choose it."
            found.append(reason("workload/kinds", "fail", message, "Leave it out.", where=name))
    found = found or [reason("workload/kinds", "pass", f"Only {', '.join(kinds)}.")]
    found += schema_reasons(manifests.objects, limits.kubernetes)
    if standard is None:
        return found
    known = {f"{IMAGE_HOST}/standard/{name}@{entry.digest}" for name, entry in standard.locked.items()}
    if image is not None:
        known.add(image.reference)
    strange = sorted({used for used in _images(manifests) if image is not None or "/apps/" not in used} - known)
    for used in strange:
        remedy = "Use `image: .`, or a standard image by the digest in standard-images.lock.yaml."
        found.append(
            reason("workload/images", "fail", f"{used} is neither this build nor a current standard image.", remedy)
        )
    if not strange:
        found.append(reason("workload/images", "pass", "Runs this build and standard images only."))
    return found


def _images(manifests: Manifests) -> Iterator[str]:
    for obj in manifests.objects:
        template = pod_template(obj)
        for _, _, container in containers_of((template or {}).get("spec") or {}):
            yield str(container.get("image"))


# -- scan -------------------------------------------------------------------------------------------------------------


def scan_reasons(
    app: str, scan: Scan, limits: Limits, at: int, *, base: str = "", base_digest: str = ""
) -> tuple[list[Reason], list[str]]:
    """Answer what the scan saw, and whether it could see. Returns reasons and notes.

    Args:
        app: the workload; `standard-NAME` for a standard image.
        scan: the report.
        limits: limits, waivers and VEX in force.
        at: the time, seconds since the epoch.
        base: the standard image that the image stands on.
        base_digest: its digest.
    """
    now = dt.datetime.fromtimestamp(at, tz=dt.UTC)
    found = [_system(scan, limits), _packages(scan)]
    database, notes = _database(scan, limits, now)
    found.append(database)
    if limits.own_advisories and not scan.own_advisories:
        message = "Not scanned: the advisories of your own were not looked into."
        remedy = "The platform team publishes them in the zone: sekisho advisories publish."
        found.append(reason("scan/own-advisories", "fail", message, remedy, owner="platform"))
    place = Place(app, scan.image, base, base_digest)
    return found + finding_reasons(app, scan.findings, limits, now.date(), place), notes


def _system(scan: Scan, limits: Limits) -> Reason:
    coverage = scan.coverage
    if coverage.os_family not in limits.os_families or not coverage.os_version:
        message = f"Not scanned: the scanner does not know the system {coverage.os_family or 'none'!r:.60}."
        remedy = f"Systems that it knows: {', '.join(limits.os_families)}."
        return reason("scan/system", "fail", message, remedy, owner="platform")
    if not coverage.os_packages:
        message = "Not scanned: the scanner saw no package of the system."
        return reason(
            "scan/system", "fail", message, "The platform team looks at the standard image.", owner="platform"
        )
    message = f"{coverage.os_family} {coverage.os_version}, {coverage.os_packages} packages."
    return reason("scan/system", "pass", message)


def _packages(scan: Scan) -> Reason:
    coverage = scan.coverage
    missing = coverage.missing
    if missing:
        shown = ", ".join(missing[:_MISSING_SHOWN]) + (", ..." if len(missing) > _MISSING_SHOWN else "")
        message = f"Not scanned: {len(missing)} locked packages were not seen in the image: {shown}."
        remedy = "Bring the lock file up to date; if it is, tell the platform team."
        return reason("scan/packages", "fail", message, remedy, owner="workload")
    if coverage.language_packages < coverage.locked:
        message = f"Not scanned: {coverage.locked} packages are locked, {coverage.language_packages} were seen."
        return reason("scan/packages", "fail", message, "Bring the lock file up to date.", owner="workload")
    return reason("scan/packages", "pass", f"All {coverage.locked} locked packages were seen.")


def _database(scan: Scan, limits: Limits, now: dt.datetime) -> tuple[Reason, list[str]]:
    database, hours = scan.database, limits.database.max_age_hours
    if database.kind == "sample":
        note = "Sample advisories: a small database for demo and tests, so that a pass says little about real ones."
        return reason("scan/database", "pass", "A sample database; its age is not judged.", owner="platform"), [note]
    remedy = "The platform team brings a fresh advisory database into the mirror; the line judges it again then."
    try:
        updated = dt.datetime.fromisoformat(database.updated_at)
    except ValueError:
        updated = None
    if updated is None or updated.tzinfo is None:
        message = f"The advisory database has no readable date: {database.updated_at!r:.60}."
        return reason("scan/database", "fail", message, remedy, owner="platform"), []
    said = f"advisories of {database.updated_at}"
    if updated - now > _CLOCK_SKEW:
        return reason("scan/database", "fail", f"The {said} are from the future.", remedy, owner="platform"), []
    if now - updated > dt.timedelta(hours=hours):
        message = f"The {said} are older than {hours} hours."
        return reason("scan/database", "fail", message, remedy, owner="platform"), []
    return reason("scan/database", "pass", f"With {said}."), []


def finding_reasons(
    app: str, findings: Sequence[Finding], limits: Limits, today: dt.date, place: Place | None = None
) -> list[Reason]:
    """Answer each kind of finding against its limit.

    Args:
        app: the workload.
        findings: what was found.
        limits: limits, waivers and VEX in force.
        today: the day, for what ends.
        place: in which image; without it, in a working copy of the app.
    """
    place = place or Place(app)
    found: list[Reason] = []
    for kind, name in _KINDS.items():
        answers = [_finding(place, finding, limits, today) for finding in findings if finding.kind == kind]
        said = list(dict.fromkeys(answer for answer in answers if answer is not None))
        below = answers.count(None)
        if not any(answer.result == "fail" for answer in said):
            message = f"{below} below the limits." if below else "None found."
            said.append(reason(f"scan/{name}", "pass", message, stage="scan"))
        found += said
    return found


def _limit(kind: str, limits: Limits) -> SeverityLimits:
    if kind == "vulnerability":
        return limits.vulnerabilities
    if kind == "misconfiguration":
        return limits.misconfigurations
    # A secret, or a part that could not be scanned: severity says nothing here.
    return SeverityLimits(fail=Severity.UNKNOWN, warn=Severity.UNKNOWN)


def _finding(place: Place, finding: Finding, limits: Limits, today: dt.date) -> Reason | None:
    limit = _limit(finding.kind, limits)
    if not at_least(finding.severity, limit.warn):
        return None
    what = f"{finding.severity} {finding.id}"
    if finding.package:
        what += f" in {finding.package} {finding.installed}".rstrip()
    message = f"{what}: {finding.title}" if finding.title else f"{what}."
    if finding.source:
        message += f" (from {finding.source})"
    rule = f"scan/{_KINDS[finding.kind]}"
    held, ended = _held(place, finding, limits, today)
    if held:
        said = finding.model_copy(update={"suppressed": held})
        return reason(
            rule, "warn", f"{message} {held}", where=finding.where, owner=finding.owner, stage="scan", finding=said
        )
    message = f"{message} {ended}".rstrip()
    brought = finding.layer == "dependencies"
    tolerated = finding.kind == "secret" and (limits.secrets_of_packages if brought else limits.secrets) == "warn"
    answer: Answer = "fail" if at_least(finding.severity, limit.fail) and not tolerated else "warn"
    if answer == "fail" and limits.unfixed.answer(finding, today) == "warn":
        answer, message = "warn", f"{message} Nobody has mended it yet: it fails as soon as there is a fix."
    return reason(
        rule,
        answer,
        message,
        _remedy(place, finding),
        where=finding.where,
        owner=finding.owner,
        stage="scan",
        finding=finding.model_copy(update={"suppressed": ""}),
    )


def _held(place: Place, finding: Finding, limits: Limits, today: dt.date) -> tuple[str, str]:
    """Return what holds a finding back; or, where nothing does, what did and has ended."""
    about = [waiver for waiver in limits.waivers if waiver.covers(place, finding)]
    waiver = next((waiver for waiver in about if not waiver.expired(today)), None)
    if waiver is not None:
        return f"Waived: {waiver.reason} ({waiver.owner}, until {waiver.expires.isoformat()})", ""
    claim, ended = weigh(limits.vex, place, finding, today)
    if claim is not None:
        word = "Fixed" if claim.status == "fixed" else "Not affected"
        return f"{word}: {claim.why} ({claim.file}, {claim.owner}, until {claim.expires.isoformat()})", ""
    if about:
        last = max(about, key=lambda item: item.expires)
        ended = f"The waiver of {last.owner} expired on {last.expires.isoformat()}. {ended}".rstrip()
    return "", ended


def _remedy(place: Place, finding: Finding) -> str:
    if finding.kind == "secret" and finding.layer == "dependencies":
        return "It came with a package, for all who take it: nothing to revoke, unless the package is your own."
    if finding.kind == "secret":
        return "Revoke it now, for it is known; then remove it and read it from /bindings or a variable."
    if finding.owner == "platform":
        return _remedy_of_platform(place, finding)
    if finding.kind == "coverage":
        return "What was not scanned has not passed: make it readable for the scanner, or remove it."
    if finding.kind == "misconfiguration":
        return "Change what the finding names."
    if finding.fixed:
        return f"Update {finding.package} to {finding.fixed} and lock again."
    if finding.source:
        return f"Take another version of {finding.package}, or another package: this one is denied here."
    return f"There is no fix yet: replace {finding.package}, or ask the security team for a waiver with an end."


def _remedy_of_platform(place: Place, finding: Finding) -> str:
    """Say what happens to a finding that is not the developers' to mend (flows/rebase.py, docs/standard-images.md)."""
    name = f"the standard image {place.base}" if place.base else "the standard image"
    if finding.kind == "coverage":
        return f"The platform team looks at {name}; nothing is to be done in the workload."
    if finding.source and not finding.fixed:
        return f"It sits in {name} and is denied here: the platform team takes it out. The workload has nothing to do."
    if not finding.fixed:
        return (
            f"It sits in {name} and has no fix yet. The platform team decides; nothing is to be done in the workload."
        )
    return (
        f"It sits in {name}: the platform team moves it to {finding.fixed}. What stands on it is then rebased and "
        "judged again by itself; nothing is to be done in the workload."
    )
