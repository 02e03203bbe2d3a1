"""`sekisho up`, `down`, `status` and `doctor`: the zones of this machine."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from sekisho.cli.output import emit_json, note, say, table
from sekisho.errors import UsageError
from sekisho.zones import Zone

if TYPE_CHECKING:
    from sekisho.embedded.doctor import Diagnosis
    from sekisho.embedded.status import Status
    from sekisho.embedded.steps import StepDone


def up(zones: str) -> None:
    """Bring zones up, telling each step."""
    wanted = parse_zones(zones) or tuple(Zone)
    from sekisho.embedded.zones import up as bring_up  # noqa: PLC0415 -- wrong use is told before anything is loaded

    report = bring_up(wanted, progress=_tell)
    for name, why in report.warnings.items():
        note(f"{name} does not run: {why}")
    say(f"{', '.join(report.zones)}: up after {report.seconds:.1f} s. See sekisho status.")


def down(zones: str, *, purge: bool) -> None:
    """Stop zones."""
    wanted = parse_zones(zones)
    from sekisho.embedded.zones import down as bring_down  # noqa: PLC0415

    bring_down(wanted or None, purge=purge, progress=_tell)
    say(f"{', '.join(wanted) or 'All zones'}: down{'; their data is gone' if purge else ''}.")


def status(*, as_json: bool) -> int:
    """Show what runs; 0 when something runs and all that runs is well."""
    from sekisho.embedded.status import status as look  # noqa: PLC0415

    found = look()
    if as_json:
        emit_json(found.model_dump(mode="json"))
    else:
        show_status(found)
    running = [zone for zone in found.zones if zone.state != "down"]
    well = all(zone.state == "up" and zone.cluster in {"ready", "none"} for zone in running)
    return 0 if running and well else 1


def doctor(*, as_json: bool) -> int:
    """Show what this machine lacks; 0 when nothing is missing."""
    from sekisho.embedded.doctor import doctor as examine  # noqa: PLC0415

    found = examine()
    if as_json:
        emit_json({**found.model_dump(mode="json"), "healthy": found.healthy})
    else:
        show_diagnosis(found)
    return 0 if found.healthy else 1


def show_status(found: Status) -> None:
    """Print what runs: a line a zone, what is not well, where to look."""
    rows = [
        (zone.zone, zone.state, zone.cluster, sum(bool(one.pid) for one in zone.processes), _mib(zone.memory_bytes))
        for zone in found.zones
    ]
    table(("zone", "state", "cluster", "processes", "memory"), rows)
    say()
    for zone in found.zones:
        for one in zone.processes:
            if not one.pid and zone.state != "down":
                say(f"{zone.zone}: {one.name} is {one.state}. {one.message}")
    urls = [(zone.zone, url.name, url.url, url.reached_from) for zone in found.zones for url in zone.urls]
    table(("zone", "what", "url", "reached from"), urls)
    say()
    if not found.supervisor:
        say("Nothing runs. Start it: sekisho up")
    say(f"{_mib(found.memory_bytes)} of memory in all; state under {found.home}; network {found.range}")


def show_diagnosis(found: Diagnosis) -> None:
    """Print each check's word and what to do about it."""
    for finding in found.findings:
        say(f"{finding.result:<4}  {finding.check}: {finding.message}")
        if finding.remedy:
            say(f"      remedy: {finding.remedy}")
    say()
    say("The zones can run here." if found.healthy else "The zones cannot run here yet.")


def parse_zones(text: str) -> tuple[Zone, ...]:
    """Return the zones of a list with commas; empty for none.

    Raises:
        UsageError: one of them does not exist.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in set(Zone)]
    if unknown:
        raise UsageError(
            f"There is no zone {', '.join(unknown)[:200]}.",
            remedy=f"Zones: {', '.join(Zone)}; with commas for several.",
        )
    return tuple(Zone(name) for name in dict.fromkeys(names))


def _tell(done: StepDone) -> None:
    """Print one line a step; what waits is told on a terminal only."""
    if done.state != "waiting" or sys.stdout.isatty():
        say(f"  {done.seconds:6.1f} s  {done.zone:<11} {done.step:<22} {done.state}  {done.message}".rstrip())


def _mib(size: int) -> str:
    return f"{size >> 20} MiB"
