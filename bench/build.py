"""How fast the builder is: `.venv/bin/python bench/build.py [--json] [--rounds N] [--languages python,node,go,static]`.

Runs as root on the embedded zones, with the build zone's engine, registry and way to the package indexes. For each
language one example is built in turn by the line's builder and by `docker build` of an equal Dockerfile
(bench/peers/), in one run:

cold   nothing kept from earlier builds on either side, the standard images (the peer's: a plain Debian) are there
warm   one file of the application changed, no new dependency; one of each per round, alternating
line   the same change pushed through the real line, to a branch that is not released: what its stages take, and what
       Prefect and waiting add to all of them together

Ours is timed from the folder to the image in the registry. The peer's is `docker build` alone; its push is shown
beside it. `sandbox` is what a container takes that does nothing: the Docker engine's part in ours. Sizes are
the compressed layers of the whole image. A 200 MB layer is packed and pushed beside `crane append` of the same tar,
where crane is there (`--crane PATH`). Save to running is measured in the dev zone, by the real command.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker_peer

from sekisho.demo.line import build_steps
from sekisho.demo.workload import prepare, push
from sekisho.embedded.netns import call_in, namespace
from sekisho.registry import Registry
from sekisho.zones import Port, Zone, home
from stages.build.__main__ import Bench
from stages.build.pack import entries_of_tree, write_layer
from stages.dev.measure import measure

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = {
    "python": ("guestbook", "guestbook/web.py", "\n# round {}\n"),
    "node": ("palette", "src/server.js", "\n// round {}\n"),
    "go": ("tegata", "main.go", '\nvar round = "{}"\n'),
    "static": ("site", "public/index.html", "\n<!-- round {} -->\n"),
}
DEV = {
    "python": ("guestbook", "guestbook/templates/index.html", "</body>", "/"),
    "node": ("palette", "public/index.html", "</body>", "/"),
    "go": ("tegata", "web/templates/index.html", "</body>", "/"),
    "static": ("site", "public/index.html", "</body>", "/"),
    "rust": ("tokaido", "src/lib.rs", 'ok\\n" }', "/healthz"),
    "java": ("chaya", "src/main/resources/static/index.html", "</body>", "/"),
}
TARGETS = {
    "warm_p95_s": 1.5, "warm_ratio": 0.5, "cold_ratio": 1.0, "size_ratio": 0.7, "layer_ratio": 1.0, "save_p95_s": 3.0,
}  # fmt: skip
SHOWN = {
    "cold_s": "cold, ours", "docker_cold_s": "cold, docker build", "cold_ratio": "cold, ratio",
    "warm_p50_s": "warm, median, ours", "warm_p95_s": "warm, 95th percentile, ours",
    "docker_warm_p50_s": "warm, median, docker build", "warm_ratio": "warm, ratio of medians",
    "docker_push_s": "push, docker", "sandbox_s": "of warm, ours: sandbox", "line_source_s": "on the line: source",
    "line_build_s": "on the line: build", "line_engine_s": "on the line: Prefect, waiting, all stages",
    "mb": "size, MB, ours", "docker_mb": "size, MB, docker build", "size_ratio": "size, ratio",
    "layer_s": "200 MB layer, ours", "crane_s": "200 MB layer, crane append", "layer_ratio": "200 MB layer, ratio",
    "save_p50_s": "save to running, median", "save_p95_s": "save to running, 95th percentile",
}  # fmt: skip
LAYER_BYTES = 200 << 20
LAYER_ROUNDS = 5
IDLE_ROUNDS = 5
LINE_ROUNDS = 5
PEER_ROUNDS, PEER_SECONDS = 4, 120.0
"""A peer that takes long has that many rounds only: golang's Dockerfile compiles everything at each change."""
SAVES = 10
_MEGA = 1e6

Figures = dict[str, Any]
Say = Callable[[str], None]


def main() -> int:
    """Measure and print; exit code 1 when a figure misses its target."""
    options = _parser().parse_args()
    say: Say = lambda text: print(text, file=sys.stderr, flush=True)  # noqa: E731
    languages = tuple(options.languages.split(","))
    found: dict[str, Figures] = {}

    def keep(name: str, figures: Figures) -> None:
        found.setdefault(name, {}).update(figures)
        say(f"  {json.dumps(figures, sort_keys=True)}")  # at once: what comes later may fail

    with tempfile.TemporaryDirectory(dir=home() / "cache", prefix="bench-") as name:
        work = Path(name)
        work.chmod(0o755)
        if options.no_peer:
            for language in languages:
                keep(language, _language(language, work, None, options.rounds, say))
        else:
            with docker_peer.running(work / "peer") as peer:
                say("Preparing the peer's images …")
                peer.prepare(languages, options.debian or _debian(work))
                for language in languages:
                    keep(language, _language(language, work, peer, options.rounds, say))
        for language in () if options.no_line else languages:
            say(f"{language}: through the line …")
            keep(language, _line(language, work, min(options.rounds, LINE_ROUNDS)))
        for language in () if options.no_dev else options.saves.split(","):
            say(f"{language}: save to running …")
            keep(language, _save(language, min(options.rounds, SAVES)))
        if options.crane:
            say("A large layer …")
            keep("layer", _layer(options.crane, work))
    missed = [f"{name}: {key} {item[key]} > {TARGETS[key]}" for name, item in found.items() for key in TARGETS
              if item.get(key, 0) > TARGETS[key]]  # fmt: skip
    left_out = [] if options.crane else ["the large layer: no crane; give one with --crane"]
    if options.json:
        print(json.dumps({**found, "missed": missed, "left_out": left_out}, indent=1, sort_keys=True))
    else:
        print("\n".join(_table(found)))
        print(f"missed: {'; '.join(missed) or 'nothing'}")
        print(*(f"left out: {item}" for item in left_out), sep="\n")
    return 1 if missed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--languages", default=",".join(EXAMPLES))
    parser.add_argument("--saves", default=",".join(DEV), help="languages whose saves are measured")
    parser.add_argument("--debian", type=Path, help="tar of a plain Debian 12; made with mmdebstrap when not given")
    found = shutil.which("crane", path=str(home() / "bin")) or shutil.which("crane")
    parser.add_argument("--crane", type=Path, default=Path(found) if found else None, help="crane, where it is")
    parser.add_argument("--no-peer", action="store_true", help="ours alone")
    parser.add_argument("--no-line", action="store_true", help="no pushes through the line")
    parser.add_argument("--no-dev", action="store_true", help="no saves in the dev zone")
    return parser


# -- a language ----------------------------------------------------------------------------------------------------


def _language(language: str, work: Path, peer: docker_peer.Peer | None, rounds: int, say: Say) -> Figures:
    say(f"{language}: cold, then {rounds} rounds warm …")
    example, changed, line = EXAMPLES[language]
    folder = _copy(language, work / example)
    bench = Bench(cache=work / f"cache-{language}", policies=ROOT / "policies")
    original = (folder / changed).read_text()
    found: Figures = {}
    built, found["cold_s"] = bench.build(folder, name=f"bench-{language}")
    if peer is not None:
        found["docker_cold_s"] = peer.build(language, folder, cold=True)
        found["docker_push_s"] = peer.push(language)
        found["docker_mb"] = peer.size(language) / _MEGA
    found["mb"] = sum(layer.size for layer in built.image.layers) / _MEGA
    ours, theirs, steps = [], [], []
    for number in range(rounds + 1):
        (folder / changed).write_text(original + line.format(number))
        os.sync()  # what the other side has left to be written is not ours to wait for
        built, seconds = bench.build(folder, name=f"bench-{language}")
        ours.append(seconds)
        steps.append(built.made.seconds)
        if peer is not None and (len(theirs) < PEER_ROUNDS or sum(theirs) < PEER_SECONDS):
            os.sync()
            theirs.append(peer.build(language, folder))
    ours, theirs, steps = ours[1:], theirs[1:], steps[1:]  # the first loads what both keep in memory
    found["warm_p50_s"] = statistics.median(ours)
    found["warm_p95_s"] = p95(ours)
    # A change that runs no container has no such part.
    found["sandbox_s"] = len(built.made.logs) and statistics.median(bench.idle(built) for _ in range(IDLE_ROUNDS))
    found["warm_steps_s"] = {
        name: round(statistics.median(step.get(name, 0.0) for step in steps), 3) for name in steps[0]
    }
    if theirs:
        found["docker_warm_p50_s"] = statistics.median(theirs)
        found["warm_ratio"] = found["warm_p50_s"] / found["docker_warm_p50_s"]
        found["cold_ratio"] = found["cold_s"] / found["docker_cold_s"]
        found["size_ratio"] = found["mb"] / found["docker_mb"]
    return _rounded(found)


def _copy(language: str, target: Path) -> Path:
    source = ROOT / "examples" / EXAMPLES[language][0]
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "node_modules", "target"))
    return target


def _line(language: str, work: Path, rounds: int) -> Figures:
    """Push changes through the real line; its own words say what each stage took."""
    _, changed, line = EXAMPLES[language]
    app = f"bench-{language}"
    folder = _copy(language, work / app)
    score = folder / "score.yaml"
    score.write_text(re.sub(r"(?m)^  name: .*$", f"  name: {app}", score.read_text(), count=1))
    original = (folder / changed).read_text()
    taken: dict[str, list[float]] = {"line_source_s": [], "line_build_s": [], "line_engine_s": []}
    for _ in range(rounds + 1):
        (folder / changed).write_text(original + line.format(time.time_ns()))
        repository, commit = prepare(app, folder)
        pushing = push(app, repository, branch="bench")
        steps = list(build_steps(app, commit))
        pushing.communicate(timeout=60)
        done = {step.stage: step.seconds or 0.0 for step in steps if step.state == "done"}
        if "build" not in done:
            sys.exit(f"The line did not build {app}: {steps[-1].body.get('text') or steps[-1].message}")
        taken["line_source_s"].append(done["source"])
        taken["line_build_s"].append(done["build"])
        taken["line_engine_s"].append(
            next(step.body["engine_seconds"] for step in steps if "engine_seconds" in step.body)
        )
    return _rounded({name: statistics.median(values[1:]) for name, values in taken.items()})


def _save(language: str, rounds: int) -> Figures:
    example, edit, before, path = DEV[language]
    folder = ROOT / "examples" / example
    seconds = measure(folder, edit=edit, before=before, path=path, rounds=rounds, login="bench")
    return _rounded({"save_p50_s": statistics.median(seconds), "save_p95_s": p95(seconds)})


# -- a large layer -------------------------------------------------------------------------------------------------


def _layer(crane: Path, work: Path) -> Figures:
    """Pack and push a tree of 200 MB of program text, beside `crane append` of a tar of the same tree."""
    tree = work / "tree"
    _fill(tree)
    tar = work / "tree.tar"
    ours, theirs = [], []
    for number in range(LAYER_ROUNDS):
        (tree / "round").write_text(str(number))  # another digest each time, so that nothing is there already
        with tarfile.open(tar, "w") as archive:
            archive.add(tree, arcname="app")

        def pack() -> float:
            registry = Registry(f"http://127.0.0.1:{Port.REGISTRY_WRITE}")
            start = time.monotonic()
            made = write_layer(entries_of_tree(tree), work / "layer.tar.gz", time=0)
            registry.push_blob("bench/layer", made.path, made.digest)
            return time.monotonic() - start

        def append(number: int = number) -> float:
            start = time.monotonic()
            target = f"127.0.0.1:{Port.REGISTRY_WRITE}/bench/crane:{number}"
            command = [str(crane), "append", "--insecure", "--new_layer", str(tar), "--new_tag", target]
            subprocess.run(command, check=True, capture_output=True, timeout=300)
            return time.monotonic() - start

        ours.append(call_in(namespace(Zone.BUILD), pack))
        theirs.append(call_in(namespace(Zone.BUILD), append))
    found: Figures = {"layer_s": statistics.median(ours), "crane_s": statistics.median(theirs)}
    found["mb"] = sum(path.stat().st_size for path in tree.rglob("*") if path.is_file()) / _MEGA
    found["layer_ratio"] = found["layer_s"] / found["crane_s"]
    return _rounded(found)


def _fill(tree: Path) -> None:
    """Copy this environment's packages until there are 200 MB: what layers of dependencies look like."""
    sources = [
        path for path in sorted((Path(sys.prefix) / "lib").rglob("*")) if path.is_file() and not path.is_symlink()
    ]
    if not sources:
        sys.exit(f"There are no packages to make a layer of in {sys.prefix}.")
    total = number = 0
    while total < LAYER_BYTES:
        for path in sources:
            if total >= LAYER_BYTES:
                return
            target = tree / str(number) / path.relative_to(sys.prefix)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
            total += path.stat().st_size
        number += 1


def _debian(work: Path) -> Path:
    target = work / "debian.tar"
    command = ["mmdebstrap", "--variant=minbase", "bookworm", str(target)]
    subprocess.run(command, check=True, capture_output=True, timeout=600)
    return target


# -- words ---------------------------------------------------------------------------------------------------------


def _table(found: dict[str, Figures]) -> Iterator[str]:
    """Yield one table: a row a figure, a column a language."""
    yield f"{'seconds, if nothing else is said':<44}" + "".join(f"{name:>10}" for name in found) + f"{'target':>10}"
    for key, title in SHOWN.items():
        if not any(key in item for item in found.values()):
            continue
        cells = "".join(f"{item[key]:>10.3f}" if key in item else f"{'':>10}" for item in found.values())
        yield f"{title:<44}{cells}{TARGETS.get(key, ''):>10}"


def _rounded(found: Figures) -> Figures:
    return {key: round(item, 3) if isinstance(item, float) else item for key, item in found.items()}


def p95(seconds: list[float]) -> float:
    """Return the 95th percentile."""
    ordered = sorted(seconds)
    return ordered[min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))]


if __name__ == "__main__":
    raise SystemExit(main())
