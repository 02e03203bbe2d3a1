"""Rebase: when a standard image moves, what was released on it goes through the line again, without its developers.

What is due is read from the world each time: the newest release of each app, the standard image that it stands on, and
the one in force. So a killed process loses nothing, and a note for each app, written when a run has its verdict, keeps
one standard image from causing two runs: N apps cause at most N runs for each move, whatever happens on the way.
The line itself finds that only the standard image moved (stages/build/stage.py) and puts the same layers on it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from flows.files import write_durably
from sekisho.canonical import Digest
from sekisho.errors import Refusal
from sekisho.model import COMMIT_PATTERN, DIGEST_PATTERN, Document, NameField, Offer, Release

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rebase:
    """One app whose newest release stands on a standard image that is no longer in force."""

    app: str
    commit: str
    branch: str
    base: str
    before: str
    """Digest of the standard image that the release stands on."""
    now: str
    """Digest of the one in force."""

    @property
    def why(self) -> str:
        """One line for people."""
        return f"standard image {self.base} moved from {_short(self.before)} to {_short(self.now)}"


class _Note(Document):
    """The last rebase of an app that has its verdict."""

    app: str = NameField
    commit: str = Field(pattern=COMMIT_PATTERN)
    base: str = NameField
    now: str = Field(pattern=DIGEST_PATTERN)


class RebaseBook:
    """Which rebases have their verdict: one small file an app."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def done(self, rebase: Rebase) -> bool:
        """Return whether this very rebase has had its verdict, whichever it was."""
        path = self._path(rebase.app)
        try:
            note = _Note.parse(path.read_bytes(), where=str(path))
        except FileNotFoundError:
            return False
        except (OSError, Refusal) as error:
            # Once more costs a run that finds everything done; never again would cost a mended image.
            _LOG.error("The note of a rebase cannot be read: %s", error)
            return False
        return (note.commit, note.base, note.now) == (rebase.commit, rebase.base, rebase.now)

    def settle(self, rebase: Rebase) -> None:
        """Note that a rebase has its verdict."""
        note = _Note(app=rebase.app, commit=rebase.commit, base=rebase.base, now=rebase.now)
        write_durably(self._path(rebase.app), note.canonical())

    def _path(self, app: str) -> Path:
        return self._folder / f"{app}.json"


def newest(offers: Iterable[Offer]) -> dict[str, Offer]:
    """Return the last offer of each app."""
    return {offer.app: offer for offer in offers}


def due(
    offers: Iterable[Offer],
    release_of: Callable[[Offer], Release | None],
    in_force: Callable[[str], Digest | None],
    done: Callable[[Rebase], bool],
) -> Iterator[Rebase]:
    """Yield what is to be rebased, in the order of the apps' names.

    Args:
        offers: the feed's offers, oldest first.
        release_of: reads an offer's release; None where it is not to be had.
        in_force: digest of the standard image in force by name; None where there is none that may be built on.
        done: whether a rebase has had its verdict.
    """
    for _, offer in sorted(newest(offers).items()):
        release = release_of(offer)
        if release is None:
            continue
        image = release.image
        now = in_force(image.base)
        if now is None or now == image.base_digest:
            continue
        rebase = Rebase(offer.app, offer.commit, release.revision.branch, image.base, image.base_digest, now)
        if not done(rebase):
            yield rebase


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]
