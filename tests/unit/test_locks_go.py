"""go.sum: what it says, what is refused, and which files are fetched."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sekisho.errors import Refusal
from stages.build.locks_go import MAX_LINES, Module, check_path, escaped, parse_go_sum

A = base64.b64encode(hashlib.sha256(b"a").digest()).decode()
B = base64.b64encode(hashlib.sha256(b"b").digest()).decode()
GOOD = f"""\
github.com/BurntSushi/toml v1.5.0 h1:{A}
github.com/BurntSushi/toml v1.5.0/go.mod h1:{B}
golang.org/x/text v0.40.0/go.mod h1:{A}

github.com/docker/docker v28.0.0+incompatible h1:{A}
github.com/docker/docker v28.0.0+incompatible/go.mod h1:{A}
"""
TOML = Module("github.com/BurntSushi/toml", "v1.5.0")


def test_every_go_mod_and_the_zips_are_fetched_by_their_hashes() -> None:
    found = parse_go_sum(("go.sum", GOOD)).artifacts()
    assert [(item.path, item.digests, item.save_as == item.path, item.where) for item in found] == [
        ("github.com/!burnt!sushi/toml/@v/v1.5.0.mod", (f"h1mod:{B}",), True, "go.sum:2"),
        ("github.com/docker/docker/@v/v28.0.0+incompatible.mod", (f"h1mod:{A}",), True, "go.sum:6"),
        ("golang.org/x/text/@v/v0.40.0.mod", (f"h1mod:{A}",), True, "go.sum:3"),
        ("github.com/!burnt!sushi/toml/@v/v1.5.0.zip", (f"h1:{A}",), True, "go.sum:1"),
        ("github.com/docker/docker/@v/v28.0.0+incompatible.zip", (f"h1:{A}",), True, "go.sum:5"),
    ]
    assert {item.ecosystem for item in found} == {"go"}


def test_a_zip_that_is_not_needed_is_not_fetched_but_its_go_mod_is() -> None:
    found = parse_go_sum(("go.sum", GOOD)).artifacts([TOML, Module("example.org/no-hash", "v1.0.0")])
    assert [item.path for item in found if item.path.endswith(".zip")] == ["github.com/!burnt!sushi/toml/@v/v1.5.0.zip"]
    assert len(found) == 4


def test_a_module_is_named_as_scanners_name_it() -> None:
    assert TOML.purl == "pkg:golang/github.com/burntsushi/toml@v1.5.0"
    assert Module("github.com/docker/docker", "v28.0.0+incompatible").purl.endswith("@v28.0.0%2Bincompatible")
    zips = [item for item in parse_go_sum(("go.sum", GOOD)).artifacts() if item.path.endswith(".zip")]
    assert next(item.purl for item in zips) == TOML.purl
    assert all(not item.purl for item in parse_go_sum(("go.sum", GOOD)).artifacts() if item.path.endswith(".mod"))


@pytest.mark.parametrize(
    "line",
    [
        "github.com/x/y v1.0.0",
        f"github.com/x/y v1.0.0 h1:{A} more",
        "github.com/x/y v1.0.0 h1:abc",
        f"github.com/x/y v1.0.0 h2:{A}",
        f"github.com/x/y v1.0.0 sha256:{'a' * 64}",
        f"github.com/x/y v1.0.0 h1:{A[:-1]}",
        f"github.com/x/y v1.0.0 h1:{A[:-2]}!=",
        f"github.com/x/y v1.0 h1:{A}",
        f"github.com/x/y 1.0.0 h1:{A}",
        f"github.com/x/y v1.0.0/../../z h1:{A}",
        f"github.com/x/y v1.0.0-../a h1:{A}",
        f"github.com/x/y latest h1:{A}",
        f"../../etc v1.0.0 h1:{A}",
        f"github.com/../x v1.0.0 h1:{A}",
        f"github.com/./x v1.0.0 h1:{A}",
        f"github.com//x v1.0.0 h1:{A}",
        f"/github.com/x v1.0.0 h1:{A}",
        f"github.com/x/ v1.0.0 h1:{A}",
        f"github.com/.git/x v1.0.0 h1:{A}",
        f"github.com/x. v1.0.0 h1:{A}",
        f"github.com/!burnt v1.0.0 h1:{A}",
        f"github.com/x%2fy v1.0.0 h1:{A}",
        f"github.com/x\\y v1.0.0 h1:{A}",
        f"github.com/é v1.0.0 h1:{A}",
        f"localhost/x v1.0.0 h1:{A}",
        f"-x.org/y v1.0.0 h1:{A}",
        f"x.org/{'y' * 300} v1.0.0 h1:{A}",
        f"github.com/x/y v1.0.٣ h1:{A}",
        "<<<<<<< HEAD",
        "=======",
        "\x00\x00\x00",
    ],
)
def test_anything_else_is_refused_with_its_line(line: str) -> None:
    with pytest.raises(Refusal) as caught:
        parse_go_sum(("go.sum", f"{GOOD}{line}\n"))
    assert caught.value.where == f"go.sum:{GOOD.count(chr(10)) + 1}"
    assert "go mod tidy" in caught.value.remedy


def test_two_hashes_for_one_module_are_refused_also_across_files() -> None:
    parse_go_sum(("go.sum", GOOD), ("go.work.sum", GOOD))
    with pytest.raises(Refusal, match=r"two hashes; the other is in go\.sum:1\.") as caught:
        parse_go_sum(("go.sum", GOOD), ("go.work.sum", f"\n{TOML.path} v1.5.0 h1:{B}\n"))
    assert caught.value.where == "go.work.sum:2"


def test_the_hash_of_no_file_is_passed_over_as_go_does() -> None:
    line = "github.com/x/y v1.0.0/go.mod h1:G7mAYYxgmS0lVkHyy2hEOLQCFB0DlQFTMLWggykrydY=\n"
    assert parse_go_sum(("go.sum", f"{line}github.com/x/y v1.0.0/go.mod h1:{A}\n")).mods[
        Module("github.com/x/y", "v1.0.0")
    ].hash == A  # fmt: skip


def test_a_hundred_thousand_lines_are_refused_at_once() -> None:
    lines = "".join(f"github.com/x/y v1.0.{number} h1:{A}\n" for number in range(100_000))
    with pytest.raises(Refusal, match=f"more than {MAX_LINES:,} lines"):
        parse_go_sum(("go.sum", lines))


def test_windows_line_ends_are_read() -> None:
    assert parse_go_sum(("go.sum", GOOD.replace("\n", "\r\n"))) == parse_go_sum(("go.sum", GOOD))


_ELEMENT = st.from_regex(r"[A-Za-z0-9_~-][A-Za-z0-9._~-]{0,10}[A-Za-z0-9_~-]", fullmatch=True)


@given(st.lists(_ELEMENT, min_size=1, max_size=5))
def test_what_is_taken_for_a_path_stays_below_its_folder_on_any_disk(elements: list[str]) -> None:
    path = "/".join(["x.org", *elements])
    check_path(path, where="")
    got = escaped(path)
    assert got == got.lower()
    assert re.sub("!([a-z])", lambda match: match[1].upper(), got) == path


@given(st.text(max_size=60))
def test_no_text_leads_elsewhere(text: str) -> None:
    try:
        found = parse_go_sum(("go.sum", text)).artifacts()
    except Refusal:
        return
    for item in found:
        assert not {"", ".", ".."} & set(item.save_as.split("/"))


@given(st.text(max_size=40), st.text(max_size=20))
def test_no_path_or_version_leads_elsewhere(path: str, version: str) -> None:
    try:
        found = parse_go_sum(("go.sum", f"{path} {version} h1:{A}\n")).artifacts()
    except Refusal:
        return
    for item in found:
        assert re.fullmatch(r"[a-z0-9!._~+/@-]+", item.save_as)
        assert not {"", ".", ".."} & set(item.save_as.split("/"))
