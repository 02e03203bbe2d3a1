"""Takes a Java build's output apart, in the sandbox. Sent there as a file; the standard library only.

An archive of a workload is a stranger's: it is read as names and bytes. What comes out is always the same: `app.jar`,
whose manifest names the main class and the libraries, and the libraries in `lib/`. Those whose bytes the lock names go
into the layer that commits share. What the line writes itself is written bit for bit the same: entries sorted, stored,
with one time.
"""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

APP = "app.jar"
LISTED = ".sekisho/packages"
BILL = "sekisho.cdx.json"
MANIFEST = "META-INF/MANIFEST.MF"
_TIME = (1980, 1, 1, 0, 0, 0)
_LINE = 70
_ENTRIES = 100_000
_SIZE = 1 << 30
_FAT = ("-jar-with-dependencies", "-exec", "-all", "-fat", "-shaded", "-runner", "-uber", "-boot")
_BOOT = ("Start-Class", "Spring-Boot-Classes", "Spring-Boot-Lib", "Spring-Boot-Classpath-Index",
         "Spring-Boot-Layers-Index", "Main-Class", "Class-Path")  # fmt: skip
_LOADER = "org/springframework/boot/loader/"
_QUARKUS = "quarkus-run.jar"
_SIGNATURES = (".SF", ".RSA", ".DSA", ".EC")


@dataclass(frozen=True)
class Program:
    """Something that can be started."""

    kind: str
    """`boot`, `quarkus`, or `plain`."""
    module: str
    """Folder of the module, `.` for the workload's own."""
    path: Path
    main: Mapping[str, str]
    """Main section of its manifest."""

    @property
    def shown(self) -> str:
        """Name for people."""
        return f"{self.module}/target/{self.path.name}".removeprefix("./")


@dataclass(frozen=True)
class Part:
    """One jar of the image."""

    name: str
    """Path below /app."""
    data: bytes


def assemble(made: Path, out: Path, settings: Mapping[str, Any]) -> None:
    """Write what goes into the image, and say which packages that is."""
    known: dict[str, str] = settings["libraries"]
    program = choose(list(programs(made)), settings["app"], settings["module"])
    parts = {"boot": _boot, "quarkus": _quarkus, "plain": _plain}[program.kind](program)
    purls: list[str] = []
    unseen: list[tuple[str, str]] = []
    for part in parts:
        digest = hashlib.sha256(part.data).hexdigest()
        purl = known.get(digest, "")
        shared = purl and part.name.startswith("lib/")
        target = out / ("dependencies" if shared else "application") / part.name
        target.parent.mkdir(parents=True, exist_ok=True)
        made_here = part.name.endswith(".jar") and not purl
        target.write_bytes(rewritten(part.data, part.name) if made_here else part.data)
        if purl:
            purls.append(purl)
            if not says_what_it_is(part.data, purl):
                unseen.append((purl, digest))
    if unseen:
        (out / "dependencies" / BILL).write_bytes(bill(unseen))
    (out / LISTED).parent.mkdir(parents=True)
    (out / LISTED).write_text("".join(f"{purl}\n" for purl in sorted(set(purls))), encoding="utf-8")
    (out / "application").mkdir(exist_ok=True)
    print(f"The workload is {program.shown}, {program.kind}, with {len(purls)} locked libraries.")  # noqa: T201


def programs(made: Path) -> Iterator[Program]:
    """Yield everything that can be started."""
    for target in sorted(path for path in made.rglob("target") if path.is_dir()):
        module = target.parent.relative_to(made).as_posix()
        quarkus = target / "quarkus-app" / _QUARKUS
        if quarkus.is_file():
            yield Program("quarkus", module, quarkus, main_section(_manifest(quarkus)))
            continue
        for path in sorted(target.glob("*.jar")):
            main = main_section(_manifest(path))
            if "Start-Class" in main:
                yield Program("boot", module, path, main)
            elif "Main-Class" in main:
                yield Program("plain", module, path, main)


def choose(found: list[Program], app: str, module: str) -> Program:
    """Return the program that is the workload."""
    if module:
        found = [program for program in found if program.module == module.strip("/")]
    if not found:
        raise SystemExit(
            "The Maven build made no jar that can be started: none has a Main-Class in its manifest"
            + (f" in the module {module}" if module else "")
            + ".\nAdd the spring-boot-maven-plugin with its goal repackage, or name the main class in the"
            " maven-jar-plugin (archive, manifest, mainClass) and put the dependencies beside or into the jar."
        )
    ranks = [_rank(program, app) for program in found]
    best = [program for program, rank in zip(found, ranks, strict=True) if rank == max(ranks)]
    if len(best) > 1:
        shown = ", ".join(program.shown for program in best[:8])
        raise SystemExit(
            f"The Maven build made {len(best)} programs and nothing says which is the workload: {shown}.\n"
            "Name its module in the properties of pom.xml: <sekisho.module>path/of/the/module</sekisho.module>"
        )
    return best[0]


def _rank(program: Program, app: str) -> tuple[bool, bool, bool]:
    stem = program.path.stem.lower()
    named = app.lower() in (PurePosixPath(program.module).name.lower(), re.sub(r"-\d.*", "", stem))
    return named, program.kind != "plain", stem.endswith(_FAT)


def main_section(manifest: bytes) -> dict[str, str]:
    """Return the main section of a manifest; JAR File Specification, "Name-Value pairs and Sections"."""
    # A long line may be broken within a letter of several bytes: lines are joined before they are text.
    joined = manifest.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n ", b"")
    lines = joined.split(b"\n\n", 1)[0].decode("utf-8", "replace").split("\n")
    pairs = (line.partition(":") for line in lines)
    return {name.strip(): value.strip() for name, colon, value in pairs if colon}


def write_manifest(section: Mapping[str, str]) -> bytes:
    """Return a manifest of one section, in lines of 72 bytes at most."""
    first = {"Manifest-Version": section.get("Manifest-Version", "1.0")}
    written = b""
    for name, value in {**first, **dict(sorted(section.items()))}.items():
        line = f"{name}: {value}".encode()
        written += line[:_LINE] + b"\r\n"
        for start in range(_LINE, len(line), _LINE - 1):
            written += b" " + line[start : start + _LINE - 1] + b"\r\n"
    return written + b"\r\n"


def write_jar(files: Mapping[str, bytes]) -> bytes:
    """Return a jar that is the same for the same files: sorted, stored, one time, the manifest first.

    It has an entry for each folder: class loaders find a folder by it, and Spring scans packages that way.
    """
    folders = {f"{folder}/" for name in files for folder in map(str, PurePosixPath(name).parents) if folder != "."}
    first = ("META-INF/", MANIFEST)
    target = BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as jar:
        for name in sorted(folders | set(files), key=lambda name: (name not in first, name)):
            info = zipfile.ZipInfo(name, _TIME)
            info.external_attr = (0o40755 << 16) | 0x10 if name in folders else 0o100644 << 16
            jar.writestr(info, b"" if name in folders else settled(name, files[name]))
    return target.getvalue()


def read_jar(source: Path | BytesIO, shown: str) -> dict[str, bytes]:
    """Return the files of a jar."""
    try:
        with zipfile.ZipFile(source) as jar:
            infos = [info for info in jar.infolist() if not info.is_dir()]
            if len(infos) > _ENTRIES or sum(info.file_size for info in infos) > _SIZE:
                raise SystemExit(f"{shown} holds more than {_ENTRIES} files or {_SIZE >> 30} GiB.")
            return {info.filename: jar.read(info) for info in infos}
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        raise SystemExit(f"{shown} is not a whole jar: {error}") from error


def rewritten(data: bytes, shown: str) -> bytes:
    """Return a jar that the build made without what differs from build to build; a signed one as it is."""
    entries = read_jar(BytesIO(data), shown)
    signed = any(name.startswith("META-INF/") and name.endswith(_SIGNATURES) for name in entries)
    return data if signed else write_jar(entries)


def settled(name: str, data: bytes) -> bytes:
    """Return a file of a jar without the date that older Maven plugins write into pom.properties."""
    if name.startswith("META-INF/maven/") and name.endswith("/pom.properties"):
        return b"".join(line for line in data.splitlines(keepends=True) if not line.startswith(b"#"))
    return data


def says_what_it_is(data: bytes, purl: str) -> bool:
    """Tell whether a scanner can see from the jar alone which package it is."""
    wanted = purl.removeprefix("pkg:maven/").partition("?")[0]
    group, _, rest = wanted.partition("/")
    name, _, version = unquote(rest).partition("@")
    try:
        with zipfile.ZipFile(BytesIO(data)) as jar:
            text = jar.read(f"META-INF/maven/{group}/{name}/pom.properties").decode("utf-8", "replace")
    except (KeyError, zipfile.BadZipFile, NotImplementedError, RuntimeError):
        return False
    lines = {line.strip() for line in text.splitlines()}
    return {f"groupId={group}", f"artifactId={name}", f"version={version}"} <= lines


def bill(packages: Iterable[tuple[str, str]]) -> bytes:
    """Return a bill of materials (CycloneDX 1.6) of the jars that do not say what they are."""
    components = []
    for purl, digest in sorted(set(packages)):
        group, _, rest = purl.removeprefix("pkg:maven/").partition("?")[0].partition("/")
        name, _, version = unquote(rest).partition("@")
        components.append(
            {
                "bom-ref": purl,
                "type": "library",
                "group": group,
                "name": name,
                "version": version,
                "purl": purl,
                "hashes": [{"alg": "SHA-256", "content": digest}],
            }
        )
    document = {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "components": components}
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def _boot(program: Program) -> list[Part]:
    entries = read_jar(program.path, program.shown)
    libraries = program.main.get("Spring-Boot-Lib", "BOOT-INF/lib/")
    classes = program.main.get("Spring-Boot-Classes", "BOOT-INF/classes/")
    parts = {name.removeprefix(libraries): data for name, data in entries.items() if name.startswith(libraries)}
    for name in parts:
        if "/" in name:
            raise SystemExit(f"{program.shown} has a library in a folder: {name}")
    order = [name for name in _order(entries, libraries) if name in parts]
    order += sorted(set(parts) - set(order))
    own: dict[str, bytes] = {}
    for name, data in entries.items():
        if name.startswith(classes):
            own[name.removeprefix(classes)] = data
    for name, data in entries.items():
        if not name.startswith(("BOOT-INF/", _LOADER)) and name != MANIFEST:
            own.setdefault(name, data)
    provider = "META-INF/services/java.nio.file.spi.FileSystemProvider"
    if _LOADER.replace("/", ".").encode() in own.get(provider, b""):
        del own[provider]
    section = {name: value for name, value in program.main.items() if name not in _BOOT}
    section["Main-Class"] = program.main["Start-Class"]
    if order:
        section["Class-Path"] = " ".join(f"lib/{name}" for name in order)
    own[MANIFEST] = write_manifest(section)
    return [Part(APP, write_jar(own)), *(Part(f"lib/{name}", parts[name]) for name in order)]


def _order(entries: Mapping[str, bytes], libraries: str) -> list[str]:
    """Return the libraries in the order of the class path, as classpath.idx says."""
    index = entries.get("BOOT-INF/classpath.idx", b"").decode("utf-8", "replace")
    found = re.findall(r'^- "(.*)"$', index, re.MULTILINE)
    return [name.removeprefix(libraries) for name in found]


def _quarkus(program: Program) -> list[Part]:
    folder = program.path.parent
    parts = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            name = path.relative_to(folder).as_posix()
            parts.append(Part(APP if name == _QUARKUS else name, path.read_bytes()))
    return parts


def _plain(program: Program) -> list[Part]:
    entries = read_jar(program.path, program.shown)
    folder = program.path.parent
    section = dict(program.main)
    parts, names = [], []
    for word in section.pop("Class-Path", "").split():
        path = folder / PurePosixPath(unquote(word))
        inside = ".." not in path.parts and "://" not in word and path.is_file() and not path.is_symlink()
        if inside and path.suffix == ".jar":
            names.append(f"lib/{path.name}")
            parts.append(Part(names[-1], path.read_bytes()))
        elif not word.endswith("/"):
            raise SystemExit(
                f"{program.shown} names {word} in its Class-Path, which the build did not put there.\n"
                "Let the maven-dependency-plugin copy the dependencies (goal copy-dependencies, phase package), or"
                " put them into the jar (maven-shade-plugin)."
            )
    if len(set(names)) != len(names):
        raise SystemExit(f"{program.shown} names two libraries of the same file name in its Class-Path.")
    if names:
        section["Class-Path"] = " ".join(names)
        entries[MANIFEST] = write_manifest(section)
    return [Part(APP, write_jar(entries)), *parts]


def _manifest(path: Path) -> bytes:
    try:
        with zipfile.ZipFile(path) as jar:
            return jar.read(MANIFEST)
    except (KeyError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError):
        return b""


if __name__ == "__main__":
    _line = Path(__file__).parent
    assemble(Path("/in/build/made"), Path("/out"), json.loads((_line / "settings.json").read_text(encoding="utf-8")))
