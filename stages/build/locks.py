"""Reading a requirements.txt that is a lock file: every package pinned with `==` and its sha256 hashes.

What such a file may hold is a small part of pip's requirements file format
(https://pip.pypa.io/en/stable/reference/requirements-file-format/): a name, `==` and a version, an environment
marker, hashes. Options, URLs, paths and other files are refused with the number of the line, because each of them
would let something into the image that the lock does not name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from packageurl import PackageURL
from packaging.markers import InvalidMarker, UndefinedComparison, UndefinedEnvironmentName
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from sekisho.canonical import digest_of_json
from sekisho.errors import Refusal

LOCK_COMMAND = "uv pip compile --generate-hashes --no-emit-index-url requirements.in -o requirements.txt"
"""The one command that makes an acceptable lock file."""

TARGET: Mapping[str, str] = {
    "implementation_name": "cpython",
    "implementation_version": "3.11.2",
    "os_name": "posix",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "platform_release": "",
    "platform_system": "Linux",
    "platform_version": "",
    "python_full_version": "3.11.2",
    "python_version": "3.11",
    "sys_platform": "linux",
    "extra": "",
}
"""Environment in which markers are judged: the standard Python image (Debian 12), never the builder's own."""

MAX_BYTES = 2 << 20
MAX_PACKAGES = 2_000
_HASH = re.compile(r"\s--hash[= ]\s*([A-Za-z0-9]+):([0-9A-Fa-f]+)(?=\s|$)")
_COMMENT = re.compile(r"(^|\s)#.*$")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Locked:
    """One package of the lock file."""

    name: str
    """Normalised (PEP 503)."""
    version: str
    hashes: tuple[str, ...]
    """sha256 of each file that may stand for it, in hexadecimal, sorted."""
    line: int

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


def missing_lock(where: str) -> Refusal:
    """Return the refusal for a Python workload without a lock file."""
    return Refusal(
        "There is no requirements.txt: nothing says which packages exactly belong in the image.",
        where=where,
        remedy=f"Run: {LOCK_COMMAND}   (an empty requirements.txt says that there are none)",
    )


def parse_requirements(data: bytes, *, where: str = "requirements.txt") -> tuple[Locked, ...]:
    """Return the packages that a lock file pins for the target, sorted by name.

    Args:
        data: the file.
        where: its name, for messages; the line number is added.

    Raises:
        Refusal: anything that is not a pinned and hashed package, with its line.
    """
    if len(data) > MAX_BYTES:
        raise Refusal(f"The lock file is larger than {MAX_BYTES >> 20} MiB.", where=where)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Refusal("The lock file is not UTF-8.", where=where, remedy=f"Run: {LOCK_COMMAND}") from error
    packages: dict[str, Locked] = {}
    for number, line in _logical_lines(text):
        here = f"{where}:{number}"
        locked = _locked(line, number, here)
        if locked is None:
            continue
        other = packages.setdefault(locked.name, locked)
        if other is not locked:
            raise Refusal(
                f"{locked.name} is pinned twice, also in line {other.line}.",
                where=here,
                remedy="Remove one of them.",
            )
        if len(packages) > MAX_PACKAGES:
            raise Refusal(f"The lock file pins more than {MAX_PACKAGES} packages.", where=where)
    return tuple(packages[name] for name in sorted(packages))


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


def _locked(line: str, number: int, where: str) -> Locked | None:
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
        option = rest.split(" --", 1)[1].split()[0]
        raise Refusal(f"The option --{option[:40]} is not allowed.", where=where, remedy=f"Run: {LOCK_COMMAND}")
    try:
        requirement = Requirement(rest)
    except InvalidRequirement as error:
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
    if not _applies(requirement, where):
        return None
    version = _pinned(requirement, where)
    return Locked(canonicalize_name(requirement.name), version, _checked(requirement.name, hashes, where), number)


def _applies(requirement: Requirement, where: str) -> bool:
    if requirement.marker is None:
        return True
    try:
        return requirement.marker.evaluate(dict(TARGET))
    except (InvalidMarker, UndefinedComparison, UndefinedEnvironmentName) as error:
        raise Refusal(f"The marker of {requirement.name} cannot be judged: {error}", where=where) from error


def _pinned(requirement: Requirement, where: str) -> str:
    specifiers = list(requirement.specifier)
    if len(specifiers) != 1 or specifiers[0].operator != "==" or specifiers[0].version.endswith(".*"):
        raise Refusal(
            f"{requirement.name} is not pinned to one version with `==`.", where=where, remedy=f"Run: {LOCK_COMMAND}"
        )
    try:
        return str(Version(specifiers[0].version))
    except InvalidVersion as error:  # packaging refuses it before; kept for its other releases
        raise Refusal(f"{requirement.name} has no valid version.", where=where) from error


def _checked(name: str, hashes: list[tuple[str, str]], where: str) -> tuple[str, ...]:
    good = sorted({value.lower() for kind, value in hashes if kind.lower() == "sha256"})
    if not good:
        raise Refusal(f"{name} has no sha256 hash.", where=where, remedy=f"Run: {LOCK_COMMAND}")
    wrong = [kind for kind, value in hashes if kind.lower() != "sha256"]
    if wrong or not all(_SHA256.fullmatch(value) for value in good):
        raise Refusal(f"{name} has a hash that is not a whole sha256.", where=where, remedy=f"Run: {LOCK_COMMAND}")
    return tuple(good)
