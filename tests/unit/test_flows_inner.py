"""What a push says of its stages."""

from __future__ import annotations

from flows.inner import built_line
from sekisho.canonical import digest_of
from sekisho.model import Image

IMAGE = Image(
    repository="apps/shop", digest=digest_of(b"image"), language="go", base="static-base", base_digest=digest_of(b"b"),
    layers=(),
)  # fmt: skip


def test_the_build_says_by_which_file_the_language_was_seen() -> None:
    assert built_line(IMAGE, "go.mod") == f"go on static-base, {IMAGE.digest}, seen by go.mod."
    noted = IMAGE.model_copy(update={"notes": ("One.", "Two.")})
    assert built_line(noted, "go.mod") == f"go on static-base, {IMAGE.digest}, seen by go.mod. One. Two."


def test_a_name_cannot_move_the_cursor() -> None:
    assert built_line(IMAGE, "a\x1b[2J\n.md").endswith(", seen by a\\u001b[2J .md.")
