"""A verdict as SARIF 2.1.0 (OASIS, https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/), for editors and CI.

Every rule that the gate asked is a result, also one that passed (`kind: pass`), and a waived finding is a suppressed
one, never a missing one. The same verdict gives the same bytes: no times, no random ids. What a result is about keeps
its fingerprint from commit to commit, so that a reader sees which problems are new.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from sekisho import __version__
from sekisho.canonical import digest_of_json, hex_of
from sekisho.model import Reason, Result, Verdict
from sekisho.verdict_rules import RULES, RuleText

MEDIA_TYPE = "application/sarif+json"

_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_ROOT = "SRCROOT"
_SCORE = "score.yaml"
_FINGERPRINT = "sekisho/v1"
_LEVELS = {"fail": "error", "warn": "warning"}
_NOTES = frozenset({"build/note"})
"""Rules whose warnings ask for nothing."""
_OBJECT = re.compile(r"([A-Z][A-Za-z]{0,62})/([a-z0-9][a-z0-9.-]{0,252})")
_FILE = re.compile(r"(?P<path>[^:`()\x00-\x1f]+?)(?::(?P<line>[1-9][0-9]{0,8}))?")
_NAMES = frozenset({"Procfile"})
"""Files whose names have no dot."""


def to_sarif(verdict: Verdict, rules: Mapping[str, RuleText] = RULES) -> bytes:
    """Return a verdict as a SARIF log, with control characters and all beyond ASCII escaped.

    Args:
        verdict: what the gate said.
        rules: the text of each rule; `RULES`, and those of the admission policies where they are at hand.
    """
    names = sorted({reason.rule for reason in verdict.reasons})
    seen: Counter[str] = Counter()
    results = [_result(reason, names.index(reason.rule), seen) for reason in verdict.reasons]
    released = verdict.result is Result.PASSED
    notes = [{"level": "note", "message": {"text": note}} for note in verdict.notes]
    run = {
        "tool": {
            "driver": {
                "name": "Sekisho",
                "fullName": "Sekisho, the gatekeeper",
                "version": __version__,
                "semanticVersion": __version__,
                "rules": [_rule(name, rules) for name in names],
            }
        },
        "automationDetails": {"id": f"sekisho/{verdict.app}/{verdict.commit.replace(' ', '-')}"},
        "invocations": [
            {
                # That the gate could judge; what it said is the exit code.
                "executionSuccessful": True,
                "exitCode": 0 if released else 1,
                "exitCodeDescription": str(verdict.result),
                **({"toolExecutionNotifications": notes} if notes else {}),
            }
        ],
        "originalUriBaseIds": {_ROOT: {"description": {"text": "The folder of the workload's score.yaml."}}},
        "columnKind": "unicodeCodePoints",
        "results": results,
        "properties": {"app": verdict.app, "commit": verdict.commit, "policy": verdict.policy},
    }
    log = {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(log, indent=2, ensure_ascii=True).encode() + b"\n"


def _rule(name: str, rules: Mapping[str, RuleText]) -> dict[str, Any]:
    found: dict[str, Any] = {"id": name, "name": _pascal(name)}
    if (text := rules.get(name)) is not None:
        found["shortDescription"] = {"text": f"{text.title}."}
        found["fullDescription"] = {"text": text.why}
        found["help"] = {"text": text.remedy}
    else:
        found["shortDescription"] = {"text": f"{name}."}
        found["fullDescription"] = {"text": f"The rule {name} of the platform team's policies."}
        found["help"] = {"text": "Each result says what to do."}
    found["defaultConfiguration"] = {"level": "note" if name in _NOTES else "error"}
    found["properties"] = {"tags": ["security", name.partition("/")[0]]}
    return found


def _pascal(name: str) -> str:
    return "".join(word.capitalize() for word in re.split(r"[^A-Za-z0-9]+", name))


def _result(reason: Reason, index: int, seen: Counter[str]) -> dict[str, Any]:
    passed = reason.result == "pass"
    level = "none" if passed else "note" if reason.rule in _NOTES else _LEVELS[reason.result]
    remedy = f" What to do: {reason.remedy}" if reason.remedy else ""
    about = _about(reason)
    seen[about] += 1
    finding = reason.finding
    found: dict[str, Any] = {
        "ruleId": reason.rule,
        "ruleIndex": index,
        "kind": "pass" if passed else "fail",
        "level": level,
        "message": {"text": f"{reason.message}{remedy}"},
        "locations": [_location(reason)],
        "partialFingerprints": {_FINGERPRINT: f"{about}:{seen[about]}"},
    }
    if finding is not None and finding.suppressed:
        waiver = {"kind": "external", "status": "accepted", "justification": finding.suppressed}
        found["suppressions"] = [waiver]
    properties = {"stage": reason.stage, "owner": reason.owner, "remedy": reason.remedy}
    if finding is not None:
        properties |= finding.model_dump(mode="json", include={"id", "severity", "package", "installed", "fixed"})
    found["properties"] = {name: value for name, value in properties.items() if value}
    return found


def _about(reason: Reason) -> str:
    """Return what a result is about, as a short hash: the same for the next commit, though lines and dates moved."""
    if reason.finding is not None:
        finding = reason.finding
        what = [finding.kind, finding.id, finding.package, _without_line(finding.where)]
    elif reason.result == "pass":
        what = []
    else:
        what = [reason.message, _without_line(reason.where)]
    return hex_of(digest_of_json([reason.rule, *what]))[:32]


def _without_line(where: str) -> str:
    return re.sub(r":[0-9]+$", "", where)


def _location(reason: Reason) -> dict[str, Any]:
    """Return where a result is: a file with its line, an object that score.yaml renders to, or score.yaml itself.

    Viewers of SARIF show only results that have a file; a workload's is the file that everything comes from.
    """
    where = reason.where
    found: dict[str, Any] = {"physicalLocation": _file(_SCORE, 1)}
    logical: list[dict[str, str]] = []
    if match := _OBJECT.fullmatch(where):
        logical.append({"name": match[2], "fullyQualifiedName": where, "kind": "resource"})
    elif where.startswith("pkg:"):
        logical.append({"fullyQualifiedName": where, "kind": "package"})
    elif (match := _FILE.fullmatch(where)) and _is_file(match["path"], match["line"] or ""):
        found["physicalLocation"] = _file(match["path"], int(match["line"] or 1))
    elif where:
        logical.append({"fullyQualifiedName": where})
    finding = reason.finding
    if finding is not None and finding.package:
        name = f"{finding.package}@{finding.installed}"
        logical.append({"name": finding.package, "fullyQualifiedName": name, "kind": "package"})
    return found | ({"logicalLocations": logical} if logical else {})


def _is_file(path: str, line: str) -> bool:
    """Return whether a place is a file below the workload's folder; an app's or a commit's name is none."""
    parts = path.split("/")
    if any(part in {"", ".", ".."} for part in parts):
        return False
    return bool(line) or len(parts) > 1 or "." in path or path in _NAMES


def _file(path: str, line: int) -> dict[str, Any]:
    return {
        "artifactLocation": {"uri": quote(path, safe="/"), "uriBaseId": _ROOT},
        "region": {"startLine": line},
    }
