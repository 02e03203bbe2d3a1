"""The registry client: against a real registry, and against servers that lie, break off or flood."""

from __future__ import annotations

import base64
import json
import socket
import threading
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odd_registry import Reply, server

from sekisho import registry_http
from sekisho.canonical import digest_of
from sekisho.errors import PermanentError, Refusal, TemporaryError, VerificationError
from sekisho.oci import (
    INLINE_LIMIT,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Manifest,
    check_reference,
    check_repository,
    fallback_tag,
    make_index,
    make_manifest,
    read_index,
    read_json,
)
from sekisho.registry import Registry
from sekisho.together import together

BLOB = b"0123456789" * 1000
DIGEST = digest_of(BLOB)
BASE = make_manifest(Descriptor.of(b"{}", "application/vnd.oci.empty.v1+json"), (), artifact_type="application/x")


@pytest.fixture
def registry(registry_url):
    return Registry(registry_url)


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(registry_http, "_FIRST_DELAY", 0.001)


def put_base(registry, repository, *, tag=""):
    registry.put_blob(repository, b"{}")
    return registry.put_manifest(repository, BASE, OCI_MANIFEST, tag=tag)


# -- with a real registry --------------------------------------------------------------------------------------


def test_blobs_go_there_and_back(registry, tmp_path):
    file = tmp_path / "blob"
    file.write_bytes(BLOB)

    assert not registry.has_blob("t/blobs", DIGEST)
    registry.push_blob("t/blobs", file, DIGEST)
    registry.pull_blob("t/blobs", DIGEST, tmp_path / "pulled", size=len(BLOB))

    assert registry.has_blob("t/blobs", DIGEST)
    assert registry.get_blob("t/blobs", DIGEST) == BLOB == (tmp_path / "pulled").read_bytes()
    assert registry.put_blob("t/blobs", BLOB) == DIGEST
    assert not (tmp_path / "pulled.part").exists()


def test_an_empty_blob_is_a_blob(registry, tmp_path):
    digest = registry.put_blob("t/empty", b"")
    registry.pull_blob("t/empty", digest, tmp_path / "empty", size=0)

    assert (tmp_path / "empty").read_bytes() == b""


def test_a_file_with_another_digest_is_not_taken(registry, tmp_path):
    file = tmp_path / "blob"
    file.write_bytes(b"something else")

    with pytest.raises(PermanentError, match="400"):
        registry.push_blob("t/wrong", file, digest_of(b"not this"))
    assert not registry.has_blob("t/wrong", digest_of(b"not this"))


def test_a_pull_goes_on_where_it_stopped_and_mends_what_was_damaged(registry, tmp_path):
    registry.put_blob("t/resume", BLOB)
    for name, part in (("whole", BLOB), ("half", BLOB[:4321]), ("damaged", b"x" * 4321), ("long", BLOB + b"more")):
        (tmp_path / f"{name}.part").write_bytes(part)
        registry.pull_blob("t/resume", DIGEST, tmp_path / name)
        assert (tmp_path / name).read_bytes() == BLOB, name


def test_a_blob_of_another_size_than_announced_is_refused(registry, tmp_path):
    registry.put_blob("t/size", BLOB)

    for size in (len(BLOB) - 1, len(BLOB) + 1):
        with pytest.raises(VerificationError):
            registry.pull_blob("t/size", DIGEST, tmp_path / "blob", size=size)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(PermanentError, match="larger than 10 bytes"):
        registry.get_blob("t/size", DIGEST, limit=10)


def test_mount(registry):
    registry.put_blob("t/from", BLOB)

    assert registry.mount_blob("t/to", DIGEST, "t/from")
    assert registry.has_blob("t/to", DIGEST)
    assert not registry.mount_blob("t/to", digest_of(b"nowhere"), "t/from")


def test_manifests_and_tags(registry):
    digest = put_base(registry, "t/manifests", tag="one")
    registry.put_manifest("t/manifests", BASE, OCI_MANIFEST, tag="two")

    assert registry.resolve("t/manifests", "one") == digest
    assert registry.get_manifest("t/manifests", "two") == registry.get_manifest("t/manifests", digest)
    assert registry.tags("t/manifests") == ("one", "two")
    assert registry.get_manifest("t/manifests", digest).data == BASE


def test_what_is_not_there(registry):
    nothing = digest_of(b"nothing")

    assert registry.resolve("t/none", "tag") is None
    assert registry.get_manifest("t/none", nothing) is None
    assert registry.tags("t/none") == ()
    assert registry.referrers("t/none", nothing) == ()
    assert not registry.has_blob("t/none", nothing)
    with pytest.raises(PermanentError, match="does not hold"):
        registry.get_blob("t/none", nothing)
    with pytest.raises(PermanentError, match="no manifest"):
        registry.attach("t/none", nothing, artifact_type="a/b", payload=b"", payload_type="a/b")


def test_all_tags_come_over_several_pages(registry, monkeypatch):
    put_base(registry, "t/pages")
    names = tuple(f"tag-{number:02}" for number in range(12))
    for name in names:
        registry.put_manifest("t/pages", BASE, OCI_MANIFEST, tag=name)

    send = registry._http.send
    monkeypatch.setattr(
        registry._http,
        "send",
        lambda method, path, **more: send(
            method, path.replace("n=1000", "n=5") if "?" in path else path + "?n=5" * path.endswith("/list"), **more
        ),
    )
    assert registry.tags("t/pages") == names


def test_attaching_twice_is_attaching_once(registry):
    subject = put_base(registry, "t/attach")
    first, again = (
        registry.attach(
            "t/attach", subject, artifact_type="a/b", payload=b"said", payload_type="c/d", annotations={"k": "v"}
        )
        for _ in range(2)
    )

    (entry,) = registry.referrers("t/attach", subject)
    assert first == again == entry.digest
    assert (entry.artifact_type, entry.annotations) == ("a/b", {"k": "v"})
    manifest = Manifest.parse(registry.get_manifest("t/attach", first).data)
    assert manifest.subject == subject
    assert registry.get_blob("t/attach", manifest.layers[0].digest) == b"said"


def test_writers_at_once_lose_no_referrer(registry_url, tmp_path):
    registries = [Registry(registry_url, locks=tmp_path) for _ in range(4)]
    subject = put_base(registries[0], "t/race")

    def attach(number):
        for turn in range(3):
            registries[number].attach(
                "t/race", subject, artifact_type="a/b", payload=b"%d %d" % (number, turn), payload_type="c/d"
            )

    threads = [threading.Thread(target=attach, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(registries[0].referrers("t/race", subject)) == 12


def test_a_write_that_somebody_else_overwrote_is_done_again(registry, monkeypatch):
    subject = put_base(registry, "t/lost")
    other = Descriptor.of(b"other", "a/b")
    put_manifest = registry.put_manifest
    writes = []

    def overwritten(repository, data, media_type, *, tag=""):
        digest = put_manifest(repository, data, media_type, tag=tag)
        writes.append(digest)
        if len(writes) == 1:  # another process wrote between our read and its own
            put_base(Registry(registry.url), "t/lost")
            put_manifest(repository, make_index(()), OCI_INDEX, tag=tag)
        return digest

    monkeypatch.setattr(registry, "put_manifest", overwritten)
    digest = registry.attach("t/lost", subject, artifact_type="a/b", payload=b"mine", payload_type="c/d")

    assert [item.digest for item in registry.referrers("t/lost", subject)] == [digest]
    assert len(writes) == 2
    assert other.digest != digest


def test_a_tag_that_others_always_change_gives_up_for_now(registry):
    with pytest.raises(TemporaryError, match="others write it"):
        registry.amend("t/fight", fallback_tag(DIGEST), OCI_INDEX, lambda _: make_index(()))


# -- with servers that are not what they should be -------------------------------------------------------------

TYPE = {"Content-Type": OCI_MANIFEST}


def test_a_manifest_with_other_bytes_is_refused():
    with server(lambda *_: (200, TYPE, b'{"other":1}')) as (registry, _), pytest.raises(VerificationError):
        registry.get_manifest("a/b", digest_of(BASE))


def test_a_tag_whose_digest_header_lies_is_refused():
    headers = TYPE | {"Docker-Content-Digest": digest_of(b"lie")}
    with server(lambda *_: (200, headers, BASE)) as (registry, _), pytest.raises(VerificationError):
        registry.get_manifest("a/b", "tag")


def test_a_manifest_with_a_strange_media_type_is_refused():
    reply = (200, {"Content-Type": "text/html"}, BASE)
    with server(lambda *_: reply) as (registry, _), pytest.raises(PermanentError, match="media type"):
        registry.get_manifest("a/b", "tag")


def test_a_blob_with_other_bytes_is_refused(tmp_path):
    with server(lambda *_: (200, {}, b"x" * len(BLOB))) as (registry, _):
        with pytest.raises(VerificationError):
            registry.get_blob("a/b", DIGEST)
        with pytest.raises(VerificationError):
            registry.pull_blob("a/b", DIGEST, tmp_path / "blob")
    assert list(tmp_path.iterdir()) == []


def test_a_registry_that_keeps_something_else_is_noticed():
    headers = {"Docker-Content-Digest": digest_of(b"lie")}
    with server(lambda *_: (201, headers, b"")) as (registry, _), pytest.raises(VerificationError, match="kept"):
        registry.put_manifest("a/b", BASE, OCI_MANIFEST)


def test_an_answer_that_announces_too_much_is_not_read():
    with server(lambda *_: (200, {"Content-Length": str(1 << 50)}, b"")) as (registry, _):
        with pytest.raises(PermanentError, match="larger than"):
            registry.get_manifest("a/b", "tag")
        with pytest.raises(PermanentError, match="larger than"):
            registry.get_blob("a/b", DIGEST)


def test_a_flood_without_a_length_is_cut_off(tmp_path):
    listener = socket.create_server(("127.0.0.1", 0))

    def flood():
        for _ in range(2):
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                with suppress(OSError):
                    connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b"x" * 100_000)

    thread = threading.Thread(target=flood)
    thread.start()
    registry = Registry(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=5)
    with pytest.raises(PermanentError, match="larger than 1000 bytes"):
        registry.get_blob("a/b", DIGEST, limit=1000)
    with pytest.raises(VerificationError, match="larger than 5000 bytes"):
        registry.pull_blob("a/b", DIGEST, tmp_path / "blob", size=5000)
    thread.join()
    listener.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("location", ["file:///etc/passwd", "http://127.0.0.1:1/", "/v2/elsewhere"])
def test_redirects_are_not_followed(location, tmp_path):
    with server(lambda *_: (307, {"Location": location}, b"")) as (registry, seen):
        with pytest.raises(PermanentError, match="redirect"):
            registry.get_blob("a/b", DIGEST)
        with pytest.raises(PermanentError, match="redirect"):
            registry.pull_blob("a/b", DIGEST, tmp_path / "blob")
        assert len(seen) == 2


@pytest.mark.parametrize(
    "location",
    ["http://127.0.0.1:1/upload", "https://evil.example/upload", "//evil.example/x", "", "upload", "http://[/"],
)
def test_uploads_go_nowhere_else(location):
    def answer(method: str, *_) -> Reply:
        return (404, {}, b"") if method == "HEAD" else (202, {"Location": location}, b"")

    with server(answer) as (registry, seen), pytest.raises(PermanentError):
        registry.put_blob("a/b", BLOB)
    assert not [line for line in seen if line.startswith("PUT")]


def test_temporary_faults_are_tried_again():
    def answer(_method: str, _path: str, count: int) -> Reply | None:
        return {1: (503, {}, b"busy"), 2: None}.get(count, (200, TYPE, BASE))

    with server(answer) as (registry, seen):
        assert registry.get_manifest("a/b", "tag").data == BASE
        assert len(seen) == 3


def test_faults_that_stay_are_temporary_errors():
    with server(lambda *_: (500, {}, b"")) as (registry, seen), pytest.raises(TemporaryError, match="500"):
        registry.get_manifest("a/b", "tag")
    assert len(seen) == 4
    with pytest.raises(TemporaryError, match="cannot be reached"):
        Registry("http://127.0.0.1:1").tags("a/b")


def test_other_answers_are_permanent_and_say_what():
    with (
        server(lambda *_: (403, {}, b'{"errors":[{"code":"DENIED"}]}')) as (registry, seen),
        pytest.raises(PermanentError, match=r"403.*DENIED"),
    ):
        registry.get_manifest("a/b", "tag")
    assert len(seen) == 1


def test_a_link_that_breaks_often_moves_each_byte_once(tmp_path):
    def answer(_method: str, _path: str, count: int) -> Reply:
        start = 3000 * (count - 1)
        headers = {"Content-Length": str(len(BLOB) - start)}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(BLOB) - 1}/{len(BLOB)}"
        return (206 if start else 200), headers, BLOB[start : start + 3000]

    with server(answer) as (registry, seen):
        registry.pull_blob("a/b", DIGEST, tmp_path / "blob", size=len(BLOB))

    assert (tmp_path / "blob").read_bytes() == BLOB
    assert [line.partition("bytes=")[2] for line in seen] == ["", "3000-", "6000-", "9000-"]


def test_a_link_that_brings_nothing_gives_up_and_keeps_what_came(tmp_path):
    def answer(_method: str, _path: str, count: int) -> Reply | None:
        return (200, {"Content-Length": str(len(BLOB))}, BLOB[:100]) if count == 1 else None

    with server(answer) as (registry, _), pytest.raises(TemporaryError):
        registry.pull_blob("a/b", DIGEST, tmp_path / "blob")
    assert (tmp_path / "blob.part").read_bytes() == BLOB[:100]


def test_a_server_without_ranges_starts_again(tmp_path):
    (tmp_path / "blob.part").write_bytes(b"zzzz")
    with server(lambda *_: (200, {}, BLOB)) as (registry, _):
        registry.pull_blob("a/b", DIGEST, tmp_path / "blob")
    assert (tmp_path / "blob").read_bytes() == BLOB


def test_a_wrong_range_is_refused(tmp_path):
    (tmp_path / "blob.part").write_bytes(BLOB[:10])
    headers = {"Content-Range": "bytes 5-9999/10000"}
    with server(lambda *_: (206, headers, BLOB[5:])) as (registry, _), pytest.raises(PermanentError, match="range"):
        registry.pull_blob("a/b", DIGEST, tmp_path / "blob")


def test_the_referrers_api_is_used_where_it_is():
    entry = Descriptor(OCI_MANIFEST, DIGEST, 3, "a/b", {"k": "v"})
    with server(lambda *_: (200, {"Content-Type": OCI_INDEX}, make_index((entry,)))) as (registry, seen):
        assert registry.referrers("a/b", DIGEST) == (entry,)
        assert seen == [f"GET /v2/a/b/referrers/{DIGEST}"]


def test_with_a_referrers_api_no_index_is_written():
    def answer(method: str, *_) -> Reply:
        if method == "PUT":
            return 201, {"OCI-Subject": digest_of(BASE)}, b""
        return 200, TYPE, BASE

    with server(answer) as (registry, seen):
        registry.attach("a/b", digest_of(BASE), artifact_type="a/b", payload=b"p", payload_type="c/d")
    assert not [line for line in seen if fallback_tag(digest_of(BASE)) in line]


@pytest.mark.parametrize("page", [b'{"tags":{"a":1}}', b'{"tags":[1]}', b"[]", b"no json"])
def test_a_strange_list_of_tags_is_refused(page):
    with server(lambda *_: (200, {}, page)) as (registry, _), pytest.raises(PermanentError):
        registry.tags("a/b")


# -- names, URLs, forms ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://x",
        "registry:5000",
        "http://",
        "http://u:p@x",
        "http://x/path",
        "http://x:y",
        "http://x?q",
    ],
)
def test_what_is_no_registry_url(url):
    with pytest.raises(PermanentError) as caught:
        Registry(url)
    assert "u:p" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "A", "a//b", "/a", "a/", "../a", "a/..", "a b", "a?x", "a#", "a%2f", "a" * 256])
def test_illegal_repositories(name):
    with pytest.raises(Refusal):
        check_repository(name)


@settings(max_examples=40)
@given(st.text(max_size=40))
def test_a_legal_reference_needs_no_quoting(text):
    try:
        check_reference(text)
    except Refusal:
        return
    assert not set(text) & set("/?#% \r\n")


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_hostile_manifests_are_refused_in_words(value):
    for part in (
        {"config": value},
        {"layers": value},
        {"subject": value},
        {"annotations": value},
        {"mediaType": value},
    ):
        data = {"schemaVersion": 2, "config": {"mediaType": "a", "digest": DIGEST, "size": 1}, "layers": []} | part
        try:
            Manifest.parse(json.dumps(data).encode())
        except Refusal:
            continue


@pytest.mark.parametrize("text", [b'{"a":1,"a":2}', b"[1]", b'{"a":NaN}', b"\xff", b"[" * 100_000, b"{"])
def test_json_that_two_readers_may_read_differently_is_refused(text):
    with pytest.raises(Refusal):
        read_json(text)


def test_an_index_goes_there_and_back():
    entries = (
        Descriptor.of(b"a", "a/b"),
        Descriptor("c/d", digest_of(b"b"), 7, "e/f", {"k": "v"}),
        Descriptor.of(b"", "g/h", inline=True),
    )

    assert read_index(make_index(entries)) == entries


@pytest.mark.parametrize("data", ["", "eA==\n", "!", 7, ["eA=="], base64.b64encode(b"y").decode(), "eHh4"])
def test_a_descriptor_that_brings_along_something_else_is_refused(data):
    right = {"mediaType": "a/b", "digest": digest_of(b"x"), "size": 1, "data": "eA=="}
    assert Descriptor.parse(right).data == b"x"
    with pytest.raises(Refusal, match="data"):
        Descriptor.parse(right | {"data": data})


def test_a_small_document_is_read_with_its_manifest_and_a_large_one_is_not_in_it(registry):
    subject = put_base(registry, "r/inline")
    small, large = b"s" * INLINE_LIMIT, b"l" * (INLINE_LIMIT + 1)
    for payload, inline in ((small, True), (large, False)):
        digest = registry.attach(
            "r/inline", subject, artifact_type="a/b", payload=payload, payload_type="a/b", annotations={}
        )
        (layer,) = Manifest.parse(registry.get_manifest("r/inline", digest).data).layers
        assert (layer.data is not None) == inline
        # Also as a blob of its own: other tools look there.
        assert registry.get_part("r/inline", layer) == registry.get_blob("r/inline", layer.digest) == payload
        with pytest.raises(PermanentError, match="larger"):
            registry.get_part("r/inline", layer, limit=1000)


def test_connections_that_the_registry_closed_meanwhile_are_no_fault():
    """A registry that is started anew ends them all: however many were kept, a request comes through."""

    def answer(method, path, count):
        return (200, {}, b"{}") if count <= 8 or path == "/last" else None

    with server(answer) as (registry, seen):
        transport = registry._http
        together(*(lambda: transport.send("GET", "/first", limit=10) for _ in range(8)))
        for connection in transport._idle:
            connection.sock.shutdown(socket.SHUT_RDWR)
        assert transport.send("GET", "/last", limit=10).body == b"{}"
        assert len(transport._idle) == 1
        registry.close()
        assert not transport._idle
    assert seen.count("GET /last") == 1


def test_an_answer_that_is_not_read_to_its_end_ends_its_connection():
    with server(lambda *_: (200, {}, b"0123456789")) as (registry, _):
        transport = registry._http
        with suppress(RuntimeError), transport.stream("GET", "/half") as response:
            response.read(5)
            raise RuntimeError
        assert not transport._idle
        assert transport.send("GET", "/whole", limit=10).body == b"0123456789"
