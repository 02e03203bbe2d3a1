"""How fast the builder is: `.venv/bin/python bench/build.py [--json] [--rounds N] [--languages python,node,go,static]`.

Runs as root on the embedded zones, with the build zone's engine, registry and way to the package indexes. For each
language one example is built in turn by the line's builder and by `docker build` of an equal Dockerfile
(bench/peers/), in one run:

cold   nothing kept from earlier builds on either side, the standard images (the peer's: a plain Debian) are there
warm   one file of the application changed, no new dependency; one of each per round, alternating

Ours is timed from the folder to the image in the registry. The peer's is `docker build` alone; its push is shown
beside it. Sizes are the compressed layers of the whole image. `--crane PATH` packs and pushes a 200 MB layer beside
`crane append` of the same tar.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker_peer

from sekisho.embedded.netns import call_in, namespace
from sekisho.registry import Registry
from sekisho.zones import Port, Zone, home
from stages.build.__main__ import Bench
from stages.build.pack import entries_of_tree, write_layer

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = {
    "python": ("guestbook", "guestbook/web.py", "\n# round {}\n"),
    "node": ("palette", "src/server.js", "\n// round {}\n"),
    "go": ("tegata", "main.go", '\nvar round = "{}"\n'),
    "static": ("site", "public/index.html", "\n<!-- round {} -->\n"),
}
LAYER_BYTES = 200 << 20


def main() -> int:
    """Measure and print; exit code 1 when a figure misses its target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--languages", default=",".join(EXAMPLES))
    parser.add_argument("--debian", type=Path, help="tar of a plain Debian 12; made with mmdebstrap when not given")
    parser.add_argument("--crane", type=Path, help="the crane to pack and push a large layer beside")
    parser.add_argument("--no-peer", action="store_true", help="ours alone")
    options = parser.parse_args()
    say: Callable[[str], None] = (lambda text: print(text, file=sys.stderr)) if options.json else print
    languages = tuple(options.languages.split(","))
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=home() / "cache", prefix="bench-") as name:
        work = Path(name)
        work.chmod(0o755)
        if options.no_peer:
            for language in languages:
                figures[language] = _language(language, work, None, options.rounds, say)
        else:
            with docker_peer.running(work / "peer") as peer:
                say("Preparing the peer's images …")
                peer.prepare(languages, options.debian or _debian(work))
                for language in languages:
                    figures[language] = _language(language, work, peer, options.rounds, say)
        if options.crane:
            figures["layer"] = _layer(options.crane, work, say)
    missed = [f"{name}: {what}" for name, found in figures.items() for what in found["missed"]]
    if options.json:
        print(json.dumps(figures | {"missed": missed}, indent=1, sort_keys=True))
    else:
        print(f"missed: {', '.join(missed) or 'nothing'}")
    return 1 if missed else 0


def _language(
    language: str, work: Path, peer: docker_peer.Peer | None, rounds: int, say: Callable[[str], None]
) -> dict[str, Any]:
    example, changed, line = EXAMPLES[language]
    folder = work / example
    shutil.copytree(ROOT / "examples" / example, folder, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
    bench = Bench(cache=work / f"cache-{language}", policies=ROOT / "policies")
    original = (folder / changed).read_text()
    found: dict[str, Any] = {}
    built, found["cold_s"] = bench.build(folder, name=f"bench-{language}")
    if peer is not None:
        found["docker_cold_s"] = peer.build(language, folder, cold=True)
        found["docker_push_s"] = peer.push(language)
        found["docker_bytes"] = peer.size(language)
    found["bytes"] = sum(layer.size for layer in built.image.layers)
    ours, theirs, steps = [], [], []
    for number in range(rounds + 1):
        (folder / changed).write_text(original + line.format(number))
        built, seconds = bench.build(folder, name=f"bench-{language}")
        ours.append(seconds)
        steps.append(built.made.seconds)
        if peer is not None:
            theirs.append(peer.build(language, folder))
    ours, theirs, steps = ours[1:], theirs[1:], steps[1:]  # the first loads what both keep in memory
    found["warm_p50_s"] = statistics.median(ours)
    found["warm_p95_s"] = _p95(ours)
    found["warm_steps_s"] = {
        name: round(statistics.median(step.get(name, 0.0) for step in steps), 3) for name in steps[0]
    }
    missed = [] if found["warm_p95_s"] <= 1.5 else ["warm p95 <= 1.5 s"]  # noqa: PLR2004
    if theirs:
        found["docker_warm_p50_s"] = statistics.median(theirs)
        found["warm_ratio"] = found["warm_p50_s"] / found["docker_warm_p50_s"]
        found["cold_ratio"] = found["cold_s"] / found["docker_cold_s"]
        found["size_ratio"] = found["bytes"] / found["docker_bytes"]
        wanted = {"warm_ratio": 0.5, "cold_ratio": 1.0, "size_ratio": 0.7}
        missed += [f"{name} <= {most}" for name, most in wanted.items() if found[name] > most]
    found = {key: round(item, 3) if isinstance(item, float) else item for key, item in found.items()}
    found["missed"] = missed
    say(f"{language}: {json.dumps(found)}")
    return found


def _layer(crane: Path, work: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Pack and push a tree of 200 MB of program text, beside `crane append` of a tar of the same tree."""
    tree = work / "tree"
    _fill(tree)
    tar = work / "tree.tar"
    with tarfile.open(tar, "w") as archive:
        archive.add(tree, arcname="app")
    ours, theirs = [], []
    for number in range(3):
        (tree / "round").write_text(str(number))  # another digest each time, so that nothing is there already
        with tarfile.open(tar, "a") as archive:
            archive.add(tree / "round", arcname="app/round")

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
    found: dict[str, Any] = {
        "bytes": sum(path.stat().st_size for path in tree.rglob("*") if path.is_file()),
        "seconds": round(statistics.median(ours), 3),
        "crane_seconds": round(statistics.median(theirs), 3),
    }
    found["ratio"] = round(found["seconds"] / found["crane_seconds"], 3)
    found["missed"] = [] if found["ratio"] <= 1 else ["ratio <= 1"]
    say(f"layer: {json.dumps(found)}")
    return found


def _fill(tree: Path) -> None:
    """Copy this environment's packages until there are 200 MB: what layers of dependencies look like."""
    total = number = 0
    while total < LAYER_BYTES:
        for path in sorted((ROOT / ".venv" / "lib").rglob("*")):
            if total >= LAYER_BYTES:
                return
            if path.is_symlink() or not path.is_file():
                continue
            target = tree / str(number) / path.relative_to(ROOT / ".venv")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
            total += path.stat().st_size
        number += 1


def _debian(work: Path) -> Path:
    target = work / "debian.tar"
    command = ["mmdebstrap", "--variant=minbase", "bookworm", str(target)]
    subprocess.run(command, check=True, capture_output=True, timeout=600)
    return target


def _p95(seconds: list[float]) -> float:
    ordered = sorted(seconds)
    return ordered[min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))]


if __name__ == "__main__":
    raise SystemExit(main())
