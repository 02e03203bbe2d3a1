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
from pydantic import Field, ValidationError, model_validator

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


class FileSpec(Document):
    """One file put into an image."""

    source: str
    """Path below the project's root; `tool:trivy` for the pinned scanner; `package:/path` in an `extract` recipe."""
    target: str = Field(pattern=_ABSOLUTE)
    mode: Literal["0644", "0755"] = "0644"


class DirectorySpec(Document):
    """One empty directory made in an image, as a place to mount or serve from."""

    target: str = Field(pattern=_ABSOLUTE)
    uid: int = Field(default=0, ge=0)
    mode: Literal["0755", "0700"] = "0755"


class UserSpec(Document):
    """One user without a password or a login shell."""

    name: str = Field(pattern=NAME_PATTERN)
    uid: int = Field(ge=1000)


class Recipe(Document):
    """How an image is made.

    `essential`: Debian's essential packages, the layer that others share. `packages`: these on top of the parent's.
    `files`: the parent with files. `extract`: single files out of packages, on nothing.
    """

    variant: Literal["essential", "packages", "files", "extract"]
    parent: str = ""
    packages: tuple[str, ...] = ()
    files: tuple[FileSpec, ...] = ()
    directories: tuple[DirectorySpec, ...] = ()
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
        if bool(self.parent) != (self.variant in ("packages", "files")):
            raise ValueError("variants packages and files have a parent, essential and extract have none")
        return self


class StandardSpec(Document):
    """One standard image as the platform team describes it."""

    name: str = Field(pattern=NAME_PATTERN)
    kind: Literal["run", "build", "service", "agent", "base", "cluster"]
    """`base` is the layer that others share, `cluster` is what a cluster itself needs (pause)."""
    language: Literal["python", "static", "none"] = "none"
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
    images: tuple[StandardSpec, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _parents_first(self) -> Self:
        known: set[str] = set()
        for image in self.images:
            if image.name in known:
                raise ValueError(f"image {image.name} stands twice")
            if image.recipe.parent and image.recipe.parent not in known:
                raise ValueError(f"the parent of {image.name} must stand before it")
            known.add(image.name)
        return self


class LockEntry(Document):
    """What the builder made of one image."""

    digest: str = Field(pattern=DIGEST_PATTERN)
    """Digest of the image's OCI manifest."""
    packages: tuple[str, ...] = ()
    """`name=version` of every Debian package in the image, sorted."""
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

    def for_language(self, language: str) -> tuple[StandardImage, StandardImage | None]:
        """Return the image that workloads of a language run on, and the one they are built in (None: none needed).

        Raises:
            Refusal: no standard image serves this language, or it has no digest.
        """
        serving = [spec for spec in self.specs.values() if spec.language == language]
        runs = [spec.name for spec in serving if spec.kind == "run"]
        builds = [spec.name for spec in serving if spec.kind == "build"]
        if not runs or language == "none":
            offered = sorted({spec.language for spec in self.specs.values() if spec.kind == "run"} - {"none"})
            raise Refusal(
                f"No standard image runs workloads in {language!r:.60}.",
                where=self.where,
                remedy=f"Languages offered: {', '.join(offered)}. Ask the platform team for another.",
            )
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
