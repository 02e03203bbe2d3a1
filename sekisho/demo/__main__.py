"""`scripts/demo`: one git push travels from a developer to production."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx

from sekisho.cli.output import complain
from sekisho.demo.line import Step, build_steps, healthy_url, zone_steps
from sekisho.demo.show import Show, show
from sekisho.demo.workload import prepare, push
from sekisho.embedded.steps import StepDone
from sekisho.errors import PermanentError, SekishoError, UsageError
from sekisho.programs import program, surroundings
from sekisho.zones import ENGINE_ZONES, Port, ZoneHome, address, home

_ROOT = Path(__file__).resolve().parents[2]
_ANSWER_SECONDS = 10.0
_START_SECONDS = 90.0
"""What was deployed before the zones came up starts with them."""
_MILESTONES = frozenset({"networks", "standard-images", "node-ready", "engine", "zone", "ops"})


def main() -> int:
    """Run the demonstration; 0 when the workload is healthy where it should be, 1 when the line said no."""
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__)
    parser.add_argument("--approve", action="store_true", help="approve production's plan too (for machines)")
    parser.add_argument("--app", default="guestbook", help="a folder of examples/ (default: guestbook)")
    options = parser.parse_args()
    try:
        with show() as screen:
            return _run(screen, options.app, approve=options.approve)
    except SekishoError as error:
        sys.stderr.write("\n")
        complain("", error)
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("\nInterrupted. Run scripts/demo again: it goes on from here.\n")
        return 130


def _run(screen: Show, app: str, *, approve: bool) -> int:
    from sekisho.embedded.zones import up  # noqa: PLC0415  after the arguments are known to be good

    if os.geteuid() != 0:
        raise UsageError("The embedded zones need root.", remedy="Run scripts/demo as root, or with sudo.")
    start = time.monotonic()
    screen.say("Starting the zones: four Kubernetes clusters, three Prefect servers, and ops.")
    up(progress=lambda step: _told(screen, step))
    screen.say(f"Zones are up ({time.monotonic() - start:.1f} s).\n")

    folder, commit = prepare(app, _ROOT / "examples" / app)
    screen.say(f"A developer pushes {app} {commit[:12]} to the build zone.")
    pushed = push(app, folder)
    last = _follow(screen, build_steps(app, commit))
    _must_have_pushed(pushed)
    release = str(last.body.get("release", ""))
    if not release:
        raise PermanentError("The gatekeeper said no.", remedy="The reasons stand above, each with its remedy.")
    screen.say("")
    if _follow(screen, zone_steps(app, release, "staging")).state == "failed":
        return 1
    screen.say("")
    last = _follow(screen, zone_steps(app, release, "production"))
    if last.state == "held":
        plan = str(last.body["plan"])
        screen.say(f"\nProduction waits for an approval of exactly this plan:\n  {plan}")
        screen.say(f"  look:    sekisho plan {app} --zone production\n  approve: sekisho approve {plan}\n")
        if not approve and not sys.stdout.isatty():
            _dashboards(screen)
            return 0
        if approve:
            _approve(screen, plan)
        else:
            screen.say("Waiting for `sekisho approve` in another terminal; Ctrl-C leaves it waiting.")
        last = _follow(
            screen, zone_steps(app, release, "production", after_held=True, seconds=86400.0), skip_until=last
        )
    if last.state == "failed":
        return 1
    _answers(screen, app)
    _dashboards(screen)
    screen.say(f"\nThe whole line: {time.monotonic() - start:.1f} s.")
    return 0


def _told(screen: Show, step: StepDone) -> None:
    """Show of `up` what takes time and what goes wrong; sixty processes are for `sekisho status`."""
    if step.state == "done" and step.step not in _MILESTONES:
        return
    words = f"{step.seconds:6.1f} s  {step.zone:<11} {step.step}"
    screen.say(f"{words}  {step.message}" if step.message else words)


def _follow(screen: Show, steps: object, *, skip_until: Step | None = None) -> Step:
    last = skip_until
    seen = skip_until is None
    for step in steps:  # type: ignore[attr-defined]
        if not seen:
            seen = step.state == "held"
            continue
        screen.step(step)
        last = step
    if last is None:
        raise PermanentError("The line told nothing.", remedy="See `sekisho status`.")
    return last


def _must_have_pushed(pushed: subprocess.Popen[str]) -> None:
    output, _ = pushed.communicate(timeout=120)
    if pushed.returncode:
        raise PermanentError(f"git push failed: {output.strip()[-600:]}", remedy="See `sekisho status`.")


def _approve(screen: Show, plan: str) -> None:
    screen.say(f"The infrastructure team approves it: sekisho approve {plan[:19]}…")
    done = subprocess.run(
        program("sekisho.cli.main", "approve", plan, "--yes"),
        env=surroundings(), capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=120,
    )  # fmt: skip
    if done.returncode:
        raise PermanentError(f"The approval was not taken: {done.stderr.strip()[:600]}")


def _answers(screen: Show, app: str) -> None:
    for zone in ("staging", "production"):
        url = healthy_url(app, zone)
        if not url:
            continue
        screen.say(f"{zone:<11} {url} answers {_status(url)}")


def _status(url: str) -> int:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            return httpx.get(url, timeout=_ANSWER_SECONDS, trust_env=False).status_code
        except httpx.TransportError as error:
            if time.monotonic() > deadline:
                raise PermanentError(
                    f"It was healthy and does not answer now: {error}", where=url, remedy="Look at: sekisho status"
                ) from error
        time.sleep(1.0)


def _dashboards(screen: Show) -> None:
    screen.say("\nDashboards of the flow runs (user and password: the file beside each):")
    for zone in ENGINE_ZONES:
        screen.say(f"{zone:<11} http://{address(zone)}:{Port.PREFECT}   {ZoneHome(zone).secrets / 'prefect-auth'}")
    screen.say(f"State is kept under {home()}; `sekisho down` stops everything.")


if __name__ == "__main__":
    sys.exit(main())
