"""Pulling a blob to a file, so that a cut-off pull goes on where it stopped.

On a bad link the outer zones pull each byte once: the part that arrived stays in `<target>.part`, also over a
restart, and the next request asks for the rest (HTTP Range, RFC 9110 section 14).
"""

from __future__ import annotations

import http.client
import re
from pathlib import Path
from typing import Final

from sekisho.canonical import Digest, digest_of_file
from sekisho.errors import PermanentError, TemporaryError, VerificationError
from sekisho.registry_http import BLOCK, NETWORK_ERRORS, Transport, wait

LAYER_LIMIT: Final = 16 << 30
"""Bytes of a blob that is pulled to a file, unless the caller knows its size."""
_ATTEMPTS = 6
"""Requests in a row that bring nothing before the pull gives up."""
_OK, _PARTIAL, _NOT_FOUND, _RANGE = 200, 206, 404, 416
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(?:\d+|\*)")


def pull(transport: Transport, path: str, digest: Digest, target: Path, size: int | None) -> None:
    """Pull a blob to `target`; see `Registry.pull_blob`."""
    part = target.with_name(target.name + ".part")
    if target.is_file() and digest_of_file(target) == digest:
        return
    limit = LAYER_LIMIT if size is None else size
    if part.exists() and part.stat().st_size > limit:
        part.unlink()
    resumed = part.exists()
    _pull_part(transport, path, part, limit)
    if resumed and digest_of_file(part) != digest:
        # What an earlier run left may be what is wrong: one more time, from the start.
        part.unlink()
        _pull_part(transport, path, part, limit)
    if digest_of_file(part) != digest or (size is not None and part.stat().st_size != size):
        part.unlink()
        raise VerificationError(f"The registry gave other bytes for the blob {digest}.", where=transport.url + path)
    part.replace(target)


def _pull_part(transport: Transport, path: str, part: Path, limit: int) -> None:
    idle = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            if _pull_once(transport, path, part, before, limit):
                return
            error: Exception = TemporaryError("The registry cannot serve the blob now.", where=transport.url + path)
        except NETWORK_ERRORS as caught:
            error = transport.unreachable(caught, path)
        moved = part.exists() and part.stat().st_size > before
        idle = 0 if moved else idle + 1
        if idle == _ATTEMPTS:
            raise error
        wait(idle)


def _pull_once(transport: Transport, path: str, part: Path, have: int, limit: int) -> bool:
    where = transport.url + path
    headers = {"Range": f"bytes={have}-"} if have else {}
    with transport.stream("GET", path, headers=headers) as response:
        if response.status == _NOT_FOUND:
            raise PermanentError("The registry does not hold this blob.", where=where)
        if response.status == _RANGE:  # nothing is left to send, or the part is not of this blob: the hash tells
            return True
        if response.status >= http.client.INTERNAL_SERVER_ERROR:
            return False
        if response.status not in (_OK, _PARTIAL):
            raise PermanentError(f"The registry answers {response.status}.", where=where)
        written = _start_of(response, have, where)
        if not written:
            _write(part, b"", 0)  # also an empty blob leaves a file, and a restart drops what was there
        while piece := response.read(BLOCK):
            if written + len(piece) > limit:
                part.unlink(missing_ok=True)
                raise VerificationError(f"The blob is larger than {limit} bytes.", where=where)
            _write(part, piece, written)
            written += len(piece)
        if response.length:  # the connection ended before the body did; http.client does not say so
            raise http.client.IncompleteRead(b"", response.length)
    return True


def _start_of(response: http.client.HTTPResponse, have: int, where: str) -> int:
    """Return where in the blob the response begins: a server need not honour a Range."""
    if response.status != _PARTIAL:
        return 0
    found = _CONTENT_RANGE.fullmatch(response.getheader("Content-Range", ""))
    if not found or int(found[1]) != have:
        raise PermanentError("The registry sends another range than it was asked for.", where=where)
    return have


def _write(part: Path, piece: bytes, position: int) -> None:
    """Write a piece of a blob. A full disk is not the network's fault, so it gets its own error."""
    try:
        with part.open("r+b" if position else "wb") as file:
            file.seek(position)
            file.write(piece)
    except OSError as error:
        raise TemporaryError(
            f"The blob cannot be kept: {error.strerror}", where=str(part), remedy="Free room on the disk.", delay=30.0
        ) from error
