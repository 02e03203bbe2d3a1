"""What a zone is given to work with: its profile, the policies in force, and who may push."""

from __future__ import annotations

import hashlib
from pathlib import Path

from sekisho.embedded.owners import GIT_USER, Owner, ensure_folder, write_file
from sekisho.embedded.runtime import PACKAGES, project_root
from sekisho.embedded.trust import console
from sekisho.errors import PermanentError
from sekisho.profile import Profile, load_profile
from sekisho.receiver.tokens import Tokens, new_token
from sekisho.zones import Zone, ZoneHome, home, prefix

IMAGES_LOCK = "standard-images.lock.yaml"
_DEVELOPER = "developer"


def default_profiles() -> Path:
    """Return the folder of the cluster profiles that come with the project."""
    return project_root() / "cluster-profiles"


def default_policies() -> Path:
    """Return the folder of the policies that come with the project."""
    return project_root() / "policies"


def policy_files(policies: Path) -> list[Path]:
    """Return the files of a policies folder that a zone reads: rules and lists, and OpenVEX documents."""
    return sorted(path for pattern in ("*.yaml", "*.json") for path in policies.rglob(pattern))


def content_digest(zone: Zone) -> str:
    """Return a digest over what a zone's processes read once, at their start: code, profile, policies, trust.

    It stands in their environment, so that `up` starts them anew when any of it has changed.
    """
    zone_home = ZoneHome(zone)
    hasher = hashlib.sha256()
    code = (path for package in PACKAGES for path in (project_root() / package).rglob("*.py"))
    read = (zone_home.profile, *policy_files(zone_home.policies), *zone_home.trust.rglob("*"))
    for path in sorted({*code, *read}):
        if path.is_file():
            hasher.update(str(path).encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return hasher.hexdigest()[:16]


def write_content(zone: Zone, profiles: Path, policies: Path) -> Profile:
    """Copy a zone's profile and the policies to where the zone reads, and only reads, them.

    Returns:
        the profile.

    Raises:
        PermanentError: the zone has no profile.
        Refusal: the profile is not valid, or is another zone's.
    """
    zone_home = ZoneHome(zone)
    reader = Owner(0, Owner.of(zone_home.user).gid)
    source = profiles / f"{zone}.yaml"
    if not source.is_file():
        raise PermanentError(
            f"The zone {zone} has no cluster profile.", where=str(source), remedy="Give the folder with --profiles."
        )
    profile = load_profile(source)
    if profile.zone != zone:
        raise PermanentError(f"The profile is for the zone {profile.zone}, not {zone}.", where=str(source))
    # The shipped profiles name the default network; SEKISHO_NETWORK moves the whole installation.
    moved = source.read_bytes().replace(b"10.77.", f"{prefix()}.".encode())
    write_file(zone_home.profile, moved, 0o640, reader)
    files = {path.relative_to(policies): path for path in policy_files(policies)}
    lock = home() / "images" / IMAGES_LOCK
    if lock.is_file():
        files[Path(IMAGES_LOCK)] = lock
    for name, path in files.items():
        if name.parent != Path():
            ensure_folder(zone_home.policies / name.parent, 0o750, reader)
        write_file(zone_home.policies / name, path.read_bytes(), 0o640, reader)
    for path in policy_files(zone_home.policies):
        if path.relative_to(zone_home.policies) not in files:
            # A rule that was taken away must not stay in force.
            path.unlink()
    return profile


def write_tokens() -> None:
    """Make the demo developer's push token, once; the receiver keeps only its sha256."""
    ensure_folder(console(), 0o700, Owner())
    token_path = console() / "developer-token"
    tokens_path = ZoneHome(Zone.BUILD).root / "tokens.json"
    if tokens_path.exists():
        return
    secret, token = new_token(_DEVELOPER, ("*",))
    write_file(token_path, secret + "\n", 0o600, Owner())
    reader = Owner(0, Owner.of(GIT_USER).gid)
    write_file(tokens_path, Tokens(tokens=(token,)).model_dump_json(indent=2) + "\n", 0o640, reader)
