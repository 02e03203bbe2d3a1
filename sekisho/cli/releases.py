"""`sekisho releases`, `show` and `verify`."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from sekisho.canonical import hex_of
from sekisho.cli.moments import moment_of
from sekisho.cli.output import emit_json, say, short, table, when
from sekisho.cli.reach import digest_prefix, is_full, only, ops, trust_file
from sekisho.errors import PermanentError, VerificationError
from sekisho.keys import load_trust
from sekisho.releases import VerificationReport, verify_bundle

_ZONES = ("staging", "production")
_PAGE = 500
"""Releases that ops gives at once."""


def releases(app: str, *, as_json: bool) -> None:
    """List releases."""
    with ops() as client:
        found = client.releases(app)
    if as_json:
        emit_json(found)
        return
    if not found:
        say("No releases yet. A push to the build zone makes the first one.")
        return
    zones = sorted({zone for item in found for zone in item["zones"]} | set(_ZONES), key=_order)
    rows = [
        (item["app"], short(item["digest"]), short(item["commit"]), *(_state(item, zone) for zone in zones))
        for item in found
    ]
    table(("app", "release", "commit", *zones), rows)
    if len(found) >= _PAGE:
        say(f"These are the newest {len(found)}{'' if app else '; name an app for its own'}.")


def show(release: str, *, as_json: bool) -> None:
    """Show one release."""
    with ops() as client:
        found = client.release(resolve(release))
    if as_json:
        emit_json(found)
        return
    say(f"{found['app']}  {found['digest']}")
    document = found.get("release")
    if isinstance(document, dict):
        _show_document(document)
        say(f"why       sekisho why {short(found['digest'])}")
    else:
        say(f"commit    {found['commit']}")
        say("The release's documents cannot be had just now, or do not verify: sekisho verify says which.")
    say()
    states = sorted(found["zones"].items(), key=lambda named: _order(named[0]))
    rows = [(zone, item["state"], when(item["at"]), item["message"]) for zone, item in states]
    table(("zone", "state", "since (UTC)", "message"), rows)


def verify(release: str, trust: Path | None, *, at: str = "now", as_json: bool) -> int:
    """Verify a release from a file or by its digest; 0 when everything holds."""
    path = Path(release)
    wanted, moment = "", moment_of(at)
    if path.is_file():
        data = _read(path)
    else:
        wanted, data = bundle(release)
    root = load_trust(trust_file(trust))
    report = verify_bundle(data, root, at=moment)
    if wanted and report.release != wanted:
        raise VerificationError(
            "The bundle is of another release than was asked for.", where=wanted, remedy="Do not trust this ops."
        )
    if report.ok and wanted:
        _keep(wanted, data)
    if as_json:
        emit_json({**report.model_dump(mode="json"), "keys": len(root.keys)})
    else:
        _show_report(report)
    return 0 if report.ok else 1


def resolve(text: str) -> str:
    """Return the whole digest of a release."""
    prefix = digest_prefix(text, "release")
    if is_full(prefix):
        return prefix
    with ops() as client:
        return only([item["digest"] for item in client.releases(prefix=prefix)], prefix, "release")


def bundle(text: str) -> tuple[str, bytes]:
    """Return a release's whole digest and its bundle; without a word to ops where the bundle is kept already."""
    prefix = digest_prefix(text, "release")
    kept = [f"sha256:{path.stem}" for path in _cache().glob(f"{hex_of(prefix)}*.json")]
    if len(kept) == 1:
        return kept[0], _read(_cache() / f"{hex_of(kept[0])}.json")
    digest = resolve(text)
    with ops() as client:
        return digest, client.bundle(digest)


def _keep(digest: str, data: bytes) -> None:
    directory = _cache()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=directory, delete=False) as file:
            file.write(data)
        Path(file.name).replace(directory / f"{hex_of(digest)}.json")
    except OSError:  # it is fetched again next time
        return


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "sekisho"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise PermanentError(f"The file cannot be read: {error.strerror}.", where=str(path)) from error


def _show_report(report: VerificationReport) -> None:
    say(f"{report.app}  {report.release}  commit {report.commit}")
    for check in report.checks:
        say(f"  {'ok ' if check.ok else 'NO '} {check.name}{f': {check.detail}' if check.detail else ''}")
    say("VERIFIED" if report.ok else "NOT VERIFIED: do not run this release.")


def _show_document(document: dict[str, Any]) -> None:
    revision, image = document["revision"], document["image"]
    say(f"commit    {revision['commit']}  on {revision['branch']}, {when(revision['committed_at'])} UTC")
    say(f"author    {revision['author']}")
    say(f"image     {image['repository']}@{image['digest']}")
    say(f"language  {image['language']} on standard image {image['base']} {short(image['base_digest'])}")
    say(f"manifests {document['manifests']}")
    say(f"policy    {document['policy']}")
    for item in document["evidence"]:
        say(f"evidence  {item['role']}: {item['predicate_type']}")


def _state(item: dict[str, Any], zone: str) -> str:
    state = item["zones"].get(zone)
    return str(state["state"]) if state else "-"


def _order(zone: str) -> tuple[int, str]:
    return (_ZONES.index(zone) if zone in _ZONES else -1, zone)
