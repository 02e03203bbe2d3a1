"""Answers of an API server that go on: a watch, or a log that is followed."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from http import HTTPStatus
from typing import Any

from sekisho.errors import TemporaryError
from sekisho.kube import Kube
from sekisho.kube_errors import error_of

_PIECE = 1 << 16
_LINE = 1 << 20
"""A longer line is cut: somebody's log must not fill the memory."""
_GONE = 410


def lines(kube: Kube, path: str, query: Mapping[str, str], *, silence: float = 60.0) -> Generator[bytes, None, None]:
    """Yield the lines of an answer as they come.

    Args:
        kube: the API server.
        path: from its root.
        query: parameters.
        silence: seconds without a byte after which the server is taken for gone.

    Raises:
        Refusal, TemporaryError, PermanentError: as `Kube.request`; TemporaryError also when the answer breaks off.
    """
    from urllib3.exceptions import HTTPError  # noqa: PLC0415

    answer = kube.open("GET", path, query, seconds=silence)
    if answer.status >= HTTPStatus.BAD_REQUEST:
        raise error_of(answer.status, answer.read() or b"", where=path, secret=False)
    raw = answer.response
    rest = b""
    try:
        for piece in raw.stream(_PIECE):
            *whole, rest = (rest + piece).split(b"\n")
            yield from whole
            if len(rest) > _LINE:
                yield rest
                rest = b""
        if rest:
            yield rest
    except (HTTPError, OSError) as error:
        raise TemporaryError(f"The API server broke off: {type(error).__name__}.", where=path) from error
    finally:
        raw.close()


def watch(
    kube: Kube, path: str, query: Mapping[str, str], *, seconds: int = 240
) -> Generator[tuple[str, dict[str, Any]], None, None]:
    """Yield a collection's objects as they are, and each change: `ADDED`, `MODIFIED` or `DELETED`, with the object.

    Ends after `seconds`; the caller begins anew, and is then given all that is there once more.

    Raises:
        Refusal, TemporaryError, PermanentError: as `lines`.
    """
    # From whatever the server knows: to be sure of the newest first, a server on etcd 3.4 waits and then gives up.
    asked = {**query, "watch": "true", "resourceVersion": "0", "timeoutSeconds": str(seconds)}
    for line in lines(kube, path, asked, silence=seconds + 30.0):
        try:
            event = json.loads(line)
            kind, obj = str(event["type"]), event["object"]
        except (ValueError, KeyError, TypeError) as error:
            raise TemporaryError("The API server's watch says what is no event.", where=path) from error
        if kind == "ERROR":
            if obj.get("code") == _GONE:
                return
            raise error_of(int(obj.get("code") or 500), line, where=path, secret=False)
        if kind in {"ADDED", "MODIFIED", "DELETED"}:
            yield kind, obj
