"""Packs of a few kilobytes that unpack to all of a machine's memory, pushed to the real receiver."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from git_cases import ending
from pack_cases import MIB, copying, identity, pack, pushing, swollen, written

from sekisho.receiver import backend, hook
from sekisho.receiver.answers import Explained
from sekisho.receiver.backend import Limits
from sekisho.receiver.repositories import MEMORY

from .test_receiver import PUSH, VERDICT, Served, Work, Zone, eventually, remote_lines

WHO = b"A <a@example.com> 1760000000 +0000"
REFUSED = "sekisho: refused: unpacking this push takes more memory than the receiver gives to one; nothing was stored"
REMEDY = "sekisho: remedy: keep large files and data out of the repository, or push it commit by commit"


@pytest.fixture
def zone() -> Iterator[Zone]:
    zone = Zone()
    zone.events = [{"text": ["PASSED"], "verdict": VERDICT}]
    yield zone
    zone.stop()


@pytest.fixture
def small(tmp_path: Path, zone: Zone) -> Iterator[Served]:
    """A receiver whose git has little."""
    served = Served(tmp_path, zone.address, Limits(memory=128 * MIB))
    yield served
    served.stop()


@pytest.fixture
def served(tmp_path: Path, zone: Zone) -> Iterator[Served]:
    served = Served(tmp_path, zone.address)
    yield served
    served.stop()


def push(served: Served, commit: bytes, *objects: bytes) -> str:
    status, _, said = served.ask(
        "POST", "/guestbook.git/git-receive-pack", pushing(commit, pack(*objects)), content_type=PUSH
    )
    assert status == 200
    return said


def test_a_delta_that_says_a_gigabyte_is_refused_in_plain_words(served: Served) -> None:
    base = b"a" * (4 * MIB)
    grown = written("delta", copying(len(base), 256), identity("blob", base))
    said = push(served, b"\x11" * 20, written("blob", base), grown)
    assert "over limit" in said
    assert REFUSED in said
    assert REMEDY in said
    assert said.endswith("0000")
    assert served.repositories.queued() == ()


@pytest.mark.parametrize("kind", ["commit", "tree", "tag"])
def test_an_object_that_git_holds_whole_is_refused_in_plain_words(small: Served, kind: str) -> None:
    swelling, name = swollen(kind, 140, b"tree " + b"1" * 40 + b"\n" if kind == "commit" else b"")
    assert len(swelling) < MIB
    said = push(small, name, swelling)
    assert REFUSED in said
    assert small.repositories.queued() == ()


def test_objects_that_only_together_are_too_much_are_refused_in_plain_words(small: Served) -> None:
    start = b"tree " + b"1" * 40 + b"\nauthor " + WHO + b"\ncommitter " + WHO + b"\n\n"
    parts = [swollen("commit", 50, start + b"%d" % number) for number in range(3)]
    assert REFUSED in push(small, parts[0][1], *(part for part, _ in parts))
    assert small.repositories.queued() == ()


def test_a_file_that_is_larger_than_the_memory_comes_in_piece_by_piece(small: Served) -> None:
    blob, name = swollen("blob", 140)
    tree = b"100644 data\0" + name
    commit = b"tree %s\nauthor %s\ncommitter %s\n\none\n" % (identity("tree", tree).hex().encode(), WHO, WHO)
    said = push(small, identity("commit", commit), blob, written("tree", tree), written("commit", commit))
    assert "unpack ok" in said
    assert "PASSED" in said
    assert "sekisho: refused" not in said
    assert [push.commit for push in small.repositories.queued()] == [identity("commit", commit).hex()]


def test_the_pusher_sees_it(tmp_path: Path, zone: Zone) -> None:
    small = Served(tmp_path, zone.address, Limits(memory=48 * MIB))
    work = Work(tmp_path / "work", small.secret)
    (tmp_path / "message").write_bytes(b"a" * (50 * MIB))
    work.git("commit", "--quiet", "--allow-empty", "--cleanup=verbatim", "--file", str(tmp_path / "message"))
    lines = remote_lines(work.git("push", small.url(), "main", ok=False))
    small.stop()
    assert lines[-2:] == [REFUSED, REMEDY]
    assert small.repositories.queued() == ()


def test_who_hangs_up_is_a_push_until_git_has_ended(
    tmp_path: Path, zone: Zone, caplog: pytest.LogCaptureFixture
) -> None:
    served = Served(tmp_path, zone.address, Limits(pushes=1))
    zone.events = [{"stage": "build", "state": "start", "text": ["building"]}] * 6 + zone.events
    zone.hold.clear()
    work = Work(tmp_path / "work", served.secret)
    work.commit()
    push = subprocess.Popen(
        ["git", "-C", work.folder, "push", served.url(), "main"],
        env=work.environment, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    eventually(lambda: zone.pushes, 40)
    os.killpg(push.pid, 9)
    push.wait()
    eventually(lambda: served.server.config.app._finishing, 40)

    def status() -> int:
        return served.ask("POST", "/other.git/git-receive-pack", b"0000", content_type=PUSH)[0]

    assert status() == 503
    zone.hold.set()
    eventually(lambda: status() == 200, 40)
    assert [error.message for error in caplog.records if error.levelname == "ERROR"] == []
    served.stop()


def test_a_history_that_git_does_not_get_through_is_no_way_forward(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "git").write_text("#!/bin/sh\nexec sleep 1000\n")
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(hook, "GIT_SECONDS", 0.2)
    with ending():
        assert not hook.is_forward("1" * 40, "2" * 40)


def test_all_pushes_together_leave_half_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    def memory(mebibytes: int) -> int:
        monkeypatch.setattr(backend.os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": mebibytes * 256}.get)
        return backend.memory_for(8) // MIB

    assert [memory(size << 10) for size in (1, 8, 16, 64)] == [256, 512, 1024, MEMORY // MIB]


# -- what is said ----------------------------------------------------------------------------------------------------


FATAL = b"0042\x02fatal: Attempting to allocate 734003247 over limit 629145600\n"
NOT_OK = b"0057\x010028unpack unpack-objects abnormal exit\n0026ng refs/heads/main unpacker error\n0000"


def said(*pieces: bytes, pushed: bool = True) -> list[bytes]:
    answer = Explained(pushed=pushed)
    return [*(answer.piece(piece) for piece in pieces), answer.end()]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1000])
def test_the_reason_comes_before_the_end_however_the_answer_is_cut(size: int) -> None:
    whole = FATAL + NOT_OK + b"0000"
    pieces = said(*(whole[at : at + size] for at in range(0, len(whole), size)))
    found = b"".join(pieces)
    assert found.startswith(FATAL + NOT_OK)
    rest = found.removeprefix(FATAL + NOT_OK)
    lines = []
    while (length := int(rest[:4], 16)) != 0:
        lines.append(rest[4:length])
        rest = rest[length:]
    assert lines == [b"\x02" + text.encode() + b"\n" for text in (REFUSED, REMEDY)]
    assert rest == b"0000"


@pytest.mark.parametrize(
    "pieces",
    [
        (FATAL, b"0000"),
        (NOT_OK, b"0000"),
        (FATAL, NOT_OK),
        (b"002a\x02sekisho: a scan was out of memory\n", b"0000"),
        (b"",),
        (b"00", b"00", b"0000"),
    ],
)
def test_other_answers_go_on_as_they_are(pieces: tuple[bytes, ...]) -> None:
    if pieces == (FATAL, NOT_OK):  # cut off: what it ends with is the end of the report within
        pieces = (FATAL, NOT_OK[:-1])
    assert b"".join(said(*pieces)) == b"".join(pieces)
    assert said(*pieces, pushed=False) == [*pieces, b""]


def test_a_line_is_shown_when_it_comes(zone: Zone) -> None:
    line = b"0020\x02  build    done       1.50 s\n"
    assert said(line, b"0000") == [line, b"", b"0000"]
