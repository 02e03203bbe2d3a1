"""A registry that fails at any point: what is temporary is tried again or said to be, and nothing stays half done."""

from __future__ import annotations

import json
import socket
import threading
import time
from contextlib import suppress

import pytest
from odd_registry import faulty, server

from sekisho import registry as registry_module
from sekisho import registry_http
from sekisho.canonical import Digest, digest_of, hex_of
from sekisho.errors import PermanentError, Refusal, TemporaryError
from sekisho.evidence import attach_statement, find_statements
from sekisho.oci import OCI_EMPTY, OCI_INDEX, OCI_MANIFEST, Descriptor, Manifest, fallback_tag, make_index
from sekisho.registry import Registry
from sekisho.statements import BUNDLE_TYPE, PROVENANCE, SUMMARY, Statement, Subject, sign_statement

NOW = 1_790_000_000
BLOB = b"0123456789" * 1000


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(registry_http, "_FIRST_DELAY", 0.001)


def passed(image):
    return Statement(
        subjects=(Subject(digest=image.digest),), predicate_type=SUMMARY, predicate={"verificationResult": "PASSED"}
    )


def found(line, image):
    """Return what counts, what every tool lists, and the layers of the two legacy tags."""
    subject = Digest(image.digest)
    statements = find_statements(
        line.registry, image.repository, subject, trust=line.trust, role="verifier", predicate_type=SUMMARY, at=NOW
    )
    legacy = [
        line.registry.get_manifest(image.repository, f"sha256-{hex_of(subject)}.{name}") for name in ("att", "sig")
    ]
    return (
        len(statements),
        len(line.registry.listed_referrers(image.repository, subject)),
        *(len(Manifest.parse(raw.data).layers) if raw else 0 for raw in legacy),
    )


def once(fault, number):
    return lambda count, *_: fault if count == number else ""


def from_then_on(fault, number):
    return lambda count, *_: fault if count >= number else ""


@pytest.mark.parametrize(("fault", "step"), [("lost", 1), ("cut", 2), ("gone", 3), ("500", 3), ("429", 4), ("slow", 5)])
def test_one_fault_at_any_request_changes_nothing(line, fault, step):
    """Whichever request of signing and attaching fails once, in whichever way, the statement stands there once."""
    number, requests = 1 - step, 2
    while number + step <= requests:
        number += step
        image = line.image(f"fault-once-{fault}-{number}")
        plan = once(fault, number)
        with faulty(line.registry.url, plan, patience=0.3) as (url, seen):
            broken = Registry(url, timeout=0.2)
            attach_statement(broken, image.repository, passed(image), line.signers["verifier"])
            requests = len(seen)
        assert found(line, image) == (1, 1, 1, 1), (number, seen[number - 1])
    assert requests > 20


@pytest.mark.parametrize(("fault", "step"), [("gone", 1), ("500", 4)])
def test_a_registry_that_vanishes_at_any_request_leaves_nothing_half_done(line, fault, step):
    """From some request on, nothing is answered. That is temporary; what is found is whole; doing it again mends it."""
    number, broke = 1 - step, True
    while broke:
        number += step
        image = line.image(f"fault-gone-{fault}-{number}")
        broke = False
        with faulty(line.registry.url, from_then_on(fault, number)) as (url, _):
            try:
                attach_statement(Registry(url), image.repository, passed(image), line.signers["verifier"])
            except TemporaryError:  # any other error ends the test
                broke = True
        assert found(line, image)[0] in {0, 1}
        attach_statement(line.registry, image.repository, passed(image), line.signers["verifier"])
        assert found(line, image) == (1, 1, 1, 1), number
    assert number > 20


@pytest.mark.parametrize("fault", ["500", "gone", "lost", "cut"])
def test_a_large_blob_is_pushed_over_a_fault(line, tmp_path, fault):
    for number in range(1, 5):
        data = BLOB + f"{fault} {number}".encode()
        (tmp_path / "blob").write_bytes(data)
        with faulty(line.registry.url, once(fault, number)) as (url, _):
            Registry(url, timeout=2).push_blob("t/fault-push", tmp_path / "blob", digest_of(data))
        assert line.registry.get_blob("t/fault-push", digest_of(data)) == data


def test_an_upload_is_begun_anew_when_the_registry_forgot_it():
    """The answer to the first PUT is lost and the blob with it: its upload's address answers 404 from then on."""
    uploads: list[str] = []

    def answer(method, path, count):
        if method == "HEAD":
            return 404, {}, b""
        if method == "POST":
            uploads.append(f"/v2/a/b/blobs/uploads/{len(uploads)}")
            return 202, {"Location": uploads[-1]}, b""
        return (201, {}, b"") if len(uploads) > 1 else None

    with server(answer) as (registry, seen):
        registry.put_blob("a/b", BLOB)
    assert [line.split("?")[0] for line in seen if line.startswith("PUT")] == [f"PUT {path}" for path in uploads]


def test_a_refused_upload_is_permanent():
    def answer(method, *_):
        if method == "HEAD":
            return 404, {}, b""
        return (202, {"Location": "/up"}, b"") if method == "POST" else (413, {}, b"too large")

    with server(answer) as (registry, seen), pytest.raises(PermanentError, match=r"413: too large"):
        registry.put_blob("a/b", BLOB)
    assert len(seen) == 3


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_blob_that_is_never_taken_is_temporary(status):
    def answer(method, *_):
        if method == "HEAD":
            return 404, {}, b""
        return (202, {"Location": "/up"}, b"") if method == "POST" else (status, {}, b"")

    with server(answer) as (registry, _), pytest.raises(TemporaryError, match=str(status)):
        registry.put_blob("a/b", BLOB)


def test_a_registry_that_drips_does_not_hold_its_reader(monkeypatch):
    """Each byte comes within the timeout, so that the socket never complains, and the end never comes."""
    monkeypatch.setattr(registry_http, "_SLOWEST", 1 << 30)
    listener = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()

    def drip():
        while not stop.is_set():
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
                while not stop.is_set():
                    connection.sendall(b"x")
                    time.sleep(0.01)

    thread = threading.Thread(target=drip, daemon=True)
    thread.start()
    with pytest.raises(TemporaryError, match="too slowly"):
        Registry(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=0.1).get_blob("a/b", digest_of(BLOB))
    stop.set()
    listener.close()


# -- the referrers API, as registries have it or not --------------------------------------------------------------

ENTRIES = tuple(Descriptor(OCI_MANIFEST, digest_of(b"%d" % number), 3, BUNDLE_TYPE) for number in range(5))
SUBJECT = digest_of(b"subject")
API = f"/v2/a/b/referrers/{SUBJECT}"
INDEX = {"Content-Type": OCI_INDEX}


def test_a_list_of_several_pages_is_read_to_its_end():
    def answer(_method, path, _count):
        number = int(path.partition("next=")[2] or 0)
        more = {"Link": f'<{API}?next={number + 1}>; rel="next"'} if number < 4 else {}
        return 200, INDEX | more, make_index((ENTRIES[number],))

    with server(answer) as (registry, seen):
        assert registry.referrers("a/b", SUBJECT) == ENTRIES
    assert len(seen) == 5


@pytest.mark.parametrize("text", ["null", "[]"])
def test_an_empty_list_is_empty_however_it_is_written(text):
    index = f'{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":{text}}}'.encode()
    with server(lambda *_: (200, INDEX, index)) as (registry, _):
        assert registry.referrers("a/b", SUBJECT) == ()
    with server(lambda *_: (200, INDEX, b'{"schemaVersion":2}')) as (registry, _), pytest.raises(Refusal):
        registry.referrers("a/b", SUBJECT)


def test_a_list_without_an_end_is_refused():
    def answer(*_):
        return 200, INDEX | {"Link": f'<{API}?next=1>; rel="next"'}, make_index(ENTRIES)

    with server(answer) as (registry, _), pytest.raises(PermanentError, match="pages"):
        registry.referrers("a/b", SUBJECT)


def test_a_list_does_not_go_on_elsewhere():
    def answer(*_):
        return 200, INDEX | {"Link": '<http://127.0.0.1:1/x>; rel="next"'}, make_index(ENTRIES)

    with server(answer) as (registry, seen), pytest.raises(PermanentError, match="another address"):
        registry.referrers("a/b", SUBJECT)
    assert len(seen) == 1


@pytest.mark.parametrize(
    "reply",
    [
        (404, {}, b"404 page not found"),
        (400, {}, b"bad request"),
        (405, {}, b""),
        (406, {}, b""),
        (200, {"Content-Type": "text/html"}, b"<html>log in</html>"),
    ],
)
def test_without_the_api_the_index_is_read_and_the_api_is_not_asked_again(reply):
    def answer(_method, path, _count):
        if path == API:
            return reply
        return (404, {}, b"") if "tags/list" in path else (200, INDEX, make_index(ENTRIES))

    with server(answer) as (registry, seen):
        assert registry.referrers("a/b", SUBJECT) == registry.referrers("a/b", SUBJECT) == ENTRIES
    assert seen.count(f"GET {API}") == 1


@pytest.mark.parametrize("code", ["NAME_UNKNOWN", "MANIFEST_UNKNOWN"])
def test_an_unknown_repository_does_not_mean_that_there_is_no_api(code):
    body = json.dumps({"errors": [{"code": code}]}).encode()

    def answer(_method, path, count):
        if path == API:
            return (404, {}, body) if count == 1 else (200, INDEX, make_index(ENTRIES))
        return 404, {}, body

    with server(answer) as (registry, _):
        assert registry.referrers("a/b", SUBJECT) == ()
        assert registry.referrers("a/b", SUBJECT) == ENTRIES


def test_a_registry_that_gets_the_api_is_noticed(monkeypatch):
    monkeypatch.setattr(registry_module, "_NO_API_SECONDS", 0.0)

    def answer(_method, path, count):
        if path == API and count > 1:
            return 200, INDEX, make_index(ENTRIES)
        return 404, {}, b""

    with server(answer) as (registry, _):
        assert registry.referrers("a/b", SUBJECT) == ()
        assert registry.referrers("a/b", SUBJECT) == ENTRIES


@pytest.mark.parametrize("status", [500, 502, 503, 429])
def test_a_registry_that_cannot_answer_has_not_said_that_there_is_nothing(status):
    with server(lambda *_: (status, {}, b"")) as (registry, _), pytest.raises(TemporaryError, match=str(status)):
        registry.referrers("a/b", SUBJECT)


def test_tags_that_are_not_listed_leave_the_index():
    def answer(_method, path, _count):
        if "tags/list" in path:
            return 403, {}, b"denied"
        return (200, INDEX, make_index(ENTRIES)) if fallback_tag(SUBJECT) in path else (404, {}, b"")

    with server(answer) as (registry, _):
        assert registry.referrers("a/b", SUBJECT) == ENTRIES


# -- what is listed and is not what it says ------------------------------------------------------------------------


def listing(line, image, *entries):
    """Write an index of somebody else's over ours."""
    index = make_index(entries)
    tag = fallback_tag(Digest(image.digest))
    line.registry.put_manifest(image.repository, index, OCI_INDEX, tag=tag)


@pytest.fixture
def find(line):
    def call(image):
        return find_statements(
            line.registry,
            image.repository,
            Digest(image.digest),
            trust=line.trust,
            role="builder",
            predicate_type=PROVENANCE,
            at=NOW,
        )

    return call


def test_an_entry_whose_blob_is_missing_hides_nothing(line, find, monkeypatch):
    """Anybody who can write can list a referrer and have its bundle vanish."""
    image = line.image("fault-dangling")
    true = line.attest(image, PROVENANCE)
    statement = Statement(subjects=(Subject(digest=image.digest),), predicate_type=PROVENANCE, predicate={"other": 1})
    bundle = sign_statement(statement, line.signers["builder"])
    other = line.registry.attach(
        image.repository, Digest(image.digest), artifact_type=BUNDLE_TYPE, payload=bundle, payload_type=BUNDLE_TYPE
    )
    get_part = line.registry.get_part

    def missing(repository, part, **more):
        if part.digest == digest_of(bundle):
            raise PermanentError("The registry does not hold the blob.")
        return get_part(repository, part, **more)

    monkeypatch.setattr(line.registry, "get_part", missing)
    assert [item.manifest for item in find(image)] == [true]
    assert other != true
    # Where nothing else is found, the fault is said: a registry that gives nothing is not one that holds nothing.

    def nothing(*_, **__):
        raise PermanentError("The registry answers 403.")

    monkeypatch.setattr(line.registry, "get_part", nothing)
    with pytest.raises(PermanentError, match="403") as caught:
        find(image)
    assert not isinstance(caught.value, Refusal)


def test_a_registry_that_breaks_off_is_not_one_without_statements(line, find, monkeypatch):
    image = line.image("fault-temporary")
    line.attest(image, PROVENANCE)

    def broken(*_, **__):
        raise TemporaryError("The registry broke off.")

    monkeypatch.setattr(line.registry, "get_part", broken)
    with pytest.raises(TemporaryError):
        find(image)


@pytest.mark.parametrize("artifact_type", ["", BUNDLE_TYPE, OCI_EMPTY])
def test_the_manifest_says_what_a_referrer_is_not_the_list(line, find, artifact_type):
    image = line.image(f"fault-type-{len(artifact_type)}")
    true = line.attest(image, PROVENANCE)
    raw = line.registry.get_manifest(image.repository, true)
    listing(line, image, Descriptor(raw.media_type, raw.digest, len(raw.data), artifact_type))

    assert [item.manifest for item in find(image)] == [true]
