"""Evidence in the forms of older tools: cosign's legacy tags beside an image.

`sha256-<hex>.att` has every statement's DSSE envelope as a layer; `sha256-<hex>.sig` (simple signing) is written by the
verifier alone, and only with a summary that says PASSED. The line itself counts neither: a release names its evidence
by the digests of their referrers (`sekisho.evidence`).

Format: cosign specs/SIGNATURE_SPEC.md, "Storage"; the payload is containers/image's docs/containers-signature.5.md.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence

from sekisho.canonical import Digest, canonical, digest_of, hex_of
from sekisho.errors import PermanentError, Refusal
from sekisho.keys import Role, Signer, TrustRoot
from sekisho.model import IMAGE_HOST
from sekisho.oci import OCI_CONFIG, OCI_MANIFEST, Descriptor, Manifest, make_manifest, read_json
from sekisho.registry import Registry
from sekisho.signing import sign_with
from sekisho.statements import BUNDLE_LIMIT, Statement, envelope_of, peek_statement, verify_envelope

ENVELOPE_TYPE = "application/vnd.dsse.envelope.v1+json"
SIMPLE_SIGNING_TYPE = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE_ANNOTATION = "dev.cosignproject.cosign/signature"
_LAYERS_LIMIT = 256
"""Layers of one tag that are looked at: a flood must not stop the line."""
_PAYLOAD_LIMIT = 1 << 16


def attach_legacy(registry: Registry, repository: str, subject: Digest, *bundles: bytes) -> None:
    """Add the bundles' envelopes to the tag in which older tools look for attestations."""
    layers = []
    for bundle in bundles:
        envelope = canonical(envelope_of(bundle))
        registry.put_blob(repository, envelope)
        annotations = {SIGNATURE_ANNOTATION: "", "predicateType": peek_statement(bundle).predicate_type}
        layers.append(Descriptor(ENVELOPE_TYPE, digest_of(envelope), len(envelope), annotations=annotations))
    _add_layers(registry, repository, _statement_tag(subject), layers)


def legacy_statements(
    registry: Registry,
    repository: str,
    subject: Digest,
    *,
    trust: TrustRoot,
    role: Role,
    predicate_type: str,
    zone: str = "",
    at: int | None = None,
) -> tuple[Statement, ...]:
    """Return the statements under the legacy `.att` tag that verify, in the order of its layers."""
    found = []
    for layer in _legacy_layers(registry, repository, _statement_tag(subject), ENVELOPE_TYPE):
        try:
            envelope = registry.get_blob(repository, layer.digest, limit=BUNDLE_LIMIT)
            statement = verify_envelope(
                envelope, trust=trust, role=role, predicate_type=predicate_type, subject=subject, zone=zone, at=at
            )
        except PermanentError:
            continue
        found.append(statement)
    return tuple(found)


def legacy_signatures(
    registry: Registry, repository: str, subject: Digest, *, trust: TrustRoot, at: int
) -> tuple[Descriptor, ...]:
    """Return the layers of cosign's legacy `.sig` tag that a verifier's key signed."""
    return tuple(layer for layer, _ in _legacy_signatures(registry, repository, subject, trust=trust, at=at))


def _legacy_signatures(
    registry: Registry, repository: str, subject: Digest, *, trust: TrustRoot, at: int
) -> list[tuple[Descriptor, bytes]]:
    keys = [key for key in trust.for_role("verifier") if key.valid_at(at)]
    found = []
    for layer in _legacy_layers(registry, repository, _signature_tag(subject), SIMPLE_SIGNING_TYPE):
        try:
            payload = registry.get_blob(repository, layer.digest, limit=_PAYLOAD_LIMIT)
            signature = base64.b64decode(layer.annotations.get(SIGNATURE_ANNOTATION, ""), validate=True)
            signed = any(key.verifies(signature, payload) for key in keys) and _signs(payload, subject)
        except (PermanentError, binascii.Error, ValueError):
            continue
        if signed:
            found.append((_signature_layer(payload, base64.b64encode(signature).decode("ascii")), payload))
    return found


def _legacy_layers(registry: Registry, repository: str, tag: str, media_type: str) -> list[Descriptor]:
    raw = registry.get_manifest(repository, tag)
    layers = Manifest.parse(raw.data, where=f"{registry.url} {repository}:{tag}").layers if raw else ()
    return [layer for layer in layers if layer.media_type == media_type][-_LAYERS_LIMIT:]


def _signs(payload: bytes, subject: Digest) -> bool:
    """Return whether a simple signing payload is about a manifest, whichever name the signer knew it by."""
    critical = read_json(payload).get("critical")
    image = critical.get("image") if isinstance(critical, dict) else None
    return isinstance(image, dict) and image.get("docker-manifest-digest") == subject


def copy_legacy_signatures(
    source: Registry, target: Registry, repository: str, subject: Digest, *, trust: TrustRoot, at: int
) -> None:
    """Copy cosign's legacy signatures of an image, those that verify. The line depends on none: older tools do."""
    try:
        signatures = _legacy_signatures(source, repository, subject, trust=trust, at=at)
    except Refusal:
        return
    for _, payload in signatures:
        target.put_blob(repository, payload)
    if signatures:
        _add_layers(target, repository, _signature_tag(subject), [layer for layer, _ in signatures])


def sign_image(registry: Registry, repository: str, subject: Digest, signer: Signer) -> None:
    """Write cosign's legacy image signature: the verifier's word, for older tools, that the gate let this through.

    Raises:
        PermanentError: the signer is not the verifier.
        TemporaryError: the signer is down.
    """
    if signer.role != "verifier":
        raise PermanentError(f"Image signatures are the verifier's to make, not the {signer.role}'s.")
    payload = _simple_signing(repository, subject)
    _, signature = sign_with(signer, payload)
    registry.put_blob(repository, payload)
    layer = _signature_layer(payload, base64.b64encode(signature).decode("ascii"))
    _add_layers(registry, repository, _signature_tag(subject), (layer,))


def _statement_tag(subject: Digest) -> str:
    return f"sha256-{hex_of(subject)}.att"


def _signature_tag(subject: Digest) -> str:
    return f"sha256-{hex_of(subject)}.sig"


def _signature_layer(payload: bytes, signature: str) -> Descriptor:
    return Descriptor(
        SIMPLE_SIGNING_TYPE, digest_of(payload), len(payload), annotations={SIGNATURE_ANNOTATION: signature}
    )


def _simple_signing(repository: str, subject: Digest) -> bytes:
    """Return the payload of cosign's image signature (containers/image, docs/atomic-signature.md)."""
    return canonical(
        {
            "critical": {
                "identity": {"docker-reference": f"{IMAGE_HOST}/{repository}"},
                "image": {"docker-manifest-digest": subject},
                "type": "cosign container image signature",
            },
            "optional": None,
        }
    )


def _add_layers(registry: Registry, repository: str, tag: str, layers: Sequence[Descriptor]) -> None:
    def change(current: bytes | None) -> bytes | None:
        present = Manifest.parse(current, where=f"{repository}:{tag}").layers if current else ()
        new = [layer for layer in layers if not any(_same(item, layer) for item in present)]
        return _legacy_manifest(registry, repository, (*present, *new)) if new else None

    registry.amend(repository, tag, OCI_MANIFEST, change)


def _same(one: Descriptor, other: Descriptor) -> bool:
    mark: Mapping[str, str] = one.annotations
    return one.digest == other.digest and mark.get(SIGNATURE_ANNOTATION) == other.annotations.get(SIGNATURE_ANNOTATION)


def _legacy_manifest(registry: Registry, repository: str, layers: tuple[Descriptor, ...]) -> bytes:
    config = canonical(
        {
            "architecture": "",
            "os": "",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in layers]},
        }
    )
    registry.put_blob(repository, config)
    return make_manifest(Descriptor.of(config, OCI_CONFIG), layers)
