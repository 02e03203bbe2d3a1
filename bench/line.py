"""How fast the line is: `.venv/bin/python bench/line.py [--json] [--rounds N] [--keep-up]`.

Runs as root on the embedded zones. Each round changes one file of the example workload, pushes it, and follows the
commit to production, approving its plan. Figures are medians over the rounds; the first round, which may still build
what is cached, is reported on its own and left out of them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from sekisho.demo.line import Step, build_steps, zone_steps
from sekisho.demo.workload import prepare, push
from sekisho.embedded.status import status
from sekisho.embedded.zones import down, up
from sekisho.programs import program, surroundings

ROOT = Path(__file__).resolve().parents[1]
TARGETS = {
    "up_s": 60.0, "cli_help_s": 0.3, "push_to_sealed_s": 5.0, "push_to_staging_s": 20.0,
    "approval_to_production_s": 10.0, "rest_mib": 6144.0,
}  # fmt: skip
REST_SECONDS = 30.0


def main() -> int:
    """Measure and print; exit code 1 when a figure misses its target."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keep-up", action="store_true", help="do not take the zones down first (up_s is then null)")
    options = parser.parse_args()
    say = (lambda text: print(text, file=sys.stderr)) if options.json else print

    figures: dict[str, Any] = {"cli_help_s": _cli_help()}
    if options.keep_up:
        figures["up_s"] = None
    else:
        say("Taking the zones down …")
        down()
        start = time.monotonic()
        up(progress=lambda _: None)
        figures["up_s"] = round(time.monotonic() - start, 2)
    rounds = []
    for number in range(options.rounds + 1):
        rounds.append(_round(number))
        say(f"round {number}: {rounds[-1]['sums']}")
    warm = rounds[1:]
    for name in ("push_to_sealed_s", "push_to_staging_s", "approval_to_production_s"):
        figures[name] = round(statistics.median(item["sums"][name] for item in warm), 2)
    figures["first_round"] = rounds[0]["sums"]
    figures["stages"] = {
        name: round(statistics.median(item["stages"].get(name, 0.0) for item in warm), 3) for name in warm[0]["stages"]
    }
    figures["engine_s"] = {
        name: round(statistics.median(item["engine"][name] for item in warm), 3) for name in warm[0]["engine"]
    }
    say(f"Resting {REST_SECONDS:.0f} s before memory is read …")
    time.sleep(REST_SECONDS)
    figures["rest_mib"] = round(status().memory_bytes / 2**20)
    missed = [name for name, most in TARGETS.items() if figures[name] is not None and figures[name] > most]
    if options.json:
        print(json.dumps(figures | {"missed": missed}, sort_keys=True))
    else:
        _table(figures)
    return 1 if missed else 0


def _cli_help() -> float:
    seconds = []
    for _ in range(7):
        start = time.monotonic()
        subprocess.run([Path(sys.executable).with_name("sekisho"), "--help"], check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.monotonic() - start)
    return round(statistics.median(seconds), 3)


def _round(number: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "guestbook"
        shutil.copytree(ROOT / "examples" / "guestbook", source)
        (source / "REVISION").write_text(f"{number} {time.time_ns()}\n", encoding="utf-8")
        repository, commit = prepare("guestbook", source)
    start = time.monotonic()
    pushed = push("guestbook", repository)
    steps = list(build_steps("guestbook", commit))
    sealed = time.monotonic() - start
    pushed.communicate(timeout=60)
    release = str(steps[-1].body.get("release", ""))
    if not release:
        sys.exit(f"The gatekeeper said no: {steps[-1].body.get('text')}")
    steps += zone_steps("guestbook", release, "staging")
    staged = time.monotonic() - start
    steps += zone_steps("guestbook", release, "production")
    approved = time.monotonic()
    subprocess.run(
        program("sekisho.cli.main", "approve", str(steps[-1].body["plan"]), "--yes"),
        env=surroundings(), check=True, capture_output=True,
    )  # fmt: skip
    steps += zone_steps("guestbook", release, "production", after_held=True)
    if steps[-1].state == "failed":
        sys.exit(f"Production failed: {steps[-1].message}")
    return {
        "sums": {
            "push_to_sealed_s": round(sealed, 2),
            "push_to_staging_s": round(staged, 2),
            "approval_to_production_s": round(time.monotonic() - approved, 2),
        },
        "stages": _stages(steps),
        "engine": {
            f"{step.zone}/{step.stage}": step.body["engine_seconds"] for step in steps if "engine_seconds" in step.body
        },
    }


def _stages(steps: list[Step]) -> dict[str, float]:
    return {
        f"{step.zone}/{step.stage}": step.seconds
        for step in steps
        if step.seconds is not None and step.state == "done" and step.stage != "verdict"
    }


def _table(figures: dict[str, Any]) -> None:
    print(f"\n{'figure':<28}{'measured':>12}{'target':>12}")
    for name, most in TARGETS.items():
        print(f"{name:<28}{figures[name]!s:>12}{most:>12}")
    print("\nstage, own seconds")
    for name, seconds in figures["stages"].items():
        print(f"  {name:<32}{seconds:>8.3f}")
    print("\nPrefect and waiting, until")
    for name, seconds in figures["engine_s"].items():
        print(f"  {name:<32}{seconds:>8.3f}")


if __name__ == "__main__":
    sys.exit(main())
