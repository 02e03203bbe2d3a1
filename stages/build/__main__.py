"""`python -m stages.build FOLDER`: build a folder as the build zone does, and say where the time went.

For people who write a language or wonder about a build: the zone's own engine, registry and way to the package
indexes, but no commit, no signature and no verdict. Nothing that the line reads is written, except the image itself,
under `bench/` in the zone's registry. Needs root and running zones.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from sekisho.builds import load_builds
from sekisho.embedded.netns import call_in, namespace
from sekisho.errors import Refusal, SekishoError
from sekisho.images import push_layout
from sekisho.images.layout import lock_path
from sekisho.registry import Registry
from sekisho.standard import SPEC_FILE, StandardImages, load_lock, load_spec
from sekisho.verdict_text import clean
from sekisho.zones import Network, Port, Zone, ZoneHome, address, home
from stages.build.artifacts import Fetcher
from stages.build.compose import Origin
from stages.build.image import Builder, Built
from stages.build.indexes import Indexes
from stages.build.resolver import Resolver
from stages.build.sandbox import Command
from stages.build.steps import needed
from stages.trees import check_name

_TIME = 1_700_000_000


class Bench:
    """A builder like the build zone's, with a cache of its own: everything but commits, signatures and verdicts.

    Args:
        cache: the builder's cache; another one gives a cold build.
        policies: the policies folder.
    """

    def __init__(self, *, cache: Path, policies: Path) -> None:
        cache.mkdir(parents=True, exist_ok=True)
        self._builder = call_in(namespace(Zone.BUILD), lambda: _builder(cache, policies))

    def build(self, folder: Path, *, name: str = "", resolved: Mapping[str, bytes] = {}) -> tuple[Built, float]:
        """Build the workload in a folder with the build zone's engine and registry.

        Args:
            folder: the workload; it is copied first, without `.git`.
            name: what to call it; the folder's name when empty.
            resolved: lock files of an earlier build of the folder.

        Returns:
            What was built, and the seconds from the folder to the pushed image.

        Raises:
            SekishoError: as the line would say it.
        """
        return call_in(namespace(Zone.BUILD), lambda: self._build(folder.resolve(), name or folder.name, resolved))

    def idle(self, built: Built) -> float:
        """Return the seconds of a container that does nothing, in the image in which something was built."""
        tools = needed(built.planned.tools)

        def run() -> float:
            with tempfile.TemporaryDirectory(dir=self._builder.work, prefix="idle-") as scratch:
                start = time.monotonic()
                self._builder.sandbox.run(
                    self._builder.base(tools), tools.repository, Command(("true",)), Path(scratch) / "output.tar"
                )
                return time.monotonic() - start

        return call_in(namespace(Zone.BUILD), run)

    def _build(self, folder: Path, name: str, resolved: Mapping[str, bytes]) -> tuple[Built, float]:
        builder = self._builder
        with tempfile.TemporaryDirectory(dir=builder.work, prefix="tree-") as scratch:
            tree = Path(scratch) / folder.name
            _copy(folder, tree)
            start = time.monotonic()
            try:
                built = builder.build(tree, f"bench/{name}", Origin(name, "", "", _TIME), resolved=resolved)
                return built, time.monotonic() - start
            finally:
                builder.sandbox.settle()


def build_folder(folder: Path, *, cache: Path, policies: Path, name: str = "") -> tuple[Built, float]:
    """Build one folder; see `Bench.build`."""
    return Bench(cache=cache, policies=policies).build(folder, name=name)


def _builder(cache: Path, policies: Path) -> Builder:
    registry = Registry(f"http://127.0.0.1:{Port.REGISTRY_WRITE}")
    spec, lock = load_spec(policies / SPEC_FILE), load_lock(lock_path())
    for known, entry in lock.images.items():
        if registry.get_manifest(f"standard/{known}", entry.digest) is None:
            push_layout(registry, known)
    standard = StandardImages({image.name: image for image in spec.images}, lock.images, where=str(policies))
    indexes = Indexes.from_environment(proxy=f"http://{address(Network.CONSOLE)}:{Port.EGRESS_PROXY}")
    return Builder(
        registry,
        standard,
        load_builds(policies),
        cache=cache,
        docker_socket=ZoneHome(Zone.BUILD).root / "docker" / "docker.sock",
        fetcher=Fetcher(cache, indexes),
        resolver=lambda ecosystems: Resolver(indexes, cache / "work", cache=cache, ecosystems=ecosystems),
        cleared=lambda _: None,  # no gate here: nothing is signed, and nothing leaves
    )


def _copy(folder: Path, tree: Path) -> None:
    """Copy a working copy as a checkout would look: no `.git`, and readable by the sandbox's user."""
    shutil.copytree(folder, tree, symlinks=True, ignore=shutil.ignore_patterns(".git"))
    for path in (tree, *tree.rglob("*")):
        if not path.is_symlink():
            check_name(path.name, where=str(path))
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)


def report(built: Built, seconds: float) -> dict[str, Any]:
    """Return what people want to know about a build, as JSON."""
    image, plan = built.image, built.planned.plan
    return {
        "image": f"{image.repository}@{image.digest}",
        "language": f"{plan.language} {plan.version}",
        "why": plan.why,
        "command": list(plan.runtime.command),
        "no_command": str(plan.no_command or ""),
        "base": image.base,
        "layers": [{"kind": layer.kind, "bytes": layer.size, "digest": layer.digest} for layer in image.layers],
        "own_bytes": sum(layer.size for layer in image.layers if layer.kind != "base"),
        "packages": len(image.locked),
        "resolved": {path: len(data) for path, data in built.resolved.items()},
        "notes": list(image.notes),
        "steps": {name: round(spent, 3) for name, spent in built.made.seconds.items()},
        "seconds": round(seconds, 3),
    }


def write_locks(folder: Path, resolved: Mapping[str, bytes]) -> None:
    """Write lock files that were resolved into a folder.

    Raises:
        Refusal: something of that name is there, a link for example, through which nothing is written.
    """
    for path, data in resolved.items():
        try:
            with (folder / path).open("xb") as file:
                file.write(data)
        except FileExistsError as error:
            raise Refusal(
                f"There is a {path}, which is no lock.",
                where=str(folder),
                remedy="Rename it first, then run this again.",
            ) from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m stages.build", description=(__doc__ or "").split("\n", maxsplit=1)[0]
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cache", type=Path, default=home() / "cache" / "build-bench", help="the builder's cache")
    parser.add_argument("--policies", type=Path, default=Path(__file__).resolve().parents[2] / "policies")
    parser.add_argument("--cold", action="store_true", help="empty the cache first")
    parser.add_argument("--name", default="", help="name of the image below bench/")
    parser.add_argument("--write-lock", action="store_true", help="write lock files that were resolved into FOLDER")
    parser.add_argument("--logs", action="store_true", help="print the end of each step's log")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    if options.cold:
        with suppress(FileNotFoundError):
            shutil.rmtree(options.cache)
    try:
        built, seconds = build_folder(options.folder, cache=options.cache, policies=options.policies, name=options.name)
        if options.write_lock:
            write_locks(options.folder, built.resolved)
    except SekishoError as error:
        sys.stderr.write(f"{clean(str(error))}\n")
        return error.exit_code
    if options.logs:
        for step, log in built.made.logs.items():
            sys.stdout.write(f"--- {step}\n{log}\n")
    found = report(built, seconds)
    if options.json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
    else:
        sys.stdout.write("".join(f"{key}: {value}\n" for key, value in found.items()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
