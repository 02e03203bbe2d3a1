"""Receive: an offered release comes into the zone, whole and verified, or not at all.

The zone pulls from the registry of the zone before it, which it may only read, and believes nothing there: every
document is verified against its own trust root before anything is written into its own registry. The record that
makes a release "received" is written last, and what it names is verified again, from the zone's own registry, each
time it is looked up: that takes no other zone, and a key that was revoked meanwhile counts no longer. When each
statement was first verified here stands in the zone's own book (`sekisho.witness`): a key that was retired since goes
on counting for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from sekisho.canonical import Digest, digest_of_json, hex_of
from sekisho.errors import Refusal
from sekisho.keys import Trust
from sekisho.model import Offer, SealedRelease
from sekisho.records import get_record, put_record
from sekisho.registry import Registry
from sekisho.releases import Requirement, VerifiedRelease, copy_release, is_complete, verify_release
from sekisho.releases.artifact import release_repository
from sekisho.witness import WitnessBook


class ReceiveStage:
    """Brings offered releases into the zone.

    Args:
        source: the registry of the zone before, read-only.
        target: the zone's own registry.
        trust: the zone's own trust root.
        require: whose word a release needs here.
        workdir: directory for layers on their way; a pull that broke off goes on from here.
        witness: when this zone saw what; without it every statement counts as seen just now.
        clock: gives the time, seconds since the epoch.
    """

    name = "receive"

    def __init__(
        self,
        source: Registry,
        target: Registry,
        trust: Trust,
        require: tuple[Requirement, ...],
        *,
        workdir: Path,
        witness: WitnessBook | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._source = source
        self._target = target
        self._trust = trust
        self._require = require
        self._workdir = workdir
        self._witness = witness
        self._clock = clock

    def key(self, subject: Offer) -> Digest:
        """Return a digest over the offer (its place in the feed left out) and over what the zone requires."""
        return digest_of_json(
            {
                "stage": self.name,
                "offer": subject.model_dump(mode="json", exclude={"sequence"}),
                "require": sorted(self._require),
                "trust": self._trust.current().identity(),
            }
        )

    def find(self, subject: Offer) -> SealedRelease | None:
        """Return the release if it was received, all of it is still here, and it still verifies."""
        sealed = get_record(self._target, release_repository(subject.app), _tag(subject), SealedRelease)
        if sealed is None:
            return None
        try:
            verified = self._verified(self._target, subject, int(self._clock()))
        except Refusal:
            return None  # `perform` asks the source, and refuses with the reason if the release is to blame
        whole = verified.sealed == sealed and is_complete(self._target, verified)
        return sealed if whole else None

    def perform(self, subject: Offer) -> SealedRelease:
        """Verify the offered release at its source and copy all of it.

        Raises:
            VerificationError: a rule of `sekisho.releases.rules` does not hold; nothing was written.
            Refusal: a document is malformed; nothing was written.
            TemporaryError: a registry cannot be reached; the next attempt goes on from here.
        """
        now = int(self._clock())
        verified = self._verified(self._source, subject, now)
        if self._witness is not None:
            self._witness.note(verified.statements, now)
        copy_release(self._source, self._target, verified, self._workdir, trust=self._trust.current(), at=now)
        put_record(self._target, release_repository(subject.app), _tag(subject), verified.sealed)
        return verified.sealed

    def _verified(self, registry: Registry, subject: Offer, now: int) -> VerifiedRelease:
        witnessed = self._witness.times() if self._witness is not None else None
        return verify_release(registry, subject, self._trust.current(), self._require, at=now, witnessed=witnessed)


def _tag(subject: Offer) -> str:
    return f"received-{hex_of(subject.release)}"
