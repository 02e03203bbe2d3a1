"""What an API server's refusal means to the line: whose fault it is, and whether to try again."""

from __future__ import annotations

import json
from http import HTTPStatus

from sekisho.errors import PermanentError, Refusal, SekishoError, TemporaryError

_MESSAGE = 1500
_SCHEMA = ("failed to create typed patch object", "unable to convert unstructured object")
"""A server-side apply that does not fit the schema is answered with HTTP 500."""


class Conflict(TemporaryError):
    """Somebody wrote the object since it was read (HTTP 409); read it again and decide anew."""


def error_of(status: int, data: bytes, *, where: str, secret: bool) -> SekishoError:
    """Map an API server's Status object (HTTP status >= 400) to one of the line's errors.

    Args:
        status: HTTP status.
        data: the body, hopefully a Status object.
        where: the object.
        secret: keep the message out, because it may quote values.
    """
    try:
        answer = json.loads(data)
        message = str(answer.get("message", ""))
        details = answer.get("details") or {}
        delay = float(details.get("retryAfterSeconds") or 2.0)
        fields = ", ".join(str(cause.get("field", "")) for cause in details.get("causes") or [])
    except (ValueError, AttributeError, TypeError):
        message, fields, delay = data.decode("utf-8", "replace"), "", 2.0
    text = f"HTTP {status} for a Secret, fields: {fields or 'not said'}" if secret else message[:_MESSAGE]
    text = text or f"HTTP {status}"
    if status == HTTPStatus.CONFLICT:
        return Conflict(text, where=where, delay=delay)
    if status == HTTPStatus.UNAUTHORIZED:
        return PermanentError(
            "The API server does not know this client.", where=where, remedy="Renew the kubeconfig of the zone."
        )
    if status == HTTPStatus.FORBIDDEN and " cannot " in message and "is forbidden: User " in message:
        return PermanentError(text, where=where, remedy="Give the zone's user this right, or take it out of the plan.")
    if status in {
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.UNPROCESSABLE_ENTITY,
    }:
        return Refusal(f"The API server refuses the object: {text}", where=where)
    if status == HTTPStatus.INTERNAL_SERVER_ERROR and any(words in message for words in _SCHEMA):
        return Refusal(f"The object does not fit its schema: {text}", where=where)
    if (
        status == HTTPStatus.TOO_MANY_REQUESTS
        or status >= HTTPStatus.INTERNAL_SERVER_ERROR
        or status
        in {
            HTTPStatus.GONE,
            HTTPStatus.REQUEST_TIMEOUT,
        }
    ):
        return TemporaryError(text, where=where, delay=delay)
    return PermanentError(text, where=where)
