"""Which indexes are in force, what a path means, and what never shows a password."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from upstream import Reply, Upstream, upstream

from sekisho import package_indexes
from sekisho.errors import PermanentError, Refusal, TemporaryError
from sekisho.package_indexes import default_index, handed_on, index_hosts
from stages.build import indexes_http
from stages.build.indexes import Indexes
from stages.build.indexes_http import IndexClient

SECRET = "t0psecret"


@pytest.fixture(autouse=True)
def _no_pip_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package_indexes, "_pip_files", lambda _: [])
    monkeypatch.setattr(indexes_http, "_FIRST_DELAY", 0.0)


@pytest.fixture
def index() -> Upstream:
    with upstream() as held:
        yield held


def client(index: Upstream, home: Path, **more: str) -> IndexClient:
    return IndexClient(index.indexes(home, **more), silent=2.0)


# -- which ---------------------------------------------------------------------------------------------------------


def test_the_public_indexes_are_let_through_by_default() -> None:
    expected = {*default_index(), "registry.npmjs.org", "proxy.golang.org", "storage.googleapis.com",
                "static.crates.io", "index.crates.io", "repo1.maven.org"}  # fmt: skip
    assert index_hosts({}) == tuple(sorted((host, 443) for host in expected))


def test_a_mirror_takes_the_public_indexs_place() -> None:
    hosts = index_hosts(
        {"SEKISHO_INDEX_NPM": "https://mirror.example.com:8443/npm", "SEKISHO_INDEX_GO": "http://go.example.com"}
    )
    assert ("mirror.example.com", 8443) in hosts
    assert ("go.example.com", 80) in hosts
    names = {host for host, _ in hosts}
    assert not names & {"registry.npmjs.org", "proxy.golang.org", "storage.googleapis.com"}


def test_pips_configuration_counts_in_pips_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "pip.conf").write_text(
        "[global]\nindex-url = https://user:pw@index.example.com:8443/simple\n"
        "extra-index-url = https://a.example.com/simple https://b.example.com/simple\n"
    )
    monkeypatch.setattr(package_indexes, "_pip_files", lambda _: [tmp_path / "pip.conf"])
    hosts = index_hosts({"SEKISHO_EGRESS_HOSTS": "cdn.example.com, .*"})
    assert {("index.example.com", 8443), ("a.example.com", 443), ("b.example.com", 443)} <= set(hosts)
    assert ("cdn.example.com", 443) in hosts
    assert not {host for host, _ in hosts} & set(default_index())
    by_variable = {host for host, _ in index_hosts({"PIP_INDEX_URL": "https://env.example.com/simple"})}
    assert "env.example.com" in by_variable
    assert "index.example.com" not in by_variable
    own = {host for host, _ in index_hosts({"SEKISHO_INDEX_PYPI": "https://own.example.com/simple"})}
    assert not own & {"index.example.com", "a.example.com"}


@pytest.mark.parametrize(
    "url",
    ["ftp://x.example.com/", "https://evil host/", "https://x.example.com/?a=b", "https://x.example.com/a/../b", "x",
     "https://x.example.com:port/", f"https://me:{SECRET}@/", f"https://me:{SECRET}@x.example.com/#f"],
)  # fmt: skip
def test_a_variable_without_a_url_is_named_and_not_repeated(url: str) -> None:
    with pytest.raises(PermanentError) as caught:
        index_hosts({"SEKISHO_INDEX_NPM": url})
    assert caught.value.where == "SEKISHO_INDEX_NPM"
    assert SECRET not in str(caught.value)


def test_only_what_fetching_needs_is_handed_on() -> None:
    given = {"SEKISHO_INDEX_NPM": "https://a.example.com", "SEKISHO_INDEX_GO": " ", "HOME": "/root", "TOKEN": SECRET}
    assert handed_on(given) == {"SEKISHO_INDEX_NPM": "https://a.example.com"}


# -- where ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def public() -> Indexes:
    return Indexes.from_environment(environment={}, proxy="http://127.0.0.1:1")


@pytest.mark.parametrize(
    ("ecosystem", "path", "url"),
    [
        ("npm", "left-pad/-/left-pad-1.3.0.tgz", "https://registry.npmjs.org/left-pad/-/left-pad-1.3.0.tgz"),
        ("npm", "@babel/core/-/core-7.0.0.tgz", "https://registry.npmjs.org/@babel/core/-/core-7.0.0.tgz"),
        ("npm", "@babel/core", "https://registry.npmjs.org/@babel%2Fcore"),
        ("go", "github.com/!a/b/@v/v2.0.0+incompatible.zip",
         "https://proxy.golang.org/github.com/!a/b/@v/v2.0.0+incompatible.zip"),
        ("crates", "crates/a/a-0.1.0+1.2.crate", "https://static.crates.io/crates/a/a-0.1.0%2B1.2.crate"),
        ("crates", "index/se/rd/serde", "https://index.crates.io/se/rd/serde"),
        ("maven", "org/x/y/1.0/y-1.0.jar", "https://repo1.maven.org/maven2/org/x/y/1.0/y-1.0.jar"),
        ("pypi", "simple/six/", "https://pypi.org/simple/six/"),
        ("pypi", "files/files.pythonhosted.org/packages/a/b.whl", "https://files.pythonhosted.org/packages/a/b.whl"),
    ],
)  # fmt: skip
def test_a_path_stands_below_its_index(public: Indexes, ecosystem: str, path: str, url: str) -> None:
    assert public.locate(ecosystem, path) == url


@pytest.mark.parametrize(
    "path",
    ["", "/", "//evil.example.com/x", "a//b", "../x", "a/../../x", "a/./b", "a\\b", "a%2fb", "a?b", "a#b", "a b",
     "a\r\nHost: b", "https://evil.example.com/x", "a\0", "ä", "x" * 3000],
)  # fmt: skip
@pytest.mark.parametrize("ecosystem", ["pypi", "npm", "go", "crates", "maven"])
def test_a_path_that_is_not_plain_is_refused(public: Indexes, ecosystem: str, path: str) -> None:
    with pytest.raises(Refusal):
        public.locate(ecosystem, path)


@pytest.mark.parametrize("path", ["files/evil.example.com/x.whl", "files/user@pypi.org/x.whl", "files/pypi.org", "x"])
def test_another_host_is_no_place_of_the_python_index(public: Indexes, path: str) -> None:
    with pytest.raises(Refusal):
        public.locate("pypi", path)


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://proxy.golang.org/x", True),
        ("https://storage.googleapis.com/proxy-golang-org-prod/x", True),
        ("https://storage.googleapis.com/other/x", False),
        ("https://storage.googleapis.com/proxy-golang-org-prod/../other/x", False),
        ("https://storage.googleapis.com/proxy-golang-org-prod/%2e%2e/other/x", False),
        ("http://proxy.golang.org/x", False),
        ("https://proxy.golang.org:8443/x", False),
        ("https://me@proxy.golang.org/x", False),
        ("https://registry.npmjs.org/x", False),
        ("file:///etc/passwd", False),
    ],
)
def test_an_index_may_send_its_readers_to_few_places(public: Indexes, url: str, allowed: bool) -> None:  # noqa: FBT001
    assert public.allows("go", url) is allowed


def test_passwords_go_to_their_own_index_and_show_nowhere(tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text(f"machine other.example.com login me password {SECRET}2\n")
    indexes = Indexes.from_environment(
        environment={
            "HOME": str(tmp_path),
            "SEKISHO_INDEX_NPM": f"https://me:{SECRET}@npm.example.com/a/",
            "SEKISHO_INDEX_PYPI": f"https://me:{SECRET}@pypi.example.com/simple",
        },
        proxy=f"http://me:{SECRET}@127.0.0.1:3128",
    )
    assert SECRET not in repr(indexes)
    assert indexes.locate("npm", "x") == "https://npm.example.com/a/x"
    assert indexes.authorization("https://npm.example.com/a/x") == "Basic bWU6dDBwc2VjcmV0"
    assert indexes.authorization("https://other.example.com/") == "Basic bWU6dDBwc2VjcmV0Mg=="
    assert indexes.authorization("http://npm.example.com/a/x") == ""
    assert indexes.authorization("https://npm.example.com.evil.example.com/") == ""


def test_a_bad_netrc_is_named_and_not_repeated(tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text(f"machine a\n{SECRET}\n")
    with pytest.raises(PermanentError) as caught:
        Indexes.from_environment(environment={"HOME": str(tmp_path)})
    assert SECRET not in str(caught.value)
    assert ".netrc" in caught.value.where


# -- reading -------------------------------------------------------------------------------------------------------


def test_a_file_comes_whole_over_one_connection(index: Upstream, tmp_path: Path) -> None:
    index.replies |= {f"/maven/{number}": str(number).encode() * 100_000 for number in range(3)}
    reader = client(index, tmp_path)
    for number in range(3):
        answer = reader.get("maven", str(number), tmp_path / "file", limit=1 << 20)
        assert (answer.status, answer.size) == (200, 100_000)
        assert (tmp_path / "file").read_bytes() == str(number).encode() * 100_000
    assert reader.get("maven", "gone", tmp_path / "file", limit=1 << 20).status == 404
    assert len([1 for pool in reader._idle.values() for _ in pool]) == 1


def test_a_kept_connection_that_was_closed_meanwhile_is_no_fault(
    index: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexes_http, "_ATTEMPTS", 1)
    index.replies["/npm/a"] = Reply(b"whole", hang_up=True)
    reader = client(index, tmp_path)
    for _ in range(5):
        assert reader.get("npm", "a", tmp_path / "file", limit=100).status == 200
    assert index.asked == ["/npm/a"] * 5


@pytest.mark.parametrize(
    "bad",
    [Reply(status=500), Reply(status=503), Reply(status=429, headers={"Retry-After": "0"}), Reply(b"whole", cut=3)],
)
def test_a_fault_that_passes_is_tried_again(index: Upstream, tmp_path: Path, bad: Reply) -> None:
    index.replies["/npm/a"] = [bad, bad, b"whole"]
    assert client(index, tmp_path).get("npm", "a", tmp_path / "file", limit=100).status == 200
    assert (tmp_path / "file").read_bytes() == b"whole"
    assert len(index.asked) == 3


@pytest.mark.parametrize("bad", [Reply(status=502), Reply(status=429), Reply(b"whole", cut=3)])
def test_a_fault_that_stays_is_temporary(index: Upstream, tmp_path: Path, bad: Reply) -> None:
    index.replies["/npm/a"] = bad
    with pytest.raises(TemporaryError) as caught:
        client(index, tmp_path).get("npm", "a", tmp_path / "file", limit=100)
    assert caught.value.where == f"{index.url}/npm/a"
    assert len(index.asked) == 4


def test_a_long_retry_after_is_left_to_the_caller(index: Upstream, tmp_path: Path) -> None:
    index.replies["/npm/a"] = Reply(status=429, headers={"Retry-After": "120"})
    with pytest.raises(TemporaryError) as caught:
        client(index, tmp_path).get("npm", "a", tmp_path / "file", limit=100)
    assert caught.value.delay == 120
    assert len(index.asked) == 1


@pytest.mark.parametrize("text", ["", "soon", "-1", "1e9", "²", "Wed, 99 Nov 2026 99:99:99 GMT"])
def test_an_odd_retry_after_is_none(text: str) -> None:
    assert indexes_http._seconds(text) == 0.0


def test_an_index_that_is_silent_or_away_is_temporary(index: Upstream, tmp_path: Path) -> None:
    index.replies["/npm/a"] = Reply(b"late", pause=3.0)
    with pytest.raises(TemporaryError):
        IndexClient(index.indexes(tmp_path), silent=0.05).get("npm", "a", tmp_path / "file", limit=100)
    away = Indexes.from_environment(environment={"SEKISHO_INDEX_NPM": "http://127.0.0.1:1/", "HOME": str(tmp_path)})
    with pytest.raises(TemporaryError, match="cannot be reached"):
        IndexClient(away).get("npm", "a", tmp_path / "file", limit=100)


def test_a_body_that_trickles_has_an_end(index: Upstream, tmp_path: Path) -> None:
    index.replies["/npm/a"] = b"x" * 1000
    with pytest.raises(TemporaryError, match="too slowly"):
        IndexClient(index.indexes(tmp_path), whole=-1.0).get("npm", "a", tmp_path / "file", limit=10_000)


@pytest.mark.parametrize(
    ("reply", "packed"),
    [
        (Reply(b"x" * 2000), False),
        (Reply(b"7d0\r\n" + b"x" * 2000 + b"\r\n0\r\n\r\n", headers={"Transfer-Encoding": "chunked"}), False),
        (Reply(gzip.compress(b"x" * 50_000_000), headers={"Content-Encoding": "gzip"}), True),
    ],
)
def test_too_much_is_refused(index: Upstream, tmp_path: Path, reply: Reply, packed: bool) -> None:  # noqa: FBT001
    if "Transfer-Encoding" in reply.headers:
        reply = Reply(reply.body, headers={**reply.headers, "Content-Length": "0"})
    index.replies["/npm/a"] = reply
    with pytest.raises(Refusal, match="larger"):
        client(index, tmp_path).get("npm", "a", tmp_path / "file", limit=1999, packed=packed)
    assert (tmp_path / "file").stat().st_size <= 1999


def test_an_encoding_is_taken_off_only_where_it_was_asked_for(index: Upstream, tmp_path: Path) -> None:
    packed = gzip.compress(b"page")
    index.replies["/npm/a"] = Reply(packed, headers={"Content-Encoding": "gzip"})
    reader = client(index, tmp_path)
    reader.get("npm", "a", tmp_path / "file", limit=100)
    assert (tmp_path / "file").read_bytes() == packed
    reader.get("npm", "a", tmp_path / "file", limit=100, packed=True)
    assert (tmp_path / "file").read_bytes() == b"page"
    assert [headers["accept-encoding"] for headers in index.headers] == ["identity", "gzip"]


def test_a_redirect_goes_only_where_it_may(index: Upstream, tmp_path: Path) -> None:
    with upstream() as other:
        index.replies |= {
            "/npm/a": Reply(status=302, headers={"Location": "/elsewhere/a?token=x"}),
            "/elsewhere/a?token=x": b"here",
            "/npm/b": Reply(status=302, headers={"Location": f"{other.url}/b"}),
            "/npm/c": Reply(status=302, headers={"Location": "/npm/c"}),
            "/npm/d": Reply(status=302),
        }
        reader = client(index, tmp_path)
        assert reader.get("npm", "a", tmp_path / "file", limit=100).url == f"{index.url}/elsewhere/a"
        for path in ("b", "c", "d"):
            with pytest.raises(Refusal, match="redirects"):
                reader.get("npm", path, tmp_path / "file", limit=100)
        assert other.asked == []


def test_a_login_does_not_follow_a_redirect_elsewhere(index: Upstream, tmp_path: Path) -> None:
    with upstream() as other:
        mine = index.url.replace("://", f"://me:{SECRET}@")
        environment = {
            "HOME": str(tmp_path),
            "SEKISHO_INDEX_CRATES": f"{mine}/",
            "SEKISHO_INDEX_CRATES_INDEX": other.url,
        }
        index.replies["/a"] = Reply(status=302, headers={"Location": f"{other.url}/a"})
        other.replies["/a"] = b"here"
        reader = IndexClient(Indexes.from_environment(environment=environment))
        assert reader.get("crates", "a", tmp_path / "file", limit=100).status == 200
        assert "authorization" in index.headers[0]
        assert "authorization" not in other.headers[0]


def test_a_login_that_does_not_count_is_the_platforms_to_mend(index: Upstream, tmp_path: Path) -> None:
    index.replies["/npm/a"] = Reply(status=401)
    mine = index.url.replace("://", f"://me:{SECRET}@")
    with pytest.raises(PermanentError) as caught:
        client(index, tmp_path, SEKISHO_INDEX_NPM=f"{mine}/npm/").get("npm", "a", tmp_path / "file", limit=100)
    assert not isinstance(caught.value, Refusal)
    assert SECRET not in str(caught.value)


def test_the_only_way_out_is_taken_whatever_no_proxy_says(
    index: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    index.replies["http://npm.example.com/a"] = b"through the proxy"
    environment = {"HOME": str(tmp_path), "SEKISHO_INDEX_NPM": "http://npm.example.com/"}
    reader = IndexClient(Indexes.from_environment(environment=environment, proxy=index.url))
    assert reader.get("npm", "a", tmp_path / "file", limit=100).size == 17
    with pytest.raises(PermanentError, match=r"does not let repo1\.maven\.org through"):
        reader.get("maven", "a", tmp_path / "file", limit=100)
    assert index.asked == ["http://npm.example.com/a", "repo1.maven.org:443"]


def test_the_pieces_of_a_chunked_answer_are_put_together(index: Upstream, tmp_path: Path) -> None:
    index.replies["/npm/a"] = Reply(
        b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", headers={"Transfer-Encoding": "chunked", "Content-Length": "0"}
    )
    client(index, tmp_path).get("npm", "a", tmp_path / "file", limit=5)
    assert (tmp_path / "file").read_bytes() == b"abcde"
