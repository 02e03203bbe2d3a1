"""`sekisho keys`: whose keys count, rotation, revocation."""

from __future__ import annotations

import getpass
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from sekisho.cli.moments import moment_of
from sekisho.cli.output import emit_json, note, say, table
from sekisho.embedded import keyring
from sekisho.errors import UsageError
from sekisho.keys import Role, TrustedKey
from sekisho.zones import Zone

_SHOWN = 16
_KEY = re.compile(r"[0-9a-f]{6,64}")
_SPAN = re.compile(r"([1-9][0-9]{0,4})([dh])")
_SECONDS = {"d": 86_400, "h": 3_600}


def list_keys(trust: Path | None, *, as_json: bool) -> None:
    """List the keys of the trust roots here, or of one file."""
    states = keyring.key_states(_roots(trust))
    if as_json:
        emit_json(
            [
                {**state.key.model_dump(mode="json"), "roots": list(state.roots), "signs_here": state.signs}
                for state in states
            ]
        )
        return
    total = len(_roots(trust))
    rows = [
        (
            state.key.key_id[:_SHOWN],
            state.key.role + (f" of {state.key.zone}" if state.key.zone else ""),
            _word(state.key),
            "signs" if state.signs else "-",
            "all" if len(state.roots) == total else ", ".join(Path(path).parent.parent.name for path in state.roots),
        )
        for state in states
    ]
    table(("key", "role", "counts", "here", "trusted by"), rows)


def rotate(role: str, zone: str, overlap: str, *, as_json: bool) -> None:
    """Make a role's key anew."""
    if role not in get_args(Role):
        raise UsageError(f"{role[:40]!r} is not a role.", remedy=f"One of {', '.join(get_args(Role))}.")
    holder = _zone(role, zone)
    span = _SPAN.fullmatch(overlap.strip())
    if span is None:
        raise UsageError(f"{overlap[:40]!r} is not a span of time.", remedy="Write it as 30d or 12h.")
    change = keyring.rotate(
        role,  # type: ignore[arg-type]  # checked above
        holder,
        now=int(time.time()),
        overlap=int(span[1]) * _SECONDS[span[2]],
        by=_caller(),
    )
    if as_json:
        emit_json(change.model_dump(mode="json"))
        return
    say(f"New {role} key {change.successor[:_SHOWN]} in zone {holder}, trusted by {len(change.roots)} zones here.")
    say(f"The old key {change.key_id[:_SHOWN]} counts for what a zone first sees until {_when(change.until)}.")
    note("Now: `sekisho up` starts what signs with it anew. Zones on other machines need the new public key first:")
    note("`sekisho keys list --json` has the entry for their trust/root.json.")


def revoke(key: str, since: str, reason: str, trust: Path | None, *, as_json: bool) -> None:
    """Take a key's word back from a time on."""
    name = key.strip().lower().removeprefix("sha256:")
    if not _KEY.fullmatch(name):
        raise UsageError(f"{key[:80]!r} is not a key's id.", remedy="Give at least its first 6 digits.")
    if not reason.strip():
        raise UsageError("A revocation needs a reason.", remedy="--reason 'the laptop was stolen'")
    moment = 0 if since.strip() in {"0", "always"} else moment_of(since)
    change = keyring.revoke(
        name, _roots(trust), revoked_from=moment, reason=reason.strip(), now=int(time.time()), by=_caller()
    )
    signing = any(state.signs and state.key.key_id == change.key_id for state in keyring.key_states(_roots(trust)))
    if as_json:
        emit_json({**change.model_dump(mode="json"), "signs_here": signing})
        return
    what = "Nothing" if moment == 0 else f"What a zone first saw before {_when(moment)}, and nothing else,"
    say(f"{change.role} key {change.key_id[:_SHOWN]} is revoked in {len(change.roots)} trust roots.")
    say(f"{what} that it signed counts any longer.")
    if signing:
        note(f"A zone here still signs with it: sekisho keys rotate {change.role}")
    note("Zones on other machines: `sekisho keys revoke` there as well, now.")


def _roots(trust: Path | None) -> Sequence[Path]:
    return (trust,) if trust is not None else keyring.root_paths()


def _zone(role: str, zone: str) -> Zone:
    if role != "zone":
        return Zone.BUILD
    try:
        return Zone(zone)
    except ValueError as error:
        raise UsageError(
            f"{zone[:40]!r} is not a zone." if zone else "Each zone has a key of its own.",
            remedy=f"--zone, one of {', '.join(Zone)}.",
        ) from error


def _word(key: TrustedKey) -> str:
    if key.revoked_from is not None:
        return "never, revoked" if key.revoked_from == 0 else f"before {_when(key.revoked_from)}, revoked"
    return "yes" if key.not_after is None else f"until {_when(key.not_after)}"


def _when(at: int | None) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at or 0))


def _caller() -> str:
    return os.environ.get("SUDO_USER") or getpass.getuser()
