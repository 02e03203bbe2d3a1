"""`sekisho lock`: the lock that the line resolved for a commit, or a new one, as files to be committed."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from sekisho.canonical import digest_of
from sekisho.cli.moments import moment_of
from sekisho.cli.output import emit_json, note, say, short
from sekisho.cli.reach import build, pushed_commit, trust_file
from sekisho.errors import Refusal, UsageError
from sekisho.keys import TrustRoot, load_trust
from sekisho.lock_files import write_lock_files
from sekisho.programs import program, surroundings
from sekisho.releases.locks import CommitLock, open_lock

_SCORE = "score.yaml"
_CODES = (0, 1, 2)


@dataclass(frozen=True)
class Options:
    """How it is asked."""

    into: Path = Path()
    """The workload's folder in the working copy."""
    force: bool = False
    """Replace files that are different."""
    trust: Path | None = None
    at: str = "now"
    who: str = ""
    """Who asks the dev zone; empty for the login name."""


def lock(subject: str, options: Options, *, as_json: bool) -> int:
    """Write a lock into a working copy; returns the exit code.

    Args:
        subject: `app@commit` for what the line resolved; a folder, to have its lock made in the dev zone.
        options: how.
        as_json: print one JSON document.

    Raises:
        UsageError: the subject is neither, or there is no working copy to write into.
        Refusal: the line resolved no lock for the commit, or another file stands there.
        VerificationError: the lock is not the one that the builder signed for.
        TemporaryError: the build zone cannot be reached.
    """
    folder = Path(subject)
    if folder.is_dir():
        return _make(folder, options, as_json=as_json)
    if "@" not in subject:
        raise UsageError(f"There is no folder {subject[:80]!r}.", remedy="Give a workload's folder, or APP@COMMIT.")
    with build() as client:
        app, commit = pushed_commit(client, subject)
        data = client.lock(app, commit)
    trust = _trust(options.trust)
    found = open_lock(data, app, commit, trust, at=moment_of(options.at))
    _check_target(options.into, app, found)
    written = write_lock_files(options.into, found.files, force=options.force)
    if as_json:
        files = [{"path": item.path, "state": item.state, "digest": digest_of(found.files[item.path])}
                 for item in written]  # fmt: skip
        emit_json({"app": app, "commit": commit, "files": files, "verified": trust is not None})
        return 0
    for item in written:
        say(f"{item.path}  {item.state}  {short(digest_of(found.files[item.path]))}")
    say(f"It is what the line resolved for {app} {short(commit)}. Commit it: git add {' '.join(sorted(found.files))}")
    if trust is None:
        note(
            "The digests are those of the commit's provenance, whose signature was not checked: there is no trust root "
            "that you may read here. Name one with --trust."
        )
    return 0


def _make(folder: Path, options: Options, *, as_json: bool) -> int:
    """Have the dev zone make a folder's lock, in a process of the stages' own."""
    command = program("stages.dev.lock", str(folder.resolve()), "--as", options.who)
    command += ["--force"] if options.force else []
    command += ["--json"] if as_json else []
    sys.stdout.flush()
    code = subprocess.run(command, env=surroundings(), check=False).returncode
    return code if code in _CODES else 1


def _trust(given: Path | None) -> TrustRoot | None:
    """Return the trust root to verify under; None where none was named and there is none to read here."""
    try:
        return load_trust(trust_file(given))
    except UsageError:
        return None


def _check_target(folder: Path, app: str, found: CommitLock) -> None:
    if (folder / _SCORE).is_file():
        return
    place = "at the top" if found.folder == "." else f"in {found.folder}/"
    raise Refusal(
        f"This is not the folder of a workload: there is no {_SCORE}.",
        where=str(folder.resolve()),
        remedy=f"Name it with --into; the repository of {app} has it {place}.",
    )
