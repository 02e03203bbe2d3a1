"""Reading go.mod and go.work.

Grammar: https://go.dev/ref/mod#go-mod-file-lexical and golang.org/x/mod/modfile. What decides the build is read here
(the module's path, the Go version, requirements, replacements, the folders of a workspace); the rest is the go
command's, which reads the file again. A mistake is told with its line, before anything is fetched.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from sekisho.errors import Refusal
from stages.build.locks_go import Module, check_path, check_version

MOD, WORK = "go.mod", "go.work"
MAX_LINES = 20_000

_GO = re.compile(
    r"([1-9][0-9]{0,3})\.(0|[1-9][0-9]{0,3})(?:\.(0|[1-9][0-9]{0,3})|((?:rc|beta)[1-9][0-9]{0,3}))?", re.ASCII
)
_TOKEN = re.compile(r'[ \t\r]*(?:(?P<comment>//.*)|(?P<raw>`[^`]*`)|(?P<quoted>"(?:[^"\\]|\\.)*+")|(?P<mark>=>|[(),])|'
                    r"(?P<word>(?:(?!//|=>)[^\s()\",`])++))")  # fmt: skip
_OWN_MODULE = re.compile(r"[A-Za-z0-9._~/+@-]{1,256}")
_KNOWN = {
    MOD: frozenset({"module", "go", "toolchain", "godebug", "require", "exclude", "replace", "retract", "tool",
                    "ignore"}),
    WORK: frozenset({"go", "toolchain", "godebug", "use", "replace"}),
}  # fmt: skip
_REMEDY = "Correct the line; `go mod edit -json` says whether it can be read."


@dataclass(frozen=True)
class Replacement:
    """One `replace` line."""

    old: str
    """Path of the module that is replaced."""
    version: str
    """Its version; empty for all."""
    module: Module | None
    """The module that takes its place, or None for a folder."""
    folder: str
    """Path of the folder, as it is written."""
    where: str


@dataclass(frozen=True)
class ModFile:
    """What a go.mod or go.work file says."""

    where: str
    path: str = ""
    """The module's own path; empty in a go.work."""
    go: tuple[int, int] | None = None
    """The language version, major and minor."""
    go_text: str = ""
    go_line: int = 0
    requires: tuple[Module, ...] = ()
    replaces: tuple[Replacement, ...] = ()
    uses: tuple[tuple[str, str], ...] = ()
    """go.work: folders as they are written, each with its place."""

    def replaced(self, module: Module) -> Module | None:
        """Return what stands for a module: another one, itself, or None for a folder of the workload."""
        found = None
        for item in self.replaces:
            if item.old == module.path and item.version in ("", module.version):
                found = item
                if item.version:
                    break
        return module if found is None else found.module


@dataclass
class _Reader:
    """Collects directives; every one is checked when it is met."""

    where: str
    kind: str
    said: dict[str, str] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    requires: list[Module] = field(default_factory=list)
    replaces: list[Replacement] = field(default_factory=list)
    uses: list[tuple[str, str]] = field(default_factory=list)

    def take(self, verb: str, words: list[str], number: int) -> None:
        """Read one directive.

        Raises:
            Refusal: unknown, or not as it has to be.
        """
        here = f"{self.where}:{number}"
        if {"(", ")"} & {verb, *words} and verb != "retract":
            raise Refusal("A parenthesis is at the wrong place.", where=here, remedy=_REMEDY)
        if verb not in _KNOWN[self.kind]:
            raise Refusal(f"{verb[:40]!r} is not a directive of {self.kind}.", where=here, remedy=_REMEDY)
        if verb in {"module", "go", "toolchain"}:
            self._once(verb, words, number, here)
        elif verb == "require":
            self.requires.append(self._module(words, here))
        elif verb == "replace":
            self.replaces.append(self._replacement(words, here))
        elif verb == "use":
            if len(words) != 1:
                raise Refusal("A `use` line names one folder.", where=here, remedy=_REMEDY)
            self.uses.append((words[0], here))

    def _once(self, verb: str, words: list[str], number: int, here: str) -> None:
        if len(words) != 1:
            raise Refusal(f"A `{verb}` line has one word.", where=here, remedy=_REMEDY)
        if verb in self.said:
            raise Refusal(f"There are two `{verb}` lines.", where=here, remedy="Remove one of them.")
        if verb == "go" and not _GO.fullmatch(words[0]):
            raise Refusal(f"{words[0][:40]!r} is not a version of Go.", where=here, remedy="Write `go 1.27`.")
        if verb == "module" and (not _OWN_MODULE.fullmatch(words[0]) or {"", ".", ".."} & set(words[0].split("/"))):
            raise Refusal(f"{words[0][:120]!r} is not the path of a module.", where=here, remedy=_REMEDY)
        self.said[verb] = words[0]
        self.lines[verb] = number

    @staticmethod
    def _module(words: list[str], here: str) -> Module:
        if len(words) != 2:  # noqa: PLR2004
            raise Refusal("The line is not a module and a version.", where=here, remedy=_REMEDY)
        check_path_loosely(words[0], here)
        check_version(words[1], where=here, remedy="Run: go mod tidy")
        return Module(words[0], words[1])

    def _replacement(self, words: list[str], here: str) -> Replacement:
        if words.count("=>") != 1:
            raise Refusal("A `replace` line has one `=>`.", where=here, remedy=_REMEDY)
        middle = words.index("=>")
        old, new = words[:middle], words[middle + 1 :]
        if len(old) not in (1, 2) or len(new) not in (1, 2):
            raise Refusal("The line is not `old [version] => new [version]`.", where=here, remedy=_REMEDY)
        check_path_loosely(old[0], here)
        version = old[1] if len(old) > 1 else ""
        if version:
            check_version(version, where=here, remedy=_REMEDY)
        if len(new) > 1:
            check_path(new[0], where=here, remedy=_REMEDY)
            check_version(new[1], where=here, remedy="Name a version, not a branch. Run: go mod tidy")
            return Replacement(old[0], version, Module(new[0], new[1]), "", here)
        if not new[0].startswith(("./", "../", "/")) and new[0] not in (".", ".."):
            raise Refusal(
                f"{new[0][:120]!r} is neither a module with a version nor a folder (`./…`).", where=here, remedy=_REMEDY
            )
        return Replacement(old[0], version, None, new[0], here)


def check_path_loosely(path: str, here: str) -> None:
    """Refuse what cannot be a module's path, also one that is never fetched: `example/lib`, replaced by a folder."""
    if not _OWN_MODULE.fullmatch(path) or {"", ".", ".."} & set(path.split("/")):
        raise Refusal(f"{path[:120]!r} is not the path of a module.", where=here, remedy=_REMEDY)


def parse_mod(text: str, *, where: str, kind: str = MOD) -> ModFile:
    """Return what a go.mod or go.work file says.

    Args:
        text: the file.
        where: its name, for messages; the line number is added.
        kind: `go.mod` or `go.work`.

    Raises:
        Refusal: it cannot be read, with the line.
    """
    reader = _Reader(where, kind)
    for verb, words, number in _directives(text, where):
        reader.take(verb, words, number)
    if kind == MOD and "module" not in reader.said:
        raise Refusal(f"{where} has no `module` line.", where=where, remedy="Run: go mod init <path of the module>")
    go = reader.said.get("go", "")
    match = _GO.fullmatch(go)
    return ModFile(
        where=where,
        path=reader.said.get("module", ""),
        go=(int(match[1]), int(match[2])) if match else None,
        go_text=go,
        go_line=reader.lines.get("go", 0),
        requires=tuple(reader.requires),
        replaces=tuple(reader.replaces),
        uses=tuple(reader.uses),
    )


def _directives(text: str, where: str) -> Iterator[tuple[str, list[str], int]]:
    """Yield each directive as its verb, its words and its line; a block gives one for each of its lines."""
    lines = text.split("\n")
    if len(lines) > MAX_LINES:
        raise Refusal(f"{where} has more than {MAX_LINES:,} lines.", where=where, remedy="Run: go mod tidy")
    block, opened = "", 0
    for number, line in enumerate(lines, 1):
        words = _words(line, f"{where}:{number}")
        if not words:
            continue
        if words == [")"] and block:
            block = ""
        elif words[1:] == ["("] and not block:
            block, opened = words[0], number
        elif block:
            yield block, words, number
        elif words[1:] != ["(", ")"]:
            yield words[0], words[1:], number
    if block:
        raise Refusal(f"The `{block[:40]} (` has no end.", where=f"{where}:{opened}", remedy=_REMEDY)


def _words(line: str, here: str) -> list[str]:
    found: list[str] = []
    place = 0
    line = line.rstrip(" \t\r")
    while place < len(line):
        match = _TOKEN.match(line, place)
        if match is None:
            raise Refusal(f"{line[place : place + 40]!r} cannot be read.", where=here, remedy=_REMEDY)
        place = match.end()
        if match["comment"] is not None:
            break
        if match["raw"] is not None:
            found.append(match["raw"][1:-1])
        elif match["quoted"] is not None:
            found.append(_unquoted(match["quoted"], here))
        else:
            found.append(match["mark"] or match["word"])
    return found


def _unquoted(text: str, here: str) -> str:
    try:
        value = str(json.loads(text))
        if "\0" in value:
            raise ValueError("NUL")  # noqa: TRY301  (both become one refusal)
        value.encode()  # half a surrogate pair is no text
    except ValueError as error:
        raise Refusal(f"{text[:60]} cannot be read.", where=here, remedy=_REMEDY) from error
    return value
