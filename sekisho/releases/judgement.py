"""Judgements: a verdict with all that decided it, stored so that anyone can give it again, offline.

A judgement is an OCI artifact of two layers, every byte of which follows from them: the Judgement (canonical JSON: the
evidence, the time, the verdict) and the policies folder that was in force (`sekisho.policy_archive`). It has no
subject and no time of its own. The judge keeps it in `verdicts/<app>`, whatever it says, beside a signed summary; a
release's own copy stands in `releases/<app>`, named by digest in the release's summary, and travels with it.
"""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any, Literal

from sekisho import __version__
from sekisho.canonical import Digest, digest_of, hex_of
from sekisho.errors import PermanentError, VerificationError
from sekisho.evidence import bundle_layer, find_statements
from sekisho.keys import TrustRoot
from sekisho.model import IMAGE_HOST, DigestField, Document, Judgement, NameField, Result
from sekisho.oci import EMPTY, OCI_EMPTY, OCI_MANIFEST, Descriptor, Manifest, make_manifest
from sekisho.policy_archive import ARCHIVE_LIMIT, ARCHIVE_TYPE
from sekisho.registry import Registry
from sekisho.statements import SUMMARY, Statement, Subject, verify_statement

JUDGE_ID = "https://sekisho.dev/judge/v1"
JUDGEMENT_TYPE = "application/vnd.sekisho.judgement.v1+json"
JUDGEMENT_LIMIT = 32 << 20
"""Bytes of the document: it holds the manifests and the scan's report."""
SLSA_VERSION = "1.2"
UNEVALUATED = "SLSA_BUILD_LEVEL_UNEVALUATED"
"""The judge's word is about rules; which SLSA level an image has is the release's summary to say."""


def verdict_repository(app: str) -> str:
    """Return the repository in which an app's judgements are kept, the NO too."""
    return f"verdicts/{app}"


def commit_tag(commit: str) -> str:
    """Return the tag of the newest judgement of a commit (a convenience: nothing believes it)."""
    return f"commit-{commit}"


def judgement_tag(digest: str) -> str:
    """Return the tag that keeps a release's judgement where untagged manifests are swept away."""
    return f"judgement-{hex_of(digest)[:40]}"


def time_of(at: int) -> str:
    """Return a time as statements write it (RFC 3339, UTC)."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# -- the artifact ----------------------------------------------------------------------------------------------


def judgement_manifest(judgement: Judgement, *, inline: bool = True) -> bytes:
    """Return the OCI manifest of a judgement: a function of its two parts and nothing else.

    Args:
        judgement: the judgement.
        inline: whether the document stands in it as well, if it is small; those of before that have it as a blob alone.
    """
    return _manifest(judgement, judgement.canonical(), inline=inline)


def _manifest(judgement: Judgement, document: bytes, *, inline: bool) -> bytes:
    return make_manifest(
        Descriptor.of(EMPTY, OCI_EMPTY),
        (
            Descriptor.of(document, JUDGEMENT_TYPE, inline=inline),
            Descriptor(ARCHIVE_TYPE, Digest(judgement.policies.digest), judgement.policies.size),
        ),
        artifact_type=JUDGEMENT_TYPE,
    )


def put_judgement(registry: Registry, repository: str, judgement: Judgement, policies: bytes) -> Digest:
    """Store a judgement with the archive of its policies.

    Returns:
        The digest of its manifest: its name.

    Raises:
        PermanentError: `policies` are not those that it names, or it is too large to be read again.
    """
    if (digest_of(policies), len(policies)) != (judgement.policies.digest, judgement.policies.size):
        raise PermanentError("The policies are not those that the judgement names.", where=repository)
    return _put(registry, repository, judgement, policies)


def copy_judgement(registry: Registry, source: str, target: str, judgement: Judgement) -> Digest:
    """Store a judgement of one repository in another, under a tag of its own.

    Returns:
        The digest of its manifest: its name.

    Raises:
        PermanentError: its policies are not there, or it is too large to be read again.
    """
    policies = Digest(judgement.policies.digest)
    if not registry.has_blob(target, policies) and not registry.mount_blob(target, policies, source):
        registry.put_blob(target, registry.get_blob(source, policies, limit=ARCHIVE_LIMIT))
    return _put(registry, target, judgement, tagged=True)


def _put(registry: Registry, repository: str, judgement: Judgement, *policies: bytes, tagged: bool = False) -> Digest:
    data = judgement.canonical()
    if len(data) > JUDGEMENT_LIMIT or judgement.policies.size > ARCHIVE_LIMIT:
        raise PermanentError("The judgement is too large to be kept.", where=repository)
    registry.put_blobs(repository, EMPTY, data, *policies)
    manifest = _manifest(judgement, data, inline=True)
    tag = judgement_tag(digest_of(manifest)) if tagged else ""
    return registry.put_manifest(repository, manifest, OCI_MANIFEST, tag=tag)


def judgement_parts(data: bytes, *, where: str = "") -> tuple[Descriptor, Descriptor]:
    """Return the descriptors of a judgement's document and of its policies.

    Raises:
        VerificationError: not the OCI manifest of a judgement.
    """
    manifest = Manifest.parse(data, where=where)
    types = [layer.media_type for layer in manifest.layers]
    if manifest.artifact_type != JUDGEMENT_TYPE or types != [JUDGEMENT_TYPE, ARCHIVE_TYPE]:
        raise VerificationError("This is not a judgement.", where=where)
    document, policies = manifest.layers
    if document.size > JUDGEMENT_LIMIT or policies.size > ARCHIVE_LIMIT:
        raise VerificationError("The judgement's documents are too large.", where=where)
    return document, policies


def read_judgement(manifest: bytes, document: bytes, *, where: str = "") -> Judgement:
    """Return the judgement of a manifest and its document.

    Raises:
        Refusal: malformed.
        VerificationError: the manifest is not exactly that of the document.
    """
    judgement = Judgement.parse(document, where=where)
    try:
        made = judgement.canonical()
        whole = any(manifest == _manifest(judgement, made, inline=inline) for inline in (True, False))
    except (ValueError, RecursionError) as error:
        raise VerificationError("The judgement has no canonical form.", where=where) from error
    if not whole:
        raise VerificationError("The judgement's manifest holds something else than its parts.", where=where)
    return judgement


def load_judgement(registry: Registry, repository: str, reference: str) -> tuple[Judgement, Digest] | None:
    """Return a judgement by digest or tag, with its digest; None where there is none.

    Raises:
        Refusal: what stands there is not a judgement.
    """
    raw = registry.get_manifest(repository, reference)
    if raw is None:
        return None
    where = f"{registry.url} {repository}:{reference}"
    document, _ = judgement_parts(raw.data, where=where)
    data = registry.get_part(repository, document, limit=JUDGEMENT_LIMIT)
    return read_judgement(raw.data, data, where=where), raw.digest


# -- what is signed about it -----------------------------------------------------------------------------------


def judgement_input(repository: str, digest: str) -> dict[str, Any]:
    """Return the descriptor of a judgement, as a summary lists it among its inputs."""
    return {"uri": f"{IMAGE_HOST}/{repository}@{digest}", "digest": {"sha256": hex_of(digest)}}


def named_judgement(statement: Statement, repository: str) -> str:
    """Return the digest of the judgement that a summary lists, '' where it lists none."""
    inputs = statement.predicate.get("inputAttestations")
    for item in inputs if isinstance(inputs, list) else ():
        uri = item.get("uri") if isinstance(item, dict) else None
        if isinstance(uri, str) and uri.startswith(f"{IMAGE_HOST}/{repository}@"):
            return uri.rpartition("@")[2]
    return ""


def verdict_statement(judgement: Judgement, digest: Digest) -> Statement:
    """Return a judgement's summary (https://slsa.dev/spec/v1.2/verification_summary), PASSED or FAILED.

    It is about the judgement, never about the image: a NO beside an image would read as a signature to older tools.
    """
    verdict = judgement.verdict
    repository = verdict_repository(verdict.app)
    return Statement(
        subjects=(Subject(name=repository, digest=digest),),
        predicate_type=SUMMARY,
        predicate={
            "verifier": {"id": JUDGE_ID, "version": judgement.versions},
            "timeVerified": time_of(judgement.at),
            "resourceUri": f"git+sekisho:{verdict.app}@{verdict.commit}",
            "policy": {"uri": "sekisho:policies", "digest": {"sha256": hex_of(verdict.policy)}},
            "inputAttestations": [judgement_input(repository, digest)],
            "verificationResult": str(verdict.result),
            "verifiedLevels": [UNEVALUATED if verdict.result is Result.PASSED else "FAILED"],
            "slsaVersion": SLSA_VERSION,
        },
    )


# -- a verdict as one file -------------------------------------------------------------------------------------


class VerdictBundle(Document):
    """A judgement with its signed summary: what `sekisho why` needs of a commit, also of one that was refused."""

    format: Literal["sekisho.dev/verdict-bundle/v1"] = "sekisho.dev/verdict-bundle/v1"
    app: str = NameField
    commit: str
    judgement: str = DigestField
    summary: str = DigestField
    documents: dict[str, str]
    """Base64 of each document, by digest."""


def export_verdict(registry: Registry, app: str, commit: str, trust: TrustRoot) -> VerdictBundle | None:
    """Return the newest judgement of a commit as one document, or None where there is none that is signed.

    Which summary goes with it is all that is decided here: whoever takes the file verifies it by its own trust.

    Raises:
        Refusal: what stands there is malformed.
        TemporaryError: the registry cannot be reached.
    """
    repository = verdict_repository(app)
    try:
        found = load_judgement(registry, repository, commit_tag(commit))
    except VerificationError:
        return None  # the bare verdict of before judgements were kept
    if found is None:
        return None
    judgement, digest = found
    signed = find_statements(
        registry,
        repository,
        digest,
        trust=trust,
        role="verifier",
        predicate_type=SUMMARY,
        at=judgement.at,
        allow_failed=True,
    )
    summary = next((item for item in signed if _says(item.statement, judgement, digest)), None)
    raw = registry.get_manifest(repository, summary.manifest) if summary else None
    manifest = registry.get_manifest(repository, digest)
    if summary is None or raw is None or manifest is None:
        return None
    policies = registry.get_blob(repository, Digest(judgement.policies.digest), limit=ARCHIVE_LIMIT)
    documents = (manifest.data, judgement.canonical(), policies, raw.data, summary.bundle)
    return VerdictBundle(
        app=app,
        commit=commit,
        judgement=digest,
        summary=summary.manifest,
        documents={digest_of(data): base64.b64encode(data).decode("ascii") for data in documents},
    )


def verify_verdict(
    bundle: VerdictBundle, documents: dict[str, bytes], trust: TrustRoot, *, at: int
) -> tuple[Judgement, bytes]:
    """Verify a verdict's file: the verifier's summary, that it is about this judgement, and says what that says.

    Args:
        bundle: the file.
        documents: its documents; each has its digest.
        trust: whose keys count.
        at: the time that the verifier's key must be valid at, seconds since the epoch.

    Returns:
        The judgement and the archive of its policies.

    Raises:
        Refusal: malformed.
        VerificationError: it does not verify.
    """
    where = f"{bundle.app}@{bundle.commit}"

    def document(digest: str, what: str) -> bytes:
        if digest not in documents:
            raise VerificationError(f"{what} is missing.", where=digest)
        return documents[digest]

    manifest = document(bundle.judgement, "The judgement")
    judgement = read_judgement(
        manifest,
        document(judgement_parts(manifest, where=bundle.judgement)[0].digest, "The judgement's document"),
        where=bundle.judgement,
    )
    verdict, subject = judgement.verdict, judgement.subject
    if {(verdict.app, verdict.commit), (subject.app, subject.commit)} != {(bundle.app, bundle.commit)}:
        raise VerificationError("The judgement is about another app or commit.", where=where)
    beside, layer = bundle_layer(document(bundle.summary, "The summary"), where=bundle.summary)
    statement = verify_statement(
        document(layer.digest, "The summary"),
        trust=trust,
        role="verifier",
        predicate_type=SUMMARY,
        subject=bundle.judgement,
        at=at,
        allow_failed=True,
        where=bundle.summary,
    )
    if beside != bundle.judgement or not _says(statement, judgement, Digest(bundle.judgement)):
        raise VerificationError("The summary says something else than the judgement.", where=where)
    return judgement, document(judgement.policies.digest, "The archive of the policies")


def _says(statement: Statement, judgement: Judgement, digest: Digest) -> bool:
    """Return whether a summary is the judge's own about a judgement."""
    return statement.predicate == verdict_statement(judgement, digest).predicate


def judge_versions() -> dict[str, str]:
    """Return the versions of what judges, by name."""
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 - slow to import, seldom needed

    found = {"sekisho": __version__}
    for name in ("cel-expr-python", "jsonschema-rs"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
