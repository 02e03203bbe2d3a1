"""Reading maven.lock.json: every file that a Maven build asks for, by sha256. Pure.

Maven has no lock file. The line makes one by noting what its index proxy served while Maven resolved: poms, libraries,
plugins and their metadata, by path in the repository. Format `sekisho.dev/recorded/v1`:

    {"format": "sekisho.dev/recorded/v1", "files": {"maven/<path>": "sha256:<hex>", …}}
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from packageurl import PackageURL

from sekisho.errors import Refusal
from stages.build.language import Artifact
from stages.build.strict_json import read_object

LOCK_FILE = "maven.lock.json"
FORMAT = "sekisho.dev/recorded/v1"
MIRROR = "sekisho"
"""Id of the line's mirror in Maven's settings; Maven puts it into the names of metadata files."""
MAX_FILES = 20_000
REMEDY = f"Remove {LOCK_FILE} and let the line resolve once more, then commit what it kept as evidence."

_PREFIX = "maven/"
_PART = re.compile(r"[A-Za-z0-9_+~=@,!-][A-Za-z0-9._+~=@,!-]{0,199}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_DERIVED = (".sha1", ".md5", ".sha256", ".sha512", ".asc")
"""Checksums and signatures that Maven fetches beside a file. The lock's own digests say more."""
_METADATA = "maven-metadata.xml"
_LEAST_PARTS = 4


@dataclass(frozen=True)
class MavenFile:
    """One file of the repository."""

    path: str
    sha256: str
    """Hexadecimal."""

    @property
    def purl(self) -> str:
        """The package URL of a library; empty for any other file."""
        *group, name, version, file = self.path.split("/")
        if not group or not file.endswith(".jar") or not file.startswith(f"{name}-"):
            return ""
        rest = file.removesuffix(".jar").removeprefix(f"{name}-")
        # The time and number of a snapshot stand in the file's name in the place of SNAPSHOT. A classifier is another
        # file of the same package: advisories do not tell them apart.
        if not rest.startswith(version.removesuffix("SNAPSHOT")):
            return ""
        return PackageURL("maven", ".".join(group), name, version).to_string()

    def artifact(self) -> Artifact:
        """Return the file to fetch."""
        folder, _, file = self.path.rpartition("/")
        local = f"maven-metadata-{MIRROR}.xml" if file == _METADATA else file
        return Artifact(
            ecosystem="maven",
            path=self.path,
            digests=(f"sha256:{self.sha256}",),
            save_as=f"{folder}/{local}",
            purl=self.purl,
            where=f"{LOCK_FILE} {self.path}",
        )


def parse_maven_lock(text: str, *, where: str = LOCK_FILE) -> tuple[MavenFile, ...]:
    """Return the files that a lock names, sorted by path.

    Raises:
        Refusal: not such a document, a path that is none of a repository, or a digest that is none.
    """
    value = read_object(text, where=where, remedy=REMEDY)
    files = value.get("files")
    if value.get("format") != FORMAT or not isinstance(files, dict) or set(value) != {"format", "files"}:
        raise Refusal(f"{where} is not of the format {FORMAT}.", where=where, remedy=REMEDY)
    if len(files) > MAX_FILES:
        raise Refusal(f"{where} names more than {MAX_FILES} files.", where=where, remedy=REMEDY)
    found = []
    for key, digest in files.items():
        path = key.removeprefix(_PREFIX)
        parts = path.split("/")
        if not key.startswith(_PREFIX) or len(parts) < _LEAST_PARTS - 1 or not all(map(_PART.fullmatch, parts)):
            raise Refusal(f"{key[:100]!r} is not the path of a file in a Maven repository.", where=where, remedy=REMEDY)
        if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            raise Refusal(f"{path[:100]} has no digest that is a whole sha256.", where=where, remedy=REMEDY)
        if not path.endswith(_DERIVED):
            found.append(MavenFile(path, digest.removeprefix("sha256:")))
    if not found:
        raise Refusal(f"{where} names no file.", where=where, remedy=REMEDY)
    return tuple(sorted(found, key=lambda file: file.path))
