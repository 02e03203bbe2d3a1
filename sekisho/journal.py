"""A durable, append-only file of lines.

One line is one record; it counts once its newline is on the disk. What a crash leaves behind the last newline was never
acknowledged and is cut off by the next append.
"""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

from sekisho.errors import PermanentError, TemporaryError

MAX_LINE = 1 << 20


class Journal:
    """Lines that survive a kill -9 and a power cut. Safe between threads and between processes.

    Args:
        path: the file; it and its directory are made at the first append.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._offset = 0
        self._lines: list[bytes] = []

    def lines(self) -> tuple[bytes, ...]:
        """Return every complete line, without its newline.

        Raises:
            PermanentError: the file was cut or replaced by something else than an append.
            TemporaryError: it cannot be read.
        """
        with self._lock:
            try:
                with self.path.open("rb") as file:
                    self._read(file.fileno())
            except FileNotFoundError:
                if self._offset:
                    raise self._shrunk() from None
            except OSError as error:
                raise self._unusable(error) from error
            return tuple(self._lines)

    def append(self, line: bytes) -> None:
        """Add one line and wait until the disk has it.

        Raises:
            ValueError: the line holds a newline, is empty or too long.
            TemporaryError: the disk did not take it; nothing was added.
        """
        if not line or b"\n" in line or len(line) > MAX_LINE:
            raise ValueError("a record is one line of 1 byte to 1 MiB")
        with self._lock:
            try:
                created = self._make()
                descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX)
                    self._read(descriptor)
                    self._write(descriptor, line + b"\n")
                finally:
                    os.close(descriptor)
                if created:
                    _sync_directory(self.path.parent)
            except OSError as error:
                raise self._unusable(error) from error

    def _make(self) -> bool:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o640))
        except FileExistsError:
            return False
        return True

    def _read(self, descriptor: int) -> None:
        size = os.fstat(descriptor).st_size
        if size < self._offset:
            raise self._shrunk()
        while size > self._offset:
            piece = os.pread(descriptor, size - self._offset, self._offset)
            complete = piece[: piece.rfind(b"\n") + 1]
            if not complete:
                return
            self._lines.extend(complete.split(b"\n")[:-1])
            self._offset += len(complete)

    def _write(self, descriptor: int, data: bytes) -> None:
        os.ftruncate(descriptor, self._offset)
        try:
            written = os.pwrite(descriptor, data, self._offset)
            if written != len(data):
                raise OSError(f"{written} of {len(data)} bytes were written")  # noqa: TRY301
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, self._offset)
            raise
        self._lines.append(data[:-1])
        self._offset += len(data)

    def _shrunk(self) -> PermanentError:
        return PermanentError(
            "A journal is shorter than it was.",
            where=str(self.path),
            remedy="Somebody cut or removed it while the zone ran: restart the zone's process.",
        )

    def _unusable(self, error: OSError) -> TemporaryError:
        return TemporaryError(
            f"A journal cannot be used: {error.strerror or error}.",
            where=str(self.path),
            remedy="Free space on the disk, or mend the directory's owner.",
        )


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
