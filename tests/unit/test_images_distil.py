"""Distilled images: a package's files and nothing else; and Java's keystore, always the same."""

import hashlib
import shutil
import subprocess

import pytest

from sekisho.errors import PermanentError
from sekisho.images.distil import cut_status, distilled, owned_paths
from sekisho.images.elf import check_whole, needs_of
from sekisho.images.keystore import java_keystore, rewrite_keystore
from sekisho.images.rootfs import dpkg_packages
from sekisho.images.tree import path_filter, read_tree

STATUS = """Package: libc6
Status: install ok installed
Version: 2.36
Architecture: amd64

Package: bash
Status: install ok installed
Version: 5.2

Package: libc6-dev
Status: install ok installed
Version: 2.36
"""


@pytest.fixture
def root(tmp_path):
    files = {
        "usr/lib/libc.so.6": "elf",
        "usr/bin/bash": "elf",
        "usr/share/doc/libc6/copyright": "GPL",
        "etc/ld.so.cache": "made",
        "etc/ssl/certs/bundle.crt": "made",
        "var/lib/dpkg/status": STATUS,
        "var/lib/dpkg/info/libc6:amd64.list": "/.\n/lib\n/lib/libc.so.6\n/usr\n/usr/share/doc/libc6/copyright\n",
        "var/lib/dpkg/info/libc6-dev:amd64.list": "/.\n",
        "var/lib/dpkg/info/bash.list": "/.\n/bin\n/bin/bash\n",
    }
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (tmp_path / "lib").symlink_to("usr/lib")
    (tmp_path / "bin").symlink_to("usr/bin")
    return tmp_path


def kept(root, packages, keep=()):
    tree = read_tree(root, path_filter(()))
    return sorted(path for path, entry in distilled(root, tree, packages, keep).items() if entry.kind != "directory")


def test_only_the_packages_own_files_stay(root):
    assert kept(root, ("libc6",)) == [
        "bin",
        "lib",
        "usr/lib/libc.so.6",
        "usr/share/doc/libc6/copyright",
        "var/lib/dpkg/info/libc6:amd64.list",
        "var/lib/dpkg/status",
    ]


def test_every_kept_file_has_its_folders(root):
    tree = distilled(root, read_tree(root, path_filter(())), ("libc6",), ())
    assert {path.rpartition("/")[0] for path in tree if "/" in path} <= set(tree)


def test_what_was_made_while_installing_stays_when_named(root):
    assert "etc/ssl/certs/bundle.crt" in kept(root, ("libc6",), ("etc/ssl/certs/*.crt",))


def test_a_keep_that_keeps_nothing_is_an_error(root):
    with pytest.raises(PermanentError, match="Nothing in the image is etc/typo"):
        kept(root, ("libc6",), ("etc/typo",))


def test_a_package_that_is_not_installed_is_an_error(root):
    with pytest.raises(PermanentError, match="libssl3 is not installed"):
        owned_paths(root, ("libssl3",))


def test_the_package_database_names_what_stays_and_nothing_else(root):
    cut_status(root, ("libc6",))
    assert dpkg_packages(root)[0] == ("libc6=2.36",)


# -- whether it is whole ---------------------------------------------------------------------------------------


def program(tmp_path):
    """Return a root with a real program of this machine, and the libraries that it asks for."""
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "usr/lib").mkdir()
    shutil.copyfile("/bin/ls", tmp_path / "usr/bin/ls")
    needs = needs_of(tmp_path / "usr/bin/ls")
    assert needs is not None
    assert "libc.so.6" in needs.libraries
    return needs.libraries


def check(root):
    tree = read_tree(root, path_filter(()))
    check_whole(tree, {path: root for path, entry in tree.items() if entry.kind == "file"})


def test_a_program_without_its_library_is_told_with_the_library(tmp_path):
    program(tmp_path)
    with pytest.raises(PermanentError, match=r"libc\.so\.6 \(for usr/bin/ls\)"):
        check(tmp_path)


def test_a_program_with_all_of_its_libraries_is_whole_also_through_links(tmp_path):
    libraries = program(tmp_path)
    for library in libraries:
        (tmp_path / f"usr/lib/{library}.1").write_bytes(b"library")
        (tmp_path / "usr/lib" / library).symlink_to(f"{library}.1")
    check(tmp_path)
    (tmp_path / "usr/lib" / f"{libraries[0]}.1").unlink()
    with pytest.raises(PermanentError, match="Libraries are missing"):
        check(tmp_path)


def test_a_link_in_a_circle_is_no_library(tmp_path):
    for library in program(tmp_path):
        (tmp_path / "usr/lib" / library).symlink_to(library)
    with pytest.raises(PermanentError, match="Libraries are missing"):
        check(tmp_path)


@pytest.mark.parametrize("content", [b"", b"#!/bin/sh\n", b"\x7fELF\x01\x01"])
def test_what_is_no_program_of_this_kind_needs_nothing(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    assert needs_of(tmp_path / "x") is None


# -- Java's keystore -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificates")
    texts = []
    for name in ("one", "two"):
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                   "-keyout", "/dev/null", "-subj", f"/CN={name}", "-days", "3650"]  # fmt: skip
        texts.append(subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder).stdout)
    return texts


def test_the_keystore_does_not_depend_on_order_or_repetition(bundle):
    one, two = bundle
    assert java_keystore(one + two, epoch=5) == java_keystore(two + one + two, epoch=5)
    assert java_keystore(one, epoch=5) != java_keystore(two, epoch=5)


def test_the_keystore_is_sealed_as_java_checks_it(bundle):
    data = java_keystore("".join(bundle), epoch=1)
    assert data[:12] == bytes.fromhex("feedfeed00000002") + (2).to_bytes(4, "big")
    said = hashlib.sha1(
        "changeit".encode("utf-16-be") + b"Mighty Aphrodite" + data[:-20], usedforsecurity=False
    ).digest()
    assert data[-20:] == said


def test_a_root_without_java_is_left_alone(tmp_path):
    rewrite_keystore(tmp_path, epoch=1)
    assert list(tmp_path.iterdir()) == []
