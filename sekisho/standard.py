"""Standard images: what the platform team offers, and which digests stand for it.

Two files in a zone's policies folder: `standard-images.yaml` is written by people (names, recipes, owners, end of
life), `standard-images.lock.yaml` by the image builder (digests, package versions). An image counts only when both
know it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from sekisho.canonical import Digest
from sekisho.errors import Refusal
from sekisho.model import DIGEST_PATTERN, NAME_PATTERN, Document, StandardImage

SPEC_FILE = "standard-images.yaml"
LOCK_FILE = "standard-images.lock.yaml"
REPOSITORY_PREFIX = "standard"

PACKAGE_PATTERN = r"^[a-z0-9][a-z0-9+.-]+$"
_ABSOLUTE = r"^/[^\x00]*$"

D = TypeVar("D", bound=Document)


class DebianSpec(Document):
    """Where the packages come from and what never gets into an image."""

    suite: str = Field(pattern=NAME_PATTERN)
    mirrors: tuple[str, ...] = Field(min_length=1)
    """Lines of sources.list(5)."""
    epoch: int = Field(ge=0)
    """SOURCE_DATE_EPOCH: no file in an image is newer, seconds since the epoch."""
    drop: tuple[str, ...] = ()
    """Globs of paths left out of every image; `*` stays within one path component, `**` does not."""


class ReleaseSpec(Document):
    """A release of Debian beside the first. An image that stands on nothing may name it; those on it have it too."""

    suite: str = Field(pattern=NAME_PATTERN)
    mirrors: tuple[str, ...] = Field(min_length=1)
    """Lines of sources.list(5)."""


class FileSpec(Document):
    """One file put into an image."""

    source: str
    """Path below the project's root; `tool:trivy` for the pinned scanner."""
    target: str = Field(pattern=_ABSOLUTE)
    mode: Literal["0644", "0755"] = "0644"


class DirectorySpec(Document):
    """One empty directory made in an image, as a place to mount or serve from."""

    target: str = Field(pattern=_ABSOLUTE)
    uid: int = Field(default=0, ge=0)
    mode: Literal["0755", "0700"] = "0755"


class ArchiveSpec(Document):
    """One archive of a package index or a module proxy, unpacked into an image: a toolchain that Debian has not."""

    purl: str = Field(pattern=r"^pkg:[a-z]+/[^\s]+@[^\s]+$")
    """Package URL: what it is, for people, provenance and scanners."""
    url: str = Field(pattern=r"^https://[^\s]+$")
    """Its address at the public index; the last part of the path tells the format (.tgz, .whl, .zip)."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    also: tuple[str, ...] = ()
    """What the index itself says of its bytes: `sha512-<base64>` (npm), `h1:<base64>` (a Go module's zip)."""
    architecture: str = ""
    """In Go's words (`amd64`); empty where it fits all. Archives for others are left out."""
    target: str = Field(pattern=_ABSOLUTE)
    """Folder in the image. Archives of one recipe with the same target make one layer, which is the same in every
    image that has them."""
    strip: int = Field(default=0, ge=0)
    """Leading components taken off each path."""
    take: tuple[str, ...] = ()
    """Globs of what is taken, after `strip`; all where empty."""
    leave: tuple[str, ...] = ()
    """Globs of what is not taken."""
    executable: tuple[str, ...] = ()
    """Globs of files that get mode 0755; for zip files, which hold no modes. A tar's own bits count, too."""
    links: dict[str, str] = Field(default_factory=dict)
    """Symbolic links to make: absolute path -> what it points to."""

    @field_validator("also")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for item in value:
            if not item.startswith(("sha512-", "h1:")):
                raise ValueError(f"{item[:40]!r} is neither sha512-… nor h1:…")
        return value


class RunSpec(Document):
    """A program that is run in the image while it is made; what it leaves in `keep` becomes a layer.

    It must give the same bytes each time: no network, no clock worth keeping, one fixed user.
    """

    command: tuple[str, ...] = Field(min_length=1)
    environment: dict[str, str] = Field(default_factory=dict)
    keep: tuple[str, ...] = Field(min_length=1)
    """Globs of what it made; all else that it left is thrown away."""
    title: str


class UserSpec(Document):
    """One user without a password or a login shell."""

    name: str = Field(pattern=NAME_PATTERN)
    uid: int = Field(ge=1000)


class Recipe(Document):
    """How an image is made.

    `essential`: Debian's essential packages, the layer that others share. `packages`: these on top of the parent's.
    `distilled`: these packages' own files and nothing else, not even a shell, on nothing or on a distilled parent;
    they are installed by their own scripts first, so what `keep` names of that is right. `files`: the parent with
    files.
    """

    variant: Literal["essential", "packages", "distilled", "files"]
    parent: str = ""
    suite: str = ""
    """Release of Debian, for an image without a parent; empty for the first."""
    packages: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    """`distilled`: globs of what no package owns and is needed all the same, such as the bundle of certificates."""
    archives: tuple[ArchiveSpec, ...] = ()
    run: RunSpec | None = None
    files: tuple[FileSpec, ...] = ()
    directories: tuple[DirectorySpec, ...] = ()
    links: dict[str, str] = Field(default_factory=dict)
    """Symbolic links to make: absolute path -> what it points to."""
    users: tuple[UserSpec, ...] = ()
    drop: tuple[str, ...] = ()

    user: str = Field(default="10001", pattern=r"^[0-9]+$")
    env: dict[str, str] = Field(default_factory=dict)
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    working_dir: str = "/"
    ports: tuple[int, ...] = ()
    stop_signal: str = ""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if bool(self.parent) != (self.variant in ("packages", "files")) and self.variant != "distilled":
            raise ValueError("variants packages and files have a parent, essential has none")
        if self.suite and self.parent:
            raise ValueError("an image is of its parent's suite: only one without a parent names one")
        if self.keep and self.variant != "distilled":
            raise ValueError("keep is for the variant distilled")
        if self.run and self.variant == "files":
            raise ValueError("a recipe of files alone has no root file system to run anything in")
        return self


class StandardSpec(Document):
    """One standard image as the platform team describes it."""

    name: str = Field(pattern=NAME_PATTERN)
    kind: Literal["run", "build", "service", "agent", "base", "cluster"]
    """`base` is the layer that others share, `cluster` is what a cluster itself needs (pause)."""
    language: str = Field(default="none", pattern=NAME_PATTERN)
    """Name of a language of the builder. Several versions of one may be offered: the preferred stands first."""
    version: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")
    title: str
    owner: str
    end_of_life: dt.date
    """The last day on which somebody mends it."""
    recipe: Recipe


class StandardFile(Document):
    """The content of standard-images.yaml."""

    format: Literal["sekisho.dev/standard-images/v1"]
    debian: DebianSpec
    releases: tuple[ReleaseSpec, ...] = ()
    """Further releases of Debian, with the same epoch and the same paths left out."""
    images: tuple[StandardSpec, ...] = Field(min_length=1)

    def chain(self, spec: StandardSpec) -> list[StandardSpec]:
        """Return an image with those that it stands on, the lowest first."""
        by_name = {image.name: image for image in self.images}
        chain = [spec]
        while chain[0].recipe.parent:
            chain.insert(0, by_name[chain[0].recipe.parent])
        return chain

    def debian_of(self, spec: StandardSpec) -> DebianSpec:
        """Return the release of Debian that an image is made of: that of the image it stands on in the end."""
        suite = self.chain(spec)[0].recipe.suite
        for release in self.releases:
            if release.suite == suite:
                return self.debian.model_copy(update={"suite": release.suite, "mirrors": release.mirrors})
        return self.debian

    @model_validator(mode="after")
    def _suites(self) -> Self:
        suites = [self.debian.suite, *(release.suite for release in self.releases)]
        if doubled := {suite for suite in suites if suites.count(suite) > 1}:
            raise ValueError(f"the suite {min(doubled)} stands twice")
        for image in self.images:
            if image.recipe.suite not in {"", *suites}:
                raise ValueError(f"{image.name} is of {image.recipe.suite}; there are {', '.join(suites)}")
        return self

    @model_validator(mode="after")
    def _parents_first(self) -> Self:
        known: dict[str, Recipe] = {}
        for image in self.images:
            if image.name in known:
                raise ValueError(f"image {image.name} stands twice")
            parent = known.get(image.recipe.parent)
            if image.recipe.parent and parent is None:
                raise ValueError(f"the parent of {image.name} must stand before it")
            kinds = {recipe.variant == "distilled" for recipe in (parent, image.recipe) if recipe}
            if image.recipe.variant != "files" and len(kinds) > 1:
                raise ValueError(f"{image.name} and its parent must both be distilled, or neither")
            known[image.name] = image.recipe
        return self


class LockedArchive(Document):
    """An archive that is in an image."""

    purl: str
    url: str
    sha256: str


class LockEntry(Document):
    """What the builder made of one image."""

    digest: str = Field(pattern=DIGEST_PATTERN)
    """Digest of the image's OCI manifest."""
    packages: tuple[str, ...] = ()
    """`name=version` of every Debian package in the image, sorted."""
    sources: dict[str, str] = Field(default_factory=dict)
    """Debian source, `name=version`, of each package whose source has another name or version than itself."""
    archives: tuple[LockedArchive, ...] = ()
    """The other archives in the image, its parents' too."""
    recipe: str = Field(default="", pattern=rf"^$|{DIGEST_PATTERN}")
    """Digest over all that decides the image: recipe, files, builder, parent."""
    size: int = Field(default=0, ge=0)
    """Bytes of all layers, compressed."""
    built_at: str
    """RFC 3339, UTC."""


class StandardLock(Document):
    """The content of standard-images.lock.yaml."""

    format: Literal["sekisho.dev/standard-images-lock/v1"] = "sekisho.dev/standard-images-lock/v1"
    images: dict[str, LockEntry] = Field(default_factory=dict)

    def to_yaml(self) -> str:
        """Return the lock as the YAML file's text."""
        text: str = yaml.safe_dump(self.model_dump(mode="json"), sort_keys=True, width=120)
        return text


@dataclass(frozen=True)
class StandardImages:
    """The standard images of a policies folder, with their digests."""

    specs: Mapping[str, StandardSpec]
    locked: Mapping[str, LockEntry]
    where: str = ""

    def spec(self, name: str) -> StandardSpec:
        """Return the platform team's description of an image.

        Raises:
            Refusal: there is no such standard image.
        """
        if name not in self.specs:
            raise Refusal(
                f"There is no standard image {name!r:.80}.",
                where=self.where,
                remedy=f"Choose one of: {', '.join(sorted(self.specs))}.",
            )
        return self.specs[name]

    def get(self, name: str) -> StandardImage:
        """Return a standard image by name, with its digest.

        Raises:
            Refusal: there is no such image, or it was never built (no digest in the lock).
        """
        spec = self.spec(name)
        entry = self.locked.get(name)
        if entry is None:
            raise Refusal(
                f"The standard image {name!r} has no digest.",
                where=f"{self.where}: {LOCK_FILE}",
                remedy="The platform team builds it with `python -m sekisho.images build`.",
            )
        return StandardImage(
            name=name,
            digest=entry.digest,
            repository=f"{REPOSITORY_PREFIX}/{name}",
            version=spec.version,
            packages=entry.packages,
        )

    def offered(self, language: str) -> tuple[str, ...]:
        """Return the versions of a language that workloads may have, the preferred one first; empty for none."""
        versions = (spec.version for spec in self.specs.values() if spec.language == language and spec.kind == "run")
        return tuple(dict.fromkeys(versions)) if language != "none" else ()

    def for_language(self, language: str, version: str = "") -> tuple[StandardImage, StandardImage | None]:
        """Return the image that workloads of a language run on, and the one they are built in (None: none needed).

        Args:
            language: its name.
            version: one of those offered; empty takes the preferred one.

        Raises:
            Refusal: no standard image serves this language or this version of it, or it has no digest.
        """
        offered = self.offered(language)
        if not offered:
            known = sorted({spec.language for spec in self.specs.values() if spec.kind == "run"} - {"none"})
            raise Refusal(
                f"No standard image runs workloads in {language!r:.60}.",
                where=self.where,
                remedy=f"Languages offered: {', '.join(known)}. Ask the platform team for another.",
            )
        wanted = version or offered[0]
        if wanted not in offered:
            raise Refusal(
                f"No standard image runs {language} {wanted!r:.60}.",
                where=self.where,
                remedy=f"Versions offered: {', '.join(offered)}. Ask the platform team for another.",
            )
        serving = [spec for spec in self.specs.values() if (spec.language, spec.version) == (language, wanted)]
        runs = [spec.name for spec in serving if spec.kind == "run"]
        builds = [spec.name for spec in serving if spec.kind == "build"]
        return self.get(runs[0]), self.get(builds[0]) if builds else None

    def by_digest(self, digest: Digest | str) -> StandardImage | None:
        """Return the standard image with this digest, None where there is none."""
        for name, entry in self.locked.items():
            if entry.digest == digest and name in self.specs:
                return self.get(name)
        return None

    def check(self, today: dt.date, *names: str) -> None:
        """Hold images to their promises; all images where no name is given.

        Raises:
            Refusal: an image has no digest, or its end of life has passed; says which and whose it is.
        """
        chosen = [self.spec(name) for name in names] if names else list(self.specs.values())
        for spec in chosen:
            self.get(spec.name)
        ended = [spec for spec in chosen if today > spec.end_of_life]
        if ended:
            told = ", ".join(f"{spec.name} ({spec.end_of_life.isoformat()}, owner: {spec.owner})" for spec in ended)
            raise Refusal(
                f"Past the end of life: {told}.",
                where=self.where,
                remedy="The owner moves the image to a release that is still mended, and builds it again.",
            )


def load_spec(path: Path) -> StandardFile:
    """Read standard-images.yaml.

    Raises:
        Refusal: not readable, not YAML or not valid; says the field.
    """
    return _read(path, StandardFile, remedy="The fields are described in sekisho/standard.py.")


def load_lock(path: Path) -> StandardLock:
    """Read standard-images.lock.yaml; a file that is not there locks nothing.

    Raises:
        Refusal: not readable, not YAML or not valid.
    """
    if not path.exists():
        return StandardLock()
    return _read(path, StandardLock, remedy="It is written by `python -m sekisho.images build`; build again.")


def load_standard(policies: Path) -> StandardImages:
    """Read both files of a policies folder.

    Raises:
        Refusal: one of them is not valid.
    """
    spec = load_spec(policies / SPEC_FILE)
    lock = load_lock(policies / LOCK_FILE)
    return StandardImages({image.name: image for image in spec.images}, lock.images, where=str(policies))


def _read(path: Path, cls: type[D], *, remedy: str) -> D:
    try:
        data: Any = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 - a SafeLoader
        return cls.model_validate(data)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise Refusal(f"The file cannot be read: {str(error)[:300]}", where=str(path), remedy=remedy) from error
    except ValidationError as error:
        problems = "; ".join(
            f"/{'/'.join(str(part) for part in item['loc'])}: {item['msg']}"
            for item in error.errors(include_url=False, include_input=False)[:5]
        )
        raise Refusal(f"The file does not validate: {problems}", where=str(path), remedy=remedy) from error


_Loader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
