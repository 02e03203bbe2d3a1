"""`sekisho why`: the judgement of a release or of a commit, judged again in a process of its own."""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from sekisho.cli.moments import moment_of
from sekisho.cli.reach import build, pushed_commit, trust_file
from sekisho.cli.releases import bundle
from sekisho.errors import PermanentError
from sekisho.programs import program, surroundings

_YES_OR_NO = (0, 1, 2)


@dataclass(frozen=True)
class Options:
    """How it is asked."""

    trust: Path | None = None
    at: str = "now"
    policies: Path | None = None
    """New folder for the policies of then."""
    save: Path | None = None
    """File for what was fetched."""


def why(subject: str, options: Options, *, as_json: bool) -> int:
    """Run the stages' own replay and return its exit code.

    Raises:
        UsageError: the subject is no release, no commit and no file.
        Refusal: nobody has it.
        TemporaryError: who has it cannot be reached.
    """
    path, about = Path(subject), ""
    with tempfile.TemporaryDirectory(prefix="sekisho-why-") as name:
        if not path.is_file():
            about, data = _fetch(subject)
            path = Path(name) / "judged.json"
            path.write_bytes(data)
            if options.save is not None:
                _save(options.save, data)
        command = program("stages.why", str(path.resolve()), "--trust", str(trust_file(options.trust)))
        command += ["--about", about, "--at", str(moment_of(options.at)), *(["--json"] if as_json else [])]
        command += ["--policies", str(options.policies)] if options.policies else []
        code = subprocess.run(command, env=surroundings(), check=False).returncode
    return code if code in _YES_OR_NO else 1


def _fetch(subject: str) -> tuple[str, bytes]:
    """Return what the file must be about, and the file: of a release from ops, of a commit from the build zone."""
    if "@" not in subject:
        return bundle(subject)
    with build() as client:
        app, commit = pushed_commit(client, subject)
        return f"{app}@{commit}", client.judgement(app, commit)


def _save(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise PermanentError(f"The file cannot be written: {error.strerror}.", where=str(path)) from error
