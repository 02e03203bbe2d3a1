"""Repositories whose trees are written entry by entry, by real git."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

GIT = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1", "PATH": "/usr/bin:/bin", "HOME": "/nonexistent",
       "GIT_AUTHOR_NAME": "Ada\x1b[31m", "GIT_AUTHOR_EMAIL": "ada@example.com", "GIT_COMMITTER_NAME": "Ada",
       "GIT_COMMITTER_EMAIL": "ada@example.com", "GIT_AUTHOR_DATE": "1760000000 +0000",
       "GIT_COMMITTER_DATE": "1760000001 +0200"}  # fmt: skip


class Repository:
    """A bare repository whose trees are written entry by entry, also such as git itself would not write."""

    def __init__(self, path: Path) -> None:
        self.path = path
        subprocess.run(["git", "init", "-q", "--bare", str(path)], env=GIT, check=True)

    def git(self, *words: str, data: bytes = b"") -> str:
        done = subprocess.run(
            ["git", "-C", str(self.path), *words], input=data, env=GIT, check=True, capture_output=True
        )
        return done.stdout.decode().strip()

    def blob(self, data: bytes) -> str:
        return self.git("hash-object", "-w", "--stdin", data=data)

    def tree(self, *entries: tuple[str, str, str]) -> str:
        """Write a tree; a name may hold bytes that are no UTF-8, as surrogates."""
        raw = b"".join(
            f"{mode} {name}\0".encode("utf-8", "surrogateescape") + bytes.fromhex(sha) for mode, name, sha in entries
        )
        return self.git("hash-object", "-w", "-t", "tree", "--stdin", "--literally", data=raw)

    def commit(self, *entries: tuple[str, str, str]) -> str:
        return self.git("commit-tree", "-m", "one", self.tree(*entries))

    def commit_at(self, time: int, message: str = "one") -> str:
        """Write a commit of one file by somebody whose clock says so."""
        tree = self.tree(("100644", "index.html", self.blob(b"<p>hello")))
        who = f"Ada <ada@example.com> {time} +0000"
        raw = f"tree {tree}\nauthor {who}\ncommitter {who}\n\n{message}\n"
        return self.git("hash-object", "-w", "-t", "commit", "--stdin", "--literally", data=raw.encode())

    def nested(self, depth: int, sha: str, *, mode: str = "40000") -> str:
        """Write a chain of so many trees, the last of which has one entry `d`, and return the first."""
        for _ in range(depth):
            mode, sha = "40000", self.tree((mode, "d", sha))
        return sha


@contextmanager
def ending(seconds: int = 300) -> Iterator[None]:
    """Fail what would never end."""

    def never(*_: object) -> None:
        raise AssertionError("it does not end")

    before = signal.signal(signal.SIGALRM, never)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
