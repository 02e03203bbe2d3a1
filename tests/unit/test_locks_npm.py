"""What package-lock.json may say."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sekisho.errors import Refusal
from stages.build.locks_npm import MAX_PACKAGES, NpmLock, parse_npm_lock
from stages.build.npm_names import check_folder, check_name, index_path, read_integrity, runs_here

A = b"\x01" * 64
SHA512 = f"sha512-{base64.b64encode(A).decode()}"
SHA1 = f"sha1-{base64.b64encode(bytes(20)).decode()}"


def lock(packages: dict[str, Any], **fields: Any) -> str:
    return json.dumps({"name": "x", "lockfileVersion": 3, "packages": packages, **fields}, indent=2)


def entry(version: str = "1.0.0", **fields: Any) -> dict[str, Any]:
    return {"version": version, "integrity": SHA512, **fields}


def parse(packages: dict[str, Any]) -> NpmLock:
    return parse_npm_lock(lock(packages))


def refused(packages: dict[str, Any]) -> Refusal:
    with pytest.raises(Refusal) as caught:
        parse(packages)
    assert caught.value.remedy
    assert caught.value.where
    return caught.value


def test_a_package_is_its_name_version_and_hash() -> None:
    found = parse({"": {}, "node_modules/@scope/name": entry("1.0.0-rc.1+build.5", dev=True, hasInstallScript=True)})
    (package,) = found.packages
    assert package.path == "@scope/name/-/name-1.0.0-rc.1.tgz"
    assert package.purl == "pkg:npm/%40scope/name@1.0.0-rc.1%2Bbuild.5"
    assert package.digest == f"sha512:{A.hex()}"
    assert package.dev
    assert package.scripts
    assert package.line == 6


@pytest.mark.parametrize(
    "resolved",
    [
        None,
        "https://registry.npmjs.org/left-pad/-/left-pad-1.0.0.tgz",
        "http://127.0.0.1:8001/npm/left-pad/-/left-pad-1.0.0.tgz",
        "https://registry.yarnpkg.com/left-pad/-/left-pad-1.0.0.tgz#0000",
        "https://user:secret@mirror.example/api/npm/all/left-pad/-/left-pad-1.0.0.tgz",
    ],
)
def test_where_it_was_downloaded_from_decides_nothing(resolved: str | None) -> None:
    fields = {} if resolved is None else {"resolved": resolved}
    found = parse({"node_modules/left-pad": entry(**fields)})
    assert found.packages[0].path == "left-pad/-/left-pad-1.0.0.tgz"
    written = json.loads(found.normalised)["packages"]["node_modules/left-pad"]
    assert written["resolved"] == "https://registry.npmjs.org/left-pad/-/left-pad-1.0.0.tgz"
    assert written["integrity"] == SHA512


@pytest.mark.parametrize(
    ("resolved", "kind"),
    [
        ("git+ssh://git@github.com/user/left-pad.git#0123", "a git repository"),
        ("https://codeload.github.com/user/left-pad/tar.gz/0123", "a git repository"),
        ("file:vendor/left-pad-1.0.0.tgz", "a file"),
        ("file:///etc/passwd", "a file"),
        ("https://example.com/left-pad.tgz", "a URL"),
        ("https://registry.npmjs.org/other/-/other-1.0.0.tgz", "a URL"),
        ("https://registry.npmjs.org/left-pad/-/left-pad-1.0.1.tgz", "a URL"),
        ("ftp://registry.npmjs.org/left-pad/-/left-pad-1.0.0.tgz", "a URL"),
    ],
)
def test_what_is_not_of_the_index_is_refused_with_its_line(resolved: str, kind: str) -> None:
    error = refused({"node_modules/left-pad": entry(resolved=resolved)})
    assert f"comes from {kind}" in str(error)
    assert error.where == "package-lock.json:5"


def test_a_secret_in_a_url_is_not_repeated() -> None:
    error = refused({"node_modules/left-pad": entry(resolved="https://me:hunter2@example.com/left-pad.tgz")})
    assert "hunter2" not in str(error)


def test_an_alias_is_fetched_by_its_real_name() -> None:
    found = parse({"node_modules/old": entry("2.0.0", name="@real/thing")})
    assert found.packages[0].path == "@real/thing/-/thing-2.0.0.tgz"
    assert found.packages[0].place == "node_modules/old"


def test_links_and_workspaces_are_folders_of_the_workload() -> None:
    found = parse({"packages/a": {"version": "1.0.0"}, "node_modules/a": {"resolved": "packages/a", "link": True}})
    assert (found.packages, found.folders, found.links) == ((), ("packages/a",), {"node_modules/a": "packages/a"})


@pytest.mark.parametrize("target", ["../shared", "/etc", "packages/../..", "a\\b", "", "file:../x", 5, None])
def test_a_link_out_of_the_workload_is_refused(target: object) -> None:
    refused({"node_modules/a": {"resolved": target, "link": True}})


def test_a_workspace_above_the_workload_is_the_one_with_score_yaml() -> None:
    refusal = refused({"node_modules/a": {"resolved": "../x", "link": True}})
    assert "put score.yaml into the folder that holds both" in refusal.remedy


def test_a_link_to_nothing_is_refused() -> None:
    refused({"node_modules/a": {"resolved": "packages/a", "link": True}})


@pytest.mark.parametrize(
    "key",
    [
        "node_modules/../../etc/passwd",
        "/node_modules/a",
        "node_modules//a",
        "node_modules/a/../b",
        "node_modules/a\\..\\b",
        "node_modules/a\x00b",
        "node_modules/.bin",
        "node_modules/a/node_modules/..",
        "node_modules/@scope",
        "node_modules/a/b",
        "node_modules/node_modules/x",
        "../outside/node_modules/a",
        "packages/./a/node_modules/b",
        "packages/.git/node_modules/b",
        f"node_modules/{'a' * 300}",
    ],
)
def test_no_place_leaves_node_modules(key: str) -> None:
    refused({key: entry()})


@pytest.mark.parametrize("name", ["../x", "@scope/../x", "a/b/c", "", ".hidden", "a b", "é", "@/x"])
def test_no_name_leads_elsewhere(name: str) -> None:
    refused({"node_modules/a": entry(name=name)})


@pytest.mark.parametrize(
    "version", ["", "1", "../1.0.0", "1.0.0/../2", "latest", "1.0.0 ", "^1.0.0", "1.0.0-", 7, None]
)
def test_no_version_leads_elsewhere(version: object) -> None:
    refused({"node_modules/a": {"version": version, "integrity": SHA512}})


@pytest.mark.parametrize(
    "integrity",
    [
        None, "", " ", 5, "sha512-", "sha512-abc", "md5-AAAAAAAAAAAAAAAAAAAAAA==", SHA512[:-4],
        SHA512.replace("A", "?"),
        f"{SHA512} sha512-{base64.b64encode(bytes(64)).decode()}", f"sha1-{base64.b64encode(A).decode()}",
    ],
)  # fmt: skip
def test_a_package_without_one_good_hash_is_refused(integrity: object) -> None:
    assert "hash" in str(refused({"node_modules/a": {"version": "1.0.0", "integrity": integrity}}))


def test_the_strongest_of_several_hashes_counts() -> None:
    assert read_integrity(f"{SHA1} {SHA512}?opt=1")[1].startswith("sha512:")
    assert read_integrity(SHA1) == (SHA1, f"sha1:{'00' * 20}")


def test_what_comes_in_another_package_is_not_fetched() -> None:
    found = parse({"node_modules/a": entry(), "node_modules/a/node_modules/b": {"version": "1.0.0", "inBundle": True}})
    assert [package.name for package in found.packages] == ["a"]
    refused({"node_modules/b": {"version": "1.0.0", "inBundle": True}})  # in whose file should it be?


def test_other_platforms_are_left_out_where_optional_and_refused_where_not() -> None:
    packages = {
        "node_modules/darwin": entry(os=["darwin"], optional=True),
        "node_modules/darwin/node_modules/below": entry(),
        "node_modules/arm": entry(cpu=["arm64"], optional=True),
        "node_modules/musl": entry(os=["linux"], libc=["musl"], optional=True),
        "node_modules/here": entry(os=["!win32"], cpu="x64", libc=["glibc"], optional=True),
    }
    found = parse(packages)
    assert [package.name for package in found.packages] == ["here"]
    assert "node_modules/darwin" in found.places
    assert "does not run on Linux" in str(refused({"node_modules/fsevents": entry(os=["darwin"])}))


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [(None, True), ([], True), (["any"], True), (["linux", "darwin"], True), (["!linux"], False), ("win32", False),
     (["!win32", "!darwin"], True), (["!win32", "darwin"], False), (5, True)],
)  # fmt: skip
def test_platforms_are_judged_as_npm_does(wanted: object, *, expected: bool) -> None:
    assert runs_here(wanted, None, None) is expected


def test_programs_are_known_and_none_leaves_its_package() -> None:
    found = parse({"node_modules/@s/next": entry(bin={"next": "./dist/bin/next", "evil": "../../x", "abs": "/bin/sh"}),
                   "node_modules/@s/one": entry(bin="cli.js")})  # fmt: skip
    assert [dict(package.bin) for package in found.packages] == [{"next": "dist/bin/next"}, {"one": "cli.js"}]


@pytest.mark.parametrize("version", [1, 4, None, "3", True, {}])
def test_other_versions_of_the_format_are_refused_with_the_command(version: object) -> None:
    with pytest.raises(Refusal) as caught:
        parse_npm_lock(json.dumps({"lockfileVersion": version, "packages": {}}))
    assert "npm install --package-lock-only" in caught.value.remedy


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "null", "{", '{"lockfileVersion": 3}', '{"lockfileVersion": 3, "packages": []}',
        '{"lockfileVersion": 3, "packages": {"node_modules/a": 1}}', '{"lockfileVersion": NaN}',
        '{"lockfileVersion": 3, "packages": {"node_modules/a": {}, "node_modules/a": {}}}',
        '{"lockfileVersion": 3, "packages": {}, "name": "\\ud800"}', "[" * 100_000, '{"a":' * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_lock_is_refused(text: str) -> None:
    with pytest.raises(Refusal):
        parse_npm_lock(text)


def test_too_many_packages_are_refused() -> None:
    many = {f"node_modules/p{number}": {} for number in range(MAX_PACKAGES + 1)}
    assert str(MAX_PACKAGES) in str(refused(many))


def test_npm_gets_the_same_lock_however_it_was_written() -> None:
    one = {
        "node_modules/a": entry(resolved="https://mirror.example/a/-/a-1.0.0.tgz", license="MIT", funding={"url": "x"})
    }
    other = {"node_modules/a": entry()}
    assert parse(one).normalised == parse(other).normalised


def test_optional_packages_that_the_lock_lacks_are_not_asked_for() -> None:
    packages = {
        "node_modules/a": entry(optionalDependencies={"there": "1", "inner": "1", "missing": "1"}),
        "node_modules/a/node_modules/inner": entry(),
        "node_modules/there": entry(),
    }
    written = json.loads(parse(packages).normalised)["packages"]["node_modules/a"]
    assert written["optionalDependencies"] == {"there": "1", "inner": "1"}


_TEXT = st.text(max_size=30) | st.sampled_from(["..", ".", "node_modules", "@a", "a", "packages"])


@settings(max_examples=300)
@given(st.lists(_TEXT, min_size=1, max_size=6).map("/".join))
@example("0//node_modules/0")
def test_whatever_the_key_what_is_taken_stays_inside(key: str) -> None:
    try:
        found = parse({key: entry()})
    except Refusal:
        return
    for package in found.packages:
        parts = package.place.split("/")
        assert ".." not in parts
        assert "" not in parts
        assert "\\" not in package.place
    assert all(".." not in folder.split("/") and not folder.startswith("/") for folder in found.folders)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_FIELDS = st.sampled_from(
    ["version", "integrity", "resolved", "name", "os", "bin", "link", "dev", "inBundle", "optional", "cpu", "libc"]
)


@settings(max_examples=300)
@given(_VALUES, _FIELDS)
def test_whatever_a_field_holds_the_answer_is_a_lock_or_a_refusal(value: object, name: str) -> None:
    try:
        found = parse({"node_modules/a": {**entry(), name: value}})
    except Refusal:
        return
    assert all(package.digest.startswith(("sha512:", "sha1:", "sha256:")) for package in found.packages)


@given(st.text(max_size=40))
def test_a_name_that_passes_makes_one_path_of_two_or_three_parts(text: str) -> None:
    try:
        name = check_name(text)
    except ValueError:
        return
    path = index_path(name, "1.0.0")
    assert path.count("/") == (3 if name.startswith("@") else 2)
    assert ".." not in path.split("/")


@given(st.text(max_size=40))
def test_a_folder_that_passes_is_inside(text: str) -> None:
    try:
        folder = check_folder(text)
    except ValueError:
        return
    assert folder
    assert not folder.startswith("/")
    assert ".." not in folder.split("/")
