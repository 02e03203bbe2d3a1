"""Clients of the zones' HTTP faces: a feed, ops, and a zone's own process.

All are synchronous and safe between threads. They use no proxy and follow no redirect, read at most so many bytes, and
raise the line's errors: TemporaryError when the other side cannot be reached or says so, Refusal when it says no.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator, Mapping
from typing import Any, Self

import httpx

from sekisho.canonical import Digest, parse_digest
from sekisho.errors import PermanentError, Refusal, SekishoError, TemporaryError, VerificationError
from sekisho.model import Offer, SignedDecision

MAX_JSON = 32 << 20
"""Bytes of one JSON answer."""
MAX_BUNDLE = 64 << 20
"""Bytes of one release bundle."""
MAX_EVENT = 1 << 20
_MAX_PAGES = 2000
"""Pages of one feed that are walked: a million offers."""
_GIVE_BACK = 5.0
"""Seconds that an answer may take beyond the wait that was asked for."""

Params = Mapping[str, str | int | float]


class _Api:
    """One HTTP face at `url`."""

    def __init__(self, url: str, *, timeout: float = 10.0) -> None:
        self.url = url.rstrip("/")
        self._timeout = timeout
        self._client = httpx.Client(
            base_url=self.url,
            timeout=httpx.Timeout(timeout, connect=min(timeout, 3.0)),
            trust_env=False,
            follow_redirects=False,
            verify=_authorities(self.url),
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(
        self,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        content: bytes | None = None,
        limit: int = MAX_JSON,
        wait: float = 0.0,
    ) -> bytes:
        headers = {"content-type": "application/json"} if content is not None else None
        timeout = httpx.Timeout(max(self._timeout, wait + _GIVE_BACK), connect=min(self._timeout, 3.0))
        try:
            with self._client.stream(
                method, path, params=params, content=content, headers=headers, timeout=timeout
            ) as answer:
                data = self._limited(answer, limit)
        except httpx.InvalidURL as error:
            raise Refusal(f"This is not a URL: {error}", where=self.url) from error
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        if not answer.is_success:
            raise self._error(answer.status_code, data, path)
        return data

    def _limited(self, answer: httpx.Response, limit: int) -> bytes:
        pieces: list[bytes] = []
        size = 0
        for piece in answer.iter_bytes():
            size += len(piece)
            if size > limit:
                raise PermanentError(f"The answer is larger than {limit} bytes.", where=str(answer.url))
            pieces.append(piece)
        return b"".join(pieces)

    def _json(self, method: str, path: str, **options: Any) -> Any:
        data = self._read(method, path, **options)
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise PermanentError("The answer is not JSON.", where=f"{self.url}{path}") from error

    def _object(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        answer = self._json(method, path, **options)
        if not isinstance(answer, dict):
            raise PermanentError("The answer is not a JSON object.", where=f"{self.url}{path}")
        return answer

    def _list(self, path: str, key: str, **options: Any) -> list[dict[str, Any]]:
        items = self._object("GET", path, **options).get(key)
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise PermanentError(f"The answer has no list of {key}.", where=f"{self.url}{path}")
        return items

    def _unreachable(self, error: Exception) -> TemporaryError:
        return TemporaryError(
            f"It cannot be reached: {str(error) or type(error).__name__}.",
            where=self.url,
            remedy="See whether the zone is up: sekisho status.",
        )

    def _error(self, status: int, data: bytes, path: str) -> SekishoError:
        what, where, remedy = _said(data)
        what = what or f"The answer was HTTP {status}."
        where = where or f"{self.url}{path}"
        if status in (httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE) or status in (502, 504):
            return TemporaryError(what, where=where, remedy=remedy)
        if status == httpx.codes.FORBIDDEN:
            return VerificationError(what, where=where, remedy=remedy)
        if 400 <= status < 500:  # noqa: PLR2004
            return Refusal(what, where=where, remedy=remedy)
        return PermanentError(what, where=where, remedy=remedy)

    def healthz(self) -> dict[str, Any]:
        """Return what the other side says about itself."""
        return self._object("GET", "/healthz")


def _authorities(url: str) -> ssl.SSLContext:
    """Return whom a client trusts: the machine's authorities, or nobody where the URL is plain HTTP.

    To read the machine's takes longer than most questions do.
    """
    if url.startswith("http:"):
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return httpx.create_ssl_context(trust_env=False)


def _said(data: bytes) -> tuple[str, str, str]:
    try:
        body = json.loads(data)
        return tuple(str(body.get(part) or "")[:2000] for part in ("what", "where", "remedy"))  # type: ignore[return-value]
    except (ValueError, AttributeError, RecursionError):
        return "", "", ""


def _parsed(kind: type[Offer | SignedDecision], item: object, where: str) -> Any:
    return kind.parse(json.dumps(item), where=where)


class FeedClient(_Api):
    """Reads a zone's release feed. What it returns is a claim: verify what it names."""

    def offers(self, after: int = 0) -> Iterator[Offer]:
        """Yield every offer behind `after`, page by page, to the feed's end.

        Raises:
            TemporaryError: the feed cannot be reached.
            Refusal: an offer is malformed.
            PermanentError: what answers is no feed, or one without an end.
        """
        for _ in range(_MAX_PAGES):
            offers, _last = self.page(after)
            yield from offers
            if not offers:
                return
            after = offers[-1].sequence
        raise PermanentError(f"The feed does not end after {_MAX_PAGES} pages.", where=self.url)

    def page(self, after: int = 0, wait: float = 0.0) -> tuple[tuple[Offer, ...], int]:
        """Return one page of offers and the last sequence of the feed.

        Waits at most `wait` seconds for the first offer behind `after`. A last sequence below `after` means that the
        feed began anew.

        Raises:
            TemporaryError: the feed cannot be reached.
            Refusal: an offer is malformed.
            PermanentError: what answers is no feed.
        """
        answer = self._object("GET", "/feed", params={"after": after, "wait": wait}, wait=wait)
        items, last = answer.get("offers"), answer.get("last")
        if not isinstance(items, list) or not isinstance(last, int) or isinstance(last, bool):
            raise PermanentError("The answer is not a feed.", where=self.url)
        offers = tuple(_parsed(Offer, item, self.url) for item in items)
        if [offer.sequence for offer in offers] != list(range(after + 1, after + 1 + len(offers))):
            raise PermanentError("The feed left a gap or turned its order.", where=self.url)
        return offers, last

    def bundle(self, digest: Digest | str) -> bytes:
        """Return the bundle of a release, unverified.

        Raises:
            Refusal: the zone does not offer it.
            TemporaryError: the feed cannot be reached.
        """
        return self._read("GET", f"/releases/{parse_digest(digest)}/bundle", limit=MAX_BUNDLE)

    def commits(self, app: str, prefix: str = "") -> list[dict[str, Any]]:
        """Return what the build zone knows of an app's newest commits, or of those that begin with `prefix`."""
        return self._list(f"/commits/{app}", "commits", params={"prefix": prefix})

    def commit(self, app: str, commit: str) -> dict[str, Any]:
        """Return what the build zone knows of one commit."""
        return self._object("GET", f"/commits/{app}/{commit}")

    def judgement(self, app: str, commit: str) -> bytes:
        """Return the newest judgement of a commit as a file, unverified.

        Raises:
            Refusal: the zone has none.
            TemporaryError: the feed cannot be reached.
        """
        return self._read("GET", f"/commits/{app}/{commit}/judgement", limit=MAX_BUNDLE)

    def lock(self, app: str, commit: str) -> bytes:
        """Return the lock that the line resolved for a commit as a file, unverified.

        Raises:
            Refusal: the zone has none.
            TemporaryError: the feed cannot be reached.
        """
        return self._read("GET", f"/commits/{app}/{commit}/lock", limit=MAX_BUNDLE)

    def standard_images(self) -> list[dict[str, Any]]:
        """Return the standard images, and what the build zone's gate says of each."""
        return self._list("/standard-images", "images")

    def tell_progress(self, bundle: bytes) -> bool:
        """Pass a signed receipt on; False when the zone had it already."""
        return bool(self._object("POST", "/progress", content=bundle).get("stored"))


class OpsClient(_Api):
    """Talks to ops: the mailbox, the ledger and what is read from it."""

    def post_receipt(self, bundle: bytes) -> dict[str, Any]:
        """Hand in a signed receipt; handing in twice is once. Returns {"sequence", "digest", "stored"}."""
        return self._object("POST", "/receipts", content=bundle)

    def post_decision(self, signed: SignedDecision) -> dict[str, Any]:
        """Put a signed decision into the mailbox. Returns {"sequence", "digest", "stored", "checked"}."""
        return self._object("POST", "/decisions", content=signed.canonical())

    def decisions(self, zone: str, after: int = 0, wait: float = 0.0) -> tuple[tuple[int, SignedDecision], ...]:
        """Return the decisions for a zone behind sequence `after`, each with its sequence; unverified."""
        items = self._list("/decisions", "decisions", params={"zone": zone, "after": after, "wait": wait}, wait=wait)
        try:
            return tuple((int(item["sequence"]), _parsed(SignedDecision, item["signed"], self.url)) for item in items)
        except (KeyError, TypeError, ValueError) as error:
            raise PermanentError("The answer is not a list of decisions.", where=self.url) from error

    def receipts(self, *, after: int = 0, wait: float = 0.0, **filters: str) -> list[dict[str, Any]]:
        """Return receipts behind sequence `after`; filters: app, commit, release, zone, event.

        Returns:
            at most 100, each {"sequence", "digest", "receipt"}; ask again behind the last. Ops checked their
            signatures; the signed bytes are in the ledger.
        """
        return self._list("/receipts", "receipts", params={"after": after, "wait": wait, **filters}, wait=wait)

    def releases(self, app: str = "", prefix: str = "") -> list[dict[str, Any]]:
        """Return the known releases, newest first."""
        return self._list("/releases", "releases", params={"app": app, "prefix": prefix})

    def release(self, digest: str) -> dict[str, Any]:
        """Return one release with its state in every zone."""
        return self._object("GET", f"/releases/{digest}")

    def bundle(self, digest: str) -> bytes:
        """Return the bundle of a release, unverified."""
        return self._read("GET", f"/releases/{digest}/bundle", limit=MAX_BUNDLE, wait=25.0)

    def plans(self, **filters: str) -> list[dict[str, Any]]:
        """Return plans, newest first; filters: app, zone, state, prefix (of the digest)."""
        return self._list("/plans", "plans", params=filters)

    def plan(self, digest: str) -> dict[str, Any]:
        """Return one plan: {"digest", "plan", "dry_run", "gate", "state", ...}."""
        return self._object("GET", f"/plans/{digest}")

    def apps(self) -> list[dict[str, Any]]:
        """Return the apps, with what runs in every zone and what ran before."""
        return self._list("/apps", "apps")

    def verify_ledger(self) -> dict[str, Any]:
        """Return the report of a check of the whole chain."""
        return self._object("GET", "/ledger/verify", wait=60.0)


class ZoneClient(_Api):
    """Talks to a zone's own process on its loopback address."""

    def push(self, *, app: str, commit: str, branch: str, pushed_by: str) -> dict[str, Any]:
        """Hand a pushed commit to the build zone's process."""
        body = {"app": app, "commit": commit, "branch": branch, "pushed_by": pushed_by}
        return self._object("POST", "/pushes", content=json.dumps(body).encode())

    def events(self, app: str, commit: str, *, idle: float = 300.0) -> Iterator[dict[str, Any]]:
        """Yield the events of a commit as they come; the last one carries the verdict.

        Raises:
            TemporaryError: the process went away, or said nothing for `idle` seconds.
        """
        try:
            timeout = httpx.Timeout(idle, connect=3.0)
            with self._client.stream("GET", f"/pushes/{app}/{commit}/events", timeout=timeout) as answer:
                if answer.status_code != httpx.codes.OK:
                    raise self._error(answer.status_code, self._limited(answer, MAX_EVENT), "/pushes")
                for line in answer.iter_lines():
                    if len(line) > MAX_EVENT:
                        raise PermanentError("An event is too large.", where=self.url)
                    if line.strip():
                        yield self._event(line)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def _event(self, line: str) -> dict[str, Any]:
        try:
            event = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise PermanentError("An event is not JSON.", where=self.url) from error
        if not isinstance(event, dict):
            raise PermanentError("An event is not a JSON object.", where=self.url)
        return event
