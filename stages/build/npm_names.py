"""Names, versions, hashes and platforms as the npm registry has them; shared by the readers of lock files. Pure."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from urllib.parse import SplitResult, urlsplit

from packageurl import PackageURL

from sekisho.errors import Refusal
from stages.trees import check_name as check_path

PLATFORM = {"os": "linux", "cpu": "x64", "libc": "glibc"}
"""What the standard image is, in npm's words."""

_NAME = re.compile(r"(?:@[A-Za-z0-9~_-][A-Za-z0-9._~-]*/)?[A-Za-z0-9~_-][A-Za-z0-9._~-]*")
"""npm's own rule (validate-npm-package-name), with the capitals that old packages have; no leading dot."""
_MAX_NAME = 214
_VERSION = re.compile(r"\d{1,16}\.\d{1,16}\.\d{1,16}(?:-[0-9A-Za-z.-]{1,128})?(?:\+[0-9A-Za-z.-]{1,128})?")
_HASH = re.compile(r"(sha512|sha384|sha256|sha1)-([A-Za-z0-9+/]{20,90}={0,2})(?:\?[!-~]*)?")
_SIZES = {"sha512": 64, "sha384": 48, "sha256": 32, "sha1": 20}
_TAKEN = ("sha512", "sha256", "sha1")
"""Strongest first. SHA-1 counts where a lock has nothing better: nobody can make another file for a hash that is
already written down; only its maker could have prepared two."""


@dataclass(frozen=True)
class Pinned:
    """One package of the index, at one place in node_modules."""

    name: str
    version: str
    integrity: str
    """The strongest hash as the lock writes it: `sha512-<base64>`."""
    digest: str
    """The same for `Artifact.digests`: `sha512:<hex>`."""
    place: str
    """Where the lock has it: `node_modules/left-pad`."""
    line: int = 0
    dev: bool = False
    """Whether only development needs it."""
    optional: bool = False
    scripts: bool = False
    """Whether it runs a script when it is installed."""
    bin: Mapping[str, str] = field(default_factory=dict)
    """Its programs: name, and path in its folder."""

    @property
    def path(self) -> str:
        """Path below the index."""
        return index_path(self.name, self.version)

    @property
    def purl(self) -> str:
        """The package URL."""
        scope, _, name = self.name.rpartition("/")
        return PackageURL("npm", scope or None, name, self.version).to_string()


def index_path(name: str, version: str) -> str:
    """Return where the index has a package: `@scope/name/-/name-1.0.0.tgz`; build metadata is not in the name."""
    return f"{name}/-/{name.rpartition('/')[2]}-{version.partition('+')[0]}.tgz"


def check_name(name: str) -> str:
    """Return a package's name.

    Raises:
        ValueError: no package can have it.
    """
    if len(name) > _MAX_NAME or not _NAME.fullmatch(name) or name == "node_modules":
        raise ValueError(f"{name[:80]!r} is not the name of a package")
    return name


def check_version(version: str) -> str:
    """Return a package's version.

    Raises:
        ValueError: it is not one.
    """
    if not _VERSION.fullmatch(version):
        raise ValueError(f"{version[:80]!r} is not a version")
    return version


def check_folder(folder: str) -> str:
    """Return a folder inside the workload, without `./` in front.

    Raises:
        ValueError: it leads out of the workload, or is no ordinary name.
    """
    plain = folder.removeprefix("./").rstrip("/")
    if "\\" in plain:
        raise ValueError("a folder's name has a backslash")
    try:
        check_path(plain)
    except Refusal as error:
        raise ValueError("it is not a folder inside the workload") from error
    return str(PurePosixPath(plain))


def read_integrity(value: object) -> tuple[str, str]:
    """Return the strongest hash of an `integrity` field, as it is written and as `sha512:<hex>`.

    Raises:
        ValueError: there is none, or several of the strongest kind.
    """
    if not isinstance(value, str) or not value.strip():
        raise ValueError("there is no `integrity` for it")
    found: dict[str, set[bytes]] = {}
    for word in value.split():
        match = _HASH.fullmatch(word)
        if match is None:
            raise ValueError(f"{word[:60]!r} is not a hash")
        found.setdefault(match[1], set()).add(_decoded(match[1], match[2]))
    for kind in _TAKEN:
        if kind in found:
            if len(found[kind]) > 1:
                raise ValueError(f"there are {len(found[kind])} {kind} hashes for it, not one")
            raw = next(iter(found[kind]))
            return f"{kind}-{base64.b64encode(raw).decode()}", f"{kind}:{raw.hex()}"
    raise ValueError(f"its hash is of another kind than {', '.join(_TAKEN)}")


def runs_here(os: object, cpu: object, libc: object) -> bool:
    """Return whether a package runs in the standard image, as npm judges it (npm-install-checks)."""
    return _listed("linux", os) and _listed("x64", cpu) and _listed("glibc", libc)


def split_url(text: str) -> SplitResult:
    """Return a URL's parts; those of an empty one where it cannot be read (`https://[`): that is nobody's index."""
    try:
        return urlsplit(text)
    except ValueError:
        return urlsplit("")


def from_elsewhere(name: str, source: str, *, where: str) -> Refusal:
    """Return the refusal of a package that does not come from the index."""
    shown = re.sub(r"//[^/@]*@", "//", source)[:120]
    if re.match(r"(git|github:|gitlab:|bitbucket:|ssh:)|.*\.git(#|$)|https?://codeload\.github\.com/", source):
        kind = "a git repository"
    elif source.startswith(("file:", "link:", "portal:", ".", "/")):
        kind = "a file"
    else:
        kind = "a URL"
    return Refusal(
        f"{name[:100]} comes from {kind} ({shown}), not from the package index.",
        where=where,
        remedy="Take a published version of it, or keep its source in a folder of the workload (a workspace).",
    )


def _decoded(kind: str, text: str) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"its {kind} hash is not base64") from error
    if len(raw) != _SIZES[kind]:
        raise ValueError(f"its {kind} hash has {len(raw)} bytes, not {_SIZES[kind]}")
    return raw


def _listed(value: str, wanted: object) -> bool:
    words = [wanted] if isinstance(wanted, str) else wanted
    if not isinstance(words, list) or not words or words == ["any"]:
        return True
    refused = {word[1:] for word in words if isinstance(word, str) and word.startswith("!")}
    if value in refused:
        return False
    return value in words or len(refused) == len(words)
