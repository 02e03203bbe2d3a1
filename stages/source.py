"""The source stage: one commit of a bare repository, as a Revision and as files.

The receiver owns the repositories, a developer owns what is in them. So git is run without any configuration but
the repository's own, without hooks, filters, transports or replace objects, and the files are written from git's
objects by this module: no checkout, no attributes, no smudge filter ever runs. Formats: git-ls-tree(1),
git-cat-file(1), git-lfs specification `docs/spec.md`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO

from sekisho.errors import PermanentError, Refusal, TemporaryError
from sekisho.model import COMMIT_PATTERN, Revision
from stages.build.disk import full_disk_said
from stages.lfs import POINTER_SIZE, is_pointer, refuse_pointers
from stages.trees import FOLDER, LINK, REGULAR, SUBMODULE, Limits, TreeEntry, check_entries, check_links, check_name

_COMMIT = re.compile(COMMIT_PATTERN)
_CHUNK = 1 << 20
_SECONDS = 120
"""For one answer of git, and for the list of a commit's files."""
_WRITE_SECONDS = 600
"""For all files of a commit."""
_ALLOCATION = "600m"
"""The largest piece of memory that git may ask for; above the largest file, whose bytes it has in memory at worst."""
_ATTRIBUTES_LIMIT = 1 << 20
_LATEST = (1 << 33) - 1
"""What the header of a tar archive can say, eleven octal digits: March 2242."""
_COMMIT_SIZE = 1 << 20


def revision(repository: Path, app: str, commit: str, branch: str, *, path: str = ".") -> Revision:
    """Return the Revision of a commit.

    Args:
        repository: a bare git repository.
        app: name of the workload.
        commit: full commit id, 40 hexadecimal digits; a branch name is not one.
        branch: the branch it was pushed to; kept for people, never trusted.
        path: folder of the workload inside the repository.

    Raises:
        Refusal: no such commit, or its message or time is absurd.
    """
    _check_commit(repository, commit)
    if int(_git(repository, "cat-file", "-s", commit)) > _COMMIT_SIZE:
        raise Refusal(
            f"The commit's message and names have more than {_COMMIT_SIZE >> 20} MiB.",
            where=commit,
            remedy="Commit again with a shorter message: git commit --amend.",
        )
    if path != ".":
        check_name(path, where=app)
    form = "--format=%T%x00%an <%ae>%x00%ct"
    fields = _git(repository, "show", "-s", "--no-show-signature", "--encoding=UTF-8", form, commit)
    tree, author, time = fields.decode("utf-8", "replace").rstrip("\n").split("\0")
    if not time.isdigit() or int(time) > _LATEST:
        raise Refusal(
            f"The commit's time {time[:40]!r} is absurd: it has to be between 1970 and 2242.",
            where=commit,
            remedy="Set the clock right and date it anew: git commit --amend --no-edit --date=now; or, if it cannot be "
            "rewritten any more, commit on top of it: git commit --allow-empty -m 'The time is right again'.",
        )
    shown = "".join(letter for letter in author if letter.isprintable())[:200]
    return Revision(app=app, commit=commit, tree=tree, branch=branch, author=shown, committed_at=int(time), path=path)


def checkout(repository: Path, commit: str, target: Path, *, limits: Limits | None = None) -> Path:
    """Write exactly the files of a commit into a new folder.

    Args:
        repository: a bare git repository.
        commit: full commit id.
        target: folder to make; it must not exist. After an error it does not exist either.
        limits: how large the tree may be; the default is 50,000 files, as many folders, and 512 MiB.

    Returns:
        The target.

    Raises:
        Refusal: a submodule, an LFS pointer, a reserved name, a link that leads out, too large, no such commit.
        TemporaryError: the disk is full.
        PermanentError: the repository is damaged, or the target exists.
    """
    _check_commit(repository, commit)
    with closing(_entries(repository, commit)) as listed:
        entries = check_entries(listed, limits or Limits(), where=commit)
    with full_disk_said():
        try:
            target.mkdir(parents=True)
        except FileExistsError as error:
            raise PermanentError("The folder for the checkout exists already.", where=str(target)) from error
        try:
            _write(repository, commit, entries, target)
        except BaseException:
            shutil.rmtree(target, ignore_errors=True)
            raise
    return target


def workload(tree: Path, revision: Revision) -> Path:
    """Return the workload's folder inside a checkout.

    Raises:
        Refusal: there is no such folder, or a link stands in its place.
    """
    if revision.path == ".":
        return tree
    folder = tree
    for part in check_name(revision.path, where=revision.app).split("/"):
        folder = folder / part
        if folder.is_symlink() or not folder.is_dir():
            raise Refusal(
                f"The commit has no folder {revision.path!r}.",
                where=revision.app,
                remedy="Put the workload's score.yaml into a folder of the commit that is no link.",
            )
    return folder


def _check_commit(repository: Path, commit: str) -> None:
    if not _COMMIT.fullmatch(commit):
        raise Refusal(f"{commit[:60]!r} is not a full commit id.", remedy="Give all 40 hexadecimal digits.")
    if _git(repository, "cat-file", "-t", commit, missing=f"There is no commit {commit}.").strip() != b"commit":
        raise Refusal(f"{commit} is not a commit.", where=repository.name, remedy="Name a commit.")


def _entries(repository: Path, commit: str) -> Generator[TreeEntry, None, None]:
    for line in _listing(repository, commit):
        meta, _, name = line.partition(b"\t")
        mode, kind, blob, size = meta.decode("ascii").split()
        path = name.decode("utf-8", "surrogateescape")
        if kind == "commit":
            yield TreeEntry(SUBMODULE, path)  # whatever its mode; it has no size
        else:
            yield TreeEntry(mode, path, 0 if mode == FOLDER else int(size), blob)


def _listing(repository: Path, commit: str) -> Iterator[bytes]:
    """Yield the lines of `git ls-tree` as they come, those of folders too; whoever stops asking ends it."""
    arguments = ("ls-tree", "-r", "-t", "-z", "-l", "--full-tree", commit)
    with _running(repository, commit, *arguments, seconds=_SECONDS) as output:
        rest = b""
        while piece := os.read(output.fileno(), _CHUNK):
            *lines, rest = (rest + piece).split(b"\0")
            yield from lines


@contextmanager
def _running(
    repository: Path, commit: str, *arguments: str, seconds: float, stdin: IO[bytes] | int = subprocess.DEVNULL
) -> Iterator[IO[bytes]]:
    """Run git and give what it writes; it ends with the block, and at its deadline whatever it is doing."""
    late = threading.Event()
    with (
        tempfile.TemporaryFile() as complaint,
        subprocess.Popen(_command(repository, *arguments), env=_environment(), stdin=stdin, stdout=subprocess.PIPE,
                         stderr=complaint) as process,
    ):  # fmt: skip
        assert process.stdout is not None  # noqa: S101  (PIPE above)

        def end() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(seconds, end)
        timer.daemon = True
        timer.start()
        try:
            yield process.stdout
            if process.wait() != 0:
                complaint.seek(0)
                said = complaint.read(_CHUNK).decode("utf-8", "replace").strip()[:300]
                raise PermanentError(f"git failed: {said}", where=repository.name)  # noqa: TRY301
        except BaseException as error:
            process.kill()
            if late.is_set() and isinstance(error, Exception):
                raise Refusal(
                    f"git needs more than {seconds:g} seconds to read the commit's files.",
                    where=commit,
                    remedy="Push a commit with fewer and smaller files. If it has few, tell the platform team.",
                ) from error
            raise
        finally:
            timer.cancel()


def _write(repository: Path, commit: str, entries: Sequence[TreeEntry], target: Path) -> None:
    links: dict[str, str] = {}
    pointers: list[str] = []
    with tempfile.TemporaryFile() as wanted:
        wanted.write("".join(f"{entry.blob}\n" for entry in entries).encode())
        wanted.seek(0)
        with _running(repository, commit, "cat-file", "--batch", seconds=_WRITE_SECONDS, stdin=wanted) as output:
            for entry in entries:
                pointers += [entry.path] * _write_one(output, entry, target, links, commit)
    refuse_pointers(pointers, lambda path: _attributes(target / path), where=commit)
    check_links(links, where=commit)
    # Links come last: no file is ever written through one.
    for path, to in links.items():
        place = target / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(to)
    for folder in (target, *(path for path in target.rglob("*") if path.is_dir() and not path.is_symlink())):
        folder.chmod(0o755)  # whatever the umask: the sandbox's user reads it


def _attributes(path: Path) -> bytes:
    """Return a .gitattributes that was written; no link is there yet."""
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        return file.read(_ATTRIBUTES_LIMIT)


def _write_one(stream: IO[bytes], entry: TreeEntry, target: Path, links: dict[str, str], commit: str) -> bool:
    """Write one file, or note one link; returns whether the file is a pointer of Git LFS."""
    pointer = False
    header = stream.readline().decode("ascii", "replace").split()
    if header != [entry.blob, "blob", str(entry.size)]:
        raise PermanentError(
            f"The repository does not hold what its tree lists: {entry.path!r}.",
            where=commit,
            remedy="Run `git fsck` in the repository on the build zone.",
        )
    if entry.mode == LINK:
        links[entry.path] = _exactly(stream, entry.size).decode("utf-8", "surrogateescape")
    else:
        place = target / entry.path
        place.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with open(os.open(place, flags, 0o600), "wb") as file:  # noqa: PTH123  (flags)
            left = entry.size
            while left:
                piece = _exactly(stream, min(left, _CHUNK))
                pointer |= entry.size <= POINTER_SIZE and is_pointer(piece)
                file.write(piece)
                left -= len(piece)
            os.fchmod(file.fileno(), REGULAR[entry.mode])
    stream.read(1)
    return pointer


def _exactly(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise TemporaryError("git ended in the middle of a file.", remedy="Run the line again.")
    return data


def _environment() -> dict[str, str]:
    return {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "HOME": "/nonexistent",
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_ALLOC_LIMIT": _ALLOCATION,
    }


def _command(repository: Path, *arguments: str) -> list[str]:
    place = repository.absolute()
    settings = (f"safe.directory={place}", "protocol.allow=never", "core.hooksPath=/dev/null", "core.fsmonitor=false")
    flags = [flag for setting in settings for flag in ("-c", setting)]
    return ["git", "--no-pager", f"--git-dir={place}", *flags, *arguments]


def _git(repository: Path, *arguments: str, missing: str = "") -> bytes:
    try:
        done = subprocess.run(
            _command(repository, *arguments), env=_environment(), capture_output=True, check=False, timeout=_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise TemporaryError("git did not answer in time.", where=repository.name, delay=5.0) from error
    except OSError as error:
        raise PermanentError(f"git cannot be run: {error}", remedy="Install git on the build zone.") from error
    if done.returncode == 0:
        return done.stdout
    said = done.stderr.decode("utf-8", "replace").strip()[:300]
    if missing:
        raise Refusal(f"{missing} {said}", where=repository.name, remedy="Push the commit first.")
    raise PermanentError(f"git failed: {said}", where=repository.name)
