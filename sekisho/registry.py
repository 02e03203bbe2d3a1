"""A client for OCI registries (distribution-spec v1.1), written for a line that trusts no registry.

What holds for every call: a digest is checked over the bytes that arrived, never believed; answers have a size
limit; redirects are refused; 404 is "not there" (None, False, empty); temporary faults are tried again and then
raised as TemporaryError; every other answer is a PermanentError that says what and where.

Referrers: the referrers API where the registry has it, else the referrers tag schema (an index under the tag
`sha256-<hex>`) with a tag for each referrer beside it. Distribution up to 3.1 has no referrers API. An index is read,
changed and written back, which is a race by its nature; `sekisho.registry_referrers` says what holds nevertheless.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final
from urllib.parse import quote

from sekisho.canonical import Digest, digest_of, parse_digest
from sekisho.errors import PermanentError, TemporaryError, VerificationError
from sekisho.oci import (
    EMPTY,
    MANIFEST_LIMIT,
    MANIFEST_TYPES,
    OCI_EMPTY,
    OCI_INDEX,
    Descriptor,
    Manifest,
    RawManifest,
    check_reference,
    check_repository,
    fallback_tag,
    make_manifest,
    read_index,
    read_json,
)
from sekisho.registry_http import BLOCK, Answer, Transport, expect, wait
from sekisho.registry_pull import pull
from sekisho.registry_push import push
from sekisho.registry_referrers import OWN_TAGS_LIMIT, ask_api, entry_of, joined, own_prefix, own_tag, turn
from sekisho.together import together

__all__ = ["BLOB_LIMIT", "Descriptor", "RawManifest", "Registry"]

BLOB_LIMIT: Final = 64 << 20
"""Bytes of a blob that is read into memory, unless the caller says otherwise."""
_TAGS_LIMIT = 100_000
_ATTEMPTS = 6
_OK, _CREATED, _ACCEPTED, _NOT_FOUND = 200, 201, 202, 404
_NO_API_SECONDS = 300.0
"""How long it is believed that a registry has no referrers API: it may be replaced by one that has."""


class Registry:
    """One registry. Safe for use by several threads.

    Args:
        url: `http://host:port` or `https://host:port`.
        timeout: seconds that the registry may be silent.
        certificates: PEM file of the authorities to trust for https; the system's when None.
        locks: directory for lock files that writers in several processes share; this user's own when None.

    Raises:
        PermanentError: `url` is not such a URL.
    """

    def __init__(
        self, url: str, *, timeout: float = 30.0, certificates: Path | None = None, locks: Path | None = None
    ) -> None:
        self._http = Transport(url, timeout=timeout, certificates=certificates)
        self._locks = locks
        self._no_api_until = 0.0

    def __repr__(self) -> str:
        return f"Registry({self.url!r})"

    @property
    def url(self) -> str:
        """The registry's origin."""
        return self._http.url

    def close(self) -> None:
        """Close the connections that are not in use."""
        self._http.close()

    # -- manifests and tags --------------------------------------------------------------------------------

    def resolve(self, repository: str, tag: str) -> Digest | None:
        """Return the digest that a tag points at now, or None. Ask for the manifest by it before believing it."""
        path = self._manifest_path(repository, tag)
        answer = self._http.send("HEAD", path, headers=_ACCEPT, limit=0)
        if answer.status == _NOT_FOUND:
            return None
        self._expect(answer, path, _OK)
        header = answer.headers.get("docker-content-digest", "")
        if header:
            return parse_digest(header)
        manifest = self.get_manifest(repository, tag)
        return manifest.digest if manifest else None

    def get_manifest(self, repository: str, reference: str) -> RawManifest | None:
        """Return a manifest by tag or digest, its digest checked; None if it is not there.

        Raises:
            VerificationError: the bytes do not have the digest that was asked for or that the registry says.
        """
        path = self._manifest_path(repository, reference)
        answer = self._http.send("GET", path, headers=_ACCEPT, limit=MANIFEST_LIMIT)
        if answer.status == _NOT_FOUND:
            return None
        self._expect(answer, path, _OK)
        digest = digest_of(answer.body)
        claimed = reference if reference.startswith("sha256:") else answer.headers.get("docker-content-digest", digest)
        if digest != claimed:
            raise VerificationError(
                f"The registry gave a manifest with digest {digest} for {claimed[:80]}.", where=self.url + path
            )
        media_type = answer.headers.get("content-type", "").partition(";")[0].strip()
        if media_type not in MANIFEST_TYPES:
            raise PermanentError(f"{media_type[:100]!r} is not a manifest's media type.", where=self.url + path)
        return RawManifest(digest, media_type, answer.body)

    def put_manifest(self, repository: str, data: bytes, media_type: str, *, tag: str = "") -> Digest:
        """Write a manifest under its digest, and under a tag if one is given."""
        return self._put_manifest(repository, data, media_type, tag)[0]

    def tags(self, repository: str) -> tuple[str, ...]:
        """Return all tags of a repository, in the registry's order; empty if there is no such repository."""
        names: list[str] = []
        for page in self._tag_pages(repository):
            names.extend(page)
            if len(names) > _TAGS_LIMIT:
                raise PermanentError(f"The repository has more than {_TAGS_LIMIT} tags.", where=self.url)
        return tuple(names)

    # -- blobs ---------------------------------------------------------------------------------------------

    def has_blob(self, repository: str, digest: Digest) -> bool:
        """Return whether the registry says that it holds a blob."""
        path = self._blob_path(repository, digest)
        answer = self._http.send("HEAD", path, limit=0)
        if answer.status == _NOT_FOUND:
            return False
        self._expect(answer, path, _OK)
        return True

    def get_blob(self, repository: str, digest: Digest, *, limit: int = BLOB_LIMIT) -> bytes:
        """Return a blob's bytes, its digest checked.

        Raises:
            VerificationError: the bytes have another digest.
            PermanentError: not there, or larger than `limit` bytes.
        """
        path = self._blob_path(repository, digest)
        answer = self._http.send("GET", path, limit=limit)
        if answer.status == _NOT_FOUND:
            raise PermanentError(f"The registry does not hold the blob {digest}.", where=self.url + path)
        self._expect(answer, path, _OK)
        if digest_of(answer.body) != digest:
            raise VerificationError(f"The registry gave other bytes for the blob {digest}.", where=self.url + path)
        return answer.body

    def get_part(self, repository: str, part: Descriptor, *, limit: int = BLOB_LIMIT) -> bytes:
        """Return what a descriptor of a manifest points at: what it brings along, else the blob.

        Raises:
            VerificationError: the bytes have another digest.
            PermanentError: not there, or larger than `limit` bytes.
        """
        if part.data is None:
            return self.get_blob(repository, part.digest, limit=limit)
        if len(part.data) > limit:
            raise PermanentError(f"A document is larger than {limit} bytes.", where=f"{self.url} {part.digest}")
        return part.data

    def pull_blob(self, repository: str, digest: Digest, target: Path, *, size: int | None = None) -> None:
        """Pull a blob to a file; a pull that was cut off goes on where it stopped, also after a restart.

        The bytes go to `<target>.part` and are renamed to `target` once the digest is right.

        Args:
            repository: the repository.
            digest: the blob's digest.
            target: file to write; its directory exists.
            size: bytes it must have; None if not known.

        Raises:
            VerificationError: the bytes have another digest or size; nothing is left behind.
            TemporaryError: cut off again and again; the part that arrived is kept.
        """
        pull(self._http, self._blob_path(repository, digest), digest, target, size)

    def put_blob(self, repository: str, data: bytes) -> Digest:
        """Write a blob if it is not there yet."""
        digest = digest_of(data)
        if not self.has_blob(repository, digest):
            self._upload(repository, digest, len(data), lambda: io.BytesIO(data))
        return digest

    def put_blobs(self, repository: str, *blobs: bytes) -> None:
        """Write several blobs at once, those that are not there yet."""
        together(*(partial(self.put_blob, repository, data) for data in blobs))

    def push_blob(self, repository: str, path: Path, digest: Digest) -> None:
        """Write a file as a blob if it is not there yet; the registry checks `digest`."""
        if not self.has_blob(repository, digest):
            self._upload(repository, digest, path.stat().st_size, lambda: path.open("rb"))

    def mount_blob(self, repository: str, digest: Digest, source_repository: str) -> bool:
        """Make a blob of one repository appear in another; False if the registry would not."""
        path = (
            f"/v2/{check_repository(repository)}/blobs/uploads/"
            f"?mount={quote(parse_digest(digest), safe='')}&from={quote(check_repository(source_repository), safe='')}"
        )
        answer = self._http.send("POST", path, limit=BLOCK)
        if answer.status == _CREATED:
            return True
        self._expect(answer, path, _ACCEPTED, _NOT_FOUND)
        if answer.status == _ACCEPTED:  # the registry opened an upload instead: close it again
            self._http.send("DELETE", self._http.same_origin(answer.headers.get("location", "")), limit=BLOCK)
        return False

    # -- referrers -----------------------------------------------------------------------------------------

    def referrers(self, repository: str, digest: Digest) -> tuple[Descriptor, ...]:
        """Return the descriptors of what refers to a manifest. Unverified: anybody who can write can add one."""
        found = self._api_referrers(repository, digest)
        if found is not None:
            return found
        entries = self._index(repository, digest)
        return (*entries, *self._own_referrers(repository, digest, known=entries))

    def listed_referrers(self, repository: str, digest: Digest) -> tuple[Descriptor, ...]:
        """Return the referrers that every other tool finds as well: without the API, those of the index alone."""
        found = self._api_referrers(repository, digest)
        return self._index(repository, digest) if found is None else found

    def attach(
        self,
        repository: str,
        subject: Digest,
        *,
        artifact_type: str,
        payload: bytes,
        payload_type: str,
        annotations: Mapping[str, str] | None = None,
    ) -> Digest:
        """Attach a document to a manifest, as its referrer. Safe to repeat: the same parts give the same digest.

        Args:
            repository: the repository that holds the subject.
            subject: digest of the subject's manifest.
            artifact_type: media type that readers look for.
            payload: the document, stored as the only layer, and in the manifest itself if it is small.
            payload_type: the layer's media type.
            annotations: annotations of the referrer manifest, repeated in the index.

        Returns:
            The digest of the referrer manifest.

        Raises:
            PermanentError: the subject is not there.
        """
        target = self.get_manifest(repository, subject)
        if target is None:
            raise PermanentError(f"There is no manifest {subject} to attach to.", where=f"{self.url} {repository}")
        self.put_blobs(repository, EMPTY, payload)
        data = make_manifest(
            Descriptor.of(EMPTY, OCI_EMPTY),
            (Descriptor.of(payload, payload_type, inline=True),),
            artifact_type=artifact_type,
            subject=target.descriptor,
            annotations=annotations,
        )
        return self.put_referrer(repository, data, target.media_type)

    def put_referrer(self, repository: str, data: bytes, media_type: str) -> Digest:
        """Write a manifest that has a subject, and list it among the subject's referrers.

        Raises:
            PermanentError: the manifest has no subject.
        """
        manifest = Manifest.parse(data, where=repository)
        if manifest.subject is None:
            raise PermanentError("This manifest has no subject, it cannot be a referrer.", where=repository)
        subject, own = manifest.subject, own_tag(manifest.subject, digest_of(data))
        no_api = time.monotonic() < self._no_api_until
        digest, answer = self._put_manifest(repository, data, media_type, own if no_api else "")
        if "oci-subject" in answer.headers:  # what has the API says so (distribution-spec v1.1, "Pushing Manifests")
            self._no_api_until = 0.0
            return digest
        if not no_api:  # not to say so proves nothing: some have the API and do not
            self._put_manifest(repository, data, media_type, own)
        entry = Descriptor(media_type, digest, len(data), manifest.artifact_type, manifest.annotations)

        def add(current: bytes | None) -> bytes | None:
            if joined(current, (entry,), where=repository) is None:
                return None
            present = read_index(current, where=repository) if current else ()
            lost = self._own_referrers(repository, subject, known=(*present, entry))
            return joined(current, (*lost, entry), where=repository)

        self.amend(repository, fallback_tag(subject), OCI_INDEX, add)
        return digest

    def amend(self, repository: str, tag: str, media_type: str, change: Callable[[bytes | None], bytes | None]) -> None:
        """Change what a tag points at: read, change, write, read back; again if somebody else's write won.

        Args:
            repository: the repository.
            tag: the tag.
            media_type: of the manifest.
            change: takes the manifest's bytes (None: no such tag) and returns the new ones, or None when they
                already are as they should be.

        Raises:
            TemporaryError: what was written was not there afterwards, every time.
        """
        with turn(f"{self.url} {repository}:{tag}", self._locks):
            for attempt in range(_ATTEMPTS + 1):
                current = self.get_manifest(repository, tag)
                data = change(current.data if current else None)
                if data is None:
                    return
                if attempt:
                    wait(attempt)
                self.put_manifest(repository, data, media_type, tag=tag)
        raise TemporaryError(
            "What was written to a tag was not there when it was read back: the registry forgets, or others write it.",
            where=f"{self.url} {repository}:{tag}",
        )

    # -- inside --------------------------------------------------------------------------------------------

    def _tag_pages(self, repository: str, query: str = "") -> Iterator[list[str]]:
        base = f"/v2/{check_repository(repository)}/tags/list"
        path = base + query
        while True:
            answer = self._http.send("GET", path, limit=MANIFEST_LIMIT)
            if answer.status == _NOT_FOUND:
                return
            self._expect(answer, path, _OK)
            page = read_json(answer.body, where=self.url + path).get("tags") or []
            if not isinstance(page, list) or not all(isinstance(name, str) for name in page):
                raise PermanentError("The registry's list of tags is not a list of names.", where=self.url + path)
            yield page
            if not page or "link" not in answer.headers:
                return
            path = f"{base}?n=1000&last={quote(page[-1], safe='')}"

    def _put_manifest(self, repository: str, data: bytes, media_type: str, tag: str) -> tuple[Digest, Answer]:
        digest = digest_of(data)
        path = self._manifest_path(repository, tag or digest)
        answer = self._http.send("PUT", path, headers={"Content-Type": media_type}, body=data, limit=BLOCK)
        self._expect(answer, path, _CREATED)
        kept = answer.headers.get("docker-content-digest", digest)
        if kept != digest:
            raise VerificationError(f"The registry kept {kept[:80]} instead of {digest}.", where=self.url + path)
        return digest, answer

    def _api_referrers(self, repository: str, digest: Digest) -> tuple[Descriptor, ...] | None:
        """Return what the referrers API lists; None if the registry has none."""
        if time.monotonic() < self._no_api_until:
            return None
        path = f"/v2/{check_repository(repository)}/referrers/{parse_digest(digest)}"
        found, certain = ask_api(self._http, path)
        if certain and found is None:
            self._no_api_until = time.monotonic() + _NO_API_SECONDS
        return found

    def _index(self, repository: str, digest: Digest) -> tuple[Descriptor, ...]:
        index = self.get_manifest(repository, fallback_tag(digest))
        return read_index(index.data, where=f"{self.url} {repository}") if index else ()

    def _own_referrers(
        self, repository: str, subject: Digest, *, known: tuple[Descriptor, ...]
    ) -> tuple[Descriptor, ...]:
        """Return the referrers that have a tag of their own and are not `known`."""
        listed = {own_tag(subject, entry.digest) for entry in known}
        entries = []
        for tag in self._own_tags(repository, subject):
            raw = None if tag in listed else self.get_manifest(repository, tag)
            entry = entry_of(raw, subject) if raw is not None else None
            if entry is not None and own_tag(subject, entry.digest) == tag:
                entries.append(entry)
        return tuple(entries)

    def _own_tags(self, repository: str, subject: Digest) -> list[str]:
        prefix = own_prefix(subject)
        # Tags are listed in lexical order (distribution-spec, "Listing Tags"): those of a subject stand together.
        names: list[str] = []
        with suppress(PermanentError):  # a registry that lists no tags, or too many: the index has to do
            for page in self._tag_pages(repository, f"?n=100&last={fallback_tag(subject)}"):
                names.extend(name for name in page if name.startswith(prefix))
                if len(names) >= OWN_TAGS_LIMIT or (page and page[-1] > prefix and not page[-1].startswith(prefix)):
                    break
        return names[:OWN_TAGS_LIMIT]

    def _upload(self, repository: str, digest: Digest, size: int, content: Callable[[], BinaryIO]) -> None:
        path = f"/v2/{check_repository(repository)}/blobs/uploads/"
        push(self._http, path, digest, size=size, content=content, there=lambda: self.has_blob(repository, digest))

    def _expect(self, answer: Answer, path: str, *statuses: int) -> None:
        expect(answer, self.url + path, *statuses)

    def _manifest_path(self, repository: str, reference: str) -> str:
        return f"/v2/{check_repository(repository)}/manifests/{check_reference(reference)}"

    def _blob_path(self, repository: str, digest: str) -> str:
        return f"/v2/{check_repository(repository)}/blobs/{parse_digest(digest)}"


_ACCEPT = {"Accept": ", ".join(MANIFEST_TYPES)}
