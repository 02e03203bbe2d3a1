"""The git receiver, with the real git on both ends and a real HTTP server between them."""

from __future__ import annotations

import base64
import gzip
import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sekisho.errors import PermanentError, Refusal
from sekisho.receiver.app import Receiver
from sekisho.receiver.backend import Limits
from sekisho.receiver.repositories import QueuedPush, Repositories, git_environment
from sekisho.receiver.tokens import Pusher, Token, authenticate, load_tokens, new_token, save_tokens

from .serving import Server

PUSH = "application/x-git-receive-pack-request"
VERDICT = {"app": "guestbook", "commit": "", "result": "FAILED", "policy": "sha256:" + "0" * 64, "reasons": []}


def basic(name: str, secret: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{secret}".encode()).decode()


# -- tokens ------------------------------------------------------------------------------------------------------


def test_a_token_opens_only_its_repositories_and_only_under_its_name(tmp_path: Path) -> None:
    secret, token = new_token("alice", ("guestbook", "team-a-*"))
    save_tokens(tmp_path / "tokens.json", (token,))
    tokens = load_tokens(tmp_path / "tokens.json")
    assert secret not in (tmp_path / "tokens.json").read_text()
    pusher = authenticate(tokens, basic("alice", secret))
    assert pusher == Pusher(name="alice", repositories=("guestbook", "team-a-*"))
    assert [name for name in ("guestbook", "team-a-shop", "team-b-shop", "Guestbook") if pusher.may_use(name)] == [
        "guestbook",
        "team-a-shop",
    ]
    assert authenticate(tokens, basic("bob", secret)) is None
    assert authenticate(tokens, basic("alice", secret + "x")) is None


def test_the_second_token_of_a_name_counts_too() -> None:
    (old, first), (new, second) = new_token("alice", ("a",)), new_token("alice", ("b",))
    assert authenticate((first, second), basic("alice", old)) == Pusher(name="alice", repositories=("a",))
    assert authenticate((first, second), basic("alice", new)) == Pusher(name="alice", repositories=("b",))


@pytest.mark.parametrize(
    "header",
    ["", "Basic", "Basic !!!", "Bearer x", basic("alice", ""), basic("", ""), "Basic " + "A" * 5000, "Basic /w=="],
)
def test_malformed_credentials_are_nobodys(header: str) -> None:
    empty = Token(
        name="alice", sha256="e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", repositories=("*",)
    )
    assert authenticate((empty,), header) is None


def test_an_unreadable_or_invalid_token_file_lets_nobody_in(tmp_path: Path) -> None:
    with pytest.raises(PermanentError):
        load_tokens(tmp_path / "none.json")
    (tmp_path / "tokens.json").write_text('{"tokens": [{"name": "alice", "token": "clear text"}]}')
    with pytest.raises(Refusal):
        load_tokens(tmp_path / "tokens.json")


# -- repositories ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["", "..", ".git", "a/b", "A", "a.git", "-a", "a\n", "ä", "x" * 64, "a;id", "$(id)", "hooks.", "a\x00"]
)
def test_hostile_repository_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(Refusal):
        Repositories(tmp_path).ensure(name)
    assert list(tmp_path.iterdir()) == []


def test_a_repository_is_made_once_with_the_receivers_settings(tmp_path: Path) -> None:
    repositories = Repositories(tmp_path, max_push=12345)
    repositories.prepare()
    path = repositories.ensure("guestbook")
    assert repositories.ensure("guestbook") == path == tmp_path / "guestbook.git"
    asked = (
        "receive.fsckObjects",
        "transfer.fsckObjects",
        "receive.maxInputSize",
        "http.receivepack",
        "core.hooksPath",
    )
    answers = [
        subprocess.run(
            ["git", "-C", path, "config", name], env=git_environment(), capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in asked
    ]
    assert answers == ["true", "true", "12345", "true", str(tmp_path / "hooks")]
    assert sorted(item.name for item in tmp_path.iterdir()) == ["guestbook.git", "hooks", "queue"]


def test_hooks_that_were_changed_are_written_anew(tmp_path: Path) -> None:
    repositories = Repositories(tmp_path)
    repositories.prepare()
    hook = repositories.hooks / "pre-receive"
    good = hook.read_text()
    hook.chmod(0o755)
    hook.write_text("#!/bin/sh\nexit 0\n")
    repositories.prepare()
    assert hook.read_text() == good
    assert hook.stat().st_mode & 0o777 == 0o555


# -- the server --------------------------------------------------------------------------------------------------


class Zone:
    """The zone's process, as the hook sees it: a real HTTP server with a scripted answer."""

    def __init__(self) -> None:
        self.pushes: list[dict[str, str]] = []
        self.events: list[object] = []
        self.hold = threading.Event()
        self.hold.set()
        zone = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_POST(self) -> None:
                zone.pushes.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                self.send_response(202)
                self.send_header("content-length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("transfer-encoding", "chunked")
                self.end_headers()
                for event in zone.events:
                    line = (event if isinstance(event, str) else json.dumps(event)).encode() + b"\n"
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
                    self.wfile.flush()
                    zone.hold.wait(10)
                self.wfile.write(b"0\r\n\r\n")

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.address = f"127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def stop(self) -> None:
        self.hold.set()
        self.server.shutdown()
        self.server.server_close()


class Served:
    """A receiver that serves on a port of this machine."""

    def __init__(self, root: Path, zone_api: str, limits: Limits | None = None) -> None:
        self.repositories = Repositories(root / "git")
        self.repositories.prepare()
        self.secret, token = new_token("alice", ("guestbook", "other"))
        self.tokens: tuple[Token, ...] = (token,)
        receiver = Receiver(self.repositories, lambda: self.tokens, zone_api=zone_api, limits=limits)
        self.server = Server(receiver)
        self.port = self.server.port

    def stop(self) -> None:
        self.server.end()

    def url(self, name: str = "guestbook.git") -> str:
        return f"http://127.0.0.1:{self.port}/{name}"

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, dict[str, str], str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        given = {"authorization": basic("alice", self.secret)} | {
            key.replace("_", "-"): value for key, value in headers.items()
        }
        connection.request(method, path, body, {key: value for key, value in given.items() if value})
        answer = connection.getresponse()
        data = answer.read().decode("utf-8", "replace")
        connection.close()
        return answer.status, {key.lower(): value for key, value in answer.getheaders()}, data


@pytest.fixture
def zone() -> Iterator[Zone]:
    zone = Zone()
    yield zone
    zone.stop()


@pytest.fixture
def served(tmp_path: Path, zone: Zone) -> Iterator[Served]:
    served = Served(tmp_path, zone.address)
    yield served
    served.stop()


class Work:
    """A developer's working copy."""

    def __init__(self, folder: Path, secret: str) -> None:
        self.folder = folder
        self.environment = git_environment(
            GIT_AUTHOR_NAME="Alice",
            GIT_AUTHOR_EMAIL="alice@example.com",
            GIT_COMMITTER_NAME="Alice",
            GIT_COMMITTER_EMAIL="alice@example.com",
            GIT_TERMINAL_PROMPT="0",
            GIT_CONFIG_COUNT="1",
            GIT_CONFIG_KEY_0="http.extraHeader",
            GIT_CONFIG_VALUE_0=f"Authorization: {basic('alice', secret)}",
        )
        folder.mkdir()
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *arguments: str, ok: bool = True) -> str:
        done = subprocess.run(
            ["git", "-C", self.folder, *arguments], env=self.environment, capture_output=True, text=True, check=False
        )
        assert (done.returncode == 0) is ok, done.stderr
        return done.stdout + done.stderr

    def commit(self, text: str = "hello") -> str:
        (self.folder / "file").write_text(text)
        self.git("add", "file")
        self.git("commit", "--quiet", "--message", text[:20], "--allow-empty")
        return self.git("rev-parse", "HEAD").strip()


@pytest.fixture
def work(tmp_path: Path, served: Served) -> Work:
    return Work(tmp_path / "work", served.secret)


def remote_lines(output: str) -> list[str]:
    return [line.removeprefix("remote: ").rstrip() for line in output.splitlines() if line.startswith("remote:")]


def eventually(condition: object, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


def test_a_push_is_stored_queued_and_answered_with_the_verdict(served: Served, work: Work, zone: Zone) -> None:
    zone.events = [
        {"stage": "build", "state": "start"},
        "",
        {"stage": "build", "state": "done", "seconds": 1.5, "message": "sha256:abc"},
        {
            "stage": "scan",
            "state": "refused",
            "seconds": 0.25,
            "message": "a secret",
            "reasons": [{"message": "a key in config.py", "where": "config.py:3", "remedy": "take it out"}],
        },
        {"text": ["FAILED", "\x1b[31mred\x1b[0m and \x07bell"], "verdict": VERDICT},
        {"text": ["never shown: the verdict is the last line"]},
    ]
    commit = work.commit()
    output = work.git("push", served.url(), "HEAD:refs/heads/main")
    assert remote_lines(output) == [
        f"sekisho: guestbook {commit[:12]} (main) is stored",
        "  build    done       1.50 s  sha256:abc",
        "  scan     refused    0.25 s  a secret",
        "    - a key in config.py [config.py:3]",
        "      remedy: take it out",
        "FAILED",
        " [31mred [0m and  bell",
    ]
    pushed = {"app": "guestbook", "commit": commit, "branch": "main", "pushed_by": "alice"}
    assert zone.pushes == [pushed]
    assert served.repositories.queued() == (QueuedPush(**pushed),)
    stored = subprocess.run(
        ["git", "-C", served.repositories.path("guestbook"), "rev-parse", "main"],
        env=git_environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert stored.stdout.strip() == commit
    served.repositories.done(QueuedPush(**pushed))
    assert list(served.repositories.queue.iterdir()) == []


def test_a_push_does_not_wait_for_what_others_have_to_mend(served: Served, work: Work, zone: Zone) -> None:
    zone.events = [
        {"stage": "line", "state": "held", "text": ["Not judged yet, and not for you to mend"], "last": True},
        {"text": ["never shown: nobody waits for it"]},
    ]
    work.commit()
    shown = remote_lines(work.git("push", served.url(), "main"))
    assert shown[1:] == ["Not judged yet, and not for you to mend"]


def test_a_push_is_taken_while_the_gatekeeper_is_down(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        served = Served(tmp_path, f"127.0.0.1:{closed.getsockname()[1]}")
        work = Work(tmp_path / "work", served.secret)
        commit = work.commit()
        output = work.git("push", served.url(), "main")
        served.stop()
    said = f"sekisho: {commit[:12]} is stored; the verdict will follow: the gatekeeper is being restarted"
    assert remote_lines(output) == [said]
    assert [push.commit for push in served.repositories.queued()] == [commit]


@pytest.mark.parametrize("events", [[], ["not json"], ["[1]"], [{"stage": "build", "state": "done"}], ["null"]])
def test_a_stream_that_breaks_off_is_said_plainly(served: Served, work: Work, zone: Zone, events: list[object]) -> None:
    zone.events = events
    work.commit()
    assert "the verdict will follow" in remote_lines(work.git("push", served.url(), "main"))[-1]


def test_several_branches_tags_and_a_deletion_in_one_push(served: Served, work: Work, zone: Zone) -> None:
    zone.events = [{"text": ["PASSED"], "verdict": VERDICT}]
    first = work.commit("one")
    work.git("push", served.url(), "HEAD:refs/heads/topic")
    second = work.commit("two")
    work.git("tag", "v1")
    output = work.git("push", served.url(), "main", "HEAD:refs/heads/same", f"{first}:refs/heads/old", "v1", ":topic")
    lines = remote_lines(output)
    assert "sekisho: tag v1: ignored; releases are made from branches" in lines
    assert "sekisho: branch topic: deleted; nothing to judge" in lines
    assert sorted(push["commit"] for push in zone.pushes[1:]) == sorted([first, second])


def test_the_release_branch_is_neither_rewritten_nor_deleted(served: Served, work: Work, zone: Zone) -> None:
    zone.events = [{"text": ["PASSED"], "verdict": VERDICT}]
    work.commit("one")
    work.git("push", served.url(), "main", "main:topic")
    work.git("commit", "--quiet", "--amend", "--message", "rewritten")
    assert "cannot be rewritten" in work.git("push", "--force", served.url(), "main", ok=False)
    assert "cannot be deleted" in work.git("push", served.url(), ":main", ok=False)
    work.git("push", "--force", served.url(), "main:topic")


@pytest.mark.parametrize("ref", ["refs/replace/" + "a" * 40, "refs/notes/x", "refs/heads/" + "x" * 201])
def test_refs_that_change_what_git_shows_are_refused(served: Served, work: Work, ref: str) -> None:
    work.commit()
    output = work.git("push", served.url(), f"HEAD:{ref}", ok=False)
    assert f"sekisho: refused {ref}: " in output
    assert served.repositories.queued() == ()
    assert list(served.repositories.queue.iterdir()) == []


def test_a_malformed_object_is_refused(served: Served, work: Work) -> None:
    work.commit()
    tree = work.git("rev-parse", "HEAD^{tree}").strip()
    bad = f"tree {tree}\nauthor A <a@example.com> notatime +0000\ncommitter A <a@example.com> 1 +0000\n\nbad\n"
    made = subprocess.run(
        ["git", "-C", work.folder, "hash-object", "-t", "commit", "-w", "--literally", "--stdin"],
        input=bad, env=work.environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "fsck" in work.git("push", served.url(), f"{made.stdout.strip()}:refs/heads/main", ok=False)


def test_clone_and_fetch_with_gzip_and_protocol_two(served: Served, work: Work, zone: Zone, tmp_path: Path) -> None:
    zone.events = [{"text": ["PASSED"], "verdict": VERDICT}]
    commit = work.commit()
    work.git("push", served.url(), "main")
    clone = Work(tmp_path / "clone", served.secret)
    clone.git("-c", "protocol.version=2", "fetch", "--quiet", served.url("guestbook"), "main")
    assert clone.git("rev-parse", "FETCH_HEAD").strip() == commit
    body = gzip.compress(b"0014command=ls-refs\n0000")
    status, _, text = served.ask(
        "POST", "/guestbook.git/git-upload-pack", body,
        content_type="application/x-git-upload-pack-request", content_encoding="gzip", git_protocol="version=2",
    )  # fmt: skip
    assert (status, commit in text) == (200, True)


def test_a_chunked_push(served: Served, work: Work, zone: Zone) -> None:
    zone.events = [{"text": ["PASSED"], "verdict": VERDICT}]
    work.commit(os.urandom(200_000).hex())
    output = work.git("-c", "http.postBuffer=65536", "push", served.url(), "main")
    assert remote_lines(output)[-1] == "PASSED"


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/guestbook.git/info/refs?service=git-receive-pack", {"authorization": ""}, 401),
        ("GET", "/guestbook.git/info/refs?service=git-receive-pack", {"authorization": basic("alice", "no")}, 401),
        ("GET", "/secret.git/info/refs?service=git-receive-pack", {}, 403),
        ("GET", "/guestbook.git/info/refs", {}, 403),
        ("GET", "/guestbook.git/info/refs?service=git-upload-archive", {}, 403),
        ("GET", "/guestbook.git/info/refs?service=git-upload-pack", {}, 404),
        ("GET", "/guestbook.git/HEAD", {}, 404),
        ("GET", "/guestbook.git/objects/info/packs", {}, 404),
        ("GET", "/../queue/info/refs?service=git-receive-pack", {}, 404),
        ("GET", "/%2e%2e/info/refs?service=git-receive-pack", {}, 422),
        ("GET", "/a%2fb/info/refs?service=git-receive-pack", {}, 404),
        ("GET", "/guestbook.git/git-receive-pack", {}, 405),
        ("POST", "/guestbook.git/git-receive-pack", {}, 415),
        ("POST", "/guestbook.git/git-receive-pack", {"content_type": PUSH, "content_encoding": "br"}, 415),
        ("POST", "/guestbook.git/git-receive-pack", {"content_type": PUSH, "content_length": "99999999999"}, 413),
        ("GET", "/healthz", {"authorization": ""}, 200),
    ],
)  # fmt: skip
def test_what_is_not_smart_http_by_a_known_pusher_is_refused(
    served: Served, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    answered, found, _ = served.ask(method, path, **headers)
    assert answered == status
    assert ("www-authenticate" in found) is (status == 401)
    assert list(served.repositories.root.glob("*.git")) == []


def test_a_body_over_the_limit_is_cut_off_and_leaves_nothing(tmp_path: Path, zone: Zone) -> None:
    served = Served(tmp_path, zone.address, Limits(body=100_000))
    work = Work(tmp_path / "work", served.secret)
    work.commit(os.urandom(200_000).hex())
    output = work.git("-c", "http.postBuffer=65536", "push", served.url(), "main", ok=False)
    served.stop()
    assert "413" in output or "hung up" in output or "RPC failed" in output
    assert served.repositories.queued() == ()


def test_pushes_over_the_limit_are_asked_to_come_again(tmp_path: Path, zone: Zone) -> None:
    served = Served(tmp_path, zone.address, Limits(pushes=0))
    status, headers, _ = served.ask(
        "POST", "/guestbook.git/git-receive-pack", b"0000", content_type="application/x-git-receive-pack-request"
    )
    served.stop()
    assert (status, "retry-after" in headers) == (503, True)


def test_a_pusher_who_hangs_up_loses_nothing(served: Served, work: Work, zone: Zone) -> None:
    zone.hold.clear()
    zone.events = [{"stage": "build", "state": "start", "text": ["building"]}, {"text": ["late"], "verdict": VERDICT}]
    commit = work.commit()
    push = subprocess.Popen(
        ["git", "-C", work.folder, "push", served.url(), "main"],
        env=work.environment, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    eventually(lambda: zone.pushes)
    os.killpg(push.pid, 9)
    push.communicate()
    zone.hold.set()
    eventually(lambda: [item.commit for item in served.repositories.queued()] == [commit])
    assert served.ask("GET", "/healthz")[0] == 200
    again = work.git("push", served.url(), "main")
    assert "up-to-date" in again


def test_what_was_stored_but_not_queued_is_queued_later(served: Served, work: Work, zone: Zone) -> None:
    zone.events = [{"text": ["PASSED"], "verdict": VERDICT}]
    commit = work.commit()
    work.git("push", served.url(), "main")
    queue = served.repositories.queue
    (queue / f"guestbook-{commit}.json").rename(queue / f"guestbook-{commit}.intent")
    lost = QueuedPush(app="guestbook", commit="f" * 40, branch="main", pushed_by="alice")
    (queue / f"guestbook-{lost.commit}.intent").write_bytes(lost.canonical())
    assert served.repositories.queued() == ()
    assert served.repositories.reconcile(stored_after=3600) == 0
    assert served.repositories.reconcile(stored_after=0) == 1
    assert [push.commit for push in served.repositories.queued()] == [commit]
    assert served.repositories.reconcile(stored_after=0, forget_after=0) == 0
    assert list(queue.glob("*.intent")) == []


def test_a_full_queue_disk_refuses_the_push_and_says_so(served: Served, work: Work) -> None:
    work.commit()
    served.repositories.queue.rmdir()
    output = work.git("push", served.url(), "main", ok=False)
    assert any("nothing was stored" in line for line in remote_lines(output))


def test_the_hook_needs_nothing_but_the_standard_library(served: Served) -> None:
    for name in ("pre-receive", "post-receive"):
        head = (served.repositories.hooks / name).read_text().splitlines()[0]
        assert head.startswith("#!/")
        assert head.endswith(" -IS")
    done = subprocess.run(
        [sys.executable, "-IS", served.repositories.hooks / "post-receive"], input=b"", check=False, env={}
    )
    assert done.returncode == 0


def test_a_commit_that_comes_for_two_branches_comes_for_the_release_branch(served: Served, work: Work) -> None:
    commit = work.commit()
    # git tells the refs in the order of their names.
    work.git("push", served.url(), "HEAD:refs/heads/feature", "HEAD:refs/heads/main", "HEAD:refs/heads/zoo")
    assert [(push.commit, push.branch) for push in served.repositories.queued()] == [(commit, "main")]
