"""What others wrote and the tests run beside ours: cosign, crane, and registries of several kinds.

`python -m sekisho.tools ensure --group test` brings them; scripts/test does.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from sekisho.errors import PermanentError
from sekisho.keys import FileSigner
from sekisho.tools import tool

WITH_API = ("cue", "crane-api")
"""Registries with the referrers API. CUE's answers OCI-Subject; go-containerregistry's does not, and sorts nothing."""
WITHOUT_API = ("distribution", "crane")
_COMMANDS = {
    "cue": ("referrers-registry", "--implementation", "cue", "--address"),
    "crane-api": ("referrers-registry", "--implementation", "crane", "--address"),
    "crane": ("crane", "registry", "serve", "--address"),
}
OFFLINE = ("--insecure-ignore-tlog=true", "--allow-http-registry")
FORMS = ("bundle", "legacy")


def peer(name: str) -> str:
    """Return the path of a test tool. Without it a test is skipped, but in continuous integration it fails."""
    try:
        return str(tool(name))
    except PermanentError as error:
        found = shutil.which(name)
        if found is not None:
            return found
        if os.environ.get("CI") == "true":
            pytest.fail(f"{error}")
        pytest.skip(f"{error}")


@contextmanager
def running(kind: str) -> Iterator[str]:
    """Run a registry that keeps everything in memory; give its URL."""
    name, *arguments = _COMMANDS[kind]
    binary = peer(name)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    process = subprocess.Popen(
        [binary, *arguments, address], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(200):
            assert process.poll() is None, f"{binary} ended with {process.returncode}"
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", int(address.rpartition(":")[2]))) == 0:
                    break
            time.sleep(0.05)
        else:
            pytest.fail(f"{binary} did not come up in 10 s")
        yield f"http://{address}"
    finally:
        process.kill()
        process.wait()


class Command:
    """A tool that is run in a directory of its own, with nothing of the user's around it."""

    def __init__(self, name: str, folder: Path) -> None:
        self._binary = peer(name)
        self.folder = folder

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        with self.start(*arguments) as process:
            out, err = process.communicate(timeout=120)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start it and do not wait."""
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "COSIGN_PASSWORD": ""}
        return subprocess.Popen(
            [self._binary, *arguments],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def good(self, *arguments: str) -> str:
        """Run it, and expect that it says yes."""
        run = self(*arguments)
        assert run.returncode == 0, run.stderr
        return run.stdout

    def refused(self, *arguments: str) -> str:
        """Run it, and expect that it says no; return why."""
        run = self(*arguments)
        assert run.returncode != 0, run.stdout
        return run.stderr


def write_key(signer: FileSigner, path: Path) -> Path:
    """Write a signer's private key to a file, as other tools and other processes take it."""
    path.touch(mode=0o600)
    path.write_bytes(
        signer._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return path


def form_flag(form: str) -> str:
    """Return cosign's option for one of its two forms."""
    return f"--new-bundle-format={'true' if form == 'bundle' else 'false'}"
