"""Pointers of Git LFS: which pattern makes one, and that what is advised mends it in a real repository."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from git_cases import GIT

from sekisho.errors import Refusal
from stages import source
from stages.lfs import refuse_pointers, tracked_by
from stages.uncommitted import check_uncommitted

TRACKED = " filter=lfs diff=lfs merge=lfs -text\n"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 5\n"


@pytest.mark.parametrize(
    ("path", "files", "found"),
    [
        ("logo.png", {"": f"*.png{TRACKED}"}, ("", "*.png")),
        ("a/b/logo.png", {"": f"*.png{TRACKED}"}, ("", "*.png")),
        ("logo.png", {"": f"*.jpg{TRACKED}"}, None),
        ("logo.png", {}, None),
        ("logo.png", {"": "*.png -text\n"}, None),
        ("a/logo.png", {"": f"*.png{TRACKED}", "a": f"logo.*{TRACKED}"}, ("a", "logo.*")),
        ("a/logo.png", {"": f"*.png{TRACKED}", "a": "logo.png -filter\n"}, None),
        ("a/logo.png", {"": f"*.png{TRACKED}", "b": "logo.png !filter\n"}, ("", "*.png")),
        ("logo.png", {"": f"*.png{TRACKED}logo.png filter=crypt\n"}, None),
        ("logo.png", {"": f"logo.png filter=crypt\n*.png{TRACKED}"}, ("", "*.png")),
        ("img/a/logo.png", {"": f"img/**{TRACKED}"}, ("", "img/**")),
        ("img/a/logo.png", {"": f"/img/**/*.png{TRACKED}"}, ("", "/img/**/*.png")),
        ("img/logo.png", {"": f"/img/**/*.png{TRACKED}"}, ("", "/img/**/*.png")),
        ("img/a/logo.png", {"": f"img/*.png{TRACKED}"}, None),
        ("a/logo.png", {"": f"/*.png{TRACKED}"}, None),
        ("my logo.png", {"": f"my[[:space:]]logo.png{TRACKED}"}, ("", "my logo.png")),
        ("my logo.png", {"": f'"my logo.png"{TRACKED}'}, ("", "my logo.png")),
        ("logo.png", {"": f"# *.png{TRACKED}[attr]lfs filter=lfs\n"}, None),
        ("logo.png", {"": f"*.p\x1bng{TRACKED}"}, None),
        ("logo.png", {"": f"*.p[{TRACKED}\xff"}, None),
        ("x" * 200 + "/" + "a" * 800, {"": "*a" * 60 + "b" + TRACKED}, None),
        ("/".join("a" * 500), {"": "**/" * 400 + "b" + TRACKED}, None),
    ],
)
def test_the_pattern_that_makes_a_pointer(path: str, files: Mapping[str, str], found: tuple[str, str] | None) -> None:
    content = {f"{folder}/.gitattributes".lstrip("/"): text.encode("latin-1") for folder, text in files.items()}
    assert tracked_by(path, lambda place: content.get(place, b"")) == found


def test_all_pointers_are_counted_and_the_first_is_named() -> None:
    refuse_pointers([], lambda _: b"")
    with pytest.raises(Refusal, match=r"'a\.png' and 2 more are Git LFS pointers") as caught:
        refuse_pointers(["a.png", "b.png", "c.png"], lambda _: b"")
    assert caught.value.remedy == (
        "Put the file itself in its place and commit that: no .gitattributes of the commit tracks 'a.png' with LFS."
    )


# -- in a real repository, with filters that stand for those of git-lfs --------------------------------------------

CLEAN = """\
#!/bin/sh
# Keeps a file beside the repository and writes its pointer, as `git lfs clean` does.
store="$(dirname "$0")/store"; mkdir -p "$store"; cat > "$store/new"
oid=$(sha256sum < "$store/new" | cut -c1-64); size=$(wc -c < "$store/new"); mv "$store/new" "$store/$oid"
printf 'version https://git-lfs.github.com/spec/v1\\noid sha256:%s\\nsize %s\\n' "$oid" "$size"
"""
LFS = """\
#!/bin/sh
# `git lfs pull` and `git lfs untrack PATTERN`, as far as they are needed here.
store="$(dirname "$0")/store"
case "$1" in
pull)
    for path in $(git ls-files); do
        oid=$(sed -n 's/^oid sha256://p' "$path")
        if [ -n "$oid" ]; then cat "$store/$oid" > "$path"; fi
    done ;;
untrack) grep -vF "$2 filter=lfs" .gitattributes > .rest; cat .rest > .gitattributes; rm .rest ;;
esac
"""


class Shop:
    """A working copy in which git-lfs, or what stands for it, keeps files."""

    def __init__(self, place: Path, *, driver: bool = True) -> None:
        self.tools, self.folder = place / "tools", place / "shop"
        self.tools.mkdir()
        self.folder.mkdir()
        for name, text in {"clean": CLEAN, "git-lfs": LFS}.items():
            (self.tools / name).write_text(text)
            (self.tools / name).chmod(0o755)
        self.sh("git init -q .")
        if driver:
            self.sh(f"git config filter.lfs.clean {self.tools}/clean; git config filter.lfs.smudge cat")

    def sh(self, commands: str) -> None:
        environment = GIT | {"PATH": f"{self.tools}:{os.environ['PATH']}"}
        subprocess.run(["sh", "-euc", commands], cwd=self.folder, env=environment, check=True, capture_output=True)

    def write(self, files: Mapping[str, str]) -> None:
        for name, text in files.items():
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_text(text)

    def commit(self) -> None:
        self.sh("git add . && git commit -qm one")

    def pushed(self) -> Path:
        """Return the files of the newest commit as the line checks them out."""
        done = subprocess.run(["git", "-C", str(self.folder), "rev-parse", "HEAD"], env=GIT, check=True,
                              capture_output=True, text=True)  # fmt: skip
        return source.checkout(self.folder / ".git", done.stdout.strip(), self.folder.parent / "out")


def commands_of(refusal: Refusal) -> str:
    """Return the commands of a remedy."""
    return refusal.remedy.partition(": ")[2].removesuffix(".") + "."


@pytest.mark.parametrize(
    ("attributes", "untrack"),
    [(".gitattributes", "git lfs untrack '*.png'"), ("img/.gitattributes", "(cd img && git lfs untrack '*.png')")],
)
@pytest.mark.parametrize("smudged", [True, False])
def test_what_is_advised_puts_the_file_into_the_commit(
    tmp_path: Path, attributes: str, untrack: str, smudged: bool  # noqa: FBT001
) -> None:  # fmt: skip
    shop = Shop(tmp_path)
    shop.write({attributes: f"*.png{TRACKED}", "img/logo.png": "real\n", "img/more.png": "more\n"})
    shop.commit()
    if not smudged:
        shop.sh("git show HEAD:img/logo.png > img/logo.png")
    with pytest.raises(Refusal, match="LFS pointers") as pushed:
        shop.pushed()
    with pytest.raises(Refusal) as checked:
        check_uncommitted(shop.folder)
    assert (checked.value.what, checked.value.remedy) == (pushed.value.what, pushed.value.remedy)
    assert commands_of(pushed.value) == f"git lfs pull; {untrack}; git add --renormalize ."
    shop.sh(commands_of(pushed.value) + "\ngit commit -qm two")
    check_uncommitted(shop.folder)
    tree = shop.pushed()
    assert (tree / "img/logo.png").read_text() == "real\n"
    assert (tree / "img/more.png").read_text() == "more\n"


def test_a_file_that_stands_here_and_is_a_pointer_once_committed_is_said(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.write({".gitattributes": f"*.png{TRACKED}", "a.txt": "x"})
    shop.commit()
    shop.write({"logo.png": "real\n"})
    with pytest.raises(Refusal, match=r"'logo\.png' is a Git LFS pointer"):
        check_uncommitted(shop.folder)


def test_a_file_that_was_committed_whole_is_what_it_was_until_it_changes(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.write({"logo.png": "real\n"})
    shop.commit()
    shop.write({".gitattributes": f"*.png{TRACKED}"})
    check_uncommitted(shop.folder)
    shop.write({"logo.png": "changed\n"})
    with pytest.raises(Refusal, match="LFS"):
        check_uncommitted(shop.folder)


def test_without_git_lfs_a_file_is_committed_as_it_is(tmp_path: Path) -> None:
    shop = Shop(tmp_path, driver=False)
    shop.write({".gitattributes": f"*.png{TRACKED}", "logo.png": "real\n"})
    check_uncommitted(shop.folder)
    shop.write({"logo.png": POINTER})
    with pytest.raises(Refusal, match="LFS"):
        check_uncommitted(shop.folder)
