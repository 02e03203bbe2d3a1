"""The way from a port of this machine to whichever pod is the newest good one."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import pytest

from sekisho.errors import PermanentError, TemporaryError
from sekisho.kube_forward import Refused
from stages.dev.forward import _KEEP, _PIECE, Forward, listen


class SocketChannel:
    """A channel that is a plain connection on this machine; in a pod it goes through the API server."""

    def __init__(self, port: int) -> None:
        try:
            self._socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        except OSError:
            self._socket = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, data: bytes) -> None:
        if self._socket is not None:
            try:
                self._socket.sendall(data)
            except OSError as error:
                raise TemporaryError("closed") from error

    def receive(self, _timeout: float | None = None) -> bytes:
        if self._socket is None:
            raise Refused("connection refused")
        try:
            return self._socket.recv(65536)
        except OSError:
            return b""

    def close(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()


class Pods:
    """A dialer to pods by name, each of which is a port of this machine."""

    def __init__(self) -> None:
        self.ports: dict[str, int] = {}
        self.dialled = 0

    def open(self, _namespace: str, pod: str, _port: int) -> SocketChannel:
        self.dialled += 1
        if pod not in self.ports:
            raise Refused("no such pod")
        return SocketChannel(self.ports[pod])


class Program(ThreadingHTTPServer):
    """A program that says its name, and counts what it was asked."""

    daemon_threads = True

    def __init__(self, name: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.name = name
        self.asked: list[bytes] = []
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append(body)  # type: ignore[attr-defined]
        answer = f"{self.server.name} {len(body)}".encode()  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def pods() -> Pods:
    return Pods()


@pytest.fixture
def forward(pods: Pods) -> Iterator[Forward]:
    made = Forward(pods, "dev-ann-x", 8080, listen("dev-ann-x", 0, exactly=False))  # type: ignore[arg-type]
    yield made
    made.close()


def post(forward: Forward, body: bytes = b"hello") -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", int(forward.url.rpartition(":")[2]), timeout=30)
    try:
        connection.request("POST", "/", body)
        return connection.getresponse().read()
    finally:
        connection.close()


def test_a_request_reaches_the_pod(pods: Pods, forward: Forward) -> None:
    pods.ports["one"] = Program("one").server_port
    forward.point_to("one", 8080)
    assert post(forward) == b"one 5"


def test_a_large_body_goes_both_ways(pods: Pods, forward: Forward) -> None:
    program = Program("one")
    pods.ports["one"] = program.server_port
    forward.point_to("one", 8080)
    body = bytes(range(256)) * 8192
    assert post(forward, body) == f"one {len(body)}".encode()
    assert program.asked == [body]


def test_one_connection_carries_several_requests(pods: Pods, forward: Forward) -> None:
    pods.ports["one"] = Program("one").server_port
    forward.point_to("one", 8080)
    connection = http.client.HTTPConnection("127.0.0.1", int(forward.url.rpartition(":")[2]), timeout=30)
    for _ in range(3):
        connection.request("POST", "/", b"abc")
        assert connection.getresponse().read() == b"one 3"
    connection.close()
    assert pods.dialled == 1


def test_a_new_target_takes_the_next_caller(pods: Pods, forward: Forward) -> None:
    pods.ports = {"one": Program("one").server_port, "two": Program("two").server_port}
    forward.point_to("one", 8080)
    assert post(forward) == b"one 5"
    forward.point_to("two", 8080)
    assert post(forward) == b"two 5"


def test_a_caller_waits_for_the_first_version(pods: Pods, forward: Forward) -> None:
    pods.ports["one"] = Program("one").server_port
    threading.Timer(0.3, forward.point_to, ("one", 8080)).start()
    assert post(forward) == b"one 5"


def test_a_caller_waits_while_the_program_is_exchanged_and_is_heard_once(pods: Pods, forward: Forward) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        pods.ports["one"] = free.getsockname()[1]
    forward.point_to("one", 8080)
    made: list[Program] = []

    def start() -> None:
        made.append(Program("late"))
        pods.ports["one"] = made[0].server_port

    threading.Timer(0.5, start).start()
    assert post(forward, b"once") == b"late 4"
    assert made[0].asked == [b"once"]
    assert pods.dialled > 1


def test_a_request_that_was_heard_is_not_sent_again(pods: Pods, forward: Forward) -> None:
    """The program takes the request and dies: nobody knows what it has done."""
    asked: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def once() -> None:
        with contextlib.suppress(OSError):  # the listener is closed in the end
            while True:
                caller, _ = listener.accept()
                asked.append(caller.recv(65536))
                caller.close()

    threading.Thread(target=once, daemon=True).start()
    pods.ports["one"] = listener.getsockname()[1]
    forward.point_to("one", 8080)
    with pytest.raises((http.client.HTTPException, OSError)):
        post(forward)
    assert len(asked) == 1
    listener.close()


def test_an_idle_connection_is_ended_and_one_that_waits_for_its_answer_is_not(pods: Pods, forward: Forward) -> None:
    asked, go = threading.Event(), threading.Event()

    class Slow(Handler):
        def do_POST(self) -> None:
            if self.path == "/slow":
                asked.set()
                go.wait(30)
            super().do_POST()

    program = Program("one")
    program.RequestHandlerClass = Slow
    pods.ports["one"] = program.server_port
    forward.point_to("one", 8080)
    port = int(forward.url.rpartition(":")[2])
    idle, slow = (http.client.HTTPConnection("127.0.0.1", port, timeout=30) for _ in range(2))
    idle.request("POST", "/", b"abc")
    assert idle.getresponse().read() == b"one 3"
    slow.request("POST", "/slow", b"abcd")
    assert asked.wait(30)
    forward.hang_up()
    assert idle.sock is not None
    assert idle.sock.recv(1) == b""
    go.set()
    assert slow.getresponse().read() == b"one 4"
    idle.close()
    slow.close()


def test_nobody_else_of_the_network_comes_in(forward: Forward) -> None:
    assert forward.url.startswith("http://127.0.0.1:")


def test_ports_do_not_collide_and_stay_the_same() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        wanted = taken.getsockname()[1]
        first = listen("dev-ann-x", wanted, exactly=False)
        second = listen("dev-ann-x", wanted, exactly=False)
        ports = [sock.getsockname()[1] for sock in (first, second)]
        first.close()
        again = listen("dev-ann-x", wanted, exactly=False)
        assert len({wanted, *ports}) == 3
        assert again.getsockname()[1] == ports[0]
        with pytest.raises(PermanentError, match="is taken"):
            listen("dev-ann-x", wanted, exactly=True)
        second.close()
        again.close()


def test_a_closed_forward_takes_nobody(pods: Pods) -> None:
    made = Forward(pods, "n", 8080, listen("n", 0, exactly=False))  # type: ignore[arg-type]
    port = int(made.url.rpartition(":")[2])
    made.close()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=5)


# -- large requests -------------------------------------------------------------------------------------------------


class Swallowing:
    """A channel to a program that reads all and has not answered yet."""

    def __init__(self, dialer: Swallower) -> None:
        self._dialer = dialer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def send(self, data: bytes) -> None:
        self._dialer.taken += len(data)
        if self._dialer.taken >= self._dialer.enough:
            self._dialer.full.set()

    def receive(self, _timeout: float | None = None) -> bytes:
        self._dialer.over.wait(60)
        return b""

    def close(self) -> None:
        pass


class Swallower:
    def __init__(self, enough: int) -> None:
        self.enough = enough
        self.taken = 0
        self.full, self.over = threading.Event(), threading.Event()

    def open(self, *_: Any) -> Swallowing:
        return Swallowing(self)


def test_of_a_large_upload_no_more_is_kept_than_can_be_given_again() -> None:
    size = 8 << 20
    dialer = Swallower(size)
    made = Forward(dialer, "n", 8080, listen("n", 0, exactly=False))  # type: ignore[arg-type]
    made.point_to("one", 8080)
    with socket.create_connection(("127.0.0.1", int(made.url.rpartition(":")[2])), timeout=30) as caller:
        caller.sendall(bytes(size))
        assert dialer.full.wait(60)
        assert [len(sent._kept) <= _KEEP for sent in made._served] == [True]
    dialer.over.set()
    made.close()
    assert dialer.taken == size


def test_a_large_upload_waits_with_its_rest_for_the_first_version(pods: Pods, forward: Forward) -> None:
    """Nothing of it is lost, and no more than the beginning is kept meanwhile."""
    body = bytes(range(256)) * (16 << 10)
    answers: list[bytes] = []
    asking = threading.Thread(target=lambda: answers.append(post(forward, body)), daemon=True)
    asking.start()
    most = 0
    for _ in range(600):
        most = max([most, *(len(sent._kept) for sent in forward._served)])
        if most > _KEEP:
            break
        asking.join(0.05)
    assert _KEEP < most <= _KEEP + _PIECE
    program = Program("one")
    pods.ports["one"] = program.server_port
    forward.point_to("one", 8080)
    asking.join(60)
    assert (answers, program.asked) == ([f"one {len(body)}".encode()], [body])


def test_a_caller_that_is_given_up_is_told_so() -> None:
    """Its connection ends, and nobody goes on to read from it."""
    made = Forward(Pods(), "n", 8080, listen("n", 0, exactly=False))  # type: ignore[arg-type]
    with socket.create_connection(("127.0.0.1", int(made.url.rpartition(":")[2])), timeout=60) as caller:
        caller.sendall(b"GET / HTTP/1.1")
        while not made._served:
            threading.Event().wait(0.01)
        made.close()
        assert caller.recv(1) == b""
