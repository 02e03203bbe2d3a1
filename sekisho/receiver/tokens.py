"""Who may push, and where to. A pusher has a name and a token; kept is only the token's sha256."""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import hmac
import json
import os
import secrets
import tempfile
from pathlib import Path

from pydantic import Field

from sekisho.errors import PermanentError
from sekisho.model import NAME_PATTERN, Document

_NOBODY = hashlib.sha256(b"").hexdigest()
_MAX_CREDENTIALS = 1024


class Token(Document):
    """One token. Several may have the same name: a new one is handed out before the old one goes."""

    name: str = Field(pattern=NAME_PATTERN)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    repositories: tuple[str, ...]
    """Shell globs of repository names, for example `guestbook` or `team-a-*`."""


class Tokens(Document):
    """The file tokens.json."""

    tokens: tuple[Token, ...]


class Pusher(Document):
    """Somebody who showed a valid token."""

    name: str
    repositories: tuple[str, ...]

    def may_use(self, repository: str) -> bool:
        """Return whether a repository is one of the pusher's own."""
        return any(fnmatch.fnmatchcase(repository, pattern) for pattern in self.repositories)


def new_token(name: str, repositories: tuple[str, ...]) -> tuple[str, Token]:
    """Make a token of 256 random bits: the secret to hand out once, and what to keep."""
    secret = secrets.token_urlsafe(32)
    return secret, Token(name=name, sha256=hashlib.sha256(secret.encode()).hexdigest(), repositories=repositories)


def load_tokens(path: Path) -> tuple[Token, ...]:
    """Read tokens.json.

    Raises:
        PermanentError: it cannot be read.
        Refusal: it is not valid.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PermanentError(
            f"The tokens cannot be read: {error.strerror}.", where=str(path), remedy="sekisho up writes the file."
        ) from error
    return Tokens.parse(data, where=str(path)).tokens


def save_tokens(path: Path, tokens: tuple[Token, ...]) -> None:
    """Write tokens.json in one step, mode 0640."""
    data = json.dumps(Tokens(tokens=tokens).model_dump(mode="json"), indent=2).encode() + b"\n"
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
        os.fchmod(file.fileno(), 0o640)
    Path(file.name).replace(path)


def authenticate(tokens: tuple[Token, ...], authorization: str) -> Pusher | None:
    """Return who an `Authorization` header (RFC 7617, Basic) belongs to, or None.

    Every token is compared, in constant time, so that the time taken tells neither which name nor which digit is wrong.
    """
    name, secret = _credentials(authorization)
    shown = hashlib.sha256(secret.encode()).hexdigest() if secret else _NOBODY
    found: list[Token] = []
    for token in tokens:
        same_name = hmac.compare_digest(token.name.encode(), name.encode())
        same_secret = hmac.compare_digest(token.sha256, shown)
        if same_name & same_secret & bool(secret):
            found.append(token)
    if not found:
        return None
    return Pusher(name=found[0].name, repositories=tuple(glob for token in found for glob in token.repositories))


def _credentials(authorization: str) -> tuple[str, str]:
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic" or len(encoded) > _MAX_CREDENTIALS:
        return "", ""
    try:
        name, _, secret = base64.b64decode(encoded.strip(), validate=True).decode("utf-8").partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return name, secret
