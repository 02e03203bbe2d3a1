"""Reading a requirements.txt that is a lock file: every package pinned with `==` and its sha256 hashes.

What such a file may hold is a small part of pip's requirements file format
(https://pip.pypa.io/en/stable/reference/requirements-file-format/): a name, `==` and a version, an environment
marker, hashes. Options, URLs, paths and other files are refused with the number of the line, because each of them
would let something into the image that the lock does not name.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from packageurl import PackageURL
from packaging.markers import Marker, UndefinedEnvironmentName
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from sekisho.canonical import digest_of_json
from sekisho.errors import Refusal

LOCK_COMMAND = "uv pip compile --generate-hashes --no-emit-index-url requirements.in -o requirements.txt"
"""The one command that makes an acceptable lock file."""

_RELEASES: Mapping[str, str] = {"3.11": "3.11.2", "3.13": "3.13.5"}
"""Release of each Python in the standard images: Debian 12 and 13."""

MAX_BYTES = 2 << 20
"""Of a requirements.txt."""
MAX_PACKAGES = 2_000
_HASH = re.compile(r"\s--hash[= ]\s*([A-Za-z0-9]+):([0-9A-Fa-f]+)(?=\s|$)")
_COMMENT = re.compile(r"(^|\s)#.*$")
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?")
_SHA256 = re.compile(r"[0-9a-f]{64}")

UNREADABLE = (ValueError, RecursionError, UndefinedEnvironmentName)
"""What `packaging` raises: most of its errors are ValueErrors, as is that for a number with thousands of digits."""


@dataclass(frozen=True)
class Target:
    """Where packages will run: a standard Python image, never the builder's own Python."""

    python: str = "3.11"

    @property
    def release(self) -> str:
        """The whole version, with its third number."""
        return _RELEASES.get(self.python, f"{self.python}.0")

    def holds(self, marker: str | Marker, *, where: str, extras: Collection[str] = ()) -> bool:
        """Return whether an environment marker holds, with none or any one of the extras.

        Raises:
            Refusal: it is not a marker, or it cannot be judged.
        """
        try:
            parsed = Marker(marker) if isinstance(marker, str) else marker
            return any(parsed.evaluate({**self.environment(), "extra": extra}) for extra in ("", *extras))
        except UNREADABLE as error:
            shown = f" {marker[:120]!r}" if isinstance(marker, str) else ""
            raise Refusal(
                f"The marker{shown} cannot be judged.", where=where, remedy="Lock the packages again."
            ) from error

    def suits(self, specifier: str) -> bool:
        """Return whether a `requires-python` takes this Python; what is no specifier forbids nothing."""
        try:
            return SpecifierSet(specifier).contains(self.release, prereleases=True)
        except UNREADABLE:
            return True

    def environment(self) -> dict[str, str]:
        """Return what markers are judged by (PEP 508), without `extra`."""
        return {
            "implementation_name": "cpython",
            "implementation_version": self.release,
            "os_name": "posix",
            "platform_machine": "x86_64",
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": self.release,
            "python_version": self.python,
            "sys_platform": "linux",
        }


@dataclass(frozen=True)
class Locked:
    """One package of the lock file."""

    name: str
    """Normalised (PEP 503)."""
    version: str
    hashes: tuple[str, ...]
    """sha256 of each file that may stand for it, in hexadecimal, sorted."""
    line: int
    file: str = "requirements.txt"

    @property
    def where(self) -> str:
        """Place in the lock file, for messages."""
        return f"{self.file}:{self.line}"

    @property
    def purl(self) -> str:
        """The package URL."""
        return PackageURL("pypi", None, self.name, self.version).to_string()

    def requirement(self) -> str:
        """Return the line for pip."""
        return f"{self.name}=={self.version} {' '.join(f'--hash=sha256:{item}' for item in self.hashes)}"


def lock_digest(packages: tuple[Locked, ...]) -> str:
    """Return the digest of what a lock says, whatever its comments, order and spelling."""
    return digest_of_json(sorted([item.name, item.version, *item.hashes] for item in packages))


def locked_package(name: str, version: str, hashes: Collection[str], *, file: str, line: int) -> Locked:
    """Return one package of a lock file after checking each of its parts.

    Args:
        name: as the lock file has it.
        version: likewise, without `==`.
        hashes: of all files that may stand for it, `sha256:<hexadecimal>`.
        file: name of the lock file.
        line: of the package in it.

    Raises:
        Refusal: the name or version is none, or there is no sha256.
    """
    where = f"{file}:{line}"
    if not _NAME.fullmatch(name):
        raise Refusal(f"{name[:80]!r} is not the name of a package.", where=where, remedy="Lock the packages again.")
    try:
        exact = str(Version(version))
    except UNREADABLE as error:
        raise Refusal(f"{name} has no valid version.", where=where, remedy="Lock the packages again.") from error
    pairs = [(kind, value) for kind, _, value in (item.partition(":") for item in hashes)]
    return Locked(canonicalize_name(name), exact, _checked(name, pairs, where), line, file)


def only_once(packages: Iterable[Locked], *, file: str) -> tuple[Locked, ...]:
    """Return packages sorted by name, each once.

    Raises:
        Refusal: one package in two versions, or too many packages.
    """
    found: dict[str, Locked] = {}
    for package in packages:
        other = found.setdefault(package.name, package)
        if other is not package:
            raise Refusal(
                f"{package.name} is pinned twice, also in line {other.line}.",
                where=package.where,
                remedy="Remove one of them, or lock the packages again.",
            )
        if len(found) > MAX_PACKAGES:
            raise Refusal(f"The lock file pins more than {MAX_PACKAGES} packages.", where=file)
    return tuple(found[name] for name in sorted(found))


def parse_requirements(
    data: bytes, *, where: str = "requirements.txt", target: Target | None = None
) -> tuple[Locked, ...]:
    """Return the packages that a lock file pins for the target, sorted by name.

    Args:
        data: the file.
        where: its name, for messages; the line number is added.
        target: where the packages will run.

    Raises:
        Refusal: anything that is not a pinned and hashed package, with its line.
    """
    if len(data) > MAX_BYTES:
        raise Refusal(f"The lock file is larger than {MAX_BYTES >> 20} MiB.", where=where)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Refusal("The lock file is not UTF-8.", where=where, remedy=f"Run: {LOCK_COMMAND}") from error
    found = (_locked(line, number, where, target or Target()) for number, line in _logical_lines(text))
    return only_once((locked for locked in found if locked is not None), file=where)


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    start, parts = 0, list[str]()
    for number, raw in enumerate(text.split("\n"), start=1):
        line = raw.rstrip("\r")
        start = start or number
        if line.endswith("\\") and not line.lstrip().startswith("#"):
            parts.append(line[:-1])
            continue
        parts.append(line)
        whole = _COMMENT.sub("", " ".join(parts)).strip()
        if whole:
            yield start, whole
        start, parts = 0, []
    whole = _COMMENT.sub("", " ".join(parts)).strip()
    if whole:
        yield start, whole


def _locked(line: str, number: int, file: str, target: Target) -> Locked | None:
    where = f"{file}:{number}"
    if line.startswith("-"):
        option = re.split(r"[\s=]", line, maxsplit=1)[0]
        raise Refusal(
            f"The option {option[:40]} is not allowed in a lock file.",
            where=where,
            remedy=f"Remove the line; the platform team configures indexes. To lock: {LOCK_COMMAND}",
        )
    hashes = _HASH.findall(line)
    rest = _HASH.sub("", line).strip()
    if " --" in rest:
        option = re.split(r"\s", rest.split(" --", 1)[1], maxsplit=1)[0]
        raise Refusal(f"The option --{option[:40]} is not allowed.", where=where, remedy=f"Run: {LOCK_COMMAND}")
    try:
        requirement = Requirement(rest)
    except UNREADABLE as error:
        raise Refusal(
            f"{rest[:80]!r} is not a package with a version.",
            where=where,
            remedy=f"URLs, paths and other files are not taken. Run: {LOCK_COMMAND}",
        ) from error
    if requirement.url is not None:
        raise Refusal(
            f"{requirement.name} comes from a URL, not from the index.",
            where=where,
            remedy="Publish it to the package index and pin a version.",
        )
    if requirement.marker is not None and not target.holds(requirement.marker, where=where):
        return None
    version = _pinned(requirement, where)
    name = canonicalize_name(requirement.name)
    return Locked(name, version, _checked(requirement.name, hashes, where), number, file)


def _pinned(requirement: Requirement, where: str) -> str:
    specifiers = list(requirement.specifier)
    if len(specifiers) != 1 or specifiers[0].operator != "==" or specifiers[0].version.endswith(".*"):
        raise Refusal(
            f"{requirement.name} is not pinned to one version with `==`.", where=where, remedy=f"Run: {LOCK_COMMAND}"
        )
    try:
        return str(Version(specifiers[0].version))
    except UNREADABLE as error:  # a number with thousands of digits
        raise Refusal(f"{requirement.name} has no valid version.", where=where) from error


def _checked(name: str, hashes: list[tuple[str, str]], where: str) -> tuple[str, ...]:
    good = sorted({value.lower() for kind, value in hashes if kind.lower() == "sha256"})
    if not good:
        raise Refusal(f"{name} has no sha256 hash.", where=where, remedy=f"Run: {LOCK_COMMAND}")
    wrong = [kind for kind, value in hashes if kind.lower() != "sha256"]
    if wrong or not all(_SHA256.fullmatch(value) for value in good):
        raise Refusal(f"{name} has a hash that is not a whole sha256.", where=where, remedy=f"Run: {LOCK_COMMAND}")
    return tuple(good)


def missing_lock(where: str) -> Refusal:
    """Return the refusal for a Python workload that names no packages at all."""
    return Refusal(
        "There is no requirements.txt: nothing says which packages exactly belong in the image.",
        where=where,
        remedy=f"Run: {LOCK_COMMAND}   (an empty requirements.txt says that there are none)",
    )
