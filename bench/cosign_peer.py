"""The peer: `cosign verify` as a process, and beside it this line's own fetching and verifying of a whole release.

    python bench/cosign_peer.py http://127.0.0.1:5000 apps/shop@sha256:... verifier.pub

cosign comes from `python -m sekisho.tools ensure --group test`. Both work from a registry over new connections. cosign
checks one signature of one image; the line checks the release, its manifests and image, and all of its statements,
each under its role.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from sekisho.keys import TrustRoot
from sekisho.model import Offer
from sekisho.registry import Registry
from sekisho.releases import verify_release
from sekisho.tools import tool

_SECONDS = 60


def cosign_seconds(url: str, reference: str, key: Path, *, bundle: bool = True) -> float:
    """Return the seconds that one `cosign verify` takes, from start to end of the process.

    Args:
        url: the registry, `http://host:port`.
        reference: `<repository>@sha256:<hex>` in it.
        key: the public key, PEM.
        bundle: look for bundles; else for the older `.sig` tag.

    Raises:
        RuntimeError: cosign says no; a figure of a refusal is none.
        PermanentError: cosign is not there; says how to get it.
    """
    return _cosign("verify", url, reference, key, f"--new-bundle-format={'true' if bundle else 'false'}")


def _cosign(command_name: str, url: str, reference: str, key: Path, *options: str) -> float:
    command = [
        str(tool("cosign")), command_name, "--key", str(key.resolve()), *options,
        "--insecure-ignore-tlog=true", "--allow-http-registry", f"{url.rpartition('//')[2]}/{reference}",
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as home:
        environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": home}
        started = time.monotonic()
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=_SECONDS)
        seconds = time.monotonic() - started
    if run.returncode:
        raise RuntimeError(f"cosign {command_name} says no: {run.stderr.strip()[-500:]}")
    return seconds


def cosign_all_seconds(url: str, subjects: Mapping[str, tuple[str, Path]]) -> float:
    """Return the seconds that cosign takes for all statements of a release, a process each.

    Args:
        url: the registry, `http://host:port`.
        subjects: for each predicate type, the `<repository>@sha256:<hex>` that it is about, and the key's file.

    Raises:
        RuntimeError: cosign says no.
        PermanentError: cosign is not there; says how to get it.
    """
    return sum(
        _cosign("verify-attestation", url, reference, key, "--type", kind, "--new-bundle-format=true")
        for kind, (reference, key) in subjects.items()
    )


def line_seconds(url: str, offer: Offer, trust: TrustRoot, *, at: int | None = None) -> float:
    """Return the seconds in which this line fetches and verifies a release with all of its statements.

    Args:
        url: the registry, `http://host:port`.
        offer: the release.
        trust: the trust root.
        at: the time that the keys must be valid at; now when None.

    Raises:
        VerificationError: it does not verify.
    """
    registry = Registry(url)
    started = time.monotonic()
    verify_release(registry, offer, trust, at=at)
    seconds = time.monotonic() - started
    registry.close()
    return seconds


def main() -> None:
    """Time `cosign verify` of what is named on the command line."""
    url, reference, key = sys.argv[1:4]
    for bundle in (True, False):
        times = [cosign_seconds(url, reference, Path(key), bundle=bundle) for _ in range(10)]
        form = "bundle" if bundle else "legacy"
        print(f"cosign verify, {form}: median {statistics.median(times):.3f} s, at most {max(times):.3f} s")


if __name__ == "__main__":
    main()
