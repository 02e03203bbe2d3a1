"""Users, folders and files with their owners and modes."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

from sekisho.embedded import netns
from sekisho.embedded.pki import write_private
from sekisho.errors import PermanentError
from sekisho.zones import Zone, ZoneHome

GIT_USER = "sekisho-git"
"""The receiver's user: holds the bare repositories and nothing else of the build zone."""
EXTERNAL_USER = "sekisho-external"
"""The user of production's PostgreSQL server outside the cluster."""
PROXY_USER = "sekisho-egress"
"""The user of the package proxy."""


@dataclass(frozen=True)
class Owner:
    """A user and group by number; root by default."""

    uid: int = 0
    gid: int = 0

    @classmethod
    def of(cls, user: str, group: str = "") -> Owner:
        """Return a user with its own group, or with another group by name."""
        try:
            entry = pwd.getpwnam(user)
            gid = grp.getgrnam(group).gr_gid if group else entry.pw_gid
        except KeyError as error:
            raise PermanentError(
                f"The user {user} does not exist.", remedy="sekisho up makes it; run it as root."
            ) from error
        return cls(entry.pw_uid, gid)


def users() -> tuple[str, ...]:
    """Return every user of the embedded installation."""
    return (*(ZoneHome(zone).user for zone in Zone), GIT_USER, EXTERNAL_USER, PROXY_USER)


def ensure_users() -> list[str]:
    """Make the system users that are missing: no login, no home, a group of their own.

    Returns:
        the users made just now.
    """
    made = []
    for user in users():
        try:
            pwd.getpwnam(user)
        except KeyError:
            netns.run(
                ["useradd", "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent",
                 "--shell", "/usr/sbin/nologin", user],
                where=user,
            )  # fmt: skip
            made.append(user)
    return made


def ensure_folder(path: Path, mode: int, owner: Owner) -> None:
    """Make a folder, and set its mode and owner where they differ.

    Raises:
        PermanentError: a symbolic link or a file is in its place.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise PermanentError("This must be a folder and is not.", where=str(path), remedy="Move it away.")
    if (status.st_uid, status.st_gid) != (owner.uid, owner.gid):
        os.chown(path, owner.uid, owner.gid, follow_symlinks=False)
    if stat.S_IMODE(status.st_mode) != mode:
        path.chmod(mode)


def write_file(path: Path, text: str | bytes, mode: int, owner: Owner) -> bool:
    """Write a file whole, with mode and owner, unless it is so already.

    Returns:
        whether it changed.
    """
    data = text.encode() if isinstance(text, str) else text
    try:
        status = path.lstat()
        same = (
            stat.S_ISREG(status.st_mode)
            and (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (owner.uid, owner.gid, mode)
            and path.read_bytes() == data
        )
    except FileNotFoundError:
        same = False
    if not same:
        write_private(path, data, mode=mode, owner=(owner.uid, owner.gid))
    return not same


def zone_folders(zone: Zone) -> None:
    """Make the folders of a zone.

    The zone's own folder may be passed through, because the receiver's user has its place in the build zone; every
    folder in it is closed to all but its owner. It is root's, so that no process of the zone can put another trust root
    in place.
    """
    home = ZoneHome(zone)
    owner = Owner.of(home.user)
    reader = Owner(0, owner.gid)
    ensure_folder(home.root.parent, 0o711, Owner())
    ensure_folder(home.root, 0o711, Owner())
    for folder in (home.keys, home.secrets, home.vault, home.state, home.cache, home.root / "home"):
        ensure_folder(folder, 0o700, owner)
    # What decides what the zone trusts and permits is root's: a captured zone process cannot change it.
    for folder in (home.trust, home.policies):
        ensure_folder(folder, 0o750, reader)
    ensure_folder(home.logs, 0o700, Owner())
    if zone is Zone.BUILD:
        # Set-group-id, so that what the receiver writes is readable by the zone's group, which the receiver is not in.
        ensure_folder(home.git, 0o2750, Owner.of(GIT_USER, home.user))
        ensure_folder(home.git / "queue", 0o2770, Owner.of(GIT_USER, home.user))
        ensure_folder(home.root / "receiver", 0o700, Owner.of(GIT_USER))
