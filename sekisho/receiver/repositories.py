"""The bare repositories of the build zone, their settings and hooks, and the queue of pushed commits."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from pydantic import Field

from sekisho.errors import PermanentError, Refusal, TemporaryError
from sekisho.model import COMMIT_PATTERN, NAME_PATTERN, Document

HOOKS = ("pre-receive", "post-receive")
_NAME = re.compile(NAME_PATTERN)
_MAX_REPOSITORIES = 2000
_GIT_SECONDS = 30
MEMORY = 1536 << 20
"""Bytes of address space of one git process. The worst that is no attack is a file as large as a commit may be, pushed
as what changed in it: the file as it was and as it is, 512 MiB each, and what git needs besides."""
_ALLOCATION = "600m"
"""The largest piece of memory that git may ask for: above the largest file, below what a few bytes of a pack can
say that they unpack to."""
_CONFIGURATION = {
    "safe.directory": "*",
    # What is larger is read and written piece by piece, not held in memory; a change to such a file is held.
    "core.bigFileThreshold": "16m",
    "core.packedGitLimit": "256m",
    "core.packedGitWindowSize": "32m",
    "core.deltaBaseCacheLimit": "64m",
    # Each thread would have memory of its own, also when the repository is packed anew after a push.
    "pack.threads": "1",
    "pack.windowMemory": "64m",
    "pack.deltaCacheSize": "32m",
}


class QueuedPush(Document):
    """One pushed commit that waits for the zone's process: queue/<app>-<commit>.json."""

    app: str = Field(pattern=NAME_PATTERN)
    commit: str = Field(pattern=COMMIT_PATTERN)
    branch: str
    pushed_by: str


@dataclass(frozen=True)
class Repositories:
    """Repositories under one directory.

    Args:
        root: directory of the repositories, the hooks and the queue.
        max_push: bytes of one pack that a push may bring.
    """

    root: Path
    max_push: int = 128 << 20

    @property
    def hooks(self) -> Path:
        """Directory that every repository takes its hooks from."""
        return self.root / "hooks"

    @property
    def queue(self) -> Path:
        """Directory of pushed commits that wait for the zone's process, which removes each entry it has taken over."""
        return self.root / "queue"

    def prepare(self) -> None:
        """Make the directories and write the hooks. Run it as root first, and the hooks are root's.

        Raises:
            PermanentError: a directory or hook cannot be written.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            if not self.queue.is_dir():
                # The zone's process takes entries away: it is of the root's group, which new directories inherit. No
                # chmod: from somebody outside that group it would take the inheritance away.
                before = os.umask(0o007)
                self.queue.mkdir()
                os.umask(before)
            self._write_hooks()
        except OSError as error:
            raise PermanentError(
                f"The git receiver cannot prepare its directory: {error.strerror}.",
                where=str(error.filename or self.root),
                remedy="sekisho up makes it for the receiver's user.",
            ) from error

    def _write_hooks(self) -> None:
        source = files("sekisho.receiver").joinpath("hook.py").read_text(encoding="utf-8")
        wanted = f"#!{_interpreter()} -IS\n{source}"
        self.hooks.mkdir(exist_ok=True)
        for name in HOOKS:
            path = self.hooks / name
            if path.is_file() and path.read_text(encoding="utf-8") == wanted and os.access(path, os.X_OK):
                continue
            self.hooks.chmod(0o755)
            fresh = self.hooks / f".{name}-{secrets.token_hex(4)}"
            fresh.write_text(wanted, encoding="utf-8")
            fresh.chmod(0o555)
            fresh.replace(path)
        if self.hooks.stat().st_uid == os.geteuid():
            self.hooks.chmod(0o555)

    def path(self, name: str) -> Path:
        """Return the directory of a repository.

        Raises:
            Refusal: the name is not a workload's.
        """
        if not _NAME.fullmatch(name):
            raise Refusal(
                f"{name[:80]!r} is not a repository name.",
                where="git",
                remedy="Use lower-case letters, digits and hyphens, at most 63, for example guestbook.",
            )
        return self.root / f"{name}.git"

    def exists(self, name: str) -> bool:
        """Return whether a repository is there."""
        return (self.path(name) / "HEAD").is_file()

    def ensure(self, name: str) -> Path:
        """Return the directory of a repository, made in one step where it is not there yet.

        Raises:
            Refusal: the name is not a workload's, or there are too many repositories.
            TemporaryError: the disk did not take it.
        """
        path = self.path(name)
        if self.exists(name):
            return path
        if sum(1 for _ in self.root.glob("*.git")) >= _MAX_REPOSITORIES:
            raise Refusal("There are too many repositories here.", where="git", remedy="Ask the platform team.")
        fresh = self.root / f".new-{secrets.token_hex(8)}"
        try:
            self._git("init", "--quiet", "--bare", "--template=", "--shared=0640", "--initial-branch=main", str(fresh))
            with (fresh / "config").open("a", encoding="utf-8") as file:
                file.write(self._settings())
            fresh.rename(path)
        except OSError as error:
            shutil.rmtree(fresh, ignore_errors=True)
            if not self.exists(name):  # else another push was first
                raise TemporaryError(
                    f"The repository cannot be made: {error.strerror}.", where=name, remedy="Free space on the disk."
                ) from error
        return path

    def _settings(self) -> str:
        return f"""
[transfer]
\tfsckObjects = true
[receive]
\tfsckObjects = true
\tmaxInputSize = {self.max_push}
\tadvertisePushOptions = false
\tdenyNonFastForwards = false
[http]
\treceivepack = true
\tgetanyfile = false
[uploadpack]
\tallowAnySHA1InWant = false
[core]
\thooksPath = {json.dumps(str(self.hooks.absolute()))}
\tlogAllRefUpdates = true
[gc]
\tpruneExpire = never
"""

    def _git(self, *arguments: str) -> str:
        try:
            done = subprocess.run(
                git_command(*arguments),
                check=False,
                capture_output=True,
                text=True,
                timeout=_GIT_SECONDS,
                env=git_environment(),
                umask=0o027,
            )
        except subprocess.TimeoutExpired as error:
            raise TemporaryError("git took too long.", where="git receiver") from error
        if done.returncode:
            raise OSError(done.returncode, done.stderr.strip()[-300:])
        return done.stdout

    # -- the queue ---------------------------------------------------------------------------------------------

    def queued(self) -> tuple[QueuedPush, ...]:
        """Return the pushed commits that nobody took over yet, oldest first; unreadable entries are left out."""
        found = []
        for path in self.queue.glob("*.json"):
            try:
                found.append((path.stat().st_mtime_ns, path.name, QueuedPush.parse(path.read_bytes(), where=str(path))))
            except (OSError, Refusal):
                continue
        return tuple(push for _, _, push in sorted(found, key=lambda item: item[:2]))

    def done(self, push: QueuedPush) -> None:
        """Take a commit out of the queue, once the zone's process has it for good."""
        (self.queue / f"{push.app}-{push.commit}.json").unlink(missing_ok=True)

    def reconcile(self, *, stored_after: float = 60.0, forget_after: float = 3600.0) -> int:
        """Queue what was stored but not queued because its push was killed in between; return how many.

        Args:
            stored_after: age in seconds from which on a noted commit that a branch holds counts as orphaned.
            forget_after: age in seconds after which a noted commit that no branch holds is forgotten.
        """
        rescued = 0
        for path in self.queue.glob("*.intent"):
            try:
                push = QueuedPush.parse(path.read_bytes(), where=str(path))
                age = time.time() - path.stat().st_mtime
                if age >= stored_after and self._holds(push):
                    path.replace(self.queue / f"{push.app}-{push.commit}.json")
                    rescued += 1
                elif age >= forget_after:
                    path.unlink()
            except (OSError, Refusal, TemporaryError):
                continue
        return rescued

    def _holds(self, push: QueuedPush) -> bool:
        try:
            repository = str(self.path(push.app))
            refs = self._git("-C", repository, "for-each-ref", "--contains", push.commit, "--count=1", "refs/heads/")
        except OSError:
            return False
        return bool(refs.strip())


def git_command(*arguments: str, memory: int = MEMORY) -> list[str]:
    """Return the command of a git that takes so many bytes of address space at most, as does each that it starts."""
    return ["prlimit", f"--as={memory}", "git", *arguments]


def git_environment(**extra: str) -> dict[str, str]:
    """Return the whole environment of a git process: nothing of ours, the repository's configuration and our limits."""
    settings: dict[str, str] = {}
    for number, (name, value) in enumerate(_CONFIGURATION.items()):
        settings |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
    return {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "HOME": "/nonexistent",
        "LC_ALL": "C.UTF-8",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_COUNT": str(len(_CONFIGURATION)),
        **settings,
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_ALLOC_LIMIT": _ALLOCATION,
        **extra,
    }


def _interpreter() -> str:
    return shutil.which("python3", path="/usr/bin:/usr/local/bin") or sys.executable
