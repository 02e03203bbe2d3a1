"""maven.lock.json: each file of a Maven build by path and sha256."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sekisho.canonical import canonical
from sekisho.errors import Refusal
from stages.build.locks_maven import FORMAT, MAX_FILES, MavenFile, parse_maven_lock

SUM = "ab" * 32
JAR = "org/slf4j/slf4j-api/2.0.17/slf4j-api-2.0.17.jar"


def lock(files: Any, **more: Any) -> str:
    return canonical({"format": FORMAT, "files": files, **more}).decode()


def one(path: str, digest: str = f"sha256:{SUM}") -> tuple[MavenFile, ...]:
    return parse_maven_lock(lock({f"maven/{path}": digest}))


def test_what_the_line_recorded_is_read() -> None:
    files = parse_maven_lock(lock({f"maven/{JAR}": f"sha256:{SUM}", "maven/a/b/1/b-1.pom": f"sha256:{SUM}"}))
    assert files == (MavenFile("a/b/1/b-1.pom", SUM), MavenFile(JAR, SUM))


def test_a_file_is_fetched_to_its_place_in_the_repository() -> None:
    artifact = one(JAR)[0].artifact()
    assert (artifact.path, artifact.save_as) == (JAR, JAR)
    assert artifact.digests == (f"sha256:{SUM}",)
    assert artifact.purl == "pkg:maven/org.slf4j/slf4j-api@2.0.17"


def test_metadata_stands_under_the_name_of_the_lines_mirror() -> None:
    artifact = one("org/x/y/maven-metadata.xml")[0].artifact()
    assert artifact.save_as == "org/x/y/maven-metadata-sekisho.xml"
    assert artifact.path == "org/x/y/maven-metadata.xml"


def test_checksums_beside_files_are_not_fetched() -> None:
    beside = {f"maven/{JAR}{end}": f"sha256:{SUM}" for end in ("", ".sha1", ".md5", ".sha512", ".asc")}
    assert [file.path for file in parse_maven_lock(lock(beside))] == [JAR]


@pytest.mark.parametrize(
    ("path", "purl"),
    [
        ("io/netty/netty-all/4.1/netty-all-4.1-linux-x86_64.jar", "pkg:maven/io.netty/netty-all@4.1"),
        ("g/a/1-SNAPSHOT/a-1-20260101.101010-3.jar", "pkg:maven/g/a@1-SNAPSHOT"),
        ("g/a/1/a-1.pom", ""),
        ("g/a/1/b-1.jar", ""),
        ("g/a/1/a-2.jar", ""),
    ],
)
def test_a_library_has_a_package_url(path: str, purl: str) -> None:
    assert one(path)[0].purl == purl


@pytest.mark.parametrize(
    "path",
    [
        "../../../etc/passwd", "/etc/passwd", "a/b/../c.jar", "a/b/./c.jar", "a//b/c.jar", "a/b", "a/b/c\\d.jar",
        "a/b/c\n.jar", "a/b/\uff43.jar", "a/b/c%2f.jar", ".m2/b/c.jar", "a/b/", "",
    ],
)  # fmt: skip
def test_what_is_no_path_of_a_repository_is_refused(path: str) -> None:
    with pytest.raises(Refusal, match="not the path of a file"):
        one(path)


@pytest.mark.parametrize("digest", [SUM, f"sha1:{SUM}", f"sha256:{SUM[:-1]}", f"sha256:{SUM.upper()}", "", None, 1])
def test_what_is_no_whole_sha256_is_refused(digest: Any) -> None:
    with pytest.raises(Refusal, match="no digest that is a whole sha256"):
        parse_maven_lock(lock({f"maven/{JAR}": digest}))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not JSON"),
        ("[]", "not an object"),
        ("{}", "not of the format"),
        (lock({f"maven/{JAR}": f"sha256:{SUM}"}, more=1), "not of the format"),
        (lock([]), "not of the format"),
        (lock({}), "names no file"),
        (lock({f"maven/{JAR}.sha1": f"sha256:{SUM}"}), "names no file"),
        (lock({f"npm/{JAR}": f"sha256:{SUM}"}), "not the path of a file"),
        ('{"format": "x", "format": "y"}', "twice"),
        ("[" * 100_000, "nested too deeply|not JSON"),
    ],
)
def test_another_document_is_refused(text: str, said: str) -> None:
    with pytest.raises(Refusal, match=said) as caught:
        parse_maven_lock(text)
    assert caught.value.where == "maven.lock.json"


def test_a_hundred_thousand_files_are_refused() -> None:
    with pytest.raises(Refusal, match=f"more than {MAX_FILES}"):
        parse_maven_lock(json.dumps({"format": FORMAT, "files": {f"maven/g/a/{n}/a.jar": "" for n in range(100_000)}}))


@settings(deadline=None)
@given(st.text(max_size=80))
def test_no_path_leaves_the_repository(path: str) -> None:
    try:
        files = parse_maven_lock(json.dumps({"format": FORMAT, "files": {f"maven/{path}": f"sha256:{SUM}"}}))
    except Refusal:
        return
    for file in files:
        parts = file.artifact().save_as.split("/")
        assert all(part and not part.startswith(".") for part in parts)
