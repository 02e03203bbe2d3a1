"""The builder's cache: only what is whole comes out, nothing grows without end, nothing goes that is held."""

from __future__ import annotations

import json
import os
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from sekisho.canonical import Digest, digest_of_json
from sekisho.errors import PermanentError
from stages.build.pack import Entry, entries_of_tree, write_layer
from stages.build.store import Kept, Store

FILES = (
    Entry("bin/run", "file", executable=True, size=3, data=b"run"),
    Entry("lib/a.txt", "file", size=1, data=b"a"),
    Entry("lib/link", "link", target="a.txt"),
)


def key(number: int) -> Digest:
    return digest_of_json(number)


def on_disk(size: int) -> int:
    """Return what an entry of one file takes: its file, note, mark, and the two folders."""
    return -(-size // 4096) * 4096 + 4 * 4096


def kept(store: Store, number: int = 1) -> Kept | None:
    with ExitStack() as held:
        return store.find(key(number), held)


def add(store: Store, number: int = 1, size: int = 1) -> Kept:
    with ExitStack() as held:
        entries = FILES if size == 1 else (Entry("x", "file", size=size, data=b"x" * size),)
        return store.add(key(number), entries, held, data={"n": number})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "kept", 1 << 20)


def test_what_was_added_is_found_as_it_was(store: Store, tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        added = add(store)
    finally:
        os.umask(before)
    found = kept(store)
    assert found == added
    assert found.data == {"n": 1}
    one = write_layer(found.entries, tmp_path / "1", time=0)
    other = write_layer(FILES, tmp_path / "2", time=0)
    assert one.digest == other.digest
    assert entries_of_tree(found.folder) == tuple(sorted(found.entries, key=lambda entry: entry.path))
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in found.folder.rglob("*")}
    assert modes == {"bin": "0o755", "lib": "0o755", "run": "0o755", "a.txt": "0o644", "link": "0o644"}
    assert kept(store, 2) is None


def poison_bytes(folder: Path) -> None:
    (folder / "lib/a.txt").write_bytes(b"b")


def poison_time(folder: Path) -> None:
    path = folder / "lib/a.txt"
    status = path.stat()
    path.write_bytes(b"b")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def poison_inode(folder: Path) -> None:
    (folder / "new").write_bytes(b"b")
    (folder / "new").replace(folder / "lib/a.txt")


def poison_mode(folder: Path) -> None:
    (folder / "lib/a.txt").chmod(0o755)


def poison_link(folder: Path) -> None:
    (folder / "lib/link").unlink()
    (folder / "lib/link").symlink_to("/etc/passwd")


def poison_more(folder: Path) -> None:
    (folder / "lib/sitecustomize.py").write_bytes(b"")


def poison_less(folder: Path) -> None:
    (folder / "bin/run").unlink()


def poison_kind(folder: Path) -> None:
    (folder / "lib/a.txt").unlink()
    (folder / "lib/a.txt").mkdir()


def poison_note(folder: Path) -> None:
    (folder.parent / "note.json").write_text("{")


@pytest.mark.parametrize(
    "poison",
    [poison_bytes, poison_time, poison_inode, poison_mode, poison_link, poison_more, poison_less, poison_kind,
     poison_note],
)  # fmt: skip
def test_a_poisoned_entry_is_dropped(store: Store, poison: object) -> None:
    folder = add(store).folder
    poison(folder)
    assert kept(store) is None
    assert not folder.exists()
    add(store)
    assert (folder / "lib/a.txt").read_bytes() == b"a"


def test_what_was_only_touched_is_read_once_and_kept(store: Store) -> None:
    folder = add(store).folder
    (folder / "lib/a.txt").touch()
    noted = (folder.parent / "note.json").read_bytes()
    assert kept(store) is not None
    renewed = (folder.parent / "note.json").read_bytes()
    assert renewed != noted
    assert kept(store) is not None
    assert (folder.parent / "note.json").read_bytes() == renewed


def test_every_byte_is_read_again_once_a_day(tmp_path: Path) -> None:
    """Rot changes bytes and nothing else: the note is made to look as if the file had always been so."""
    now = [1_000_000.0]
    store = Store(tmp_path / "kept", 1 << 20, clock=lambda: now[0])
    folder = add(store).folder
    path, note = folder / "lib/a.txt", folder.parent / "note.json"
    path.write_bytes(b"b")
    status = path.stat()
    said = json.loads(note.read_bytes())
    said["files"]["lib/a.txt"][:-1] = [
        status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino
    ]  # fmt: skip
    note.write_text(json.dumps(said))
    assert kept(store) is not None
    now[0] += 86_401
    assert kept(store) is None


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    store = Store(tmp_path / "kept", 2 * on_disk(100) + 50)
    for number in (1, 2):
        folder = add(store, number, size=100).folder
        os.utime(folder.parent / "size", (number, number))
    assert kept(store, 1) is not None  # now the younger one
    add(store, 3, size=100)
    assert [kept(store, number) is not None for number in (1, 2, 3)] == [True, False, True]


def many(start: str) -> tuple[Entry, ...]:
    """Return a thousand files of one byte, each in a folder."""
    return tuple(Entry(f"{start}/{number}/f", "file", size=1, data=b"x") for number in range(1000))


def test_many_small_files_count_as_what_they_take_on_the_disk(tmp_path: Path) -> None:
    store = Store(tmp_path / "kept", 1 << 20)
    for number in range(3):
        with ExitStack() as held:
            store.add(key(number), many("a"), held)
    assert [kept(store, number) is not None for number in range(3)] == [False, False, True]  # held while it was added
    store.trim()
    assert kept(store, 2) is None
    wide = Store(tmp_path / "kept", 3 * 2100 * 4096)
    for number in range(3):
        with ExitStack() as held:
            wide.add(key(number), many("a"), held)
    assert [kept(wide, number) is not None for number in range(3)] == [True] * 3


def test_an_entry_that_was_noted_by_its_bytes_is_counted_once_and_keeps_its_age(tmp_path: Path) -> None:
    store = Store(tmp_path / "kept", 1 << 30)
    places = []
    for number in (1, 2):
        with ExitStack() as held:
            places.append(store.add(key(number), many("a"), held).folder.parent)
        mark = places[-1] / "size"
        noted = mark.read_text()
        mark.write_text("1000")
        os.utime(mark, (number, number))
    store.trim()
    assert [(place / "size").read_text() for place in places] == [noted] * 2
    assert [(place / "size").stat().st_mtime for place in places] == [1, 2]
    assert kept(store, 2) is not None
    os.utime(places[1] / "size", (2, 2))
    (places[0] / "size").write_text("1000")
    os.utime(places[0] / "size", (1, 1))
    Store(tmp_path / "kept", 10 << 20).trim()
    assert [place.exists() for place in places] == [False, True]


def test_what_a_build_holds_stays(tmp_path: Path) -> None:
    store = Store(tmp_path / "kept", on_disk(100) + 50)
    with ExitStack() as held:
        store.add(key(1), (Entry("x", "file", size=100, data=b"x" * 100),), held)
        other = Store(tmp_path / "kept", on_disk(100) + 50)  # another process has another store
        add(other, 2, size=100)
        assert kept(other, 2) is not None  # while it was added, it was held as well
        other.trim()
        assert [kept(other, number) is not None for number in (1, 2)] == [True, False]
    add(store, 3, size=100)
    store.trim()
    assert kept(store, 1) is None


def test_two_that_make_the_same_get_the_same(store: Store) -> None:
    found: list[Kept] = []
    threads = [threading.Thread(target=lambda: found.append(add(store))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert all(item == found[0] for item in found)


def test_a_file_that_shrank_is_not_kept(store: Store, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"12345")
    entry = Entry("f", "file", size=5, source=tmp_path / "f")
    (tmp_path / "f").write_bytes(b"1")
    with ExitStack() as held, pytest.raises(PermanentError, match="changed"):
        store.add(key(1), (entry,), held)
    assert kept(store) is None
    assert list((tmp_path / "kept").iterdir()) == []


def test_old_leftovers_go(tmp_path: Path) -> None:
    left = tmp_path / "kept" / ".make-old"
    (left / "ready").mkdir(parents=True)
    fresh = tmp_path / "kept" / ".make-new"
    fresh.mkdir()
    os.utime(left, (1, 1))
    Store(tmp_path / "kept", 1)
    assert (left.exists(), fresh.exists()) == (False, True)
