"""How a Node.js workload starts: what `npm start` would do, without npm and without a shell. Pure.

The run image has neither, so that signals reach the program itself. A start script is read word by word: prefixes such
as `NODE_ENV=production`, `cross-env` and `npx` are understood, other scripts are followed, programs of packages become
the file that they are. What needs a shell all the same is refused in one sentence.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from sekisho.errors import Refusal
from stages.build.languages.node_tools import DEVELOPMENT, SERVES_FOLDER, WITHOUT_PORT, default_start
from stages.build.npm_names import Pinned
from stages.build.procfile import MAX_LINE

REMEDY = "Write the command into `scripts.start` of package.json, for example: node server.js"

_MAX_WORDS = 64
_MAX_HOPS = 8
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=.*", re.DOTALL)
_SHELL = re.compile(r"[$`*?~\n]")
_OPERATORS = frozenset("();<>|&")
_SCRIPT_FILE = re.compile(r".+\.[cm]?js|\.|[^.-][^.]*")
_AT_START = re.compile(r"migrat|seed|prisma|knex|sequelize|typeorm|drizzle|wait|\bdb\b|database")
"""What has to happen when a workload starts, not when its image is made."""
_NODE_OPTIONS_DROPPED = re.compile(r"--(?:watch.*|inspect.*|env-file(?:-if-exists)?=.*)")
_NODE_OPTIONS_WITH_VALUE = {"-r", "--require", "--import", "--loader", "--experimental-loader", "-C", "--conditions"}
_PACKAGES_AS_PROGRAMS = {"@11ty/eleventy": "eleventy", "@angular/cli": "ng"}
_RELOADERS = {"nodemon", "node-dev", "supervisor", "forever", "pm2-runtime", "pm2"}
_TYPESCRIPT = {"tsx": ("--import", "tsx"), "ts-node": ("--require", "ts-node/register"),
               "ts-node-dev": ("--require", "ts-node/register")}  # fmt: skip


@dataclass(frozen=True)
class Start:
    """How it starts."""

    words: tuple[str, ...] = ()
    """Without a shell; empty where nothing starts."""
    environment: Mapping[str, str] = field(default_factory=dict)
    before: tuple[tuple[str, ...], ...] = ()
    """Commands in front of it (`npm run build && …`), which belong to the build."""
    develops: str = ""
    """Name of the development server that is started instead of a program; no start at all in production."""
    serves: bool = False
    """Whether it is a server of plain files, which the static image replaces."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Programs:
    """What of the packages can be run: by name, the file below the workload's folder."""

    production: Mapping[str, str]
    development: Mapping[str, str]
    listed: bool = True
    """Whether the lock says all of it; yarn's and pnpm's do not."""


def programs_of(packages: tuple[Pinned, ...], *, listed: bool) -> Programs:
    """Return the programs of the packages at the top of node_modules."""
    found: tuple[dict[str, str], dict[str, str]] = ({}, {})
    for package in packages:
        if package.place.count("node_modules/") == 1 and package.place.startswith("node_modules/"):
            for name, path in package.bin.items():
                found[package.dev].setdefault(name, f"{package.place}/{path}")
    return Programs(found[False], found[True], listed=listed)


@dataclass(frozen=True)
class Reader:
    """Reads commands of one workload."""

    scripts: Mapping[str, str]
    programs: Programs
    production: frozenset[str]
    """Names of the packages that production has."""
    development: frozenset[str]

    def script(self, name: str) -> Start:
        """Return what a script of package.json starts, with the one that npm runs before it.

        Raises:
            Refusal: it cannot be run without a shell.
        """
        return self._script(name, (), 0)

    def command(self, text: str, *, where: str) -> Start:
        """Return what a command line starts.

        Raises:
            Refusal: it cannot be run without a shell.
        """
        return self._line(text, (), where, 0)

    def _script(self, name: str, extra: tuple[str, ...], hops: int) -> Start:
        where = f"package.json (`scripts.{name}`)"
        if hops > _MAX_HOPS:
            raise Refusal("The start scripts call each other in a circle.", where=where, remedy=REMEDY)
        start = self._line(self.scripts[name], extra, where, hops)
        first = f"pre{name}"
        if first in self.scripts:
            start = replace(start, before=(*self._at_build(("npm", "run", first), where), *start.before))
        return start

    def _line(self, text: str, extra: tuple[str, ...], where: str, hops: int) -> Start:
        segments = _segments(text, where)
        before = [step for segment in segments[:-1] for step in self._at_build(segment, where)]
        start = self._words((*segments[-1], *extra), where, hops)
        return replace(start, before=(*before, *start.before))

    def _at_build(self, words: tuple[str, ...], where: str) -> tuple[tuple[str, ...], ...]:
        if _AT_START.search(" ".join([*words, *(self.scripts.get(word, "")[:MAX_LINE] for word in words)])):
            raise Refusal(
                f"{shlex.join(words)[:80]!r} has to run at each start, before the program: that needs a shell.",
                where=where,
                remedy="Let the program do it when it starts, and let the start script run only the program.",
            )
        return (words,)

    def _words(self, words: tuple[str, ...], where: str, hops: int) -> Start:
        environment: dict[str, str] = {}
        while words and (
            words[0] in {"cross-env", "cross-env-shell", "env", "exec"} or _ASSIGNMENT.fullmatch(words[0])
        ):
            if _ASSIGNMENT.fullmatch(words[0]):
                name, _, value = words[0].partition("=")
                environment[name] = value
            words = words[1:]
        if not words:
            raise Refusal("The start command names no program.", where=where, remedy=REMEDY)
        for value in environment.values():
            _check_plain(value, where)
        start = self._program(words, where, hops)
        environment.pop("PORT", None)  # the platform's to say
        return replace(start, environment={**environment, **start.environment})

    def _program(self, words: tuple[str, ...], where: str, hops: int) -> Start:
        called = _called_script(words, self.scripts)
        if called is not None:
            return self._script(called[0], called[1], hops + 1)
        if words[0] in {"npx", "npm", "pnpm", "yarn", "bunx"}:
            inner = _executed(words)
            if inner:
                return self._program(inner, where, hops)
            raise Refusal(f"{shlex.join(words)[:80]!r} starts nothing known.", where=where, remedy=REMEDY)
        name, rest = words[0].rpartition("node_modules/.bin/")[2], words[1:]
        return _tool(_PACKAGES_AS_PROGRAMS.get(name, name), rest) or self._started(name, rest, where)

    def _started(self, name: str, rest: tuple[str, ...], where: str) -> Start:
        if name == "node":
            return _node(rest, where)
        if name in _RELOADERS:
            return _reloaded(name, rest, where)
        if name in _TYPESCRIPT:
            return self._typescript(name, rest, where)
        known = default_start(name, rest)
        if known is not None:
            words = shlex.join((name, *rest))
            return Start(words=("node", *known), notes=(f"`{words}` runs as `node {shlex.join(known)}`.",))
        return self._installed(name, rest, where)

    def _typescript(self, name: str, rest: tuple[str, ...], where: str) -> Start:
        package = "ts-node" if name == "ts-node-dev" else name
        if package not in self.production:
            raise Refusal(
                f"The start command runs {name}, which is not among the packages of production.",
                where=where,
                remedy=f"Compile in `scripts.build` and start the result, or move {package} to `dependencies`.",
            )
        words = [word for word in rest if not word.startswith("--") and word != "watch"]
        if not words:
            raise Refusal(f"{name} is started without a file.", where=where, remedy=REMEDY)
        for word in words:
            _check_plain(word, where)
        return Start(words=("node", *_TYPESCRIPT[name], *words))

    def _installed(self, name: str, rest: tuple[str, ...], where: str) -> Start:
        """Return the start of a program that a package brings."""
        words = WITHOUT_PORT[name](rest) if name in WITHOUT_PORT else rest
        for word in words:
            _check_plain(word, where)
        if "/" not in name:
            file = self.programs.production.get(name)
            if file is None and not self.programs.listed and name not in self.development:
                file = f"node_modules/.bin/{name}"
            if file is not None:
                return Start(words=("node", file, *words))
        if name in self.programs.development or name in self.development:
            raise Refusal(
                f"The start command runs {name}, which only development has.",
                where=where,
                remedy=f"Move {name} to `dependencies`, or start the built program with node.",
            )
        raise Refusal(
            f"The start command runs {name[:60]!r}, which is neither node nor a program of the locked packages.",
            where=where,
            remedy=REMEDY,
        )


def _tool(name: str, rest: tuple[str, ...]) -> Start | None:
    """Return a start that is none in production: of a server for development, or of plain files."""
    arguments = " ".join(rest)
    if name in DEVELOPMENT and DEVELOPMENT[name].search(arguments):
        return Start(develops=name)
    if name in SERVES_FOLDER and SERVES_FOLDER[name].search(arguments):
        return Start(serves=True)
    return None


def _segments(text: str, where: str) -> list[tuple[str, ...]]:
    if len(text) > MAX_LINE:  # the reader's time grows with the square of a word's length
        raise Refusal("The start command is empty somewhere or too long.", where=where, remedy=REMEDY)
    try:
        lexer = shlex.shlex(text, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        lexer.commenters = ""
        words = list(lexer)
    except ValueError as error:
        raise Refusal(f"The start command cannot be read: {error}.", where=where, remedy=REMEDY) from error
    segments: list[list[str]] = [[]]
    for word in words:
        if word == "&&":
            segments.append([])
        elif word and _OPERATORS.issuperset(word):
            raise Refusal(
                f"The start command needs a shell for {word!r}, and none stands between a workload and its signals.",
                where=where,
                remedy=REMEDY,
            )
        else:
            segments[-1].append(word)
    if len(words) > _MAX_WORDS or not all(segments):
        raise Refusal("The start command is empty somewhere or too long.", where=where, remedy=REMEDY)
    return [tuple(segment) for segment in segments]


def _called_script(words: tuple[str, ...], scripts: Mapping[str, str]) -> tuple[str, tuple[str, ...]] | None:
    """Return the script that `npm run x`, `yarn x` and the like call, with its arguments."""
    if words[0] not in {"npm", "yarn", "pnpm"}:
        return None
    plain = [word for word in words[1:] if word not in {"--silent", "-s", "--quiet", "--if-present"}]
    runs = bool(plain) and plain[0] in {"run", "run-script", "rum"}
    if runs:
        plain = plain[1:]
    if not plain or plain[0] not in scripts or (words[0] == "npm" and not runs and plain[0] not in {"start", "stop"}):
        return None
    extra = plain[1:]
    return plain[0], tuple(extra[1:] if extra[:1] == ["--"] else extra)


def _executed(words: tuple[str, ...]) -> tuple[str, ...]:
    """Return the program that `npx x`, `npm exec x`, `pnpm exec x` or `yarn x` runs."""
    rest = list(words[1:])
    if words[0] != "npx" and rest[:1] and rest[0] in {"exec", "x", "dlx"}:
        rest = rest[1:]
    elif words[0] in {"npm", "pnpm"}:
        return ()
    while rest and rest[0] in {"-y", "--yes", "--no-install", "--", "--no"}:
        rest = rest[1:]
    return tuple(rest)


def _node(rest: tuple[str, ...], where: str) -> Start:
    kept: list[str] = []
    notes: list[str] = []
    words = list(rest)
    while words and words[0].startswith("-"):
        word = words.pop(0)
        if _NODE_OPTIONS_DROPPED.fullmatch(word):
            notes.append(f"`{word}` of the start command is left out: variables come from score.yaml.")
        elif word in {"--env-file", "--env-file-if-exists"} and words:
            notes.append(f"`{word} {words.pop(0)}` of the start command is left out: variables come from score.yaml.")
        else:
            kept.append(word)
            if word in _NODE_OPTIONS_WITH_VALUE and words:
                kept.append(words.pop(0))
    if not words or any(word in {"-e", "--eval", "-p", "--print"} for word in kept):
        raise Refusal("The start command runs node without a file.", where=where, remedy=REMEDY)
    for word in (*kept, *words):
        _check_plain(word, where)
    return Start(words=("node", *kept, *words), notes=tuple(notes))


def _reloaded(name: str, rest: tuple[str, ...], where: str) -> Start:
    """A tool that starts a program again when it changes or dies: here the platform does."""
    words = [word for word in rest if word not in {"start", "-q", "--quiet", "--no-daemon"}]
    if not words or words[0].startswith("-") or not _SCRIPT_FILE.fullmatch(words[0]) or words[0].endswith(".json"):
        raise Refusal(f"The start command runs {name}, a tool of development.", where=where, remedy=REMEDY)
    for word in words:
        _check_plain(word, where)
    return Start(words=("node", *words), notes=(f"`{name}` of the start command is left out: the platform restarts.",))


def _check_plain(word: str, where: str) -> None:
    if _SHELL.search(word):
        raise Refusal(
            f"The start command needs a shell for {word[:60]!r}, and there is none in the image.",
            where=where,
            remedy="Read variables in the program; it listens on the port in the variable PORT.",
        )
