"""`sekisho images`: the standard images, whose they are, until when they are mended, and what the gate says of each."""

from __future__ import annotations

from typing import Any

from sekisho.cli.output import emit_json, say, short, table
from sekisho.cli.reach import build
from sekisho.errors import Refusal

_SEVERITIES = ("CRITICAL", "HIGH", "MEDIUM", "LOW", "UNKNOWN")
_COLUMNS = ("image", "version", "digest", "owner", "mended until", "MB", "verdict", "known vulnerabilities")
_MEGABYTE = 1e6


def images(name: str, *, as_json: bool) -> int:
    """List the standard images, or tell all about one; 1 when one of them has not passed."""
    with build() as client:
        found = client.standard_images()
    if name:
        found = [item for item in found if item["name"] == name]
        if not found:
            raise Refusal(f"There is no standard image {name!r:.80}.", remedy="`sekisho images` lists them.")
    if as_json:
        emit_json(found)
    elif name:
        _tell(found[0])
    else:
        table(_COLUMNS, [_row(item) for item in found])
        _explain(found)
    return 1 if any(item["verdict"] == "FAILED" for item in found) else 0


def _row(item: dict[str, Any]) -> tuple[object, ...]:
    size = f"{item['size'] / _MEGABYTE:.1f}" if item["size"] else "-"
    digest = short(item["digest"]) if item["digest"] else "-"
    known = _known(item) if item["verdict"] in {"PASSED", "FAILED"} else "-"
    ends = item["end_of_life"]
    return item["name"], item["version"], digest, item["owner"], ends, size, item["verdict"], known


def _known(item: dict[str, Any]) -> str:
    counts = item["findings"]
    return ", ".join(f"{counts[severity]} {severity}" for severity in _SEVERITIES if counts.get(severity)) or "none"


def _explain(found: list[dict[str, Any]]) -> None:
    for item in found:
        if item["verdict"] == "FAILED":
            say()
            _reasons(item, "fail")
    if any(item["verdict"] == "waiting" for item in found):
        say()
        say("Waiting: not judged yet under the advisories and limits in force. Nobody builds on it until then.")
    if any(item["advisories"] == "sample" for item in found):
        say()
        say("Sample advisories: a small database for demo and tests, so that a pass says little about real ones.")


def _tell(item: dict[str, Any]) -> None:
    say(f"{item['name']} {item['version']}  {item['title']}")
    say(f"digest       {item['digest'] or 'never built'}")
    say(f"language     {item['language']} ({item['kind']})")
    say(f"owner        {item['owner']}, mended until {item['end_of_life']}")
    say(f"verdict      {item['verdict']}; known vulnerabilities: {_known(item)}")
    for result in ("fail", "warn"):
        _reasons(item, result)


def _reasons(item: dict[str, Any], result: str) -> None:
    for reason in item["reasons"]:
        if reason["result"] == result:
            place = f" ({reason['where']})" if reason["where"] else ""
            say(f"  {'x' if result == 'fail' else '!'} {item['name']}: {reason['message']}{place}")
            if reason["remedy"] and result == "fail":
                say(f"      {reason['remedy']}")
