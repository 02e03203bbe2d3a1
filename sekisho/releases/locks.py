"""The lock that the line resolved for a commit, as one file: its files, and the builder's signed word on their digests.

Provenance names each lock file that the line made, with its digest (docs/builder.md). So whoever takes the file
believes nothing of where it comes from: the bytes must be those that the builder signed for this commit.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from sekisho.canonical import Digest, digest_of
from sekisho.errors import PermanentError, Refusal, VerificationError
from sekisho.evidence import find_statements
from sekisho.keys import TrustRoot
from sekisho.model import COMMIT_PATTERN, IMAGE_HOST, Document, NameField
from sekisho.registry import Registry
from sekisho.releases.judgement import commit_tag, load_judgement, verdict_repository
from sekisho.statements import PROVENANCE, Statement, peek_statement, verify_statement

LOCKS_LIMIT = 32 << 20
"""Bytes of all lock files of one commit."""


class LockBundle(Document):
    """The lock files of a commit that committed none."""

    format: Literal["sekisho.dev/lock-bundle/v1"] = "sekisho.dev/lock-bundle/v1"
    app: str = NameField
    commit: str = Field(pattern=COMMIT_PATTERN)
    provenance: str
    """Base64 of the builder's signed statement about the image that was built with them."""
    files: dict[str, str]
    """Base64 of each file, by its path in the workload's folder."""


@dataclass(frozen=True)
class CommitLock:
    """The lock files of a commit, each with the digest that its provenance names."""

    folder: str
    """The workload's folder in the repository; `.` for its top."""
    files: Mapping[str, bytes]


def export_lock(registry: Registry, app: str, commit: str, trust: TrustRoot) -> LockBundle | None:
    """Return the lock that the line resolved for a commit, or None where it resolved none, or never built the commit.

    Raises:
        Refusal: larger than LOCKS_LIMIT; or what stands there is malformed.
        TemporaryError: the registry cannot be reached.
    """
    try:
        judged = load_judgement(registry, verdict_repository(app), commit_tag(commit))
    except VerificationError:
        return None  # the bare verdict of before judgements were kept
    image = judged[0].subject.image if judged else None
    repository = f"apps/{app}"
    if judged is None or image is None or image.repository != repository:
        return None
    said = find_statements(
        registry, repository, Digest(image.digest), trust=trust, role="builder", predicate_type=PROVENANCE,
        at=judged[0].at,
    )  # fmt: skip
    for item in said:
        locks = named_locks(item.statement, app, commit)
        if locks:
            files = _blobs(registry, repository, locks)
            return LockBundle(
                app=app,
                commit=commit,
                provenance=_encoded(item.bundle),
                files={path: _encoded(data) for path, data in files.items()},
            )
    return None


def _blobs(registry: Registry, repository: str, locks: Mapping[str, Digest]) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    left = LOCKS_LIMIT
    for path, digest in sorted(locks.items()):
        try:
            files[path] = registry.get_blob(repository, digest, limit=left)
        except PermanentError as error:
            raise Refusal(
                f"The lock cannot be handed out: {error.what}",
                where=repository,
                remedy="Make it anew: sekisho lock FOLDER.",
            ) from error
        left -= len(files[path])
    return files


def open_lock(data: bytes, app: str, commit: str, trust: TrustRoot | None, *, at: int | None = None) -> CommitLock:
    """Return the lock files of a commit, every one compared with the builder's word on it.

    Args:
        data: the file.
        app: the workload that it must be about.
        commit: the commit that it must be about.
        trust: whose keys count; None to take the statement without its signature, which shows damage and no lie.
        at: the time that the builder's key must be valid at; now when None.

    Raises:
        Refusal: malformed.
        VerificationError: it does not verify.
    """
    where = f"{app}@{commit}"
    bundle = LockBundle.parse(data, where=where)
    if (bundle.app, bundle.commit) != (app, commit):
        raise VerificationError("The lock is another commit's.", where=where)
    signed = _decoded(bundle.provenance, where)
    statement = peek_statement(signed)
    if trust is not None:
        subject = statement.subjects[0].digest
        statement = verify_statement(
            signed, trust=trust, role="builder", predicate_type=PROVENANCE, subject=subject, at=at, where=where
        )
    locks = named_locks(statement, app, commit)
    files = {path: _decoded(text, where) for path, text in bundle.files.items()}
    if not locks or {path: digest_of(content) for path, content in files.items()} != locks:
        raise VerificationError("The lock is not the one that the provenance of this commit names.", where=where)
    return CommitLock(str(_part(statement.predicate, "buildDefinition", "externalParameters").get("path", ".")), files)


def named_locks(statement: Statement, app: str, commit: str) -> dict[str, Digest]:
    """Return the lock files that a commit's provenance says the line made, with their digests; empty for none."""
    definition = _part(statement.predicate, "buildDefinition")
    if _part(definition, "externalParameters").get("commit") != commit:
        return {}
    names = _part(definition, "internalParameters").get("resolvedLocks")
    dependencies = definition.get("resolvedDependencies")
    if not isinstance(names, list) or not isinstance(dependencies, list):
        return {}
    here = f"{IMAGE_HOST}/apps/{app}@"
    # A package may have any name: a lock file is the one that stands in the app's own repository.
    return {
        str(item["name"]): Digest(str(item["uri"]).removeprefix(here))
        for item in dependencies
        if isinstance(item, dict) and item.get("name") in names and str(item.get("uri")).startswith(here)
    }


def _part(value: Mapping[str, Any], *path: str) -> dict[str, Any]:
    found: Any = value
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return dict(found) if isinstance(found, Mapping) else {}


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _decoded(text: str, where: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refusal("A document is not base64.", where=where) from error
