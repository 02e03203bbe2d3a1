"""The example workload as a developer's git repository, pushed from the developers' network."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
from pathlib import Path

from sekisho.embedded.netns import in_zone
from sekisho.errors import PermanentError
from sekisho.zones import Network, Port, Zone, address, home

_GIT_LIMIT_SECONDS = 600
_WHEN = "2026-01-01T00:00:00+00:00"
_NOT_COPIED = shutil.ignore_patterns("__pycache__", ".pytest_cache", ".venv", "*.pyc")


def prepare(app: str, source: Path) -> tuple[Path, str]:
    """Commit the example's files into a repository of the demo; return the repository and the commit.

    The author and the time are fixed, so the same files are the same commit and a second demo is warm.

    Args:
        app: name of the workload.
        source: folder of the example.
    """
    if not (source / "score.yaml").is_file():
        raise PermanentError("That is no workload: it has no score.yaml.", where=str(source))
    folder = home() / "console" / "work" / app
    if not (folder / ".git").is_dir():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _git(folder, "init", "--quiet", "--initial-branch=main")
    for entry in folder.iterdir():
        if entry.name != ".git":
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    shutil.copytree(source, folder, dirs_exist_ok=True, symlinks=True, ignore=_NOT_COPIED)
    _git(folder, "add", "--all", "--force")
    if _git(folder, "status", "--porcelain"):
        _git(folder, "commit", "--quiet", "--message", f"{app}: the example workload")
    return folder, _git(folder, "rev-parse", "HEAD").strip()


def push(app: str, folder: Path, *, branch: str = "main") -> subprocess.Popen[str]:
    """Start `git push` from the developers' network; the gatekeeper's words come on the process's output."""
    url = f"http://{address(Zone.BUILD)}:{Port.GIT}/{app}.git"
    command = [*in_zone(Network.DEVELOPER), "git", "-C", str(folder), "push", url, f"HEAD:refs/heads/{branch}"]
    environment = _environment() | token_environment()
    return subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def token_environment() -> dict[str, str]:
    """Return git's configuration with the demo developer's token, which must not stand on a command line."""
    token_file = home() / "console" / "developer-token"
    if not token_file.is_file():
        raise PermanentError("There is no developer token.", where=str(token_file), remedy="Run `sekisho up`.")
    basic = base64.b64encode(f"developer:{token_file.read_text(encoding='utf-8').strip()}".encode()).decode()
    return {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "http.extraHeader",
        "GIT_CONFIG_VALUE_0": f"Authorization: Basic {basic}",
    }


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        env=_environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        timeout=_GIT_LIMIT_SECONDS,
    )  # fmt: skip
    if done.returncode:
        raise PermanentError(f"git {arguments[0]} failed: {done.stderr.strip()[:400]}", where=str(folder))
    return done.stdout


def _environment() -> dict[str, str]:
    person = {"NAME": "Demo Developer", "EMAIL": "developer@example.com", "DATE": _WHEN}
    who = {f"GIT_{role}_{field}": value for role in ("AUTHOR", "COMMITTER") for field, value in person.items()}
    return {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "HOME": str(home() / "console"),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_TERMINAL_PROMPT": "0",
        **who,
    }
