"""Reading go.sum: the hash of every module's files, by path and version.

Format: https://go.dev/ref/mod#go-sum-files. A module's files are fetched from an index that speaks the module proxy
protocol (https://go.dev/ref/mod#goproxy-protocol): `.mod` for its requirements, `.zip` for its files. Names of modules
become paths there and on disk, so what Go itself would not take for one (golang.org/x/mod/module) is refused.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from packageurl import PackageURL

from sekisho.errors import Refusal
from stages.build.language import Artifact

LOCK_FILE = "go.sum"
LOCK_COMMAND = "go mod tidy"
"""The one command that makes a lock file."""
MAX_LINES = 20_000

_PATH = re.compile(r"[A-Za-z0-9._~-]+(/[A-Za-z0-9._~-]+)*")
_MAX_PATH = 256
_NUMBER = r"(?:0|[1-9][0-9]{0,19})"
_VERSION = re.compile(
    rf"v{_NUMBER}\.{_NUMBER}\.{_NUMBER}(-[0-9A-Za-z.-]{{1,128}})?(\+[0-9A-Za-z.-]{{1,128}})?", re.ASCII
)
_FIELDS = 3
_HASH_BYTES = 32
_MOD = "/go.mod"
_EMPTY_MOD = "G7mAYYxgmS0lVkHyy2hEOLQCFB0DlQFTMLWggykrydY="
"""Hash of no file at all, which an old Go wrote by mistake; Go passes over it as well (cmd/go, modfetch.readGoSum)."""


@dataclass(frozen=True, order=True)
class Module:
    """A module's version."""

    path: str
    version: str

    def __str__(self) -> str:
        """Return it as go's commands take it."""
        return f"{self.path}@{self.version}"

    @property
    def purl(self) -> str:
        """The package URL. The purl type `golang` is in lower case, as scanners have it."""
        namespace, _, name = self.path.lower().rpartition("/")
        return PackageURL("golang", namespace or None, name, self.version).to_string()

    def file(self, kind: str) -> str:
        """Return the path of a file in an index: `github.com/!burnt!sushi/toml/@v/v1.5.0.zip`."""
        return f"{escaped(self.path)}/@v/{escaped(self.version)}.{kind}"


@dataclass(frozen=True)
class Sum:
    """One hash of the lock file."""

    hash: str
    """Base64, without `h1:`."""
    where: str


@dataclass(frozen=True)
class GoSum:
    """What lock files say."""

    zips: Mapping[Module, Sum]
    """Hash of each module's files."""
    mods: Mapping[Module, Sum]
    """Hash of each module's go.mod file."""

    def artifacts(self, wanted: Iterable[Module] | None = None) -> tuple[Artifact, ...]:
        """Return the files to fetch: every go.mod file, and the zips.

        Args:
            wanted: modules whose zips are needed, where that is known; what has no hash among them is left out, and
                the go command says so if it needs it.
        """
        chosen = self.zips.keys() if wanted is None else self.zips.keys() & set(wanted)
        found = [self._artifact(module, "mod", self.mods[module]) for module in sorted(self.mods)]
        found += [self._artifact(module, "zip", self.zips[module]) for module in sorted(chosen)]
        return tuple(found)

    @staticmethod
    def _artifact(module: Module, kind: str, sum_: Sum) -> Artifact:
        path = module.file(kind)
        digest = f"h1:{sum_.hash}" if kind == "zip" else f"h1mod:{sum_.hash}"
        return Artifact("go", path, (digest,), save_as=path, purl=module.purl if kind == "zip" else "",
                        where=sum_.where)  # fmt: skip


def parse_go_sum(*files: tuple[str, str]) -> GoSum:
    """Return what lock files say: go.sum, and go.work.sum or those of other modules in a workspace.

    Args:
        files: name and text of each; the name is for messages, the line number is added.

    Raises:
        Refusal: a line that is no hash of a module, or two that contradict each other, with the line.
    """
    zips: dict[Module, Sum] = {}
    mods: dict[Module, Sum] = {}
    for name, text in files:
        lines = text.split("\n")
        if len(lines) > MAX_LINES:
            raise Refusal(f"{name} has more than {MAX_LINES:,} lines.", where=name, remedy=f"Run: {LOCK_COMMAND}")
        for number, line in enumerate(lines, 1):
            fields = line.split()
            if not fields:
                continue
            where = f"{name}:{number}"
            module, is_mod, value = _line(fields, where)
            if is_mod and value == _EMPTY_MOD:
                continue
            known = (mods if is_mod else zips).setdefault(module, Sum(value, where))
            if known.hash != value:
                raise Refusal(
                    f"{module} has two hashes; the other is in {known.where}.",
                    where=where,
                    remedy=f"Find out which is right, remove the other, and run: {LOCK_COMMAND}",
                )
    return GoSum(zips, mods)


def _line(fields: list[str], where: str) -> tuple[Module, bool, str]:
    remedy = f"Remove the line and run: {LOCK_COMMAND}"
    if len(fields) != _FIELDS:
        raise Refusal("The line is not a module, a version and a hash.", where=where, remedy=remedy)
    path, version, sum_ = fields
    is_mod = version.endswith(_MOD)
    version = version.removesuffix(_MOD)
    check_path(path, where=where, remedy=remedy)
    check_version(version, where=where, remedy=remedy)
    kind, _, value = sum_.partition(":")
    if kind != "h1" or not _is_hash(value):
        raise Refusal(f"{sum_[:60]!r} is not an `h1:` hash.", where=where, remedy=remedy)
    return Module(path, version), is_mod, value


def check_path(path: str, *, where: str, remedy: str = "") -> None:
    """Refuse what is not the path of a module in an index.

    Raises:
        Refusal: it has other characters than Go permits, or an element that could lead elsewhere.
    """
    elements = path.split("/")
    if (
        len(path) > _MAX_PATH
        or not _PATH.fullmatch(path)
        or any(element.startswith(".") or element.endswith(".") for element in elements)
        or "." not in elements[0]
        or elements[0].startswith("-")
    ):
        raise Refusal(f"{path[:120]!r} is not the path of a module that can be fetched.", where=where, remedy=remedy)


def check_version(version: str, *, where: str, remedy: str = "") -> None:
    """Refuse what is not a version.

    Raises:
        Refusal: it is not semantic versioning with a `v` in front.
    """
    if not _VERSION.fullmatch(version) or ".." in version:
        raise Refusal(f"{version[:80]!r} is not a version of a module.", where=where, remedy=remedy)


def escaped(text: str) -> str:
    """Return a path or version as it is in an index: a capital is `!` and its small letter, as disks may fold."""
    return re.sub(r"[A-Z]", lambda match: f"!{match[0].lower()}", text)


def _is_hash(value: str) -> bool:
    try:
        return len(base64.b64decode(value, validate=True)) == _HASH_BYTES and base64.b64encode(
            base64.b64decode(value)
        ) == value.encode("ascii")
    except (binascii.Error, ValueError):
        return False
