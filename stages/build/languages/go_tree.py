"""A workload's own Go packages: where they are, what they import, what they embed."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePosixPath

from sekisho.errors import Refusal
from stages.build.languages.go_source import Embed, Header, Import, embeds, name_counts, read_header
from stages.build.project import Project

_LIMIT = 64 << 20
"""Of one Go file; some hold data."""
_MAX_LOOKS = 5_000_000
_LOOKS_OF_PATTERN = 100
"""What one pattern counts for before it is compared, and four for each letter of it."""
_MAX_PATTERN = 1024
_SIGNS = re.compile(r"[*?\[\\]")
_MAIN = re.compile(r"^func\s+main\s*\(\s*\)", re.MULTILINE)
_PARTS = re.compile(r"\\.|\[\^?(?:\\.|[^\]\\])+\]|.", re.DOTALL)
_SET_SIGNS = re.compile(r"\\.|[\[&|~]", re.DOTALL)
_STAR = "\0"
_STARS = re.compile(f"{_STAR}+")
_NO_PACKAGES = frozenset({"testdata", "vendor", "node_modules"})


@dataclass(frozen=True)
class OwnModule:
    """A module in the workload's folder."""

    path: str
    """As it is imported."""
    folder: str
    """Relative to the workload, empty for its top."""
    main: bool
    """Whether it is built for itself, and not only because another one needs it."""


@dataclass(frozen=True)
class Seen:
    """Something at a place."""

    what: str
    where: str


@dataclass(frozen=True)
class Reach:
    """What a program needs, as its own files say."""

    folders: tuple[str, ...]
    """Of its own packages, sorted."""
    others: Mapping[str, str]
    """Import paths of packages of others, not the standard library's, in order; each with its first place."""
    missing: tuple[Seen, ...]
    """Own packages that are imported and not there."""
    cgo: tuple[Seen, ...]
    """Places where cgo is used, by file."""
    embedded: tuple[str, ...]
    """Paths of the files that are compiled into it, sorted."""
    unmatched: tuple[Seen, ...]
    """Patterns of `//go:embed` that match nothing."""


@dataclass
class _Found:
    """What was met so far."""

    folders: set[str] = field(default_factory=set)
    others: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    cgo: dict[str, str] = field(default_factory=dict)
    embedded: set[str] = field(default_factory=set)
    unmatched: list[Seen] = field(default_factory=list)

    def reach(self) -> Reach:
        return Reach(
            folders=tuple(sorted(self.folders)),
            others=dict(sorted(self.others.items())),
            missing=tuple(Seen(what, where) for what, where in sorted(self.missing.items())),
            cgo=tuple(Seen(path, where) for path, where in sorted(self.cgo.items())),
            embedded=tuple(sorted(self.embedded)),
            unmatched=tuple(sorted(self.unmatched, key=lambda seen: (seen.where, seen.what))),
        )


@dataclass
class Tree:
    """A workload's Go files. Reads each at most once.

    Args:
        project: the workload.
        modules: its modules, in any order.
        minor: of the Go release that is used: 27.
        required: paths of the modules of others; one may be below an own module's.
    """

    project: Project
    modules: tuple[OwnModule, ...]
    minor: int
    required: frozenset[str] = frozenset()
    _looks: int = 0
    _texts: dict[str, str] = field(default_factory=dict)
    _headers: dict[str, Header] = field(default_factory=dict)

    @cached_property
    def files(self) -> tuple[str, ...]:
        """All files of the workload."""
        return self.project.files()

    @cached_property
    def by_folder(self) -> Mapping[str, tuple[str, ...]]:
        """Names of the Go files that could count, by folder."""
        found: dict[str, list[str]] = {}
        for path in self.files:
            folder, _, name = path.rpartition("/")
            if name_counts(name):
                found.setdefault(folder, []).append(name)
        return {folder: tuple(names) for folder, names in found.items()}

    @cached_property
    def _modules_by_folder(self) -> Mapping[str, OwnModule | None]:
        """Folders with a go.mod; None for a module that is not one of the workload's."""
        known = {module.folder: module for module in self.modules}
        return {
            folder: known.get(folder)
            for path in self.files
            if path == "go.mod" or path.endswith("/go.mod")
            for folder in (path.rpartition("/")[0],)
        } | known

    def module_of(self, folder: str) -> OwnModule | None:
        """Return the module that a folder belongs to."""
        if set(PurePosixPath(folder).parts) & _NO_PACKAGES:
            return None
        while True:
            if folder in self._modules_by_folder:
                return self._modules_by_folder[folder]
            if not folder:
                return None
            folder = folder.rpartition("/")[0]

    def import_path(self, folder: str) -> str:
        """Return the import path of an own package."""
        module = self.module_of(folder)
        if module is None:
            return ""
        inside = folder[len(module.folder) :].strip("/")
        return f"{module.path}/{inside}" if inside else module.path

    def mains(self) -> tuple[str, ...]:
        """Return the folders with a program, in the modules that are built for themselves, sorted."""
        found = []
        for folder in self.by_folder:
            module = self.module_of(folder)
            parts = PurePosixPath(folder).parts
            if module is None or not module.main or any(part.startswith(("_", ".")) for part in parts):
                continue
            if self._starts(folder):
                found.append(folder)
        return tuple(sorted(found))

    def _starts(self, folder: str) -> bool:
        """Return whether a folder is a program: `package main` alone may be there for a generator."""
        for path, header in self._counting(folder):
            if header.package not in ("", "main"):
                return False
            if header.package and _MAIN.search(self._text(path)):
                return True
        return False

    def packages_in(self, folders: Iterable[str]) -> tuple[str, ...]:
        """Return the folders of all packages of the modules in these folders."""
        known = {module.folder: module for module in self.modules}
        wanted = {known[folder] for folder in folders if folder in known}
        return tuple(folder for folder in self.by_folder if self.module_of(folder) in wanted)

    def header(self, path: str) -> Header:
        """Return the top of a file."""
        if path not in self._headers:
            self._headers[path] = read_header(self._text(path), minor=self.minor)
        return self._headers[path]

    def reach(self, roots: Iterable[str]) -> Reach:
        """Return what the programs in these folders need."""
        found = _Found()
        todo = sorted(set(roots))
        while todo:
            folder = todo.pop()
            if folder in found.folders:
                continue
            found.folders.add(folder)
            for path, header in self._counting(folder):
                taken = [self._take(item, path, header, found) for item in header.imports]
                todo += [own for own in taken if own is not None]
                for embed in embeds(self._text(path)):
                    where = f"{path}:{embed.line}"
                    matches = self._matches(folder, embed, where)
                    found.embedded |= set(matches)
                    if not matches:
                        found.unmatched.append(Seen(embed.pattern, where))
        return found.reach()

    def _take(self, item: Import, path: str, header: Header, found: _Found) -> str | None:
        """Note one import; return the folder of an own package."""
        where = f"{path}:{item.line}"
        own = self._own(item.path)
        if item.path == "C":
            if not header.names_cgo:
                found.cgo.setdefault(path, where)
        elif own is None:
            if "." in item.path.partition("/")[0]:  # else the standard library's
                found.others.setdefault(item.path, where)
        elif own in self.by_folder:
            return own
        else:
            found.missing.setdefault(item.path, where)
        return None

    def _counting(self, folder: str) -> Iterator[tuple[str, Header]]:
        for name in self.by_folder.get(folder, ()):
            path = f"{folder}/{name}" if folder else name
            header = self.header(path)
            if header.applies is not False:
                yield path, header

    def _own(self, path: str) -> str | None:
        """Return the folder of an own package, None for one of others. The module with the longest path counts."""
        best: OwnModule | None = None
        for module in self.modules:
            if (path == module.path or path.startswith(f"{module.path}/")) and (
                best is None or len(module.path) > len(best.path)
            ):
                best = module
        if best is None or any(
            len(other) > len(best.path) and (path == other or path.startswith(f"{other}/")) for other in self.required
        ):
            return None
        inside = path[len(best.path) :].strip("/")
        return "/".join(part for part in (best.folder, inside) if part)

    def _matches(self, folder: str, embed: Embed, where: str) -> tuple[str, ...]:
        """Return the files that a pattern embeds (package embed): a folder stands for what is in it."""
        pattern = embed.pattern.removeprefix("all:")
        hidden = pattern != embed.pattern
        if len(pattern) > _MAX_PATTERN:
            return ()  # no path is as long
        self._look(_LOOKS_OF_PATTERN + 4 * len(pattern), where)
        try:
            expression = re.compile(glob_expression(pattern))
        except re.error:
            return ()
        prefix = f"{folder}/" if folder else ""
        found = []
        plain = "" if pattern == "." else _SIGNS.split(pattern, maxsplit=1)[0]
        for path in self._starting_with(prefix + plain, where):
            parts = path[len(prefix) :].split("/")
            for depth in range(1, len(parts) + 1):
                if pattern == "." or expression.fullmatch("/".join(parts[:depth])):
                    below = parts if pattern == "." else parts[depth:]
                    if hidden or not any(part.startswith((".", "_")) for part in below):
                        found.append(path)
                    break
        return tuple(found)

    def _starting_with(self, start: str, where: str) -> tuple[str, ...]:
        """Return the files whose paths start so; the work that all patterns together make is bounded."""
        first = bisect_left(self.files, start)
        last = bisect_left(self.files, f"{start}\U0010ffff", first)
        self._look(last - first, where)
        return self.files[first:last]

    def _look(self, count: int, where: str) -> None:
        self._looks += count
        if self._looks > _MAX_LOOKS:
            raise Refusal(
                "The patterns of `//go:embed` lines are too many for this many files.",
                where=where,
                remedy="Embed folders instead of single files.",
            )

    def _text(self, path: str) -> str:
        if path not in self._texts:
            self._texts[path] = (
                (self.project.read(path, limit=_LIMIT) or b"").decode("utf-8", "replace").removeprefix("\ufeff")
            )
        return self._texts[path]


def glob_expression(pattern: str) -> str:
    """Return the regular expression of a pattern of Go's path.Match.

    After a star, the first place where what follows it fits is as good as any other, so none is tried twice: the time
    is bounded whatever the pattern.
    """
    return "/".join(_component(part) for part in pattern.split("/"))


def _component(pattern: str) -> str:
    first, *others = _STARS.split("".join(_of_part(part) for part in _PARTS.findall(pattern)))
    if not others:
        return first
    return first + "".join(f"(?>[^/]*?{part})" for part in others[:-1]) + f"[^/]*{others[-1]}"


def _of_part(part: str) -> str:
    if part == "*":
        return _STAR
    if part == "?":
        return "[^/]"
    if part.startswith("[") and len(part) > 1:
        negated = part.startswith("[^")
        letters = _SET_SIGNS.sub(
            lambda found: found[0] if len(found[0]) > 1 else f"\\{found[0]}", part[1 + negated : -1]
        )
        return f"(?!/)[{'^' if negated else ''}{letters}]"
    return re.escape(part[-1])
