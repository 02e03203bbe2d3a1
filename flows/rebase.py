"""Rebase: when a standard image moves, what was released on it goes through the line again, without its developers.

What is due is read from the world each time: the newest release of each app, the standard image that it stands on, and
the one in force. So a killed process loses nothing. A commit's record says which standard image it was taken up for, in
the same write as its verdict: N apps get at most N verdicts for each move, whatever happens on the way.
The line itself finds that only the standard image moved (stages/build/stage.py) and puts the same layers on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from sekisho.canonical import Digest
from sekisho.model import Offer, Release


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

    @property
    def to(self) -> str:
        """What a commit's record says of it: the standard image that it is put on."""
        return f"{self.base}@{self.now}"


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
        done: whether this very rebase has had its verdict, whichever it was.
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
