"""How a release is stored: an OCI artifact whose every byte follows from the release.

The manifest's artifact type and config are `application/vnd.sekisho.release.v1+json` (the Release, canonical), its
one layer is `application/vnd.sekisho.manifests.v1+json` (the Manifests, canonical). It has no timestamp and no other
annotation than the commit, so the same release has the same digest wherever and whenever it is made.
"""

from __future__ import annotations

from typing import Any

from sekisho import __version__
from sekisho.canonical import Digest, digest_of, hex_of
from sekisho.errors import PermanentError, VerificationError
from sekisho.model import IMAGE_HOST, Release
from sekisho.oci import OCI_MANIFEST, Descriptor, Manifest, make_manifest
from sekisho.registry import Registry
from sekisho.releases.judgement import SLSA_VERSION, judgement_input, time_of
from sekisho.statements import SUMMARY, Statement, Subject

RELEASE_TYPE = "application/vnd.sekisho.release.v1+json"
MANIFESTS_TYPE = "application/vnd.sekisho.manifests.v1+json"
CONFIG_LIMIT = 4 << 20
MANIFESTS_LIMIT = 16 << 20

VERIFIER = "https://sekisho.dev/verifiers/gatekeeper/v1"
POLICY = "https://sekisho.dev/policies/v1"


def release_repository(app: str) -> str:
    """Return the repository of an app's releases."""
    return f"releases/{app}"


def image_repository(app: str) -> str:
    """Return the repository of an app's images."""
    return f"apps/{app}"


def release_uri(app: str, digest: str) -> str:
    """Return a release's zone-neutral name."""
    return f"{IMAGE_HOST}/{release_repository(app)}@{digest}"


def release_manifest(release: Release, manifests: bytes, *, inline: bool = True) -> bytes:
    """Return the OCI manifest of a release: a function of its two parts and nothing else.

    Args:
        release: the release.
        manifests: the canonical bytes of its Manifests.
        inline: whether small parts stand in it as well; releases of before that have them as blobs alone.
    """
    return _manifest(release.canonical(), manifests, release.revision.commit, inline=inline)


def is_release_manifest(data: bytes, release: Release, manifests: bytes) -> bool:
    """Return whether these bytes are exactly what a release and its manifests make, in either form."""
    config, commit = release.canonical(), release.revision.commit
    return any(data == _manifest(config, manifests, commit, inline=inline) for inline in (True, False))


def _manifest(config: bytes, manifests: bytes, commit: str, *, inline: bool) -> bytes:
    return make_manifest(
        Descriptor.of(config, RELEASE_TYPE, inline=inline),
        (Descriptor.of(manifests, MANIFESTS_TYPE, inline=inline),),
        artifact_type=RELEASE_TYPE,
        annotations={"org.opencontainers.image.revision": commit},
    )


def put_release(registry: Registry, release: Release, manifests: bytes) -> Digest:
    """Store a release, also under the tag `release-<commit>` (a convenience: nothing believes it).

    Args:
        registry: the zone's own registry.
        release: the release.
        manifests: the canonical bytes of its Manifests.

    Returns:
        The digest of the release's manifest: its name.

    Raises:
        PermanentError: `manifests` are not those of the release.
    """
    if digest_of(manifests) != release.manifests:
        raise PermanentError("The manifests are not those that the release names.", where=release.app)
    repository = release_repository(release.app)
    registry.put_blobs(repository, release.canonical(), manifests)
    tag = f"release-{release.revision.commit}"
    return registry.put_manifest(repository, release_manifest(release, manifests), OCI_MANIFEST, tag=tag)


def load_release(registry: Registry, repository: str, digest: Digest) -> tuple[Release, bytes]:
    """Return a release and the canonical bytes of its Manifests. Digests are checked, signatures are not.

    Raises:
        VerificationError: not there, or not a release.
    """
    where = f"{registry.url} {repository}@{digest}"
    raw = registry.get_manifest(repository, digest)
    if raw is None:
        raise VerificationError("There is no such release.", where=where)
    config, layer = release_parts(raw.data, where=where)
    release = Release.parse(registry.get_part(repository, config, limit=CONFIG_LIMIT), where=where)
    manifests = registry.get_part(repository, layer, limit=MANIFESTS_LIMIT)
    if not is_release_manifest(raw.data, release, manifests) or release.manifests != layer.digest:
        raise VerificationError("The release's manifest holds something else than its parts.", where=where)
    return release, manifests


def release_parts(data: bytes, *, where: str = "") -> tuple[Descriptor, Descriptor]:
    """Return the descriptors of a release's config and of its manifests.

    Raises:
        VerificationError: not the OCI manifest of a release.
    """
    manifest = Manifest.parse(data, where=where)
    layers = manifest.layers
    if (manifest.artifact_type, manifest.config.media_type) != (RELEASE_TYPE, RELEASE_TYPE):
        raise VerificationError("This is not a release.", where=where)
    if len(layers) != 1 or layers[0].media_type != MANIFESTS_TYPE:
        raise VerificationError("The release does not hold exactly its manifests.", where=where)
    if manifest.config.size > CONFIG_LIMIT or layers[0].size > MANIFESTS_LIMIT:
        raise VerificationError("The release's documents are too large.", where=where)
    return manifest.config, layers[0]


def summary_statement(
    digest: Digest,
    release: Release,
    *,
    at: int,
    levels: tuple[str, ...],
    judgement: str = "",
    policy_uri: str = POLICY,
) -> Statement:
    """Return the verifier's word about a release: SLSA v1.2's Verification Summary, PASSED.

    Args:
        digest: the release's digest.
        release: the release; its evidence becomes the input attestations, all of them.
        at: when it was sealed, seconds since the epoch.
        levels: SLSA levels that the line claims for the image, for example `SLSA_BUILD_LEVEL_2`.
        judgement: digest of the judgement that let it pass, the last of the inputs; releases sealed before
            judgements were kept have none.
        policy_uri: where the policy can be read; its digest is the release's.
    """
    return Statement(
        subjects=(
            Subject(name=release_repository(release.app), digest=digest),
            Subject(name=release.image.repository, digest=release.image.digest),
        ),
        predicate_type=SUMMARY,
        predicate={
            "verifier": {"id": VERIFIER, "version": {"sekisho": __version__}},
            "timeVerified": time_of(at),
            "resourceUri": release_uri(release.app, digest),
            "policy": {"uri": policy_uri, "digest": {"sha256": hex_of(release.policy)}},
            "inputAttestations": input_attestations(release, judgement),
            "verificationResult": "PASSED",
            "verifiedLevels": list(levels),
            "slsaVersion": SLSA_VERSION,
        },
    )


def input_attestations(release: Release, judgement: str = "") -> list[dict[str, Any]]:
    """Return the descriptors of all evidence of a release and of its judgement, as a summary lists them."""
    inputs = [
        {
            "uri": f"{IMAGE_HOST}/{release.image.repository}@{evidence.manifest}",
            "digest": {"sha256": hex_of(evidence.manifest)},
        }
        for evidence in release.evidence
    ]
    return [*inputs, judgement_input(release_repository(release.app), judgement)] if judgement else inputs
