"""Times as people write them."""

from __future__ import annotations

import datetime as dt
import time

from sekisho.errors import UsageError


def moment_of(text: str) -> int:
    """Return a time, in seconds since the epoch: `now`, RFC 3339, a day (its beginning, UTC), or the seconds.

    Raises:
        UsageError: it is none of these.
    """
    given = text.strip()
    if given == "now":
        return int(time.time())
    if given.isascii() and given.isdigit() and len(given) <= len("253402300799"):
        return int(given)
    try:
        moment = dt.datetime.fromisoformat(given)
    except ValueError as error:
        raise UsageError(
            f"{text[:80]!r} is not a time.", remedy="Write it as 2026-11-26T12:00:00Z, 2026-11-26, or now."
        ) from error
    if moment.tzinfo is None:
        if len(given) > len("2026-11-26"):
            raise UsageError(f"{text[:80]!r} names no time zone.", remedy="Put a Z behind it for UTC.")
        moment = moment.replace(tzinfo=dt.UTC)
    return int(moment.timestamp())
