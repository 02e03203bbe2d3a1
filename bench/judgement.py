"""How fast the gate is: `.venv/bin/python bench/judgement.py [--json] [--rounds N] [--languages python,node]`.

Runs as root on the embedded build zone, alone: the other zones are taken down, so that nothing is deployed meanwhile.

push      one file of an example changed, no new dependency, pushed: until the sealed release is in the feed; the
          engine's part of it is what Prefect and waiting took. Java's pushes are 10 s apart: so long takes what is
          made ready for the next build (docs/builder.md)
render    1,000 Score files to manifests (bench/rendering.py)
judge     10,000 objects of the examples against all admission policies; and as many of a file that uses all of Score
sign      one statement; and a release with all its statements fetched and verified over new connections, beside
          `cosign verify` of the release's one signature, as a process, and beside cosign for each of its statements
rescan    an unchanged image under unchanged advisories: found, not scanned
"""

from __future__ import annotations

import argparse
import copy
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import rendering
from build import EXAMPLES, p95
from cosign_peer import cosign_all_seconds, cosign_seconds, line_seconds

from sekisho.canonical import Digest
from sekisho.clients import FeedClient
from sekisho.demo.line import Step, build_steps
from sekisho.demo.workload import prepare, push
from sekisho.embedded.netns import call_in, namespace
from sekisho.embedded.zones import down, up
from sekisho.errors import PermanentError
from sekisho.keys import FileSigner, load_trust
from sekisho.model import IMAGE_HOST, Offer
from sekisho.policy import PolicySet, load_policies
from sekisho.registry import Registry
from sekisho.releases import load_release
from sekisho.score import reader
from sekisho.statements import PROVENANCE, SUMMARY, Statement, Subject, sign_statement
from sekisho.zones import Port, Zone, ZoneHome, address
from stages.render import render

ROOT = Path(__file__).resolve().parents[1]
REGISTRY = f"http://127.0.0.1:{Port.REGISTRY_WRITE}"
ALL = {
    **EXAMPLES,
    "rust": ("tokaido", "src/main.rs", "\n// round {}\n"),
    "java": ("chaya", "src/main/java/dev/sekisho/examples/chaya/Chaya.java", "\n// round {}\n"),
}
PAUSES = {"java": 10.0}
"""Seconds before a push."""
PUSH_SECONDS = 3.0
JUDGE_SECONDS = 20.0
SIGN_SECONDS = 0.001
VERIFY_SECONDS = 0.1
COSIGN_RATIO = 1 / 3
OBJECTS = 10_000
REPEATS = 20

Figures = dict[str, Any]


def main() -> int:
    """Measure and print; exit code 1 when a figure misses its target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--languages", default=",".join(ALL))
    parser.add_argument("--keep-up", action="store_true", help="leave all zones as they are")
    options = parser.parse_args()
    say: Callable[[str], None] = (lambda text: print(text, file=sys.stderr)) if options.json else print
    if not options.keep_up:
        say("Bringing up the build zone alone …")
        down()
        up((Zone.BUILD,), progress=lambda _: None)
    figures: Figures = {}
    offer: Offer | None = None
    for language in options.languages.split(","):
        figures[f"push {language}"], offer = _pushes(language, options.rounds)
        say(f"push {language}: {json.dumps(figures[f'push {language}'])}")
    for name, measure in (("render", _render), ("judge", _judge), ("sign", lambda: _signatures(offer))):
        figures[name] = measure()
        say(f"{name}: {json.dumps(figures[name])}")
    missed = [f"{name}: {what}" for name, found in figures.items() for what in found["missed"]]
    if options.json:
        print(json.dumps(figures | {"missed": missed}, indent=1, sort_keys=True))
    else:
        print(f"missed: {', '.join(missed) or 'nothing'}")
    return 1 if missed else 0


# -- from a push to the sealed release ---------------------------------------------------------------------------------


def _pushes(language: str, rounds: int) -> tuple[Figures, Offer]:
    app, changed, line = ALL[language]
    found, engine, stages = [], [], []
    for number in range(rounds + 1):
        time.sleep(PAUSES.get(language, 0.0))
        seconds, steps = _push(app, changed, line.format(f"{number} {time.time_ns()}"))
        verdict = steps[-1].body
        if not verdict.get("release"):
            raise SystemExit(f"The gatekeeper said no to {app}: {verdict.get('text')}")
        found.append(seconds)
        engine.append(float(verdict["engine_seconds"]))
        stages.append({step.stage: step.seconds or 0.0 for step in steps if step.state == "done"})
    found, engine, stages = found[1:], engine[1:], stages[1:]  # the first loads what is kept in memory
    figures: Figures = {
        "p50_s": round(statistics.median(found), 3),
        "p95_s": round(p95(found), 3),
        "engine_s": round(statistics.median(engine), 3),
        "stages_s": {
            name: round(statistics.median(item.get(name, 0.0) for item in stages), 3)
            for name in stages[0]
            if name != "verdict"
        },
        "rescan_s": _rescan(app),
    }
    figures["missed"] = [] if figures["p95_s"] <= PUSH_SECONDS else [f"p95 <= {PUSH_SECONDS} s"]
    return figures, _offer(app)


def _push(app: str, changed: str, line: str) -> tuple[float, list[Step]]:
    """Push an example with one line more, and follow it to its verdict."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / app
        shutil.copytree(ROOT / "examples" / app, source, ignore=shutil.ignore_patterns("node_modules", "target"))
        path = source / changed
        path.write_text(path.read_text(encoding="utf-8") + line, encoding="utf-8")
        repository, commit = prepare(app, source)
    start = time.monotonic()
    pushed = push(app, repository)
    steps = list(build_steps(app, commit))
    seconds = time.monotonic() - start
    pushed.communicate(timeout=60)
    return seconds, steps


def _rescan(app: str) -> float:
    """Return the scan's seconds of a commit that was scanned before: pushed to another branch first, then to main."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / app
        shutil.copytree(ROOT / "examples" / app, source, ignore=shutil.ignore_patterns("node_modules", "target"))
        (source / "README.md").write_text(f"round {time.time_ns()}\n", encoding="utf-8")
        repository, commit = prepare(app, source)
    for branch in ("topic", "main"):
        pushed = push(app, repository, branch=branch)
        pushed.communicate(timeout=300)
    steps = {step.stage: step for step in build_steps(app, commit) if step.state == "done"}
    if "(known)" not in steps["scan"].message:
        raise SystemExit(f"{app} was scanned again: {steps['scan'].message}")
    return round(steps["scan"].seconds or 0.0, 3)


def _offer(app: str) -> Offer:
    feed = FeedClient(f"http://{address(Zone.BUILD)}:{Port.FEED}")
    return [offer for offer in feed.offers() if offer.app == app][-1]


# -- without zones ----------------------------------------------------------------------------------------------------


def _render() -> Figures:
    figures: Figures = {name: round(seconds, 3) for name, seconds in rendering.measure().items()}
    most = rendering.TARGET_SECONDS
    return figures | {"missed": [] if figures["render_s"] <= most else [f"1,000 files <= {most} s"]}


def _judge() -> Figures:
    policies = load_policies(ROOT / "policies")
    golden = json.loads((ROOT / "tests/unit/golden/full.manifests.json").read_text(encoding="utf-8"))
    seconds = _judged(policies, list(_rendered()))
    return {
        "seconds": round(seconds, 3),
        "full_seconds": round(_judged(policies, golden["objects"]), 3),
        "objects": OBJECTS,
        "policies": len(policies.policies),
        "missed": [] if seconds <= JUDGE_SECONDS else [f"{OBJECTS} objects <= {JUDGE_SECONDS} s"],
    }


def _rendered() -> Iterator[dict[str, Any]]:
    """Yield the objects of the examples."""
    for app, *_ in ALL.values():
        folder = ROOT / "examples" / app
        image = f"{IMAGE_HOST}/apps/{app}@sha256:{'a' * 64}"
        yield from render((folder / "score.yaml").read_bytes(), app=app, image=image, read=reader(folder)).objects


def _judged(policies: PolicySet, objects: Sequence[dict[str, Any]]) -> float:
    """Return the seconds of judging OBJECTS objects, each with a name of its own."""
    many = []
    for number in range(OBJECTS):
        item = copy.deepcopy(objects[number % len(objects)])
        item["metadata"]["name"] = f"{item['metadata']['name']}-{number}"
        many.append(item)
    start = time.perf_counter()
    policies.check_objects(many)
    return time.perf_counter() - start


def _signatures(offer: Offer | None) -> Figures:
    with tempfile.TemporaryDirectory() as folder:
        signer = FileSigner.create(Path(folder) / "key.pem", "builder")
        subjects = (Subject(name="apps/shop", digest="sha256:" + "a" * 64),)
        statement = Statement(subjects=subjects, predicate_type=PROVENANCE, predicate={"buildDefinition": {}})
        start = time.perf_counter()
        for _ in range(1000):
            sign_statement(statement, signer)
        sign = (time.perf_counter() - start) / 1000
        figures: Figures = {"sign_ms": round(sign * 1000, 3)}
        missed = [] if sign <= SIGN_SECONDS else ["sign <= 1 ms"]
        if offer is not None:
            missed += _verify(offer, Path(folder), figures)
    return figures | {"missed": missed}


def _verify(offer: Offer, folder: Path, figures: Figures) -> list[str]:
    home = ZoneHome(Zone.BUILD)
    trust = load_trust(home.trust / "root.json")
    for role in ("builder", "scanner", "verifier"):
        (folder / f"{role}.pub").write_text(trust.for_role(role)[-1].public_key, encoding="ascii")
    reference = f"releases/{offer.app}@{offer.release}"

    def all_three() -> tuple[list[float], list[float], list[float]]:
        release, _ = load_release(Registry(REGISTRY), f"releases/{offer.app}", Digest(offer.release))
        image = f"{release.image.repository}@{release.image.digest}"
        subjects = {item.predicate_type: (image, folder / f"{item.role}.pub") for item in release.evidence} | {
            SUMMARY: (reference, folder / "verifier.pub")
        }
        ours, theirs, all_of_theirs = [], [], []
        for _ in range(REPEATS):  # in turn: what the machine does besides meets all of them
            ours.append(line_seconds(REGISTRY, offer, trust))
            theirs.append(cosign_seconds(REGISTRY, reference, folder / "verifier.pub"))
            all_of_theirs.append(cosign_all_seconds(REGISTRY, subjects))
        return ours, theirs, all_of_theirs

    try:
        ours, theirs, all_of_theirs = call_in(namespace(Zone.BUILD), all_three)
    except PermanentError as error:
        figures["cosign"] = str(error)
        return ["cosign is not here"]
    figures["verify_ms"] = round(statistics.median(ours) * 1000, 1)
    figures["cosign_verify_ms"] = round(statistics.median(theirs) * 1000, 1)
    figures["cosign_all_ms"] = round(statistics.median(all_of_theirs) * 1000, 1)
    figures["ratio"] = round(statistics.median(ours) / statistics.median(theirs), 3)
    figures["ratio_all"] = round(statistics.median(ours) / statistics.median(all_of_theirs), 3)
    missed = [] if statistics.median(ours) <= VERIFY_SECONDS else ["verify <= 100 ms"]
    return missed + ([] if figures["ratio_all"] <= COSIGN_RATIO else ["a third of cosign for the same statements"])


if __name__ == "__main__":
    raise SystemExit(main())
