"""What runs in the sandbox to build a Rust workload. Sent there as a file; the standard library only.

`crates` unpacks the locked crates and lists those that end up in the binary, `dependencies` compiles them, `build`
compiles the workload on top and notes in each binary what is in it. Only `build` sees the workload's code. What a
binary is made of stands in its section `.dep-v0`, a compressed JSON document, where scanners look for it; format:
rust-secure-code/cargo-auditable, PARSING.md.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

IN = Path("/in")
OUT = Path("/out")
SCRATCH = Path("/tmp")  # noqa: S108  (the sandbox's own)
SOURCES = "source"
LISTED = ".sekisho/packages"
AUDIT = "dep-v0"
TARGET = "x86_64-unknown-linux-gnu"

_STORED = 65_535
_LINE = re.compile(r"([A-Za-z0-9_-]+) v([0-9A-Za-z.+-]+)( \([^()]*\))*")


def main(words: Sequence[str], line: Path) -> None:
    """Run one step with the files that the line wrote for it.

    Args:
        words: name of the step; for `build` also the packages that are not to be optimised.
        line: folder of those files.
    """
    settings = json.loads((line / "settings.json").read_text(encoding="utf-8"))
    step, *hasty = words
    {"crates": crates, "dependencies": dependencies, "build": build}[step](settings, *hasty)


def crates(settings: Mapping[str, Any]) -> None:
    """Unpack the crates into one folder each, and list those that the binaries hold."""
    archives = sorted((IN / "packages").glob("*.crate"))
    sources = OUT / SOURCES
    sources.mkdir()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda archive: unpack(archive, sources, settings["crates"][archive.name]), archives))
    work = SCRATCH / "work"
    lay(settings["skeleton"], work)
    environment = _environment(settings, sources)
    listed: set[tuple[str, str]] = set()
    for manifest in settings["manifests"]:
        tree = subprocess.run(
            ["cargo", "tree", "--frozen", "--manifest-path", manifest, "--edges", "normal,no-proc-macro",
             "--target", TARGET, "--prefix", "none", "--no-dedupe", "--format", "{p}", *_features(settings)],
            cwd=work, env=environment, stdout=subprocess.PIPE, text=True, check=True,
        ).stdout  # fmt: skip
        listed |= linked(tree)
    known = {name.removesuffix(".crate") for name in settings["crates"]}
    packages = sorted(item for item in listed if "-".join(item) in known)
    (OUT / AUDIT).write_bytes(audit(packages))
    (OUT / LISTED).parent.mkdir()
    lines = [f"pkg:cargo/{name}@{version.replace('+', '%2B')}\n" for name, version in packages]
    (OUT / LISTED).write_text("".join(lines), encoding="utf-8")


def dependencies(settings: Mapping[str, Any]) -> None:
    """Compile what the workload depends on, with empty sources in the place of its own."""
    work = SCRATCH / "work"
    lay(settings["skeleton"], work)
    _cargo(settings, work)
    prune(OUT / "target" / "release", settings["own"])


def build(settings: Mapping[str, Any], *hasty: str) -> None:
    """Compile the workload, and put its binaries where the image has them."""
    work = OUT / "work"
    shutil.rmtree(work / ".cargo", ignore_errors=True)
    kept = IN / "dependencies" / "target"
    if kept.is_dir():
        farm(kept, OUT / "target")
    # https://doc.rust-lang.org/cargo/reference/profiles.html#overrides
    _cargo(settings, work, [f"profile.release.package.{json.dumps(name)}.opt-level=0" for name in hasty])
    place = OUT / settings["into"]
    place.mkdir(parents=True)
    for name in settings["binaries"]:
        made = OUT / "target" / "release" / name
        note = IN / "crates" / AUDIT
        if note.is_file():
            flags = f"--set-section-flags=.{AUDIT}=noload,readonly"
            subprocess.run(["objcopy", f"--add-section=.{AUDIT}={note}", flags, made, place / name], check=True)
        else:
            shutil.copy(made, place / name)
    if any(str(work).encode() in path.read_bytes() for path in place.iterdir()):
        # Programs that say env!("CARGO_MANIFEST_DIR") look for their files where they were compiled.
        (OUT / "link").mkdir()
        (OUT / "link" / "work").symlink_to("../app")


def lay(files: Mapping[str, str], folder: Path) -> None:
    """Write files into a folder."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def linked(tree: str) -> set[tuple[str, str]]:
    """Return name and version of each line of `cargo tree`."""
    found = set()
    for line in tree.splitlines():
        match = _LINE.fullmatch(line.strip())
        if match:
            found.add((match[1], match[2]))
        elif line.strip():
            raise SystemExit(f"cargo tree said something unexpected: {line[:200]}")
    return found


def audit(packages: Iterable[tuple[str, str]]) -> bytes:
    """Return the section's content: zlib with stored blocks, so that no release of zlib decides its bytes."""
    document = {"packages": [{"name": name, "version": version, "source": "crates.io"} for name, version in packages]}
    data = json.dumps(document, separators=(",", ":")).encode()
    pieces = [data[start : start + _STORED] for start in range(0, len(data), _STORED)]
    blocks = [
        struct.pack("<BHH", index == len(pieces) - 1, len(piece), len(piece) ^ 0xFFFF) + piece
        for index, piece in enumerate(pieces)
    ]
    return b"\x78\x01" + b"".join(blocks) + struct.pack(">I", zlib.adler32(data))


def prune(release: Path, own: Sequence[str]) -> None:
    """Leave nothing of the empty sources, and no file twice."""
    names = "|".join(sorted({re.escape(form) for name in own for form in (name, name.replace("-", "_"))}))
    mine = re.compile(rf"(lib)?({names})-[0-9a-f]{{16}}(\..*)?")
    for path in list(release.iterdir()):
        if path.is_file():  # the binaries themselves, linked here from deps/
            path.unlink()
    for folder in (".fingerprint", "build", "deps"):
        for path in list((release / folder).glob("*")):
            if mine.fullmatch(path.name):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    for folder in ("incremental", "examples"):
        shutil.rmtree(release / folder, ignore_errors=True)
    for script in release.glob("build/*/build-script-*"):
        # Cargo has each build script under two names; a link keeps it from being kept twice.
        twins = [path for path in script.parent.glob("build_script_*") if not path.suffix and path.samefile(script)]
        if twins:
            script.unlink()
            script.symlink_to(twins[0].name)


def farm(source: Path, target: Path) -> None:
    """Make a writable folder whose files are those of another one, without copying them."""
    for folder, _, names in os.walk(source):
        place = target / Path(folder).relative_to(source)
        place.mkdir(parents=True, exist_ok=True)
        for name in names:
            (place / name).symlink_to(Path(folder) / name)


def unpack(archive: Path, into: Path, digest: str) -> None:
    """Unpack one crate as a folder of a directory source."""
    folder = archive.name.removesuffix(".crate")
    # Only what is below the crate's own folder: no archive may write into another crate.
    subprocess.run(
        ["tar", "--extract", "--gzip", f"--file={archive}", f"--directory={into}", "--no-same-owner",
         "--no-same-permissions", folder],
        check=True,
    )  # fmt: skip
    checksum = into / folder / ".cargo-checksum.json"
    checksum.write_text(json.dumps({"files": {}, "package": digest}), encoding="utf-8")


def _cargo(settings: Mapping[str, Any], work: Path, overrides: Sequence[str] = ()) -> None:
    environment = _environment(settings, IN / "crates" / SOURCES)
    for manifest, binaries in settings["manifests"].items():
        chosen = [word for name in binaries for word in ("--bin", name)]
        command = ["cargo", "build", "--release", "--frozen", "--manifest-path", manifest, *chosen]
        command += [word for override in overrides for word in ("--config", override)]
        done = subprocess.run([*command, *_features(settings)], cwd=work, env=environment, check=False)
        if done.returncode:
            raise SystemExit(done.returncode)


def _features(settings: Mapping[str, Any]) -> list[str]:
    return ["--features", ",".join(settings["features"])] if settings["features"] else []


def _environment(settings: Mapping[str, Any], sources: Path) -> dict[str, str]:
    home = SCRATCH / "cargo"
    home.mkdir(exist_ok=True)
    source = f'[source.crates-io]\nreplace-with = "line"\n[source.line]\ndirectory = "{sources}"\n'
    (home / "config.toml").write_text(settings["config"] + source, encoding="utf-8")
    return {
        **os.environ,
        "CARGO_HOME": str(home),
        "CARGO_TARGET_DIR": str(OUT / "target"),
        "CARGO_INCREMENTAL": "0",
        "CARGO_NET_OFFLINE": "true",
        "CARGO_TERM_COLOR": "never",
    }


if __name__ == "__main__":
    main(sys.argv[1:], Path(__file__).parent)
