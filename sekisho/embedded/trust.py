"""Keys of the zones' roles, and what each zone believes: its trust root and its approvers."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sekisho.embedded import netns
from sekisho.embedded.owners import Owner, ensure_folder, write_file
from sekisho.keys import FileSigner, Role, TrustedKey, TrustRoot, load_trust, trusted_key
from sekisho.zones import Zone, ZoneHome, home

APPROVER = "approver@example.com"
_APPROVING_ZONES = (Zone.PRODUCTION, Zone.STAGING, Zone.OPS)


def roles(zone: Zone) -> tuple[Role, ...]:
    """Return the roles whose keys a zone holds."""
    return ("builder", "scanner", "verifier", "zone") if zone is Zone.BUILD else ("zone",)


def console() -> Path:
    """Return the folder of what belongs to the people at the machine's own console (root only)."""
    return home() / "console"


def provision_trust() -> None:
    """Make every missing role key, and have every zone's trust root hold all public keys.

    Keys that a trust root holds already stay in it as they are: `sekisho keys` retires and revokes.

    Raises:
        PermanentError: a key or trust root is there and not readable as such.
    """
    public = [
        trusted_key(make_key(ZoneHome(zone).keys / f"{role}.pem", role, zone), zone=str(zone) if role == "zone" else "")
        for zone in Zone
        for role in roles(zone)
    ]
    with exclusive():
        for zone in Zone:
            path = ZoneHome(zone).trust / "root.json"
            known: tuple[TrustedKey, ...] = load_trust(path).keys if path.exists() else ()
            names = {key.key_id for key in known}
            root = TrustRoot(keys=(*known, *(key for key in public if key.key_id not in names)))
            write_root(path, root, Owner(0, Owner.of(ZoneHome(zone).user).gid))


@contextmanager
def exclusive() -> Iterator[None]:
    """Let one at a time change keys and trust roots: a revocation must not be written over."""
    ensure_folder(console(), 0o700, Owner(os.geteuid(), os.getegid()))
    with (console() / ".keys.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def write_root(path: Path, root: TrustRoot, owner: Owner, mode: int = 0o640) -> None:
    """Write a trust root, whole or not at all."""
    write_file(path, json.dumps(root.model_dump(mode="json"), indent=2) + "\n", mode, owner)


def make_key(path: Path, role: Role, zone: Zone) -> FileSigner:
    """Return the key in a file of a zone's, made if it is missing; nobody but the zone's user may read it."""
    if path.exists():
        return FileSigner.load(path, role)
    # Made under another name: a key that was cut short by a crash never gets this one.
    partial = path.with_name(f".{role}.new")
    partial.unlink(missing_ok=True)
    signer = FileSigner.create(partial, role)
    write_file(path, partial.read_bytes(), 0o600, Owner.of(ZoneHome(zone).user))
    partial.unlink()
    return signer


def provision_approver() -> None:
    """Make the demo's approver: an SSH key on the console, believed by the zones that ask for approvals.

    An allowed_signers file that is there already is the team's own and stays as it is.
    """
    ensure_folder(console(), 0o700, Owner())
    key = console() / "approver"
    public = console() / "approver.pub"
    if not (key.exists() and public.exists()):
        key.unlink(missing_ok=True)
        netns.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", APPROVER, "-f", key])
    kind, data, *_ = public.read_text(encoding="ascii").split()
    line = f'{APPROVER} namespaces="sekisho-decision" {kind} {data}\n'
    for zone in _APPROVING_ZONES:
        path = ZoneHome(zone).trust / "allowed_signers"
        if not path.exists():
            write_file(path, line, 0o640, Owner(0, Owner.of(ZoneHome(zone).user).gid))
