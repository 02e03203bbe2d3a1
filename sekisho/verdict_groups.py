"""What a verdict asks of whom: its reasons put together so that one thing to do is one item. Pure.

A thousand advisories about one package are one update. So findings are put together by package, with the version that
mends all of them, and other findings of one kind with their places. Whose it is comes from where it was found: what
sits in the standard image is the platform team's, everything else the developers'.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from sekisho.model import Finding, Reason, Severity, Verdict

Share = Literal["yours", "platform", "consequence"]

_CONSEQUENCE = "evidence/"
_SHOWN = 5
_WORST = tuple(reversed(Severity))
_TOKEN = re.compile(r"[0-9]+|[A-Za-z]+|~")
_BEFORE = frozenset({"a", "alpha", "b", "beta", "c", "cr", "dev", "m", "milestone", "pre", "preview", "rc", "snapshot"})
"""Words after which a version comes before the one without them (PEP 440, SemVer, Maven)."""


@dataclass(frozen=True)
class Item:
    """One thing to do, or to know."""

    share: Share
    result: Literal["pass", "fail", "warn"]
    rule: str
    message: str
    remedy: str
    where: str
    reasons: int
    """How many of the verdict's reasons it stands for."""


def items(verdict: Verdict) -> tuple[Item, ...]:
    """Return what a verdict says beside what passed: failures before warnings, each in the order of the verdict."""
    groups: dict[object, list[Reason]] = {}
    lonely = not any(reason.result == "fail" and not _follows(reason) for reason in verdict.reasons)
    for reason in verdict.reasons:
        if reason.result != "pass":
            groups.setdefault(_key(reason), []).append(reason)
    found = [_item(group, consequence=not lonely and _follows(group[0])) for group in groups.values()]
    return tuple(sorted(found, key=lambda item: item.result != "fail"))


def _follows(reason: Reason) -> bool:
    return reason.result == "fail" and reason.rule.startswith(_CONSEQUENCE)


def _key(reason: Reason) -> object:
    finding = reason.finding
    if finding is None:
        return reason
    whose = (reason.rule, reason.owner, finding.suppressed)
    if finding.kind == "vulnerability":
        return (*whose, finding.package, finding.installed)
    return (*whose, reason.result, finding.id, finding.severity, finding.title, reason.remedy)


def _item(group: Sequence[Reason], *, consequence: bool) -> Item:
    first = group[0]
    share: Share = "consequence" if consequence else "platform" if first.owner == "platform" else "yours"
    result: Literal["fail", "warn"] = "fail" if any(reason.result == "fail" for reason in group) else "warn"
    message, remedy = first.message, first.remedy
    findings = [reason.finding for reason in group if reason.finding is not None]
    if len(group) > 1 and findings and findings[0].kind == "vulnerability":
        message, remedy = _advisories(findings), _update(findings, share)
        if findings[0].suppressed:
            message, remedy = f"{message} Waived: {findings[0].suppressed}", ""
    where = _listed(dict.fromkeys(reason.where for reason in group if reason.where), 2)
    return Item(share, result, first.rule, message, remedy, where, len(group))


def _advisories(findings: Sequence[Finding]) -> str:
    worst = sorted(findings, key=lambda finding: _WORST.index(finding.severity))
    ids = list(dict.fromkeys(finding.id for finding in worst))
    by_id = {finding.id: finding.severity for finding in reversed(worst)}
    counts = {severity: list(by_id.values()).count(severity) for severity in _WORST}
    counted = ", ".join(f"{count} {severity}" for severity, count in counts.items() if count)
    package = f"{findings[0].package} {findings[0].installed}".rstrip()
    return f"{package} has {counted}: {_listed(ids, _SHOWN)}."


def _update(findings: Sequence[Finding], share: Share) -> str:
    package = findings[0].package
    version = mends_all(findings[0].installed, [finding.fixed for finding in findings if finding.fixed])
    unfixed = list(dict.fromkeys(finding.id for finding in findings if not finding.fixed))
    if share == "platform":
        fixed = f" to {version} or later" if version else ""
        return f"It sits in the standard image: the platform team updates it{fixed}, and the line builds on it."
    said = [f"Update {package} to {version} or later and lock again."] if version else []
    if unfixed:
        which = f" of {_listed(unfixed, _SHOWN)}" if version else ""
        said.append(
            f"There is no fix{which} yet: replace {package}, or ask the security team for a waiver with an end."
        )
    return " ".join(said)


def _listed(texts: Iterable[str], most: int) -> str:
    all_of = list(texts)
    shown = ", ".join(all_of[:most])
    return shown if len(all_of) <= most else f"{shown} and {len(all_of) - most} more"


# -- versions ---------------------------------------------------------------------------------------------------------


def mends_all(installed: str, fixed: Sequence[str]) -> str:
    """Return the lowest version that mends every finding; empty where nothing is mended.

    An advisory can name several versions, one for each line that is still mended (`2.12.5, 3.0.1`). The order of
    versions is that of Debian, PEP 440, SemVer and Maven as far as they agree; the text says "or later".

    Args:
        installed: the version that is there.
        fixed: of each finding, the versions that mend it, as the scanner names them.
    """
    ways = [[part.strip() for part in text.split(",") if part.strip()] for text in fixed]
    ways = [sorted(parts, key=_order) for parts in ways if parts]
    offered = sorted({part for parts in ways for part in parts}, key=lambda part: (_order(part), part))
    higher = [part for part in offered if _order(part) > _order(installed)]
    for version in higher:
        if all(_mends(version, parts) for parts in ways):
            return version
    return (higher or offered or [""])[-1]


def _mends(version: str, parts: Sequence[str]) -> bool:
    """Return whether a version has the fix, by the fixes of its own line where it has some."""
    order = _order(version)
    if order >= _order(parts[-1]):
        return True
    line = order[:-2]
    same = [part for part in parts if _order(part)[:-2] == line]
    if same:
        return any(order >= _order(part) for part in same)
    below = [part for part in parts if _order(part) <= order]
    return bool(below) and _order(below[-1])[:1] == order[:1]


@cache
def _order(version: str) -> tuple[tuple[int, int, str], ...]:
    """Return something that sorts as versions do; the last element marks the end."""
    epoch, colon, rest = version.partition(":")
    text = rest if colon and epoch.isdigit() else version
    parts: list[tuple[int, int, str]] = [(2, int(epoch), "")] if colon and epoch.isdigit() else []
    for token in _TOKEN.findall(text.removeprefix("v")):
        if token.isdigit():
            parts.append((2, int(token), ""))
        elif token == "~" or token.lower() in _BEFORE:  # noqa: S105
            parts.append((-1, 0, token.lower()))
        else:
            parts.append((1, 0, token.lower()))
    return (*parts, (0, 0, ""))
