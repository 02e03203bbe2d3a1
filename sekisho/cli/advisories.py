"""`sekisho advisories`: what the operator denies as of now, in the zone that judges."""

from __future__ import annotations

from pathlib import Path

from sekisho.canonical import hex_of
from sekisho.cli.output import emit_json, say, table
from sekisho.errors import UsageError
from sekisho.own_advisories import ADVISORIES_FILE, EVERY, OwnAdvisories, OwnAdvisory
from sekisho.zones import Zone

_COLUMNS = ("id", "severity", "ecosystem", "package", "denied", "go to", "why")
_SHORT = 12


def show(zone: str, *, as_json: bool) -> None:
    """List the own advisories that a zone's scans look into."""
    from sekisho.embedded.seeds import published_own  # noqa: PLC0415 -- wrong use is told before anything is loaded

    own = published_own(_zone(zone))
    if as_json:
        emit_json(own.model_dump(mode="json") if own else None)
    elif own is None:
        say(f"No advisories of your own are published in {zone}.")
    elif not own.advisories:
        say(f"The list of {own.owner} in {zone} is empty: nothing is denied.")
    else:
        table(_COLUMNS, [_row(advisory) for advisory in own.advisories])
        say()
        say(f"Denied by {own.owner}. docs/scanning.md says how to take one back.")


def publish(path: Path | None, zone: str) -> None:
    """Publish a list of own advisories: the next scan looks into it."""
    from sekisho.embedded.content import default_policies  # noqa: PLC0415
    from sekisho.embedded.seeds import publish_own  # noqa: PLC0415
    from sekisho.own_advisories import load_file  # noqa: PLC0415

    chosen = path or default_policies() / ADVISORIES_FILE
    own: OwnAdvisories = load_file(chosen)
    digest = publish_own(_zone(zone), chosen)
    say(f"{len(own.advisories)} own advisories are in force in {zone}: {hex_of(digest)[:_SHORT]}.")
    say("Each scan from now on looks into them, and the standard images are judged again; see `sekisho images`.")


def _zone(name: str) -> Zone:
    try:
        return Zone(name)
    except ValueError as error:
        raise UsageError(f"There is no zone {name!r:.40}.", remedy=f"Zones: {', '.join(Zone)}.") from error


def _row(advisory: OwnAdvisory) -> tuple[object, ...]:
    denied = "every version" if advisory.versions == EVERY else ", ".join(advisory.exact or advisory.ranges or ())
    fixed = ", ".join(advisory.fixed) or "-"
    return (
        advisory.id, advisory.severity, advisory.ecosystem, advisory.package, denied, fixed, advisory.title,
    )  # fmt: skip
