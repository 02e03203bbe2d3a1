"""The top of a Go file, its constraints, what it embeds."""

from __future__ import annotations

import fnmatch
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.build.languages.go_source import embeds, holds, name_counts, read_header
from stages.build.languages.go_tree import glob_expression

HEADER = """\
/* A licence; package wrong */
// Copyright.

//go:build linux && !cgo

// Package shop sells. import "not/this"
package shop; import "fmt"

import (
	_ "embed" // for files
	. "math"
	json `encoding/json`
	/* "commented/out" */ web "example.org/web"; "os"
)
import alone "example.org/alone"

var x = "import"

import "too/late"
"""


def test_imports_are_read_with_their_lines_and_nothing_else() -> None:
    found = read_header(HEADER, minor=27)
    assert (found.package, found.applies, found.names_cgo) == ("shop", True, True)
    assert [(item.path, item.line) for item in found.imports] == [
        ("fmt", 7),
        ("embed", 10),
        ("math", 11),
        ("encoding/json", 12),
        ("example.org/web", 13),
        ("os", 13),
        ("example.org/alone", 15),
    ]


@pytest.mark.parametrize("text", ["", "// only\n", "package", 'package "x"', "func main() {}", "{", 'import "x"', "/*"])
def test_what_is_no_go_file_has_no_package(text: str) -> None:
    assert read_header(text, minor=27).package == ""


def test_a_file_that_ends_in_the_middle_gives_what_was_there() -> None:
    assert [item.path for item in read_header('package x\nimport (\n"a"\n"b', minor=27).imports] == ["a", ""]


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("", True),
        ("linux", True),
        ("windows", False),
        ("linux && amd64", True),
        ("!linux || (amd64 && !cgo)", True),
        ("cgo", False),
        ("unix && !(darwin || windows)", True),
        ("go1.27", True),
        ("go1.28", False),
        ("!go1.21", False),
        ("ignore", False),
        ("integration && linux", False),
        ("goexperiment.jsonv2", None),
        ("!goexperiment.jsonv2", None),
        ("linux && goexperiment.jsonv2", None),
        ("windows && goexperiment.jsonv2", False),
        ("linux || goexperiment.jsonv2", True),
        ("linux &&", None),
        ("linux windows", None),
        ("(linux", None),
        ("&& linux", None),
        ("linux // why", True),
        ("(" * 900 + "linux" + ")" * 900, None),
        ("x" * 3_000, None),
    ],
)
def test_constraints(expression: str, value: bool | None) -> None:  # noqa: FBT001
    assert holds(expression, minor=27) is value


def test_constraints_of_before_go_1_17_are_left_to_the_compiler() -> None:
    assert read_header("// +build windows\n\npackage x\n", minor=27).applies is None
    assert read_header("//go:build windows\n// +build windows\n\npackage x\n", minor=27).applies is False
    assert read_header("package x\n\n//go:build windows\n", minor=27).applies is True


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("a.go", True),
        ("a_test.go", False),
        ("a_linux.go", True),
        ("a_windows.go", False),
        ("a_linux_amd64.go", True),
        ("a_linux_arm64.go", False),
        ("a_windows_amd64.go", False),
        ("a_arm64.go", False),
        ("a_amd64.go", True),
        ("a_unix.go", True),
        ("linux.go", True),
        ("windows.go", True),
        ("windows_x.go", True),
        ("a_windows.pb.go", False),
        ("_a.go", False),
        (".a.go", False),
        ("a.s", False),
    ],
)
def test_names(name: str, counts: bool) -> None:  # noqa: FBT001
    assert name_counts(name) is counts


def test_embedded_patterns_are_read_where_go_reads_them() -> None:
    text = """package x
import _ "embed"
var a = `
//go:embed in/a/string
`
/*
//go:embed in/a/comment
*/
//go:embed one two/*.html "with space" `raw`  all:dist
var files embed.FS
var (
	//go:embed indented
	b []byte
	c = 'x' //go:embed after/code
)
//go:embedded no
var quote = '"' // "
//go:embed last"""
    assert [(item.pattern, item.line) for item in embeds(text)] == [
        ("one", 9),
        ("two/*.html", 9),
        ("with space", 9),
        ("raw", 9),
        ("all:dist", 9),
        ("indented", 12),
        ("last", 18),
    ]


@pytest.mark.parametrize(
    "text", ["/*" * 200_000, "`" * 200_001, '"\\' * 200_000, "'" * 200_001, "package x\n" + "/*" * 200_000]
)
def test_no_text_makes_reading_slow(text: str) -> None:
    # Work that grows with the square of the length would take minutes; the processor's own time is compared.
    start = time.process_time()
    read_header(text, minor=27)
    embeds(f"{text}\n//go:embed x")
    assert time.process_time() - start < 20


@given(st.text(max_size=300))
def test_any_text_can_be_read(text: str) -> None:
    read_header(text, minor=27)
    embeds(f"//go:embed {text}")


def matches(pattern: str, name: str) -> bool:
    import re

    return re.fullmatch(glob_expression(pattern), name) is not None


@pytest.mark.parametrize(
    ("pattern", "name", "value"),
    [
        ("*.html", "a.html", True),
        ("*.html", "b/a.html", False),
        ("*/*.html", "b/a.html", True),
        ("a?c", "abc", True),
        ("a?c", "a/c", False),
        ("[a-c]x", "bx", True),
        ("[^a-c]x", "bx", False),
        ("[^a-c]x", "zx", True),
        ("\\*x", "*x", True),
        ("\\*x", "ax", False),
        ("a*b*c", "axxbyyc", True),
        ("a*b*c", "axxbyyd", False),
        ("*ab*ab", "abab", True),
        ("*a*", "xay", True),
        ("**", "abc", True),
        ("a+b", "a+b", True),
        ("a+b", "aab", False),
        ("[", "[", True),
    ],
)
def test_patterns_of_path_match(pattern: str, name: str, value: bool) -> None:  # noqa: FBT001
    assert matches(pattern, name) is value


def test_no_pattern_makes_matching_slow() -> None:
    start = time.process_time()
    assert not matches("*a" * 40 + "*b", "a" * 250)
    assert time.process_time() - start < 20


@given(st.text(alphabet="ab*?.", max_size=8), st.text(alphabet="ab.", max_size=8))
def test_patterns_without_folders_are_those_of_fnmatch(pattern: str, name: str) -> None:
    assert matches(pattern, name) is fnmatch.fnmatchcase(name, pattern)
