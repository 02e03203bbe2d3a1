"""`python -m sekisho.images`: build the standard images, push them, hand them to a Docker engine."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from sekisho.errors import SekishoError
from sekisho.images import build_all, docker_archive, lock_path, push_layout


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except SekishoError as error:
        _tell(str(error))
        return error.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sekisho.images", description=__doc__)
    commands = parser.add_subparsers(required=True)
    build = commands.add_parser("build", help="build what is missing or changed")
    build.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these images, and their parents")
    build.add_argument("--refresh", action="store_true", help="ask Debian for newer packages and build again")
    build.add_argument("--json", action="store_true", help="print the lock as JSON")
    build.set_defaults(run=_build)
    push = commands.add_parser("push", help="push built images to a registry")
    push.add_argument("registry", help="URL of the registry's writable face")
    push.add_argument("names", nargs="+", metavar="NAME")
    push.set_defaults(run=_push)
    archive = commands.add_parser("archive", help="write a built image for `docker load`")
    archive.add_argument("name")
    archive.add_argument("target", type=Path)
    archive.set_defaults(run=_archive)
    return parser


def _build(options: argparse.Namespace) -> int:
    lock = build_all(_tell, only=tuple(options.only), refresh=options.refresh)
    if options.json:
        _say(json.dumps(lock.model_dump(mode="json"), indent=2))
    else:
        for name, entry in sorted(lock.images.items()):
            _say(f"{name:<14} {entry.digest}  {len(entry.packages)} packages  {entry.built_at}")
        _say(f"lock: {lock_path()}")
    return 0


def _push(options: argparse.Namespace) -> int:
    from sekisho.registry import Registry  # noqa: PLC0415 - only this command talks to a registry

    registry = Registry(options.registry)
    for name in options.names:
        _say(f"{name:<14} {push_layout(registry, name)}")
    return 0


def _archive(options: argparse.Namespace) -> int:
    _say(docker_archive(options.name, options.target))
    return 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
