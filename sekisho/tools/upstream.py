"""Official downloads: whether they can be had, and fetching them so that only the right bytes get in.

Formats: a checksum file is what sha256sum(1) prints, or the bare hexadecimal digest (dl.k8s.io).
"""

from __future__ import annotations

import hashlib
import http.client
import queue
import re
import ssl
import tarfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from sekisho.errors import PermanentError, TemporaryError, VerificationError

PROBE_SECONDS = 3.0
SOCKET_SECONDS = 30.0
DOWNLOAD_SECONDS = 1200.0
DOWNLOAD_LIMIT = 512 << 20
_CHECKSUM_LIMIT = 1 << 16
_CHUNK = 1 << 18
_HEX = re.compile(r"(?<![0-9a-fA-F])[0-9a-fA-F]{64}(?![0-9a-fA-F])")
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_FAULTS = (OSError, http.client.HTTPException, ssl.SSLError)


@dataclass(frozen=True)
class Reach:
    """Whether an address answers, and if not, why."""

    ok: bool
    why: str = ""


def probe(urls: Mapping[str, str], *, limit: float = PROBE_SECONDS) -> dict[str, Reach]:
    """Ask every address for its head, all at once; answer after `limit` seconds at the latest.

    Args:
        urls: a name for each address.
        limit: seconds in all; who has not answered by then is not reachable.
    """
    answers: queue.SimpleQueue[tuple[str, Reach]] = queue.SimpleQueue()

    def ask(name: str, url: str) -> None:
        answers.put((name, _head(url, limit)))

    # Daemon threads: a name server that never answers must hold up neither the choice nor the end of the program.
    for name, url in urls.items():
        threading.Thread(target=ask, args=(name, url), daemon=True).start()
    end = time.monotonic() + limit
    found: dict[str, Reach] = {}
    while len(found) < len(urls):
        try:
            name, reach = answers.get(timeout=max(0.0, end - time.monotonic()))
        except queue.Empty:
            break
        found[name] = reach
    return {name: found.get(name, Reach(ok=False, why=f"no answer in {limit:g} s")) for name in urls}


def _head(url: str, limit: float) -> Reach:
    try:
        with _open(url, method="HEAD", timeout=limit):
            return Reach(ok=True)
    except PermanentError as error:
        return Reach(ok=False, why=error.what)
    except _FAULTS as error:
        return Reach(ok=False, why=_brief(error))


def published_checksum(url: str, name: str = "") -> str:
    """Return the hexadecimal sha256 that a checksum file gives.

    Args:
        url: address of the file.
        name: the file to look for, where the checksums of several stand in one.

    Raises:
        TemporaryError: it cannot be fetched, or holds no digest.
    """
    try:
        with _open(url, timeout=SOCKET_SECONDS) as response:
            text = response.read(_CHECKSUM_LIMIT).decode("utf-8", "replace")
    except _FAULTS as error:
        raise TemporaryError(f"The checksum cannot be fetched: {_brief(error)}", where=url) from error
    lines = [line for line in text.splitlines() if not name or line.split()[1:] in ([name], [f"*{name}"])]
    match = _HEX.search("\n".join(lines))
    if match is None:
        of = f" of {name}" if name else ""
        raise TemporaryError(f"The checksum file holds no sha256 digest{of}.", where=url)
    return match[0].lower()


def download(url: str, target: Path, sha256: str, *, attempts: int = 3, seconds: float = DOWNLOAD_SECONDS) -> None:
    """Fetch a file whose digest is known. What is wrong does not stay.

    Raises:
        VerificationError: all of it came, and it is not what the checksum says.
        TemporaryError: it did not come, or not all of it, in any of the attempts.
    """
    for attempt in range(1, attempts + 1):
        try:
            digest = _fetch(url, target, time.monotonic() + seconds)
        except TemporaryError:
            target.unlink(missing_ok=True)
            if attempt == attempts:
                raise
            continue
        if digest != sha256:
            target.unlink(missing_ok=True)
            raise VerificationError(
                f"The download has sha256 {digest}, but {sha256} is due.",
                where=url,
                remedy="Do not use it. Try again later; if it stays so, tell the mirror's or the project's owners.",
            )
        return


def _fetch(url: str, target: Path, end: float) -> str:
    digest = hashlib.sha256()
    size = 0
    try:
        with _open(url, timeout=SOCKET_SECONDS) as response, target.open("wb") as out:
            due = response.headers.get("Content-Length", "")
            while chunk := response.read(_CHUNK):
                size += len(chunk)
                if size > DOWNLOAD_LIMIT:
                    raise PermanentError(f"The download is larger than {DOWNLOAD_LIMIT >> 20} MiB.", where=url)
                if time.monotonic() > end:
                    raise TemporaryError(f"The download takes too long: {size} of {due or '?'} bytes came.", where=url)
                digest.update(chunk)
                out.write(chunk)
    except _FAULTS as error:
        raise TemporaryError(f"The download broke off: {_brief(error)}", where=url) from error
    # http.client does not report a body that ends early when it is read in pieces.
    if due.isdecimal() and size != int(due):
        raise TemporaryError(f"The download broke off: {size} of {due} bytes came.", where=url)
    return digest.hexdigest()


def unpack_member(archive: Path, member: str, target: Path) -> None:
    """Write one file of a tar archive to `target`; nothing else of the archive is looked at.

    Raises:
        PermanentError: not an archive, or the member is not a plain file in it.
    """
    try:
        with tarfile.open(archive, "r:*") as tar:
            for info in tar:
                if info.name.removeprefix("./") == member and info.isfile() and info.size <= DOWNLOAD_LIMIT:
                    source = tar.extractfile(info)
                    if source is not None:
                        _copy(source, target)
                        return
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise PermanentError(f"The archive cannot be read: {error}", where=archive.name) from error
    raise PermanentError(f"The archive holds no file {member}.", where=archive.name)


def _copy(source: IO[bytes], target: Path) -> None:
    with target.open("wb") as out:
        while chunk := source.read(_CHUNK):
            out.write(chunk)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never from https to something weaker."""

    def redirect_request(  # noqa: PLR0917 - urllib's signature
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        _check(newurl)
        following = super().redirect_request(req, fp, code, msg, headers, newurl)
        if following is not None:
            following.method = req.get_method()
        return following


def _open(url: str, *, timeout: float, method: str = "GET") -> Any:
    _check(url)
    opener = urllib.request.build_opener(_Redirects)
    request = urllib.request.Request(url, method=method, headers={"User-Agent": "sekisho"})  # noqa: S310 - _check
    return opener.open(request, timeout=timeout)


def _check(url: str) -> None:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        return
    raise PermanentError(
        "A download must come over https.", where=url, remedy="Give the mirror's address with https://."
    )


def _brief(error: Exception) -> str:
    if isinstance(error, urllib.error.URLError) and not isinstance(error, urllib.error.HTTPError):
        return str(error.reason)[:200]
    return (str(error) or type(error).__name__)[:200]
