"""The credentials of bound services. They stay in their zone and leave the vault only at the moment of apply.

`Vault` is the interface that a KMS or a secret manager can stand behind; `FileVault` is the embedded default.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from sekisho.canonical import canonical
from sekisho.errors import PermanentError, Refusal

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_KEY_BYTES = 32
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class Vault(Protocol):
    """Keeps the Service Binding entries of each app's needs."""

    def get(self, app: str, need: str) -> dict[str, str] | None:
        """Return the entries of a need, or None."""
        ...

    def put(self, app: str, need: str, entries: Mapping[str, str]) -> None:
        """Keep the entries of a need, in place of earlier ones; all or nothing."""
        ...

    def key(self) -> bytes:
        """Return the vault's own random key, for fingerprints."""
        ...


def fingerprint(vault: Vault, entries: Mapping[str, str]) -> str:
    """Return the HMAC-SHA256 of the canonical entries under the vault's key, as `hmac-sha256:<hex>`.

    It changes when a credential changes and gives nothing away, not even to who guesses passwords.
    """
    digest = hmac.new(vault.key(), canonical(dict(entries)), hashlib.sha256)
    return f"hmac-sha256:{digest.hexdigest()}"


class FileVault:
    """A folder of mode 0700 with one file of mode 0600 for each need.

    Args:
        root: the folder; made when missing.

    Raises:
        PermanentError: the folder is open to others, or belongs to somebody else.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        try:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise PermanentError(f"The vault cannot be made: {error.strerror}.", where=str(root)) from error
        _check(root.lstat(), root, folder=True)

    def get(self, app: str, need: str) -> dict[str, str] | None:
        """Return the entries of a need, or None.

        Raises:
            Refusal: a name that is not a name.
            PermanentError: the file is open to others or damaged.
        """
        path = self._path(app, need)
        data = _read(path)
        if data is None:
            return None
        try:
            entries = json.loads(data)
        except ValueError as error:
            raise PermanentError("A file of the vault is damaged.", where=str(path)) from error
        if not isinstance(entries, dict) or not all(isinstance(value, str) for value in entries.values()):
            raise PermanentError("A file of the vault is damaged.", where=str(path))
        return entries

    def put(self, app: str, need: str, entries: Mapping[str, str]) -> None:
        """Keep the entries of a need, atomically."""
        path = self._path(app, need)
        draft = self._draft(canonical(dict(entries)))
        try:
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
        self._sync()

    def key(self) -> bytes:
        """Return the vault's key; the first call makes it."""
        path = self._root / "fingerprint.key"
        data = _read(path)
        if data is None:
            draft = self._draft(secrets.token_bytes(_KEY_BYTES))
            try:
                os.link(draft, path)  # unlike a rename, this lets only the first of two win
            except FileExistsError:
                pass
            finally:
                draft.unlink(missing_ok=True)
            self._sync()
            data = _read(path)
        if data is None or len(data) != _KEY_BYTES:
            raise PermanentError("The vault's key is damaged.", where=str(path))
        return data

    def _path(self, app: str, need: str) -> Path:
        for name in (app, need):
            if not _NAME.fullmatch(name):
                raise Refusal(f"{name[:80]!r} cannot name something in the vault.")
        return self._root / f"{app}.{need}.json"

    def _draft(self, data: bytes) -> Path:
        path = self._root / f".draft-{secrets.token_hex(8)}"
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            path.unlink(missing_ok=True)
            raise PermanentError(f"The vault cannot be written: {error.strerror}.", where=str(self._root)) from error
        return path

    def _sync(self) -> None:
        handle = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _read(path: Path) -> bytes | None:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise PermanentError(f"A file of the vault cannot be read: {error.strerror}.", where=str(path)) from error
    with os.fdopen(handle, "rb") as file:
        _check(os.fstat(file.fileno()), path, folder=False)
        return file.read()


def _check(status: os.stat_result, path: Path, *, folder: bool) -> None:
    kind = stat.S_ISDIR if folder else stat.S_ISREG
    if not kind(status.st_mode):
        raise PermanentError("The vault holds something that is not its own.", where=str(path))
    if status.st_mode & _OTHERS:
        raise PermanentError(
            f"The vault is open to others (mode {stat.S_IMODE(status.st_mode):04o}).",
            where=str(path),
            remedy=f"chmod {'0700' if folder else '0600'} it, and change the credentials it held.",
        )
    if status.st_uid != os.geteuid():
        raise PermanentError("The vault belongs to another user.", where=str(path))
