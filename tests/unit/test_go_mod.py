"""go.mod and go.work: what is read, and what is refused with its line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sekisho.errors import Refusal
from stages.build.languages.go_mod import MAX_LINES, WORK, parse_mod
from stages.build.locks_go import Module

FULL = """\
// Deprecated: no.
module "example.org/shop/v2" // a comment

go 1.26.1
toolchain go1.27.4

godebug (
	default=go1.21
	panicnil=1
)

require github.com/a/b v1.2.3 // indirect
require (
	github.com/c/d v0.0.0-20260102030405-abcdef123456
	`github.com/e/f` v2.0.0+incompatible
)
exclude github.com/a/b v1.0.0
replace (
	github.com/a/b => ./local/b
	github.com/c/d v0.0.0-20260102030405-abcdef123456 => github.com/fork/d v1.0.0
	github.com/c/d => github.com/other/d v1.1.1
)
retract [v1.0.0, v1.9.9] // by mistake
retract (
	v1.0.0
	[v1.1.0,
	v1.2.0]
)
tool golang.org/x/tools/cmd/stringer
ignore ./node_modules
"""
HEAD = "module example.org/shop\n\ngo 1.26\n"


def test_a_whole_file_is_read() -> None:
    found = parse_mod(FULL, where="go.mod")
    assert (found.path, found.go, found.go_text, found.go_line) == ("example.org/shop/v2", (1, 26), "1.26.1", 4)
    assert found.requires == (
        Module("github.com/a/b", "v1.2.3"),
        Module("github.com/c/d", "v0.0.0-20260102030405-abcdef123456"),
        Module("github.com/e/f", "v2.0.0+incompatible"),
    )
    assert [found.replaced(module) for module in found.requires] == [
        None,
        Module("github.com/fork/d", "v1.0.0"),
        Module("github.com/e/f", "v2.0.0+incompatible"),
    ]
    assert found.replaced(Module("github.com/c/d", "v9.0.0")) == Module("github.com/other/d", "v1.1.1")
    assert found.replaces[0].where == "go.mod:19"


def test_the_order_of_replacements_does_not_matter() -> None:
    lines = [
        "replace github.com/c/d => github.com/o/d v1.1.1",
        "replace github.com/c/d v1.0.0 => github.com/f/d v1.0.0",
    ]
    for order in (lines, lines[::-1]):
        found = parse_mod(HEAD + "\n".join(order), where="go.mod")
        assert found.replaced(Module("github.com/c/d", "v1.0.0")) == Module("github.com/f/d", "v1.0.0")


def test_a_workspace_is_read() -> None:
    found = parse_mod("go 1.26\nuse .\nuse (\n\t./api // the API\n)\n", where=WORK, kind=WORK)
    assert found.uses == ((".", "go.work:2"), ("./api", "go.work:4"))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("wrong x", "'wrong' is not a directive of go.mod"),
        ("use ./api", "'use' is not a directive of go.mod"),
        ("module example.org/other", "two `module` lines"),
        ("go 1.27", "two `go` lines"),
        ("require github.com/a/b", "not a module and a version"),
        ("require github.com/a/b v1.2.3 v1.2.4", "not a module and a version"),
        ("require github.com/a/b master", "'master' is not a version"),
        ("require github.com/../b v1.2.3", "not the path of a module"),
        ("require /etc v1.2.3", "not the path of a module"),
        ('require "github.com/a/b v1.2.3', "cannot be read"),
        ('require "a\\qb" v1.0.0', "cannot be read"),
        ("replace github.com/a/b ./x", "has one `=>`"),
        ("replace a.org/b => c.org/d => e.org/f", "has one `=>`"),
        ("replace github.com/a/b => github.com/c/d", "neither a module with a version nor a folder"),
        ("replace github.com/a/b => github.com/c/d main", "'main' is not a version"),
        ("replace github.com/a/b => ../../x v1.0.0", "not the path of a module"),
        ("replace => ./x", "not `old"),
        ("require ) github.com/a/b v1.2.3", "parenthesis"),
        (")", "parenthesis"),
        ("require (", "has no end"),
        ("require (( x", "parenthesis"),
        ("<<<<<<< HEAD", "not a directive"),
    ],
)
def test_a_mistake_is_told_with_its_line(line: str, words: str) -> None:
    with pytest.raises(Refusal) as caught:
        parse_mod(f"{HEAD}{line}\n", where="go.mod")
    assert words in caught.value.what
    assert caught.value.where == "go.mod:4"
    assert caught.value.remedy


def test_a_version_that_is_none_and_a_file_without_a_module_are_refused() -> None:
    with pytest.raises(Refusal, match="'1' is not a version of Go"):
        parse_mod("module x.org/y\ngo 1\n", where="go.mod")
    with pytest.raises(Refusal, match="no `module` line"):
        parse_mod("go 1.26\n", where="go.mod")


def test_too_many_lines_are_refused() -> None:
    with pytest.raises(Refusal, match="more than"):
        parse_mod(HEAD + "\n" * MAX_LINES, where="go.mod")


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = parse_mod(HEAD + text, where="go.mod")
    except Refusal:
        return
    assert found.path == "example.org/shop"
