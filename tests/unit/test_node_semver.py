"""Ranges as npm reads them; the table's answers are node-semver's own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.build.languages.node_semver import Version, fits, offered_version, parse_version

VERSIONS = (
    "0.0.0",
    "0.0.3",
    "0.1.2",
    "1.0.0",
    "1.2.3",
    "1.2.3-beta.2",
    "1.3.0",
    "2.0.0",
    "2.0.0-0",
    "18.20.8",
    "24.21.0",
)
IN: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("*", ("0.0.0", "0.0.3", "0.1.2", "1.0.0", "1.2.3", "1.3.0", "2.0.0", "18.20.8", "24.21.0")),
    ("", ("0.0.0", "0.0.3", "0.1.2", "1.0.0", "1.2.3", "1.3.0", "2.0.0", "18.20.8", "24.21.0")),
    ("x", ("0.0.0", "0.0.3", "0.1.2", "1.0.0", "1.2.3", "1.3.0", "2.0.0", "18.20.8", "24.21.0")),
    ("1", ("1.0.0", "1.2.3", "1.3.0")),
    ("1.2", ("1.2.3",)),
    ("1.2.3", ("1.2.3",)),
    ("^1.2.3", ("1.2.3", "1.3.0")),
    ("~1.2.3", ("1.2.3",)),
    ("^0.0.3", ("0.0.3",)),
    ("^0.1", ("0.1.2",)),
    ("^0.0", ("0.0.0", "0.0.3")),
    ("~0", ("0.0.0", "0.0.3", "0.1.2")),
    (">=18", ("18.20.8", "24.21.0")),
    (">=18 <23", ("18.20.8",)),
    ("18 || 20 || >=22", ("18.20.8", "24.21.0")),
    (">= 20.4.0", ("24.21.0",)),
    ("1.2.3 - 2.0.0", ("1.2.3", "1.3.0", "2.0.0")),
    ("1.2 - 2", ("1.2.3", "1.3.0", "2.0.0")),
    (">1", ("2.0.0", "18.20.8", "24.21.0")),
    ("<=1", ("0.0.0", "0.0.3", "0.1.2", "1.0.0", "1.2.3", "1.3.0")),
    (">1.2", ("1.3.0", "2.0.0", "18.20.8", "24.21.0")),
    ("<=1.2", ("0.0.0", "0.0.3", "0.1.2", "1.0.0", "1.2.3")),
    ("<2", ("0.0.0", "0.0.3", "0.1.2", "1.0.0", "1.2.3", "1.3.0")),
    ("^1.2.3-beta.2", ("1.2.3", "1.2.3-beta.2", "1.3.0")),
    (">=1.2.3-beta.1 <2", ("1.2.3", "1.2.3-beta.2", "1.3.0")),
    ("18.x", ("18.20.8",)),
    ("^18.0.0 || >=20", ("18.20.8", "24.21.0")),
    ("=1.2.3", ("1.2.3",)),
    ("v1.2.3", ("1.2.3",)),
    ("~>1.2", ("1.2.3",)),
    ("<1", ("0.0.0", "0.0.3", "0.1.2")),
    (">*", ()),
    ("1.2.x || 2", ("1.2.3", "2.0.0")),
)


@pytest.mark.parametrize(("wanted", "expected"), IN)
def test_the_same_versions_fit_as_in_npm(wanted: str, expected: tuple[str, ...]) -> None:
    found = tuple(text for text in VERSIONS if fits(_version(text), wanted))
    assert found == expected


@pytest.mark.parametrize(
    "wanted", ["lts", "file:../x", ">=1 || what else", "1.2.3.4", "9" * 600, "git+ssh://x", ">= >=1"]
)
def test_what_is_no_range_is_said_to_be_none(wanted: str) -> None:
    assert fits(_version("1.0.0"), wanted) is None


@pytest.mark.parametrize("text", ["24", "24.21", "24.21.0", "v24"])
def test_an_image_of_a_line_has_its_newest_release(text: str) -> None:
    version = offered_version(text)
    assert version is not None
    assert fits(version, ">=24.3.0 <25")
    assert fits(version, "^24")
    assert not fits(version, "20 || 22")


@pytest.mark.parametrize("text", ["", "lts", "24.x", "24.1.2.3", "-1", "²"])
def test_an_image_without_a_version_fits_nothing(text: str) -> None:
    assert offered_version(text) is None


@given(st.text(max_size=30))
def test_no_text_breaks_the_reading(text: str) -> None:
    assert fits(_version("1.0.0"), text) in {True, False, None}
    parse_version(text)
    offered_version(text)


@given(st.tuples(*[st.integers(0, 9)] * 3), st.tuples(*[st.integers(0, 9)] * 3))
def test_order_is_of_the_numbers(one: tuple[int, int, int], other: tuple[int, int, int]) -> None:
    assert fits(Version(one), f">={'.'.join(map(str, other))}") is (one >= other)


def _version(text: str) -> Version:
    version = parse_version(text)
    assert version is not None
    return version
