"""The guestbook against a real PostgreSQL."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(FOLDER))

pytest.importorskip("flask")
pytest.importorskip("pg8000")

from flask.testing import FlaskClient  # noqa: E402
from guestbook.binding import Database, load  # noqa: E402
from guestbook.store import Store, Unavailable  # noqa: E402
from guestbook.web import COOKIE, create_app  # noqa: E402
from werkzeug.test import TestResponse  # noqa: E402

PASSWORD = "only-for-this-test"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Postgres:
    """A server of its own, that can be stopped and started. PostgreSQL refuses root, so it runs as postgres then."""

    def __init__(self, home: Path, binaries: Path) -> None:
        self.home, self.binaries, self.port = home, binaries, free_port()
        self.prefix = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"] if os.geteuid() == 0 else []
        if self.prefix:
            shutil.chown(home, "postgres", "postgres")
        (home / "password").write_text(PASSWORD)
        (home / "password").chmod(0o644)
        self._run("initdb", "-D", str(home / "data"), "-U", "guest", f"--pwfile={home / 'password'}", "-A",
                  "scram-sha-256", "--no-sync", "-E", "UTF8", "--locale=C")  # fmt: skip

    def _run(self, tool: str, *arguments: str) -> None:
        command = [*self.prefix, str(self.binaries / tool), *arguments]
        subprocess.run(command, check=True, capture_output=True, cwd=self.home, timeout=60)

    def start(self) -> None:
        options = f"-c listen_addresses=127.0.0.1 -p {self.port} -k {self.home} -c fsync=off"
        self._run("pg_ctl", "-D", str(self.home / "data"), "-w", "-l", str(self.home / "log"), "-o", options, "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-D", str(self.home / "data"), "-w", "-m", "immediate", "stop")

    def bind(self, root: Path) -> Path:
        folder = root / "db"
        folder.mkdir(parents=True)
        for key, value in {"type": "postgres", "host": "127.0.0.1", "port": str(self.port), "database": "postgres",
                           "username": "guest", "password": PASSWORD}.items():  # fmt: skip
            (folder / key).write_text(f"{value}\n")
        return root


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("PostgreSQL is not installed")
    # Not below pytest's folder: that one is closed to the user postgres.
    home = Path("/tmp") / f"guestbook-test-{os.getpid()}"
    home.mkdir(mode=0o755)
    server = Postgres(home, found[-1].parent)
    try:
        server.start()
        yield server
        server.stop()
    finally:
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def store(postgres: Postgres, tmp_path: Path) -> Iterator[Store]:
    root = postgres.bind(tmp_path / "bindings")
    kept = Store(lambda: load(root))
    yield kept
    kept.close()


def sign(client: FlaskClient, author: str, message: str) -> TestResponse:
    found = re.search(r'name="token" value="([^"]+)"', client.get("/").get_data(as_text=True))
    assert found
    token = found[1]
    return client.post("/entries", data={"author": author, "message": message, "token": token})


def test_an_entry_is_written_and_shown_as_text_not_as_markup(store: Store) -> None:
    client = create_app(store).test_client()
    assert sign(client, "Bashō'); DROP TABLE entries; --", "<script>alert(1)</script>").status_code == 303
    page = client.get("/").get_data(as_text=True)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<script>" not in page
    assert "Bashō&#39;); DROP TABLE entries; --" in page


def test_a_form_of_another_site_is_refused(store: Store) -> None:
    client = create_app(store).test_client()
    count = len(store.entries())
    assert client.post("/entries", data={"author": "a", "message": "b"}).status_code == 403
    client.set_cookie(COOKIE, "known")
    assert client.post("/entries", data={"author": "a", "message": "b", "token": "guessed"}).status_code == 403
    assert len(store.entries()) == count


@pytest.mark.parametrize(("author", "message"), [("", "b"), ("a", "   "), ("a" * 61, "b"), ("a", "b" * 1001)])
def test_what_does_not_fit_is_refused_and_kept_in_the_form(store: Store, author: str, message: str) -> None:
    client = create_app(store).test_client()
    count = len(store.entries())
    answer = sign(client, author, message)
    assert answer.status_code == 400
    assert f'value="{author}"' in answer.get_data(as_text=True)
    assert len(store.entries()) == count


def test_a_nul_byte_does_no_harm(store: Store) -> None:
    client = create_app(store).test_client()
    assert sign(client, "nu\0l", "by\0te").status_code == 303
    assert store.entries()[0].author == "nul"


def test_entries_survive_a_restart_of_the_database(store: Store, postgres: Postgres) -> None:
    client = create_app(store).test_client()
    store.add("before", "the restart")
    assert client.get("/healthz").status_code == 200
    postgres.stop()
    try:
        assert client.get("/healthz").status_code == 503
        assert client.get("/livez").status_code == 200
        page = client.get("/")
        assert page.status_code == 503
        assert "does not answer" in page.get_data(as_text=True)
        with pytest.raises(Unavailable):
            store.add("during", "the restart")
    finally:
        postgres.start()
    assert client.get("/healthz").status_code == 200
    assert store.entries()[0].author == "before"


def test_without_a_binding_it_is_alive_but_not_ready(tmp_path: Path) -> None:
    client = create_app(Store(lambda: load(tmp_path))).test_client()
    assert client.get("/healthz").status_code == 503
    assert client.get("/livez").status_code == 200


def test_the_password_does_not_show() -> None:
    assert PASSWORD not in repr(Database("host", 5432, "name", "user", PASSWORD))


def test_info_says_what_the_line_said(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEKISHO_ZONE", "staging")
    monkeypatch.setenv("SEKISHO_RELEASE", "sha256:" + "ab" * 32)
    client = create_app(store).test_client()
    expected = {"app": "guestbook", "release": "sha256:" + "ab" * 32, "zone": "staging"}
    assert client.get("/api/info").json == expected
    page = client.get("/").get_data(as_text=True)
    assert "<strong>staging</strong>" in page
    assert ">abababababab<" in page


def test_the_program_serves_and_ends_on_sigterm(postgres: Postgres, tmp_path: Path) -> None:
    port = free_port()
    environment = {"PATH": os.environ["PATH"], "PORT": str(port), "PYTHONUNBUFFERED": "1",
                   "SERVICE_BINDING_ROOT": str(postgres.bind(tmp_path / "bindings"))}  # fmt: skip
    process = subprocess.Popen([sys.executable, "-m", "guestbook"], cwd=FOLDER, env=environment)
    try:
        for _ in range(200):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5) as answer:
                    status = answer.status
                break
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.05)
        else:
            pytest.fail("it did not come up")
        assert status == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0
    finally:
        process.kill()
