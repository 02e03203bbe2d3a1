"""Uploading a blob (distribution-spec v1.1, "POST then PUT"), so that a fault in the middle does not stay.

Each attempt opens an upload of its own: nobody knows what a broken one has taken, and some registries forget it.
"""

from __future__ import annotations

import http.client
from collections.abc import Callable
from typing import BinaryIO
from urllib.parse import quote

from sekisho.canonical import Digest
from sekisho.registry_http import BLOCK, NETWORK_ERRORS, Answer, Transport, expect, wait

_ATTEMPTS = 6
_CREATED, _ACCEPTED = 201, 202


def push(
    transport: Transport,
    uploads: str,
    digest: Digest,
    *,
    size: int,
    content: Callable[[], BinaryIO],
    there: Callable[[], bool],
) -> None:
    """Upload a blob; the registry checks its digest.

    Args:
        transport: to the registry.
        uploads: path at which the repository takes uploads.
        digest: the blob's digest.
        size: the blob's size in bytes.
        content: opens the blob; called for each attempt.
        there: tells whether the registry has the blob.

    Raises:
        TemporaryError: broken off or refused for now, each time.
        PermanentError: refused.
    """
    headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
    for attempt in range(_ATTEMPTS):
        if attempt and there():  # only the answer was lost
            return
        path = _open(transport, uploads, digest)
        last = attempt == _ATTEMPTS - 1
        try:
            with content() as file, transport.stream("PUT", path, headers=headers, body=file) as response:
                answer = Answer(response.status, {}, response.read(BLOCK))
        except NETWORK_ERRORS as error:
            if last:
                raise transport.unreachable(error, path) from error
        else:
            if answer.status < http.client.INTERNAL_SERVER_ERROR and answer.status != http.client.TOO_MANY_REQUESTS:
                expect(answer, transport.url + path, _CREATED)
                return
            if last:
                raise transport.busy(answer.status, "PUT", path)
        wait(attempt)


def _open(transport: Transport, uploads: str, digest: Digest) -> str:
    answer = transport.send("POST", uploads, limit=BLOCK)
    expect(answer, transport.url + uploads, _ACCEPTED)
    location = transport.same_origin(answer.headers.get("location", ""))
    return f"{location}{'&' if '?' in location else '?'}digest={quote(digest, safe='')}"
