"""What a Go file says before its first declaration: constraints, package, imports; and what it embeds.

Only enough of the language is read to know which packages of others a program needs, so that they can be compiled
once and kept. Where it is not certain whether a file counts, it counts: a package too many costs time once, one too few
would be compiled again at each build. Go specification, "Source file organization"; go/build for constraints.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from sekisho.errors import plain

# What is not closed goes on to the end of its line or of the file: no text takes more than one look at each letter.
_PARTS = r"""(?P<line>//[^\n]*)
      | (?P<block>/\*.*?(?:\*/|\Z))
      | (?P<raw>`[^`]*(?:`|\Z))
      | (?P<text>"(?:\\.|[^"\\\n])*+"?)
      | (?P<rune>'(?:\\.|[^'\\\n])*+'?)"""
_SKIPPING = re.compile(_PARTS, re.VERBOSE | re.DOTALL)
_TOKEN = re.compile(rf"(?P<space>[ \t\r\n;]+) | {_PARTS} | (?P<word>[^\W\d]\w*) | (?P<mark>.)", re.VERBOSE | re.DOTALL)
_EMBED = "//go:embed"
_EMBED_WORD = re.compile(r'\s*(?:`([^`]*)`|("(?:\\.|[^"\\])*+")|(\S+))')
_BUILD = re.compile(r"//go:build\s+(.*)")
_OLD_BUILD = re.compile(r"//\s*\+build\s")
_CONSTRAINT = re.compile(r"\s*(&&|\|\||!|\(|\)|[\w.]+)")
_GO_TAG = re.compile(r"go1\.([0-9]{1,4})")
_SYSTEMS = frozenset({
    "aix", "android", "darwin", "dragonfly", "freebsd", "hurd", "illumos", "ios", "js", "linux", "nacl", "netbsd",
    "openbsd", "plan9", "solaris", "wasip1", "windows", "zos",
})  # fmt: skip
_PROCESSORS = frozenset({
    "386", "amd64", "amd64p32", "arm", "armbe", "arm64", "arm64be", "loong64", "mips", "mipsle", "mips64", "mips64le",
    "mips64p32", "mips64p32le", "ppc", "ppc64", "ppc64le", "riscv", "riscv64", "s390", "s390x", "sparc", "sparc64",
    "wasm",
})  # fmt: skip
_TRUE = frozenset({"linux", "amd64", "unix", "gc", "amd64.v1"})
_MAX_CONSTRAINT = 2_000
HEADER_LIMIT = 1 << 20


@dataclass(frozen=True)
class Import:
    """One import."""

    path: str
    line: int


@dataclass(frozen=True)
class Header:
    """The top of a Go file."""

    package: str
    """Empty where it cannot be read: the compiler will say why."""
    imports: tuple[Import, ...]
    applies: bool | None
    """Whether its `//go:build` line holds; None if that is not certain."""
    names_cgo: bool
    """Whether that line names cgo: the file is then one of two ways."""


@dataclass(frozen=True)
class Embed:
    """One pattern of a `//go:embed` line."""

    pattern: str
    line: int


def read_header(text: str, *, minor: int) -> Header:
    """Return the top of a Go file.

    Args:
        text: the file.
        minor: of the Go release that is used: 27.
    """
    reading = _Reading()
    for kind, token, line in _tokens(text):
        if kind in {"line", "block"}:
            reading.comment(token)
        elif not reading.goes_on(kind, token, line):
            break
    constraint = reading.constraint
    applies = None if reading.old and not constraint else holds(constraint, minor=minor)
    return Header(reading.package, tuple(reading.imports), applies, re.search(r"\bcgo\b", constraint) is not None)


@dataclass
class _Reading:
    """Where in the top of a file the reading is."""

    constraint: str = ""
    old: bool = False
    """Whether there are constraints in the form of before Go 1.17, which are not read."""
    package: str = ""
    imports: list[Import] = field(default_factory=list)
    clause: str = ""
    """The clause that has begun: `package`, `import` or `import (`."""

    def comment(self, token: str) -> None:
        """Take a comment; constraints stand before the package clause."""
        if self.package:
            return
        match = _BUILD.match(token)
        self.constraint = self.constraint or (match[1] if match else "")
        self.old = self.old or bool(_OLD_BUILD.match(token))

    def goes_on(self, kind: str, token: str, line: int) -> bool:
        """Take a token; return False where the top of the file ends."""
        if self.clause == "package":
            self.package, self.clause = token if kind == "word" else "", ""
            return bool(self.package)
        if not self.clause:
            self.clause = token
            return token == ("import" if self.package else "package")
        if kind in {"raw", "text"}:
            self.imports.append(Import(_string(token), line))
            self.clause = self.clause.removesuffix("import")
        elif token == "(":  # noqa: S105  (a parenthesis)
            self.clause += token
        elif token == ")":  # noqa: S105  (a parenthesis)
            self.clause = ""
        return kind in {"raw", "text", "word"} or token in "._()"  # noqa: S105  (marks)


def _tokens(text: str) -> Iterator[tuple[str, str, int]]:
    line = 1
    for match in _TOKEN.finditer(text, 0, HEADER_LIMIT):
        kind, token = match.lastgroup or "", match[0]
        if kind != "space":
            yield kind, token, line
        line += token.count("\n")


def _string(token: str) -> str:
    if token.startswith("`"):
        return token.strip("`")
    try:
        return plain(str(json.loads(token)))
    except ValueError:
        return ""


def embeds(text: str) -> tuple[Embed, ...]:
    """Return the patterns that a Go file embeds; a line of them in a comment or a string is none."""
    found: list[Embed] = []
    if _EMBED not in text:
        return ()
    for match in _SKIPPING.finditer(text):
        token = match[0]
        if not token.startswith(_EMBED) or token[len(_EMBED) : len(_EMBED) + 1] not in (" ", "\t"):
            continue
        start = match.start()
        if text[text.rfind("\n", 0, start) + 1 : start].strip():
            continue
        line = text.count("\n", 0, start) + 1
        found += [Embed(pattern, line) for pattern in _patterns(token[len(_EMBED) :].strip())]
    return tuple(found)


def _patterns(text: str) -> Iterator[str]:
    for raw, quoted, bare in _EMBED_WORD.findall(text):
        yield raw or (_string(quoted) if quoted else bare)


def name_counts(name: str) -> bool:
    """Return whether a file of this name is part of a program for Linux on amd64."""
    if not name.endswith(".go") or name.endswith("_test.go") or name.startswith((".", "_")):
        return False
    parts = name.split(".", 1)[0].split("_")[1:]
    if len(parts) > 1 and parts[-2] in _SYSTEMS and parts[-1] in _PROCESSORS:
        return parts[-2] == "linux" and parts[-1] == "amd64"
    if parts and parts[-1] in _SYSTEMS:
        return parts[-1] == "linux"
    return not parts or parts[-1] not in _PROCESSORS or parts[-1] == "amd64"


def holds(constraint: str, *, minor: int) -> bool | None:
    """Return whether a `//go:build` expression holds for a static program on Linux; None if that is not certain.

    What is not understood counts as not certain; the compiler has the last word.
    """
    constraint = constraint.split("//", 1)[0].strip()
    if not constraint:
        return True
    if len(constraint) > _MAX_CONSTRAINT:
        return None
    words = _CONSTRAINT.findall(constraint)
    if "".join(words) != re.sub(r"\s+", "", constraint):
        return None
    try:
        value, rest = _either(words, minor)
    except (IndexError, RecursionError):
        return None
    return None if rest else value


def _either(words: list[str], minor: int) -> tuple[bool | None, list[str]]:
    value, words = _both(words, minor)
    while words and words[0] == "||":
        other, words = _both(words[1:], minor)
        value = True if value or other else None if value is None or other is None else False
    return value, words


def _both(words: list[str], minor: int) -> tuple[bool | None, list[str]]:
    value, words = _not(words, minor)
    while words and words[0] == "&&":
        other, words = _not(words[1:], minor)
        value = False if value is False or other is False else None if value is None or other is None else True
    return value, words


def _not(words: list[str], minor: int) -> tuple[bool | None, list[str]]:
    word = words[0]
    if word == "!":
        value, rest = _not(words[1:], minor)
        return (None if value is None else not value), rest
    if word == "(":
        value, rest = _either(words[1:], minor)
        if rest[0] != ")":
            raise IndexError
        return value, rest[1:]
    if word in ("&&", "||", ")"):
        raise IndexError
    return _tag(word, minor), words[1:]


def _tag(word: str, minor: int) -> bool | None:
    release = _GO_TAG.fullmatch(word)
    if release:
        return int(release[1]) <= minor
    if word.startswith("goexperiment."):
        return None  # the toolchain's, different from release to release
    return word in _TRUE
