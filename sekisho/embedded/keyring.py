"""Rotation and revocation of role keys: new keys in their zones, and what every trust root says about each.

The zones of this machine, or of the part of an installation that this machine holds. What must hold at every moment,
also when a command is cut off in the middle and called again:

1. Nobody signs with a key that the trust roots do not hold yet: the public key goes out first, the private key into
   its place last.
2. A trust root is written whole or not at all.
3. Nothing is done that is not in the audit file: the entry is written first.
4. Revoking only takes away: no call makes a revoked key count for more than before.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sekisho.embedded import trust
from sekisho.embedded.owners import Owner, ensure_folder
from sekisho.errors import PermanentError, Refusal
from sekisho.journal import Journal
from sekisho.keys import FileSigner, Role, TrustedKey, TrustRoot, load_trust, trusted_key
from sekisho.model import Document
from sekisho.zones import Zone, ZoneHome

AUDIT_FILE = "keys-audit.jsonl"
"""In the console's folder: who changed whose trust, when and why."""


class KeyChange(Document):
    """One change, as the audit file keeps it."""

    action: Literal["rotate", "revoke"]
    at: int
    """Seconds since the epoch."""
    by: str
    """The user who called, as the system names them."""
    role: str
    zone: str = ""
    key_id: str
    """The key that is retired or revoked."""
    successor: str = ""
    until: int | None = None
    """rotate: until when the old key counts for what is first seen."""
    revoked_from: int | None = None
    reason: str = ""
    roots: tuple[str, ...]
    """The trust roots that were written."""


@dataclass(frozen=True)
class KeyState:
    """One key, as the trust roots here say."""

    key: TrustedKey
    roots: tuple[str, ...]
    """Where it is said so."""
    signs: bool
    """Whether a zone of this machine signs with it."""


def root_paths() -> tuple[Path, ...]:
    """Return the trust roots of this machine's zones, those that are there."""
    return tuple(path for path in (ZoneHome(zone).trust / "root.json" for zone in Zone) if path.exists())


def key_states(roots: Sequence[Path]) -> tuple[KeyState, ...]:
    """Return every key of some trust roots; one that two roots tell differently stands there twice.

    Raises:
        Refusal: a trust root cannot be read.
    """
    found: dict[TrustedKey, list[str]] = {}
    for path in roots:
        for key in load_trust(path).keys:
            found.setdefault(key, []).append(str(path))
    signing = {signer.key_id for signer in _signers()}
    states = [KeyState(key, tuple(paths), key.key_id in signing) for key, paths in found.items()]
    return tuple(sorted(states, key=lambda state: (state.key.role, state.key.zone, state.key.key_id)))


def rotate(role: Role, zone: Zone, *, now: int, overlap: int, by: str) -> KeyChange:
    """Make a role's key anew: the trust roots learn the new one and when the old one ends, then the zone signs with it.

    Cut off and called again, it goes on with the key that it had made.

    Args:
        role: the role.
        zone: the zone that holds its key.
        now: the time, seconds since the epoch.
        overlap: for how many seconds the old key still counts for what is first seen.
        by: who asks.

    Raises:
        PermanentError: the zone does not hold such a key, or no trust root is here.
        Refusal: a trust root cannot be read.
    """
    home = ZoneHome(zone)
    path, following = home.keys / f"{role}.pem", home.keys / f".{role}.next.pem"
    if role not in trust.roles(zone) or not path.exists():
        raise PermanentError(
            f"The zone {zone} holds no {role} key.",
            where=str(path),
            remedy="`sekisho keys list` shows who holds which.",
        )
    with trust.exclusive():
        old = FileSigner.load(path, role)
        new = trust.make_key(following, role, zone)
        entry = trusted_key(new, zone=str(zone) if role == "zone" else "")
        until = now + overlap
        change = KeyChange(
            action="rotate",
            at=now,
            by=by,
            role=role,
            zone=entry.zone,
            key_id=old.key_id,
            successor=new.key_id,
            until=until,
            roots=tuple(str(item) for item in _needed(root_paths())),
        )
        _audit(change)

        def renewed(root: TrustRoot) -> TrustRoot:
            keys = tuple(_retired(key, until) if key.key_id == old.key_id else key for key in root.keys)
            return TrustRoot(keys=keys if any(key.key_id == new.key_id for key in keys) else (*keys, entry))

        for item in root_paths():
            _rewrite(item, renewed)
        following.replace(path)
        _sync(path.parent)
        return change


def revoke(key_id: str, roots: Sequence[Path], *, revoked_from: int, reason: str, now: int, by: str) -> KeyChange:
    """Take a key's word back from a time on, in every root that holds it.

    Args:
        key_id: the key's id, or the beginning of it.
        roots: the trust roots to write.
        revoked_from: what was first seen then or later does not count; 0: nothing does.
        reason: why.
        now: the time, seconds since the epoch.
        by: who asks.

    Raises:
        Refusal: no root holds it, or the beginning is that of several; a trust root cannot be read.
    """
    with trust.exclusive():
        holders = {path: load_trust(path) for path in _needed(roots)}
        found = {key.key_id: key for root in holders.values() for key in root.keys if key.key_id.startswith(key_id)}
        if len(found) != 1:
            what = "No key" if not found else f"{len(found)} keys"
            raise Refusal(f"{what} here begin with {key_id[:64]!r}.", remedy="`sekisho keys list` shows their ids.")
        (key,) = found.values()
        touched = [path for path, root in holders.items() if any(item.key_id == key.key_id for item in root.keys)]
        change = KeyChange(
            action="revoke",
            at=now,
            by=by,
            role=key.role,
            zone=key.zone,
            key_id=key.key_id,
            revoked_from=revoked_from,
            reason=reason,
            roots=tuple(map(str, touched)),
        )
        _audit(change)

        def taken(root: TrustRoot) -> TrustRoot:
            return TrustRoot(
                keys=tuple(
                    _revoked(item, revoked_from, reason) if item.key_id == key.key_id else item for item in root.keys
                )
            )

        for path in touched:
            _rewrite(path, taken)
        return change


def changes() -> tuple[KeyChange, ...]:
    """Return the audit file's entries, oldest first."""
    return tuple(KeyChange.parse(line, where=AUDIT_FILE) for line in Journal(trust.console() / AUDIT_FILE).lines())


def _retired(key: TrustedKey, until: int) -> TrustedKey:
    ends = until if key.not_after is None else min(until, key.not_after)
    return key.model_copy(update={"not_after": ends})


def _revoked(key: TrustedKey, revoked_from: int, reason: str) -> TrustedKey:
    if key.revoked_from is not None and key.revoked_from <= revoked_from:
        return key
    return key.model_copy(update={"revoked_from": revoked_from, "revoked_because": reason})


def _signers() -> Iterator[FileSigner]:
    for zone in Zone:
        for role in trust.roles(zone):
            path = ZoneHome(zone).keys / f"{role}.pem"
            if os.access(path, os.R_OK):
                yield FileSigner.load(path, role)


def _needed(roots: Sequence[Path]) -> Sequence[Path]:
    if not roots:
        raise PermanentError(
            "There is no trust root of a zone here.", remedy="`sekisho up` makes them; else name the file with --trust."
        )
    return roots


def _rewrite(path: Path, change: Callable[[TrustRoot], TrustRoot]) -> None:
    before = load_trust(path)
    after = change(before)
    if after != before:
        status = path.stat()
        trust.write_root(path, after, Owner(status.st_uid, status.st_gid), status.st_mode & 0o777)
        _sync(path.parent)


def _audit(change: KeyChange) -> None:
    ensure_folder(trust.console(), 0o700, Owner(os.geteuid(), os.getegid()))
    Journal(trust.console() / AUDIT_FILE).append(json.dumps(change.model_dump(mode="json"), sort_keys=True).encode())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
