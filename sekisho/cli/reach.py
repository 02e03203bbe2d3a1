"""Where ops and the build zone are, and what a digest's beginning stands for."""

from __future__ import annotations

import os
import re
from pathlib import Path

from sekisho.clients import FeedClient, OpsClient
from sekisho.errors import Refusal, UsageError
from sekisho.zones import Port, Zone, ZoneHome, address

_PREFIX = re.compile(r"(?:sha256:)?([0-9a-f]{6,64})")
_COMMIT = re.compile(r"([a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)@([0-9a-f]{6,40})")
_FULL = 64
_FULL_COMMIT = 40


def ops() -> OpsClient:
    """Return a client of ops: SEKISHO_OPS, else ops of this machine."""
    return OpsClient(os.environ.get("SEKISHO_OPS") or f"http://{address(Zone.OPS)}:{Port.OPS}")


def build() -> FeedClient:
    """Return a client of the build zone's pages: SEKISHO_BUILD, else the build zone of this machine."""
    return FeedClient(os.environ.get("SEKISHO_BUILD") or f"http://{address(Zone.BUILD)}:{Port.FEED}")


def trust_file(given: Path | None) -> Path:
    """Return the trust root to verify under: the one that was given, else that of ops on this machine.

    Raises:
        UsageError: none was given and there is none: nothing is ever verified under no trust root.
    """
    path = given or ZoneHome(Zone.OPS).trust / "root.json"
    if given is None and not os.access(path, os.R_OK):
        raise UsageError(
            "There is no trust root that you may read here.",
            where=str(path),
            remedy="Name one with --trust; the platform team hands it out (docs/keys.md).",
        )
    return path


def pushed_commit(client: FeedClient, subject: str) -> tuple[str, str]:
    """Return the app and the whole commit of APP@COMMIT, asking the build zone where digits are missing.

    Raises:
        UsageError: it is not APP@COMMIT.
        Refusal: no commit, or more than one, begins so.
        TemporaryError: the build zone cannot be reached.
    """
    found = _COMMIT.fullmatch(subject.strip())
    if found is None:
        raise UsageError(f"{subject[:80]!r} is not APP@COMMIT.", remedy="Give at least 6 digits of the commit.")
    app, commit = found[1], found[2]
    if len(commit) < _FULL_COMMIT:
        known = [str(item.get("commit")) for item in client.commits(app, prefix=commit)]
        commit = only(known, commit, "commit", where="build", remedy="See `git log`, and give all 40 digits.")
    return app, commit


def digest_prefix(text: str, what: str) -> str:
    """Return `sha256:` and the digits that were given.

    Raises:
        UsageError: it is no digest and no beginning of one.
    """
    found = _PREFIX.fullmatch(text.strip().lower())
    if found is None:
        raise UsageError(
            f"{text[:80]!r} is not the digest of a {what}.",
            remedy="Give sha256:<64 hexadecimal digits>, or at least the first 6 digits.",
        )
    return f"sha256:{found[1]}"


def is_full(digest: str) -> bool:
    """Return whether a digest is whole."""
    return len(digest.removeprefix("sha256:")) == _FULL


def only(candidates: list[str], prefix: str, what: str, *, where: str = "ops", remedy: str = "") -> str:
    """Return the one digest, or commit, that begins with `prefix`.

    Raises:
        Refusal: there is none, or more than one.
    """
    found = sorted({digest for digest in candidates if digest.startswith(prefix)})
    if len(found) == 1:
        return found[0]
    if not found:
        remedy = remedy or f"List them: sekisho {_LISTS[what]}."
        raise Refusal(f"No {what} begins with {prefix}.", where=where, remedy=remedy)
    raise Refusal(f"{len(found)} {what}s begin with {prefix}.", where=", ".join(found[:5]), remedy="Give more digits.")


_LISTS = {"release": "releases", "plan": "plan APP --zone ZONE"}
