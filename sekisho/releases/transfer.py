"""Moving a release from one registry to another: everything that belongs to it, verified first.

The order is what makes it safe: all documents are fetched to memory and verified; then blobs go over, which nothing
points at; then manifests, the image and its evidence before the release, the release before its summary. A transfer
that breaks off leaves blobs and unlisted manifests, which the next attempt uses, and never a release that is found.
"""

from __future__ import annotations

import fcntl
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from sekisho.canonical import Digest, digest_of, hex_of
from sekisho.cosign_legacy import attach_legacy, copy_legacy_signatures
from sekisho.errors import PermanentError, VerificationError
from sekisho.evidence import attach_bundle
from sekisho.keys import TrustRoot
from sekisho.model import Offer
from sekisho.oci import EMPTY, OCI_MANIFEST, Manifest
from sekisho.registry import Registry
from sekisho.releases.artifact import release_repository
from sekisho.releases.closure import fetch_closure, statements_of
from sekisho.releases.judgement import judgement_tag
from sekisho.releases.rules import Requirement, VerifiedRelease, verify_closure


def verify_release(
    source: Registry,
    offer: Offer,
    trust: TrustRoot,
    require: tuple[Requirement, ...] = ("verifier",),
    *,
    at: int | None = None,
    witnessed: Mapping[str, int] | None = None,
) -> VerifiedRelease:
    """Fetch and verify an offered release, by the rules of `sekisho.releases.rules`.

    Args:
        source: the registry that holds it.
        offer: which release; untrusted.
        trust: the zone's own trust root.
        require: whose word it needs: `verifier` always, `staging` where the zone says so.
        at: the time that the keys must be valid at for what was not seen before, seconds since the epoch; now when
            None.
        witnessed: when this zone first verified a statement (`sekisho.witness`).

    Raises:
        VerificationError: a rule does not hold, or a layer of the image is not there.
        Refusal: a document is malformed.
        TemporaryError: the registry cannot be reached.
    """
    closure = fetch_closure(source, offer)
    moment = int(time.time()) if at is None else at
    verified = verify_closure(offer, closure, trust, require, at=moment, witnessed=witnessed)
    image = verified.release.image
    for layer in image.layers:
        if not source.has_blob(image.repository, Digest(layer.digest)):
            raise VerificationError("A layer of the image is missing.", where=f"{source.url} {layer.digest}")
    return verified


def copy_release(
    source: Registry, target: Registry, verified: VerifiedRelease, workdir: Path, *, trust: TrustRoot, at: int
) -> None:
    """Copy a verified release with its image and all evidence. Safe to repeat; goes on where it stopped.

    Layers of the standard base are offered to the target under `standard/<base>` as well, so that the next app on
    the same base finds them there.

    Args:
        source: the registry to pull from; only read.
        target: the zone's own registry.
        verified: the release; verification is behind us.
        workdir: directory for layers on their way; made if missing, this release's part emptied at the end.
        trust: whose key cosign's legacy signature must have, to be copied.
        at: the time that the key must be valid at, seconds since the epoch.

    Raises:
        VerificationError: the source gave other bytes than the digests say.
        TemporaryError: a registry cannot be reached; what arrived is kept.
    """
    release, offer = verified.release, verified.offer
    images = release.image.repository
    with _workspace(workdir, offer.release) as folder:
        _copy_layers(source, target, verified, folder)
        _put_manifest(target, images, verified, release.image.digest)
        _put_referrers(target, images, verified, *(evidence.manifest for evidence in release.evidence))
        repository = release_repository(release.app)
        tag = f"release-{release.revision.commit}"
        _put_manifest(target, repository, verified, offer.release, tag=tag)
        if verified.judged:
            _put_manifest(target, repository, verified, verified.judged, tag=judgement_tag(verified.judged))
        _put_referrers(target, repository, verified, *statements_of(offer))
        # For cosign the summary stands beside the image too, as in the zone that sealed it.
        summary = verified.closure.referrer(offer.summary, "The summary")[1]
        attach_bundle(target, images, Digest(release.image.digest), summary)
        for name, subject in ((images, release.image.digest), (repository, offer.release)):
            copy_legacy_signatures(source, target, name, Digest(subject), trust=trust, at=at)


def is_complete(registry: Registry, verified: VerifiedRelease) -> bool:
    """Return whether a registry lists all referrers of a verified release, so that other tools find them as well."""
    release, offer = verified.release, verified.offer
    images, releases = release.image.repository, release_repository(release.app)
    listed = {item.digest for item in registry.listed_referrers(images, Digest(release.image.digest))}
    listed |= {item.digest for item in registry.listed_referrers(releases, Digest(offer.release))}
    return listed >= {*(Digest(evidence.manifest) for evidence in release.evidence), *statements_of(offer)}


def _copy_layers(source: Registry, target: Registry, verified: VerifiedRelease, folder: Path) -> None:
    image = verified.release.image
    standard = f"standard/{image.base}"
    for layer in image.layers:
        digest = Digest(layer.digest)
        base = layer.kind == "base"
        there = target.has_blob(image.repository, digest)
        if not there and not (base and target.mount_blob(image.repository, digest, standard)):
            file = folder / hex_of(digest)
            source.pull_blob(image.repository, digest, file, size=layer.size)
            target.push_blob(image.repository, file, digest)
            file.unlink()
        if base and not target.has_blob(standard, digest):
            target.mount_blob(standard, digest, image.repository)


def _put_manifest(target: Registry, repository: str, verified: VerifiedRelease, digest: str, *, tag: str = "") -> None:
    data = verified.closure.get(digest, "A manifest")
    manifest = Manifest.parse(data, where=digest)
    config = manifest.config.digest
    target.put_blob(repository, EMPTY if config == digest_of(EMPTY) else verified.closure.get(config, "A config"))
    for layer in manifest.layers:
        if layer.digest in verified.closure.documents:
            target.put_blob(repository, verified.closure.documents[layer.digest])
    target.put_manifest(repository, data, manifest.media_type, tag=tag)


def _put_referrers(target: Registry, repository: str, verified: VerifiedRelease, *digests: str) -> None:
    target.put_blob(repository, EMPTY)
    bundles = []
    for digest in digests:
        subject, bundle = verified.closure.referrer(digest, "A statement")
        target.put_blob(repository, bundle)
        target.put_referrer(repository, verified.closure.get(digest, "A statement"), OCI_MANIFEST)
        bundles.append(bundle)
    attach_legacy(target, repository, subject, *bundles)


@contextmanager
def _workspace(workdir: Path, release: str) -> Iterator[Path]:
    """Give one transfer of one release a directory of its own, so that two at once do not write the same file."""
    folder = workdir / hex_of(release)
    try:
        workdir.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = (workdir / f"{hex_of(release)[:2]}.lock").open("a")
    except OSError as error:
        raise PermanentError(f"The directory for transfers cannot be used: {error}", where=str(workdir)) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder.mkdir(exist_ok=True, mode=0o700)
        yield folder
        shutil.rmtree(folder)
