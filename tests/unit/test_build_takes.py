"""Which part of an output goes where."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.build.language import PACKAGES_FILE, Take
from stages.build.pack import Entry
from stages.build.takes import left_out, roots, taken, wanted


@pytest.mark.parametrize(
    ("pattern", "out", "stays"),
    [
        ("node_modules", ["node_modules", "node_modules/a/b"], ["src/node_modules", "node_modules2"]),
        ("**/__pycache__", ["__pycache__", "a/b/__pycache__/x"], ["a__pycache__", "__pycache__x"]),
        ("*.pyc", ["a.pyc", "a.pyc/b", ".pyc"], ["a/b.pyc", "a.pycx"]),
        ("**/*.map", ["a.map", "x/y/z.map"], ["x.mapped", "map"]),
        ("a/b*/c", ["a/bx/c", "a/b/c/d"], ["a/x/c", "a/b/y/c"]),
        ("a?", ["ab", "ab/c"], ["a", "abc", "a/"]),
        ("a.b", ["a.b"], ["axb"]),
        ("pages/[id].js", ["pages/[id].js"], ["pages/i.js"]),
        ("**/tests", ["tests/a", "x/tests"], ["x/testsuite", "mytests"]),
    ],
)
def test_patterns(pattern: str, out: list[str], stays: list[str]) -> None:
    test = left_out((pattern,))
    assert [path for path in out if not test(path)] == []
    assert [path for path in stays if test(path)] == []


@settings(deadline=None)
@given(st.text("ab*?[]!/.-^\\$|()", max_size=12), st.text("ab/[]", max_size=8))
def test_any_pattern_is_only_a_pattern(pattern: str, path: str) -> None:
    test = left_out((pattern,))
    test(path)
    if not set("*?") & set(pattern):
        assert test(pattern)


def test_taken_moves_and_leaves_out() -> None:
    entries = [Entry(path, "file") for path in ("work/dist/a", "work/dist/x/b", "work/distant", "other")]
    take = Take("application", "build", below="work/dist", into="srv/www", exclude=("x",))
    assert [entry.path for entry in taken(entries, take)] == ["srv/www/a"]
    assert [entry.path for entry in taken(entries, Take("application", "build"))] == [entry.path for entry in entries]


def test_roots_and_wanted_agree_on_what_is_brought_out() -> None:
    takes = [Take("application", "b", below="a/b"), Take("dependencies", "b", below="a", exclude=("z",))]
    assert roots(takes, listed=False) == ("a",)
    assert roots(takes, listed=True) == (PACKAGES_FILE, "a")
    assert roots([*takes, Take("application", "b")], listed=True) == ()
    used = wanted(takes)
    assert [used(path) for path in ("a/b/c", "a/z/q", "c", PACKAGES_FILE)] == [True, False, False, True]
