"""Reading the scanner's reports. Pure; strict: what does not have the expected form is a failure, not a clean report.

Format: github.com/aquasecurity/trivy `pkg/types/report.go`, schema version 2.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, TypeVar

from packageurl import PackageURL
from packaging.utils import canonicalize_name

from sekisho.errors import PermanentError
from sekisho.model import Coverage, Finding, Image, Severity
from sekisho.own_advisories import identify
from sekisho.workloads import WORKLOADS

Report = Mapping[str, Any]
Owner = Literal["platform", "workload"]
T = TypeVar("T")

_SCHEMA = 2
_KINDS = {"image": "container_image", "fs": "filesystem", "config": "filesystem"}
_RULE = re.compile(r"(?:AVD-)?([A-Z]+)-?0*([0-9]+)")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TITLE = 300
UNSUPPORTED = ("", "none")


def check_report(report: Report, mode: str) -> None:
    """Check a report's frame.

    Raises:
        PermanentError: another schema, another kind of target, or the scanner left something out on its own.
    """
    _need(report.get("SchemaVersion") == _SCHEMA, "its schema is not 2")
    _need(report.get("ArtifactType") == _KINDS[mode], f"it is about a {report.get('ArtifactType')!r:.40}")
    for result in results(report):
        _need(not result.get("ExperimentalModifiedFindings"), "the scanner suppressed findings on its own")


def check_image(report: Report, image: Image) -> None:
    """Check that an image report is about this very image and all of its layers.

    Raises:
        PermanentError: it is about another image, or about other layers.
    """
    metadata = _get(report, "Metadata", dict)
    digests = _get(metadata, "RepoDigests", list)
    _need(any(str(item).endswith(f"@{image.digest}") for item in digests), "it is about another image")
    layers = tuple(_get(metadata, "DiffIDs", list))
    _need(layers == tuple(layer.diff_id for layer in image.layers), "it is about other layers")


def check_targets(report: Report, names: Mapping[str, str]) -> None:
    """Check that the scanner looked at every object that it knows rules for.

    Raises:
        PermanentError: an object with pods is not in the report.
    """
    seen = {_text(result, "Target") for result in results(report)}
    for target, name in names.items():
        if name.partition("/")[0] in WORKLOADS:
            _need(target in seen, f"{name} was not looked at")


def results(report: Report) -> tuple[Mapping[str, Any], ...]:
    """Return a report's results; none is an empty tuple."""
    found = report.get("Results")
    if found is None:
        return ()
    _need(isinstance(found, list) and all(isinstance(item, dict) for item in found), "its results are not a list")
    return tuple(found)


def packages(report: Report, class_: str) -> Iterator[Mapping[str, Any]]:
    """Yield the packages of a class, `os-pkgs` or `lang-pkgs`."""
    for result in results(report):
        if result.get("Class") == class_:
            yield from _list(result, "Packages")


def purls(report: Report) -> frozenset[str]:
    """Return the package URLs of the language packages in a report, in their normal form."""
    return frozenset(filter(None, map(_purl, packages(report, "lang-pkgs"))))


def coverage(report: Report, image: Image, known: frozenset[str] | None = None) -> tuple[Coverage, tuple[Finding, ...]]:
    """Return what was looked at in an image, and a finding for each thing that was not.

    Args:
        report: the report about the image.
        image: what was built, with what its lock file pins.
        known: what the advisory database knows; None for a sample, which does not claim to know.
    """
    os = report.get("Metadata", {}).get("OS") or {}
    family, version = str(os.get("Family", "")), str(os.get("Name", ""))
    installed = purls(report)
    missing = tuple(sorted(purl for purl in image.locked if normal(purl) not in installed))
    count = sum(1 for _ in packages(report, "os-pkgs"))
    found = Coverage(
        os_family=family,
        os_version=version,
        os_packages=count,
        language_packages=sum(1 for _ in packages(report, "lang-pkgs")),
        locked=len(image.locked),
        missing=missing,
    )
    gaps = list(_gaps(found, bool(os.get("EOSL")), image))
    return found, tuple(gaps if known is None else [*gaps, *_unknown(found, installed, known, image)])


def _gap(id_: str, title: str, where: str, owner: Owner, severity: Severity = Severity.CRITICAL) -> Finding:
    return Finding(kind="coverage", id=id_, severity=severity, title=title, where=where, owner=owner)


def _gaps(found: Coverage, ended: bool, image: Image) -> Iterator[Finding]:  # noqa: FBT001
    base = f"standard/{image.base}"
    if found.os_family in UNSUPPORTED:
        yield _gap(
            "os-unknown", "The scanner does not know the operating system: it looked for nothing.", base, "platform"
        )
    elif found.os_packages == 0:
        yield _gap("os-packages-none", "The scanner found no package of the operating system.", base, "platform")
    if ended:
        title = f"{found.os_family} {found.os_version} gets no security fixes any more."
        yield _gap("os-end-of-life", title, base, "platform", Severity.HIGH)
    for purl in found.missing:
        yield _gap(
            "locked-not-found", "The lock file pins it, the scanner did not find it in the image.", purl, "workload"
        )


def _unknown(found: Coverage, installed: frozenset[str], known: frozenset[str], image: Image) -> Iterator[Finding]:
    """Yield what a database says nothing about: the scanner finds nothing there, and says nothing either."""
    base = f"standard/{image.base}"
    system = f"{found.os_family} {found.os_version.partition('.')[0]}"
    if found.os_family not in UNSUPPORTED and system not in known:
        yield _gap("os-not-in-database", f"The advisory database knows nothing of {system}.", base, "platform")
    kinds = {identity[0] for identity in map(identify, installed) if identity is not None}
    for kind in sorted(kinds):
        if not any(name.startswith(f"{kind}::") for name in known):
            title = f"The advisory database knows nothing of packages of {kind}."
            yield _gap("packages-not-in-database", title, base, "platform")


def lock_gaps(image: Image, seen: Iterable[str]) -> Iterator[Finding]:
    """Yield a finding when the scanner did not read all of the commit's lock file.

    Args:
        image: what was built, with what its lock file pins.
        seen: package URLs that the scanner read in the source tree.
    """
    if image.locked and image.lock == "committed" and not {normal(purl) for purl in image.locked} <= set(seen):
        yield _gap("lock-not-read", "The scanner did not read the whole lock file.", "lock file", "workload")


def vulnerabilities(report: Report, image: Image | None, source: str = "") -> Iterator[Finding]:
    """Yield the known vulnerabilities in a report.

    Args:
        report: the report about an image or a source tree.
        image: the image; findings in its base layers are the platform's. None for a source tree.
        source: where they are known from, when that is not the advisory database.
    """
    for result in results(report):
        for item in _list(result, "Vulnerabilities"):
            package = _get(item, "PkgName", str)
            yield Finding(
                kind="vulnerability",
                id=_get(item, "VulnerabilityID", str),
                severity=_severity(item),
                title=_title(item, "Title"),
                where=_text(item, "PkgPath") or _short(_text(result, "Target"), image),
                package=package,
                installed=_text(item, "InstalledVersion"),
                fixed=_text(item, "FixedVersion"),
                owner=owner_of(item, image),
                purl=_text(item.get("PkgIdentifier") or {}, "PURL"),
                published=_day(_text(item, "PublishedDate")),
                source=source,
            )


def secrets(report: Report, image: Image | None) -> Iterator[Finding]:
    """Yield the secrets in a report: where and of what kind, never any of their text."""
    for result in results(report):
        for item in _list(result, "Secrets"):
            yield Finding(
                kind="secret",
                id=_get(item, "RuleID", str),
                severity=_severity(item),
                title=_title(item, "Title"),
                where=f"{_short(_text(result, 'Target'), image)}:{_get(item, 'StartLine', int)}",
                owner=owner_of(item, image),
                layer="dependencies" if _layer_of(item) in _layers(image, "dependencies") else "",
            )


def misconfigurations(report: Report, names: Mapping[str, str]) -> Iterator[Finding]:
    """Yield what is wrong with manifests.

    Args:
        report: the report.
        names: the object (`Kind/name`) in each scanned file.
    """
    for result in results(report):
        target = _text(result, "Target")
        for item in _list(result, "Misconfigurations"):
            if _get(item, "Status", str) != "FAIL":
                continue
            yield Finding(
                kind="misconfiguration",
                id=rule_id(_get(item, "ID", str)),
                severity=_severity(item),
                title=_title(item, "Title"),
                where=names.get(target, target),
                owner="workload",
            )


def rule_id(text: str) -> str:
    """Return a rule's id in one form: the scanner has called the same rule KSV014, AVD-KSV-0014 and KSV-0014."""
    match = _RULE.fullmatch(text)
    return f"{match[1]}-{int(match[2]):04d}" if match else text


def merged(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return findings without repetition, in one order, whatever the order of the reports."""
    unique = {finding.canonical(): finding for finding in findings}
    return tuple(unique[key] for key in sorted(unique))


def without_copies(in_image: Iterable[Finding], in_source: tuple[Finding, ...], folder: str) -> Iterator[Finding]:
    """Yield an image's findings that the source tree does not show already.

    Args:
        in_image: secrets in the image.
        in_source: secrets in the source tree.
        folder: where the tree is in the image, with slashes at both ends.
    """
    known = {(finding.id, f"{folder}{finding.where}") for finding in in_source}
    for finding in in_image:
        if (finding.id, f"/{finding.where.lstrip('/')}") not in known:
            yield finding


def normal(purl: str) -> str:
    """Return a package URL without what does not name the package; a Python name in its normal form."""
    parsed = PackageURL.from_string(purl)
    name = canonicalize_name(parsed.name) if parsed.type == "pypi" else parsed.name
    return PackageURL(parsed.type, parsed.namespace, name, parsed.version).to_string()


def purl_of(package: Mapping[str, Any]) -> str:
    """Return a package's URL as the scanner says it; empty when it says none."""
    return _text(package.get("Identifier") or {}, "PURL")


def _purl(package: Mapping[str, Any]) -> str:
    text = purl_of(package)
    try:
        return normal(text) if text else ""
    except ValueError:
        return ""  # a name of a stranger's: what is locked under it is not found, and that is a finding


def owner_of(item: Mapping[str, Any], image: Image | None) -> Owner:
    """Return who mends what the scanner found: the platform what is in the standard image, the workload the rest."""
    if image is None:
        return "workload"
    diff_id = _layer_of(item)
    if not diff_id:
        # In the image's own settings: a standard image stands on itself, then they are the platform's.
        return "platform" if image.digest == image.base_digest else "workload"
    return "platform" if diff_id in _layers(image, "base") else "workload"


def _layer_of(item: Mapping[str, Any]) -> str:
    """Return the digest of the unpacked layer that something was found in; empty where the scanner names none."""
    layer = item.get("Layer")
    return str(layer.get("DiffID") or "") if isinstance(layer, dict) else ""


def _layers(image: Image | None, kind: str) -> frozenset[str]:
    return frozenset(known.diff_id for known in image.layers if known.kind == kind) if image else frozenset()


def _day(moment: str) -> str:
    return moment[:10] if _DAY.fullmatch(moment[:10]) else ""


def _short(target: str, image: Image | None) -> str:
    """Return a target without the registry's address, which differs from zone to zone."""
    if image is not None and image.digest in target:
        return image.repository if "(" in target or target.endswith(image.digest) else target
    return target


def _severity(item: Mapping[str, Any]) -> Severity:
    text = _get(item, "Severity", str)
    _need(text in Severity.__members__, f"the severity {text[:20]!r} is not known")
    return Severity(text)


def _title(item: Mapping[str, Any], key: str) -> str:
    return "".join(letter for letter in _text(item, key) if letter.isprintable())[:_TITLE]


def _text(item: Mapping[str, Any], key: str) -> str:
    value = item.get(key, "")
    return value if isinstance(value, str) else ""


def _list(result: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    value = result.get(key) or []
    _need(isinstance(value, list) and all(isinstance(item, dict) for item in value), f"{key} is not a list of objects")
    return list(value)


def _get(item: Mapping[str, Any], key: str, kind: type[T]) -> T:
    value = item.get(key)
    if not isinstance(value, kind):
        raise PermanentError(f"The scanner's report cannot be read: {key} is missing.", where="trivy")
    return value


def _need(condition: bool, why: str) -> None:  # noqa: FBT001
    if not condition:
        raise PermanentError(
            f"The scanner's report cannot be used: {why}.",
            where="trivy",
            remedy="See sekisho doctor on the build zone.",
        )
