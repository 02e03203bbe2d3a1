"""`python -m stages.why FILE`: judges again what was judged, from the stored evidence alone, and compares.

The file is a release bundle or a verdict's. First it is verified: every signature and digest, under a trust root. Then
the policies are unpacked, read as the gate read them, and `stages.judge.judge` is run on the stored evidence with the
stored time. Nothing is fetched, and nothing is asked of the zone that judged.

Exit codes: 0 the same verdict, byte for byte; 1 another one, or the file does not verify; 2 wrong use.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sekisho.errors import PermanentError, Refusal, SekishoError, UsageError, VerificationError
from sekisho.keys import TrustRoot, load_trust
from sekisho.model import Judgement, Verdict
from sekisho.oci import read_json
from sekisho.policy_archive import read_archive, unpack_policies
from sekisho.releases.bundle import BUNDLE_FILE_LIMIT, ReleaseBundle, documents_of
from sekisho.releases.closure import Closure
from sekisho.releases.judgement import VerdictBundle, judge_versions, time_of, verify_verdict
from sekisho.releases.rules import verify_closure
from sekisho.verdict_text import clean, verdict_lines
from stages.judge import judge, load_rules

_DIFFERENCES_SHOWN = 20


@dataclass(frozen=True)
class Replay:
    """What judging again gave."""

    verdict: Verdict | None
    """None where it could not be judged again."""
    differences: tuple[str, ...]
    """Empty where it is the stored verdict, byte for byte."""

    @property
    def same(self) -> bool:
        """Whether judging again gave the stored verdict."""
        return not self.differences


@dataclass(frozen=True)
class Judged:
    """A judgement from a file, verified."""

    judgement: Judgement
    policies: bytes
    source: str
    """What vouches for it, for people."""


def replay(judgement: Judgement, policies: bytes) -> Replay:
    """Judge again.

    Args:
        judgement: what was judged, when, and what was said.
        policies: the archive of the policies that were in force.
    """
    said = judgement.verdict
    try:
        with tempfile.TemporaryDirectory(prefix="sekisho-why-") as name:
            unpack_policies(policies, Path(name))
            rules = load_rules(Path(name))
            if rules.policies.digest != said.policy:
                message = (
                    f"The stored policies have the digest {rules.policies.digest}, the verdict names {said.policy}."
                )
                return Replay(None, (message,))
            again = judge(judgement.subject, rules, judgement.at)
    except (Refusal, PermanentError) as error:
        # Also a later version that does not understand the policies of then: neither a yes nor a no.
        return Replay(None, (f"It cannot be judged again: {error}", *_versions(judgement)))
    if again.canonical() == said.canonical():
        return Replay(again, ())
    return Replay(again, (*_differences(said, again), *_versions(judgement)))


def open_file(data: bytes, trust: TrustRoot, *, at: int, expected: str = "") -> Judged:
    """Verify a release bundle or a verdict's file and return the judgement in it.

    Args:
        data: the file.
        trust: whose keys count.
        at: the time that the keys must be valid at, seconds since the epoch.
        expected: the release, or `app@commit`, that it must be about; '' for any.

    Raises:
        Refusal: it is neither, or malformed.
        VerificationError: it does not verify, is about something else, or holds no judgement.
    """
    if len(data) > BUNDLE_FILE_LIMIT:
        raise Refusal(f"The file is larger than {BUNDLE_FILE_LIMIT} bytes.")
    form = read_json(data).get("format")
    if form == VerdictBundle.model_fields["format"].default:
        verdict = VerdictBundle.parse(data)
        _about(f"{verdict.app}@{verdict.commit}", expected)
        judgement, policies = verify_verdict(verdict, documents_of(verdict.documents), trust, at=at)
        return Judged(judgement, policies, "the verifier's summary of this verdict")
    release = ReleaseBundle.parse(data)
    offer = release.offer
    _about(offer.release, expected)
    verified = verify_closure(offer, Closure(documents_of(release.documents)), trust, ("verifier",), at=at)
    if verified.judgement is None:
        raise VerificationError(
            "This release was sealed before judgements were kept: it verifies, but cannot be judged again.",
            where=offer.release,
            remedy="Push its commit again; the line judges it and keeps the judgement.",
        )
    policies = verified.closure.get(verified.judgement.policies.digest, "The archive of the policies")
    return Judged(verified.judgement, policies, f"release {offer.release}, every rule of which holds")


def _about(found: str, expected: str) -> None:
    if expected and found != expected:
        raise VerificationError(
            "The file is about something else than was asked for.", where=found, remedy="Do not trust who gave it."
        )


def _versions(judgement: Judgement) -> tuple[str, ...]:
    now = judge_versions()
    return tuple(
        f"Judged with {name} {was}, judged again with {now.get(name, 'none')}."
        for name, was in sorted(judgement.versions.items())
        if now.get(name) != was
    )


def _differences(said: Verdict, again: Verdict) -> list[str]:
    found = []
    if said.result is not again.result:
        found.append(f"The verdict was {said.result}, judged again it is {again.result}.")
    for word, only in (
        ("Only then", [reason for reason in said.reasons if reason not in again.reasons]),
        ("Only now", [reason for reason in again.reasons if reason not in said.reasons]),
    ):
        found += [f"{word}: {reason.result} {reason.rule}: {reason.message}" for reason in only[:_DIFFERENCES_SHOWN]]
        if len(only) > _DIFFERENCES_SHOWN:
            found.append(f"{word}: {len(only) - _DIFFERENCES_SHOWN} reasons more.")
    if said.notes != again.notes:
        found.append("The notes differ.")
    return found or ["The order of the reasons, or another field of the verdict differs."]


# -- for people --------------------------------------------------------------------------------------------------


def text_of(judged: Judged, replayed: Replay) -> list[str]:
    """Return verdict, what it was judged by, and whether it was the same again, as lines."""
    judgement = judged.judgement
    subject, verdict = judgement.subject, judgement.verdict
    names = sorted(read_archive(judged.policies))
    rows = [
        ("judged", f"{time_of(judgement.at)} by {_named(judgement.versions)}"),
        ("policies", f"{verdict.policy}, {len(names)} files in archive {judgement.policies.digest}"),
    ]
    if subject.scan is not None:
        scan = subject.scan
        rows += [
            ("scanner", f"{scan.scanner.name} {scan.scanner.version}, {scan.scanner.digest}"),
            (
                "advisories",
                f"{scan.database.kind}, of {scan.database.updated_at}{_age(judgement)}, {scan.database.digest}",
            ),
        ]
    if subject.image is not None:
        rows.append(("image", f"{subject.image.repository}@{subject.image.digest}"))
    if subject.manifests is not None:
        rows.append(("manifests", f"{subject.manifests.identity()}, {len(subject.manifests.objects)} objects"))
    rows.append(("signed", judged.source))
    lines = [*verdict_lines(verdict), "", *(f"{name:<11}{clean(value)}" for name, value in rows), ""]
    if replayed.same:
        return [*lines, f"Replayed: the same, byte for byte ({verdict.identity()})."]
    return [*lines, "Replayed: NOT the same.", *(f"  {clean(item)}" for item in replayed.differences)]


def json_of(judged: Judged, replayed: Replay) -> dict[str, Any]:
    """Return the same for programs."""
    judgement = judged.judgement
    return {
        "same": replayed.same,
        "differences": list(replayed.differences),
        "verdict": judgement.verdict.model_dump(mode="json"),
        "replayed": replayed.verdict.model_dump(mode="json") if replayed.verdict else None,
        "at": judgement.at,
        "versions": {"then": judgement.versions, "now": judge_versions()},
        "policies": {
            "digest": judgement.verdict.policy,
            "archive": judgement.policies.digest,
            "files": sorted(read_archive(judged.policies)),
        },
        "scanner": judgement.subject.scan.scanner.model_dump(mode="json") if judgement.subject.scan else None,
        "advisories": judgement.subject.scan.database.model_dump(mode="json") if judgement.subject.scan else None,
        "judgement": judgement.identity(),
    }


def _named(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in sorted(versions.items())) or "an unnamed version"


def _age(judgement: Judgement) -> str:
    scan = judgement.subject.scan
    try:
        updated = dt.datetime.fromisoformat(scan.database.updated_at) if scan else None
        hours = (judgement.at - updated.timestamp()) / 3600 if updated and updated.tzinfo else -1
    except (ValueError, OverflowError):
        return ""
    return f", {hours:.0f} hours old then" if hours >= 0 else ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m stages.why", description=(__doc__ or "").split("\n", maxsplit=1)[0]
    )
    parser.add_argument("file", type=Path, help="a release bundle, or a verdict's file")
    parser.add_argument("--trust", type=Path, required=True, help="the trust root to verify under")
    parser.add_argument("--about", default="", help="what the file must be about: a release's digest, or app@commit")
    parser.add_argument("--at", type=int, default=None, help="the time that the keys must be valid at; now by default")
    parser.add_argument("--policies", type=Path, default=None, help="unpack the policies of then into this new folder")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    options = parser.parse_args(arguments)
    try:
        judged = open_file(
            _read(options.file),
            load_trust(options.trust),
            at=int(time.time()) if options.at is None else options.at,
            expected=options.about,
        )
        if options.policies is not None:
            _unpack(judged.policies, options.policies)
        replayed = replay(judged.judgement, judged.policies)
        lines = text_of(judged, replayed)
        text = json.dumps(json_of(judged, replayed), indent=2, sort_keys=True) if options.json else "\n".join(lines)
    except UsageError as error:
        sys.stderr.write(f"sekisho why: {clean(str(error))}\n")
        return UsageError.exit_code
    except SekishoError as error:
        sys.stderr.write(f"sekisho why: {clean(str(error))}\n")
        return 1
    sys.stdout.write(text + "\n")
    return 0 if replayed.same else 1


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(BUNDLE_FILE_LIMIT + 1)
    except OSError as error:
        raise UsageError(f"The file cannot be read: {error.strerror}.", where=str(path)) from error


def _unpack(policies: bytes, folder: Path) -> None:
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise UsageError(
            f"The folder cannot be made: {error.strerror}.", where=str(folder), remedy="Name one that is not there yet."
        ) from error
    unpack_policies(policies, folder)


if __name__ == "__main__":
    raise SystemExit(main())
