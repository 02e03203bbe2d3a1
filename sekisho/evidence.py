"""Evidence: signed statements, kept in a registry beside what they are about.

Two forms are written. The first is the one that counts: a Sigstore bundle v0.3 as an OCI 1.1 referrer. The second is
for older tools (`sekisho.cosign_legacy`). `cosign verify --key verifier.pub` says exactly "the gate let this through",
in both forms: cosign takes any bundle of the right key for an image signature, also a summary that says FAILED, and
that is why a FAILED summary is never attached to an image or a release here.

Anybody who can write to a registry can attach anything. What is found is therefore verified, and what does not verify
is left out as if it were not there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from sekisho.canonical import Digest
from sekisho.cosign_legacy import attach_legacy, sign_image
from sekisho.errors import PermanentError, Refusal, VerificationError
from sekisho.keys import Role, Signer, TrustRoot
from sekisho.oci import OCI_EMPTY, Descriptor, Manifest
from sekisho.registry import Registry
from sekisho.statements import (
    BUNDLE_LIMIT,
    BUNDLE_TYPE,
    ROLES,
    SUMMARY,
    Statement,
    peek_statement,
    sign_statement,
    verify_statement,
)
from sekisho.together import together

VERDICTS = "verdicts/"
"""Repositories in which the NO is kept; nothing there is an image."""
PREDICATE_ANNOTATION = "dev.sigstore.bundle.predicateType"
_REFERRERS_LIMIT = 256
"""Referrers of one subject that are looked at: a flood must not stop the line."""


@dataclass(frozen=True)
class FoundStatement:
    """A statement that was found and verified."""

    manifest: Digest
    """Digest of the referrer manifest."""
    bundle: bytes
    statement: Statement


def attach_statement(
    registry: Registry, repository: str, statement: Statement, signer: Signer, *, created: str = ""
) -> Digest:
    """Sign a statement and attach it to its first subject, in both forms. Safe to repeat.

    Args:
        registry: the zone's own registry.
        repository: the repository that holds the subject.
        statement: what is said.
        signer: who says it.
        created: RFC 3339 time for `org.opencontainers.image.created`; without it nothing depends on the clock.

    Returns:
        The digest of the referrer manifest.

    Raises:
        PermanentError: the signer's role may not say this; a summary that says FAILED outside of `verdicts/`; the
            subject is not there.
        TemporaryError: the signer is down; nothing was attached.
    """
    check_speaker(statement, signer.role)
    bundle = sign_statement(statement, signer)
    subject = Digest(statement.subjects[0].digest)
    if _result(statement) == "PASSED" and not repository.startswith(VERDICTS):
        return attach_summary(registry, repository, subject, bundle, signer, created=created)
    return attach_bundle(registry, repository, subject, bundle, created=created)


def attach_summary(
    registry: Registry, repository: str, subject: Digest, bundle: bytes, signer: Signer, *, created: str = ""
) -> Digest:
    """Attach a signed summary that says PASSED to one of its subjects, and sign that for older tools.

    Raises:
        PermanentError: it is no such summary, or the signer is not the verifier; see `attach_bundle`.
        TemporaryError: the signer is down.
    """
    statement = _attachable(registry, repository, subject, bundle)
    if _result(statement) != "PASSED":
        raise PermanentError("Only with a summary that says PASSED an image is signed.", where=repository)
    return together(
        lambda: attach_bundle(registry, repository, subject, bundle, created=created),
        lambda: sign_image(registry, repository, subject, signer),
    )[0]


def attach_bundle(registry: Registry, repository: str, subject: Digest, bundle: bytes, *, created: str = "") -> Digest:
    """Attach a bundle that is signed already to one of its subjects, as referrer and in the legacy tag.

    What is about a verdict has no legacy form: no older tool looks there, and nothing there is an image.

    Raises:
        PermanentError: it says FAILED and this is not a repository of verdicts, or it is not about `subject`.
    """
    statement = _attachable(registry, repository, subject, bundle)
    annotations = bundle_annotations(statement.predicate_type)
    if created:
        annotations["org.opencontainers.image.created"] = created

    def attach() -> Digest:
        return registry.attach(
            repository,
            subject,
            artifact_type=BUNDLE_TYPE,
            payload=bundle,
            payload_type=BUNDLE_TYPE,
            annotations=annotations,
        )

    if repository.startswith(VERDICTS):
        return attach()
    return together(attach, lambda: attach_legacy(registry, repository, subject, bundle))[0]


def _attachable(registry: Registry, repository: str, subject: Digest, bundle: bytes) -> Statement:
    """Return what a bundle says, if it may stand beside a subject.

    Raises:
        PermanentError: it may not.
    """
    statement = peek_statement(bundle)
    where = f"{registry.url} {repository}@{subject}"
    if _result(statement) not in ("PASSED", None) and not repository.startswith(VERDICTS):
        raise PermanentError(
            "A summary that does not say PASSED must not stand beside an image or a release.",
            where=where,
            remedy=f"Keep it under {VERDICTS}<app>.",
        )
    if not statement.covers(subject):
        raise PermanentError("The statement is not about what it is to be attached to.", where=where)
    return statement


def _result(statement: Statement) -> object:
    """Return what a summary says, '' where it says nothing; None for a statement that is no summary."""
    if statement.predicate_type != SUMMARY:
        return None
    return statement.predicate.get("verificationResult") or ""


def check_speaker(statement: Statement, role: Role) -> None:
    """Check that a role may say this.

    Raises:
        PermanentError: the predicate is another role's word.
    """
    expected = ROLES.get(statement.predicate_type)
    if expected is not None and expected != role:
        raise PermanentError(
            f"A statement of type {statement.predicate_type} is the {expected}'s to sign, not the {role}'s."
        )


def bundle_annotations(predicate_type: str) -> dict[str, str]:
    """Return the annotations by which cosign finds a bundle."""
    return {"dev.sigstore.bundle.content": "dsse-envelope", PREDICATE_ANNOTATION: predicate_type}


def bundle_layer(manifest: bytes, *, where: str = "") -> tuple[Digest, Descriptor]:
    """Return the subject and the bundle's descriptor of a referrer manifest.

    Raises:
        VerificationError: it is not a referrer with one bundle.
    """
    parsed = Manifest.parse(manifest, where=where)
    layers = parsed.layers
    if parsed.artifact_type != BUNDLE_TYPE or len(layers) != 1 or layers[0].media_type != BUNDLE_TYPE:
        raise VerificationError("This is not a referrer with one Sigstore bundle.", where=where)
    if parsed.subject is None or layers[0].size > BUNDLE_LIMIT:
        raise VerificationError("This referrer has no subject, or its bundle is too large.", where=where)
    return parsed.subject, layers[0]


def load_statement(registry: Registry, repository: str, manifest_digest: Digest) -> bytes:
    """Return the bundle that a referrer manifest carries. Unverified.

    Raises:
        VerificationError: there is no such manifest, or it carries no bundle.
    """
    where = f"{registry.url} {repository}@{manifest_digest}"
    raw = registry.get_manifest(repository, manifest_digest)
    if raw is None:
        raise VerificationError("The statement is not there.", where=where)
    _, layer = bundle_layer(raw.data, where=where)
    return registry.get_part(repository, layer, limit=BUNDLE_LIMIT)


def find_statements(
    registry: Registry,
    repository: str,
    subject: Digest,
    *,
    trust: TrustRoot,
    role: Role,
    predicate_type: str,
    zone: str = "",
    at: int | None = None,
    allow_failed: bool = False,
    referrers: Sequence[Descriptor] | None = None,
) -> tuple[FoundStatement, ...]:
    """Return the statements about a manifest that verify.

    The order is the registry's: with the referrers API it need not be that of attaching, and cosign sorts the index of
    a registry without it. Who wants the newest asks what the statements say.

    Args:
        registry: where to look.
        repository: the repository that holds the subject.
        subject: digest of the manifest.
        trust: whose keys count.
        role: the role that must have signed.
        predicate_type: what the statement must say.
        zone: the zone whose key must have signed; with role `zone` only.
        at: the time that the key must be valid at; now when None.
        allow_failed: take a summary whose result is FAILED as well.
        referrers: what `Registry.referrers` gave for the subject, where more than one type is looked for; it is asked
            when None.

    Raises:
        TemporaryError: the registry cannot be asked now; that is never the same as "there is none".
        PermanentError: nothing verifies, and the registry would not give something that it lists.
    """

    def look(descriptor: Descriptor) -> FoundStatement | PermanentError:
        try:
            bundle = load_statement(registry, repository, descriptor.digest)
            statement = verify_statement(
                bundle,
                trust=trust,
                role=role,
                predicate_type=predicate_type,
                subject=subject,
                zone=zone,
                at=at,
                allow_failed=allow_failed,
            )
        except PermanentError as error:  # anybody can list what is not there: that must not hide what is
            return error
        return FoundStatement(descriptor.digest, bundle, statement)

    # Chosen by what they claim to be before they are counted: others' referrers do not push these out of sight.
    listed = registry.referrers(repository, subject) if referrers is None else referrers
    claimed = [item for item in listed if _may_be(item, predicate_type)]
    looked = together(*(partial(look, item) for item in claimed[-_REFERRERS_LIMIT:]))
    found = tuple(item for item in looked if isinstance(item, FoundStatement))
    faults = [item for item in looked if isinstance(item, PermanentError) and not isinstance(item, Refusal)]
    if faults and not found:
        raise faults[0]
    return found


def _may_be(descriptor: Descriptor, predicate_type: str) -> bool:
    """Return whether a referrer is worth a look. What it really is, its manifest and its signature say."""
    hint = descriptor.annotations.get(PREDICATE_ANNOTATION, predicate_type)
    # Some registries list the config's media type as the artifact type.
    return descriptor.artifact_type in ("", BUNDLE_TYPE, OCI_EMPTY) and hint == predicate_type
