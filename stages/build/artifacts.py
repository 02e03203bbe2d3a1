"""Fetching what a lock names, by hash, into a store that is never believed.

This runs outside the sandbox, since it needs the package indexes, and it runs no code of any package. What decides is
the lock: every digest that it declares must hold, each time a file is used. A file in the store that does not hold
them is dropped and fetched anew; one from an index that does not hold them is refused.
"""

from __future__ import annotations

import fcntl
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sekisho.errors import PermanentError, Refusal, SekishoError, TemporaryError
from stages.build.artifacts_digests import DIGESTS, declared
from stages.build.artifacts_layout import Fetched, is_laid_out, lay_out, link, names_of
from stages.build.artifacts_store import DEFAULT_LIMIT, Store, Use, key_of
from stages.build.disk import full_disk_said
from stages.build.indexes import Indexes
from stages.build.indexes_http import IndexClient
from stages.build.language import Artifact
from stages.build.locks import Locked
from stages.build.wheels import choose_files

__all__ = ["Fetched", "Fetcher", "Wheel", "lay_out"]

MAX_FILE = 512 << 20
MAX_ARTIFACTS = 20_000
MAX_ALL = 4 << 30
_CONNECTIONS = 24
_HASHERS = 4
_TRIM_EVERY = 64 << 20
_GONE = {401, 403, 404, 410, 451}
"""How indexes say that a file is not there: some say so rather by denying it."""
_OK = 200


@dataclass(frozen=True)
class Wheel:
    """One fetched file of a Python package; its bytes have one of the locked hashes."""

    locked: Locked
    fetched: Fetched

    @property
    def name(self) -> str:
        """File name, which pip and uv read."""
        return self.fetched.artifact.save_as

    @property
    def path(self) -> Path:
        """The file in the store."""
        return self.fetched.path

    @property
    def sha256(self) -> str:
        """Its digest, in hexadecimal."""
        return self.fetched.sha256


class Fetcher:
    """Gives the files of locks, from the store or from the indexes. Safe for use by several threads and processes.

    Args:
        cache: folder of the store; made if missing; on one file system with the folders that are laid out.
        indexes: where to fetch from.
        limit: bytes that the store may hold.
    """

    def __init__(self, cache: Path, indexes: Indexes, *, limit: int = DEFAULT_LIMIT) -> None:
        self._cache = cache
        self._indexes = indexes
        self._store = Store(cache / "artifacts", limit=limit)
        self._client = IndexClient(indexes)
        self._came = _TRIM_EVERY  # so that the first download of a process looks after the limit
        self._lock = threading.Lock()

    def files(self, artifacts: Sequence[Artifact]) -> tuple[Fetched, ...]:
        """Return the files, in the order of the artifacts.

        Raises:
            Refusal: a file is not there any more, is not what the lock says, or is too large.
            TemporaryError: an index cannot be reached.
            PermanentError: an index does not accept the line's login, certificate or proxy.
        """
        if not artifacts:
            return ()
        wanted = _Wanted.of(artifacts)
        with full_disk_said(), self._store.shared():
            use = self._store.use(wanted.key)
            found = self._present(wanted, use)
        missing = [key for key in wanted.by_key if key not in found]
        if missing:
            with full_disk_said():
                found |= self._download({key: wanted.by_key[key] for key in missing}, use)
        return tuple(
            Fetched(artifact, self._store.path(found[key]), found[key], use)
            for artifact, key in zip(artifacts, wanted.keys, strict=True)
        )

    def wheels(self, packages: Sequence[Locked], *, python: str = "3.11") -> tuple[Wheel, ...]:
        """Return the files of a Python lock: wheels, and source packages where no wheel fits.

        Args:
            packages: what the lock pins.
            python: version of the target's Python.

        Raises:
            Refusal: a package has no file for the target, or the index has other bytes than the lock says.
            TemporaryError: an index cannot be reached.
            PermanentError: an index does not accept the line's login, certificate or proxy, or cannot be read.
        """
        chosen = choose_files(packages, self._client, self._cache / "choices", python=python)
        fetched = self.files([choice.artifact for choice in chosen])
        return tuple(Wheel(choice.locked, file) for choice, file in zip(chosen, fetched, strict=True))

    @contextmanager
    def laid_out(self, fetched: Sequence[Fetched]) -> Iterator[Path]:
        """Yield a folder with the files under the names that the sandbox sees; it is kept for the next build.

        Its hard links are checked each time: exactly these names, each the very file that was checked.

        Raises:
            Refusal: two files want one name, or a name is not plain.
        """
        names = names_of(fetched)
        key = key_of("laid-out", *sorted(f"{item.sha256} {name}" for name, item in names.items()))
        with full_disk_said():
            with self._store.shared():
                use = self._store.use(key)
                use.add(item.sha256 for item in fetched)
            folder = self._store.set_folder(key) / "packages"
            if not is_laid_out(names, folder):
                self._lay_out_anew(names, folder)
        try:
            yield folder
        finally:
            use.close()

    def _lay_out_anew(self, names: Mapping[str, Fetched], folder: Path) -> None:
        with (folder.parent / "making").open("w") as making:
            fcntl.flock(making, fcntl.LOCK_EX)
            if is_laid_out(names, folder):  # another build made the same meanwhile
                return
            made = Path(tempfile.mkdtemp(dir=folder.parent, prefix="new-"))
            try:
                link(names, made)
                if folder.exists() or folder.is_symlink():
                    # Another build may have it mounted, so it is not emptied; it goes when the set goes.
                    folder.replace(made.with_name(f"{made.name}.old"))
                made.replace(folder)
            finally:
                shutil.rmtree(made, ignore_errors=True)
        # A link more is a change of the file: it is read once more now, and not by the next build.
        with ThreadPoolExecutor(_HASHERS) as pool:
            good = pool.map(lambda item: self._check(item.sha256, declared(item.artifact)), names.values())
            if not all(good):
                raise TemporaryError("The store of packages was changed during a build.", where=str(self._store.root))

    # -- from the store ----------------------------------------------------------------------------------------------

    def _present(self, wanted: _Wanted, use: Use) -> dict[str, str]:
        """Return the sha256 of what is in the store and holds, by key; drop what does not."""
        candidates = {key: self._candidate(key, wanted) for key in wanted.by_key}
        candidates = {key: sha256 for key, sha256 in candidates.items() if sha256}
        use.add(candidates.values())
        found: dict[str, str] = {}
        unread: dict[str, str] = {}
        for key, sha256 in candidates.items():
            kinds = wanted.declared[key]
            try:
                known = DIGESTS.remembered(self._store.name(sha256), kinds)
            except OSError:
                continue
            if known is None:
                unread[key] = sha256
            elif known["sha256"] == sha256 and _holds(known, kinds):
                found[key] = sha256
            else:
                unread[key] = sha256
        if unread:
            with ThreadPoolExecutor(_HASHERS) as pool:
                checked = pool.map(lambda key: self._check(unread[key], wanted.declared[key]), unread)
                found |= {key: unread[key] for key, good in zip(unread, checked, strict=True) if good}
        return found

    def _candidate(self, key: str, wanted: _Wanted) -> str:
        artifact, digests = wanted.by_key[key], wanted.declared[key]
        if "sha256" in digests:
            return digests["sha256"]
        return self._store.hint(*_hint(digests)) or self._store.hint(artifact.ecosystem, artifact.path)

    def _check(self, sha256: str, digests: Mapping[str, str]) -> bool:
        try:
            actual = DIGESTS.of(self._store.path(sha256), digests)
        except FileNotFoundError:
            return False
        except OSError:
            self._store.drop(sha256)
            return False
        if actual["sha256"] != sha256:
            self._store.drop(sha256)
            return False
        return _holds(actual, digests)

    # -- from the indexes --------------------------------------------------------------------------------------------

    def _download(self, artifacts: Mapping[str, Artifact], use: Use) -> dict[str, str]:
        total = _Total()
        with ThreadPoolExecutor(min(_CONNECTIONS, len(artifacts))) as pool:
            waiting = {key: pool.submit(self._fetch, artifact, use, total) for key, artifact in artifacts.items()}
            try:
                wait(waiting.values(), return_when=FIRST_EXCEPTION)
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
        errors = [future.exception() for future in waiting.values() if not future.cancelled() and future.exception()]
        # A NO counts more than a fault that may pass: trying again would end in it.
        for kind in (Refusal, PermanentError, SekishoError, BaseException):
            first = next((error for error in errors if isinstance(error, kind)), None)
            if first is not None:
                raise first
        with self._lock:
            self._came += total.bytes
            trim, self._came = (True, 0) if self._came >= _TRIM_EVERY else (False, self._came)
        if trim:
            self._store.trim()
        return {key: future.result() for key, future in waiting.items()}

    def _fetch(self, artifact: Artifact, use: Use, total: _Total) -> str:
        digests = declared(artifact)
        with self._store.part() as part:
            try:
                answer = self._client.get(artifact.ecosystem, artifact.path, part, limit=MAX_FILE)
            except SekishoError as error:
                raise _named(artifact, error) from error
            if answer.status in _GONE:
                raise _vanished(artifact, answer.status)
            if answer.status != _OK:
                raise PermanentError(
                    f"The package index answers {answer.status} for {artifact.path}.", where=artifact.where
                )
            total.add(answer.size, artifact)
            actual = DIGESTS.of(part, digests)
            if not _holds(actual, digests):
                raise _changed(artifact, digests, actual)
            while not self._store.keep(part, actual["sha256"], use):
                # Somebody else's copy came first: it stays if it is good, since builds may use it already.
                if self._check(actual["sha256"], digests):
                    break
        self._store.note(actual["sha256"], *_hint(digests))
        return actual["sha256"]


@dataclass(frozen=True)
class _Wanted:
    """What a call asks for, each file once."""

    keys: tuple[str, ...]
    by_key: Mapping[str, Artifact]
    declared: Mapping[str, Mapping[str, str]]
    key: str

    @classmethod
    def of(cls, artifacts: Sequence[Artifact]) -> _Wanted:
        if len(artifacts) > MAX_ARTIFACTS:
            raise Refusal(
                f"The lock file names {len(artifacts)} files; {MAX_ARTIFACTS} are the most.",
                where=artifacts[0].where,
                remedy="Make several workloads of it.",
            )
        keys, by_key, digests = [], {}, {}
        for artifact in artifacts:
            said = declared(artifact)
            key = " ".join((artifact.ecosystem, artifact.path, *sorted(artifact.digests)))
            keys.append(key)
            if key not in by_key:
                by_key[key] = artifact
                digests[key] = said
        return cls(tuple(keys), by_key, digests, key_of("fetched", *sorted(by_key)))


class _Total:
    """Bytes that one call has downloaded."""

    def __init__(self) -> None:
        self.bytes = 0
        self._lock = threading.Lock()

    def add(self, size: int, artifact: Artifact) -> None:
        with self._lock:
            self.bytes += size
            if self.bytes > MAX_ALL:
                raise Refusal(
                    f"The packages of the lock file are larger than {MAX_ALL >> 30} GiB.",
                    where=artifact.where,
                    remedy="Make several workloads of it.",
                )


def _holds(actual: Mapping[str, str], digests: Mapping[str, str]) -> bool:
    return bool(digests) and all(actual.get(kind) == value for kind, value in digests.items())


def _hint(digests: Mapping[str, str]) -> tuple[str, ...]:
    return ("digests", *(f"{kind}:{value}" for kind, value in sorted(digests.items())))


def _vanished(artifact: Artifact, status: int) -> Refusal:
    return Refusal(
        f"A dependency vanished: the {artifact.ecosystem} index has no {artifact.path} any more ({status}).",
        where=artifact.where,
        remedy="Choose a version that the index still has, and lock again.",
    )


def _changed(artifact: Artifact, digests: Mapping[str, str], actual: Mapping[str, str]) -> Refusal:
    kind = next(kind for kind, value in sorted(digests.items()) if actual.get(kind) != value)
    return Refusal(
        f"A dependency changed its hash: the {artifact.ecosystem} index gives {artifact.path} with {kind} "
        f"{actual.get(kind) or 'none'}, locked is {digests[kind]}.",
        where=artifact.where,
        remedy="Find out why the package changed before you lock it again: a supply chain attack looks like this.",
    )


def _named(artifact: Artifact, error: SekishoError) -> SekishoError:
    """Return the same error with the package's name and its place in the lock file."""
    what = f"{artifact.path} cannot be fetched. {error.what}"
    where = ", ".join(part for part in (artifact.where, error.where) if part)
    if isinstance(error, TemporaryError):
        return TemporaryError(what, where=where, remedy=error.remedy, delay=error.delay)
    kind = Refusal if isinstance(error, Refusal) else PermanentError
    return kind(what, where=where, remedy=error.remedy)
