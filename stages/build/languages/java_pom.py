"""Reading pom.xml as far as the line has to know it before Maven does. Pure.

Nothing is expanded but the document itself: a document type, which every entity needs, is refused.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from xml.parsers import expat

from sekisho.errors import Refusal
from stages.build.project import Project

POM = "pom.xml"
MAX_MODULES = 500
_DEPTH = 64
_LIMIT = 4 << 20
_REFERENCE = re.compile(r"\$\{([A-Za-z0-9._-]{1,100})\}")
_LEVELS = ("maven.compiler.release", "maven.compiler.source", "maven.compiler.target", "java.version",
           "maven.compiler.testRelease")  # fmt: skip
_LEVEL = re.compile(r"(?:1\.)?([0-9]{1,3})(?:\.[0-9.]*)?")
_PLUGIN = ("build", "plugins", "plugin")


@dataclass(frozen=True)
class Pom:
    """One pom.xml."""

    path: str
    artifact: str
    packaging: str
    properties: dict[str, str] = field(default_factory=dict)
    modules: tuple[str, ...] = ()
    levels: tuple[str, ...] = ()
    """What the compiler plugin is told in its configuration: release, source, target."""
    plugins: frozenset[str] = frozenset()
    """artifactId of each plugin that is named anywhere."""
    test_jars: bool = False
    """Whether a module depends on another one's tests."""


def read_poms(project: Project) -> tuple[Pom, ...]:
    """Return the workload's pom.xml and those of its modules, the workload's own first.

    Raises:
        Refusal: one cannot be read, is missing, or lies outside of the workload.
    """
    found: dict[str, Pom] = {}
    waiting = deque([POM])
    seen = {POM}
    while waiting:
        path = waiting.popleft()
        data = project.read(path, limit=_LIMIT)
        if data is None:
            raise Refusal(
                f"There is no {path}, but another pom.xml names it as a module.",
                where=path,
                remedy="Commit the module, or take it out of <modules>.",
            )
        found[path] = pom = parse_pom(data, path)
        modules = dict.fromkeys(_module(path, module) for module in pom.modules)
        waiting += [module for module in modules if module not in seen]
        seen.update(modules)
        if len(seen) > MAX_MODULES:
            raise Refusal(f"The workload has more than {MAX_MODULES} modules.", where=POM,
                          remedy="Give each workload a folder and a pom.xml of its own.")  # fmt: skip
    return tuple(found.values())


def parse_pom(data: bytes, path: str = POM) -> Pom:
    """Return what a pom.xml says.

    Raises:
        Refusal: not XML, with a document type, or nested too deeply.
    """
    pom = dict.fromkeys(("artifactId", "packaging"), "")
    properties: dict[str, str] = {}
    modules: list[str] = []
    levels: list[str] = []
    plugins: set[str] = set()
    test_jars = False
    for names, text in _texts(data, path):
        inner, last = names[1:], names[-1]
        if len(inner) == 1 and last in pom:
            pom[last] = text
        elif len(inner) == 2 and inner[0] == "properties":  # noqa: PLR2004
            properties[last] = text
        elif inner[-2:] == ("modules", "module"):
            modules.append(text)
        elif inner[-2:] == ("plugin", "artifactId"):
            plugins.add(text)
        elif inner[-2:] in (("configuration", "release"), ("configuration", "source"), ("configuration", "target")):
            levels += [text] if inner[:3] == _PLUGIN else []
        elif inner[-2:] in (("dependency", "type"), ("dependency", "classifier")) and text in ("test-jar", "tests"):
            test_jars = True
    return Pom(
        path, pom["artifactId"], pom["packaging"] or "jar", properties, tuple(modules), tuple(levels),
        frozenset(plugins), test_jars,
    )  # fmt: skip


def java_level(poms: tuple[Pom, ...]) -> tuple[int, str]:
    """Return the newest release of Java that the workload is compiled for, and where that is said; 0 for nowhere."""
    found = [(0, "")]
    shared: dict[str, str] = {}
    for pom in poms:
        known = {**shared, **pom.properties}
        shared = shared or pom.properties
        said = [(known[name], name) for name in _LEVELS if name in pom.properties]
        said += [(text, "maven-compiler-plugin") for text in pom.levels]
        for text, name in said:
            match = _LEVEL.fullmatch(_resolved(text, known))
            if match:
                found.append((int(match[1]), f"{pom.path} {name}"))
    return max(found, key=lambda item: item[0])


def _resolved(text: str, properties: dict[str, str]) -> str:
    for _ in range(8):
        match = _REFERENCE.fullmatch(text)
        if match is None:
            return text
        text = properties.get(match[1], "")
    return ""


def _module(path: str, module: str) -> str:
    parts = list(PurePosixPath(path).parent.parts)
    for part in PurePosixPath(module.replace("\\", "/")).parts:
        if part == "..":
            if not parts:
                break
            parts.pop()
        elif part == "/":
            break
        else:
            parts.append(part)
    else:
        inside = "/".join(parts)
        return inside if inside.endswith(".xml") else f"{inside}/{POM}".removeprefix("/")
    raise Refusal(
        f"The module {module[:80]!r} lies outside of the workload's folder.",
        where=path,
        remedy="Put score.yaml into the folder that holds all modules, beside the pom.xml that names them.",
    )


def _texts(data: bytes, path: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the path of names and the text of each element without children."""
    remedy = "Correct it: mvn validate shows the same."
    stack: list[str] = []
    found: list[tuple[tuple[str, ...], str]] = []
    text: list[str] = []
    leaf = False

    def start(name: str, _: object) -> None:
        nonlocal leaf
        if len(stack) >= _DEPTH:
            raise Refusal(f"{path} is nested too deeply.", where=path, remedy=remedy)
        stack.append(name.rpartition(":")[2])
        text.clear()
        leaf = True

    def end(_: str) -> None:
        nonlocal leaf
        if leaf:
            found.append((tuple(stack), "".join(text).strip()))
        stack.pop()
        leaf = False

    def doctype(*_: object) -> None:
        raise Refusal(
            f"{path} has a document type, which a pom.xml does not need.", where=path, remedy="Remove <!DOCTYPE …>."
        )

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = text.append
    parser.StartDoctypeDeclHandler = doctype
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, LookupError, ValueError) as error:
        raise Refusal(f"{path} is not XML: {error}", where=path, remedy=remedy) from error
    if not found or found[0][0][0] != "project":
        raise Refusal(f"{path} is not a project of Maven.", where=path, remedy=remedy)
    yield from found
