"""Reading the command line of a Procfile, which people write for a shell, without one.

What ordinary workloads use is understood: quotes, `$PORT`, `${PORT:-8000}`, assignments in front, `cd folder &&`, and
commands joined by `&&` or `;`. Everything else that a shell would do is refused with its name. Rules of quoting and
variables: POSIX.1-2017, Shell Command Language, 2.2 and 2.6.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NoReturn

from sekisho.errors import Refusal
from stages.build.procfile import MAX_LINE

Joint = Literal["$&&", "$;"]
AND, THEN = "$&&", "$;"
"""Words of the launcher that part commands; no word of a command can be one, since its dollar signs are doubled."""

_VARIABLE = re.compile(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)(?::?-([^{}$`\"'\\]*))?\})", re.ASCII)
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=(.*)", re.ASCII | re.DOTALL)
_USED = re.compile(r"\$\$|\$\{(\w+)")
_OPERATORS = {
    "|": "a pipe", "<": "a redirection", ">": "a redirection", "(": "a subshell", ")": "a subshell",
    "`": "a command substitution", "&": "a background process", "{": "braces", "}": "braces",
}  # fmt: skip
_GLOBS = "*?["
_BUILTINS = frozenset(
    {"if", "then", "else", "fi", "for", "while", "until", "do", "done", "case", "esac", "source", ".", "eval", "set",
     "trap", "ulimit", "alias", "function", "test", "[", "[[", "!", ":", "command", "builtin", "read", "shift",
     "unset", "wait"}
)  # fmt: skip
_RUNNERS = frozenset({"poetry", "pipenv", "pdm", "uv", "hatch", "rye"})
"""Tools whose `run` starts a program in the environment that they manage: in an image there is only one."""

REMEDY = "Put it into a program of the workload, for example a Python module that starts the server."


@dataclass(frozen=True)
class CommandLine:
    """What a line runs."""

    commands: tuple[tuple[str, ...], ...]
    """Words as the launcher has them: `${NAME}` is a variable, `$$` a dollar sign."""
    joint: Joint = "$&&"
    environment: dict[str, str] = field(default_factory=dict)
    """Variables that the line sets, and defaults that it names."""
    folder: str = ""
    """Where it changes to first."""

    @property
    def last(self) -> tuple[str, ...]:
        """The command that stays."""
        return self.commands[-1]

    def with_commands(self, commands: tuple[tuple[str, ...], ...]) -> CommandLine:
        """Return the same line with other commands."""
        return CommandLine(commands, self.joint, self.environment, self.folder)

    def is_plain(self) -> bool:
        """Return whether it is one command without variables."""
        return len(self.commands) == 1 and not any(variables(word) for word in self.last)

    def launched(self) -> tuple[str, ...]:
        """Return the words for the launcher."""
        found: list[str] = []
        for command in self.commands:
            found += [*([self.joint] if found else []), *command]
        return tuple(found)


def variables(word: str) -> tuple[str, ...]:
    """Return the names of the variables in a word."""
    return tuple(name for name in _USED.findall(word) if name)


def plain(word: str) -> str:
    """Return a word without variables as the program gets it."""
    return word.replace("$$", "$")


def read_command_line(text: str, *, where: str) -> CommandLine:
    """Return what a line runs.

    Raises:
        Refusal: it is empty or too long, a quote is open, or it uses more of a shell than is understood.
    """
    if len(text) > MAX_LINE:
        raise Refusal(f"The command is longer than {MAX_LINE} characters.", where=where, remedy=REMEDY)
    lexer = _Lexer(text, where)
    if "\0" in text:
        lexer.refuse("a control character")
    commands, joint = _parted(lexer)
    environment = dict(lexer.defaults)
    folder = ""
    kept: list[tuple[str, ...]] = []
    for words in commands:
        rest = _assigned(words, environment, lexer)
        if rest[:1] == ["cd"] and not kept and len(rest) == 2 and not variables(rest[1]):  # noqa: PLR2004
            folder = plain(rest[1]).rstrip("/") or "/"
        elif rest:
            kept.append(_bare(rest, lexer))
        elif not words:
            lexer.refuse("an empty command")
    if not kept:
        raise Refusal("The command is empty.", where=where, remedy="Write a line such as `web: gunicorn app:app`.")
    return CommandLine(tuple(kept), joint, environment, folder)


def _parted(lexer: _Lexer) -> tuple[list[list[str]], Joint]:
    """Return the commands of a line and what joins them."""
    commands: list[list[str]] = [[]]
    joints: set[str] = set()
    for token in lexer.tokens():
        if token in (AND, THEN):
            joints.add(token)
            commands.append([])
        else:
            commands[-1].append(token)
    if len(joints) > 1:
        lexer.refuse("`&&` and `;` in one line")
    if joints == {THEN} and not commands[-1]:
        commands.pop()
    return commands, "$;" if THEN in joints else "$&&"


def _assigned(words: list[str], environment: dict[str, str], lexer: _Lexer) -> list[str]:
    """Note the assignments in front of a command, and return the command."""
    rest = list(words)
    exported = rest[:1] in (["export"], ["env"])
    if exported:
        rest = rest[1:]
    while rest and (match := _ASSIGNMENT.fullmatch(rest[0])):
        if variables(match[2]):
            lexer.refuse(f"a value for {match[1]} that is put together from variables")
        environment[match[1]] = plain(match[2])
        rest = rest[1:]
    if words[:1] == ["export"] and rest:
        lexer.refuse("`export` of something else than NAME=value")
    return rest


def _bare(words: list[str], lexer: _Lexer) -> tuple[str, ...]:
    """Return a command without what only prepares it for a developer's machine."""
    rest = words[1:] if words[0] == "exec" else words
    if len(rest) > 2 and rest[0] in _RUNNERS and rest[1] == "run" and not rest[2].startswith("-"):  # noqa: PLR2004
        rest = rest[2:]
    if not rest:
        lexer.refuse("`exec` without a command")
    if rest[0] in _BUILTINS or rest[0] == "cd":
        lexer.refuse(f"the shell's `{rest[0]}`")
    return tuple(rest)


class _Lexer:
    """Parts a line into words, with its variables in the launcher's form."""

    def __init__(self, text: str, where: str) -> None:
        self._text = text
        self._where = where
        self._at = 0
        self.defaults: dict[str, str] = {}

    def refuse(self, what: str) -> NoReturn:
        """Refuse the line."""
        raise Refusal(
            f"The command {self._text[:80]!r} needs a shell ({what}), and there is none in the image.",
            where=self._where,
            remedy=REMEDY,
        )

    def tokens(self) -> Iterator[str]:
        """Yield words, and AND and THEN between commands."""
        text = self._text
        while True:
            while self._at < len(text) and text[self._at] in " \t":
                self._at += 1
            if self._at >= len(text) or text[self._at] == "#":
                return
            if text.startswith("&&", self._at):
                self._at += 2
                yield AND
            elif text[self._at] == ";":
                self._at += 1
                yield THEN
            else:
                yield from self._word()

    def _word(self) -> Iterator[str]:
        text, parts, quoted, bare = self._text, list[str](), False, 0
        while self._at < len(text) and text[self._at] not in " \t;" and not text.startswith("&&", self._at):
            letter = text[self._at]
            if letter == "'":
                quoted = True
                end = text.find("'", self._at + 1)
                if end < 0:
                    self.refuse("a quote that is not closed")
                parts.append(_literal(text[self._at + 1 : end]))
                self._at = end + 1
            elif letter == '"':
                quoted = True
                parts.append(self._double())
            elif letter == "\\":
                parts.append(_literal(self._escaped()))
            elif letter == "$":
                bare += 1
                parts.append(self._variable())
            else:
                self._check(letter, "".join(parts))
                parts.append(letter)
                self._at += 1
        word = "".join(parts)
        if bare and bare == len(parts):  # a shell would part the value into words, none where it is empty
            yield "".join(f"{part[:-1]}...}}" for part in parts)
        elif word or quoted:
            yield word

    def _check(self, letter: str, before: str) -> None:
        if letter in _OPERATORS:
            self.refuse(_OPERATORS[letter])
        if letter == "~" and not before:
            self.refuse("a home folder")
        # In an option no file can be meant, and a shell that finds none leaves the word alone.
        if letter in _GLOBS and not (before.startswith("-") or "=" in before):
            self.refuse("a pattern of file names")
        if not letter.isprintable():
            self.refuse("a control character")

    def _escaped(self) -> str:
        if self._at + 1 >= len(self._text):
            self.refuse("a backslash at the end")
        letter = self._text[self._at + 1]
        self._at += 2
        return letter

    def _double(self) -> str:
        text, parts = self._text, list[str]()
        self._at += 1
        while (letter := text[self._at : self._at + 1]) != '"':
            if not letter:
                self.refuse("a quote that is not closed")
            if letter == "\\" and text[self._at + 1 : self._at + 2] in ("$", "`", '"', "\\"):
                parts.append(_literal(self._escaped()))
            elif letter == "$":
                parts.append(self._variable())
            elif letter == "`":
                self.refuse("a command substitution")
            else:
                parts.append(letter)
                self._at += 1
        self._at += 1
        return "".join(parts)

    def _variable(self) -> str:
        match = _VARIABLE.match(self._text, self._at)
        if match is None:
            self.refuse("a `$` that is no variable")
        self._at = match.end()
        name = match[1] or match[2]
        if match[3]:
            other = self.defaults.setdefault(name, match[3])
            if other != match[3]:
                self.refuse(f"two defaults for {name}")
        return f"${{{name}}}"


def _literal(text: str) -> str:
    return text.replace("$", "$$")
