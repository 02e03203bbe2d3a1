"""Many writers at once on one image: threads, processes, and tools of others. Nothing of ours is lost."""

from __future__ import annotations

import itertools
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from peers import WITH_API, WITHOUT_API, running, write_key

from sekisho import registry_http, registry_referrers
from sekisho.canonical import Digest, digest_of, hex_of
from sekisho.evidence import attach_statement, find_statements
from sekisho.oci import OCI_INDEX, OCI_MANIFEST, Descriptor, Manifest, fallback_tag, make_index, read_index
from sekisho.registry import Registry
from sekisho.registry_referrers import own_prefix, own_tag
from sekisho.statements import PROVENANCE, SCAN, Statement, Subject

NOW = 1_790_000_000
PROCESSES, THREADS, EACH = 3, 2, 3
WRITER = """
import sys, threading
from pathlib import Path
from sekisho.evidence import attach_statement
from sekisho.keys import FileSigner
from sekisho.registry import Registry
from sekisho.statements import SCAN, Statement, Subject

url, repository, subject, key, name, threads, each = sys.argv[1:]
signer = FileSigner.load(Path(key), "scanner")

def write(thread):
    for number in range(int(each)):
        said = {"writer": name, "thread": thread, "number": number}
        statement = Statement(subjects=(Subject(digest=subject),), predicate_type=SCAN, predicate=said)
        attach_statement(Registry(url), repository, statement, signer)

writers = [threading.Thread(target=write, args=(number,)) for number in range(int(threads))]
[writer.start() for writer in writers]
[writer.join() for writer in writers]
"""


@pytest.fixture(scope="module", params=[*WITHOUT_API, *WITH_API])
def any_url(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "distribution":
        yield request.getfixturevalue("registry_url")
        return
    with running(request.param) as url:
        yield url


@pytest.fixture
def place(line, any_url):
    return type(line)(Registry(any_url), line.signers, line.trust)


def scan(image, **said):
    return Statement(subjects=(Subject(digest=image.digest),), predicate_type=SCAN, predicate=said)


def find(place, image, predicate_type=SCAN, role="scanner"):
    return find_statements(
        place.registry,
        image.repository,
        Digest(image.digest),
        trust=place.trust,
        role=role,
        predicate_type=predicate_type,
        at=NOW,
    )


def test_threads_and_processes_lose_nothing(place, tmp_path):
    """All are found by us, listed for everybody, and under the legacy tag: our own writers take turns."""
    image = place.image("writers")
    key = write_key(place.signers["scanner"], tmp_path / "scanner.pem")
    fixed = (place.registry.url, image.repository, image.digest, str(key))
    processes = [
        subprocess.Popen([sys.executable, "-c", WRITER, *fixed, f"process {number}", str(THREADS), str(EACH)])
        for number in range(PROCESSES)
    ]
    assert [process.wait(timeout=120) for process in processes] == [0] * PROCESSES

    due = {(f"process {a}", b, c) for a, b, c in itertools.product(range(PROCESSES), range(THREADS), range(EACH))}
    said = [item.statement.predicate for item in find(place, image)]
    assert {(item["writer"], item["thread"], item["number"]) for item in said} == due
    assert len(said) == len(due)
    assert len(place.registry.listed_referrers(image.repository, Digest(image.digest))) == len(due)
    legacy = place.registry.get_manifest(image.repository, f"sha256-{hex_of(image.digest)}.att")
    assert len(Manifest.parse(legacy.data).layers) == len(due)


@pytest.fixture(scope="module", params=WITHOUT_API)
def plain_url(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "distribution":
        yield request.getfixturevalue("registry_url")
        return
    with running(request.param) as url:
        yield url


@pytest.fixture
def plain(line, plain_url):
    return type(line)(Registry(plain_url), line.signers, line.trust)


def test_a_writer_that_takes_no_turns_loses_nothing_of_ours(plain, monkeypatch):
    """Another tool reads the index, thinks, and writes back what it read and its own: over and over, without a pause.

    What it overwrites is found by us all the same, and our next write gives the index back to everybody.
    """
    monkeypatch.setattr(registry_http, "_FIRST_DELAY", 0.01)
    image = plain.image("writers-rude")
    tag, subject = fallback_tag(Digest(image.digest)), Digest(image.digest)
    stop, turns = threading.Event(), itertools.count()

    def rude():
        registry = Registry(plain.registry.url)
        while not stop.is_set():
            raw = registry.get_manifest(image.repository, tag)
            entries = read_index(raw.data) if raw else ()
            stop.wait(0.02)
            own = Descriptor(OCI_MANIFEST, subject, 1, "text/plain", {"turn": str(next(turns))})
            kept = tuple(entry for entry in entries if entry.digest != subject)
            registry.put_manifest(image.repository, make_index((*kept, own)), OCI_INDEX, tag=tag)

    thread = threading.Thread(target=rude)
    thread.start()
    try:
        said = [plain.attest(image, SCAN, change={"number": number}) for number in range(12)]
    finally:
        stop.set()
        thread.join()

    assert next(turns) > 3
    assert {item.manifest for item in find(plain, image)} == set(said)
    said.append(plain.attest(image, PROVENANCE))
    listed = {entry.digest for entry in plain.registry.listed_referrers(image.repository, subject)}
    assert listed >= set(said)


def test_an_index_that_was_overwritten_is_mended_by_the_next_write(plain):
    image = plain.image("writers-mended")
    subject = Digest(image.digest)
    first = plain.attest(image, SCAN)
    plain.registry.put_manifest(image.repository, make_index(()), OCI_INDEX, tag=fallback_tag(subject))
    assert plain.registry.listed_referrers(image.repository, subject) == ()
    assert [item.manifest for item in find(plain, image)] == [first]

    second = plain.attest(image, PROVENANCE)
    listed = [entry.digest for entry in plain.registry.listed_referrers(image.repository, subject)]
    assert listed == [first, second]
    third = plain.attest(image, PROVENANCE, "d" * 40)
    assert [entry.digest for entry in plain.registry.referrers(image.repository, subject)] == [first, second, third]


def test_an_own_tag_with_something_else_behind_it_is_not_believed(plain):
    """Anybody who can write can write such a tag; what it points at must be the referrer that the tag is named for."""
    image, other = plain.image("writers-tags"), plain.image("writers-tags", "d" * 40)
    subject = Digest(image.digest)
    true, foreign = plain.attest(image, SCAN), plain.attest(other, SCAN)
    name = image.repository
    moved = plain.registry.get_manifest(name, foreign)
    kept = plain.registry.get_manifest(name, true)
    plain.registry.put_manifest(name, moved.data, OCI_MANIFEST, tag=own_tag(subject, foreign))
    plain.registry.put_manifest(name, kept.data, OCI_MANIFEST, tag=own_tag(subject, digest_of(b"another")))
    plain.registry.put_manifest(
        name, plain.registry.get_manifest(name, image.digest).data, OCI_MANIFEST, tag=f"{own_prefix(subject)}x"
    )
    plain.registry.put_manifest(name, make_index(()), OCI_INDEX, tag=own_tag(subject, digest_of(b"index")))

    assert [entry.digest for entry in plain.registry.referrers(name, subject)] == [true]


def test_own_tags_are_found_among_many_others(plain):
    image = plain.image("writers-many")
    subject = Digest(image.digest)
    raw = plain.registry.get_manifest(image.repository, image.digest)
    for number in range(120):
        for tag in (f"aaa-{number:03}", f"zzz-{number:03}"):
            plain.registry.put_manifest(image.repository, raw.data, OCI_MANIFEST, tag=tag)
    said = [plain.attest(image, SCAN, change={"number": number}) for number in range(3)]
    plain.registry.put_manifest(image.repository, make_index(()), OCI_INDEX, tag=fallback_tag(subject))

    assert {entry.digest for entry in plain.registry.referrers(image.repository, subject)} == set(said)


def test_a_folder_of_locks_that_is_not_ours_is_not_used(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = registry_referrers._default_folder()
    assert folder is not None
    assert folder.stat().st_mode & 0o777 == 0o700
    with registry_referrers.turn("a", None):
        assert [path.suffix for path in folder.iterdir()] == [".lock"]

    folder.chmod(0o777)
    assert registry_referrers._default_folder() is None
    moved = tmp_path / "moved"
    folder.rename(moved)
    moved.chmod(0o700)
    folder.symlink_to(moved)
    assert registry_referrers._default_folder() is None
    monkeypatch.setattr(tempfile, "tempdir", str(Path("/proc/nowhere")))
    assert registry_referrers._default_folder() is None
    with registry_referrers.turn("a", None):
        pass


def test_a_statement_is_attached_by_whom_nobody_locks_out(plain, tmp_path):
    """Another process of ours that hangs while it has its turn holds up a writer, not a reader."""
    image = plain.image("writers-held")
    plain.attest(image, SCAN)
    held, free = threading.Event(), threading.Event()
    name = f"{plain.registry.url} {image.repository}:{fallback_tag(Digest(image.digest))}"

    def hold():
        with registry_referrers.turn(name, tmp_path):
            held.set()
            free.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(30)
    writer = threading.Thread(
        target=lambda: attach_statement(
            Registry(plain.registry.url, locks=tmp_path),
            image.repository,
            scan(image, late=1),
            plain.signers["scanner"],
        )
    )
    writer.start()
    assert len(find(plain, image)) >= 1
    free.set()
    thread.join(30)
    writer.join(30)
    assert len(find(plain, image)) == 2
