"""The way from the sandbox to the indexes: reads what it may, notes it, and is a way to nothing else."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import json
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from upstream import Reply, Upstream, upstream

from sekisho.errors import Refusal, TemporaryError
from stages.build import indexes_http, resolver_paths
from stages.build.artifacts import Fetcher
from stages.build.language import Artifact
from stages.build.resolver import SEEN_AS, Resolver, ResolverLimits

JSON = {"Content-Type": "application/json"}


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexes_http, "_FIRST_DELAY", 0.0)


@pytest.fixture
def index() -> Iterator[Upstream]:
    with upstream() as held:
        yield held


@pytest.fixture
def resolver(index: Upstream, tmp_path: Path) -> Iterator[Resolver]:
    with Resolver(index.indexes(tmp_path), tmp_path, cache=tmp_path / "cache") as held:
        yield held


class Line(http.client.HTTPConnection):
    """HTTP over the resolver's socket."""

    def __init__(self, resolver: Resolver) -> None:
        super().__init__("127.0.0.1:8001")
        self._folder = resolver.folder

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        here = Path.cwd()
        with tempfile.TemporaryDirectory() as short:  # a socket's path may have 107 bytes
            (Path(short) / "f").symlink_to(self._folder)
            self.sock.connect(f"{short}/f/index.sock")
        assert Path.cwd() == here


def get(resolver: Resolver, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes]:
    line = Line(resolver)
    line.putrequest(method, path, skip_host=False, skip_accept_encoding=True)
    for name, value in headers.items():
        line.putheader(name, value)
    line.endheaders()
    answer = line.getresponse()
    try:
        return answer.status, answer.read()
    finally:
        line.close()


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


# -- what is served ------------------------------------------------------------------------------------------------


def test_files_are_given_as_they_are_and_noted(index: Upstream, resolver: Resolver) -> None:
    index.replies |= {"/maven/org/a/1/a-1.jar": b"jar" * 100_000, "/maven/org/a/maven-metadata.xml": b"<metadata/>"}
    line = Line(resolver)
    for _ in range(2):
        for path in ("org/a/1/a-1.jar", "org/a/maven-metadata.xml", "org/b/1/b-1.jar"):
            line.request("GET", f"/maven/{path}")
            answer = line.getresponse()
            assert (answer.status, answer.read()) == (
                (404, answer_text(404)) if "/b/" in path else (200, index.replies[f"/maven/{path}"])
            )
    line.close()
    assert dict(resolver.recorded) == {
        "maven/org/a/1/a-1.jar": sha256(b"jar" * 100_000),
        "maven/org/a/maven-metadata.xml": sha256(b"<metadata/>"),
    }
    assert resolver.failure is None
    assert not resolver.lasting  # a list of versions is in it
    # What never changes is asked for once; what may change, each time.
    assert index.asked.count("/maven/org/a/1/a-1.jar") == 1
    assert index.asked.count("/maven/org/a/maven-metadata.xml") == 2


def test_a_record_of_fixed_files_alone_lasts(index: Upstream, resolver: Resolver) -> None:
    index.replies["/maven/org/a/1/a-1.jar"] = b"jar"
    line = Line(resolver)
    for path in ("org/a/1/a-1.jar", "org/b/maven-metadata.xml"):  # the second is not there, and so is not given
        line.request("GET", f"/maven/{path}")
        line.getresponse().read()
    line.close()
    assert [*resolver.recorded] == ["maven/org/a/1/a-1.jar"]
    assert resolver.lasting


def answer_text(status: int) -> bytes:
    return f"The package index answers {status}.".encode()


def test_head_says_what_get_would(index: Upstream, resolver: Resolver) -> None:
    index.replies["/maven/a"] = b"jar"
    line = Line(resolver)
    line.request("HEAD", "/maven/a")
    answer = line.getresponse()
    assert (answer.status, answer.getheader("Content-Length"), answer.read()) == (200, "3", b"")
    line.request("GET", "/maven/a")
    assert line.getresponse().read() == b"jar"
    line.close()


def test_what_was_given_is_not_downloaded_again(index: Upstream, tmp_path: Path) -> None:
    index.replies["/npm/a/-/a-1.tgz"] = b"package"
    cache = tmp_path / "cache"
    for _ in range(2):
        with Resolver(index.indexes(tmp_path), tmp_path, cache=cache) as resolver:
            assert get(resolver, "/npm/a/-/a-1.tgz") == (200, b"package")
            assert dict(resolver.recorded) == {"npm/a/-/a-1.tgz": sha256(b"package")}
    digest = "sha512:" + hashlib.sha512(b"package").hexdigest()
    (found,) = Fetcher(cache, index.indexes(tmp_path)).files([Artifact("npm", "a/-/a-1.tgz", (digest,), "a.tgz")])
    assert found.path.read_bytes() == b"package"
    assert index.asked == ["/npm/a/-/a-1.tgz"]


def test_a_poisoned_copy_is_not_given(index: Upstream, tmp_path: Path) -> None:
    index.replies["/npm/a/-/a-1.tgz"] = b"package"
    cache = tmp_path / "cache"
    with Resolver(index.indexes(tmp_path), tmp_path, cache=cache) as resolver:
        get(resolver, "/npm/a/-/a-1.tgz")
    (stored,) = cache.glob("artifacts/files/??/*")
    stored.chmod(0o644)
    stored.write_bytes(b"p0ison!")
    with Resolver(index.indexes(tmp_path), tmp_path, cache=cache) as resolver:
        assert get(resolver, "/npm/a/-/a-1.tgz") == (200, b"package")
    assert len(index.asked) == 2


def test_without_a_cache_nothing_stays(index: Upstream, tmp_path: Path) -> None:
    index.replies["/npm/a/-/a-1.tgz"] = b"package"
    with Resolver(index.indexes(tmp_path), tmp_path) as resolver:
        assert get(resolver, "/npm/a/-/a-1.tgz") == (200, b"package")
    assert list(tmp_path.iterdir()) == []


def test_many_tools_are_served_at_once(index: Upstream, resolver: Resolver) -> None:
    index.replies |= {
        f"/go/m/@v/v{number}.mod": Reply(f"module m{number}\n".encode(), pause=0.01) for number in range(60)
    }
    found = {}

    def ask(number: int) -> None:
        found[number] = get(resolver, f"/go/m/@v/v{number}.mod")

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: (200, f"module m{number}\n".encode()) for number in range(60)}
    assert len(resolver.recorded) == 60


# -- pages ---------------------------------------------------------------------------------------------------------


def test_npms_tarballs_lead_to_the_proxy(index: Upstream, resolver: Resolver) -> None:
    page = {
        "name": "@s/a",
        "versions": {
            "1.0.0": {"dist": {"tarball": f"{index.url}/npm/@s/a/-/a-1.0.0.tgz", "integrity": "sha512-x"}},
            "1.0.1": {"dist": {"tarball": "https://elsewhere.example.com/x/@s/a/-/a-1.0.1.tgz"}},
            "1.0.2": {"dist": {"tarball": "https://elsewhere.example.com/any.tgz"}},
        },
    }
    data = json.dumps(page).replace("/-/a-1.0.1", "\\/-\\/a-1.0.1").encode()
    index.replies["/npm/@s%2Fa"] = Reply(data, headers=JSON)
    for asked in ("/npm/@s%2fa", "/npm/@s%2Fa", "/npm/@s/a"):
        status, body = get(resolver, asked)
        tarballs = [version["dist"]["tarball"] for version in json.loads(body)["versions"].values()]
        assert status == 200
        assert tarballs == [
            f"{SEEN_AS}/npm/@s/a/-/a-1.0.0.tgz",
            f"{SEEN_AS}/npm/@s/a/-/a-1.0.1.tgz",
            "https://elsewhere.example.com/any.tgz",
        ]
    assert dict(resolver.recorded) == {"npm/@s/a": sha256(data)}


def test_pypis_files_lead_to_the_proxy(index: Upstream, resolver: Resolver) -> None:
    host = index.url.removeprefix("http://")
    html = (
        f'<a href="{index.url}/packages/a-1.whl#sha256=00" data-x="1">a</a>'
        "<a data-requires-python='&gt;=3' href='../../files/a%2Bcpu-2.whl'>b</a>"
        '<a href="https://elsewhere.example.com/a-3.whl">c</a>'
    )
    files = [{"filename": "a-1.whl", "url": f"{index.url}/packages/a-1.whl", "hashes": {"sha256": "00"}}]
    index.replies["/pypi/a/"] = lambda headers: (
        Reply(json.dumps({"files": files}).encode(), headers={"Content-Type": "application/vnd.pypi.simple.v1+json"})
        if "json" in headers["accept"]
        else Reply(html.encode(), headers={"Content-Type": "text/html"})
    )
    index.replies |= {"/packages/a-1.whl": b"wheel", "/files/a%2Bcpu-2.whl": b"another"}
    _, body = get(resolver, "/pypi/simple/a/")
    assert body.decode() == (
        f'<a href="{SEEN_AS}/pypi/files/{host}/packages/a-1.whl#sha256=00" data-x="1">a</a>'
        f"<a data-requires-python='&gt;=3' href=\"{SEEN_AS}/pypi/files/{host}/files/a+cpu-2.whl\">b</a>"
        '<a href="https://elsewhere.example.com/a-3.whl">c</a>'
    )
    _, body = get(resolver, "/pypi/simple/a/", Accept="application/vnd.pypi.simple.v1+json, text/html; q=0.1, x/evil")
    assert json.loads(body)["files"][0] == {**files[0], "url": f"{SEEN_AS}/pypi/files/{host}/packages/a-1.whl"}
    assert "evil" not in index.headers[-1]["accept"]
    assert get(resolver, f"/pypi/files/{host}/packages/a-1.whl") == (200, b"wheel")
    assert get(resolver, f"/pypi/files/{host}/files/a%2Bcpu-2.whl") == (200, b"another")
    assert get(resolver, f"/pypi/files/{host}/files/a+cpu-2.whl") == (200, b"another")
    assert resolver.recorded[f"pypi/files/{host}/files/a+cpu-2.whl"] == sha256(b"another")


def test_cargo_is_told_where_the_crates_are(index: Upstream, resolver: Resolver) -> None:
    index.replies |= {"/crates-index/se/rd/serde": b'{"name":"serde"}', "/crates/crates/a/a-1.0.0%2B2.crate": b"crate"}
    status, body = get(resolver, "/crates/index/config.json")
    assert (status, json.loads(body)) == (200, {"dl": f"{SEEN_AS}/crates/crates/{{crate}}/{{crate}}-{{version}}.crate"})
    assert get(resolver, "/crates/index/se/rd/serde") == (200, b'{"name":"serde"}')
    assert get(resolver, "/crates/crates/a/a-1.0.0+2.crate") == (200, b"crate")
    assert sorted(resolver.recorded) == ["crates/crates/a/a-1.0.0+2.crate", "crates/index/se/rd/serde"]


@pytest.mark.parametrize("data", [b"{", b"[1]", b'{"files": 3}', b'{"files": [{"url": 3}]}', b"\xff", b"[" * 100_000])
def test_a_page_that_cannot_be_read_is_refused(index: Upstream, resolver: Resolver, data: bytes) -> None:
    index.replies["/pypi/a/"] = Reply(data, headers=JSON)
    assert get(resolver, "/pypi/simple/a/")[0] == 403
    assert isinstance(resolver.failure, Refusal)
    assert resolver.recorded == {}


# -- what is not served --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["/", "/npm", "/npm/", "/unknown/x", "/npm//x", "/npm/../secret", "/npm/%2e%2e/secret", "/npm/%252e%252e/x",
     "/npm/a/./b", "/npm/a%2fb/c", "/npm/a?x=1", "/npm/-/v1/search?text=x", "/npm/a#b", "/npm/a%0d%0aHost:%20evil",
     "/npm/a%00", "/npm/a%5cb", "/npm/a\\b", "http://evil.example.com/npm/a", "https://evil.example.com/npm/a", "npm/a",
     "*", "/npm@evil.example.com/a", "/@evil.example.com/npm/a", "/npm/%c3%a4", "/npm/" + "a" * 3000, "/pypi/simple/",
     "/pypi/simple"],
)  # fmt: skip
def test_only_plain_paths_are_served(index: Upstream, resolver: Resolver, path: str) -> None:
    index.replies["/secret"] = b"secret"
    status, body = get(resolver, path)
    assert status in {400, 403}
    assert b"secret" not in body
    assert index.asked == []
    assert resolver.recorded == {}


@pytest.mark.parametrize(
    "path",
    ["/pypi/files/127.0.0.1:1/x", "/pypi/files/evil.example.com/x", "/pypi/files/evil@{host}/x", "/pypi/files/x",
     "/pypi/packages/x"],
)  # fmt: skip
def test_no_other_host_is_asked(index: Upstream, resolver: Resolver, path: str) -> None:
    assert get(resolver, path.replace("{host}", index.url.removeprefix("http://")))[0] == 403
    assert index.asked == []


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE", "BREW"])
def test_nothing_is_sent_to_an_index(index: Upstream, resolver: Resolver, method: str) -> None:
    assert get(resolver, "/npm/-/npm/v1/security/audits/quick", method)[0] == (501 if method == "BREW" else 405)
    assert index.asked == []


def test_a_request_with_a_body_is_not_served(index: Upstream, resolver: Resolver) -> None:
    assert get(resolver, "/npm/a", **{"Content-Length": "3"})[0] == 405
    assert get(resolver, "/npm/a", **{"Transfer-Encoding": "chunked"})[0] == 405
    assert index.asked == []


def test_of_a_request_only_its_path_goes_on(index: Upstream, resolver: Resolver) -> None:
    index.replies["/npm/a/-/a-1.tgz"] = b"package"
    get(resolver, "/npm/a/-/a-1.tgz", Authorization="Bearer stolen", Cookie="a=b", **{"X-Forwarded-For": "1.2.3.4"})
    (headers,) = index.headers
    assert set(headers) == {"host", "accept", "accept-encoding", "user-agent"}


def test_a_redirect_to_elsewhere_is_not_followed(index: Upstream, resolver: Resolver) -> None:
    with upstream() as other:
        index.replies["/npm/a/-/a-1.tgz"] = Reply(status=302, headers={"Location": f"{other.url}/a"})
        assert get(resolver, "/npm/a/-/a-1.tgz")[0] == 403
        assert other.asked == []
    assert isinstance(resolver.failure, Refusal)


@pytest.mark.parametrize("reply", [Reply(status=500), Reply(status=429), Reply(b"package", cut=3)])
def test_an_index_that_fails_is_told_apart_from_a_missing_file(
    index: Upstream, resolver: Resolver, reply: Reply
) -> None:
    index.replies["/npm/a/-/a-1.tgz"] = reply
    assert get(resolver, "/npm/a/-/a-1.tgz")[0] == 502
    assert isinstance(resolver.failure, TemporaryError)
    assert resolver.recorded == {}


def test_what_is_not_there_is_no_failure_and_what_came_at_last_neither(index: Upstream, resolver: Resolver) -> None:
    index.replies |= {"/npm/a/-/a-1.tgz": Reply(b"", 503), "/npm/c/-/c-1.tgz": Reply(b"", 503)}
    assert get(resolver, "/npm/b")[0] == 404
    assert resolver.failure is None
    assert [get(resolver, f"/npm/{name}/-/{name}-1.tgz")[0] for name in "ac"] == [502, 502]
    assert not resolver.lasting
    index.replies |= {"/npm/a/-/a-1.tgz": b"a"}
    assert get(resolver, "/npm/a/-/a-1.tgz") == (200, b"a")
    assert isinstance(resolver.failure, TemporaryError)  # of c
    index.replies |= {"/npm/c/-/c-1.tgz": b"c"}
    assert get(resolver, "/npm/c/-/c-1.tgz") == (200, b"c")
    assert resolver.failure is None
    assert resolver.lasting


def test_a_no_counts_more_than_a_fault_that_may_pass(index: Upstream, tmp_path: Path) -> None:
    index.replies |= {"/npm/a/-/a-1.tgz": Reply(b"", 503), "/npm/b/-/b-1.tgz": b"x" * 2001}
    with Resolver(index.indexes(tmp_path), tmp_path, limits=ResolverLimits(file=2000, requests=2)) as resolver:
        assert [get(resolver, f"/npm/{name}/-/{name}-1.tgz")[0] for name in "ab"] == [502, 403]
        assert "larger" in str(resolver.failure)
        assert get(resolver, "/npm/c")[0] == 403
        assert "2 requests" in str(resolver.failure)


# -- limits --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (ResolverLimits(requests=2), "2 requests"),
        (ResolverLimits(bytes=1 << 20), "1 MiB"),
        (ResolverLimits(seconds=-1.0), "seconds"),
    ],
)
def test_a_resolution_has_limits(index: Upstream, tmp_path: Path, limits: ResolverLimits, words: str) -> None:
    index.replies["/maven/a/maven-metadata.xml"] = b"x" * (600 << 10)
    with Resolver(index.indexes(tmp_path), tmp_path, limits=limits) as resolver:
        statuses = [get(resolver, "/maven/a/maven-metadata.xml")[0] for _ in range(4)]
        assert statuses[-1] == 403
        assert isinstance(resolver.failure, Refusal)
        assert words in resolver.failure.what
        assert resolver.failure.remedy


def test_a_file_and_a_page_have_limits(index: Upstream, tmp_path: Path) -> None:
    bomb = gzip.compress(bytes(50_000_000))
    index.replies |= {"/npm/a/-/a-1.tgz": b"x" * 2001, "/npm/a": Reply(bomb, headers={"Content-Encoding": "gzip"})}
    with Resolver(index.indexes(tmp_path), tmp_path, limits=ResolverLimits(file=2000, page=1_000_000)) as resolver:
        assert get(resolver, "/npm/a/-/a-1.tgz")[0] == 403
        assert get(resolver, "/npm/a")[0] == 403
        assert "larger" in str(resolver.failure)


def test_it_ends_although_somebody_hangs_on(index: Upstream, tmp_path: Path) -> None:
    index.replies["/npm/a/-/a-1.tgz"] = b"package"
    with Resolver(index.indexes(tmp_path), tmp_path) as resolver:
        hanging = Line(resolver)
        hanging.request("GET", "/npm/a/-/a-1.tgz")
        assert hanging.getresponse().read() == b"package"
        folder = resolver.folder
    assert not folder.exists()
    assert hanging.sock.recv(1) == b""
    hanging.close()


def test_the_socket_is_for_the_sandboxs_user_alone_in_its_folder(resolver: Resolver) -> None:
    assert [path.name for path in resolver.folder.iterdir()] == ["index.sock"]
    assert (resolver.folder / "index.sock").stat().st_mode & 0o777 == 0o666
    assert resolver.folder.stat().st_mode & 0o777 == 0o755


def test_a_long_path_is_no_obstacle(index: Upstream, tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 120)
    deep.mkdir()
    index.replies["/npm/a/-/a-1.tgz"] = b"package"
    with Resolver(index.indexes(tmp_path), deep) as resolver:
        assert get(resolver, "/npm/a/-/a-1.tgz") == (200, b"package")
    shutil.rmtree(deep)


# -- paths ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "fixed"),
    [
        ("/maven/a/1/a-1.jar", True),
        ("/maven/a/1/a-1.pom.sha1", True),
        ("/maven/a/maven-metadata.xml", False),
        ("/maven/a/maven-metadata.xml.sha1", False),
        ("/maven/a/1-SNAPSHOT/a-1-20260101.1-1.jar", False),
        ("/go/m/@v/v1.zip", True),
        ("/go/m/@v/list", False),
        ("/go/m/@latest", False),
        ("/go/sumdb/sum.golang.org/latest", False),
        ("/npm/a", False),
        ("/npm/a/-/a-1.tgz", True),
        ("/crates/crates/a/a-1.crate", True),
        ("/crates/index/a/b/ab", False),
        ("/pypi/simple/a/", False),
        ("/pypi/files/host/a.whl", True),
    ],
)
def test_only_what_never_changes_is_given_from_the_store(target: str, fixed: bool) -> None:  # noqa: FBT001
    assert resolver_paths.parse(target).fixed is fixed


@pytest.mark.parametrize("target", ["//npm/x", "//evil.example.com/npm/x", "", "npm/x", "/npm/\xe4"])
def test_a_target_that_is_no_path_below_an_index_is_refused(target: str) -> None:
    with pytest.raises(Refusal):
        resolver_paths.parse(target)


@pytest.mark.parametrize("target", ["/npm/left-pad", "/go/example.org/x/@v/list", "/pypi/simple/six/"])
def test_only_the_index_of_the_language_is_served(target: str) -> None:
    with pytest.raises(Refusal, match="no such index"):
        resolver_paths.parse(target, ("maven",))
    assert resolver_paths.parse("/maven/a/b/1/b-1.jar", ("maven",)).ecosystem == "maven"
