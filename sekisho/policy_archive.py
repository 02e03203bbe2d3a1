"""A policies folder as one file, so that a verdict can be given again from what was in force when it was given.

The archive is a POSIX tar (ustar) that anybody can unpack: regular files only, sorted by name, no owner, no time, one
mode. The same files give the same bytes, and only such bytes are read: what is not exactly what packing its own files
makes is refused, so that one folder has one archive and nothing hides in a header.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Mapping
from pathlib import Path

from sekisho.errors import PermanentError, Refusal

ARCHIVE_TYPE = "application/vnd.sekisho.policies.v1.tar"
ARCHIVE_LIMIT = 16 << 20
"""Bytes of an archive."""
_FILES_LIMIT = 1000
_NAME = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9._-]*/){0,5}[A-Za-z0-9_][A-Za-z0-9._-]*")
_NAME_LIMIT = 100
"""Characters: what ustar's name field takes without a prefix."""


def policy_files(folder: Path) -> dict[str, Path]:
    """Return the files of a policies folder that count, by their name in it: all but Markdown and hidden ones."""
    return {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".md" and not path.name.startswith(".")
    }


def pack_policies(folder: Path) -> bytes:
    """Return the archive of a policies folder.

    Raises:
        PermanentError: a file cannot be read, has a name that others may read otherwise, or there is too much.
    """
    content: dict[str, bytes] = {}
    for name, path in policy_files(folder).items():
        if not _NAME.fullmatch(name) or len(name) > _NAME_LIMIT:
            remedy = "Use letters, digits, '.', '_' and '-', at most 100 of them."
            raise PermanentError("A file of the policies has a name that cannot be kept.", where=name, remedy=remedy)
        try:
            content[name] = path.read_bytes()
        except OSError as error:
            raise PermanentError(f"A file of the policies cannot be read: {error.strerror}.", where=name) from error
    data = _pack(content)
    if len(data) > ARCHIVE_LIMIT or len(content) > _FILES_LIMIT:
        raise PermanentError(
            f"The policies are larger than {ARCHIVE_LIMIT} bytes, or more than {_FILES_LIMIT} files.",
            where=str(folder),
            remedy="Keep only policies in this folder.",
        )
    return data


def read_archive(data: bytes) -> dict[str, bytes]:
    """Return the files of an archive, by name.

    Raises:
        Refusal: it is not exactly what `pack_policies` makes.
    """
    if len(data) > ARCHIVE_LIMIT:
        raise Refusal(f"The archive of the policies is larger than {ARCHIVE_LIMIT} bytes.")
    content: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            for member in tar:
                # Whatever tar knows beyond a plain file could be read in two ways: links, holes, extended headers.
                plain = member.type == tarfile.REGTYPE and not member.pax_headers and member.sparse is None
                if not plain or not _NAME.fullmatch(member.name) or len(content) >= _FILES_LIMIT:
                    raise Refusal("The archive of the policies holds something else than plain files.")
                file = tar.extractfile(member)
                content[member.name] = file.read() if file else b""
    except (tarfile.TarError, OSError, ValueError, EOFError) as error:
        raise Refusal("The archive of the policies is not a tar file.") from error
    if _pack(content) != data:
        raise Refusal("The archive of the policies is not in its one form.")
    return content


def unpack_policies(data: bytes, folder: Path) -> None:
    """Write the files of an archive into an empty folder of one's own.

    Raises:
        Refusal: it is not exactly what `pack_policies` makes.
    """
    for name, content in read_archive(data).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _pack(content: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in sorted(content):
            info = tarfile.TarInfo(name)
            info.size = len(content[name])
            info.mode = 0o644
            tar.addfile(info, io.BytesIO(content[name]))
    return buffer.getvalue()
