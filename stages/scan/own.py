"""Reading the scanner's report about the operator's own advisories. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from sekisho.model import Finding, Image, Severity
from sekisho.own_advisories import EVERY, SOURCE, OwnAdvisories, OwnAdvisory, identify, readable
from stages.scan import parse


def own_findings(report: parse.Report, own: OwnAdvisories, image: Image | None) -> Iterator[Finding]:
    """Yield what the operator denies in an image or a source tree, and what could not be compared.

    Args:
        report: the report of the scan with the operator's database.
        own: the advisories in that database.
        image: the image; None for a source tree.
    """
    known = {advisory.id: advisory for advisory in own.advisories}
    for finding in parse.vulnerabilities(report, image, source=SOURCE):
        advisory = known.get(finding.id)
        if advisory is None:
            continue
        # Debian's comparer has no single versions: it named the package, the version is compared here.
        if advisory.ecosystem == "debian" and advisory.exact and finding.installed not in advisory.exact:
            continue
        fixed = finding.fixed or ", ".join(advisory.fixed)
        yield finding.model_copy(update={"fixed": fixed})
    yield from _not_compared(report, own, image)


def _not_compared(report: parse.Report, own: OwnAdvisories, image: Image | None) -> Iterator[Finding]:
    denied: dict[tuple[str, str], list[OwnAdvisory]] = {}
    for advisory in own.advisories:
        denied.setdefault((advisory.ecosystem, advisory.name.lower()), []).append(advisory)
    for package in (*parse.packages(report, "os-pkgs"), *parse.packages(report, "lang-pkgs")):
        purl = parse.purl_of(package)
        found = identify(purl) if purl else None
        if found is None:
            continue
        ecosystem, name, version = found
        for advisory in denied.get((ecosystem, name.lower()), ()):
            problem = _problem(advisory, package, version)
            if problem:
                yield Finding(
                    kind="coverage",
                    id="denied-not-compared",
                    severity=Severity.CRITICAL,
                    title=f"{advisory.id} denies {advisory.package}, but {problem}",
                    where=purl,
                    owner=parse.owner_of(package, image),
                    source=SOURCE,
                )


def _problem(advisory: OwnAdvisory, package: parse.Report, version: str) -> str:
    if advisory.ecosystem == "debian":
        source = str(package.get("SrcName") or advisory.package)
        if source != advisory.package:
            return f"that is built from {source}: the advisory must name the source package."
        return ""
    if advisory.versions != EVERY and not readable(advisory.ecosystem, version):
        return f"the version {version!r:.60} cannot be compared."
    return ""
