"""Release bundles of the build zone, kept by digest once they verify."""

from __future__ import annotations

import base64
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sekisho.canonical import Digest, hex_of, parse_digest
from sekisho.errors import Refusal, VerificationError
from sekisho.keys import TrustRoot
from sekisho.model import Release
from sekisho.releases import ReleaseBundle, verify_bundle
from sekisho.releases.artifact import release_parts
from sekisho.witness import WitnessBook

_REMEMBERED = 256


def verified_release(data: bytes, digest: str, trust: TrustRoot, witness: WitnessBook | None = None) -> Release:
    """Verify a bundle and return the release in it.

    Args:
        data: the bundle's bytes.
        digest: the release that it must be the bundle of.
        trust: whose keys count.
        witness: when ops saw what; what verifies is noted there.

    Raises:
        VerificationError: a rule does not hold, or it is another release's bundle.
        Refusal: it is no release bundle.
    """
    now = int(time.time())
    report = verify_bundle(data, trust, at=now, witnessed=witness.times() if witness else None)
    if not report.ok:
        failed = report.failures[0]
        raise VerificationError(f"The release does not verify: {failed.name}: {failed.detail}", where=digest)
    if report.release != digest:
        raise VerificationError("The bundle is of another release.", where=report.release)
    bundle = ReleaseBundle.parse(data)
    config, _ = release_parts(base64.b64decode(bundle.documents[digest]), where=digest)
    release = Release.parse(base64.b64decode(bundle.documents[config.digest]), where=digest)
    if witness is not None:
        witness.note((bundle.offer.summary, *(evidence.manifest for evidence in release.evidence)), now)
    return release


class Bundles:
    """Gives bundles by digest.

    A bundle that does not verify is handed on, since whoever asked verifies it too and should see why it fails, but it
    is never kept: the next one who asks gets a fresh copy.

    Args:
        directory: where verified bundles are kept; can be made again.
        fetch: gets a bundle from the build zone's feed.
        verify: `verified_release` under the trust root of ops.
    """

    def __init__(self, directory: Path, fetch: Callable[[str], bytes], verify: Callable[[bytes, str], Release]) -> None:
        self._directory = directory
        self._fetch = fetch
        self._verify = verify
        self._releases: dict[str, dict[str, Any]] = {}

    def get(self, digest: Digest | str) -> bytes:
        """Return the bundle of a release.

        Raises:
            Refusal: the build zone does not offer it.
            TemporaryError: the build zone cannot be reached.
        """
        path = self._path(digest)
        try:
            return path.read_bytes()
        except OSError:
            data = self._fetch(digest)
        if self._checked(data, digest) is not None:
            self._keep(path, data)
        return data

    def release(self, digest: Digest | str) -> dict[str, Any] | None:
        """Return the release document of a bundle that verifies, else None."""
        return self._releases.get(digest) or self._checked(self.get(digest), digest)

    def _checked(self, data: bytes, digest: str) -> dict[str, Any] | None:
        try:
            release = self._verify(data, digest).model_dump(mode="json")
        except Refusal:
            return None
        if len(self._releases) >= _REMEMBERED:
            self._releases.pop(next(iter(self._releases)), None)
        self._releases[digest] = release
        return release

    def _path(self, digest: str) -> Path:
        return self._directory / f"{hex_of(parse_digest(digest))}.json"

    def _keep(self, path: Path, data: bytes) -> None:
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self._directory, delete=False) as file:
                file.write(data)
            Path(file.name).replace(path)
        except OSError:  # a cache that cannot be written costs time, nothing else
            return
